//! How many jobs ended without a value.

use super::error::JobErrorKind;

/// Jobs since the engine was built.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct JobCounts {
    failed: u64,
    cancelled: u64,
}

impl JobCounts {
    /// A job gave no value.
    pub(super) fn count(&mut self, why: &JobErrorKind) {
        if *why == JobErrorKind::Cancelled {
            self.cancelled += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Jobs that were answered without a value.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Jobs that were cancelled, or whose handle was dropped before they began.
    pub(super) fn cancelled(&self) -> u64 {
        self.cancelled
    }
}
