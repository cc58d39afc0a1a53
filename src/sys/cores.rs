//! Core affinity of threads.

use std::cell::Cell;

use nix::errno::Errno;

use super::inject::allowed;

/// The number of cores that a `cpu_set_t` can contain.
const LIMIT: usize = libc::CPU_SETSIZE as usize;

/// Max time of a move or a yield that pays. If it takes longer, the thread had to wait for another program.
const QUICK_NS: u64 = 300_000;
/// Max interval between two attempts while attempts do not pay.
const MAX_INTERVAL_NS: u64 = 1_000_000_000;

/// Returns the core on which the calling thread runs at this moment.
#[inline]
pub fn current() -> u32 {
    // SAFETY: takes no arguments and returns a number.
    u32::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(u32::MAX)
}

/// Moves the calling thread to a core that is not in `cores`. Linux may move the thread back later. Returns `false` if
/// the thread may run on no other core.
pub fn leave(cores: impl IntoIterator<Item = u32>) -> bool {
    let before = affinity();
    let mut set = before;
    for core in cores {
        if core as usize >= LIMIT {
            return false;
        }
        // SAFETY: `set` is an initialised set and `core` lies within it.
        unsafe { libc::CPU_CLR(core as usize, &mut set) };
    }
    // SAFETY: `set` is an initialised set.
    let others = unsafe { libc::CPU_COUNT(&set) };
    if others == 0 || set_affinity(&set).is_err() {
        return false;
    }
    // Allow all cores instead of `before`: if the container is allowed more cores later, `before` would keep the thread
    // off them. If the thread itself was restricted to fewer cores, restore `before`.
    let all = set_affinity(&full_set()).map(|()| affinity());
    // SAFETY: both are initialised sets.
    let as_before = all.is_ok_and(|all| unsafe { libc::CPU_EQUAL(&all, &before) });
    if !as_before {
        // Linux has returned this set, so it accepts it. If restoring fails, that only costs speed.
        let _ = set_affinity(&before);
    }
    true
}

/// Limits how often a thread attempts a move or a yield, which does not pay while other programs are busy. The interval
/// between attempts doubles after each attempt that did not pay. Times are monotonic nanoseconds.
#[derive(Debug)]
pub struct Attempts {
    min_interval_ns: u64,
    interval_ns: Cell<u64>,
    last: Cell<u64>,
}

impl Attempts {
    /// Creates a limit whose first attempt is due `min_interval_ns` after `last`.
    pub fn new(min_interval_ns: u64, last: u64) -> Self {
        Self {
            min_interval_ns,
            interval_ns: Cell::new(min_interval_ns),
            last: Cell::new(last),
        }
    }

    /// Returns whether an attempt is due at the time `now`.
    pub fn is_due(&self, now: u64) -> bool {
        now.saturating_sub(self.last.get()) >= self.interval_ns.get()
    }

    /// Records an attempt that took from `start` to `end`. Returns whether it has paid.
    pub fn record(&self, start: u64, end: u64) -> bool {
        let has_paid = end.saturating_sub(start) <= QUICK_NS;
        let next = match has_paid {
            true => self.min_interval_ns,
            false => (self.interval_ns.get() * 2).min(MAX_INTERVAL_NS),
        };
        self.interval_ns.set(next);
        self.last.set(end);
        has_paid
    }

    /// The time when the last attempt ended.
    #[cfg(test)]
    pub fn last(&self) -> u64 {
        self.last.get()
    }
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: a set is plain bits; zeros are an empty set.
    unsafe { std::mem::zeroed() }
}

fn full_set() -> libc::cpu_set_t {
    let mut set = empty_set();
    // SAFETY: a set is plain bits; ones are all cores.
    unsafe { std::ptr::write_bytes(&raw mut set, 0xff, 1) };
    set
}

fn affinity() -> libc::cpu_set_t {
    let mut set = empty_set();
    // SAFETY: `set` is a live set of exactly the size given; 0 means the calling thread. The call only fails on
    // machines with more cores than the set has bits; the set stays empty then, and no core is found in it.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    set
}

fn set_affinity(set: &libc::cpu_set_t) -> nix::Result<()> {
    allowed()?;
    // SAFETY: `set` is an initialised set of exactly the size given; 0 means the calling thread.
    let answer = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
    Errno::result(answer).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::sys::asked;

    /// Keeps the calling thread on one core until dropped.
    struct Pinned(libc::cpu_set_t);

    impl Pinned {
        fn to(core: usize) -> nix::Result<Pinned> {
            let before = affinity();
            let mut set = empty_set();
            // SAFETY: `set` is an initialised set and `core` lies within it.
            unsafe { libc::CPU_SET(core, &mut set) };
            set_affinity(&set).map(|()| Pinned(before))
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            let _ = set_affinity(&self.0);
        }
    }

    /// Returns two cores on which the calling thread may run.
    fn two_cores() -> Option<(usize, usize)> {
        let set = affinity();
        // SAFETY: `set` is an initialised set and the numbers lie within it.
        let mut allowed = (0..LIMIT).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) });
        allowed.next().zip(allowed.next())
    }

    #[test]
    fn what_does_not_pay_is_attempted_less_and_less() {
        const MIN: u64 = 100_000;
        let moves = Attempts::new(MIN, 0);
        let mut now = MIN;
        let mut intervals = Vec::new();
        for _ in 0..16 {
            assert!(moves.is_due(now));
            moves.record(now, now + QUICK_NS + 1);
            now += QUICK_NS + 1;
            let interval = moves.interval_ns.get();
            assert!(!moves.is_due(now + interval - 1));
            now += interval;
            intervals.push(interval);
        }
        assert_eq!(intervals[..2], [2 * MIN, 4 * MIN]);
        assert_eq!(intervals[15], MAX_INTERVAL_NS);
        moves.record(now, now + QUICK_NS);
        assert!(moves.is_due(now + QUICK_NS + MIN));
    }

    #[test]
    fn a_thread_leaves_its_core_and_may_come_back() {
        // On a thread of its own, so that no other test is moved.
        std::thread::spawn(|| {
            let Some((first, second)) = two_cores() else {
                return;
            };
            let before = affinity();
            drop(Pinned::to(first).unwrap());
            assert!(leave([first as u32]));
            assert_eq!(two_cores(), Some((first, second)));
            // SAFETY: both are initialised sets.
            assert!(unsafe { libc::CPU_EQUAL(&before, &affinity()) });
            let _pinned = Pinned::to(second).unwrap();
            assert!(!leave([second as u32]), "there is no other");
            assert!(!leave([u32::MAX]));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_restricted_to_fewer_cores_stays_there() {
        std::thread::spawn(|| {
            let Some((first, _)) = two_cores() else {
                return;
            };
            let _pinned = Pinned::to(first).unwrap();
            let before = affinity();
            assert!(leave([]));
            // SAFETY: both are initialised sets.
            assert!(unsafe { libc::CPU_EQUAL(&before, &affinity()) });
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_that_left_a_core_uses_the_cores_its_container_gains() {
        let Some((first, second)) = two_cores() else {
            return;
        };
        let group = format!("/sys/fs/cgroup/cpuset/arenite-test-{}", std::process::id());
        if std::fs::create_dir(&group).is_err() {
            return asked::not_tried(
                "a container that gains a core: needs control groups version 1 and root",
            );
        }
        let write = |name: &str, text: &str| std::fs::write(format!("{group}/{name}"), text);
        let grown = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                write("cpuset.mems", "0")?;
                write("cpuset.cpus", &first.to_string())?;
                write("tasks", &nix::unistd::gettid().to_string())?;
                assert!(leave([]));
                write("cpuset.cpus", &format!("{first},{second}"))?;
                std::io::Result::Ok(two_cores())
            });
            thread.join()
        });
        std::fs::remove_dir(&group).unwrap();
        assert!(grown.unwrap().unwrap().is_some());
    }
}
