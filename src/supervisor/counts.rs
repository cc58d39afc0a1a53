//! Counts the jobs that ended without a value.

use super::error::JobErrorKind;

/// Number of jobs that ended without a value since the engine was built.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct JobCounts {
    /// Jobs that were answered with an error other than a cancellation.
    failed: u64,
    /// Jobs that were cancelled, or whose handle was dropped before they began.
    cancelled: u64,
}

impl JobCounts {
    /// Counts a job that ended without a value.
    pub(super) fn count(&mut self, why: &JobErrorKind) {
        if *why == JobErrorKind::Cancelled {
            self.cancelled += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Returns the number of jobs that were answered with an error other than a cancellation.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Returns the number of jobs that were cancelled, or whose handle was dropped before they began.
    pub(super) fn cancelled(&self) -> u64 {
        self.cancelled
    }
}
