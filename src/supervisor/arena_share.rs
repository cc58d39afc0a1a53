//! Limits how much of the arena one worker may occupy: unpublished grants and retained arrays.
//!
//! By default each worker can get a share, whatever the other workers do: a worker may exceed its own share only with
//! memory that the other shares do not need. `Builder::max_arena_per_worker` replaces the shares by a fixed limit.
//! Published results belong to the program: they count for no worker, and reduce the memory to be shared.

use super::config::Config;
use super::lanes::Lanes;
use crate::arena::{Arena, ArenaFull};

/// The shares of all workers add up to 1/`ALL_SHARES` of the memory that is free or that workers occupy, so that a
/// single large result finds nearly as much room as without shares.
const ALL_SHARES: u64 = 4;

/// With a fixed limit, 1/`UNUSED` of the limit may be granted ahead, and as much may be granted beyond what a lane
/// requested. If a job uses neither, nearly all of the limit remains for the next job.
const UNUSED: u64 = 16;

/// A grant is refused: the worker occupies `held` bytes of the arena and may occupy `limit`.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverShare {
    region: u16,
    limit: u64,
    held: u64,
}

impl OverShare {
    /// Returns the error with all numbers. Some of them are read from files, so the engine's lock must not be held.
    pub(super) fn into_full(self, arena: &Arena, requested: u64) -> ArenaFull {
        arena.over_share(self.region, requested, self.limit, self.held)
    }
}

impl Lanes {
    /// Refuses a grant of `bytes` to a lane if its worker would then occupy more of the arena than it may.
    ///
    /// Allows a grant of more than the free memory: the arena refuses it, with better numbers.
    #[cold]
    pub(super) fn check_share(
        &self,
        lane: usize,
        bytes: u64,
        arena: &Arena,
        config: &Config,
    ) -> Result<(), OverShare> {
        let worker = self.worker_of(lane);
        let capacity = arena.capacity();
        let free = capacity.saturating_sub(arena.in_use());
        let held = self.arena_held_by(worker);
        let limit = match config.max_arena_per_worker {
            Some(limit) => limit,
            None => {
                let workers = config.active_workers as u64;
                let shares_of = |bytes: u64| bytes / ALL_SHARES / workers * (workers - 1);
                // Enough memory remains for the shares of all others, whatever they occupy now.
                if bytes <= free.saturating_sub(shares_of(capacity)) {
                    return Ok(());
                }
                let others = (0..self.workers()).filter(|&other| other != worker);
                let held_by_others: Vec<u64> =
                    others.map(|other| self.arena_held_by(other)).collect();
                let shared = free + held + held_by_others.iter().sum::<u64>();
                let share = shared / ALL_SHARES / workers;
                let missing = held_by_others
                    .iter()
                    .map(|held| share.saturating_sub(*held));
                // Spares need no shares of their own, because a spare replaces an active worker.
                let missing = missing.sum::<u64>().min(shares_of(shared));
                share.max(held + free.saturating_sub(missing))
            }
        };
        if bytes > free || held.saturating_add(bytes) <= limit {
            return Ok(());
        }
        Err(self.over_share(lane, limit, held))
    }

    fn over_share(&self, lane: usize, limit: u64, held: u64) -> OverShare {
        OverShare {
            region: self[lane].region(),
            limit,
            held,
        }
    }

    /// Refuses to grant memory ahead to a lane.
    #[cold]
    pub(super) fn check_ahead(
        &self,
        lane: usize,
        bytes: u64,
        arena: &Arena,
        config: &Config,
    ) -> Result<(), OverShare> {
        if let Some(limit) = config.max_arena_per_worker {
            let lanes = self.of_worker(self.worker_of(lane));
            let ahead: u64 = lanes.map(|lane| self[lane].grants().ahead()).sum();
            if ahead.saturating_add(bytes) > limit / UNUSED {
                return Err(self.over_share(lane, limit / UNUSED, ahead));
            }
        }
        self.check_share(lane, bytes, arena, config)
    }

    /// Returns the maximum size in bytes to which the grant for a smaller request is enlarged.
    pub(super) fn most_granted_at_once(&self, config: &Config) -> u64 {
        let most = (8 << 20) / self.per_worker() as u64;
        let limit = config.max_arena_per_worker;
        limit.map_or(most, |limit| most.min(limit / UNUSED))
    }

    /// Returns the number of bytes of the arena that a worker was granted and has not published, or that it retains.
    fn arena_held_by(&self, worker: usize) -> u64 {
        let lanes = self.of_worker(worker).map(|lane| &self[lane]);
        lanes
            .map(|lane| lane.grants().ahead() + lane.retained().bytes())
            .sum()
    }
}
