//! Reports of the supervisor to the trace of an engine that has one.
//!
//! A job of a traced engine carries `STAMPED` in its form, which is read for each job anyway, so an engine without a
//! trace pays nothing. What is known of an open job is stored beside its record, by the same index.

mod report;
mod state;

use std::fmt::{self, Write as _};

use super::error::JobErrorKind;
use crate::worker::panics::TEXT_LIMIT;

pub(super) use report::Trace;

/// The sentence of an error, truncated to the limit of a text. Sentences may contain others and escapes; a trace keeps
/// many of them, and those about workers are formatted with the lock held.
pub(crate) fn sentence(why: &JobErrorKind) -> Box<str> {
    struct Cut(String);

    impl fmt::Write for Cut {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            let room = more.floor_char_boundary(TEXT_LIMIT - self.0.len());
            self.0.push_str(&more[..room]);
            // A full buffer reports an error, which ends the formatting.
            (room == more.len()).then_some(()).ok_or(fmt::Error)
        }
    }

    let mut cut = Cut(String::new());
    let _ = write!(cut, "{why}");
    cut.0.into()
}
