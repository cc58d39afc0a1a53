//! A kernel over an iterator.

mod feed;
mod keeping;
mod report;
mod stream;
mod unordered;

use std::fmt;
use std::time::Duration;

use super::job::run_here;
use super::seeds::Series;
use super::{Backoff, Engine, JobError, Limiter, Priority};
use crate::kernel::{Args, Kernel, KernelInfo, Key, Params, Reply, RetrySafe, Single};
use crate::supervisor::{Limit, Terms};
pub(super) use feed::{Calls, IN_A_ROW};
use feed::{Feed, Plan};
pub use keeping::{KeepingArgs, UnorderedKeepingArgs};
pub(super) use report::backtrace;
pub use report::{DeadLetter, Report, Reporting};
pub use stream::MapStream;
pub use unordered::Unordered;

/// Whether a map, a graph or a stream goes on after a failure.
///
/// | said to | [`GoOn`](Self::GoOn) | [`Stop`](Self::Stop) | if nothing is said |
/// |---|---|---|---|
/// | [`Map::on_failure`] | the failure is one result among the others | it is the last result | goes on |
/// | [`Graph::on_failure`](crate::Graph::on_failure) | nodes that do not depend on it still run | no other node is begun | goes on |
/// | [`Stream::on_failure`](crate::stream::Stream::on_failure) | the item is counted and left out | the stream ends with its error | stops |
///
/// Maps and graphs give a failure to whoever asks for that result, so going on loses nothing. A stream would leave it out, so it has
/// to be told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFailure {
    /// The others go on. The default of the enum, of maps and of graphs; not of streams.
    #[default]
    GoOn,
    /// The rest is given up, and what of it is under way is cancelled. What streams do if nothing is said.
    Stop,
}

/// The iterator of [`Engine::map`].
///
/// Dropping it cancels what is in flight.
#[must_use = "a map is lazy: nothing runs before it is iterated over"]
pub struct Map<I: Iterator, R> {
    feed: Feed<I, R, ()>,
}

impl Engine {
    /// Runs a kernel on each item of an iterator, whose items are tuples of arguments. The results
    /// come in the order of the items.
    ///
    /// It is lazy at both ends: items are pulled as workers need them, a bounded number ahead, and
    /// the results wait for whoever iterates. So an endless iterator is fine, and so is one that reads
    /// files. How many jobs are under way, and how many are handed over at once, follows from how long
    /// they have taken so far: there is no chunk size to guess. A job that takes much longer than the others holds back their
    /// results. A few more of these are under way therefore, but where that is often so [`unordered`](Map::unordered) is quicker.
    ///
    /// Under way is about a millisecond of work for each lane, and two jobs at least; in order up to eight, unless they are long or
    /// hold much. Results that nobody has taken count as well. Items are pulled only while a result is asked for: between two calls
    /// of `next` the workers finish what they have, and then stand still. So where the program takes long over each result, take a
    /// [`Stream`](crate::stream::Stream), which keeps as many jobs under way as [`in_flight`](crate::stream::Stream::in_flight) says.
    ///
    /// The iterator runs in the thread that asks for results. One that is seen to wait for its items, such as a channel or a socket,
    /// has each of them sent before the next is asked for. Behind a row of many that came at once, up to 64 are sent together when the
    /// last of them has come, or once the iterator has kept them waiting for some ten milliseconds: what it waits for may be what they
    /// become. Each time that happens it takes a row twice as long. No result is given while the iterator runs. Where that matters, give it a thread of its own with
    /// [`Stream::spawn`](crate::stream::Stream::spawn).
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
    /// | to | say |
    /// |---|---|
    /// | have each result as soon as it is there | [`unordered`](Map::unordered) |
    /// | iterate in `async` code | [`stream`](Map::stream) |
    /// | know the arguments of what failed | [`keep_args`](Map::keep_args), also [`unordered`](KeepingArgs::unordered) and as a [`stream`](KeepingArgs::stream); [`report`](Map::report) for all at once |
    /// | end at the first failure | [`on_failure`](Map::on_failure) |
    /// | bound how many run at once, or each second | [`limit`](Map::limit) |
    #[doc(alias("starmap", "imap", "Parallel"))]
    pub fn map<F, I, P, R>(&self, kernel: F, items: I) -> Map<I::IntoIter, R::Out>
    where
        F: Kernel<P, R>,
        I: IntoIterator,
        I::Item: Args<'static, P>,
        P: Params,
        R: Reply,
    {
        // A name for its type: it has no bytes.
        let _ = kernel;
        let calls = Calls {
            kernel: KernelInfo::of::<Single<F, P, R>>(),
            send: <I::Item as Args<'static, P>>::send,
            run: |item: I::Item| {
                let held = item.hold();
                let run = || {
                    crate::kernel::zst_value::<F>()
                        .call(held, Key::new())
                        .into_value()
                };
                run_here(std::any::type_name::<F>(), run)
            },
            read: R::receive,
        };
        self.map_calls(calls, self.seeds.series(), items.into_iter())
    }

    /// A map of what is not a kernel of its caller.
    pub(super) fn map_calls<I, R>(
        &self,
        calls: Calls<I::Item, R>,
        series: Series,
        items: I,
    ) -> Map<I, R>
    where
        I: Iterator,
    {
        let plan = Plan {
            items,
            calls,
            terms: Terms::default(),
            on_failure: OnFailure::default(),
            series,
            kept: 0,
        };
        Map {
            feed: Feed::new(plan, self.shared().cloned()),
        }
    }
}

impl<I: Iterator, R> Map<I, R> {
    /// How long each job may run: see [`JobBuilder::deadline`](super::JobBuilder::deadline). Like the
    /// other terms, for the jobs that are sent from here on, so say it before iterating.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::Duration;
    ///
    /// let halves = engine
    ///     .map(|n: u32| n / 2, (0..4).map(|n| (n,)))
    ///     .deadline(Duration::from_secs(30))
    ///     .retries(2);
    /// assert_eq!(halves.collect::<Result<Vec<_>, _>>()?, [0, 0, 1, 1]);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.feed.plan.terms.deadline = Some(limit);
        self
    }

    /// Runs each job again, up to this many times: see
    /// [`JobBuilder::retries`](super::JobBuilder::retries). Only where the items are
    /// arguments that a job cannot change:
    ///
    /// ```compile_fail,E0277
    /// # let engine = arenite::Engine::inline();
    /// use arenite::ArrayMut;
    ///
    /// fn sort(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.sort_unstable();
    ///     values
    /// }
    ///
    /// let items = (0..4).map(|n| (engine.zeros::<u32>(n).unwrap(),));
    /// let sorted = engine.map(sort, items).retries(1);
    /// ```
    pub fn retries(mut self, retries: u32) -> Self
    where
        I::Item: RetrySafe,
    {
        self.feed.plan.terms.retries = retries;
        self
    }

    /// With retries: they are also for the `Err`s that the kernel returns, where what it asks for may be there the next
    /// time: see [`JobBuilder::retry_errors`](super::JobBuilder::retry_errors). Without them it changes nothing.
    pub fn retry_errors(mut self) -> Self {
        self.feed.plan.terms.retry_errors = true;
        self
    }

    /// The pauses between the attempts of a job; by default 10 ms, doubling up to a second. Without retries there are none.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.feed.plan.terms.backoff = backoff;
        self
    }

    /// Which of the jobs that wait go first.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.feed.plan.terms.priority = priority;
        self
    }

    /// Each job needs a permit of this limiter: see [`Limiter`]. Said again, the last one counts.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::Limiter;
    ///
    /// let two_at_a_time = Limiter::builder().concurrency(2).build();
    /// let halves = engine.map(|n: u32| n / 2, (0..4).map(|n| (n,))).limit(&two_at_a_time);
    /// assert_eq!(halves.collect::<Result<Vec<_>, _>>()?, [0, 0, 1, 1]);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    pub fn limit(mut self, limiter: &Limiter) -> Self {
        self.feed.plan.terms.limit = Some(Limit::of_its_own(limiter));
        self
    }

    /// The one switch between going on after a failure, which is what maps do, and stopping at it.
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
}

impl<I: Iterator, R> Map<I, R> {
    /// As `next`, but waits for a job no longer than this. `None`: the time is over, or there are no items left, which
    /// [`is_over`](Map::is_over) says. Jobs that are under way go on. The iterator of the items, and an inline engine, take as long
    /// as they take.
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
    pub fn next_timeout(&mut self, limit: Duration) -> Option<Result<R, JobError>> {
        self.feed.next_timeout(limit).map(|((), answer)| answer)
    }

    /// Were all results given? Known when somebody has asked for one more.
    pub fn is_over(&self) -> bool {
        self.feed.is_over()
    }
}

impl<I: Iterator, R> Iterator for Map<I, R> {
    type Item = Result<R, JobError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.feed.next().map(|((), answer)| answer)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint()
    }
}

impl<I: Iterator, R> fmt::Debug for Map<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("kernel", &self.feed.plan.calls.kernel.name)
            .field("in_flight", &self.feed.in_flight())
            .finish_non_exhaustive()
    }
}
