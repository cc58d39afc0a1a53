//! What a process that aborts leaves behind about its memory.
//!
//! A Rust program whose allocation fails aborts, and so does many a C library; to whoever looks from outside that is a
//! SIGABRT like any other. The aborting thread itself still knows better: its `errno` says what failed last, and the
//! kernel says how much of `RLIMIT_DATA` is used.

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::error::{Error, Result};
use super::fork::Original;
use super::inject::allowed;

/// A place for the last note of a process, in memory that outlives it.
///
/// Writer: the process, once, from its signal handler. Reader: whoever is left, after the exit is confirmed.
#[derive(Debug)]
#[repr(C)]
pub struct AbortNote {
    /// Not 0: the process has aborted by its own doing.
    told: AtomicU32,
    /// `errno` of the thread that did.
    errno: AtomicU32,
    /// Bytes of private writable memory, as `RLIMIT_DATA` counts them; 0: could not be read.
    data: AtomicU64,
}

/// What a note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// The last thing that failed in the aborting thread failed for want of memory.
    pub no_memory: bool,
    /// Private writable memory at that moment in bytes, if it could be told.
    pub data: Option<u64>,
}

impl AbortNote {
    /// An empty note.
    #[cfg(any(test, arenite_loom))]
    pub(crate) fn new() -> AbortNote {
        AbortNote {
            told: AtomicU32::new(0),
            errno: AtomicU32::new(0),
            data: AtomicU64::new(0),
        }
    }

    /// Empties it, for the next process that writes here.
    pub fn clear(&self) {
        self.told.store(0, Ordering::Relaxed);
    }

    /// What it says, if its process aborted by its own doing.
    pub fn read(&self) -> Option<Aborted> {
        // Acquire: "note written", pairs with `write`.
        if self.told.load(Ordering::Acquire) == 0 {
            return None;
        }
        let data = self.data.load(Ordering::Relaxed);
        Some(Aborted {
            no_memory: self.errno.load(Ordering::Relaxed) == libc::ENOMEM as u32,
            data: (data > 0).then_some(data),
        })
    }

    pub(crate) fn write(&self, errno: i32, data: u64) {
        self.errno.store(errno.cast_unsigned(), Ordering::Relaxed);
        self.data.store(data, Ordering::Relaxed);
        // Release: "note written", pairs with `read`.
        self.told.store(1, Ordering::Release);
    }
}

/// Where this process writes its note.
static NOTE: AtomicPtr<AbortNote> = AtomicPtr::new(std::ptr::null_mut());

/// There is no note any more.
pub(super) fn forget_note() {
    NOTE.store(std::ptr::null_mut(), Ordering::Relaxed);
}

/// From now on this process notes in `note` what it knows when it aborts. A SIGABRT from outside ends it without a note.
pub fn note_aborts(note: &'static AbortNote) -> Result<()> {
    // A copy of this process forgets the note.
    let _ = Original::here();
    // Release: "note mapped", pairs with the handler.
    NOTE.store(std::ptr::from_ref(note).cast_mut(), Ordering::Release);
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER;
    let action = SigAction::new(SigHandler::SigAction(on_abort), flags, SigSet::empty());
    allowed()
        // SAFETY: the handler makes system calls and stores to atomics only, so it may interrupt anything.
        .and_then(|()| unsafe { sigaction(Signal::SIGABRT, &action) })
        .map(drop)
        .map_err(|errno| Error::new("sigaction", errno, "SIGABRT"))
}

/// Forgets what failed in this thread before, so that a note speaks of what comes now.
pub fn forget_failures() {
    Errno::clear();
}

extern "C" fn on_abort(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // Acquire: "note mapped", pairs with `note_aborts`.
    let note = NOTE.load(Ordering::Acquire);
    // SAFETY: the kernel hands a valid siginfo to a handler installed with SA_SIGINFO; a signal that a thread sent carries
    // its process number. The note is null or lives as long as the process. `raise` may be called in a handler.
    unsafe {
        let own = (*info).si_code == libc::SI_TKILL && (*info).si_pid() == libc::getpid();
        if own {
            super::fault::note_end();
        }
        if own && !note.is_null() {
            (*note).write(errno, private_writable().unwrap_or(0));
        }
        // The handler was reset when it was entered: this ends the process.
        libc::raise(libc::SIGABRT);
    }
}

/// `VmData` of this process in bytes, without allocating.
fn private_writable() -> Option<u64> {
    let mut text = [0_u8; 2048];
    // SAFETY: the path is a C string; read writes at most `text.len()` bytes there; the descriptor is our own.
    let len = unsafe {
        let fd = libc::open(
            c"/proc/self/status".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        );
        if fd < 0 {
            return None;
        }
        let len = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        usize::try_from(len).ok()?
    };
    kib_after(&text[..len], b"VmData:")?.checked_mul(1024)
}

/// The number behind `name` in lines of "name number unit".
fn kib_after(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(name))?;
    let digits = line.iter().skip_while(|byte| !byte.is_ascii_digit());
    digits
        .take_while(|byte| byte.is_ascii_digit())
        .try_fold(0_u64, |sum, digit| {
            sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_empty_until_it_is_written_and_after_it_is_cleared() {
        let note = AbortNote::new();
        assert_eq!(note.read(), None);
        note.write(libc::ENOMEM, 4096);
        let said = Aborted {
            no_memory: true,
            data: Some(4096),
        };
        assert_eq!(note.read(), Some(said));
        note.write(libc::EAGAIN, 0);
        let said = Aborted {
            no_memory: false,
            data: None,
        };
        assert_eq!(note.read(), Some(said));
        note.clear();
        assert_eq!(note.read(), None);
    }

    #[test]
    fn private_memory_is_read_as_the_limit_counts_it() {
        let more = std::hint::black_box(vec![1_u8; 64 << 20]);
        let all = private_writable().unwrap();
        assert!(all >= more.len() as u64, "{all}");
        assert_eq!(
            kib_after(b"VmPeak:\t 1 kB\nVmData:\t  132 kB\n", b"VmData:"),
            Some(132)
        );
        assert_eq!(kib_after(b"VmPeak:\t 1 kB\n", b"VmData:"), None);
    }
}
