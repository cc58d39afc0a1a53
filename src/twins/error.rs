//! What can go wrong while a twin is measured.

use std::{fmt, io};

use crate::sys::{self, debug_as_text};

/// Why a twin could not be measured.
#[non_exhaustive]
pub enum TwinError {
    /// A system call or a library failed: what was being done, and the answer.
    Io {
        /// What was being done.
        what: String,
        /// The answer of the system.
        source: io::Error,
    },
    /// A twin's process ended, or stopped answering.
    Peer {
        /// Which twin.
        twin: String,
        /// What was seen.
        what: String,
    },
    /// Something this machine lacks; the case can run without this system.
    Missing(String),
    /// A system computed something else than the work asks for.
    WrongResult {
        /// What came.
        got: u64,
        /// What had to come.
        expected: u64,
    },
    /// The engine refused.
    Engine(String),
}

impl TwinError {
    /// Wraps an error of the operating system with what was being done.
    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: source.into(),
        }
    }

    /// Compares a checksum with the one the work must give.
    ///
    /// # Errors
    /// [`TwinError::WrongResult`] where they differ.
    pub fn expect(got: u64, expected: u64) -> Result<(), Self> {
        if got == expected {
            Ok(())
        } else {
            Err(Self::WrongResult { got, expected })
        }
    }
}

impl From<sys::Error> for TwinError {
    fn from(error: sys::Error) -> Self {
        Self::io(format!("call {} for {}", error.call, error.what), error)
    }
}

impl fmt::Display for TwinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, source } => write!(f, "cannot {what}: {source}"),
            Self::Peer { twin, what } => write!(f, "the process of {twin} {what}"),
            Self::Missing(what) => f.write_str(what),
            Self::WrongResult { got, expected } => {
                write!(f, "the work gave {got} where {expected} is right")
            }
            Self::Engine(text) => write!(f, "the engine answered: {text}"),
        }
    }
}

debug_as_text!(TwinError);

impl std::error::Error for TwinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
