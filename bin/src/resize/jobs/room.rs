//! Limits the bytes of files in flight.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The bytes of files in flight, and their limit.
#[derive(Debug)]
pub(super) struct Room {
    budget: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    jobs: usize,
    /// The number of shares that were given back.
    returned: u64,
}

/// The share of a job in flight.
#[derive(Debug)]
pub(super) struct Share<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Room {
    pub(super) fn new(budget: u64) -> Room {
        Room {
            budget,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Waits until `bytes` fit. If no other job is in flight, any number fits.
    pub(super) fn enter(&self, bytes: u64) -> Share<'_> {
        let mut state = self.lock();
        while state.jobs > 0 && state.bytes.saturating_add(bytes) > self.budget {
            state = self.wait(state);
        }
        state.jobs += 1;
        state.bytes = state.bytes.saturating_add(bytes);
        Share { room: self, bytes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let state = self.changed.wait(state);
        state.unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back<'a>(&'a self, bytes: u64) -> MutexGuard<'a, State> {
        let mut state = self.lock();
        state.jobs -= 1;
        state.bytes = state.bytes.saturating_sub(bytes);
        state
    }
}

impl Share<'_> {
    /// Gives the share back, and waits until another job has ended. Returns `false` if no other job is in flight.
    pub(super) fn wait_for_another(self) -> bool {
        let (room, bytes) = (self.room, self.bytes);
        // Dropping `self` would count as the end of a job.
        std::mem::forget(self);
        let mut state = room.give_back(bytes);
        // Other jobs may fit now.
        room.changed.notify_all();
        let seen = state.returned;
        let others = state.jobs > 0;
        while state.jobs > 0 && state.returned == seen {
            state = room.wait(state);
        }
        others
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.room.give_back(self.bytes).returned += 1;
        self.room.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    fn is_empty(room: &Room) -> bool {
        let state = room.lock();
        (state.bytes, state.jobs) == (0, 0)
    }

    #[test]
    fn one_job_may_exceed_the_budget_and_others_wait_for_it() {
        let room = Room::new(10);
        let large = room.enter(50);
        thread::scope(|threads| {
            let (entered, was_entered) = channel();
            let room = &room;
            threads.spawn(move || entered.send(room.enter(5).bytes));
            assert!(was_entered.try_recv().is_err());
            drop(large);
            assert_eq!(was_entered.recv(), Ok(5));
        });
        assert!(is_empty(&room));
    }

    #[test]
    fn a_job_that_is_alone_does_not_wait_for_another() {
        let room = Room::new(10);
        assert!(!room.enter(5).wait_for_another());
        let other = room.enter(5);
        thread::scope(|threads| {
            let waiting = threads.spawn(|| room.enter(5).wait_for_another());
            drop(other);
            // The result is `true` if the thread began to wait before the drop, otherwise `false`.
            assert!(waiting.join().is_ok());
        });
        assert!(is_empty(&room));
    }
}
