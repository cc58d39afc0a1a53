#![doc = include_str!("README.md")]

mod handle;
mod permits;
mod requests;
mod waiting_jobs;

pub use handle::Limiter;
pub(crate) use handle::{Permit, PermitSource};
pub(super) use waiting_jobs::{PermitStage, WaitingJobs};
