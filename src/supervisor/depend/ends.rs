//! Ends of jobs, as their graph is to hear of them.

use crate::kernel::Shares;

/// An end that its graph has not heard of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Over {
    pub(super) record: u32,
    pub(super) end: LastEnd,
}

/// What a lane told of the job that was drained last.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::supervisor) struct LastEnd {
    pub(in crate::supervisor) took_ns: u64,
    pub(in crate::supervisor) lane: u32,
    /// Of a chain that failed: which of its nodes.
    pub(in crate::supervisor) step: u32,
    /// Bytes of fresh arrays in its value.
    pub(in crate::supervisor) bytes: u64,
    /// Of a chain: how the time is spread over its nodes.
    pub(in crate::supervisor) shares: Option<Shares>,
}
