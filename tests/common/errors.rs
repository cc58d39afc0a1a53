//! Kinds of errors that many tests expect.

use std::fmt::Display;
use std::time::Duration;

use arenite::{JobError, JobErrorKind, JobLimit, Rejection, WorkerExit};

/// The worker of a job was ended by this signal.
pub const fn by_signal(number: i32) -> JobErrorKind {
    JobErrorKind::Lost(WorkerExit::Signal(number))
}

/// The worker of a job was ended by SIGKILL.
pub const KILLED: JobErrorKind = by_signal(9);

/// The worker of a job was ended by SIGABRT.
pub const ABORTED: JobErrorKind = by_signal(6);

/// A job took longer than this limit.
pub const fn late(limit: Duration) -> JobErrorKind {
    JobErrorKind::Limit(JobLimit::Deadline { limit })
}

/// Returns message, location and backtrace of a panic, which this error must be.
#[track_caller]
pub fn panicked(kind: &JobErrorKind) -> (&str, &str, &str) {
    let JobErrorKind::Panicked {
        message,
        location,
        backtrace,
    } = kind
    else {
        panic!("{kind:?}")
    };
    (message, location, backtrace)
}

/// Asserts that an error or another text contains this part.
#[track_caller]
pub fn assert_says(what: &impl Display, part: &str) {
    let text = what.to_string();
    assert!(text.contains(part), "no {part:?} in: {text}");
}

/// A job or call that the engine has refused.
pub const fn rejected(why: Rejection) -> JobErrorKind {
    JobErrorKind::Rejected(why)
}

/// Returns why the node or spawned job has failed that this failure comes from.
#[track_caller]
pub fn cause_of(error: &JobError) -> &JobErrorKind {
    let JobErrorKind::Dependency(failed) = error.kind() else {
        panic!("{error}")
    };
    let origin = error.origin().map(JobError::kind);
    assert_eq!(origin, Some(failed.cause()), "{error}");
    failed.cause()
}
