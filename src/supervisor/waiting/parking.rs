//! Where threads of this process sleep on private words, when no slot word can wake them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::sys::futex;

const SPOTS: usize = 64;

/// One word to sleep on, with a count of its sleepers so that nobody wakes an empty one.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(in crate::supervisor) struct Spot {
    word: AtomicU32,
    sleepers: AtomicU32,
}

/// A ticket: the word's value while the state lock was held.
#[derive(Clone, Copy, Debug)]
pub(in crate::supervisor) struct Ticket(u32);

impl Spot {
    /// Under the state lock, after looking: what to sleep on.
    pub(in crate::supervisor) fn ticket(&self) -> Ticket {
        // Relaxed: the state lock orders it with `notify`.
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        Ticket(self.word.load(Ordering::Relaxed))
    }

    /// Without the lock: sleeps until somebody notifies, or the limit.
    pub(in crate::supervisor) fn sleep(&self, ticket: Ticket, limit: Option<Duration>) {
        let _ = futex::wait(&self.word, ticket.0, limit);
        // Relaxed: a count. Who still sees this sleeper wakes nobody, once.
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Under the state lock, after changing what sleepers look at.
    pub(in crate::supervisor) fn notify(&self) {
        // Relaxed: the state lock orders both with `ticket`, and what sleepers look at is read under it.
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
    /// For threads that wait for the start of the engine.
    pub(in crate::supervisor) start: Spot,
    /// For threads that wait until their job is let in.
    pub(in crate::supervisor) admission: Spot,
}

impl Parking {
    pub(in crate::supervisor) fn new() -> Self {
        Self {
            spots: std::array::from_fn(|_| Spot::default()),
            start: Spot::default(),
            admission: Spot::default(),
        }
    }

    /// The spot of a record.
    pub(in crate::supervisor) fn of(&self, index: u32) -> &Spot {
        &self.spots[index as usize % SPOTS]
    }
}
