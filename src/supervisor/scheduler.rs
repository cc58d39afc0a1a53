//! What decides, beside the queue and the lanes themselves, which job is placed where.

use super::options::Priority;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    /// Some job had a priority other than the usual one.
    has_priorities: bool,
    /// The monitor places jobs and no thread submits: sleeping workers may be woken for tiny jobs too.
    submitter_is_idle: bool,
    /// Memory is short: one job runs at a time.
    is_low_on_memory: bool,
}

impl Scheduler {
    /// A job of this priority was submitted.
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

    /// Returns whether that is a change.
    pub(super) fn set_low_on_memory(&mut self, low: bool) -> bool {
        std::mem::replace(&mut self.is_low_on_memory, low) != low
    }
}
