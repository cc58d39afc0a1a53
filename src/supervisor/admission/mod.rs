//! Admission by bytes: a ceiling on the memory of all jobs in flight. See `docs/design/admission-and-limiters.md`.

mod admit;
mod state;

pub(super) use state::Admission;
pub use state::RefusedBy;
pub(crate) use state::{LineTicket, exclusive_bytes};
