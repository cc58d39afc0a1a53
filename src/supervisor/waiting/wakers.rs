//! Calls and drops wakers, which are foreign code and may panic.

use std::task::Waker;

use crate::sync::catch_panic;

/// Calls all of these wakers. A panic of one waker does not prevent calling the others.
pub(in crate::supervisor) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        catch_panic(|| waker.wake());
    }
}

/// Drops a waker. A panic in its drop is caught: the caller has an answer to return.
pub(in crate::supervisor) fn drop_waker(waker: Option<Waker>) {
    catch_panic(|| drop(waker));
}
