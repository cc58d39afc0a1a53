//! The settings of an engine, as its state needs them.

use std::time::Duration;

use super::settings::Settings;

/// Set before the first job, and not changed after.
#[derive(Debug)]
pub(super) struct Config {
    /// Workers that may be active at the same time.
    active_workers: usize,
    /// Workers that a job with retries may cost.
    quarantine_after: u32,
    /// How long a job of a cancelled group may run on, and a worker that is asked to end.
    grace: Duration,
    /// A job with a deadline has its worker to itself.
    deadlines_are_exclusive: bool,
    /// Workers have several lanes, which share one region.
    lanes_share_regions: bool,
    /// Workers are sandboxed: nothing is lent to them, and what they make is copied.
    is_sandboxed: bool,
    /// Workers are replaced when they have grown: the monitor has to look at their memory after each job.
    recycles_by_size: bool,
    /// Workers retain arrays that jobs leave behind.
    retains: bool,
    /// Bytes of the arena that a worker may hold; `None`: as far as the shares of others allow.
    max_arena_per_worker: Option<u64>,
    cores: usize,
    /// A worker may spin for its next job.
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

    /// Sets how many cores the process may run on, and with that whether workers may spin: with more lanes than cores,
    /// one that spins takes a core from another.
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

    pub(super) fn set_sandboxed(&mut self) {
        self.is_sandboxed = true;
    }

    pub(super) fn set_quarantine_after(&mut self, deaths: u32) {
        self.quarantine_after = deaths;
    }
}
