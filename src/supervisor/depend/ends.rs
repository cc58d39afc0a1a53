//! Ends of jobs that other jobs wait for.

use crate::kernel::Shares;

/// An end that was not processed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndNotice {
    /// The record of the job; or the index of a task group, if the lane of `end` is `CONTINUE`.
    pub(super) record: u32,
    pub(super) end: JobEnd,
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
