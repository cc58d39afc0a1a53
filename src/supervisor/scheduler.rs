//! State that affects where jobs are placed, apart from the queue and the lanes.

use super::options::Priority;

/// State of placing: see the module.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    /// Whether any job had a priority other than the default.
    has_priorities: bool,
    /// Whether no thread submits and the monitor places jobs: then sleeping workers are woken for tiny jobs too.
    submitter_is_idle: bool,
    /// Whether memory is short: then one job runs at a time.
    is_low_on_memory: bool,
}

impl Scheduler {
    /// Records the priority of a submitted job.
    pub(super) fn saw(&mut self, priority: Priority) {
        self.has_priorities |= priority != Priority::Normal;
    }

    #[inline]
    pub(super) fn has_priorities(&self) -> bool {
        self.has_priorities
    }

    pub(super) fn set_submitter_idle(&mut self, idle: bool) {
        self.submitter_is_idle = idle;
    }

    pub(super) fn submitter_is_idle(&self) -> bool {
        self.submitter_is_idle
    }

    #[inline]
    pub(super) fn is_low_on_memory(&self) -> bool {
        self.is_low_on_memory
    }

    /// Sets whether memory is short. Returns true if the value has changed.
    pub(super) fn set_low_on_memory(&mut self, low: bool) -> bool {
        std::mem::replace(&mut self.is_low_on_memory, low) != low
    }
}
