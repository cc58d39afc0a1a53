//! Limits of commits: the capacity, the system's memory, and a policy for collapsing.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sync::lock;
use crate::sys::limits::{self, Memory};

/// Maximum age of a cached reading of the system's memory.
const MAX_AGE: Duration = Duration::from_millis(100);

/// Bytes of the available memory that are never committed, so that the rest of the system can continue. If an eighth of
/// the available memory is less, the reserve is that eighth.
const RESERVE: u64 = 48 << 20;

/// Lower bound of the reserve in bytes. If a sixteenth of the total memory is less, the bound is that sixteenth.
/// Without a reserve, the next worker that starts would make Linux kill a process.
const MIN_RESERVE: u64 = 8 << 20;

/// Limits what an arena commits: by its capacity, and by the memory of the system.
#[derive(Debug)]
pub(super) struct Budget {
    capacity: u64,
    committed: AtomicU64,
    memory: Mutex<Allowance>,
    /// See [`Spec::root`](super::Spec::root).
    root: PathBuf,
    pub(super) collapse: CollapsePolicy,
}

#[derive(Debug)]
struct Allowance {
    /// Bytes of the system's memory that may still be committed, according to the last reading.
    bytes: u64,
    read_at: Instant,
    /// Bytes claimed but perhaps not yet visible in the system's numbers.
    in_progress: u64,
}

impl Allowance {
    fn now(memory: &Memory) -> Allowance {
        let mut allowance = Allowance {
            bytes: 0,
            read_at: Instant::now(),
            in_progress: 0,
        };
        allowance.renew(memory);
        allowance
    }

    /// Sets `bytes` from a new reading of the system's memory. A commit in progress may be counted twice, in
    /// `in_progress` and in the reading; the next call corrects that.
    fn renew(&mut self, memory: &Memory) {
        let least = MIN_RESERVE.min(memory.limit / 16);
        let reserve = RESERVE.min(memory.available / 8).max(least);
        let left = memory.available.saturating_sub(reserve);
        self.bytes = left.saturating_sub(self.in_progress);
        self.read_at = Instant::now();
    }
}

/// Bytes counted as committed while a commit is in progress. Drop returns them to the budget, unless `confirm` was
/// called.
#[derive(Debug)]
#[must_use]
pub(super) struct BudgetClaim<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl BudgetClaim<'_> {
    /// Records that the bytes are committed, and visible in the system's numbers.
    pub(super) fn confirm(self) {
        lock(&self.budget.memory).in_progress -= self.bytes;
        std::mem::forget(self);
    }
}

impl Drop for BudgetClaim<'_> {
    fn drop(&mut self) {
        lock(&self.budget.memory).in_progress -= self.bytes;
        self.budget.give(self.bytes);
    }
}

impl Budget {
    /// Creates the budget of an arena. `memory` is a current reading of the system's memory.
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

    /// Claims `bytes`, if the capacity and the system's memory have room for them.
    pub(super) fn take(&self, bytes: u64) -> Option<BudgetClaim<'_>> {
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
        counted.then(|| BudgetClaim {
            budget: self,
            bytes,
        })
    }

    /// Returns true if the capacity has no room for `bytes` more, whatever memory the system has.
    pub(super) fn is_too_small_for(&self, bytes: u64) -> bool {
        let sum = self.committed().checked_add(bytes);
        sum.is_none_or(|sum| sum > self.capacity)
    }

    /// Returns `bytes` committed bytes to the budget.
    pub(super) fn give(&self, bytes: u64) {
        self.committed.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Claims `bytes` of the memory of the machine and the container, and returns whether there was room. Commits
    /// beyond the room would invoke the OOM killer.
    fn memory_for(&self, bytes: u64) -> bool {
        let mut allowance = lock(&self.memory);
        if (allowance.read_at.elapsed() > MAX_AGE || allowance.bytes < bytes)
            && let Some(memory) = limits::memory_now(&self.root)
        {
            allowance.renew(&memory);
        }
        let Some(left) = allowance.bytes.checked_sub(bytes) else {
            return false;
        };
        allowance.bytes = left;
        allowance.in_progress += bytes;
        true
    }
}

/// Cost of 512 small pages in nanoseconds: committing them and their first faults.
const SMALL_PAGES_NS: i64 = 1_100_000;
/// A collapse that takes more than this number of nanoseconds counts as slow.
const SLOW_NS: i64 = 1_000_000;
/// Initial credit for slow collapses, in nanoseconds.
const INITIAL_CREDIT_NS: i64 = 100_000_000;
/// Maximum credit that good collapses can earn, in nanoseconds.
const MAX_CREDIT_NS: i64 = 400_000_000;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Decides when to try huge pages, from what they have cost so far.
///
/// A good collapse takes an eighth of the time of 512 small pages. A slow collapse means that free memory is
/// fragmented, or that the machine's host has taken it back; the next commit of the same memory is fast again. So the
/// time that good collapses save is credit for slow ones: all collapses together cost no more than small pages would
/// have, except for an initial credit of 100 ms. When the credit is spent, and after a failure, collapsing pauses for
/// 10 ms; each further failure doubles the pause, up to 320 ms. A good collapse ends the pause, and so does a trim,
/// which returns whole chunks to Linux.
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
    credit: i64,
    until: Option<Instant>,
    pause: Duration,
}

impl Default for CollapsePolicy {
    fn default() -> CollapsePolicy {
        CollapsePolicy {
            pace: Mutex::new(Pace {
                credit: INITIAL_CREDIT_NS,
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
    pub(super) fn is_worth_trying(&self) -> bool {
        self.is_worth_trying_at(Instant::now())
    }

    fn is_worth_trying_at(&self, now: Instant) -> bool {
        lock(&self.pace).until.is_none_or(|until| now >= until)
    }

    /// Records a collapse of `count` chunks that took `time`.
    pub(super) fn learn(&self, time: Duration, count: u32, worked: bool) {
        self.learn_at(Instant::now(), time, count, worked);
    }

    fn learn_at(&self, now: Instant, time: Duration, count: u32, worked: bool) {
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX / 2);
        // Relaxed: statistics only.
        self.nanos
            .fetch_add(nanos.unsigned_abs(), Ordering::Relaxed);
        let counter = if worked { &self.done } else { &self.failed };
        counter.fetch_add(count.into(), Ordering::Relaxed);
        if worked && nanos / i64::from(count.max(1)) > SLOW_NS {
            self.slow.fetch_add(count.into(), Ordering::Relaxed);
        }
        let gain = if worked {
            SMALL_PAGES_NS * i64::from(count)
        } else {
            0
        } - nanos;
        let mut pace = lock(&self.pace);
        pace.credit = pace.credit.saturating_add(gain).min(MAX_CREDIT_NS);
        if worked && pace.credit >= 0 {
            pace.until = None;
            pace.pause = Duration::ZERO;
        } else {
            pace.credit = pace.credit.max(0);
            pace.pause = (pace.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            pace.until = now.checked_add(pace.pause);
        }
    }

    /// Ends a pause, because Linux has just received whole chunks.
    pub(super) fn end_pause(&self) {
        let mut pace = lock(&self.pace);
        pace.until = None;
        pace.pause = Duration::ZERO;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn good_collapses_pay_for_slow_ones_until_the_credit_is_spent() {
        let policy = CollapsePolicy::default();
        let start = Instant::now();
        let good = Duration::from_micros(100);
        let slow = Duration::from_micros(5_100);
        let mut afforded = 0;
        while policy.is_worth_trying_at(start) {
            policy.learn_at(start, slow, 1, true);
            afforded += 1;
        }
        assert_eq!(afforded, INITIAL_CREDIT_NS / 4_000_000 + 1);
        assert!(policy.is_worth_trying_at(start + FIRST_PAUSE));
        policy.learn_at(start, slow, 1, true);
        assert!(
            !policy.is_worth_trying_at(start + FIRST_PAUSE),
            "twice as long"
        );
        for _ in 0..20 {
            policy.learn_at(start, Duration::ZERO, 1, false);
        }
        assert!(!policy.is_worth_trying_at(start + LONGEST_PAUSE / 2));
        assert!(policy.is_worth_trying_at(start + LONGEST_PAUSE));
        for _ in 0..8 {
            policy.learn_at(start, good, 1, true);
        }
        for _ in 0..2 {
            assert!(
                policy.is_worth_trying_at(start),
                "eight good ones pay for two"
            );
            policy.learn_at(start, slow, 1, true);
        }
        assert!(policy.is_worth_trying_at(start));
        policy.learn_at(start, slow, 1, true);
        assert!(!policy.is_worth_trying_at(start));
        policy.end_pause();
        assert!(policy.is_worth_trying_at(start));
        assert_eq!(policy.failed.load(Ordering::Relaxed), 20);
        assert_eq!(policy.done.load(Ordering::Relaxed), 26 + 1 + 8 + 3);
        assert_eq!(policy.slow.load(Ordering::Relaxed), 26 + 1 + 3);
    }

    #[test]
    fn the_reserve_for_other_processes_never_shrinks_to_nothing() {
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

    /// A limit that cannot be read again still applies.
    #[test]
    fn an_unreadable_limit_leaves_the_previous_allowance() {
        const MIB: u64 = 1 << 20;
        let left = Memory::of_a_container(24 << 30, 80 * MIB);
        crate::sys::tests::without_descriptors(|| {
            let budget = Budget::new(1 << 30, &left, Path::new("/"));
            budget.take(40 * MIB).unwrap().confirm();
            lock(&budget.memory).read_at -= 2 * MAX_AGE;
            assert!(budget.take(40 * MIB).is_none());
            budget.take(30 * MIB).unwrap().confirm();
        });
    }

    #[test]
    fn the_capacity_is_never_exceeded() {
        let budget = Budget::new(
            1000,
            &Memory::of_a_container(1 << 30, 1 << 30),
            Path::new("/"),
        );
        budget.take(600).unwrap().confirm();
        assert!(budget.take(401).is_none());
        assert!(budget.take(u64::MAX).is_none());
        drop(budget.take(400).unwrap());
        budget.take(400).unwrap().confirm();
        budget.give(1000);
        assert_eq!(budget.committed(), 0);
    }

    /// The system's numbers do not include memory that other threads are about to commit.
    #[test]
    fn memory_being_committed_is_not_handed_out_twice() {
        const MIB: u64 = 1 << 20;
        let left = Memory::of_a_container(24 << 30, 80 * MIB);
        let mut allowance = Allowance::now(&left);
        assert_eq!(allowance.bytes, 70 * MIB);
        allowance.in_progress = 60 * MIB;
        allowance.renew(&left);
        assert_eq!(allowance.bytes, 10 * MIB);
        let budget = Budget::new(1 << 30, &left, Path::new("/"));
        let in_progress = || lock(&budget.memory).in_progress;
        let [first, second] = [10 * MIB, 20 * MIB].map(|bytes| budget.take(bytes).unwrap());
        assert_eq!(in_progress(), 30 * MIB);
        first.confirm();
        assert_eq!((in_progress(), budget.committed()), (20 * MIB, 30 * MIB));
        drop(second);
        assert_eq!((in_progress(), budget.committed()), (0, 10 * MIB));
    }
}
