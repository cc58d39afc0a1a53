//! The error of system calls.

use std::fmt;

use arenite::engine::SystemError;
use rustix::io::Errno;

/// A system call that failed. Displays as a sentence that says what to do.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    errno: Errno,
    message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Creates the error of the system call `call`, which failed on `what`.
    pub(crate) fn new(call: &str, errno: Errno, what: &str) -> Error {
        let advice = match errno {
            Errno::MFILE => "; raise the limit on open files (RLIMIT_NOFILE, `ulimit -n`)",
            Errno::NFILE => "; the system has too many files open (fs.file-max)",
            Errno::FBIG => {
                "; raise the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`), which counts for shared memory too"
            }
            _ => "",
        };
        Error {
            errno,
            message: format!("{call} of {what} failed: {errno}{advice}"),
        }
    }

    /// Returns the reason.
    pub(crate) fn errno(&self) -> Errno {
        self.errno
    }
}

impl From<SystemError> for Error {
    fn from(error: SystemError) -> Error {
        Error {
            errno: Errno::from_raw_os_error(error.raw_os_error()),
            message: error.to_string(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
