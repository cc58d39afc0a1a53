//! What flows, how one step takes it from the one before, and the steps that run no jobs.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::control::StreamStats;
use super::error::StreamError;
use super::{OnFailure, Settings};
use crate::engine::seeds::Series;
use crate::engine::{Engine, JobErrorKind};
use crate::supervisor::{LineTicket, Supervisor};

/// How long a source is asked for items before answers are looked at again.
const SLICE: Duration = Duration::from_micros(50);

/// A value on its way, with what is known of it.
pub(super) struct Item<T> {
    pub(super) value: T,
    /// Its number at the source, or that of its window.
    pub(super) sequence: u64,
    /// What its jobs draw by, beside their stage: its number, or another one if it shares that.
    pub(super) draws: u64,
    pub(super) time: Option<Duration>,
    /// What it counts for in the bound on bytes.
    pub(super) bytes: u64,
}

impl<T> Item<T> {
    /// Another value in its place.
    pub(super) fn with<U>(self, change: impl FnOnce(T) -> U) -> Item<U> {
        self.with_both(|value| (change(value), ())).0
    }

    /// Another value in its place, and one beside it.
    pub(super) fn with_both<U, V>(self, change: impl FnOnce(T) -> (U, V)) -> (Item<U>, V) {
        let (value, beside) = change(self.value);
        let item = Item {
            value,
            sequence: self.sequence,
            draws: self.draws,
            time: self.time,
            bytes: self.bytes,
        };
        (item, beside)
    }
}

pub(super) enum Event<T> {
    Item(Item<T>),
    /// The watermark: items behind it with an earlier time are late.
    Mark(Duration),
    /// The stream ends here.
    Failed(StreamError),
}

/// A step, as the one behind it sees it.
pub(super) trait Flow<T> {
    /// Its part of a pass. True if anything changed.
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool;
    /// What is ready first.
    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<T>>;
    /// Nothing will come any more.
    fn is_over(&self) -> bool;
    /// Asks all running jobs for a call. True if one has ended meanwhile.
    fn listen(&mut self, context: &mut Context<'_>) -> bool;
}

pub(super) type BoxFlow<'a, T> = Box<dyn Flow<T> + 'a>;

/// What all steps need to know in a pass.
pub(super) struct Driver<'e> {
    pub(super) engine: &'e Engine,
    /// For the random numbers of its jobs.
    pub(super) series: Series,
    pub(super) settings: Settings,
    pub(super) stats: StreamStats,
    /// Somebody wants no more items.
    pub(super) draining: bool,
    /// A failure is on its way to the end.
    pub(super) failing: bool,
    /// The source could give more, but answers were not looked at for a while.
    pub(super) cut: bool,
    /// Items in flight that are being spread, and their bytes: they leave when what they give has come.
    spreading: (usize, u64),
    /// An item has come or gone in this pass.
    pub(super) moved: bool,
    /// Rings for the thread that drives.
    waker: Waker,
    /// The place of all stages in the line for admission, while that thread looks.
    line: LineTicket,
    pass: Instant,
    asked: bool,
}

impl<'e> Driver<'e> {
    pub(super) fn new(engine: &'e Engine, settings: Settings, waker: Waker) -> Self {
        Self {
            engine,
            series: engine.seeds.series(),
            settings,
            stats: StreamStats::default(),
            draining: false,
            failing: false,
            cut: false,
            spreading: (0, 0),
            moved: false,
            waker,
            line: LineTicket::default(),
            pass: Instant::now(),
            asked: false,
        }
    }

    /// Whoever listens is rung for.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Asks for admission; `None` if that has to wait.
    pub(super) fn ask<R>(
        &mut self,
        enter: impl FnOnce(&Arc<Supervisor>, &mut LineTicket, &Context<'_>) -> Poll<R>,
    ) -> Option<R> {
        let context = Context::from_waker(&self.waker);
        match enter(self.engine.shared()?, &mut self.line, &context) {
            Poll::Ready(entered) => {
                // With the place in the line, which may have been that of another stage.
                self.moved = true;
                Some(entered)
            }
            Poll::Pending => None,
        }
    }

    /// Code of the program runs, which may take long, or submit something itself: nobody looks at the place in the line
    /// meanwhile, and others stand behind it.
    pub(super) fn leave_admission_line(&mut self) {
        if let Some(shared) = self.engine.shared().filter(|_| self.line.is_in()) {
            shared.leave_admission_line(&mut self.line);
            // Whoever waits takes another place before the driver sleeps.
            self.moved = true;
        }
    }

    /// A pass begins, or only the taking of what is ready.
    pub(super) fn begin(&mut self, is_pass: bool) {
        if is_pass {
            self.pass = Instant::now();
        }
        (self.cut, self.moved, self.asked) = (false, false, false);
    }

    pub(super) fn since_pass(&self) -> Duration {
        self.pass.elapsed()
    }

    /// How many items the source may give now.
    pub(super) fn room(&self) -> usize {
        if self.failing || self.draining {
            return 0;
        }
        let left = self.settings.in_flight.saturating_sub(self.stats.in_flight);
        match self.settings.bytes {
            // One at a time: its size is not known before it is there.
            Some(limit) if self.stats.bytes_in_flight < limit => left.min(1),
            Some(_) => 0,
            None => left,
        }
    }

    /// May a source, or what is being spread, be asked (again) in this pass?
    pub(super) fn in_slice(&mut self) -> bool {
        self.cut = self.asked && self.pass.elapsed() > SLICE;
        self.asked = true;
        !self.cut
    }

    /// May what is being spread give one more? With all that it has given gone, always.
    fn may_spread(&self) -> bool {
        let (items, bytes) = self.spreading;
        let has_room = |limit| self.stats.bytes_in_flight - bytes < limit;
        self.settings.bytes.is_none_or(has_room) || self.stats.in_flight == items
    }

    /// An item of the source.
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

    /// One more is in flight.
    pub(super) fn enter<T>(&mut self, item: &Item<T>) {
        self.moved = true;
        self.stats.in_flight += 1;
        self.stats.bytes_in_flight += item.bytes;
        self.stats.most_in_flight = self.stats.most_in_flight.max(self.stats.in_flight);
    }

    /// One has come to its end.
    pub(super) fn leave<T>(&mut self, item: Item<T>) -> T {
        self.moved = true;
        self.stats.in_flight -= 1;
        self.stats.bytes_in_flight -= item.bytes;
        item.value
    }

    /// An item counts for so many bytes from here on.
    pub(super) fn resize<T>(&mut self, item: &mut Item<T>, bytes: u64) {
        self.stats.bytes_in_flight += bytes;
        self.stats.bytes_in_flight -= std::mem::replace(&mut item.bytes, bytes);
    }

    /// An item has failed: what takes its place, if anything.
    pub(super) fn failed<T>(&mut self, item: Item<T>, error: StreamError) -> Option<StreamError> {
        self.leave(item);
        self.stats.failed += 1;
        // Nobody else would end a stream whose engine has.
        let no_engine = matches!(
            &error,
            StreamError::Job { error, .. }
                if matches!(error.kind(), JobErrorKind::ShutDown | JobErrorKind::NoWorkers(_))
        );
        if self.settings.on_failure == OnFailure::GoOn && !no_engine {
            return None;
        }
        Some(self.ended(error))
    }

    /// Nothing comes any more, whatever is to become of failures.
    pub(super) fn ended(&mut self, error: StreamError) -> StreamError {
        self.failing = true;
        error
    }
}

type EachFn<'a, T, U> = Box<dyn FnMut(Item<T>, &mut Driver<'_>) -> Option<Item<U>> + 'a>;

/// A step that makes at most one item of one.
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

/// A step that makes any number of items of one.
pub(super) struct FlatMap<'a, T, U: IntoIterator> {
    pub(super) before: BoxFlow<'a, T>,
    pub(super) spread: Box<dyn FnMut(T) -> U + 'a>,
    /// What is being spread: it counts as in flight until it is used up.
    pub(super) current: Option<Item<U::IntoIter>>,
    /// How many have come of it.
    pub(super) made: u64,
}

impl<T, U: IntoIterator> Flow<U::Item> for FlatMap<'_, T, U> {
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        self.before.pump(driver)
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Option<Event<U::Item>> {
        loop {
            if let Some(current) = &mut self.current {
                if !driver.may_spread() {
                    return None;
                }
                // It may go on for ever, and what comes behind may let nothing through.
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
                driver.spreading.0 -= 1;
                driver.spreading.1 -= current.bytes;
                let done = self.current.take();
                done.map(|item| driver.leave(item));
            }
            match self.before.take(driver)? {
                Event::Item(item) => {
                    self.made = 0;
                    driver.spreading.0 += 1;
                    driver.spreading.1 += item.bytes;
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

/// A step that puts watermarks behind items.
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
                // It is this step that says.
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
