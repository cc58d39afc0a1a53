//! Limits the rate at which a worker may print.

use std::time::{Duration, Instant};

/// Bytes per second that a worker may print.
pub(super) const RATE: u64 = 1 << 20;
/// Bytes that a worker may print at once after a pause.
const BURST: u64 = 1 << 20;
/// Bytes that each line is charged in addition to its length.
const LINE: u64 = 64;
/// The interval at which dropped lines are reported.
const REPORT: Duration = Duration::from_secs(1);

/// The allowance of a worker, and the number of dropped lines.
#[derive(Debug)]
pub(super) struct RateCap {
    left: u64,
    filled: Instant,
    lines: u64,
    bytes: u64,
    /// When the first unreported line was dropped.
    since: Option<Instant>,
}

impl RateCap {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            filled: now,
            lines: 0,
            bytes: 0,
            since: None,
        }
    }

    /// Returns true if a line of `bytes` may pass, which was `cut` bytes longer before it was truncated. A dropped line
    /// counts with all its bytes. A line that passes is charged only the bytes that are passed on, so that one long
    /// line does not use up the allowance.
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
        // After a dropped line, all lines are dropped until the report.
        self.lines += 1;
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(cut);
        self.since.get_or_insert(now);
        false
    }

    /// Returns when dropped lines have to be reported.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + REPORT)
    }

    /// Reports dropped lines if it is time, or if this is the `last` chance.
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
            "{lines} lines ({bytes} bytes) dropped: a worker may print {RATE} bytes per second, with {LINE} more counted for each line"
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
        let mut rate_cap = RateCap::new(start);
        let passed = (0..100_000)
            .filter(|_| rate_cap.passes(1000, 0, at(0)))
            .count() as u64;
        assert_eq!(passed, BURST / 1064);
        assert_eq!(rate_cap.report(at(999), false), None);
        // All lines between a dropped line and the report are dropped.
        assert!(!rate_cap.passes(0, 0, at(999)));
        let report = rate_cap.report(at(1000), false).expect("it is time");
        let lines = 100_001 - passed;
        let bytes = (100_000 - passed) * 1000;
        assert!(
            report.starts_with(&format!("{lines} lines ({bytes} bytes)")),
            "{report}"
        );
        assert_eq!(
            (rate_cap.due(), rate_cap.report(at(5000), true)),
            (None, None)
        );
        assert!(rate_cap.passes(1000, 0, at(1000)));
        // As many lines as one second allows, however often the method is called.
        let passed = (1000..2000)
            .flat_map(|ms| [ms; 10])
            .filter(|&ms| rate_cap.passes(1000, 0, at(ms)));
        assert!(passed.count() as u64 <= 2 * (BURST + RATE) / 1064);
    }

    #[test]
    fn truncated_bytes_are_counted_and_not_charged() {
        let start = Instant::now();
        let mut rate_cap = RateCap::new(start);
        let passed = (0..1000).filter(|_| rate_cap.passes(4096, 1 << 40, start));
        let passed = passed.count() as u64;
        assert_eq!(passed, BURST / (4096 + LINE));
        let report = rate_cap.report(start, true).expect("some were dropped");
        let (lines, bytes) = (1000 - passed, (1000 - passed) * (4096 + (1 << 40)));
        assert!(
            report.starts_with(&format!("{lines} lines ({bytes} bytes)")),
            "{report}"
        );
    }

    #[test]
    fn a_clock_jump_allows_no_more_than_the_burst() {
        let start = Instant::now();
        let mut rate_cap = RateCap::new(start);
        let far = start + Duration::from_secs(u64::from(u32::MAX));
        let passed = (0..10_000)
            .filter(|_| rate_cap.passes(1000, 0, far))
            .count() as u64;
        assert_eq!(passed, BURST / 1064);
    }
}
