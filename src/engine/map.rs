//! A kernel over an iterator.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::job::run_here;
use super::seeds::Series;
use super::{Backoff, Engine, JobError, Priority};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Args, CallWriter, Failure, Kernel, KernelInfo, Params, Reply, RetrySafe, Single,
};
use crate::supervisor::{JobId, Read, Shared, Terms};

/// A wait without a limit ends with the answer.
const ENDS: &str = "a wait without a limit ends with the answer";
/// About what it takes to wake a sleeping thread.
const WAKE_NS: u32 = 20_000;
/// Calls sent and answers taken under one lock, at most.
const BATCH: usize = 64;

/// The iterator of [`Engine::map`].
///
/// Dropping it cancels what is in flight.
#[must_use = "a map is lazy: nothing runs before it is iterated over"]
pub struct Map<I: Iterator, R> {
    items: std::iter::Fuse<I>,
    kernel: KernelInfo,
    send: fn(I::Item, &mut CallWriter),
    run: fn(I::Item) -> Result<R, JobError>,
    read: Read<R>,
    terms: Terms,
    shared: Option<Arc<Shared>>,
    series: Series,
    /// Items that were pulled.
    pulled: u64,
    in_flight: VecDeque<JobId>,
    done: VecDeque<Result<R, JobError>>,
    /// Calls that are written and not sent, and behind them memory to write more into.
    calls: Vec<CallWriter>,
    written: usize,
}

impl Engine {
    /// Runs a kernel on each item of an iterator, whose items are tuples of arguments. The results
    /// come in the order of the items.
    ///
    /// It is lazy at both ends: items are pulled as workers need them, a bounded number ahead, and
    /// the results wait for whoever iterates. So an endless iterator is fine, and so is one that reads
    /// files.
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
        Map {
            items: items.into_iter().fuse(),
            kernel: KernelInfo::of::<Single<F, P, R>>(),
            send: <I::Item as Args<'static, P>>::send,
            run: |item| {
                let held = item.hold();
                let run = || {
                    crate::kernel::conjure::<F>()
                        .call(held)
                        .keep()
                        .map_err(Failure::from)
                };
                run_here(std::any::type_name::<F>(), run)
            },
            read: R::receive,
            terms: Terms::default(),
            shared: self.shared().map(Arc::clone),
            series: self.seeds.series(),
            pulled: 0,
            in_flight: VecDeque::new(),
            done: VecDeque::new(),
            calls: Vec::new(),
            written: 0,
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
        self.terms.deadline = Some(limit);
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
        self.terms.retries = retries;
        self
    }

    /// The pauses between the attempts of a job; by default 10 ms, doubling up to a second.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.terms.backoff = backoff;
        self
    }

    /// Which of the jobs that wait go first.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.terms.priority = priority;
        self
    }

    /// Sleeps until some of what is in flight has ended: not for each tiny job, but for as many as take
    /// about as long as a wake-up. `None` if nothing is in flight.
    fn await_some(&mut self, shared: &Shared) -> Option<()> {
        let tiny = (WAKE_NS / shared.expected_ns(&self.kernel).max(1)) as usize;
        let last = self.in_flight.len().checked_sub(1)?;
        let wanted = *self.in_flight.get(tiny.min(last / 2))?;
        shared.wait_until_done(wanted);
        Some(())
    }

    /// Pulls items until enough is in flight, and takes what has ended at the front.
    fn pump(&mut self, shared: &Shared) {
        let window = shared.window(shared.expected_ns(&self.kernel));
        loop {
            // Answers that nobody has fetched count as well: a slow reader holds the workers back.
            let ahead = self.in_flight.len() + self.done.len() + self.written;
            let room = window.saturating_sub(ahead).min(BATCH);
            // Small steps cost a lock each: wait until a quarter is free.
            if room > 0 && (room >= BATCH.min(window / 4) || ahead == 0) {
                for item in self.items.by_ref().take(room) {
                    if self.written == self.calls.len() {
                        self.calls
                            .push(CallWriter(ArgWriter::new(shared.arena.id())));
                    }
                    let call = &mut self.calls[self.written];
                    call.0.reset();
                    (self.send)(item, call);
                    call.0.seed = self.series.seed(self.pulled);
                    self.pulled += 1;
                    self.written += 1;
                }
            }
            let sent = shared.exchange(
                &self.kernel,
                self.terms.asked(),
                &mut self.calls[..self.written],
                &mut self.in_flight,
                &mut self.done,
                self.read,
            );
            // Those that were not let in go first next time.
            self.calls[..self.written].rotate_left(sent);
            self.written -= sent;
            if sent < BATCH || !self.done.is_empty() {
                return;
            }
        }
    }
}

impl<I: Iterator, R> Iterator for Map<I, R> {
    type Item = Result<R, JobError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(done) = self.done.pop_front() {
            return Some(done);
        }
        let Some(shared) = self.shared.clone() else {
            let item = self.items.next()?;
            let _job = self.series.here(self.pulled);
            self.pulled += 1;
            return Some((self.run)(item));
        };
        self.pump(&shared);
        if let Some(done) = self.done.pop_front() {
            return Some(done);
        }
        self.await_some(&shared)?;
        self.pump(&shared);
        if let Some(done) = self.done.pop_front() {
            return Some(done);
        }
        let id = self.in_flight.pop_front()?;
        Some(shared.wait(id, self.read, None).expect(ENDS))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let ahead = self.in_flight.len() + self.done.len() + self.written;
        let (low, high) = self.items.size_hint();
        (
            low.saturating_add(ahead),
            high.and_then(|high| high.checked_add(ahead)),
        )
    }
}

impl<I: Iterator, R> Drop for Map<I, R> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            self.in_flight.drain(..).for_each(|id| shared.abandon(id));
        }
    }
}

impl<I: Iterator, R> fmt::Debug for Map<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("kernel", &self.kernel.name)
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}
