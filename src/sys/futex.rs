//! Sleeping on a word of memory that processes share, or on several.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::clock;

/// Words of one [`wait_any`], at most.
pub const MOST_WORDS: usize = 128;
/// Of a word in [`wait_any`]: it has 32 bits (`FUTEX2_SIZE_U32`), and lies in memory that processes may share.
const OF_32_BITS: u32 = 2;
/// How long [`wait_any`] sleeps where the kernel has no memory to note the words.
const MOMENT: Duration = Duration::from_millis(1);

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
        let spec = left.map(timespec);
        // SAFETY: FUTEX_WAIT reads the aligned word behind a live reference and the timespec, which outlives the call.
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

/// As the kernel reads it.
fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// Where it is; null for none.
fn pointer(time: &Option<libc::timespec>) -> *const libc::timespec {
    time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref)
}

/// Whether there is a [`wait_any`], as far as it was asked.
static HAS_WAIT_ANY: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// A word and what it has to hold, as the kernel reads them (`struct futex_waitv`).
#[repr(C)]
struct Word {
    holds: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// Can a thread sleep on several words at once? Linux can since 5.16, where no filter of system calls forbids it.
pub fn has_wait_any() -> bool {
    // Relaxed: it stands for itself.
    let known = HAS_WAIT_ANY.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known == YES;
    }
    let has = {
        // SAFETY: a list of no words is refused, and nothing is read.
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

/// Like [`wait`], on all of these words at once: sleeps while each holds the value beside it, and until one of them is woken. Only
/// where this [can be done](has_wait_any).
///
/// # Panics
/// For no words, and for more than [`MOST_WORDS`].
pub fn wait_any(words: &[(&AtomicU32, u32)], timeout: Option<Duration>) -> Wait {
    assert!(!words.is_empty() && words.len() <= MOST_WORDS);
    let until = timeout.and_then(|timeout| {
        let now = Duration::from_nanos(clock::monotonic_ns());
        now.checked_add(timeout).map(timespec)
    });
    let list: Vec<_> = words
        .iter()
        .map(|(word, holds)| Word {
            holds: u64::from(*holds),
            address: word.as_ptr() as u64,
            flags: OF_32_BITS,
            reserved: 0,
        })
        .collect();
    loop {
        // SAFETY: the call reads the list, the aligned words behind live references and the time, which all outlive it.
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
                    // A filter of system calls that came later.
                    HAS_WAIT_ANY.store(NO, Ordering::Relaxed);
                }
                let (word, holds) = words[0];
                return wait(word, holds, Some(timeout.map_or(MOMENT, |t| t.min(MOMENT))));
            }
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
