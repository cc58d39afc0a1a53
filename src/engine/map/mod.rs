//! A kernel over an iterator.
#![doc = include_str!("README.md")]

mod feed;
mod retain;
mod stream;

use std::fmt;
use std::time::Duration;

use futures_core::Stream;

use super::job::{held, run_kernel};
use super::seeds::Series;
use super::{DeadLetter, Engine, JobError, JobFailure, Report};
use crate::kernel::{
    Args, Bind, Kernel, KernelInfo, Params, Reply, Single, captures_nothing, kernel_name,
};
use crate::supervisor::{JobOptions, Permits, ResultKey};
pub(super) use feed::{Calls, IN_A_ROW};
use feed::{Feed, MapPlan};
use retain::Retaining;
pub(super) use stream::MapStream;

/// Whether a map or a stream continues after a failure.
///
/// | set with | [`GoOn`](Self::GoOn) | [`Stop`](Self::Stop) | default |
/// |---|---|---|---|
/// | [`Map::on_failure`] | the failure is one result among others | it is the last result | `GoOn` |
/// | [`Stream::on_failure`](crate::stream::Stream::on_failure) | the item is counted and left out | the stream ends with the error | `Stop` |
///
/// A map returns each failure as a result, so continuing loses nothing. A stream that continues drops the item, so this
/// has to be requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFailure {
    /// The other jobs continue. The default of maps.
    #[default]
    GoOn,
    /// No more jobs start, and running jobs are cancelled. The default of streams.
    Stop,
}

/// The iterator of [`Engine::map`].
///
/// Dropping it cancels the jobs in flight.
///
/// `E` is the error type: a [`JobError`], or a [`DeadLetter`] after [`keep_args`](Self::keep_args). `K` is the key that
/// each result is returned with: no key if results come in the order of the items; after
/// [`unordered`](Self::unordered), the index of the item.
#[must_use = "a map is lazy: nothing runs before it is iterated over"]
pub struct Map<I: Iterator, R, E: JobFailure = JobError, K = ()> {
    feed: Feed<Retaining<I, E>, R, K>,
    /// The number of results returned so far.
    given: usize,
}

impl Engine {
    /// Runs a kernel on each item of an iterator, whose items are tuples of arguments. Returns the results in the order
    /// of the items.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn cube(n: u64) -> u64 {
    ///     n * n * n
    /// }
    ///
    /// let cubes: Result<Vec<u64>, _> = engine.map(cube, (0..4).map(|n| (n,))).collect();
    /// assert_eq!(cubes?, [0, 1, 8, 27]);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// | to | call |
    /// |---|---|
    /// | get each result as soon as it exists | [`unordered`](Map::unordered) |
    /// | iterate in `async` code | [`stream`](Map::stream) |
    /// | get the arguments of failed jobs | [`keep_args`](Map::keep_args); with all results: [`report`](Map::report) |
    /// | end at the first failure | [`on_failure`](Map::on_failure) |
    /// | bound how many run at once, or each second | [`options`](Map::options) with a [`Limiter`](crate::Limiter) |
    ///
    /// The map is lazy at both ends: it pulls a bounded number of items ahead, as workers need them, and results wait
    /// until they are asked for. So an iterator may be endless, or read files. The measured time of earlier jobs
    /// determines how many jobs are in flight and how many are submitted at once; there is no chunk size.
    ///
    /// For each lane, about a millisecond of work is in flight, and at least two jobs. With results in order, up to
    /// eight jobs for each lane are in flight, unless jobs are long or take much memory: so workers continue while one
    /// long job delays the results of others. If long jobs delay other results often, [`unordered`](Map::unordered) is
    /// faster. Results that were not taken count as in flight. Items are pulled only while a result is asked for:
    /// between two calls of `next` the workers finish their jobs, and then are idle. A program that spends long on each
    /// result uses a [stream](crate::stream::Stream) instead, which keeps
    /// [`in_flight`](crate::stream::Stream::in_flight) jobs running.
    ///
    /// The iterator runs on the thread that asks for results; meanwhile no result is returned. If it blocks, as a
    /// channel or a socket does, each item is submitted before the next one is pulled. After a number of items without
    /// waiting, up to 64 are submitted together: when the last of them has arrived, or when the iterator has blocked
    /// for about ten milliseconds, because it may wait for their results. Each time that it has blocked so long, the
    /// number of items without waiting doubles. [`Stream::spawn`](crate::stream::Stream::spawn) gives the iterator a
    /// thread of its own.
    #[doc(alias("starmap", "imap", "Parallel"))]
    pub fn map<F, I, P, R>(&self, kernel: F, items: I) -> Map<F::Items<I::IntoIter>, R::Out>
    where
        F: Bind<I::Item> + Clone,
        F::Kernel: Kernel<P, R>,
        F::Args: Args<'static, P>,
        I: IntoIterator,
        P: Params,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        // Only the type of the kernel is used: its value has no bytes.
        let (_, items) = kernel.bind_each(items.into_iter());
        let calls = Calls {
            kernel: KernelInfo::of::<Single<F::Kernel, P, R>>(),
            send: <F::Args as Args<'static, P>>::send,
            run: |item: F::Args| {
                held::<P>(kernel_name::<F::Kernel>(), item).and_then(run_kernel::<F::Kernel, P, R>)
            },
            read: R::receive,
        };
        self.map_calls(calls, self.seeds.series(), items)
    }

    /// Returns a map over `items`. `calls` turns each item into a call.
    pub(super) fn map_calls<I, R>(
        &self,
        calls: Calls<I::Item, R>,
        series: Series,
        items: I,
    ) -> Map<I, R>
    where
        I: Iterator,
    {
        let plan = MapPlan {
            calls,
            options: JobOptions::default(),
            on_failure: OnFailure::default(),
            series,
            copies: 0,
        };
        let items = Retaining::new(items, |_: &I::Item| ());
        Map {
            feed: Feed::new(items, plan, self.supervisor().cloned()),
            given: 0,
        }
    }
}

impl<I: Iterator, R, E: JobFailure, K: ResultKey> Map<I, R, E, K> {
    /// Sets the [options](JobOptions) of the jobs, and replaces all that were set earlier.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{JobOptions, Limiter};
    ///
    /// let four = Limiter::new().concurrency(4);
    /// let squares = engine.map(|n: u64| n * n, (0..4).map(|n| (n,)));
    /// let squares = squares.options(&JobOptions::new().retries(2).limit(&four));
    /// assert_eq!(squares.collect::<Result<Vec<_>, _>>()?, [0, 1, 4, 9]);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// Retries require arguments that the kernel cannot change:
    ///
    /// ```compile_fail,E0308
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{ArrayMut, JobOptions};
    ///
    /// fn sort(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.sort_unstable();
    ///     values
    /// }
    ///
    /// let items = (0..4).map(|n| (engine.zeros::<u32>(n).unwrap(),));
    /// let sorted = engine.map(sort, items).options(&JobOptions::new().retries(1));
    /// ```
    pub fn options<const RETRIES: bool>(mut self, options: &JobOptions<RETRIES>) -> Self
    where
        I::Item: Permits<RETRIES>,
    {
        let plan = &mut self.feed.plan;
        plan.options = options.for_new_caller();
        plan.calls.kernel = plan.calls.kernel.named(plan.options.name);
        self
    }

    /// Sets whether the map continues after a failure (the default) or stops.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::OnFailure;
    ///
    /// fn invert(n: i32) -> Result<i32, &'static str> {
    ///     100_i32.checked_div(n).ok_or("a division by zero")
    /// }
    ///
    /// let items = || [1, 0, 2].map(|n| (n,));
    /// assert_eq!(engine.map(invert, items()).filter(Result::is_ok).count(), 2);
    /// let stopped = engine.map(invert, items()).on_failure(OnFailure::Stop);
    /// assert_eq!(stopped.count(), 2, "a value, and the failure");
    /// ```
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.feed.plan.on_failure = on_failure;
        self
    }

    /// Like `next`, but waits at most `limit` for a job. Returns `None` if the limit has passed, or if no items are
    /// left ([`is_over`](Map::is_over) is true). Jobs in flight continue. The iterator of the items and an inline
    /// engine are not interrupted.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::Duration;
    ///
    /// let mut squares = engine.map(|n: u64| n * n, (0..4).map(|n| (n,)));
    /// let mut sum = 0;
    /// while !squares.is_over() {
    ///     match squares.next_timeout(Duration::from_secs(10)) {
    ///         Some(square) => sum += square?,
    ///         None => println!("{sum} so far"),
    ///     }
    /// }
    /// assert_eq!(sum, 14);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    pub fn next_timeout(&mut self, limit: Duration) -> Option<K::Item<Result<R, E>>> {
        let next = self.feed.next_timeout(limit)?;
        Some(self.give(next))
    }

    /// Returns true if all results were returned. This is known after the first call of `next` that returns `None`.
    pub fn is_over(&self) -> bool {
        self.feed.is_over()
    }

    /// Converts into a [`Stream`] of the results, for any executor. Each poll pulls a bounded
    /// number of items and never waits for a worker, nor for [admission](crate::engine::Builder::max_in_flight_bytes),
    /// nor for a [`Limiter`](crate::Limiter). A stream whose results are all ready yields to other tasks from time to
    /// time.
    ///
    /// ```
    /// # use arenite::Engine;
    /// use smol::stream::StreamExt;
    ///
    /// # fn main() -> Result<(), arenite::JobError> {
    /// # let engine = Engine::inline();
    /// smol::block_on(async {
    ///     let mut squares = engine.map(|n: u64| n * n, (0..4).map(|n| (n,))).stream();
    ///     let mut sum = 0;
    ///     while let Some(square) = squares.next().await {
    ///         sum += square?;
    ///     }
    ///     assert_eq!(sum, 14);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// On an inline engine, polling runs a job.
    pub fn stream(self) -> impl Stream<Item = K::Item<Result<R, E>>> + Unpin + use<I, R, E, K> {
        MapStream(self)
    }

    /// Converts a result into the form that the map returns.
    fn give(&mut self, (key, result): (K, Result<R, JobError>)) -> K::Item<Result<R, E>> {
        let index = key.index().unwrap_or(self.given);
        self.given += 1;
        let is_last = self.feed.plan.on_failure == OnFailure::Stop;
        key.item(self.feed.items.answer(index, result, is_last))
    }
}

impl<I: Iterator, R, E: JobFailure> Map<I, R, E> {
    /// Returns each result as soon as its job has ended, with the index of the item, from 0 on. A slow item does not
    /// delay others.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let items = [3u64, 1, 2];
    /// let squares = engine.map(|n: u64| n * n, items.map(|n| (n,)));
    /// for (index, square) in squares.unordered() {
    ///     assert_eq!(square?, items[index] * items[index]);
    /// }
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// # Panics
    /// If results have already been taken from the map.
    #[doc(alias = "imap_unordered")]
    pub fn unordered(self) -> Map<I, R, E, usize> {
        let (items, plan, shared) = self.feed.into_parts("unordered");
        Map {
            feed: Feed::new(items, plan, shared),
            given: 0,
        }
    }
}

impl<I: Iterator<Item: Clone>, R, K: ResultKey> Map<I, R, JobError, K> {
    /// Keeps a copy of each item until its job has ended, so that a failure returns the arguments in a [`DeadLetter`].
    /// The copy of an array is another handle.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn fetch(page: u32, patience: u32) -> Result<u32, String> {
    ///     if page < patience { Ok(page * 10) } else { Err(format!("page {page} took too long")) }
    /// }
    ///
    /// // As they end: a failure is known while others still run.
    /// let pages = engine.map(fetch, (0..4).map(|page| (page, 3))).keep_args().unordered();
    /// let (mut sum, mut again) = (0, Vec::new());
    /// for (_, result) in pages {
    ///     match result {
    ///         Ok(value) => sum += value,
    ///         Err(letter) => {
    ///             assert_eq!((letter.index, letter.args), (3, (3, 3)));
    ///             // With more patience.
    ///             again.push(engine.submit(fetch, (letter.args.0, 100)));
    ///         }
    ///     }
    /// }
    /// assert_eq!((sum, again.len()), (30, 1));
    /// for job in again {
    ///     sum += job.wait()?;
    /// }
    /// assert_eq!(sum, 60);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// Arguments that a job changes in place cannot be copied:
    ///
    /// ```compile_fail,E0599
    /// # let engine = arenite::Engine::inline();
    /// use arenite::ArrayMut;
    ///
    /// fn fill(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.fill(1);
    ///     values
    /// }
    ///
    /// let items = (0..4).map(|n| (engine.zeros::<u32>(n).unwrap(),));
    /// let filled = engine.map(fill, items).keep_args();
    /// ```
    ///
    /// # Panics
    /// If results have already been taken from the map.
    pub fn keep_args(self) -> Map<I, R, DeadLetter<I::Item>, K> {
        let (items, mut plan, shared) = self.feed.into_parts("keep_args");
        let items = Retaining::new(items.into_items(), I::Item::clone);
        plan.copies = 1;
        Map {
            feed: Feed::new(items, plan, shared),
            given: 0,
        }
    }
}

impl<I: Iterator<Item: Clone>, R> Map<I, R> {
    /// Runs all items. Returns their values and, for each failure, the index, the arguments and the error. In `async`
    /// code, collect a [`Report`] from [`keep_args().stream()`](Map::stream).
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn root(n: i64) -> Result<i64, String> {
    ///     if n < 0 { Err(format!("{n} is negative")) } else { Ok(n.isqrt()) }
    /// }
    ///
    /// let report = engine.map(root, [4, -9, 16].map(|n| (n,))).report();
    /// assert_eq!(report.values, [Some(2), None, Some(4)]);
    /// let [failure] = &report.failures[..] else { panic!("{report}") };
    /// assert_eq!((failure.index, failure.args), (1, (-9,)));
    ///
    /// // Dead letters are arguments again.
    /// let failures = report.failures;
    /// let again = failures.into_iter().map(|letter| (-letter.args.0,));
    /// assert_eq!(engine.map(root, again).report().into_values().unwrap(), [3]);
    /// ```
    ///
    /// # Panics
    /// If results have already been taken from the map.
    #[doc(alias("gather", "return_exceptions"))]
    pub fn report(self) -> Report<I::Item, Vec<Option<R>>> {
        self.keep_args().collect()
    }
}

impl<I: Iterator, R, E: JobFailure, K: ResultKey> Iterator for Map<I, R, E, K> {
    type Item = K::Item<Result<R, E>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.feed.next()?;
        Some(self.give(next))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint()
    }
}

impl<I: Iterator, R, E: JobFailure, K: ResultKey> fmt::Debug for Map<I, R, E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("kernel", &self.feed.plan.calls.kernel.name)
            .field("in_flight", &self.feed.in_flight())
            .finish_non_exhaustive()
    }
}
