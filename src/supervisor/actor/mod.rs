#![doc = include_str!("README.md")]

mod calls;
mod hosting;
mod losses;
mod restart_pauses;
mod state;

pub use state::ActorStatus;
pub(super) use state::Actors;
pub(crate) use state::{ActorId, ActorPlan, CheckpointPlan};
