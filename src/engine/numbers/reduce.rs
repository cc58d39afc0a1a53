//! Runs a kernel on chunks, and a second kernel that combines two results, in the tree that the README specifies.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::super::job::run_kernel;
use super::super::map::Calls;
use super::super::seeds::Series;
use super::super::{Engine, Job, JobError, Par};
use super::chunks;
use crate::array::{Array, Element};
use crate::kernel::{
    Arg, Args, Bind, Kernel, KernelInfo, Leaves, Param, Reply, Single, captures_nothing,
};
use crate::kernel::{SplitFirst, Subtree, Top, node};

/// The approximate maximum duration of a run: long compared to the cost of a job, about 20 µs.
const RUN: Duration = Duration::from_millis(10);
/// A run has at most this part (1/`PART`) of each lane's share of the remaining chunks, so that all lanes end at about
/// the same time. With thirds instead of halves, there were 1.5 times as many jobs, and a round of k-means took 1.5 %
/// longer; with all remaining chunks, two lanes did not end together.
const PART: usize = 2;
/// The approximate maximum size in bytes of all results within a run: a worker may have to retain them all until its
/// job ends.
const RETAINED: u64 = 4 << 20;

impl<T: Element> Par<'_, T> {
    /// Runs `kernel` on each chunk of the array, and `combine` on two results at a time until one result is left.
    ///
    /// Chunks are cut between steps of the leading axis. The chunks, and the pairs of results that are combined, depend
    /// only on shape and element type, so the result has the same bits for any number of workers. `combine` gets
    /// neighbouring results, the left one first: it has to be associative in the way your problem requires, and need
    /// not be commutative. An array without steps is one empty chunk.
    ///
    /// `kernel` takes the chunk and then `args`, which are the same for all chunks: numbers, and arrays that all chunks
    /// read.
    ///
    /// Neighbouring chunks that are quick and return little become one job, which also combines their results. In
    /// [`Engine::stats`](crate::Engine::stats) and traces, jobs of chunks have the names of both kernels.
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
    /// let counts = engine.par(&table).reduce(above, (&limits,), add)?;
    /// assert_eq!(counts[..], [990, 666, 0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first failure of a job, which cancels the other jobs.
    pub fn reduce<F, P, R, A, C, X, Y, S>(
        &self,
        kernel: F,
        args: A,
        combine: C,
    ) -> Result<R::Out, JobError>
    where
        F: Bind<A>,
        F::Kernel: Kernel<P, R>,
        F::Args: Args<'static, P::Rest> + Copy,
        P: SplitFirst,
        R: Reply,
        Array<T>: Arg<'static, P::First>,
        C: Kernel<(X, Y), S>,
        X: Param,
        Y: Param,
        S: Reply<Out = R::Out>,
        R::Out: Arg<'static, X> + Arg<'static, Y> + Send + 'static,
    {
        const { captures_nothing::<F::Kernel>() };
        let (engine, a) = (self.engine, self.array);
        // Only the types of the kernels are used: their values have no bytes.
        let ((_, args), _) = (kernel.bind(args), combine);
        let rows = a.shape().rows();
        let step = chunks::rows::<T>(a.shape());
        let series = engine.seeds.series();
        let number = series.number();
        // A kernel that spawns has no value yet when it returns, so its chunk cannot share a job.
        let alone = R::SPAWNS || S::SPAWNS;
        let shared = engine.supervisor().filter(|_| !alone);
        let runs = Runs {
            leaves: rows.div_ceil(step).max(1),
            lanes: shared.map(|shared| shared.active_lanes()),
            next: Cell::new(0),
            began: Instant::now(),
            done: Cell::new(0),
            largest: Cell::new(1),
            sent: RefCell::default(),
        };
        let items = std::iter::from_fn(|| {
            let run = runs.cut()?;
            Some(Leaves {
                rows: a.rows(run.start * step..rows.min(run.end * step)),
                count: run.len(),
                step,
                first: run.start,
                series: number,
                rest: args,
            })
        });
        let mut calls = Calls {
            kernel: KernelInfo::of::<Subtree<T, F::Kernel, P, R, C, X, Y, S>>(),
            send: Leaves::send::<P>,
            run: |leaf: Leaves<T, F::Args>| run_kernel::<F::Kernel, P, R>(leaf.hold_single::<P>()),
            read: Top::<R, S>::receive,
        };
        if alone {
            calls.kernel = KernelInfo::of::<Single<F::Kernel, P, R>>();
            calls.send = Leaves::send_single::<P>;
            calls.read = R::receive;
        }
        let mut tree = Tree::<_, C, X, Y, S> {
            engine,
            series: series.clone(),
            waiting: BTreeMap::new(),
            running: VecDeque::new(),
            combine: PhantomData,
        };
        // Results are taken in any order: the first runs are the longest, and the other results should not wait for
        // them.
        for (index, value) in engine.map_calls(calls, series, items).unordered() {
            tree.settle(Job::is_done)?;
            let value = value?;
            let run = runs.ended(index, Arg::<X>::bytes_held(&value));
            let level = run.len().ilog2() as usize;
            tree.insert(level, run.start >> level, value);
        }
        tree.finish()
    }
}

/// Divides the leaves into *runs*: neighbouring leaves that become one job. The lengths of runs depend on measured
/// times, but each run is a whole subtree, so the result does not depend on these lengths.
struct Runs {
    /// Number of leaves.
    leaves: usize,
    /// Number of lanes, or `None` if each leaf is a run.
    lanes: Option<usize>,
    /// The first leaf of the next run.
    next: Cell<usize>,
    began: Instant,
    /// Number of leaves whose values have arrived.
    done: Cell<usize>,
    /// The size of the largest value so far, in bytes.
    largest: Cell<u64>,
    /// All runs so far, each as its range of leaves.
    sent: RefCell<Vec<Range<usize>>>,
}

impl Runs {
    fn cut(&self) -> Option<Range<usize>> {
        let start = self.next.get();
        let left = self.leaves - start;
        if left == 0 {
            return None;
        }
        let most = match (self.lanes, self.done.get() as u32) {
            // Each leaf is a run, or the time of a leaf is not known yet.
            (None, _) | (_, 0) => 1,
            (Some(lanes), done) => {
                let one = self.began.elapsed() * lanes as u32 / done;
                let in_time = RUN.as_nanos() / one.as_nanos().max(1);
                // A run has about two results for each leaf: that of `kernel`, and one of `combine`.
                let in_memory = RETAINED / (2 * self.largest.get());
                let most = (left / (PART * lanes)).min(in_time as usize);
                most.min(in_memory as usize).max(1)
            }
        };
        // A run is a whole subtree: its length is a power of two, and its start is a multiple of its length.
        let level = most.ilog2().min(start.trailing_zeros());
        let run = start..start + (1 << level);
        self.next.set(run.end);
        self.sent.borrow_mut().push(run.clone());
        Some(run)
    }

    /// Records that the value of run `number`, which takes `bytes` bytes, has arrived. Returns the run.
    fn ended(&self, number: usize, bytes: u64) -> Range<usize> {
        self.largest.set(self.largest.get().max(bytes));
        let run = self.sent.borrow()[number].clone();
        self.done.set(self.done.get() + run.len());
        run
    }
}

/// Combines results from the leaves to the root.
struct Tree<'e, V, C, X, Y, S> {
    engine: &'e Engine,
    /// The series of the random numbers that the nodes draw.
    series: Series,
    /// Values that wait for the neighbouring value, by level and index.
    waiting: BTreeMap<(usize, usize), V>,
    /// Jobs that combine two values, by level and index of their result.
    running: VecDeque<((usize, usize), Job<V>)>,
    combine: PhantomData<(C, X, Y, S)>,
}

impl<V, C, X, Y, S> Tree<'_, V, C, X, Y, S>
where
    C: Kernel<(X, Y), S>,
    X: Param,
    Y: Param,
    S: Reply<Out = V>,
    V: Arg<'static, X> + Arg<'static, Y> + Send + 'static,
{
    /// Inserts the result of a node; leaves have level 0. Starts a job if the neighbouring value has arrived.
    fn insert(&mut self, level: usize, index: usize, value: V) {
        let Some(neighbour) = self.waiting.remove(&(level, index ^ 1)) else {
            self.waiting.insert((level, index), value);
            return;
        };
        let (left, right) = match index % 2 {
            0 => (value, neighbour),
            _ => (neighbour, value),
        };
        let above = (level + 1, index / 2);
        let job = self.combine(left, right, above);
        self.running.push_back((above, job));
    }

    fn combine(&self, left: V, right: V, (level, index): (usize, usize)) -> Job<V> {
        let args = (left, right);
        let node = node(level, index);
        match self.engine.supervisor() {
            None => {
                let _job = self.series.begin_inline(node);
                let held = Args::<(X, Y)>::hold(args);
                Job::ready(run_kernel::<C, (X, Y), S>(held))
            }
            Some(shared) => Job::send::<Single<C, (X, Y), S>>(shared, |call| {
                Args::<(X, Y)>::send(args, call);
                call.0.seed = self.series.seed(node);
            }),
        }
    }

    /// Inserts the results of combining jobs, oldest first, while `ready` returns true for the job. `ready` affects
    /// only when values are combined, not which values.
    fn settle(&mut self, ready: impl Fn(&Job<V>) -> bool) -> Result<(), JobError> {
        while self.running.front().is_some_and(|(_, job)| ready(job)) {
            if let Some(((level, index), job)) = self.running.pop_front() {
                self.insert(level, index, job.wait()?);
            }
        }
        Ok(())
    }

    /// Waits for all jobs, and combines the values that have no neighbouring value, from the right.
    fn finish(mut self) -> Result<V, JobError> {
        self.settle(|_| true)?;
        // At most one value is left for each level. The value of the lowest level is the rightmost.
        let mut left = std::mem::take(&mut self.waiting).into_iter();
        let (_, last) = left.next().expect("there is one leaf at least");
        left.try_fold(last, |right, ((level, index), left)| {
            let above = (level + 1, index / 2);
            self.combine(left, right, above).wait()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(leaves: usize, lanes: usize) -> Runs {
        Runs {
            leaves,
            lanes: Some(lanes),
            next: Cell::new(0),
            began: Instant::now() + Duration::from_secs(3600),
            done: Cell::new(0),
            largest: Cell::new(1),
            sent: RefCell::default(),
        }
    }

    /// Returns the lengths of all runs if each run ends, with a value of `bytes` bytes, before the next run is cut.
    fn lengths(runs: &Runs, bytes: u64) -> Vec<usize> {
        let mut number = 0..;
        let cut = std::iter::from_fn(|| {
            let run = runs.cut()?;
            assert_eq!(runs.ended(number.next()?, bytes), run);
            Some(run)
        });
        let mut at = 0;
        cut.map(|run| {
            assert_eq!((run.start, run.start % run.len()), (at, 0));
            at = run.end;
            run.len()
        })
        .collect()
    }

    #[test]
    fn runs_are_whole_subtrees_that_grow_and_shrink() {
        let all = lengths(&runs(250, 2), 8);
        assert_eq!(all.iter().sum::<usize>(), 250);
        assert_eq!(all[..7], [1, 1, 2, 4, 8, 16, 32]);
        assert_eq!(all[all.len() - 6..], [1; 6]);
        assert!(all.len() < 50, "{all:?}");
        assert_eq!(lengths(&runs(250, 100), 8), [1; 250]);
        assert_eq!(lengths(&runs(1, 2), 8), [1]);
    }

    #[test]
    fn runs_of_large_values_are_short() {
        let all = lengths(&runs(256, 1), 256 << 10);
        assert_eq!(all.iter().max(), Some(&8));
        assert_eq!(lengths(&runs(256, 1), 4 << 20), [1; 256]);
    }

    #[test]
    fn each_slow_chunk_is_a_job() {
        let slow = Runs {
            began: Instant::now() - Duration::from_secs(10),
            ..runs(100, 1)
        };
        assert_eq!(lengths(&slow, 8), [1; 100]);
    }
}
