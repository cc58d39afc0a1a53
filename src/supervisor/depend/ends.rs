//! The ends of jobs that other jobs depend on.

use super::run::CancelMode;
use crate::kernel::Shares;
use crate::supervisor::error::JobError;
use crate::supervisor::record::JobId;

/// An event of a run that is to be processed.
#[derive(Clone, Copy, Debug)]
pub(in crate::supervisor) enum EndNotice {
    /// The job with this record has ended.
    Job { record: u32, end: JobEnd },
    /// A job whose value other jobs take has ended.
    Input { job: JobId },
    /// The jobs that would have taken the value of this job have ended, and no handle is left.
    Unused { job: JobId },
    /// A run may send more units, or has ended.
    Advance { run: u32 },
    /// The units of a run are to be cancelled.
    Cancel {
        run: u32,
        serial: u64,
        how: CancelMode,
    },
}

/// The end of a job, as its lane reported it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::supervisor) struct JobEnd {
    pub(in crate::supervisor) took_ns: u64,
    pub(in crate::supervisor) lane: u32,
    /// For a chain that failed: the step of the node that failed.
    pub(in crate::supervisor) step: u32,
    /// Bytes of fresh arrays in the value.
    pub(in crate::supervisor) bytes: u64,
    /// How the time of a chain is divided among its nodes.
    pub(in crate::supervisor) shares: Option<Shares>,
}

/// Returns true if the call itself ended with this error; false if its worker was lost.
pub(super) fn ended_in_worker(error: &JobError) -> bool {
    error.kind().ended_in_worker() && error.worker().is_some()
}
