//! System calls that fail on purpose, for tests: the n-th call of a wrapper in this process answers with an error.
//!
//! Only with the feature `points`, which no release build can have; without it a call is allowed at no cost.

#[cfg(feature = "points")]
mod armed {
    use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

    use nix::errno::Errno;

    /// Calls since it was armed.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    /// The call that fails; 0 for none.
    static FAILS: AtomicU64 = AtomicU64::new(0);
    static ERRNO: AtomicI32 = AtomicI32::new(0);

    /// From now on, the `n`-th call (from 1) of any thread of this process fails with `errno`, once.
    pub fn arm(n: u64, errno: i32) {
        ERRNO.store(errno, Ordering::Relaxed);
        CALLS.store(0, Ordering::Relaxed);
        FAILS.store(n, Ordering::SeqCst);
    }

    /// Lets all calls be again; how many there were.
    pub fn disarm() -> u64 {
        FAILS.store(0, Ordering::SeqCst);
        CALLS.load(Ordering::SeqCst)
    }

    pub(crate) fn allowed() -> nix::Result<()> {
        interruptible().or_else(|errno| match errno {
            Errno::EINTR => Ok(()),
            errno => Err(errno),
        })
    }

    pub(crate) fn interruptible() -> nix::Result<()> {
        let fails = FAILS.load(Ordering::Relaxed);
        if fails == 0 || CALLS.fetch_add(1, Ordering::Relaxed) + 1 != fails {
            return Ok(());
        }
        Err(Errno::from_raw(ERRNO.load(Ordering::Relaxed)))
    }
}

#[cfg(feature = "points")]
pub use armed::{arm, disarm};

#[cfg(feature = "points")]
pub(crate) use armed::{allowed, interruptible};

/// Whether a system call may be made that a signal can interrupt.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn interruptible() -> nix::Result<()> {
    Ok(())
}

/// Whether a system call may be made that no signal interrupts.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn allowed() -> nix::Result<()> {
    Ok(())
}
