//! The error type of this layer.

use std::fmt;
use std::path::Path;

use nix::errno::Errno;

use super::inject::{interruptible, undisturbed};

/// Makes `{:?}` print the same as `{}`, because `unwrap` and a `main` that returns the error print `{:?}`.
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

/// The result of every wrapper in this layer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed system call: its name, its object, and its errno.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    /// The name of the system call, as in the manual pages.
    pub(crate) call: &'static str,
    /// The reason.
    pub(crate) errno: Errno,
    /// What the call was applied to: a name, a size or a range.
    pub(crate) what: String,
}

impl Error {
    /// Creates the error for a failure of `call` on `what`.
    pub(crate) fn new(call: &'static str, errno: Errno, what: impl Into<String>) -> Error {
        Error {
            call,
            errno,
            what: what.into(),
        }
    }

    /// Creates the error for a failure with this thread's `errno`.
    pub(crate) fn last(call: &'static str, what: impl Into<String>) -> Error {
        Error::new(call, Errno::last(), what)
    }

    /// The reason.
    pub(crate) fn errno(&self) -> Errno {
        self.errno
    }

    /// Returns true if the same call may succeed later without a change of the program: something is short or busy at
    /// this moment. Starting a process is also refused with `EPERM` while its control group is busy.
    pub(crate) fn may_pass(&self) -> bool {
        use Errno::{
            EAGAIN, EBUSY, EDQUOT, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EPERM, ETXTBSY,
        };
        match self.errno {
            EAGAIN | EBUSY | EDQUOT | EMFILE | ENFILE | ENOBUFS | ENOMEM | ENOSPC | ETXTBSY => true,
            EPERM => starts_process(self.call),
            _ => false,
        }
    }

    /// Returns the reason as a number (`EMFILE`, `ENOMEM`, …), like [`std::io::Error::raw_os_error`].
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
            advice(self.call, &self.what, self.errno)
        )
    }
}

fn starts_process(call: &str) -> bool {
    matches!(call, "posix_spawn" | "clone")
}

/// Returns what the user can do if a limit was reached.
fn advice(call: &str, what: &str, errno: Errno) -> &'static str {
    let process = starts_process(call);
    match errno {
        Errno::ENOENT if what.starts_with("/proc/") && !Path::new("/proc/self").exists() => {
            "; /proc is not mounted: mount it (`mount -t proc proc /proc`)"
        }
        Errno::EMFILE => "; raise the limit on open files (RLIMIT_NOFILE, `ulimit -n`)",
        Errno::ENFILE => "; the system has too many files open (fs.file-max)",
        Errno::EAGAIN if process => {
            "; raise the limit on processes (RLIMIT_NPROC, `ulimit -u`, or the container's), or on memory \
             (RLIMIT_AS, RLIMIT_DATA)"
        }
        Errno::EAGAIN if call == "mmap" => {
            "; the program has locked its memory (mlockall), which counts for reserved addresses too: raise the limit \
             on locked memory (RLIMIT_MEMLOCK, `ulimit -l`), or call mlockall without MCL_FUTURE"
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

/// Calls `call` until it returns something other than `EINTR`.
pub(crate) fn retry<T>(call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    retry_where(interruptible, call)
}

/// Like [`retry`], for a call whose other errors have a meaning for its caller: tests inject only `EINTR`.
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
