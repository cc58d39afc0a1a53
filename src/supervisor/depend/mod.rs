#![doc = include_str!("README.md")]

mod ends;
pub(super) mod limits;
mod plan;
mod run;
mod runs;
mod spawn;
pub(super) mod spawn_reply;
mod steps;
mod waiting;

pub(super) use ends::EndNotice;
#[cfg(feature = "sandbox")]
pub(super) use ends::JobEnd;
pub(crate) use plan::{Calls, Jobs, NodeCalls, RunPlan, RunUnit, node_name};
pub(super) use run::CancelMode;
pub use run::GraphProgress;
pub(crate) use run::NodeFate;
pub(super) use runs::Runs;
pub(crate) use waiting::GraphId;
