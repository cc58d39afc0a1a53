//! How much of what a worker prints is passed on.

use std::time::{Duration, Instant};

/// Bytes that a worker may print in a second, for long.
pub(super) const RATE: u64 = 1 << 20;
/// Bytes that it may print at once after it has been quiet.
const BURST: u64 = 1 << 20;
/// What a line costs beside its bytes.
const LINE: u64 = 64;
/// How often a flood is reported.
const REPORT: Duration = Duration::from_secs(1);

/// A worker's allowance, and what went beyond it.
#[derive(Debug)]
pub(super) struct Limit {
    left: u64,
    filled: Instant,
    lines: u64,
    bytes: u64,
    /// When the first line was dropped that has not been reported.
    since: Option<Instant>,
}

impl Limit {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            filled: now,
            lines: 0,
            bytes: 0,
            since: None,
        }
    }

    /// May a line of so many bytes pass, of which so many more were cut off? If not it is counted, with all of them; if it
    /// does, only what is passed on is a part of the allowance, so that one long line is no flood.
    pub(super) fn passes(&mut self, bytes: u64, cut: u64, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled);
        let more = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let more = more.saturating_mul(RATE) / 1_000_000;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.filled = now;
        }
        let cost = bytes.saturating_add(LINE);
        if self.since.is_none() && cost <= self.left {
            self.left -= cost;
            return true;
        }
        // Once lines are missing, none comes between them and the report.
        self.lines += 1;
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(cut);
        self.since.get_or_insert(now);
        false
    }

    /// When what was dropped is to be reported.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + REPORT)
    }

    /// What was dropped, if it is time to say so or the `last` chance.
    pub(super) fn report(&mut self, now: Instant, last: bool) -> Option<String> {
        if !last && self.due()? > now {
            return None;
        }
        self.since.take()?;
        let (lines, bytes) = (
            std::mem::take(&mut self.lines),
            std::mem::take(&mut self.bytes),
        );
        Some(format!(
            "{lines} lines ({bytes} bytes) dropped: a worker may print {RATE} bytes in a second, where each line counts {LINE} more than it has"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_is_counted() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut limit = Limit::new(start);
        let passed = (0..100_000)
            .filter(|_| limit.passes(1000, 0, at(0)))
            .count() as u64;
        assert_eq!(passed, BURST / 1064);
        assert_eq!(limit.report(at(999), false), None);
        // Nothing between what is missing and the line that says so.
        assert!(!limit.passes(0, 0, at(999)));
        let report = limit.report(at(1000), false).expect("it is time");
        let lines = 100_001 - passed;
        let bytes = (100_000 - passed) * 1000;
        assert!(
            report.starts_with(&format!("{lines} lines ({bytes} bytes)")),
            "{report}"
        );
        assert_eq!((limit.due(), limit.report(at(5000), true)), (None, None));
        assert!(limit.passes(1000, 0, at(1000)));
        // A second's worth, however often it is asked.
        let passed = (1000..2000)
            .flat_map(|ms| [ms; 10])
            .filter(|&ms| limit.passes(1000, 0, at(ms)));
        assert!(passed.count() as u64 <= 2 * (BURST + RATE) / 1064);
    }

    #[test]
    fn what_was_cut_off_is_counted_and_not_charged() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let passed = (0..1000).filter(|_| limit.passes(4096, 1 << 40, start));
        let passed = passed.count() as u64;
        assert_eq!(passed, BURST / (4096 + LINE));
        let report = limit.report(start, true).expect("some were dropped");
        let (lines, bytes) = (1000 - passed, (1000 - passed) * (4096 + (1 << 40)));
        assert!(
            report.starts_with(&format!("{lines} lines ({bytes} bytes)")),
            "{report}"
        );
    }

    #[test]
    fn time_that_stands_still_or_jumps_gives_no_more_than_the_burst() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let far = start + Duration::from_secs(u64::from(u32::MAX));
        let passed = (0..10_000).filter(|_| limit.passes(1000, 0, far)).count() as u64;
        assert_eq!(passed, BURST / 1064);
    }
}
