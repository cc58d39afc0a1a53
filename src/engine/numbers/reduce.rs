//! Any kernel over chunks, and another that combines two results: the tree of the README.

use std::collections::VecDeque;
use std::marker::PhantomData;

use super::super::seeds::Series;
use super::super::{Engine, Job, JobError};
use super::chunks;
use crate::array::{Array, Element};
use crate::kernel::{Ahead, Arg, Args, Kernel, Param, Reply, Single, SplitFirst};

impl Engine {
    /// Runs `kernel` on each chunk of an array, and `combine` on two results at a time until one is left.
    ///
    /// Chunks are cut between steps of the leading axis. Where they are cut, and which results are combined with which,
    /// depends on shape and element type alone, so the result has the same bits whatever the number of workers is.
    /// `combine` gets neighbours, the left one first: it has to be associative in the way your problem wants it, and need
    /// not be commutative. An array without steps is one empty chunk.
    ///
    /// `kernel` takes the chunk and then `args`, which are the same for all chunks: numbers, and arrays that all of them
    /// read.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::Array;
    ///
    /// /// For each column: how many values are above that column's limit.
    /// fn above(rows: &Array<f32>, limits: &[f32]) -> Array<u64> {
    ///     let columns = limits.len();
    ///     Array::from_fn(columns, |c| {
    ///         rows.chunks(columns).filter(|row| row[c] > limits[c]).count() as u64
    ///     })
    /// }
    /// fn add(a: &[u64], b: &[u64]) -> Array<u64> {
    ///     Array::from_fn(a.len(), |i| a[i] + b[i])
    /// }
    ///
    /// let table = engine.from_fn([1000, 3], |i| i as f32)?;
    /// let limits = engine.from_slice(&[29.0, 1000.0, 9999.0])?;
    /// let counts = engine.reduce(&table, above, (&limits,), add)?;
    /// assert_eq!(counts[..], [990, 666, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first failure of a job; the others are cancelled then.
    pub fn reduce<T, F, P, R, A, C, X, Y, S>(
        &self,
        a: &Array<T>,
        kernel: F,
        args: A,
        combine: C,
    ) -> Result<R::Out, JobError>
    where
        T: Element,
        F: Kernel<P, R>,
        P: SplitFirst,
        R: Reply,
        Array<T>: Arg<'static, P::First>,
        A: Args<'static, P::Rest> + Copy,
        C: Kernel<(X, Y), S>,
        X: Param,
        Y: Param,
        S: Reply<Out = R::Out>,
        R::Out: Arg<'static, X> + Arg<'static, Y> + Send + 'static,
    {
        let mut tree = Tree {
            engine: self,
            combine,
            series: self.seeds.series(),
            waiting: Vec::new(),
            running: VecDeque::new(),
            reply: PhantomData,
        };
        let calls = chunks::along(a).map(|first| Ahead { first, rest: args });
        for value in self.map(kernel, calls) {
            tree.settle(Job::is_done)?;
            tree.insert(0, value?);
        }
        tree.finish()
    }
}

/// Results on their way up.
struct Tree<'e, V, C, X, Y, S> {
    engine: &'e Engine,
    combine: C,
    /// For the random numbers of `combine`.
    series: Series,
    /// For each level the one that waits for its neighbour to the right, and how many pairs there were.
    waiting: Vec<(Option<V>, u64)>,
    /// Those that are being combined, and the level that they will have. Of each level in order.
    running: VecDeque<(usize, Job<V>)>,
    reply: PhantomData<fn(X, Y) -> S>,
}

impl<V, C, X, Y, S> Tree<'_, V, C, X, Y, S>
where
    C: Kernel<(X, Y), S>,
    X: Param,
    Y: Param,
    S: Reply<Out = V>,
    V: Arg<'static, X> + Arg<'static, Y> + Send + 'static,
{
    /// Places the next result of a level.
    fn insert(&mut self, level: usize, right: V) {
        if level == self.waiting.len() {
            self.waiting.push((None, 0));
        }
        let (waiting, pairs) = &mut self.waiting[level];
        let Some(left) = waiting.take() else {
            *waiting = Some(right);
            return;
        };
        *pairs += 1;
        let node = (level as u64) << 48 | *pairs;
        let job = self.combine(left, right, node);
        self.running.push_back((level + 1, job));
    }

    fn combine(&self, left: V, right: V, node: u64) -> Job<V> {
        let args = (left, right);
        match self.engine.shared() {
            None => {
                let _job = self.series.here(node);
                let held = Args::<(X, Y)>::hold(args);
                Job::run_here::<C, (X, Y), S>(self.combine, held)
            }
            Some(shared) => Job::send::<Single<C, (X, Y), S>>(shared, |call| {
                Args::<(X, Y)>::send(args, call);
                call.0.seed = self.series.seed(node);
            }),
        }
    }

    /// Places what was combined, as long as `ready` says so of the oldest job. That changes when something is
    /// combined, and never what is combined with what.
    fn settle(&mut self, ready: impl Fn(&Job<V>) -> bool) -> Result<(), JobError> {
        while self.running.front().is_some_and(|(_, job)| ready(job)) {
            if let Some((level, job)) = self.running.pop_front() {
                self.insert(level, job.wait()?);
            }
        }
        Ok(())
    }

    /// Combines what is left, from the right.
    fn finish(mut self) -> Result<V, JobError> {
        self.settle(|_| true)?;
        let left = std::mem::take(&mut self.waiting);
        let left = (0..).zip(left);
        let mut left = left.filter_map(|(level, (value, _))| Some((level, value?)));
        let (_, last) = left.next().expect("there is one chunk at least");
        left.try_fold(last, |right, (level, left)| {
            self.combine(left, right, level << 48).wait()
        })
    }
}
