//! Items, the interface between steps, and the steps that run no jobs.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::control::StreamStats;
use super::error::StreamError;
use super::{OnFailure, StreamPlan};
use crate::engine::seeds::Series;
use crate::engine::{Engine, JobErrorKind};
use crate::supervisor::{LineTicket, Supervisor};

/// The default maximum of items in flight is this number, or four for each worker if that is more.
const IN_FLIGHT: usize = 16;
/// How long items are pulled from the source before jobs are polled again.
const SLICE: Duration = Duration::from_micros(50);

/// A value in the stream.
pub(super) struct Item<T> {
    pub(super) value: T,
    /// The index of the item in the source, or of the window.
    pub(super) sequence: u64,
    /// Selects, together with the stage, the random numbers of the item's jobs. Equal to `sequence`, or another number
    /// if several items have the same `sequence`.
    pub(super) draws: u64,
    pub(super) time: Option<Duration>,
    /// The number of bytes in flight for which the item counts.
    pub(super) bytes: u64,
}

impl<T> Item<T> {
    /// Replaces the value.
    pub(super) fn with<U>(self, change: impl FnOnce(T) -> U) -> Item<U> {
        self.with_both(|value| (change(value), ())).0
    }

    /// Replaces the value, and returns a second value.
    pub(super) fn with_both<U, V>(self, change: impl FnOnce(T) -> (U, V)) -> (Item<U>, V) {
        let (value, second) = change(self.value);
        let item = Item {
            value,
            sequence: self.sequence,
            draws: self.draws,
            time: self.time,
            bytes: self.bytes,
        };
        (item, second)
    }
}

pub(super) enum Event<T> {
    Item(Item<T>),
    /// A watermark: items that follow it and have an earlier time are late.
    Mark(Duration),
    /// The error that ends the stream.
    Failed(StreamError),
}

/// A step: the interface that the next step uses.
pub(super) trait Flow<T> {
    /// Does the step's part of a pass. Returns true if anything changed.
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool;
    /// Returns the next event, if one is ready.
    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<T>>;
    /// Returns true if no event will follow.
    fn is_over(&self) -> bool;
    /// Registers a waker with all running jobs. Returns true if a job has ended in the meantime.
    fn listen(&mut self, context: &mut Context<'_>) -> bool;
}

pub(super) type BoxFlow<'a, T> = Box<dyn Flow<T> + 'a>;

/// State shared by all steps.
pub(super) struct Driver<'e> {
    pub(super) engine: &'e Engine,
    /// The series of the random numbers that the stream's jobs draw.
    pub(super) series: Series,
    pub(super) plan: StreamPlan,
    /// The maximum number of items in flight.
    pub(super) in_flight: usize,
    pub(super) stats: StreamStats,
    /// Whether the driver has stopped taking items from the source.
    pub(super) draining: bool,
    /// Whether a failure is on its way to the end of the stream.
    pub(super) failing: bool,
    /// Whether pulling was interrupted because jobs were not polled for a while.
    pub(super) is_interrupted: bool,
    /// The number of items that `flat_map` is expanding, and their bytes. Each leaves the stream when all items that it
    /// yields have been taken.
    expanding: (usize, u64),
    /// Whether an item has entered or left the stream in this pass.
    pub(super) moved: bool,
    /// The waker of the driver's thread.
    waker: Waker,
    /// The ticket of all stages in the line for admission. The driver polls it.
    line: LineTicket,
    pass: Instant,
    has_pulled: bool,
}

impl<'e> Driver<'e> {
    pub(super) fn new(engine: &'e Engine, plan: StreamPlan, waker: Waker) -> Self {
        let workers = engine.stats().workers.len();
        Self {
            engine,
            series: engine.seeds.series(),
            in_flight: plan.in_flight.unwrap_or(IN_FLIGHT.max(4 * workers)),
            plan,
            stats: StreamStats::default(),
            draining: false,
            failing: false,
            is_interrupted: false,
            expanding: (0, 0),
            moved: false,
            waker,
            line: LineTicket::default(),
            pass: Instant::now(),
            has_pulled: false,
        }
    }

    /// Returns the waker of the driver's thread.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Tries to submit a call. Returns `None` if the call has to wait for admission.
    pub(super) fn try_enter<R>(
        &mut self,
        enter: impl FnOnce(&Arc<Supervisor>, &mut LineTicket, &Context<'_>) -> Poll<R>,
    ) -> Option<R> {
        let context = Context::from_waker(&self.waker);
        match enter(self.engine.supervisor()?, &mut self.line, &context) {
            Poll::Ready(entered) => {
                // The ticket is used up, and another stage may have waited with it: `moved` makes the driver try again.
                self.moved = true;
                Some(entered)
            }
            Poll::Pending => None,
        }
    }

    /// Leaves the line for admission. Called before code of the program runs, which may take long or submit jobs
    /// itself: meanwhile the ticket would not be polled, and other callers would wait behind it.
    pub(super) fn leave_admission_line(&mut self) {
        if let Some(shared) = self.engine.supervisor().filter(|_| self.line.is_in()) {
            shared.leave_admission_line(&mut self.line);
            // `moved` makes a waiting stage join the line again before the driver sleeps.
            self.moved = true;
        }
    }

    /// Begins a pass over all steps, or, if `is_pass` is false, only takes ready results.
    pub(super) fn begin(&mut self, is_pass: bool) {
        if is_pass {
            self.pass = Instant::now();
        }
        (self.is_interrupted, self.moved, self.has_pulled) = (false, false, false);
    }

    pub(super) fn since_pass(&self) -> Duration {
        self.pass.elapsed()
    }

    /// Returns the number of items that may be taken from the source at this moment.
    pub(super) fn room(&self) -> usize {
        if self.failing || self.draining {
            return 0;
        }
        let left = self.in_flight.saturating_sub(self.stats.in_flight);
        match self.plan.bytes {
            // Items are taken one at a time, because the size of an item is not known before.
            Some(limit) if self.stats.bytes_in_flight < limit => left.min(1),
            Some(_) => 0,
            None => left,
        }
    }

    /// Returns true if another item may be pulled from an iterator in this pass.
    pub(super) fn in_slice(&mut self) -> bool {
        self.is_interrupted = self.has_pulled && self.pass.elapsed() > SLICE;
        self.has_pulled = true;
        !self.is_interrupted
    }

    /// Returns true if an item that is being expanded may yield one more item. Always true if all items that it has
    /// yielded have left the stream.
    fn may_expand(&self) -> bool {
        let (items, bytes) = self.expanding;
        let has_room = |limit| self.stats.bytes_in_flight - bytes < limit;
        self.plan.bytes.is_none_or(has_room) || self.stats.in_flight == items
    }

    /// Counts and returns a new item of the source.
    pub(super) fn taken<T>(&mut self, value: T) -> Item<T> {
        let sequence = self.stats.taken;
        self.stats.taken += 1;
        let item = Item {
            value,
            sequence,
            draws: sequence,
            time: None,
            bytes: 0,
        };
        self.enter(&item);
        item
    }

    /// Counts an item as in flight.
    pub(super) fn enter<T>(&mut self, item: &Item<T>) {
        self.moved = true;
        self.stats.in_flight += 1;
        self.stats.bytes_in_flight += item.bytes;
        self.stats.most_in_flight = self.stats.most_in_flight.max(self.stats.in_flight);
    }

    /// Counts an item as no longer in flight.
    pub(super) fn leave<T>(&mut self, item: Item<T>) -> T {
        self.moved = true;
        self.stats.in_flight -= 1;
        self.stats.bytes_in_flight -= item.bytes;
        item.value
    }

    /// Changes the number of bytes in flight for which an item counts.
    pub(super) fn resize<T>(&mut self, item: &mut Item<T>, bytes: u64) {
        self.stats.bytes_in_flight += bytes;
        self.stats.bytes_in_flight -= std::mem::replace(&mut item.bytes, bytes);
    }

    /// Records a failed item. Returns the error if it ends the stream.
    pub(super) fn failed<T>(&mut self, item: Item<T>, error: StreamError) -> Option<StreamError> {
        self.leave(item);
        self.stats.failed += 1;
        // The stream ends if its engine has ended, even if it continues after failures.
        let no_engine = matches!(
            &error,
            StreamError::Job { error, .. }
                if matches!(error.kind(), JobErrorKind::ShutDown | JobErrorKind::NoWorkers(_))
        );
        if self.plan.on_failure == OnFailure::GoOn && !no_engine {
            return None;
        }
        Some(self.ended(error))
    }

    /// Ends the stream with this error, even if the stream continues after failures.
    pub(super) fn ended(&mut self, error: StreamError) -> StreamError {
        self.failing = true;
        error
    }
}

type EachFn<'a, T, U> = Box<dyn FnMut(Item<T>, &mut Driver<'_>) -> Option<Item<U>> + 'a>;

/// A step that turns an item into at most one item.
pub(super) struct Each<'a, T, U> {
    pub(super) before: BoxFlow<'a, T>,
    pub(super) each: EachFn<'a, T, U>,
}

impl<T, U> Flow<U> for Each<'_, T, U> {
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        self.before.pump(driver)
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<U>> {
        loop {
            match self.before.take(driver)? {
                Event::Item(item) => {
                    driver.leave_admission_line();
                    if let Some(item) = (self.each)(item, driver) {
                        return Some(Event::Item(item));
                    }
                }
                Event::Mark(mark) => return Some(Event::Mark(mark)),
                Event::Failed(error) => return Some(Event::Failed(error)),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.before.is_over()
    }

    fn listen(&mut self, context: &mut Context<'_>) -> bool {
        self.before.listen(context)
    }
}

/// A step that turns an item into any number of items.
pub(super) struct FlatMap<'a, T, U: IntoIterator> {
    pub(super) before: BoxFlow<'a, T>,
    pub(super) spread: Box<dyn FnMut(T) -> U + 'a>,
    /// The item being expanded, which is in flight until it is exhausted.
    pub(super) current: Option<Item<U::IntoIter>>,
    /// Number of items that `current` has yielded.
    pub(super) made: u64,
}

impl<T, U: IntoIterator> Flow<U::Item> for FlatMap<'_, T, U> {
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        self.before.pump(driver)
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<U::Item>> {
        loop {
            if let Some(current) = &mut self.current {
                if !driver.may_expand() {
                    return None;
                }
                // Without this check the loop might never end: the iterator may be endless, and later steps may drop
                // all its items.
                if !driver.in_slice() {
                    return None;
                }
                driver.leave_admission_line();
                if let Some(value) = current.value.next() {
                    self.made += 1;
                    let item = Item {
                        value,
                        sequence: current.sequence,
                        draws: driver.series.seed(current.draws).wrapping_add(self.made),
                        time: current.time,
                        bytes: 0,
                    };
                    driver.enter(&item);
                    return Some(Event::Item(item));
                }
                driver.expanding.0 -= 1;
                driver.expanding.1 -= current.bytes;
                let done = self.current.take();
                done.map(|item| driver.leave(item));
            }
            match self.before.take(driver)? {
                Event::Item(item) => {
                    self.made = 0;
                    driver.expanding.0 += 1;
                    driver.expanding.1 += item.bytes;
                    driver.leave_admission_line();
                    self.current = Some(item.with(|value| (self.spread)(value).into_iter()));
                }
                Event::Mark(mark) => return Some(Event::Mark(mark)),
                Event::Failed(error) => return Some(Event::Failed(error)),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.current.is_none() && self.before.is_over()
    }

    fn listen(&mut self, context: &mut Context<'_>) -> bool {
        self.before.listen(context)
    }
}

type MarkFn<'a, T> = Box<dyn FnMut(&Item<T>) -> Option<Duration> + 'a>;

/// A step that inserts watermarks after items.
pub(super) struct Marks<'a, T> {
    pub(super) before: BoxFlow<'a, T>,
    pub(super) mark: MarkFn<'a, T>,
    pub(super) last: Option<Duration>,
    pub(super) next: Option<Duration>,
}

impl<T> Flow<T> for Marks<'_, T> {
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        self.before.pump(driver)
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<T>> {
        if let Some(mark) = self.next.take() {
            return Some(Event::Mark(mark));
        }
        loop {
            match self.before.take(driver)? {
                // Drops watermarks of earlier steps, which this step replaces.
                Event::Mark(_) => {}
                Event::Item(item) => {
                    driver.leave_admission_line();
                    // Watermarks do not go back.
                    let mark = (self.mark)(&item).filter(|mark| Some(*mark) > self.last);
                    if mark.is_some() {
                        (self.last, self.next) = (mark, mark);
                    }
                    return Some(Event::Item(item));
                }
                failed => return Some(failed),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.before.is_over()
    }

    fn listen(&mut self, context: &mut Context<'_>) -> bool {
        self.before.listen(context)
    }
}
