//! Jobs that depend on other jobs: graphs and spawned tasks. See `docs/design/dependent-jobs.md`.

mod ends;
mod graph_run;
mod graph_steps;
mod graphs;
pub(super) mod limits;
pub(super) mod spawn_reply;
mod task_group;
mod task_group_steps;
mod waiting;

#[cfg(feature = "sandbox")]
pub(super) use ends::JobEnd;
pub use graph_run::GraphProgress;
pub(crate) use graph_run::{GraphPlan, GraphUnit, NodeCalls, NodeFate};
pub(super) use graphs::Graphs;
pub(super) use task_group::CancelMode;
