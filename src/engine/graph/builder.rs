//! A node under construction.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::{Graph, Node};
use crate::array::{Element, Shape};
use crate::engine::{Backoff, Limiter, Priority};
use crate::kernel::RetrySafe;
use crate::supervisor::{Limit, Terms};

/// A node under construction: see [`Graph::job`].
#[must_use = "`add` returns the node"]
pub struct NodeBuilder<'g, R, A> {
    graph: &'g mut Graph,
    node: Node<R>,
    terms: Terms,
    inputs: PhantomData<fn() -> A>,
}

impl<'g, R, A> NodeBuilder<'g, R, A> {
    pub(super) fn new(graph: &'g mut Graph, node: Node<R>) -> Self {
        Self {
            graph,
            node,
            terms: Terms::default(),
            inputs: PhantomData,
        }
    }

    /// What errors and pictures call it.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.graph.names.insert(self.node.index, name.into());
        self
    }

    /// Runs it again, up to this many times: see [`JobBuilder::retries`](crate::engine::JobBuilder::retries). What depends on it
    /// waits meanwhile.
    pub fn retries(mut self, retries: u32) -> Self
    where
        A: RetrySafe,
    {
        self.terms.retries = retries;
        self
    }

    /// With retries: they are also for the `Err`s that the kernel returns, where what it asks for may be there the next
    /// time: see [`JobBuilder::retry_errors`](crate::engine::JobBuilder::retry_errors). Without them it changes nothing.
    pub fn retry_errors(mut self) -> Self {
        self.terms.retry_errors = true;
        self
    }

    /// The pauses between attempts; by default 10 ms, doubling up to a second. Without retries there are none.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.terms.backoff = backoff;
        self
    }

    /// How long one attempt may run: see [`JobBuilder::deadline`](crate::engine::JobBuilder::deadline).
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.terms.deadline = Some(limit);
        self
    }

    /// Which of the jobs that wait for a worker goes first.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.terms.priority = priority;
        self
    }

    /// Its value is an array of this shape; or all arrays of its value together are as large as one.
    ///
    /// # Panics
    /// If its size does not fit the address space.
    pub fn shape<T: Element>(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        match shape.bytes::<T>() {
            Some(bytes) => self.bytes(bytes as u64),
            None => panic!("an array of shape {shape} does not fit the address space"),
        }
    }

    /// Its value takes so many bytes of the arena.
    pub fn bytes(self, bytes: u64) -> Self {
        self.graph.bytes.insert(self.node.index, bytes);
        self
    }

    /// Each attempt needs a permit of this limiter: see [`JobBuilder::limit`](crate::engine::JobBuilder::limit). Whoever has the
    /// limiter shares it, in whichever graph or engine. Said again, the last one counts.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{Graph, Limiter};
    ///
    /// fn fetch(page: u64) -> u64 {
    ///     page * 10
    /// }
    ///
    /// let polite = Limiter::builder().concurrency(1).build();
    /// let mut graph = Graph::new();
    /// let first = graph.job(fetch, (1,)).limit(&polite).add();
    /// let second = graph.job(fetch, (2,)).limit(&polite).add();
    /// // It needs no permit.
    /// let sum = graph.add(|a: u64, b: u64| a + b, (&first, &second));
    /// assert_eq!(graph.run(&engine, &sum)?.wait()?, 30);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit(mut self, limiter: &Limiter) -> Self {
        self.terms.limit = Some(Limit::of_this_thread(limiter));
        self
    }

    /// The node.
    pub fn add(self) -> Node<R> {
        if self.terms.asked().is_some() {
            self.graph.terms.push(self.terms);
            let terms = self.graph.terms.len() as u32;
            self.graph.nodes[self.node.index as usize].terms = terms;
        }
        self.node
    }
}

impl<R, A> fmt::Debug for NodeBuilder<'_, R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("node", &self.node)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}
