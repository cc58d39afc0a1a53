//! The clock that all processes of a machine share.

use std::time::{Duration, Instant};

#[cfg(test)]
thread_local! {
    static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How often this thread has asked for the time.
#[cfg(test)]
pub fn looks() -> u64 {
    LOOKS.get()
}

/// So long after this moment; where that is beyond all clocks, in about a lifetime.
pub fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by)
        .unwrap_or_else(|| now + Duration::from_secs(1 << 31))
}

/// This moment, put off by so long; where that is beyond all clocks, itself.
pub fn postponed(at: Instant, by: Duration) -> Instant {
    at.checked_add(by).unwrap_or(at)
}

/// For how long this thread has had a processor.
pub fn worked() -> Duration {
    let time = read(libc::CLOCK_THREAD_CPUTIME_ID);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[inline]
fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the place for the time is writable. The call cannot fail: these clocks always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time
}

/// Nanoseconds of `CLOCK_MONOTONIC`: the same count in every process, so that times taken in one can be compared
/// with those of another.
#[inline]
pub fn monotonic_ns() -> u64 {
    #[cfg(test)]
    LOOKS.set(LOOKS.get() + 1);
    let time = read(libc::CLOCK_MONOTONIC);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
