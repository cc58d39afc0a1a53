//! The settings of an engine, in the form that [`EngineState`](super::state::EngineState) uses.

use std::time::Duration;

use super::settings::Settings;

/// Set before the first job, and not changed afterwards.
#[derive(Debug)]
pub(super) struct Config {
    /// The number of workers that may be active at the same time.
    active_workers: usize,
    /// The number of workers that a job with retries may kill.
    quarantine_after: u32,
    /// The time that a running job of a cancelled group gets before its worker is killed, and that a worker gets to end
    /// after it was asked to.
    grace: Duration,
    /// Whether a job with a deadline has its worker to itself.
    deadlines_are_exclusive: bool,
    /// Whether workers have several lanes, which share one region.
    lanes_share_regions: bool,
    /// Whether workers are sandboxed: no memory is lent to them, and their results are copied.
    is_sandboxed: bool,
    /// Whether workers are replaced when they have grown: then the monitor checks their memory after each job.
    recycles_by_size: bool,
    /// Whether workers retain arrays whose handles outlive their job.
    retains: bool,
    /// The maximum number of bytes of the arena that a worker may occupy. `None`: limited by the shares of the others.
    max_arena_per_worker: Option<u64>,
    cores: usize,
    /// Whether a worker may spin while it waits for its next job.
    may_spin: bool,
}

impl Config {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            active_workers: settings.active_workers().into(),
            quarantine_after: settings.quarantine_after,
            grace: settings.grace,
            deadlines_are_exclusive: settings.lanes > 1 && !settings.co_schedule_deadlines,
            lanes_share_regions: settings.lanes > 1,
            is_sandboxed: settings.sandboxed,
            recycles_by_size: settings.memory.recycling.above != u64::MAX,
            retains: settings.retain.is_some(),
            max_arena_per_worker: settings.max_arena_per_worker,
            cores: 1,
            may_spin: false,
        }
    }

    /// Sets the number of cores that the process may run on, and whether workers may spin: if there are more lanes than
    /// cores, a spinning worker takes a core from another.
    pub(super) fn set_cores(&mut self, cores: usize, lanes: usize) {
        self.cores = cores;
        self.may_spin = cores > 1 && (!self.lanes_share_regions || lanes <= cores);
    }

    #[inline]
    pub(super) fn active_workers(&self) -> usize {
        self.active_workers
    }

    pub(super) fn quarantine_after(&self) -> u32 {
        self.quarantine_after
    }

    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    pub(super) fn deadlines_are_exclusive(&self) -> bool {
        self.deadlines_are_exclusive
    }

    #[inline]
    pub(super) fn lanes_share_regions(&self) -> bool {
        self.lanes_share_regions
    }

    #[inline]
    pub(super) fn is_sandboxed(&self) -> bool {
        self.is_sandboxed
    }

    #[inline]
    pub(super) fn recycles_by_size(&self) -> bool {
        self.recycles_by_size
    }

    #[inline]
    pub(super) fn retains(&self) -> bool {
        self.retains
    }

    pub(super) fn max_arena_per_worker(&self) -> Option<u64> {
        self.max_arena_per_worker
    }

    #[inline]
    pub(super) fn cores(&self) -> usize {
        self.cores
    }

    #[inline]
    pub(super) fn may_spin(&self) -> bool {
        self.may_spin
    }
}

#[cfg(any(test, feature = "points"))]
impl Config {
    pub(super) fn set_retaining(&mut self) {
        self.retains = true;
    }
}

#[cfg(test)]
impl Config {
    pub(super) fn set_active_workers(&mut self, workers: usize) {
        self.active_workers = workers;
    }

    pub(super) fn set_deadlines_exclusive(&mut self) {
        self.deadlines_are_exclusive = true;
    }

    pub(super) fn set_sandboxed(&mut self) {
        self.is_sandboxed = true;
    }

    pub(super) fn set_quarantine_after(&mut self, deaths: u32) {
        self.quarantine_after = deaths;
    }
}
