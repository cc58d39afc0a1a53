#![doc = include_str!("README.md")]

mod actor;
mod admission;
mod alone;
mod answer;
mod batch;
mod cancel;
mod causes;
mod config;
#[cfg(feature = "sandbox")]
mod copy_out;
mod counts;
mod deadline;
mod depend;
mod drain;
mod error;
mod events;
#[cfg(any(test, feature = "points"))]
mod fixture;
mod groups;
#[cfg(any(test, feature = "points"))]
#[path = "../../tests/support/hostile_links/mod.rs"]
pub(crate) mod hostile;
mod job_table;
mod kernels;
mod lane;
mod lanes;
mod lifecycle;
mod limit;
mod log;
mod memory;
mod monitor;
mod notice;
mod options;
mod output;
mod pauses;
mod place;
mod plain;
mod policy;
mod queue;
mod record;
mod recover;
mod recycle;
mod reply;
mod retry;
mod scheduler;
mod settings;
mod shared;
mod shutdown;
mod signals;
mod snapshot;
mod spawn;
mod start;
mod state;
mod stats;
mod submit;
mod suspicion;
mod take_back;
#[cfg(test)]
#[allow(
    unsafe_code,
    reason = "`test_workers!` places a function in a link section"
)]
mod tests;
mod trace;
mod tracing;
mod unsent;
mod unsent_sending;
mod waiting;
mod words;
mod worker;

pub use actor::ActorStatus;
pub(crate) use actor::{ActorId, ActorPlan, CheckpointPlan};
pub use admission::account::RefusedBy;
pub(crate) use admission::account::{InLine, held_by};
pub use batch::ResultKey;
pub(crate) use batch::{Flight, Outlook};
pub use depend::GraphProgress;
pub(crate) use depend::{Calls, GraphPlan, MOST_DEEP, NodeFate, Unit};
pub(crate) use error::{Because, Failed};
pub use error::{Death, JobError, JobErrorKind};
pub(crate) use kernels::bytes_to_expect;
pub(crate) use lifecycle::Closing;
pub(crate) use limit::{Limit, Permit};
pub use limit::{Limiter, LimiterBuilder};
pub(crate) use log::Sink;
pub use log::{LogLevel, LogLine, LogSource};
pub use options::{AtMostOnce, Backoff, JobOptions, Permits, Priority, Retried};
pub(crate) use record::JobId;
pub(crate) use reply::Read;
pub(crate) use settings::{
    MemorySettings, QUARANTINE_AFTER, Settings, StartError, descriptors_for,
};
pub(crate) use shared::Supervisor;
pub(crate) use start::start;
pub(crate) use stats::Looks;
pub use stats::{KernelStats, Progress, Stats, WorkerStats};
pub(crate) use trace::sentence;
pub(crate) use unsent::{Unsent, Written};
pub(crate) use waiting::thread_waker::park_until;
