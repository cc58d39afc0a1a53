//! The memory watch: how much memory the machine and the container have left, and how much each worker has taken.
//!
//! The monitor checks both a few times a second while there is work, and not at all while there is none. At the same
//! time it checks that the links still exist.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::shared::Supervisor;
use super::state::EngineState;
use super::worker::Status;
use crate::sys::limits::{self, Memory};
use crate::sys::oom::private_memory;

/// The time between two checks.
const PERIOD: Duration = Duration::from_millis(200);
/// Jobs wait while less than this many bytes, or less than a sixteenth of all memory if that is less, are available.
const RESERVE: u64 = 96 << 20;

/// The maximum number of bytes of freed memory that a worker does not return to Linux: the largest threshold that
/// glibc's allocator sets on its own.
const MAX_KEPT: u64 = 64 << 20;

/// Returns the number of bytes of freed private memory that a worker keeps for its next jobs: at most a quarter of its
/// limit, and at most an eighth of the memory for all workers together.
fn freed_to_keep(ceiling: u64, mark: u64, memory: u64, workers: u64) -> u64 {
    let ceiling = if ceiling == 0 { u64::MAX } else { ceiling };
    MAX_KEPT
        .min(ceiling.min(mark) / 4)
        .min(memory / 8 / workers.max(1))
}

impl Supervisor {
    /// See [`freed_to_keep`].
    pub(super) fn keep_freed(&self) -> u64 {
        let settings = &self.settings;
        let mark = settings.memory.recycling.above;
        let workers = settings.workers.into();
        freed_to_keep(settings.memory_limit, mark, self.arena.memory(), workers)
    }
}

/// The memory watch: see the module.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    root: PathBuf,
    /// The time of the next check. `None` while there is no work.
    next: Option<Instant>,
    /// The number of jobs that each worker had finished at the last check.
    seen: Vec<u64>,
    /// The number of bytes that the arena could not return when memory was short.
    stuck: u64,
}

impl MemoryWatch {
    /// Reads limits below `root`, which is `/` except in tests.
    pub(super) fn new(root: PathBuf, workers: usize) -> Self {
        Self {
            root,
            next: None,
            seen: vec![0; workers],
            stuck: 0,
        }
    }

    /// Returns the time of the next check.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Checks memory if it is time. Returns whether it did.
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
        // If the last job has ended after the check, there is one more check, which finds what the job left.
        let mut seen = self.seen.iter().enumerate();
        let unseen = state.config.recycles_by_size
            && seen.any(|(worker, &seen)| state.lanes.jobs_of(worker) != seen);
        let watches = state.lanes.open() > 0
            || state.queue.has_work()
            || state.scheduler.is_low_on_memory()
            || unseen;
        state.monitor.set_watches_memory(watches);
        self.next = watches.then(|| now + PERIOD);
        looked
    }

    /// Checks how much memory is left, lets jobs wait if it is short, and retires workers that have grown.
    pub(super) fn look_now(&mut self, shared: &Supervisor) {
        // This is done without the lock, because reading takes a while.
        let Some(mut memory) = limits::memory_now(&self.root) else {
            // If memory cannot be read, nothing changes until the next check.
            return;
        };
        let was_low = shared.lock().scheduler.is_low_on_memory();
        // Returns memory that the arena caches, if that ends the shortage. Otherwise the jobs that still run, one at a
        // time, need that memory, and might not get it again.
        if !is_low(&memory, was_low) {
            self.stuck = 0;
        } else {
            let unused = || {
                let arena = shared.arena.stats();
                arena.committed.saturating_sub(arena.in_use)
            };
            let mut without = memory;
            let gain = unused().saturating_sub(self.stuck);
            without.available = without.available.saturating_add(gain);
            if !is_low(&without, was_low) {
                shared.arena.trim();
                // Parts of huge pages cannot be returned.
                self.stuck = unused();
                memory = limits::memory_now(&self.root).unwrap_or(memory);
            }
        }
        let grown = self.grown(shared);
        let mut state = shared.lock();
        let low = is_low(&memory, was_low);
        state.set_low_on_memory(low);
        for (worker, generation) in grown {
            state.retire_grown(worker, generation);
        }
        shared.unlock(state);
    }

    /// Returns the workers that have finished a job since the last check and have grown beyond their limit, with their
    /// generation.
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
                    let jobs = state.lanes.jobs_of(*index);
                    let seen = std::mem::replace(&mut self.seen[*index], jobs);
                    let worked = jobs > seen && state.lanes.jobs_of_generation(*index) > 0;
                    // Memory of actors' states is no leak, and the states would be lost with the worker.
                    worked && worker.status() == Status::Ready && state.lanes.actors_of(*index) == 0
                })
                .filter_map(|(index, worker)| {
                    Some((index, worker.generation(), worker.pid())).filter(|&(_, _, pid)| pid != 0)
                })
                .collect()
        };
        // If the pid belongs to another process by now, then the generation has ended.
        let too_large = |pid| private_memory("/".as_ref(), pid).is_some_and(|bytes| bytes > above);
        workers
            .into_iter()
            .filter(|&(_, _, pid)| too_large(pid))
            .map(|(index, generation, _)| (index, generation))
            .collect()
    }
}

/// Returns true if jobs have to wait. While they wait, twice as much memory must be available before they continue.
fn is_low(memory: &Memory, was_low: bool) -> bool {
    let reserve = RESERVE.min(memory.limit / 16);
    let wanted = if was_low { reserve * 2 } else { reserve };
    memory.available < wanted
}

impl EngineState {
    /// Retires a worker that was found too large in this generation. The check ran without the lock, so an actor may
    /// have started there in the meantime; then this does nothing.
    pub(super) fn retire_grown(&mut self, worker: usize, generation: u32) {
        let is_same = self.workers[worker].generation() == generation;
        if is_same && self.lanes.actors_of(worker) == 0 {
            self.retire(worker);
        }
    }

    /// Sets whether memory is short. While it is, one job runs at a time: the memory that it frees may end the
    /// shortage.
    pub(super) fn set_low_on_memory(&mut self, low: bool) {
        if !self.scheduler.set_low_on_memory(low) {
            return;
        }
        self.lanes.set_paused(low);
        if low {
            self.reclaim(0..self.lanes.len());
        }
        self.refill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_to_keep_stays_below_every_bound() {
        const MIB: u64 = 1 << 20;
        let (no, large) = (u64::MAX, 32 << 30);
        assert_eq!(freed_to_keep(0, no, large, 2), MAX_KEPT);
        assert_eq!(freed_to_keep(128 * MIB, no, large, 2), 32 * MIB);
        assert_eq!(freed_to_keep(0, 16 * MIB, large, 2), 4 * MIB);
        assert_eq!(freed_to_keep(0, no, 512 * MIB, 8), 8 * MIB);
        assert_eq!(freed_to_keep(0, 0, large, 1), 0);
    }

    #[test]
    fn memory_is_low_below_the_reserve_and_until_twice_as_much_is_available() {
        const GIB: u64 = 1 << 30;
        for (limit, reserve) in [(64 * GIB, RESERVE), (GIB, GIB / 16), (160, 10)] {
            assert!(is_low(&Memory::of_a_container(limit, reserve - 1), false));
            assert!(!is_low(&Memory::of_a_container(limit, reserve), false));
            assert!(is_low(
                &Memory::of_a_container(limit, 2 * reserve - 1),
                true
            ));
            assert!(!is_low(&Memory::of_a_container(limit, 2 * reserve), true));
            assert!(
                is_low(&Memory::of_a_container(limit, 0), false)
                    && is_low(&Memory::of_a_container(limit, 0), true)
            );
        }
    }
}
