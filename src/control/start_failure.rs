//! Why a worker did not start.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::arena::ArenaError;
use crate::sys;

/// Why a worker did not start, as a sentence, and whether the cause may pass without a change of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartFailure {
    pub(crate) why: String,
    /// Whether the start is tried again for as long as the engine lives.
    pub(crate) may_pass: bool,
}

impl StartFailure {
    /// Returns this failure with a text for its place.
    pub(crate) fn context(self, text: &str) -> Self {
        Self {
            why: format!("{text}: {}", self.why),
            ..self
        }
    }
}

impl std::fmt::Display for StartFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<String> for StartFailure {
    fn from(why: String) -> Self {
        Self {
            why,
            may_pass: false,
        }
    }
}

impl From<&str> for StartFailure {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

impl From<sys::Error> for StartFailure {
    fn from(error: sys::Error) -> Self {
        Self {
            why: error.to_string(),
            may_pass: error.may_pass(),
        }
    }
}

impl From<std::io::Error> for StartFailure {
    fn from(error: std::io::Error) -> Self {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        Self {
            why: error.to_string(),
            may_pass: sys::Error::new("", errno, "").may_pass(),
        }
    }
}

impl From<Errno> for StartFailure {
    fn from(errno: Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

impl From<ArenaError> for StartFailure {
    fn from(error: ArenaError) -> Self {
        match error {
            ArenaError::System(error) => error.into(),
            error => error.to_string().into(),
        }
    }
}
