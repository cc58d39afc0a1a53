//! Keeps a lane on a core of its own, if there is one for each lane.
//!
//! A wake-up puts a worker on the core of its waker, or on the one where it slept, if all cores are busy at that
//! moment; and Linux is slow to separate two threads that sleep now and then. Each can then only run while the other
//! does not.

use std::cell::Cell;
use std::sync::Arc;
use std::thread;

use super::lane::WorkerContext;
use crate::link::{LinkCells, Neighbours};
use crate::sys::clock::monotonic_ns;
use crate::sys::cores;

/// Min time between two looks at the other lanes, per lane: a look costs both sides a cache line.
const LOOK_INTERVAL_NS: u64 = 50_000;
/// Min time between two yields of the core.
const YIELD_INTERVAL_NS: u64 = 500_000;
/// Min time on a core before a move because of another lane.
const MOVE_INTERVAL_NS: u64 = 100_000;
/// Min time on a core before a move because of a thread that waits for this lane.
const AVOID_INTERVAL_NS: u64 = 10_000_000;

/// The core affinity of one lane.
#[derive(Debug)]
pub(super) struct Affinity {
    cells: Arc<LinkCells>,
    /// The other lanes, if there may be a core for each.
    neighbours: Option<Neighbours>,
    /// Min time between two looks at all of them.
    look_interval_ns: u64,
    /// When the lane last looked at the others.
    looked: Cell<u64>,
    /// When it last yielded its core.
    yielded: Cell<u64>,
    /// When it last moved to another core; 0 for never.
    moved: Cell<u64>,
}

impl Affinity {
    /// For the lane with this link, on its thread.
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
            yielded: Cell::new(now),
            moved: Cell::new(0),
        }
    }

    /// Called before the lane sleeps.
    pub(super) fn before_sleep(&self) {
        self.cells.set_asleep();
    }

    /// Called when the lane is awake again.
    pub(super) fn after_sleep(&self, now: u64) {
        if self.may_look(now) {
            self.find_own_core(now);
        } else {
            self.cells.set_core(cores::current());
        }
    }

    fn may_look(&self, now: u64) -> bool {
        now.saturating_sub(self.looked.get()) >= self.look_interval_ns
    }

    /// Moves to a core of its own if it shares one with another lane that is awake. Publishes its core.
    fn find_own_core(&self, now: u64) {
        self.looked.set(now);
        let Some(neighbours) = &self.neighbours else {
            return;
        };
        let mut core = cores::current();
        let is_shared = neighbours.cores().any(|other| other == core);
        if is_shared && self.has_stayed(now, MOVE_INTERVAL_NS) {
            self.moved.set(now);
            if cores::leave(neighbours.cores()) {
                core = cores::current();
            }
        }
        self.cells.set_core(core);
    }

    /// Called between two jobs. Looks at the other lanes from time to time.
    #[inline]
    pub(super) fn between_jobs(&self, now: u64) {
        if self.may_look(now) {
            self.look_cold(now);
        }
    }

    /// Finds a core of its own. If another lane waits for a core, yields: it may have been woken onto this core, or
    /// moved here between two jobs, while another core is free, and can only move once it runs.
    #[cold]
    fn look_cold(&self, now: u64) {
        self.find_own_core(now);
        let waits = |others: &Neighbours| others.any_waits_for_a_core();
        if self.neighbours.as_ref().is_some_and(waits)
            && now.saturating_sub(self.yielded.get()) >= YIELD_INTERVAL_NS
        {
            self.yielded.set(now);
            thread::yield_now();
            self.find_own_core(now);
        }
    }

    /// Moves to another core if the thread that waits for this lane is on the same one. Not to the core of another
    /// lane: its job may be long, while a waiting thread soon sleeps.
    pub(super) fn avoid_waiter(&self, waiter_core: u32) {
        let now = monotonic_ns();
        if cores::current() == waiter_core && self.has_stayed(now, AVOID_INTERVAL_NS) {
            self.moved.set(now);
            let others = self.neighbours.iter().flat_map(Neighbours::cores);
            cores::leave(others.chain([waiter_core]));
        }
    }

    fn has_stayed(&self, now: u64, long_ns: u64) -> bool {
        now.saturating_sub(self.moved.get()) >= long_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a lane left its core, on which another lane claims to be or not. On a thread of its own, so that other
    /// tests do not move.
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
            // It does not move again at once, even if the other lane follows.
            other.set_core(published().unwrap_or(core));
            let moved = affinity.moved.get();
            affinity.find_own_core(now + affinity.look_interval_ns + 1);
            assert!(moved == 0 || affinity.moved.get() == moved);
            affinity.before_sleep();
            assert_eq!(published(), None);
            left
        };
        thread::spawn(lane).join().expect("the lane's thread")
    }

    /// A thread waits for the lane on its core, and another lane is on a second core, asleep or awake. Returns whether
    /// the lane moved to that core, and whether there is a third one.
    fn goes_to(neighbour_is_awake: bool) -> (bool, bool) {
        let lane = move || {
            let own = Arc::new(LinkCells::on_heap());
            let other: &'static LinkCells = Box::leak(Box::new(LinkCells::on_heap()));
            let affinity = Affinity::with_neighbours(own, Some(Neighbours::of(&[other])));
            let here = cores::current();
            cores::leave([here]);
            let there = cores::current();
            let third = cores::leave([here, there]);
            cores::leave([there]);
            other.set_core(there);
            if !neighbour_is_awake {
                other.set_asleep();
            }
            affinity.avoid_waiter(cores::current());
            (cores::current() == there, third)
        };
        thread::spawn(lane).join().expect("the lane's thread")
    }

    #[test]
    fn a_lane_avoids_its_waiter_but_not_onto_another_lanes_core() {
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
        // Linux may move a thread at any moment, but hardly every time.
        assert!((0..20).any(|_| leaves(true)));
        assert!((0..20).any(|_| !leaves(false)));
    }
}
