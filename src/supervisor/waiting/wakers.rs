//! Calls and drops wakers, which are foreign code and may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Calls all of these wakers. A panic of one waker, whose message the panic hook has printed, does not prevent calling
/// the others.
pub(in crate::supervisor) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            // The drop of the payload is foreign code as well.
            std::mem::forget(payload);
        }
    }
}

/// Drops a waker. A panic in its drop is caught: the caller has an answer to return.
pub(in crate::supervisor) fn drop_waker(waker: Option<Waker>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(waker))) {
        std::mem::forget(payload);
    }
}
