//! The kinds of windows, and which windows an item belongs to.

use std::time::Duration;

use super::super::error::WindowError;

/// The rule that groups items into windows.
///
/// | window | contains | closes |
/// |---|---|---|
/// | [`count`](Windows::count) | a number of items | when it is full |
/// | [`tumbling`](Windows::tumbling) | items of a time span; spans are adjacent | when the watermark reaches its end |
/// | [`sliding`](Windows::sliding) | items of a time span; one begins at each step | the same |
/// | [`session`](Windows::session) | items less than a gap apart | when the watermark is a gap after the last item |
///
/// `MERGES` says whether an item can merge windows, as it can sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows<const MERGES: bool = false> {
    pub(in super::super) rule: Rule,
}

/// The rule's numbers are in nanoseconds, or, for windows by count, numbers of items with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Rule {
    Count { length: u128, step: u128 },
    Time { length: u128, step: u128 },
    Session { gap: u128 },
}

impl Windows {
    fn new(rule: Rule) -> Self {
        Self { rule }
    }

    /// Returns windows of `items` items each. They need no event time and no watermark. The last window may have fewer.
    pub fn count(items: usize) -> Self {
        Self::count_sliding(items, items)
    }

    /// Returns windows of `items` items; a new window begins every `step` items. Windows that are open at the end of
    /// the stream may have fewer.
    pub fn count_sliding(items: usize, step: usize) -> Self {
        Self::new(Rule::Count {
            length: items as u128,
            step: step as u128,
        })
    }

    /// Returns adjacent windows of this length in time.
    pub fn tumbling(length: Duration) -> Self {
        Self::sliding(length, length)
    }

    /// Returns windows of this length in time; a new window begins at each multiple of `step` from zero on. Each item
    /// is in `length / step` windows, rounded up or down, and in fewer windows if its time is less than
    /// `length - step`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use arenite::{Engine, stream::{Stream, Windows}};
    ///
    /// let engine = Engine::inline();
    /// let second = Duration::from_secs(1);
    /// // One number each second; every two seconds the sum of four seconds.
    /// let sums = Stream::new(0..6u32)
    ///     .event_time(|&n| n * second)
    ///     .watermark(Duration::ZERO)
    ///     .window(Windows::sliding(4 * second, 2 * second))?
    ///     .fold(|| 0, |sum, n| *sum += n);
    /// let sums: Vec<_> = sums.run(&engine).collect::<Result<_, _>>()?;
    /// let found: Vec<_> = sums.iter().map(|sum| (sum.span.as_ref().unwrap().start.as_secs(), sum.value)).collect();
    /// assert_eq!(found, [(0, 6), (2, 14), (4, 9)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sliding(length: Duration, step: Duration) -> Self {
        Self::new(Rule::Time {
            length: length.as_nanos(),
            step: step.as_nanos(),
        })
    }
}

impl Windows<true> {
    /// Returns windows that last as long as items are less than `gap` apart.
    pub fn session(gap: Duration) -> Self {
        Self {
            rule: Rule::Session {
                gap: gap.as_nanos(),
            },
        }
    }
}

impl Rule {
    pub(super) fn is_timed(self) -> bool {
        !matches!(self, Self::Count { .. })
    }

    /// Checks the rule. `timed`: whether the items have event times; `marked`: whether there are watermarks.
    pub(in super::super) fn check(self, timed: bool, marked: bool) -> Result<(), WindowError> {
        match self {
            Self::Count { length: 0, .. }
            | Self::Time { length: 0, .. }
            | Self::Session { gap: 0 } => Err(WindowError::Empty),
            Self::Count { length, step } | Self::Time { length, step }
                if step == 0 || step > length =>
            {
                Err(WindowError::BadStep)
            }
            _ if self.is_timed() && !timed => Err(WindowError::NoEventTime),
            _ if self.is_timed() && !marked => Err(WindowError::NoWatermark),
            _ => Ok(()),
        }
    }
}

/// Returns the starts of all windows that contain `at`, if a window of `length` begins at each multiple of `step`.
pub(super) fn starts(at: u128, length: u128, step: u128) -> impl Iterator<Item = u128> {
    let first = match at.checked_sub(length) {
        Some(before) => before / step + 1,
        None => 0,
    };
    (first..=at / step).map(move |index| index * step)
}

pub(super) fn from_nanos(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    match u64::try_from(nanos / SECOND) {
        Ok(seconds) => Duration::new(seconds, (nanos % SECOND) as u32),
        Err(_) => Duration::MAX,
    }
}
