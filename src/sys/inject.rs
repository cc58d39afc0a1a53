//! Where a test makes a system call fail: each wrapper asks here first.
//!
//! Only with the feature `points`, which a release build refuses; without it every call is allowed at no cost.

#[cfg(feature = "points")]
#[path = "../../tests/support/failing_calls.rs"]
mod armed;

#[cfg(feature = "points")]
pub use armed::{WORKERS, arm, disarm, suspend};

#[cfg(feature = "points")]
pub(crate) use armed::{allowed, arm_worker, disarm_worker, interruptible, undisturbed};

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

/// Whether a sleep may begin: nothing but a signal keeps it from that.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn undisturbed() -> nix::Result<()> {
    Ok(())
}

/// At the first act of a worker: its calls count from here, if the environment says which one fails.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn arm_worker() {}

/// At the last act of its start: whatever comes later succeeds.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn disarm_worker() {}
