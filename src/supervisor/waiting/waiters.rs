//! The threads and futures that an engine has to wake.

use std::sync::Arc;
use std::task::Waker;

use super::parking::Parking;
use crate::supervisor::record::Record;

/// Wakes parked threads at once. Collects wakers, which are foreign code, to call them when the lock is released.
#[derive(Debug)]
pub(in crate::supervisor) struct Waiters {
    parking: Arc<Parking>,
    wakers: Vec<Waker>,
}

impl Waiters {
    pub(in crate::supervisor) fn new(parking: Arc<Parking>) -> Self {
        Self {
            parking,
            wakers: Vec::new(),
        }
    }

    /// Wakes threads that wait for the job of this record.
    pub(in crate::supervisor) fn notify(&self, index: u32) {
        self.parking.of(index).notify();
    }

    /// Wakes threads that sleep until this job leaves its last position.
    pub(in crate::supervisor) fn notify_moved(&self, record: &Record, index: u32) {
        if record.parked {
            self.notify(index);
        }
    }

    /// Wakes threads that wait for the engine's start.
    pub(in crate::supervisor) fn notify_start(&self) {
        self.parking.start.notify();
    }

    /// Wakes threads that wait for admission.
    pub(in crate::supervisor) fn notify_admission(&self) {
        self.parking.admission.notify();
    }

    /// Adds wakers, to be called when the lock is released.
    #[inline]
    pub(in crate::supervisor) fn call(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.wakers.extend(wakers);
    }

    #[inline]
    pub(in crate::supervisor) fn has_wakers(&self) -> bool {
        !self.wakers.is_empty()
    }

    /// Takes the wakers that have to be called.
    pub(in crate::supervisor) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }
}
