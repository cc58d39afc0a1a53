//! The memory watch: how much the machine and the container have left, and how much each worker has taken.
//!
//! It belongs to the monitor, which looks a few times a second while there is work, and not at all while there is none. It looks
//! as often whether the links are still there.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::shared::Supervisor;
use super::state::EngineState;
use super::worker::Status;
use crate::sys::limits::{self, Memory};
use crate::sys::oom::private_memory;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(200);
/// Below this much memory, or a sixteenth of all if that is less, jobs wait.
const RESERVE: u64 = 96 << 20;

/// Most bytes of freed memory that a worker keeps: as many as glibc's allocator ever comes to by itself.
const KEPT: u64 = 64 << 20;

/// Bytes of freed private memory that each of so many workers keeps for its next jobs: at most a quarter of what it may have,
/// and all together an eighth of what there is.
fn kept(ceiling: u64, mark: u64, memory: u64, workers: u64) -> u64 {
    let ceiling = if ceiling == 0 { u64::MAX } else { ceiling };
    KEPT.min(ceiling.min(mark) / 4)
        .min(memory / 8 / workers.max(1))
}

impl Supervisor {
    /// See [`kept`].
    pub(super) fn keep_freed(&self) -> u64 {
        let settings = &self.settings;
        let mark = settings.memory.recycling.above;
        let workers = settings.workers.into();
        kept(settings.memory_limit, mark, self.arena.memory(), workers)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    root: PathBuf,
    /// When it looks next; `None` while there is no work.
    next: Option<Instant>,
    /// Jobs that each worker had finished at the last look.
    seen: Vec<u64>,
    /// Bytes that the arena could not give back when memory was short.
    stuck: u64,
}

impl MemoryWatch {
    /// Reads under `root`, which is `/` but for tests.
    pub(super) fn new(root: PathBuf, workers: usize) -> Self {
        Self {
            root,
            next: None,
            seen: vec![0; workers],
            stuck: 0,
        }
    }

    /// When it has to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Looks, if it is time. True if it has.
    pub(super) fn look(&mut self, shared: &Supervisor) -> bool {
        let now = Instant::now();
        match self.next {
            Some(at) if at > now => return false,
            Some(_) => {
                self.look_now(shared);
                shared.look_after_links();
            }
            None => {}
        }
        let looked = self.next.is_some();
        let mut state = shared.lock();
        // The last job may have ended after the look: then there is one more, to see what it left.
        let mut seen = self.seen.iter().enumerate();
        let unseen = state.config.recycles_by_size()
            && seen.any(|(worker, &seen)| state.jobs_of(worker) != seen);
        let watches = state.lanes.open() > 0
            || state.keeps_any()
            || state.scheduler.is_low_on_memory()
            || unseen;
        state.monitor.set_watches_memory(watches);
        self.next = watches.then(|| now + PERIOD);
        looked
    }

    /// Looks.
    pub(super) fn look_now(&mut self, shared: &Supervisor) {
        // Without the lock: it takes a while.
        let Some(mut memory) = limits::memory_now(&self.root) else {
            // Next time, perhaps: until then all stays as it is.
            return;
        };
        let was_tight = shared.lock().scheduler.is_low_on_memory();
        // What the arena keeps for later is given back where that ends the shortage. Otherwise the jobs that run one at a
        // time need it: it may not be had again.
        if !is_tight(&memory, was_tight) {
            self.stuck = 0;
        } else {
            let kept = || {
                let arena = shared.arena.stats();
                arena.committed.saturating_sub(arena.in_use)
            };
            let mut without = memory;
            let gain = kept().saturating_sub(self.stuck);
            without.available = without.available.saturating_add(gain);
            if !is_tight(&without, was_tight) {
                shared.arena.trim();
                // Parts of huge pages stay.
                self.stuck = kept();
                memory = limits::memory_now(&self.root).unwrap_or(memory);
            }
        }
        let grown = self.grown(shared);
        let mut state = shared.lock();
        let tight = is_tight(&memory, was_tight);
        state.set_low_on_memory(tight);
        for (worker, life) in grown {
            state.retire_grown(worker, life);
        }
        shared.unlock(state);
    }

    /// Workers that have finished a job since the last look and have grown beyond what they may have.
    fn grown(&mut self, shared: &Supervisor) -> Vec<(usize, u32)> {
        let above = shared.settings.memory.recycling.above;
        if above == u64::MAX {
            return Vec::new();
        }
        let workers: Vec<_> = {
            let state = shared.lock();
            let workers = state.workers.iter().enumerate();
            workers
                .filter(|(index, worker)| {
                    let jobs = state.jobs_of(*index);
                    let seen = std::mem::replace(&mut self.seen[*index], jobs);
                    let worked = jobs > seen && state.jobs_of_life(*index) > 0;
                    // What it has for actors is no leak, and would be lost.
                    worked && worker.status() == Status::Ready && worker.actors == 0
                })
                .filter_map(|(index, worker)| {
                    let pid = worker.process.as_ref()?.pidfd.pid().as_raw();
                    Some((index, worker.life(), pid.cast_unsigned()))
                })
                .collect()
        };
        // A number that belongs to somebody else by now belongs to a worker of another life.
        let too_large = |pid| private_memory("/".as_ref(), pid).is_some_and(|bytes| bytes > above);
        workers
            .into_iter()
            .filter(|&(_, _, pid)| too_large(pid))
            .map(|(index, life, _)| (index, life))
            .collect()
    }
}

/// Whether jobs have to wait. Once they do, there has to be twice as much before they go on.
fn is_tight(memory: &Memory, was_tight: bool) -> bool {
    let reserve = RESERVE.min(memory.limit / 16);
    let wanted = if was_tight { reserve * 2 } else { reserve };
    memory.available < wanted
}

impl EngineState {
    /// A worker was found too large in this life, while others had the lock: an actor may have begun there since.
    pub(super) fn retire_grown(&mut self, worker: usize, life: u32) {
        let found = &self.workers[worker];
        if found.life() == life && found.actors == 0 {
            self.retire(worker);
        }
    }

    /// Memory is short, or no longer. While it is, one job runs at a time: what it frees may be what is missing.
    pub(super) fn set_low_on_memory(&mut self, tight: bool) {
        if !self.scheduler.set_low_on_memory(tight) {
            return;
        }
        self.lanes.iter_mut().for_each(|lane| lane.hold(tight));
        if tight {
            self.reclaim(0..self.lanes.len());
        }
        self.refill();
    }

    /// While memory is short: places the oldest job if none runs.
    #[cold]
    pub(super) fn refill_tightly(&mut self) {
        if self.lanes.open() > 0 {
            return;
        }
        if self.actors.take_first_turn() || self.queue.is_empty() && self.actors.has_listed() {
            self.lanes.iter_mut().for_each(|lane| lane.hold(false));
            self.feed_actors(1);
            self.lanes.iter_mut().for_each(|lane| lane.hold(true));
            return;
        }
        let Some(index) = self.queue.pop_any(&self.records) else {
            return;
        };
        self.lanes.iter_mut().for_each(|lane| lane.hold(false));
        if !self.place_popped(index) {
            self.queue.push_front(index, self.records.at(index));
        }
        self.lanes.iter_mut().for_each(|lane| lane.hold(true));
        if self.queue.is_empty() {
            self.update_flags();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_below_every_bound() {
        const MIB: u64 = 1 << 20;
        let (no, large) = (u64::MAX, 32 << 30);
        assert_eq!(kept(0, no, large, 2), KEPT);
        assert_eq!(kept(128 * MIB, no, large, 2), 32 * MIB);
        assert_eq!(kept(0, 16 * MIB, large, 2), 4 * MIB);
        assert_eq!(kept(0, no, 512 * MIB, 8), 8 * MIB);
        assert_eq!(kept(0, 0, large, 1), 0);
    }

    #[test]
    fn short_is_less_than_the_reserve_until_there_is_twice_as_much() {
        const GIB: u64 = 1 << 30;
        for (limit, reserve) in [(64 * GIB, RESERVE), (GIB, GIB / 16), (160, 10)] {
            assert!(is_tight(&Memory::of_a_container(limit, reserve - 1), false));
            assert!(!is_tight(&Memory::of_a_container(limit, reserve), false));
            assert!(is_tight(
                &Memory::of_a_container(limit, 2 * reserve - 1),
                true
            ));
            assert!(!is_tight(&Memory::of_a_container(limit, 2 * reserve), true));
            assert!(
                is_tight(&Memory::of_a_container(limit, 0), false)
                    && is_tight(&Memory::of_a_container(limit, 0), true)
            );
        }
    }
}
