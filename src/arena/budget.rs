//! What commits are measured against: the capacity, the system's memory, and how well collapsing goes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::limits::{self, Memory};

/// Locks; a thread that panicked inside left numbers that are still whole, since each change is one step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long an answer about the system's memory counts.
const FRESH: Duration = Duration::from_millis(100);

/// How much of the system's memory is not committed, or an eighth of what is available if that is less: what is left for
/// everybody's next steps.
const RESERVE: u64 = 48 << 20;

/// That does not shrink below this much, or a sixteenth of all if that is less: with nothing left, the next worker that starts
/// would have the kernel kill somebody.
const LEAST_RESERVE: u64 = 8 << 20;

/// Bytes that may still be committed.
#[derive(Debug)]
pub(super) struct Budget {
    capacity: u64,
    committed: AtomicU64,
    memory: Mutex<Allowance>,
    /// See `Spec::root`.
    root: PathBuf,
    pub(super) collapse: CollapsePolicy,
}

#[derive(Debug)]
struct Allowance {
    bytes: u64,
    read_at: Instant,
    /// What was taken and may not be in the system's figures yet.
    under_way: u64,
}

impl Allowance {
    fn now(memory: &Memory) -> Allowance {
        let mut allowance = Allowance {
            bytes: 0,
            read_at: Instant::now(),
            under_way: 0,
        };
        allowance.renew(memory);
        allowance
    }

    /// Counts from what the system says now. Of what is under way a part may be in that already; it comes back with the next time.
    fn renew(&mut self, memory: &Memory) {
        let least = LEAST_RESERVE.min(memory.limit / 16);
        let reserve = RESERVE.min(memory.available / 8).max(least);
        let left = memory.available.saturating_sub(reserve);
        self.bytes = left.saturating_sub(self.under_way);
        self.read_at = Instant::now();
    }
}

/// Bytes that count as committed, and are about to be. Given back when dropped, unless they are kept.
#[derive(Debug)]
#[must_use]
pub(super) struct Taken<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Taken<'_> {
    /// They are committed now: the system knows of them.
    pub(super) fn keep(self) {
        lock(&self.budget.memory).under_way -= self.bytes;
        std::mem::forget(self);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        lock(&self.budget.memory).under_way -= self.bytes;
        self.budget.give(self.bytes);
    }
}

impl Budget {
    /// `memory` is what the system has said just now.
    pub(super) fn new(capacity: u64, memory: &Memory, root: &Path) -> Budget {
        Budget {
            capacity,
            committed: AtomicU64::new(0),
            memory: Mutex::new(Allowance::now(memory)),
            root: root.to_owned(),
            collapse: CollapsePolicy::default(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Counts `bytes` as committed, if the capacity and the system's memory have room for them.
    pub(super) fn take(&self, bytes: u64) -> Option<Taken<'_>> {
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
            return None;
        }
        counted.then(|| Taken {
            budget: self,
            bytes,
        })
    }

    /// Whether the capacity, rather than the system's memory, has no room for `bytes` more.
    pub(super) fn is_too_small_for(&self, bytes: u64) -> bool {
        let sum = self.committed().checked_add(bytes);
        sum.is_none_or(|sum| sum > self.capacity)
    }

    /// Counts `bytes` as no longer committed.
    pub(super) fn give(&self, bytes: u64) {
        self.committed.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether the machine and the container have `bytes` left: segments beyond that would call the OOM killer.
    fn memory_for(&self, bytes: u64) -> bool {
        let mut allowance = lock(&self.memory);
        if (allowance.read_at.elapsed() > FRESH || allowance.bytes < bytes)
            && let Some(memory) = limits::memory_now(&self.root)
        {
            allowance.renew(&memory);
        }
        let Some(left) = allowance.bytes.checked_sub(bytes) else {
            return false;
        };
        allowance.bytes = left;
        allowance.under_way += bytes;
        true
    }
}

/// What 512 small pages cost: committing them and their first faults.
const SMALL: i64 = 1_100_000;
/// A collapse that takes longer than this is counted as slow, in nanoseconds.
const SLOW: i64 = 1_000_000;
/// What slow collapses may cost in advance, and the most that good ones can save up for them, in nanoseconds.
const ADVANCE: i64 = 100_000_000;
const MOST_SAVED: i64 = 400_000_000;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// When to try huge pages, from what they cost so far.
///
/// A good collapse takes an eighth of the time of 512 small pages. A slow one means that free memory is in pieces, or
/// that the machine's host has taken it back, and is an investment: the next commit of that memory is a good one. So
/// what good ones save pays for slow ones: all together cost no more than small pages would have, but for an advance of
/// 100 ms. When that is spent, and after a failure, there is a pause of 10 ms, twice as long after each further one,
/// 320 ms at most. A good try ends it, and so does a trim, which gives whole chunks back to the kernel.
#[derive(Debug)]
pub(super) struct CollapsePolicy {
    pace: Mutex<Pace>,
    pub(super) done: AtomicU64,
    pub(super) slow: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) nanos: AtomicU64,
}

#[derive(Debug)]
struct Pace {
    /// Nanoseconds that slow collapses may still cost.
    saved: i64,
    until: Option<Instant>,
    pause: Duration,
}

impl Default for CollapsePolicy {
    fn default() -> CollapsePolicy {
        CollapsePolicy {
            pace: Mutex::new(Pace {
                saved: ADVANCE,
                until: None,
                pause: Duration::ZERO,
            }),
            done: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
        }
    }
}

impl CollapsePolicy {
    /// Whether a collapse is worth trying now.
    pub(super) fn may_try(&self) -> bool {
        self.may_try_at(Instant::now())
    }

    fn may_try_at(&self, now: Instant) -> bool {
        lock(&self.pace).until.is_none_or(|until| now >= until)
    }

    /// Learns from one try of `count` chunks that took `time`.
    pub(super) fn learn(&self, time: Duration, count: u32, worked: bool) {
        self.learn_at(Instant::now(), time, count, worked);
    }

    fn learn_at(&self, now: Instant, time: Duration, count: u32, worked: bool) {
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX / 2);
        // Relaxed: counts for people.
        self.nanos
            .fetch_add(nanos.unsigned_abs(), Ordering::Relaxed);
        let counter = if worked { &self.done } else { &self.failed };
        counter.fetch_add(count.into(), Ordering::Relaxed);
        if worked && nanos / i64::from(count.max(1)) > SLOW {
            self.slow.fetch_add(count.into(), Ordering::Relaxed);
        }
        let gain = if worked { SMALL * i64::from(count) } else { 0 } - nanos;
        let mut pace = lock(&self.pace);
        pace.saved = pace.saved.saturating_add(gain).min(MOST_SAVED);
        if worked && pace.saved >= 0 {
            pace.until = None;
            pace.pause = Duration::ZERO;
        } else {
            pace.saved = pace.saved.max(0);
            pace.pause = (pace.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            pace.until = now.checked_add(pace.pause);
        }
    }

    /// Ends a pause: the kernel has just got whole chunks back.
    pub(super) fn forgive(&self) {
        let mut pace = lock(&self.pace);
        pace.until = None;
        pace.pause = Duration::ZERO;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn good_collapses_pay_for_slow_ones_and_then_there_is_a_pause() {
        let policy = CollapsePolicy::default();
        let start = Instant::now();
        let good = Duration::from_micros(100);
        let slow = Duration::from_micros(5_100);
        let mut afforded = 0;
        while policy.may_try_at(start) {
            policy.learn_at(start, slow, 1, true);
            afforded += 1;
        }
        assert_eq!(afforded, ADVANCE / 4_000_000 + 1);
        assert!(policy.may_try_at(start + FIRST_PAUSE));
        policy.learn_at(start, slow, 1, true);
        assert!(!policy.may_try_at(start + FIRST_PAUSE), "twice as long");
        for _ in 0..20 {
            policy.learn_at(start, Duration::ZERO, 1, false);
        }
        assert!(!policy.may_try_at(start + LONGEST_PAUSE / 2));
        assert!(policy.may_try_at(start + LONGEST_PAUSE));
        for _ in 0..8 {
            policy.learn_at(start, good, 1, true);
        }
        for _ in 0..2 {
            assert!(policy.may_try_at(start), "eight good ones pay for two");
            policy.learn_at(start, slow, 1, true);
        }
        assert!(policy.may_try_at(start));
        policy.learn_at(start, slow, 1, true);
        assert!(!policy.may_try_at(start));
        policy.forgive();
        assert!(policy.may_try_at(start));
        assert_eq!(policy.failed.load(Ordering::Relaxed), 20);
        assert_eq!(policy.done.load(Ordering::Relaxed), 26 + 1 + 8 + 3);
        assert_eq!(policy.slow.load(Ordering::Relaxed), 26 + 1 + 3);
    }

    #[test]
    fn what_is_left_for_others_does_not_shrink_to_nothing() {
        const MIB: u64 = 1 << 20;
        for (limit, left, allowed) in [
            (24 << 30, 1024, 976),
            (24 << 30, 80, 70),
            (24 << 30, 40, 32),
            (24 << 30, 9, 1),
            (24 << 30, 8, 0),
            (24 << 30, 1, 0),
            (64 * MIB, 40, 35),
            (64 * MIB, 4, 0),
        ] {
            let found = Allowance::now(&Memory::of_a_container(limit, left * MIB)).bytes;
            assert_eq!(found, allowed * MIB, "{left} MiB of {limit} bytes");
        }
    }

    /// A limit that cannot be read is still there.
    #[test]
    fn who_cannot_look_has_what_was_left() {
        const MIB: u64 = 1 << 20;
        let left = Memory::of_a_container(24 << 30, 80 * MIB);
        crate::sys::tests::without_descriptors(|| {
            let budget = Budget::new(1 << 30, &left, Path::new("/"));
            budget.take(40 * MIB).unwrap().keep();
            lock(&budget.memory).read_at -= 2 * FRESH;
            assert!(budget.take(40 * MIB).is_none());
            budget.take(30 * MIB).unwrap().keep();
        });
    }

    #[test]
    fn the_capacity_is_never_passed() {
        let budget = Budget::new(
            1000,
            &Memory::of_a_container(1 << 30, 1 << 30),
            Path::new("/"),
        );
        budget.take(600).unwrap().keep();
        assert!(budget.take(401).is_none());
        assert!(budget.take(u64::MAX).is_none());
        drop(budget.take(400).unwrap());
        budget.take(400).unwrap().keep();
        budget.give(1000);
        assert_eq!(budget.committed(), 0);
    }

    /// The system does not know of what others are only about to commit.
    #[test]
    fn what_is_under_way_is_not_given_out_twice() {
        const MIB: u64 = 1 << 20;
        let left = Memory::of_a_container(24 << 30, 80 * MIB);
        let mut allowance = Allowance::now(&left);
        assert_eq!(allowance.bytes, 70 * MIB);
        allowance.under_way = 60 * MIB;
        allowance.renew(&left);
        assert_eq!(allowance.bytes, 10 * MIB);
        let budget = Budget::new(1 << 30, &left, Path::new("/"));
        let under_way = || lock(&budget.memory).under_way;
        let [first, second] = [10 * MIB, 20 * MIB].map(|bytes| budget.take(bytes).unwrap());
        assert_eq!(under_way(), 30 * MIB);
        first.keep();
        assert_eq!((under_way(), budget.committed()), (20 * MIB, 30 * MIB));
        drop(second);
        assert_eq!((under_way(), budget.committed()), (0, 10 * MIB));
    }
}
