//! Sleeping on a word of memory that processes share.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use std::sync::atomic::AtomicU32;

/// How a [`wait`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a wait may end without a wake: look at the word again"]
pub enum Wait {
    /// Somebody called [`wake`], or the kernel woke without a reason: look at the word again.
    Woken,
    /// The word did not hold the expected value, so there was no sleep.
    Changed,
    /// The time was over.
    TimedOut,
}

/// Sleeps while `word` holds `expected`, at most for `timeout`; interrupted sleeps go on with what is left.
///
/// The word may lie in a read-only map. The kernel compares and goes to sleep in one step with respect to [`wake`].
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Wait {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let spec = left.map(|left| libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let spec_pointer = spec
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref::<libc::timespec>);
        // SAFETY: FUTEX_WAIT reads the aligned word behind a live reference and the timespec, which outlives the call.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAIT,
                expected,
                spec_pointer,
            )
        };
        if answer == 0 {
            return Wait::Woken;
        }
        match Errno::last() {
            Errno::EINTR => continue,
            Errno::ETIMEDOUT => return Wait::TimedOut,
            _ => return Wait::Changed,
        }
    }
}

/// Wakes up to `n` sleepers of `word`, in any process; says how many.
pub fn wake(word: &AtomicU32, n: u32) -> usize {
    let n = i32::try_from(n).unwrap_or(i32::MAX);
    // SAFETY: FUTEX_WAKE uses the address of a live reference as a key and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, n) };
    usize::try_from(answer).unwrap_or(0)
}
