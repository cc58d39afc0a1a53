//! The values that wait to be copied to memory that no worker can write.

#[cfg(feature = "sandbox")]
use super::checked_reply::CheckedReply;
#[cfg(feature = "sandbox")]
#[cfg(feature = "sandbox")]
use crate::kernel::wire::Leases;

/// A value that was drained and checked, and whose worker can still write it.
#[cfg(feature = "sandbox")]
#[derive(Debug)]
pub(super) struct Uncopied {
    /// The record of the job.
    pub(super) record: u32,
    pub(super) lane: usize,
    /// The generation of the worker that sent it.
    pub(super) generation: u32,
    pub(super) checked: CheckedReply,
    pub(super) leases: Leases,
    /// The time that the job took.
    pub(super) took_ns: u64,
}

/// The values that the monitor has to copy. Without sandboxed workers there are none.
#[derive(Debug, Default)]
pub(super) struct Uncopieds {
    #[cfg(feature = "sandbox")]
    waiting: Vec<Uncopied>,
    /// Number of values that wait, or that the monitor has taken and not copied yet.
    len: usize,
}

impl Uncopieds {
    /// Returns the number of values that were not copied yet.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(feature = "sandbox")]
impl Uncopieds {
    /// Adds a value for the monitor to copy. The caller calls the monitor.
    pub(super) fn add(&mut self, value: Uncopied) {
        self.waiting.push(value);
        self.len += 1;
    }

    /// Takes the values that wait. Each counts until [`finish_one`](Self::finish_one) is called for it.
    pub(super) fn take(&mut self) -> Vec<Uncopied> {
        std::mem::take(&mut self.waiting)
    }

    /// Stops counting a value that was taken: its job is about to be answered.
    pub(super) fn finish_one(&mut self) {
        self.len -= 1;
    }
}
