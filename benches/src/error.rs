//! The reasons why a system of a case could not be measured.

use std::{fmt, io};

/// The reason why a system could not be measured.
#[non_exhaustive]
pub enum BenchError {
    /// A system call or a library failed.
    Io {
        /// The action that failed.
        what: String,
        /// The error of the call.
        source: io::Error,
    },
    /// A baseline's process ended or stopped answering.
    Peer {
        /// Id of the system.
        system: String,
        /// What was observed, as the end of a sentence.
        what: String,
    },
    /// This machine lacks something that the system needs. The case runs without the system.
    Missing(String),
    /// A system computed a wrong result.
    WrongResult {
        /// The result, or its checksum.
        got: u64,
        /// The right result.
        expected: u64,
    },
    /// An error of the engine, as text.
    Engine(String),
}

impl BenchError {
    /// Adds the action that failed to an error of the operating system.
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: source.into(),
        }
    }

    /// Compares a result or checksum with the right one.
    ///
    /// # Errors
    /// [`BenchError::WrongResult`] if they differ.
    pub fn expect(got: u64, expected: u64) -> Result<(), Self> {
        if got == expected {
            Ok(())
        } else {
            Err(Self::WrongResult { got, expected })
        }
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, source } => write!(f, "cannot {what}: {source}"),
            Self::Peer { system, what } => write!(f, "the process of {system} {what}"),
            Self::Missing(what) => f.write_str(what),
            Self::WrongResult { got, expected } => {
                write!(f, "the work gave {got} where {expected} is right")
            }
            Self::Engine(text) => write!(f, "the engine answered: {text}"),
        }
    }
}

// `fn main() -> Result<(), BenchError>` and `unwrap` print `Debug`, where a sentence is more useful than field names.
impl fmt::Debug for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for BenchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
