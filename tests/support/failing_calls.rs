//! System calls that fail on purpose: the n-th call of a wrapper in this process returns an error. With the feature
//! `points` only, as part of `sys::inject`.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use nix::errno::Errno;

/// Calls since the last [`arm`].
static CALLS: AtomicU64 = AtomicU64::new(0);
/// The number of the call that fails; 0 for none.
static FAILS: AtomicU64 = AtomicU64::new(0);
static ERRNO: AtomicI32 = AtomicI32::new(0);

/// Makes the `n`-th call from now on (1 is the next) of any thread of this process fail with `errno`, once.
pub fn arm(n: u64, errno: i32) {
    ERRNO.store(errno, Ordering::Relaxed);
    CALLS.store(0, Ordering::Relaxed);
    FAILS.store(n, Ordering::SeqCst);
}

/// Stops failing calls. Returns how many there were since [`arm`].
pub fn disarm() -> u64 {
    FAILS.store(0, Ordering::SeqCst);
    CALLS.load(Ordering::SeqCst)
}

/// Runs `body` without failing or counting its calls, then continues as before.
pub fn suspend<R>(body: impl FnOnce() -> R) -> R {
    let fails = FAILS.swap(0, Ordering::SeqCst);
    let result = body();
    FAILS.store(fails, Ordering::SeqCst);
    result
}

/// The environment variable that makes a call fail while a worker starts: `N:ERRNO`, as for [`arm`]. If the start
/// makes fewer calls, the worker prints this name and their number on stderr.
pub const WORKERS: &str = "ARENITE_FAILING_CALLS";

pub(crate) fn arm_worker() {
    let asked = std::env::var(WORKERS).unwrap_or_default();
    let numbers = asked.split_once(':');
    if let Some((Ok(n), Ok(errno))) = numbers.map(|(n, errno)| (n.parse(), errno.parse())) {
        arm(n, errno);
    }
}

pub(crate) fn disarm_worker() {
    let n = FAILS.load(Ordering::Relaxed);
    let calls = disarm();
    if calls < n {
        eprintln!("{WORKERS} {calls}");
    }
}

/// Returns the injected error, if any, for a system call that no signal interrupts.
pub fn allowed() -> nix::Result<()> {
    interruptible().or_else(|errno| match errno {
        Errno::EINTR => Ok(()),
        errno => Err(errno),
    })
}

pub(crate) fn undisturbed() -> nix::Result<()> {
    interruptible().or_else(|errno| match errno {
        Errno::EINTR => Err(errno),
        _ => Ok(()),
    })
}

pub(crate) fn interruptible() -> nix::Result<()> {
    let fails = FAILS.load(Ordering::Relaxed);
    if fails == 0 || CALLS.fetch_add(1, Ordering::Relaxed) + 1 != fails {
        return Ok(());
    }
    Err(Errno::from_raw(ERRNO.load(Ordering::Relaxed)))
}
