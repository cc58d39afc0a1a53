#![doc = include_str!("README.md")]

mod actor;
mod admission;
mod answer;
mod arena_share;
mod at_exit;
mod batch;
mod cancel;
mod checked_reply;
mod config;
#[cfg(feature = "sandbox")]
mod copy_out;
mod counts;
mod crash;
mod deadline;
mod depend;
mod drain;
mod error;
mod exit_causes;
mod failed_reply;
#[cfg(any(test, feature = "points"))]
mod fixture;
mod grants;
mod groups;
#[cfg(feature = "points")]
mod hold_time;
#[cfg(any(test, feature = "points"))]
#[path = "../../tests/support/hostile_links/mod.rs"]
pub(crate) mod hostile;
mod inputs;
mod job_table;
mod kernels;
mod lane;
mod lanes;
mod lifecycle;
mod limiter;
mod memory;
mod monitor;
mod notice;
mod options;
mod output;
mod owner;
mod pending_batch;
mod place;
mod policy;
mod queue;
mod record;
mod recover;
mod recycle;
mod reply;
mod retained;
mod retry;
mod scheduler;
mod settings;
mod shared;
mod shutdown;
mod signals;
mod snapshot;
mod spares;
mod start;
mod state;
mod stats;
mod submit;
mod suspicion;
mod take_back;
#[cfg(feature = "template")]
mod template;
#[cfg(not(feature = "template"))]
#[path = "no_template.rs"]
mod template;
#[cfg(test)]
#[allow(
    unsafe_code,
    reason = "`test_workers!` places a function in a link section"
)]
mod tests;
mod timers;
mod trace;
mod uncopied;
mod waiting;
mod worker;
mod worker_start;
mod workers;

pub use actor::ActorStatus;
pub(crate) use actor::{ActorId, ActorPlan, CheckpointPlan};
pub use admission::RefusedBy;
pub(crate) use admission::{LineTicket, exclusive_bytes};
pub use batch::ResultKey;
pub(crate) use batch::{Flight, Outlook};
pub(crate) use depend::limits::MAX_SPAWN_DEPTH;
pub use error::{
    Backtrace, Crash, CrashClass, CrashFrame, CrashedAccess, Death, FailedDependency, FailedInput,
    JobError, JobErrorKind, JobLimit, Rejection, WorkerExit,
};
pub(crate) use error::{Because, Failed};
pub(crate) use kernels::bytes_to_expect;
pub(crate) use lifecycle::Closing;
pub use limiter::Limiter;
pub(crate) use limiter::{Permit, PermitSource};
pub use options::{Backoff, JobOptions, Permits, Priority};
pub(crate) use output::Sink;
pub use output::{LogLevel, LogLine, LogSource};
pub(crate) use owner::{Group, Owner};
pub(crate) use pending_batch::{PendingBatch, PendingCalls};
pub(crate) use record::JobId;
pub(crate) use reply::Read;
pub(crate) use settings::{
    MemorySettings, ProgramSpec, QUARANTINE_AFTER, Settings, StartError, StartMethod, WorkerEntry,
    descriptors_for,
};
pub(crate) use shared::Supervisor;
pub(crate) use start::start;
pub(crate) use stats::RateMeter;
pub use stats::{KernelStats, Progress, Stats, WorkerStats};
pub(crate) use submit::Target;
#[cfg(feature = "template")]
pub(crate) use template::end_unused as end_unused_templates;
pub(crate) use trace::sentence;
pub(crate) use waiting::thread_waker::park_until;
pub(crate) use worker_start::environment;
