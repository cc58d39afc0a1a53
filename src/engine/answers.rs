//! Checks results for errors that a correct worker cannot make.

use crate::supervisor::{Failed, JobError, JobErrorKind, WorkerExit};

/// Returns the error of a job whose worker sent a wrong result.
pub(super) fn broken_reply(kernel: &'static str, what: impl Into<String>) -> JobError {
    Failed::new(
        JobErrorKind::Lost(WorkerExit::Protocol(what.into())),
        kernel,
        0,
    )
    .into()
}

/// Checks that a result has `len` elements.
pub(super) fn expect_len<T>(kernel: &'static str, part: &[T], len: usize) -> Result<(), JobError> {
    match part.len() == len {
        true => Ok(()),
        false => {
            let found = part.len();
            Err(broken_reply(
                kernel,
                format!("a result of {found} elements instead of {len}"),
            ))
        }
    }
}
