//! The one error type of this floor.

use std::fmt;

use nix::errno::Errno;

/// What every wrapper in this floor answers with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A system call that failed: which one, about what, and the kernel's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The system call, as its manual page is called.
    pub call: &'static str,
    /// The kernel's reason.
    pub errno: Errno,
    /// What the call was about: a name, a size, a range.
    pub what: String,
}

impl Error {
    /// An error of `call` about `what`.
    pub fn new(call: &'static str, errno: Errno, what: impl Into<String>) -> Error {
        Error {
            call,
            errno,
            what: what.into(),
        }
    }

    /// The error that `errno` holds right now.
    pub(crate) fn last(call: &'static str, what: impl Into<String>) -> Error {
        Error::new(call, Errno::last(), what)
    }

    /// The kernel's reason.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} failed: {} ({:?})",
            self.call,
            self.what,
            self.errno.desc(),
            self.errno
        )
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        std::io::Error::from_raw_os_error(error.errno as i32)
    }
}

/// Calls `call` until it answers with something other than `EINTR`.
pub(crate) fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}
