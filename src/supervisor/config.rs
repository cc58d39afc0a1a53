//! The settings of an engine, in the form that [`EngineState`](super::state::EngineState) uses.

use std::time::Duration;

use super::settings::Settings;

/// Set before the first job, and not changed afterwards.
#[derive(Debug)]
pub(super) struct Config {
    /// The number of workers that may be active at the same time.
    pub(super) active_workers: usize,
    /// The number of workers that a job with retries may kill.
    pub(super) quarantine_after: u32,
    /// The time that a running job of a cancelled group gets before its worker is killed, and that a worker gets to end
    /// after it was asked to.
    pub(super) grace: Duration,
    /// Whether a job with a deadline has its worker to itself.
    pub(super) deadlines_are_exclusive: bool,
    /// Whether workers have several lanes, which share one region.
    pub(super) lanes_share_regions: bool,
    /// Whether workers are sandboxed: no memory is lent to them, and their results are copied.
    pub(super) is_sandboxed: bool,
    /// Whether workers are replaced when they have grown: then the monitor checks their memory after each job.
    pub(super) recycles_by_size: bool,
    /// Whether workers retain arrays whose handles outlive their job.
    pub(super) retains: bool,
    /// The maximum number of bytes of the arena that a worker may occupy. `None`: limited by the shares of the others.
    pub(super) max_arena_per_worker: Option<u64>,
    /// Whether the engine can be used before its workers are ready.
    pub(super) starts_in_background: bool,
    pub(super) cores: usize,
    /// Whether a worker may spin while it waits for its next job.
    pub(super) may_spin: bool,
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
            starts_in_background: settings.in_background,
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
}
