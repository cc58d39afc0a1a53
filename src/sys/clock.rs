//! Clocks.

use std::time::{Duration, Instant};

#[cfg(test)]
thread_local! {
    static READS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The number of calls of [`monotonic_ns`] on this thread.
#[cfg(test)]
pub fn reads() -> u64 {
    READS.get()
}

/// Returns `now + by`, or a time far in the future if the sum overflows.
pub fn saturating_add(now: Instant, by: Duration) -> Instant {
    now.checked_add(by)
        .unwrap_or_else(|| now + Duration::from_secs(1 << 31))
}

/// Returns `at + by`, or `at` if the sum overflows.
pub fn postponed(at: Instant, by: Duration) -> Instant {
    at.checked_add(by).unwrap_or(at)
}

/// Returns the processor time that this thread has used.
pub fn thread_cpu_time() -> Duration {
    let time = read(libc::CLOCK_THREAD_CPUTIME_ID);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[inline]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable. The call cannot fail: these clocks always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time
}

/// Returns `CLOCK_MONOTONIC` in nanoseconds. All processes of a machine share the clock, so times from different
/// processes can be compared.
#[inline]
pub fn monotonic_ns() -> u64 {
    #[cfg(test)]
    READS.set(READS.get() + 1);
    let time = read(libc::CLOCK_MONOTONIC);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
