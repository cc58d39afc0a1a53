//! Ends of jobs that other jobs wait for.

use crate::kernel::Shares;

#[derive(Clone, Copy, Debug)]
pub(super) struct EndNotice {
    pub(super) record: u32,
    pub(super) end: JobEnd,
}

/// What a lane reported about the job that was drained last.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::supervisor) struct JobEnd {
    pub(in crate::supervisor) took_ns: u64,
    pub(in crate::supervisor) lane: u32,
    /// The node that failed, of a chain that failed.
    pub(in crate::supervisor) step: u32,
    /// Bytes of fresh arrays in the value.
    pub(in crate::supervisor) bytes: u64,
    /// How the time of a chain is divided among its nodes.
    pub(in crate::supervisor) shares: Option<Shares>,
}
