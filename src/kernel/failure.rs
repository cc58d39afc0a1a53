//! Why a kernel produced no value: [`Failure`].

use super::error::Returned;
use std::fmt;

use super::host::Unreachable;
use super::reply::AnyValue;
use super::wire::Malformed;
use crate::arena::ArenaFull;

/// Why a kernel produced no value, other than by panicking.
#[derive(Debug)]
pub enum Failure {
    /// A job that the kernel spawned failed. Used only if spawned jobs run inline, on the caller's thread.
    Spawned(SpawnedFailed),
    /// An argument is the value of a job that has none. Used only inline. Its type is known to the engine.
    NoInput(AnyValue),
    /// The arguments could not be accepted in this process.
    Rejected(BadArgument),
    /// The kernel returned `Err`.
    Returned(Returned),
    /// The arena had no room for the result.
    Full(ArenaFull),
    /// The job, a chain or a subtree, was cancelled between two of its nodes.
    Cancelled,
}

/// The error of a spawned job that ran inline. Its type is known to the code that created it, in the engine.
#[derive(Debug)]
pub struct SpawnedFailed(pub(crate) AnyValue);

/// Why a worker cannot accept the arguments of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadArgument {
    /// The words do not match the parameter.
    Malformed,
    /// The argument refers to memory that this process cannot reach.
    Unreachable(String),
    /// The system does not let the worker open a file of the program. This is no defect of the program or the worker.
    NoFile(String),
}

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("their words do not fit the parameters"),
            Self::Unreachable(why) | Self::NoFile(why) => f.write_str(why),
        }
    }
}

impl From<Malformed> for BadArgument {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Unreachable> for BadArgument {
    fn from(unreachable: Unreachable) -> Self {
        Self::Unreachable(unreachable.0)
    }
}

impl From<BadArgument> for Failure {
    fn from(why: BadArgument) -> Self {
        Self::Rejected(why)
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Rejected(malformed.into())
    }
}

impl From<ArenaFull> for Failure {
    fn from(full: ArenaFull) -> Self {
        Self::Full(full)
    }
}
