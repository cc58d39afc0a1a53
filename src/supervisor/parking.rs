//! Where threads of this process sleep on private words, when no slot word can wake them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::sys::futex;

const SPOTS: usize = 64;

/// One word to sleep on, with a count of its sleepers so that nobody wakes an empty one.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Spot {
    word: AtomicU32,
    sleepers: AtomicU32,
}

/// A ticket: the word's value while the core lock was held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(u32);

impl Spot {
    /// Under the core lock, after looking: what to sleep on.
    pub(super) fn ticket(&self) -> Ticket {
        // Relaxed: the core lock orders it with `notify`.
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        Ticket(self.word.load(Ordering::Relaxed))
    }

    /// Without the lock: sleeps until somebody notifies, or the limit.
    pub(super) fn sleep(&self, ticket: Ticket, limit: Option<Duration>) {
        let _ = futex::wait(&self.word, ticket.0, limit);
        // Relaxed: a count. Who still sees this sleeper wakes nobody, once.
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Under the core lock, after changing what sleepers look at.
    pub(super) fn notify(&self) {
        // Relaxed: the core lock orders both with `ticket`, and what sleepers look at is read under it.
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            self.word.fetch_add(1, Ordering::Relaxed);
            futex::wake(&self.word, u32::MAX >> 1);
        }
    }
}

/// The spots of an engine.
#[derive(Debug)]
pub(super) struct Parking {
    spots: [Spot; SPOTS],
    /// For threads that wait for the start of the engine.
    pub(super) engine: Spot,
    /// For threads that wait until their job is let in.
    pub(super) admission: Spot,
}

impl Parking {
    pub(super) fn new() -> Self {
        Self {
            spots: std::array::from_fn(|_| Spot::default()),
            engine: Spot::default(),
            admission: Spot::default(),
        }
    }

    /// The spot of a record.
    pub(super) fn of(&self, index: u32) -> &Spot {
        &self.spots[index as usize % SPOTS]
    }
}
