//! The one error type of this floor.

use std::fmt;

use nix::errno::Errno;

use super::inject::{interruptible, undisturbed};

/// Has `{:?}` say of an error what `{}` says: it is what `unwrap` shows, and a `main` that returns the error.
macro_rules! debug_as_text {
    ($($error:ty),+ $(,)?) => {
        $(impl ::std::fmt::Debug for $error {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self, f)
            }
        })+
    };
}

pub(crate) use debug_as_text;

/// What every wrapper in this floor answers with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A system call that failed: which one, about what, and the kernel's reason.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    /// The system call, as its manual page is called.
    pub(crate) call: &'static str,
    /// The kernel's reason.
    pub(crate) errno: Errno,
    /// What the call was about: a name, a size, a range.
    pub(crate) what: String,
}

impl Error {
    /// An error of `call` about `what`.
    pub(crate) fn new(call: &'static str, errno: Errno, what: impl Into<String>) -> Error {
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
    pub(crate) fn errno(&self) -> Errno {
        self.errno
    }

    /// The kernel's reason as a number (`EMFILE`, `ENOMEM`, …), as [`std::io::Error::raw_os_error`] gives it.
    pub fn raw_os_error(&self) -> i32 {
        self.errno as i32
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} failed: {} ({:?}){}",
            self.call,
            self.what,
            self.errno.desc(),
            self.errno,
            advice(self.call, self.errno)
        )
    }
}

/// What to do about it, where a limit is what was reached.
fn advice(call: &str, errno: Errno) -> &'static str {
    let process = matches!(call, "posix_spawn" | "clone");
    match errno {
        Errno::EMFILE => "; raise the limit on open files (RLIMIT_NOFILE, `ulimit -n`)",
        Errno::ENFILE => "; the system has too many files open (fs.file-max)",
        Errno::EAGAIN if process => {
            "; raise the limit on processes (RLIMIT_NPROC, `ulimit -u`, or the container's), or on memory \
             (RLIMIT_AS, RLIMIT_DATA)"
        }
        Errno::ENOMEM if process || call == "mmap" || call == "mprotect" => {
            "; raise the limit on addresses (RLIMIT_AS, `ulimit -v`), on data (RLIMIT_DATA, `ulimit -d`), or on maps \
             (vm.max_map_count)"
        }
        Errno::EFBIG => {
            "; raise the limit on file sizes (RLIMIT_FSIZE, `ulimit -f`), which counts for shared memory too"
        }
        _ => "",
    }
}

impl std::error::Error for Error {}

debug_as_text!(Error);

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        std::io::Error::from_raw_os_error(error.raw_os_error())
    }
}

/// Calls `call` until it answers with something other than `EINTR`.
pub(crate) fn retry<T>(call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    retry_where(interruptible, call)
}

/// The same, of a call whose other errors say something: a test that made one up would take away what the system never does.
pub(crate) fn retry_undisturbed<T>(call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    retry_where(undisturbed, call)
}

fn retry_where<T>(
    allowed: fn() -> nix::Result<()>,
    mut call: impl FnMut() -> nix::Result<T>,
) -> nix::Result<T> {
    loop {
        match allowed().and_then(|()| call()) {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}
