//! Parking: private futex words on which threads of this process sleep when no state word of a slot can wake them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::sync::FIRST_COUNT;
use crate::sys::futex;

const SPOTS: usize = 64;

/// A futex word, with the number of its sleepers: without sleepers, `notify` makes no system call.
#[derive(Debug)]
#[repr(align(64))]
pub(in crate::supervisor) struct Spot {
    word: AtomicU32,
    sleepers: AtomicU32,
}

/// The value of the word at a moment when the engine's lock was held.
#[derive(Clone, Copy, Debug)]
pub(in crate::supervisor) struct Ticket(u32);

impl Spot {
    fn new() -> Self {
        Self {
            word: AtomicU32::new(FIRST_COUNT),
            sleepers: AtomicU32::new(0),
        }
    }

    /// Announces a sleeper. Called under the engine's lock, after the sleeper's condition was checked.
    pub(in crate::supervisor) fn ticket(&self) -> Ticket {
        // Relaxed: the engine's lock orders both accesses with `notify`.
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        Ticket(self.word.load(Ordering::Relaxed))
    }

    /// Sleeps until the spot is notified, or for `limit`. Called without the lock.
    pub(in crate::supervisor) fn sleep(&self, ticket: Ticket, limit: Option<Duration>) {
        let _ = futex::wait(&self.word, ticket.0, limit);
        // Relaxed: a count. A `notify` that still reads this sleeper makes one unnecessary system call.
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes the sleepers. Called under the engine's lock, after their condition was changed.
    pub(in crate::supervisor) fn notify(&self) {
        // Relaxed: the engine's lock orders both accesses with `ticket`, and sleepers check their condition under it.
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            self.word.fetch_add(1, Ordering::Relaxed);
            futex::wake(&self.word, u32::MAX >> 1);
        }
    }
}

/// The spots of an engine.
#[derive(Debug)]
pub(in crate::supervisor) struct Parking {
    spots: [Spot; SPOTS],
    /// The spot of threads that wait for the start of the engine.
    pub(in crate::supervisor) start: Spot,
    /// The spot of threads that wait for admission.
    pub(in crate::supervisor) admission: Spot,
}

impl Parking {
    pub(in crate::supervisor) fn new() -> Self {
        Self {
            spots: std::array::from_fn(|_| Spot::new()),
            start: Spot::new(),
            admission: Spot::new(),
        }
    }

    /// Returns the spot of a record.
    pub(in crate::supervisor) fn of(&self, index: u32) -> &Spot {
        &self.spots[index as usize % SPOTS]
    }
}
