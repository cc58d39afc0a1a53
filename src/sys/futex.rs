//! Futexes: sleeping until a 32-bit word in shared memory, or one of several such words, changes.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::clock;

/// Maximum number of words of one [`wait_any`].
pub const MAX_WORDS: usize = 128;
/// `FUTEX2_SIZE_U32` without `FUTEX2_PRIVATE`: a 32-bit word in memory that processes may share.
const SIZE_U32: u32 = 2;
/// If Linux cannot wait on several words, [`wait_any`] sleeps on the first word for this time.
const FALLBACK_WAIT: Duration = Duration::from_millis(1);

/// The result of a [`wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a wait may end without a wake: check the word again"]
pub enum Wait {
    /// Woken by [`wake`], or spuriously: check the word again.
    Woken,
    /// The word did not have the expected value: the thread did not sleep.
    Changed,
    /// The timeout has passed.
    TimedOut,
}

/// Sleeps while `word` has the value `expected`, at most for `timeout`. Interrupted sleeps resume with the remaining
/// time.
///
/// The word may be in a read-only map. Comparing and falling asleep are one atomic step with respect to [`wake`].
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Wait {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let spec = left.map(timespec);
        // SAFETY: FUTEX_WAIT reads the aligned word of a live reference, and the timespec, which outlives the call.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAIT,
                expected,
                pointer(&spec),
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

/// Converts a duration to the form that Linux reads.
fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// Returns the address of a time; null for `None`.
fn pointer(time: &Option<libc::timespec>) -> *const libc::timespec {
    time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref)
}

/// Whether `futex_waitv` is available: unknown, yes or no.
static HAS_WAIT_ANY: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// A word and its expected value, as Linux reads them (`struct futex_waitv`).
#[repr(C)]
struct Word {
    expected: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// Returns whether a thread can sleep on several words at once. Linux supports this from 5.16 on, unless a system call
/// filter forbids it.
pub fn has_wait_any() -> bool {
    // Relaxed: the value guards no other memory.
    let known = HAS_WAIT_ANY.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known == YES;
    }
    let has = {
        // SAFETY: Linux rejects an empty list without reading memory.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_futex_waitv,
                std::ptr::null::<Word>(),
                0,
                0,
                std::ptr::null::<libc::timespec>(),
                libc::CLOCK_MONOTONIC,
            )
        };
        answer == -1 && Errno::last() == Errno::EINVAL
    };
    HAS_WAIT_ANY.store(if has { YES } else { NO }, Ordering::Relaxed);
    has
}

/// Like [`wait`], on several words: sleeps while each has its expected value, until one of them is woken. Requires
/// [`has_wait_any`].
///
/// # Panics
/// If there are no words, or more than [`MAX_WORDS`].
pub fn wait_any(words: &[(&AtomicU32, u32)], timeout: Option<Duration>) -> Wait {
    assert!(!words.is_empty() && words.len() <= MAX_WORDS);
    let until = timeout.and_then(|timeout| {
        let now = Duration::from_nanos(clock::monotonic_ns());
        now.checked_add(timeout).map(timespec)
    });
    let list: Vec<_> = words
        .iter()
        .map(|(word, expected)| Word {
            expected: u64::from(*expected),
            address: word.as_ptr() as u64,
            flags: SIZE_U32,
            reserved: 0,
        })
        .collect();
    loop {
        // SAFETY: the call reads the list, the aligned words of live references and the time, all of which outlive it.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_futex_waitv,
                list.as_ptr(),
                list.len() as u32,
                0,
                pointer(&until),
                libc::CLOCK_MONOTONIC,
            )
        };
        if answer >= 0 {
            return Wait::Woken;
        }
        match Errno::last() {
            Errno::EINTR => {}
            Errno::ETIMEDOUT => return Wait::TimedOut,
            Errno::EAGAIN => return Wait::Changed,
            error => {
                if [Errno::ENOSYS, Errno::EPERM, Errno::EACCES].contains(&error) {
                    // A system call filter was installed after `has_wait_any`.
                    HAS_WAIT_ANY.store(NO, Ordering::Relaxed);
                }
                let (word, expected) = words[0];
                let limit = timeout.map_or(FALLBACK_WAIT, |timeout| timeout.min(FALLBACK_WAIT));
                return wait(word, expected, Some(limit));
            }
        }
    }
}

/// Wakes up to `n` threads that sleep on `word`, in any process. Returns the number of threads woken.
pub fn wake(word: &AtomicU32, n: u32) -> usize {
    let n = i32::try_from(n).unwrap_or(i32::MAX);
    // SAFETY: FUTEX_WAKE uses the address of a live reference as a key and accesses no memory.
    let answer = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, n) };
    usize::try_from(answer).unwrap_or(0)
}
