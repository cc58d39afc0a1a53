//! Where a lane sits: on a core of its own, if there is one for each.
//!
//! A wake-up puts a worker onto its waker's core, or onto the one where it slept, when all are busy at that moment; and the
//! kernel is in no hurry to part two that sleep now and then. Each of them can then only run while the other does not.

use std::cell::Cell;
use std::sync::Arc;
use std::thread;

use super::lane::Home;
use crate::link::{LinkCells, Neighbours};
use crate::sys::clock::monotonic_ns;
use crate::sys::cores;

/// How long a lane does not look at the others after it did, for each of them: a look costs it, and them, a cache line.
const LOOK_AFTER_NS: u64 = 50_000;
/// How long it keeps its core after it let others have it for a moment.
const YIELD_AFTER_NS: u64 = 500_000;
/// How long it stays where it has gone because of another lane.
const MOVE_AFTER_NS: u64 = 100_000;
/// How long it stays where it has gone because of a thread that waits for it.
const STEP_AFTER_NS: u64 = 10_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Seat {
    cells: Arc<LinkCells>,
    /// The other lanes, if there may be a core for each.
    neighbours: Option<Neighbours>,
    /// How long it does not look around after it did.
    rest_ns: u64,
    /// When it last looked around, gave its core away for a moment, and changed it (the last: 0 for never).
    looked: Cell<u64>,
    yielded: Cell<u64>,
    moved: Cell<u64>,
}

impl Seat {
    /// Of the lane with this link. On its thread.
    pub(super) fn new(cells: Arc<LinkCells>, home: &Home, link: usize) -> Self {
        let neighbours = Neighbours::in_view(home.view, link);
        let enough = (1..home.cores).contains(&neighbours.len());
        Self::beside(cells, enough.then_some(neighbours))
    }

    fn beside(cells: Arc<LinkCells>, neighbours: Option<Neighbours>) -> Self {
        let now = monotonic_ns();
        let rest = |others: &Neighbours| LOOK_AFTER_NS * others.len() as u64;
        Self {
            cells,
            rest_ns: neighbours.as_ref().map_or(u64::MAX, rest),
            neighbours,
            looked: Cell::new(now),
            yielded: Cell::new(now),
            moved: Cell::new(0),
        }
    }

    /// The lane goes to sleep.
    pub(super) fn leave(&self) {
        self.cells.set_asleep();
    }

    /// The lane is awake.
    pub(super) fn take(&self, now: u64) {
        if self.has_rested(now) {
            self.part(now);
        } else {
            self.cells.set_core(cores::current());
        }
    }

    fn has_rested(&self, now: u64) -> bool {
        now.saturating_sub(self.looked.get()) >= self.rest_ns
    }

    /// Goes to a core of its own, if it shares one with another lane that is awake.
    fn part(&self, now: u64) {
        self.looked.set(now);
        let Some(neighbours) = &self.neighbours else {
            return;
        };
        let mut here = cores::current();
        if neighbours.cores().any(|core| core == here) && self.has_stayed(now, MOVE_AFTER_NS) {
            self.moved.set(now);
            if cores::leave(neighbours.cores()) {
                here = cores::current();
            }
        }
        self.cells.set_core(here);
    }

    /// Between two jobs, every now and then: is somebody else on this core?
    #[inline]
    pub(super) fn look_around(&self, now: u64) {
        if self.has_rested(now) {
            self.make_room(now);
        }
    }

    /// A lane that was woken onto this core, or moved here between two jobs, waits for it, although another core may be
    /// free. Given a moment it goes there.
    #[cold]
    fn make_room(&self, now: u64) {
        self.part(now);
        let waits = |others: &Neighbours| others.any_waits_for_a_core();
        if self.neighbours.as_ref().is_some_and(waits)
            && now.saturating_sub(self.yielded.get()) >= YIELD_AFTER_NS
        {
            self.yielded.set(now);
            thread::yield_now();
            self.part(now);
        }
    }

    /// Goes to another core if whoever waits for this lane is on the same one, but not to that of another lane: its job may be a
    /// long one, and a thread that waits soon sleeps.
    pub(super) fn step_aside(&self, waiter: u32) {
        let now = monotonic_ns();
        if cores::current() == waiter && self.has_stayed(now, STEP_AFTER_NS) {
            self.moved.set(now);
            let others = self.neighbours.iter().flat_map(Neighbours::cores);
            cores::leave(others.chain([waiter]));
        }
    }

    fn has_stayed(&self, now: u64, long_ns: u64) -> bool {
        now.saturating_sub(self.moved.get()) >= long_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own, so that no other test is moved. `true`: it left the core on which another lane said to be.
    fn leaves(neighbour_is_here: bool) -> bool {
        let lane = move || {
            let own: &'static Arc<LinkCells> = Box::leak(Box::new(Arc::new(LinkCells::on_heap())));
            let other: &'static LinkCells = Box::leak(Box::new(LinkCells::on_heap()));
            let seat = Seat::beside(Arc::clone(own), Some(Neighbours::of(&[other])));
            let now = monotonic_ns() + seat.rest_ns;
            let said = || Neighbours::of(&[&**own]).cores().next();
            seat.take(now);
            let here = said().expect("it is awake");
            if neighbour_is_here {
                other.set_core(here);
            }
            seat.take(now + seat.rest_ns);
            let left = said() != Some(here);
            // Not again at once, whatever the other one says.
            other.set_core(said().unwrap_or(here));
            let moved = seat.moved.get();
            seat.part(now + seat.rest_ns + 1);
            assert!(moved == 0 || seat.moved.get() == moved);
            seat.leave();
            assert_eq!(said(), None);
            left
        };
        thread::spawn(lane).join().expect("the lane's thread")
    }

    /// As above. Where a thread waits for it on its core: whether it went to the core on which another lane slept or was awake, and
    /// whether it could go to a third one.
    fn goes_to(neighbour_is_awake: bool) -> (bool, bool) {
        let lane = move || {
            let own = Arc::new(LinkCells::on_heap());
            let other: &'static LinkCells = Box::leak(Box::new(LinkCells::on_heap()));
            let seat = Seat::beside(own, Some(Neighbours::of(&[other])));
            let here = cores::current();
            cores::leave([here]);
            let there = cores::current();
            let third = cores::leave([here, there]);
            cores::leave([there]);
            other.set_core(there);
            if !neighbour_is_awake {
                other.set_asleep();
            }
            seat.step_aside(cores::current());
            (cores::current() == there, third)
        };
        thread::spawn(lane).join().expect("the lane's thread")
    }

    #[test]
    fn a_lane_steps_aside_but_not_onto_another_ones_core() {
        if crate::sys::limits::cores() < 2 {
            return;
        }
        assert!((0..20).any(|_| !goes_to(true).0));
        assert!(
            (0..20)
                .map(|_| goes_to(false))
                .any(|(there, third)| there || third)
        );
    }

    #[test]
    fn a_lane_finds_a_core_of_its_own() {
        if crate::sys::limits::cores() < 2 {
            return;
        }
        // The kernel may move a thread at any moment, but hardly each time.
        assert!((0..20).any(|_| leaves(true)));
        assert!((0..20).any(|_| !leaves(false)));
    }
}
