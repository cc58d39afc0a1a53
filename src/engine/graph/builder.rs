//! A node under construction.

use std::fmt;
use std::marker::PhantomData;

use super::{Graph, Node};
use crate::array::{Element, Shape};
use crate::engine::job::option_setters;
use crate::supervisor::JobOptions;

/// A node under construction: see [`Graph::job`].
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
/// // Needs no permit.
/// let sum = graph.add(|a: u64, b: u64| a + b, (&first, &second));
/// assert_eq!(graph.run(&engine, &sum)?.wait()?, 30);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "`add` returns the node"]
pub struct NodeBuilder<'g, R, A> {
    graph: &'g mut Graph,
    node: Node<R>,
    options: JobOptions,
    inputs: PhantomData<fn() -> A>,
}

impl<'g, R, A> NodeBuilder<'g, R, A> {
    pub(super) fn new(graph: &'g mut Graph, node: Node<R>) -> Self {
        Self {
            graph,
            node,
            options: JobOptions::default(),
            inputs: PhantomData,
        }
    }

    /// Names the node in errors and pictures.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.graph.names.insert(self.node.index, name.into());
        self
    }

    fn with_options(mut self, change: impl FnOnce(&mut JobOptions)) -> Self {
        change(&mut self.options);
        self
    }

    option_setters!(for_this_thread, A,);

    /// Declares the size of the value: an array of `T` with this shape.
    ///
    /// # Panics
    /// If the size exceeds the address space.
    pub fn shape<T: Element>(self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        match shape.bytes::<T>() {
            Some(bytes) => self.bytes(bytes as u64),
            None => panic!("an array of shape {shape} does not fit the address space"),
        }
    }

    /// Declares the size of the value: the bytes of the arena that it takes.
    pub fn bytes(self, bytes: u64) -> Self {
        self.graph.bytes.insert(self.node.index, bytes);
        self
    }

    /// Adds the node.
    pub fn add(self) -> Node<R> {
        if self.options.if_set().is_some() {
            self.graph.options.push(self.options);
            let options = self.graph.options.len() as u32;
            self.graph.nodes[self.node.index as usize].options = options;
        }
        self.node
    }
}

impl<R, A> fmt::Debug for NodeBuilder<'_, R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("node", &self.node)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
