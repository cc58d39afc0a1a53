//! System calls that fail on purpose, for tests: each wrapper asks here first.
//!
//! Only with the feature `points`, which no release build can have. Without it the checks compile to nothing.

#[cfg(feature = "points")]
#[path = "../../tests/support/failing_calls.rs"]
mod armed;

#[cfg(feature = "points")]
pub use armed::{WORKERS, arm, disarm, suspend};

#[cfg(feature = "points")]
pub(crate) use armed::{allowed, arm_worker, disarm_worker, interruptible, undisturbed};

/// Returns the injected error of a system call that a signal can interrupt. An error is the injected one.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn interruptible() -> nix::Result<()> {
    Ok(())
}

/// The same for a call that no signal interrupts: `EINTR` is never injected.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn allowed() -> nix::Result<()> {
    Ok(())
}

/// The same for a wait, which fails only by a signal: nothing but `EINTR` is injected.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn undisturbed() -> nix::Result<()> {
    Ok(())
}

/// Starts counting the calls of a worker's start-up, if the environment says which one fails.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn arm_worker() {}

/// Ends the counting at the end of the start-up; later calls succeed.
#[cfg(not(feature = "points"))]
#[inline(always)]
pub(crate) fn disarm_worker() {}
