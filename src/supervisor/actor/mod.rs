//! Actors: calls that run where a state is, in order. See `docs/design/actors.md`.

mod calls;
mod hosting;
mod losses;
mod restart_pauses;
mod state;

pub use state::ActorStatus;
pub(super) use state::Actors;
pub(crate) use state::{ActorId, ActorPlan, CheckpointPlan};
