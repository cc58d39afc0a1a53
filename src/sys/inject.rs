//! System calls that fail on purpose, for tests: each wrapper calls a function of this module first.
//!
//! Calls fail only with the feature `points`, which no release build can have. Without the feature, the functions
//! compile to nothing.

#[cfg(feature = "points")]
#[path = "../../tests/support/failing_calls.rs"]
mod armed;

#[cfg(feature = "points")]
pub use armed::{WORKERS, allowed, arm, disarm, suspend};

#[cfg(feature = "points")]
pub(crate) use armed::{arm_worker, disarm_worker, interruptible, undisturbed};

/// Returns the injected error, if any, for a system call that a signal can interrupt.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn interruptible() -> nix::Result<()> {
    Ok(())
}

/// Like [`interruptible`], for a call that no signal interrupts: `EINTR` is never injected.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub fn allowed() -> nix::Result<()> {
    Ok(())
}

/// Like [`interruptible`], for a wait that fails only by a signal: only `EINTR` is injected.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn undisturbed() -> nix::Result<()> {
    Ok(())
}

/// Starts to count the system calls of a worker's start, if the environment says which call fails.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn arm_worker() {}

/// Ends the counting at the end of the start. Later calls do not fail.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn disarm_worker() {}
