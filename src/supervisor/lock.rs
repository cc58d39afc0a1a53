//! The one lock, and what is done when it is let go.

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{MutexGuard, PoisonError};
use std::task::Waker;

use super::Shared;
use super::core::{Core, assert_not_fenced};

/// The state behind the lock. Lanes that got jobs are rung right before it is let go, whichever way: so many jobs that were
/// posted under one lock cost one look at whether their lane sleeps.
#[derive(Debug)]
pub(super) struct Locked<'a>(MutexGuard<'a, Core>);

impl Deref for Locked<'_> {
    type Target = Core;

    #[inline]
    fn deref(&self) -> &Core {
        &self.0
    }
}

impl DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.0
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.ring_posted();
    }
}

impl Shared {
    /// # Panics
    /// In a copy of the process: its locks and rings are those of the original, where nobody knows of it. And where a program's own
    /// code is called with a lock held, which might wait for itself.
    pub(super) fn lock(&self) -> Locked<'_> {
        self.original.assert_here();
        assert_not_fenced();
        // A panic with the lock held is a defect; the books are still the best there are.
        Locked(self.core.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Releases the lock and does what has to be done outside it. Ends that nobody has gone on with, whatever brought them
    /// about, are heard before: nobody else might come for long.
    #[inline]
    pub(super) fn unlock(&self, mut core: Locked<'_>) {
        if core.graphs.have_ends() {
            core.refill();
        }
        let call = std::mem::take(&mut core.call_monitor);
        if !call && core.wakers.is_empty() {
            return;
        }
        let wakers = std::mem::take(&mut core.wakers);
        drop(core);
        if call {
            self.ring();
        }
        wake_all(wakers);
    }
}

/// Wakes all of them. Wakers are foreign code: one that panics, whose message has been printed, takes nobody along.
pub(super) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            // Its drop is foreign code as well.
            std::mem::forget(payload);
        }
    }
}

/// Drops what is foreign code, and may panic: whoever does so has an answer to give all the same.
pub(super) fn drop_waker(waker: Option<Waker>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(waker))) {
        std::mem::forget(payload);
    }
}

impl Core {
    /// Wakes the lanes that have got jobs, if they sleep.
    #[inline]
    fn ring_posted(&mut self) {
        for group in 0..self.unrung.len() {
            let mut left = std::mem::take(&mut self.unrung[group]);
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                self.lanes[group * 64 + bit].producer.ring();
                crate::sync::point!("submit.rung");
            }
        }
    }
}
