//! Ends of jobs that concern other jobs: what takes their values, and the runs that they belong to.

use crate::supervisor::record::JobId;

/// An event that is to be processed when no change is under way.
#[derive(Clone, Copy, Debug)]
pub(in crate::supervisor) enum EndNotice {
    /// The job with this record, a task, has ended.
    Task { record: u32 },
    /// A job whose value other jobs take has ended.
    Input { job: JobId },
    /// The jobs that would have taken the value of this job have ended, and no handle is left.
    Unused { job: JobId },
    /// A call of this actor will take no value of another job any more.
    Call { actor: u32 },
    /// A run may send more tasks, or has ended.
    Advance { run: u32 },
    /// The tasks of a run are to be cancelled.
    Cancel {
        run: u32,
        serial: u64,
        how: CancelMode,
    },
}

/// How the sent tasks of a run are cancelled, the strongest way last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::supervisor) enum CancelMode {
    /// Ask them to stop.
    Ask,
    /// Ask them to stop, and kill their workers after the grace period.
    AskThenKill,
    /// Kill their workers.
    Kill,
}
