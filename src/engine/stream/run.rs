//! The driver: what iterates over results moves the items.

use std::fmt;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use super::control::{Control, Handle, StreamStats, Wanted};
use super::error::StreamError;
use super::flow::{BoxFlow, Driver, Event};

/// A sleep that was shorter than this was not worth the way there and back.
const SHORT: Duration = Duration::from_micros(60);

/// How long the driver stays on a core to which it has gone.
const STAY: Duration = Duration::from_millis(1);

/// While results are ready, jobs are looked at this often.
const OFTEN: Duration = Duration::from_micros(20);

/// The results of a stream, in the order of their items unless it is
/// [`unordered`](super::Stream::unordered): the iterator of [`Stream::run`](super::Stream::run).
///
/// Whoever iterates moves the items from stage to stage; between two calls of `next` the workers finish what they have. An
/// error is the last that comes. Dropping it cancels what is in flight.
#[must_use = "a stream is lazy: nothing runs before it is iterated over"]
pub struct Run<'a, T> {
    /// `None` when nothing comes any more.
    flow: Option<BoxFlow<'a, T>>,
    driver: Driver<'a>,
    control: Arc<Control>,
    /// Jobs end so soon that it is better to look again than to sleep.
    looking: bool,
    /// When it has gone to another core, the last time.
    moved: Option<Instant>,
}

impl<'a, T> Run<'a, T> {
    pub(super) fn new(flow: BoxFlow<'a, T>, driver: Driver<'a>, control: Arc<Control>) -> Self {
        Self {
            flow: Some(flow),
            driver,
            control,
            looking: false,
            moved: None,
        }
    }

    /// Figures at this moment.
    pub fn stats(&self) -> StreamStats {
        self.driver.stats
    }

    /// For other threads.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.control))
    }

    /// What comes next; `None` at the end.
    fn advance(&mut self, flow: &mut BoxFlow<'a, T>) -> Option<Result<T, StreamError>> {
        let driver = &mut self.driver;
        let mut idle: Option<Instant> = None;
        // A pass looks at all jobs, so many results come out of one.
        let mut is_pass = driver.since_pass() > OFTEN;
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
            if driver.cut {
                // It may be long until something comes out.
                self.control.publish(driver.stats);
            }
            if !std::mem::replace(&mut is_pass, true) || changed || driver.moved || driver.cut {
                idle = None;
                continue;
            }
            let since = *idle.get_or_insert_with(Instant::now);
            if self.looking && since.elapsed() < SHORT {
                std::thread::yield_now();
                continue;
            }
            self.control.publish(driver.stats);
            if !flow.listen(&mut Context::from_waker(driver.waker())) {
                let asleep = Instant::now();
                self.control.sleep();
                self.looking = asleep.elapsed() < SHORT;
                let stays = self.looking || self.moved.is_some_and(|at| at.elapsed() < STAY);
                if !stays
                    && driver
                        .engine
                        .shared()
                        .is_some_and(|shared| shared.step_aside())
                {
                    self.moved = Some(Instant::now());
                }
            }
            idle = None;
        }
    }

    /// Nothing comes any more: what is in flight is cancelled.
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
        // A panic of one of its closures takes it along: nobody knows what that item has become.
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
