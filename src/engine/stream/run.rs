//! The results of a stream: iterating over them drives it.

use std::fmt;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use super::control::{Control, Handle, StreamStats, Wanted};
use super::error::StreamError;
use super::flow::{BoxFlow, Driver, Event};
use crate::link::SpinLimit;
use crate::sys::clock::monotonic_ns;
use crate::sys::cores::Attempts;

/// After a sleep shorter than this, the driver stays on its core.
const SHORT_SLEEP: Duration = Duration::from_micros(60);

/// The minimum time between two moves of the driver to another core, in nanoseconds.
const MOVE_INTERVAL_NS: u64 = 1_000_000;

/// Number of spin-loop pauses between two passes of a driver that polls.
const PAUSES: u32 = 32;

/// The interval between passes over all jobs while results are ready.
const PASS_INTERVAL: Duration = Duration::from_micros(20);

/// The results of a stream, in the order of their items unless the stream is [`unordered`](super::Stream::unordered):
/// the iterator of [`Stream::run`](super::Stream::run).
///
/// Iterating moves the items from stage to stage; between two calls of `next`, the workers only finish their jobs. An
/// error is always the last item. Dropping the iterator cancels the jobs in flight.
#[must_use = "a stream is lazy: nothing runs before it is iterated over"]
pub struct Run<'a, T> {
    /// `None` once the stream has ended.
    flow: Option<BoxFlow<'a, T>>,
    driver: Driver<'a>,
    control: Arc<Control>,
    /// How long the driver polls before it sleeps.
    spin_limit: SpinLimit,
    /// Statistics of the driver's moves to another core.
    moves: Attempts,
}

impl<'a, T> Run<'a, T> {
    pub(super) fn new(flow: BoxFlow<'a, T>, driver: Driver<'a>, control: Arc<Control>) -> Self {
        Self {
            flow: Some(flow),
            driver,
            control,
            spin_limit: SpinLimit::new(),
            moves: Attempts::new(MOVE_INTERVAL_NS, 0),
        }
    }

    /// Returns the statistics at this moment.
    pub fn stats(&self) -> StreamStats {
        self.driver.stats
    }

    /// Returns a handle for other threads.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.control))
    }

    /// Returns the next result, or `None` at the end.
    fn advance(&mut self, flow: &mut BoxFlow<'a, T>) -> Option<Result<T, StreamError>> {
        let driver = &mut self.driver;
        let mut idle: Option<Instant> = None;
        // A pass polls all jobs, so it usually yields many results.
        let mut is_pass = driver.since_pass() > PASS_INTERVAL;
        loop {
            match self.control.wanted() {
                Wanted::Run => {}
                Wanted::Drain => driver.draining = true,
                Wanted::Stop => return None,
            }
            driver.begin(is_pass);
            let mut changed = is_pass && flow.pump(driver);
            match flow.take(driver) {
                Some(Event::Item(item)) => {
                    driver.stats.delivered += 1;
                    return Some(Ok(driver.leave(item)));
                }
                Some(Event::Failed(error)) => return Some(Err(error)),
                Some(Event::Mark(_)) => changed = true,
                None if flow.is_over() => return None,
                None => {}
            }
            if driver.is_interrupted {
                // The statistics are published because the next result may take long.
                self.control.publish(driver.stats);
            }
            if !std::mem::replace(&mut is_pass, true)
                || changed
                || driver.moved
                || driver.is_interrupted
            {
                idle = None;
                continue;
            }
            let since = *idle.get_or_insert_with(Instant::now);
            let shared = driver.engine.supervisor();
            let core_beside_a_lane = || shared.and_then(|shared| shared.core_beside_a_lane());
            if self.spin_limit.goes_on(since, core_beside_a_lane()) {
                (0..PAUSES).for_each(|_| std::hint::spin_loop());
                continue;
            }
            self.control.publish(driver.stats);
            if !flow.listen(&mut Context::from_waker(driver.waker())) {
                let asleep = Instant::now();
                self.control.sleep();
                let lane_core = core_beside_a_lane().unwrap_or(u32::MAX);
                self.spin_limit.learn(since.elapsed(), lane_core);
                let now = monotonic_ns();
                if asleep.elapsed() >= SHORT_SLEEP
                    && self.moves.is_due(now)
                    && shared.is_some_and(|shared| shared.step_aside())
                {
                    self.moves.record(now, monotonic_ns());
                }
            }
            idle = None;
        }
    }

    /// Ends the stream, and cancels the jobs in flight.
    fn end(&mut self) {
        self.flow = None;
        self.driver.leave_admission_line();
        let stats = &mut self.driver.stats;
        (
            stats.in_flight,
            stats.bytes_in_flight,
            stats.held_by_windows,
        ) = (0, 0, 0);
    }
}

impl<T> Iterator for Run<'_, T> {
    type Item = Result<T, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        // `flow` is taken out, so that a panic of a closure ends the stream: the state of the closure's item is then
        // unknown.
        let mut flow = self.flow.take();
        let next = flow.as_mut().and_then(|flow| self.advance(flow));
        match next {
            Some(Ok(_)) => self.flow = flow,
            Some(Err(_)) | None => {
                drop(flow);
                self.end();
            }
        }
        self.driver.leave_admission_line();
        self.control.publish(self.driver.stats);
        next
    }
}

impl<T> std::iter::FusedIterator for Run<'_, T> {}

impl<T> Drop for Run<'_, T> {
    fn drop(&mut self) {
        self.end();
        self.control.publish(self.driver.stats);
    }
}

impl<T> fmt::Debug for Run<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("stats", &self.driver.stats)
            .finish_non_exhaustive()
    }
}
