//! A note that an aborting process leaves about its memory.
//!
//! A Rust program aborts when an allocation fails, and so do many C libraries. From outside, this SIGABRT looks like
//! any other. The aborting thread has more information: `errno` has the reason of its last failure, and Linux reports
//! how much of `RLIMIT_DATA` is used.

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;

use super::fork::OwnerProcess;

/// The last note of a process, in memory that outlives it.
///
/// Writer: the process, once, from its signal handler. Reader: the supervisor, after the exit is confirmed.
#[derive(Debug)]
#[repr(C)]
pub struct AbortNote {
    /// Nonzero once the note is written, which means that the process aborted on its own.
    is_written: AtomicU32,
    /// `errno` of the aborting thread.
    errno: AtomicU32,
    /// Private writable memory in bytes, as `RLIMIT_DATA` counts it; 0 if it could not be read.
    data: AtomicU64,
}

/// Content of an [`AbortNote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Whether the aborting thread's last failure was a lack of memory.
    pub no_memory: bool,
    /// Private writable memory at that moment in bytes, if known.
    pub data: Option<u64>,
}

impl AbortNote {
    /// An empty note.
    #[cfg(any(test, arenite_loom))]
    pub(crate) fn new() -> AbortNote {
        AbortNote {
            is_written: AtomicU32::new(0),
            errno: AtomicU32::new(0),
            data: AtomicU64::new(0),
        }
    }

    /// Empties the note, for the next process that may write it.
    pub fn clear(&self) {
        self.is_written.store(0, Ordering::Relaxed);
    }

    /// Returns the content of the note, if the process aborted on its own.
    pub fn read(&self) -> Option<Aborted> {
        // Acquire: "note written", pairs with `write`.
        if self.is_written.load(Ordering::Acquire) == 0 {
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
        self.is_written.store(1, Ordering::Release);
    }
}

/// The note of this process.
static NOTE: AtomicPtr<AbortNote> = AtomicPtr::new(std::ptr::null_mut());

/// Called in a forked copy, where the note is not mapped: drops the reference to the note.
pub(super) fn forget_note() {
    NOTE.store(std::ptr::null_mut(), Ordering::Relaxed);
}

/// Makes this process fill `note` when it aborts, from the handler that [`crash`](super::crash) installs. A SIGABRT
/// from outside leaves no note.
pub fn note_aborts(note: &'static AbortNote) {
    // Registers the fork handler that calls `forget_note` in copies of this process.
    let _ = OwnerProcess::current();
    // Release: "note mapped", pairs with `note_abort`.
    NOTE.store(std::ptr::from_ref(note).cast_mut(), Ordering::Release);
}

/// Clears this thread's `errno`, so that a later note reports only failures after this call.
pub fn clear_errno() {
    Errno::clear();
}

/// Fills the note, if the process has one. Called in the signal handler of a thread that has aborted, with the thread's
/// `errno`.
pub(super) fn note_abort(errno: i32) {
    // Acquire: "note mapped", pairs with `note_aborts`.
    let note = NOTE.load(Ordering::Acquire);
    // SAFETY: null, or the address of a note that lives as long as the process.
    if let Some(note) = unsafe { note.as_ref() } {
        note.write(errno, private_writable().unwrap_or(0));
    }
}

/// Returns `VmData` of this process in bytes, without allocating. Not inlined, because its buffer would otherwise
/// enlarge the handler's stack frame for every crash.
#[inline(never)]
fn private_writable() -> Option<u64> {
    let mut text = [0_u8; 2048];
    // SAFETY: the path is a C string; read writes at most `text.len()` bytes there; the descriptor was opened here.
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

/// Returns the number after `name` in a text with lines of the form "name number unit".
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
    fn a_note_is_empty_before_it_is_written_and_after_it_is_cleared() {
        let note = AbortNote::new();
        assert_eq!(note.read(), None);
        note.write(libc::ENOMEM, 4096);
        let expected = Aborted {
            no_memory: true,
            data: Some(4096),
        };
        assert_eq!(note.read(), Some(expected));
        note.write(libc::EAGAIN, 0);
        let expected = Aborted {
            no_memory: false,
            data: None,
        };
        assert_eq!(note.read(), Some(expected));
        note.clear();
        assert_eq!(note.read(), None);
    }

    #[test]
    fn private_memory_is_measured_as_rlimit_data_counts_it() {
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
