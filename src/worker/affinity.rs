//! Keeps each lane on a core of its own, if there are enough cores.
//!
//! Linux puts a thread that wakes up on the core of the thread that woke it or, if all cores are busy at that moment,
//! on the core where it went to sleep. If two threads sleep now and then, Linux takes long to separate them. Two lanes
//! on one core can only run in turns.

use std::cell::Cell;
use std::sync::Arc;
use std::thread;

use super::lane::WorkerContext;
use crate::link::{LinkCells, Neighbours};
use crate::sys::clock::monotonic_ns;
use crate::sys::cores::{self, Attempts};

/// Min time between two reads of the other lanes' states, for each other lane: a read moves a cache line between the
/// two cores.
const LOOK_INTERVAL_NS: u64 = 50_000;
/// Min time between two yields of the core.
const YIELD_INTERVAL_NS: u64 = 500_000;
/// Min time between two moves to another core because of another lane.
const MOVE_INTERVAL_NS: u64 = 100_000;
/// Min time between two moves to another core because of a thread that waits for this lane.
const AVOID_INTERVAL_NS: u64 = 10_000_000;

/// Decides when one lane yields its core or moves to another.
#[derive(Debug)]
pub(super) struct Affinity {
    cells: Arc<LinkCells>,
    /// The other lanes. `None` if there are fewer cores than lanes.
    neighbours: Option<Neighbours>,
    /// Min time between two reads of all neighbours.
    look_interval_ns: u64,
    /// The time of the last read of the neighbours.
    looked: Cell<u64>,
    /// Limits how often the lane yields its core.
    yields: Attempts,
    /// Limits how often the lane moves to another core because of another lane.
    moves: Attempts,
    /// The same because of a thread that waits for this lane.
    avoidances: Attempts,
}

impl Affinity {
    /// Creates the value for the lane with this link. Called on the lane's thread.
    pub(super) fn new(cells: Arc<LinkCells>, worker: &WorkerContext, link: usize) -> Self {
        let neighbours = Neighbours::in_view(worker.view, link);
        let has_core_for_each = (1..worker.cores).contains(&neighbours.len());
        Self::with_neighbours(cells, has_core_for_each.then_some(neighbours))
    }

    fn with_neighbours(cells: Arc<LinkCells>, neighbours: Option<Neighbours>) -> Self {
        let now = monotonic_ns();
        let interval = |others: &Neighbours| LOOK_INTERVAL_NS * others.len() as u64;
        Self {
            cells,
            look_interval_ns: neighbours.as_ref().map_or(u64::MAX, interval),
            neighbours,
            looked: Cell::new(now),
            yields: Attempts::new(YIELD_INTERVAL_NS, now),
            moves: Attempts::new(MOVE_INTERVAL_NS, 0),
            avoidances: Attempts::new(AVOID_INTERVAL_NS, 0),
        }
    }

    /// Moves to another core if the thread that waits for this lane was last seen on this one. Does not move to the
    /// core of another lane: that lane's job may be long, while a waiting thread soon sleeps. Returns whether the other
    /// core was free.
    pub(super) fn avoid_waiter(&self, waiter_core: u32) -> bool {
        if cores::current() != waiter_core {
            return false;
        }
        let start = monotonic_ns();
        if !self.avoidances.is_due(start) {
            return false;
        }
        let others = self.neighbours.iter().flat_map(Neighbours::cores);
        let has_left = cores::leave(others.chain([waiter_core]));
        self.avoidances.record(start, monotonic_ns()) && has_left
    }

    /// Publishes that the lane sleeps, and on which core. Called before the lane sleeps.
    pub(super) fn before_sleep(&self) {
        self.cells.set_asleep(cores::current());
    }

    /// Publishes the core on which the lane runs.
    pub(super) fn publish(&self) {
        self.cells.set_core(cores::current());
    }

    /// Publishes the core of the lane, after moving the lane if it shares that core. Called when the lane is awake
    /// again.
    pub(super) fn after_sleep(&self, now: u64) {
        if self.may_look(now) {
            self.find_own_core(now);
        } else {
            self.publish();
        }
    }

    fn may_look(&self, now: u64) -> bool {
        now.saturating_sub(self.looked.get()) >= self.look_interval_ns
    }

    /// Moves to a core of its own if another lane that is awake is on the same core. Publishes the core.
    fn find_own_core(&self, now: u64) {
        self.looked.set(now);
        let Some(neighbours) = &self.neighbours else {
            return;
        };
        let mut core = cores::current();
        let is_shared = neighbours.cores().any(|other| other == core);
        if is_shared && self.moves.is_due(now) {
            let start = monotonic_ns();
            if cores::leave(neighbours.cores()) {
                core = cores::current();
            }
            self.moves.record(start, monotonic_ns());
        }
        self.cells.set_core(core);
    }

    /// Called between two jobs. From time to time, reads the states of the other lanes, and moves to another core or
    /// yields if the lane shares its core.
    #[inline]
    pub(super) fn between_jobs(&self, now: u64) {
        if self.may_look(now) {
            self.look_cold(now);
        }
    }

    /// Moves to a core of its own if needed. Then yields if another lane waits for a core: that lane may have been
    /// woken on this core, or this lane may have been moved here between two jobs. The other lane must run before it
    /// can move to a free core.
    #[cold]
    fn look_cold(&self, now: u64) {
        self.find_own_core(now);
        let waits = |others: &Neighbours| others.any_waits_for_a_core();
        if self.neighbours.as_ref().is_some_and(waits) && self.yields.is_due(now) {
            let start = monotonic_ns();
            thread::yield_now();
            let end = monotonic_ns();
            self.yields.record(start, end);
            self.find_own_core(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether a lane has left its core. `is_shared`: whether another lane claims to be on the same core. Uses
    /// a thread of its own, so that other tests do not move.
    fn leaves(is_shared: bool) -> bool {
        let lane = move || {
            let own: &'static Arc<LinkCells> = Box::leak(Box::new(Arc::new(LinkCells::on_heap())));
            let other: &'static LinkCells = Box::leak(Box::new(LinkCells::on_heap()));
            let affinity =
                Affinity::with_neighbours(Arc::clone(own), Some(Neighbours::of(&[other])));
            let now = monotonic_ns() + affinity.look_interval_ns;
            let published = || Neighbours::of(&[&**own]).cores().next();
            affinity.after_sleep(now);
            let core = published().expect("the lane is awake");
            if is_shared {
                other.set_core(core);
            }
            affinity.after_sleep(now + affinity.look_interval_ns);
            let left = published() != Some(core);
            // The lane does not move again at once, even if the other lane follows.
            other.set_core(published().unwrap_or(core));
            let moved = affinity.moves.last();
            affinity.find_own_core(moved + MOVE_INTERVAL_NS - 1);
            assert_eq!(affinity.moves.last(), moved);
            affinity.before_sleep();
            assert_eq!(published(), None);
            left
        };
        thread::spawn(lane).join().expect("the lane's thread")
    }

    #[test]
    fn a_lane_leaves_the_core_of_its_waiter_now_and_then() {
        // On a thread of its own, so that no other test is moved.
        let lane = || {
            let affinity = Affinity::with_neighbours(Arc::new(LinkCells::on_heap()), None);
            assert!(!affinity.avoid_waiter(u32::MAX));
            assert_eq!(affinity.avoidances.last(), 0);
            let here = cores::current();
            affinity.avoid_waiter(here);
            let (moved, there) = (affinity.avoidances.last(), cores::current());
            // Not again at once, even if the waiter follows.
            affinity.avoid_waiter(there);
            let waits = affinity.avoidances.last() == moved;
            (moved > 0 && waits, here != there)
        };
        // Linux may move a thread at any moment, but hardly each time.
        let mut all = (0..20).map(|_| thread::spawn(lane).join().expect("the lane's thread"));
        let has_others = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        assert!(all.any(|(obeys, leaves)| obeys && (leaves || !has_others)));
    }

    #[test]
    fn a_lane_finds_a_core_of_its_own() {
        if crate::sys::limits::cores() < 2 {
            return;
        }
        // Linux may move a thread at any moment, but hardly every time.
        assert!((0..20).any(|_| leaves(true)));
        assert!((0..20).any(|_| !leaves(false)));
    }
}
