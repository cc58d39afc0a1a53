//! What a worker has answered and cannot be: it may have been taken over.

use crate::supervisor::{Failed, JobError, JobErrorKind};

pub(super) fn lie(kernel: &'static str, what: impl Into<String>) -> JobError {
    Failed::new(JobErrorKind::Protocol(what.into()), kernel, 0).into()
}

/// So many elements as have to be there.
pub(super) fn expect_len<T>(kernel: &'static str, part: &[T], len: usize) -> Result<(), JobError> {
    match part.len() == len {
        true => Ok(()),
        false => {
            let found = part.len();
            Err(lie(
                kernel,
                format!("a result of {found} elements instead of {len}"),
            ))
        }
    }
}
