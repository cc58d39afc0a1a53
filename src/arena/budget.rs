//! What commits are measured against: the capacity, the system's memory, and how well collapsing goes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::limits;

/// Locks; a thread that panicked inside left numbers that are still whole, since each change is one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long an answer about the system's memory counts.
const FRESH: Duration = Duration::from_millis(100);

/// How much of the system's memory is never committed: what is left for everybody's next steps.
const RESERVE: u64 = 48 << 20;

/// Bytes that may still be committed.
#[derive(Debug)]
pub(super) struct Budget {
    capacity: u64,
    committed: AtomicU64,
    memory: Mutex<Allowance>,
    pub(super) collapse: CollapsePolicy,
}

#[derive(Debug)]
struct Allowance {
    bytes: u64,
    read_at: Option<Instant>,
}

impl Budget {
    pub(super) fn new(capacity: u64) -> Budget {
        Budget {
            capacity,
            committed: AtomicU64::new(0),
            memory: Mutex::new(Allowance {
                bytes: 0,
                read_at: None,
            }),
            collapse: CollapsePolicy::default(),
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Counts `bytes` as committed, if the capacity and the system's memory have room for them.
    #[must_use]
    pub(super) fn take(&self, bytes: u64) -> bool {
        let more = |committed: u64| {
            committed
                .checked_add(bytes)
                .filter(|&sum| sum <= self.capacity)
        };
        // Relaxed: a count that guards no other memory.
        let counted = self
            .committed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok();
        if counted && !self.memory_for(bytes) {
            self.give(bytes);
            return false;
        }
        counted
    }

    /// Counts `bytes` as no longer committed.
    pub(super) fn give(&self, bytes: u64) {
        self.committed.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether the machine and the container have `bytes` left: segments beyond that would call the OOM killer.
    fn memory_for(&self, bytes: u64) -> bool {
        let mut allowance = lock(&self.memory);
        let stale = allowance.read_at.is_none_or(|at| at.elapsed() > FRESH);
        if stale || allowance.bytes < bytes {
            let available = limits::memory_available(Path::new("/")).available;
            allowance.bytes = available.saturating_sub(RESERVE.min(available / 8));
            allowance.read_at = Some(Instant::now());
        }
        match allowance.bytes.checked_sub(bytes) {
            Some(left) => {
                allowance.bytes = left;
                true
            }
            None => false,
        }
    }
}

/// A collapse that takes longer than this costs more than small pages would.
const SLOW: Duration = Duration::from_millis(1);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// When to try huge pages, from how the last tries went.
///
/// A slow or failed collapse means that free memory is in pieces, or that the host has taken it back: small pages are
/// cheaper then, for 20 ms at first and for twice as long after each further failure, up to 2 s.
#[derive(Debug, Default)]
pub(super) struct CollapsePolicy {
    pause: Mutex<Pause>,
    pub(super) done: AtomicU64,
    pub(super) slow: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) nanos: AtomicU64,
}

#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    length: Duration,
}

impl CollapsePolicy {
    /// Whether a collapse is worth trying now.
    pub(super) fn may_try(&self) -> bool {
        self.may_try_at(Instant::now())
    }

    fn may_try_at(&self, now: Instant) -> bool {
        lock(&self.pause).until.is_none_or(|until| now >= until)
    }

    /// Learns from one try that took `time`.
    pub(super) fn learn(&self, time: Duration, worked: bool) {
        self.learn_at(Instant::now(), time, worked);
    }

    fn learn_at(&self, now: Instant, time: Duration, worked: bool) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        let counter = match (worked, time > SLOW) {
            (true, _) => &self.done,
            (false, _) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut pause = lock(&self.pause);
        if worked && time <= SLOW {
            *pause = Pause::default();
            return;
        }
        if worked {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
        pause.length = (pause.length * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        pause.until = now.checked_add(pause.length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_collapses_pause_longer_each_time_and_a_good_one_ends_it() {
        let policy = CollapsePolicy::default();
        let start = Instant::now();
        let slow = Duration::from_millis(3);
        assert!(policy.may_try_at(start));
        policy.learn_at(start, slow, true);
        assert!(!policy.may_try_at(start + Duration::from_millis(19)));
        assert!(policy.may_try_at(start + Duration::from_millis(20)));
        policy.learn_at(start, Duration::ZERO, false);
        assert!(!policy.may_try_at(start + Duration::from_millis(39)));
        for _ in 0..20 {
            policy.learn_at(start, slow, true);
        }
        assert!(policy.may_try_at(start + LONGEST_PAUSE));
        policy.learn_at(start, Duration::from_micros(150), true);
        assert!(policy.may_try_at(start));
        assert_eq!(policy.done.load(Ordering::Relaxed), 22);
        assert_eq!(policy.slow.load(Ordering::Relaxed), 21);
        assert_eq!(policy.failed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_capacity_is_never_passed() {
        let budget = Budget::new(1000);
        assert!(budget.take(600));
        assert!(!budget.take(401));
        assert!(!budget.take(u64::MAX));
        assert!(budget.take(400));
        budget.give(1000);
        assert_eq!(budget.committed(), 0);
    }
}
