//! [`ServiceError`].

use std::fmt;
use std::io;

use arenite::{JobError, JobErrorKind, JobLimit, WorkerExit, escape_text};

use super::message::{ErrorCode, Failure};
use crate::sys;
use crate::{StoreError, StoreErrorKind};

/// Why a call gave no value, or a service cannot be served or reached. Displays as a sentence that says what to do.
#[derive(Clone)]
pub struct ServiceError {
    kind: ServiceErrorKind,
    message: String,
    attempts: u32,
    last_words: Vec<String>,
}

/// The causes that callers can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceErrorKind {
    /// No service of this name runs, or it ended, perhaps during the call.
    NotRunning,
    /// A server of this name runs already.
    AlreadyRunning,
    /// The name is not allowed, or two kernels have the same name.
    BadName,
    /// The server or the folder belongs to another user.
    Denied,
    /// The service has no kernel of this name.
    NoKernel,
    /// The number or a type of the arguments does not match the kernel.
    BadArgument,
    /// The result has another type than the caller asked for.
    WrongType,
    /// The client has the maximum number of open calls.
    Busy,
    /// The kernel returned an error; the message is its text.
    Returned,
    /// The kernel panicked or raised an exception.
    Panicked,
    /// A signal ended the worker.
    Crashed {
        /// The signal, such as 11 for an invalid memory access.
        signal: i32,
    },
    /// The worker exited.
    Exited {
        /// The worker's exit code, if known.
        code: Option<i32>,
    },
    /// The call ran longer than its deadline, and its worker was killed.
    Timeout,
    /// The call needed more memory than a worker may have.
    MemoryLimit,
    /// The arena of the service's engine has no room.
    ArenaFull,
    /// The call was cancelled.
    Cancelled,
    /// The attempts of this call have ended too many workers. The call is not tried again.
    Quarantined,
    /// No worker can be started.
    NoWorkers,
    /// The other end does not answer in time, or sends a packet that this end does not understand.
    Protocol,
    /// A system call failed in this process or in the service, for lack of memory or descriptors.
    System,
    /// Another cause, which the message states.
    Other,
}

impl ServiceError {
    pub(super) fn new(kind: ServiceErrorKind, message: impl Into<String>) -> ServiceError {
        ServiceError {
            kind,
            message: message.into(),
            attempts: 0,
            last_words: Vec::new(),
        }
    }

    pub(super) fn io(what: &str, error: &io::Error) -> ServiceError {
        ServiceError::new(ServiceErrorKind::System, format!("{what}: {error}"))
    }

    /// Returns the cause, for a `match`.
    pub fn kind(&self) -> ServiceErrorKind {
        self.kind
    }

    /// Returns the number of times the call began in a worker. 0 if it never began.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns the last lines that the worker printed before it died, the oldest first.
    pub fn last_words(&self) -> &[String] {
        &self.last_words
    }
}

impl From<sys::Error> for ServiceError {
    fn from(error: sys::Error) -> ServiceError {
        ServiceError::new(ServiceErrorKind::System, error.to_string())
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> ServiceError {
        let kind = match error.kind() {
            StoreErrorKind::BadName => ServiceErrorKind::BadName,
            StoreErrorKind::Denied => ServiceErrorKind::Denied,
            _ => ServiceErrorKind::System,
        };
        ServiceError::new(kind, error.to_string())
    }
}

impl From<Failure> for ServiceError {
    fn from(failure: Failure) -> ServiceError {
        let kind = match failure.error {
            ErrorCode::NoKernel => ServiceErrorKind::NoKernel,
            ErrorCode::BadArgument => ServiceErrorKind::BadArgument,
            ErrorCode::BadRequest => ServiceErrorKind::Protocol,
            ErrorCode::Busy => ServiceErrorKind::Busy,
            ErrorCode::Limit => ServiceErrorKind::System,
            ErrorCode::Returned => ServiceErrorKind::Returned,
            ErrorCode::Panicked => ServiceErrorKind::Panicked,
            ErrorCode::Crashed => ServiceErrorKind::Crashed {
                signal: failure.signal.unwrap_or(0),
            },
            ErrorCode::Exited => ServiceErrorKind::Exited { code: failure.code },
            ErrorCode::Timeout => ServiceErrorKind::Timeout,
            ErrorCode::MemoryLimit => ServiceErrorKind::MemoryLimit,
            ErrorCode::ArenaFull => ServiceErrorKind::ArenaFull,
            ErrorCode::Cancelled => ServiceErrorKind::Cancelled,
            ErrorCode::Quarantined => ServiceErrorKind::Quarantined,
            ErrorCode::NoWorkers => ServiceErrorKind::NoWorkers,
            ErrorCode::Other => ServiceErrorKind::Other,
        };
        ServiceError {
            kind,
            message: failure.message,
            attempts: failure.attempts,
            last_words: failure.last_words,
        }
    }
}

impl From<&JobError> for Failure {
    fn from(error: &JobError) -> Failure {
        let mut failure = Failure::new(ErrorCode::Other, error.to_string());
        let mut kind = error.kind();
        // If a needed job failed, the code is that of its cause. If another job ended the worker, the code is `Other`.
        while let JobErrorKind::Dependency(needed) = kind {
            kind = needed.cause();
        }
        failure.error = match kind {
            JobErrorKind::Panicked { .. } => ErrorCode::Panicked,
            JobErrorKind::Returned(returned) => {
                failure.message = escape_text(&returned.to_string()).to_string();
                ErrorCode::Returned
            }
            JobErrorKind::Lost(WorkerExit::Signal(signal)) => {
                failure.signal = Some(*signal);
                ErrorCode::Crashed
            }
            JobErrorKind::Lost(WorkerExit::Code(code)) => {
                failure.code = *code;
                ErrorCode::Exited
            }
            JobErrorKind::Lost(WorkerExit::OutOfMemoryKill)
            | JobErrorKind::Limit(JobLimit::Memory { .. }) => ErrorCode::MemoryLimit,
            JobErrorKind::Limit(JobLimit::Deadline { .. }) => ErrorCode::Timeout,
            JobErrorKind::Limit(JobLimit::Arena(_) | JobLimit::ArenaShare(_)) => {
                ErrorCode::ArenaFull
            }
            JobErrorKind::Limit(JobLimit::Quarantined { .. }) => ErrorCode::Quarantined,
            JobErrorKind::Cancelled | JobErrorKind::ShutDown => ErrorCode::Cancelled,
            JobErrorKind::NoWorkers(_) => ErrorCode::NoWorkers,
            _ => ErrorCode::Other,
        };
        failure.attempts = error.attempt();
        failure.last_words = error.last_words().to_vec();
        failure
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A worker, or another program, may have chosen the text.
        escape_text(&self.message).fmt(f)
    }
}

// Like `Display`: `unwrap`, and a `main` that returns the error, print the sentence.
impl fmt::Debug for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ServiceError> for arenite::Error {
    fn from(error: ServiceError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl std::error::Error for ServiceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_acts_on_a_terminal() {
        let failure = Failure::new(ErrorCode::Returned, "\u{1b}[2J\u{9b}\u{202e}\n");
        let shown = ServiceError::from(failure).to_string();
        assert_eq!(shown, "\\u{1b}[2J\\u{9b}\\u{202e}\n");
    }
}
