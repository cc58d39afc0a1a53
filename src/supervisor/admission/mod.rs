#![doc = include_str!("README.md")]

mod admit;
mod state;

pub(super) use state::Admission;
pub use state::RefusedBy;
pub(crate) use state::{LineTicket, exclusive_bytes};
