//! Ends of jobs that other jobs wait for.

use super::task_group::CancelMode;
use crate::kernel::Shares;

/// What is still to be done for jobs that wait for others.
#[derive(Clone, Copy, Debug)]
pub(super) enum EndNotice {
    /// The job with this record has ended.
    Job { record: u32, end: JobEnd },
    /// A task group may send more tasks, or has ended.
    Advance { task_group: u32 },
    /// The jobs that a task group has sent are to be cancelled, from this one on.
    Cancel {
        task_group: u32,
        serial: u64,
        how: CancelMode,
        from: usize,
    },
}

/// What a lane reported about the job that was drained last.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::supervisor) struct JobEnd {
    pub(in crate::supervisor) took_ns: u64,
    pub(super) lane: u32,
    /// The node that failed, of a chain that failed.
    pub(super) step: u32,
    /// Bytes of fresh arrays in the value.
    pub(super) bytes: u64,
    /// How the time of a chain is divided among its nodes.
    pub(super) shares: Option<Shares>,
}
