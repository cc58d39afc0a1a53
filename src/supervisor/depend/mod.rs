#![doc = include_str!("README.md")]

mod ends;
pub(super) mod limits;
mod run;
mod runs;
mod spawn;
pub(super) mod spawn_reply;
mod steps;

pub(super) use ends::{CancelMode, EndNotice};
pub(super) use runs::Runs;
