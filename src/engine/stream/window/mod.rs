//! Windows: groups of the items of a stream.

mod open;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hash;
use std::ops::Range;
use std::task::Context;
use std::time::Duration;

use open::{Fill, Late, OpenWindow, OpenWindows};
pub use rule::Windows;
use rule::{Rule, from_nanos};

use super::Stream;
use super::error::StreamError;
use super::flow::{BoxFlow, Driver, Event, Flow, Item};

/// The default maximum number of items in open windows.
const LIMIT: usize = 1_000_000;

/// A closed window.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window<K, V> {
    /// The key of the window's items; `()` without [`by_key`](Windowed::by_key).
    pub key: K,
    /// The window's span in event time; `None` for windows by count.
    pub span: Option<Range<Duration>>,
    /// The window's items, or the result of the fold.
    pub value: V,
}

/// Windows under construction: see [`Stream::window`]. Complete them with [`items`](Windowed::items) or
/// `fold`.
#[must_use = "windows do nothing before `items` or `fold`"]
pub struct Windowed<'a, K, T, const MERGES: bool> {
    stream: Stream<'a, T>,
    rule: Rule,
    key: Box<dyn FnMut(&T) -> K + 'a>,
    late: Option<Box<dyn FnMut(T) + 'a>>,
    limit: usize,
}

impl<'a, T: 'a, const MERGES: bool> Windowed<'a, (), T, MERGES> {
    pub(super) fn new(stream: Stream<'a, T>, windows: Windows<MERGES>) -> Self {
        Self {
            stream,
            rule: windows.rule,
            key: Box::new(|_| ()),
            late: None,
            limit: LIMIT,
        }
    }

    /// Builds separate windows for each value of `key`.
    ///
    /// ```
    /// use arenite::{Engine, stream::{Stream, Windows}};
    ///
    /// let words = ["ant", "bee", "asp", "bat", "ape"];
    /// let pairs = Stream::new(words)
    ///     .window(Windows::count(2))?
    ///     .by_key(|word| word.chars().next())
    ///     .items();
    /// let pairs: Vec<_> = pairs.run(&Engine::inline()).map(|pair| pair.unwrap().value).collect();
    /// assert_eq!(pairs, [vec!["ant", "asp"], vec!["bee", "bat"], vec!["ape"]]);
    /// # Ok::<(), arenite::stream::WindowError>(())
    /// ```
    pub fn by_key<K>(self, key: impl FnMut(&T) -> K + 'a) -> Windowed<'a, K, T, MERGES> {
        Windowed {
            stream: self.stream,
            rule: self.rule,
            key: Box::new(key),
            late: self.late,
            limit: self.limit,
        }
    }
}

impl<'a, K, T, const MERGES: bool> Windowed<'a, K, T, MERGES>
where
    K: Clone + Eq + Hash + 'a,
    T: Clone + 'a,
{
    /// Passes late items to `late`: items that arrive after all of their windows have closed. They are also counted in
    /// [`StreamStats::late`](super::StreamStats::late).
    ///
    /// ```
    /// use std::time::Duration;
    /// use arenite::{Engine, stream::{Stream, Windows}};
    ///
    /// let second = Duration::from_secs(1);
    /// let mut missed = Vec::new();
    /// // The item at 4 s arrives when the watermark is at 23 s and its window has closed.
    /// let counts = Stream::new([1, 5, 12, 25, 4, 26])
    ///     .event_time(|&at| second * at)
    ///     .watermark(2 * second)
    ///     .window(Windows::tumbling(10 * second))?
    ///     .late(|at| missed.push(at))
    ///     .fold(|| 0, |count, _| *count += 1);
    /// let handle = counts.handle();
    /// let counts: Vec<i32> = counts.run(&Engine::inline()).map(|count| count.unwrap().value).collect();
    /// assert_eq!((counts, missed), (vec![2, 1, 2], vec![4]));
    /// assert_eq!(handle.stats().late, 1);
    /// # Ok::<(), arenite::stream::WindowError>(())
    /// ```
    pub fn late(mut self, late: impl FnMut(T) + 'a) -> Self {
        self.late = Some(Box::new(late));
        self
    }

    /// Sets the maximum number of items in all open windows together (an item in several windows counts in each); for a
    /// fold, the maximum number of open windows. Default: a million. A stream that exceeds the maximum ends with
    /// [`WindowsFull`](StreamError::WindowsFull), usually because its watermark does not advance.
    ///
    /// # Panics
    /// If `most` is 0.
    #[track_caller]
    pub fn max_items(mut self, most: usize) -> Self {
        assert!(
            most > 0,
            "windows without room for an item end the stream at its first item: set max_items to at least 1"
        );
        self.limit = most;
        self
    }

    /// Returns each window as the list of its items, in order of arrival. Items that are arrays are handles and are not
    /// copied. A [stage](Stream::stage_with) runs a kernel on them:
    ///
    /// ```
    /// use arenite::{Array, Engine, stream::{Stream, Windows}};
    ///
    /// // The mean of the frames of each window.
    /// fn mean(frames: &[Array<f32>], weight: f32) -> Array<f32> {
    ///     Array::from_fn(frames[0].shape(), |i| {
    ///         weight * frames.iter().map(|frame| frame[i]).sum::<f32>() / frames.len() as f32
    ///     })
    /// }
    ///
    /// let engine = Engine::inline();
    /// let frames = (0..6).map(|n| engine.from_slice(&[n as f32; 4]).unwrap());
    /// let windows = Stream::new(frames).window(Windows::count(3))?.items();
    /// let means = windows.stage_with(mean, |window| (window.key, (window.value, 10.0)));
    /// let means: Vec<f32> = means.run(&engine).map(|mean| mean.unwrap().1[0]).collect();
    /// assert_eq!(means, [10.0, 40.0]);
    /// # Ok::<(), arenite::stream::WindowError>(())
    /// ```
    pub fn items(self) -> Stream<'a, Window<K, Vec<T>>> {
        self.filled(Collect).map(|window| Window {
            key: window.key,
            span: window.span,
            value: in_order(window.value),
        })
    }

    fn filled<F: Fill<T> + 'a>(self, fill: F) -> Stream<'a, Window<K, F::Held>> {
        let timed = self.rule.is_timed();
        let (rule, key, late, limit) = (self.rule, self.key, self.late, self.limit);
        let mut stream = self.stream.then(|before| {
            Box::new(WindowStep {
                before,
                rule,
                key,
                late,
                limit,
                open: OpenWindows::new(rule, fill),
                mark: 0,
                closed: 0,
                waiting: 0,
                ready: VecDeque::new(),
                failed: false,
                flushed: false,
            })
        });
        (stream.plan.timed, stream.plan.marked) = (timed, timed);
        stream
    }
}

impl<'a, K, T> Windowed<'a, K, T, false>
where
    K: Clone + Eq + Hash + 'a,
    T: Clone + 'a,
{
    /// Folds each window into one value, as items arrive, and drops the items. The closures run on the iterating
    /// thread, so do expensive work in an earlier [stage](Stream::stage).
    ///
    /// ```
    /// use std::time::Duration;
    /// use arenite::{Engine, stream::{Stream, Windows}};
    ///
    /// let second = Duration::from_secs(1);
    /// // Time and value.
    /// let readings = [(0, 5), (3, 7), (12, 1), (11, 2), (25, 9)];
    /// let sums = Stream::new(readings)
    ///     .event_time(|&(at, _)| second * at)
    ///     .watermark(2 * second)
    ///     .window(Windows::tumbling(10 * second))?
    ///     .fold(|| 0, |sum, (_, value)| *sum += value);
    /// let sums: Vec<i32> = sums.run(&Engine::inline()).map(|sum| sum.unwrap().value).collect();
    /// assert_eq!(sums, [12, 3, 9]);
    /// # Ok::<(), arenite::stream::WindowError>(())
    /// ```
    pub fn fold<V: 'a>(
        self,
        begin: impl FnMut() -> V + 'a,
        step: impl FnMut(&mut V, T) + 'a,
    ) -> Stream<'a, Window<K, V>> {
        self.filled(Folding {
            begin,
            step,
            join: |_: &mut V, _| unreachable!("fixed windows are never merged"),
        })
    }
}

impl<'a, K, T> Windowed<'a, K, T, true>
where
    K: Clone + Eq + Hash + 'a,
    T: Clone + 'a,
{
    /// Folds each session into one value, as items arrive. When an item connects two sessions, `join` merges the later
    /// session into the earlier one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use arenite::{Engine, stream::{Stream, Windows}};
    ///
    /// let second = Duration::from_secs(1);
    /// let clicks = Stream::new([1, 2, 8, 5, 20, 21])
    ///     .event_time(|&at| second * at)
    ///     .watermark(4 * second)
    ///     .window(Windows::session(4 * second))?
    ///     .fold(|| 0, |clicks, _| *clicks += 1, |clicks, later| *clicks += later);
    /// let clicks: Vec<i32> = clicks.run(&Engine::inline()).map(|n| n.unwrap().value).collect();
    /// // The item at 5 s connects the one at 8 s with those at 1 s and 2 s.
    /// assert_eq!(clicks, [4, 2]);
    /// # Ok::<(), arenite::stream::WindowError>(())
    /// ```
    pub fn fold<V: 'a>(
        self,
        begin: impl FnMut() -> V + 'a,
        step: impl FnMut(&mut V, T) + 'a,
        join: impl FnMut(&mut V, V) + 'a,
    ) -> Stream<'a, Window<K, V>> {
        self.filled(Folding { begin, step, join })
    }
}

impl<K, T, const MERGES: bool> fmt::Debug for Windowed<'_, K, T, MERGES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windowed")
            .field("rule", &self.rule)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// Collects the items of each window, with the order of their arrival.
struct Collect;

impl<T> Fill<T> for Collect {
    type Held = Vec<(u64, T)>;
    fn empty(&mut self) -> Self::Held {
        Vec::new()
    }
    fn add(&mut self, held: &mut Self::Held, arrival: u64, value: T) {
        held.push((arrival, value));
    }
    fn merge(&mut self, held: &mut Self::Held, later: Self::Held) {
        held.extend(later);
    }
    fn weight(items: usize) -> usize {
        items
    }
    fn bytes(item: u64) -> u64 {
        item
    }
}

/// Sorts items by arrival, because the items of merged sessions are not in that order.
fn in_order<T>(mut items: Vec<(u64, T)>) -> Vec<T> {
    items.sort_by_key(|(arrival, _)| *arrival);
    items.into_iter().map(|(_, item)| item).collect()
}

struct Folding<B, S, J> {
    begin: B,
    step: S,
    join: J,
}

impl<T, V, B, S, J> Fill<T> for Folding<B, S, J>
where
    B: FnMut() -> V,
    S: FnMut(&mut V, T),
    J: FnMut(&mut V, V),
{
    type Held = V;
    fn empty(&mut self) -> V {
        (self.begin)()
    }
    fn add(&mut self, held: &mut V, _: u64, value: T) {
        (self.step)(held, value);
    }
    fn merge(&mut self, held: &mut V, later: V) {
        (self.join)(held, later);
    }
    fn weight(_: usize) -> usize {
        1
    }
    fn bytes(_: u64) -> u64 {
        0
    }
}

struct WindowStep<'a, K, T, F: Fill<T>> {
    before: BoxFlow<'a, T>,
    rule: Rule,
    key: Box<dyn FnMut(&T) -> K + 'a>,
    late: Option<Box<dyn FnMut(T) + 'a>>,
    limit: usize,
    open: OpenWindows<K, T, F>,
    mark: u128,
    /// Number of closed windows.
    closed: u64,
    ready: VecDeque<Event<Window<K, F::Held>>>,
    /// Number of windows in `ready`.
    waiting: usize,
    /// Whether the stream has failed: then no more items are taken.
    failed: bool,
    flushed: bool,
}

impl<K: Clone + Eq + Hash, T: Clone, F: Fill<T>> WindowStep<'_, K, T, F> {
    fn add(&mut self, item: Item<T>, driver: &mut Driver<'_>) {
        driver.leave_admission_line();
        let (at, bytes) = (item.time.map_or(0, |time| time.as_nanos()), item.bytes);
        let key = (self.key)(&item.value);
        let value = driver.leave(item);
        if let Err(Late(value)) = self.open.add(&key, value, bytes, at, self.mark, self.limit) {
            driver.stats.late += 1;
            if let Some(late) = &mut self.late {
                late(value);
            }
        }
        if !self.rule.is_timed() {
            while let Some((window, end)) = self.open.close_full(&key) {
                self.deliver(window, end, driver);
            }
        }
        if self.open.weight > self.limit {
            let error = driver.ended(StreamError::WindowsFull { limit: self.limit });
            self.fail(error);
        }
    }

    fn fail(&mut self, error: StreamError) {
        self.failed = true;
        self.ready.push_back(Event::Failed(error));
    }

    fn close_until(&mut self, mark: u128, driver: &mut Driver<'_>) {
        while let Some((window, end)) = self.open.close(mark) {
            self.deliver(window, end, driver);
        }
    }

    fn deliver(&mut self, window: OpenWindow<K, F::Held>, end: u128, driver: &mut Driver<'_>) {
        let timed = self.rule.is_timed();
        let item = Item {
            value: Window {
                key: window.key,
                span: timed.then(|| from_nanos(window.start)..from_nanos(end)),
                value: window.held,
            },
            sequence: self.closed,
            draws: self.closed,
            time: timed.then(|| from_nanos(end - 1)),
            bytes: window.bytes,
        };
        self.closed += 1;
        self.waiting += 1;
        driver.stats.windows += 1;
        driver.enter(&item);
        self.ready.push_back(Event::Item(item));
    }

    /// Takes items from the previous step, until a window closes or the stream fails.
    fn take_in(&mut self, driver: &mut Driver<'_>) -> bool {
        let mut changed = false;
        let held = self.open.weight;
        while self.waiting == 0 && !self.failed {
            let Some(event) = self.before.take(driver) else {
                break;
            };
            changed = true;
            match event {
                Event::Item(item) => self.add(item, driver),
                Event::Failed(error) => self.fail(error),
                Event::Mark(mark) if self.rule.is_timed() => {
                    self.mark = self.mark.max(mark.as_nanos());
                    self.close_until(self.mark, driver);
                    match self.ready.back_mut() {
                        Some(Event::Mark(last)) => *last = mark,
                        _ => self.ready.push_back(Event::Mark(mark)),
                    }
                }
                // Windows by count ignore watermarks, and later steps get none: these windows have no time.
                Event::Mark(_) => {}
            }
        }
        if self.waiting == 0 && !self.flushed && self.before.is_over() {
            (self.flushed, changed) = (true, true);
            self.close_until(u128::MAX, driver);
        }
        driver.stats.held_by_windows = driver.stats.held_by_windows + self.open.weight - held;
        changed
    }
}

impl<K: Clone + Eq + Hash, T: Clone, F: Fill<T>> Flow<Window<K, F::Held>>
    for WindowStep<'_, K, T, F>
{
    fn pump(&mut self, driver: &mut Driver<'_>) -> bool {
        let taken = self.take_in(driver);
        let changed = self.before.pump(driver);
        // If the previous step has just ended, another pass is needed, which closes the open windows.
        changed || taken || self.waiting == 0 && !self.flushed && self.before.is_over()
    }

    fn take(&mut self, _: &mut Driver<'_>) -> Option<Event<Window<K, F::Held>>> {
        let event = self.ready.pop_front()?;
        self.waiting -= usize::from(matches!(event, Event::Item(_)));
        Some(event)
    }

    fn is_over(&self) -> bool {
        self.flushed && self.ready.is_empty()
    }

    fn listen(&mut self, context: &mut Context<'_>) -> bool {
        self.before.listen(context)
    }
}
