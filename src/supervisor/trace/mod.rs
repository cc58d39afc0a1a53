//! Reports events of the supervisor to the trace, if the engine has one.
//!
//! A job of a traced engine has `STAMPED` in its form, which is read for each job anyway, so an engine without a trace
//! has no extra cost. The trace state of an open job is stored by the index of its record.

mod report;
mod state;

use std::fmt::{self, Write as _};

use super::error::JobErrorKind;
use crate::worker::panics::TEXT_LIMIT;

pub(super) use report::Trace;

/// Returns the sentence of an error, truncated to the limit of a text. Sentences may contain others and escapes; a
/// trace stores many sentences, and some are formatted under the lock.
pub(crate) fn sentence(why: &JobErrorKind) -> Box<str> {
    struct Cut(String);

    impl fmt::Write for Cut {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            let room = more.floor_char_boundary(TEXT_LIMIT - self.0.len());
            self.0.push_str(&more[..room]);
            // A full buffer returns an error, which ends the formatting.
            (room == more.len()).then_some(()).ok_or(fmt::Error)
        }
    }

    let mut cut = Cut(String::new());
    let _ = write!(cut, "{why}");
    cut.0.into()
}
