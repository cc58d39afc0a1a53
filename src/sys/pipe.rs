//! Pipes for the stdout and stderr of workers.

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::error::{Error, Result, retry};
use super::inject::allowed;

/// A pipe with a non-blocking read end; both ends are close-on-exec and numbered above 2.
#[derive(Debug)]
pub struct OutputPipe {
    /// The read end, which stays in the supervisor.
    pub read: OwnedFd,
    /// The write end, which a worker inherits.
    pub write: OwnedFd,
}

/// Result of [`read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This number of bytes was read.
    Bytes(usize),
    /// There is nothing to read now.
    Nothing,
    /// Every write end is closed.
    End,
}

impl OutputPipe {
    /// Creates a pipe.
    pub fn new() -> Result<OutputPipe> {
        let failed = |errno| Error::new("pipe2", errno, "a pipe for the output of a worker");
        let made = allowed().and_then(|()| nix::unistd::pipe2(OFlag::O_CLOEXEC));
        let (read, write) = made.map_err(failed)?;
        let (read, write) = (above_standard(read)?, above_standard(write)?);
        allowed()
            .and_then(|()| fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)))
            .map_err(failed)?;
        Ok(OutputPipe { read, write })
    }

    /// Closes the write end and returns the read end.
    pub fn into_read(self) -> OwnedFd {
        self.read
    }
}

/// Opens an existing file for writing, without waiting; the file must not be a regular file. Fails with `ENXIO` if the
/// file is a named pipe that no process has open for reading. Later writes block as usual.
pub fn open_to_write(path: &Path) -> Result<File> {
    let what = || path.display().to_string();
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let file = retry(|| nix::fcntl::open(path, flags, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, what()))?;
    // This affects no other process, since the description was opened here.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))
        .map_err(|errno| Error::new("fcntl(F_SETFL)", errno, what()))?;
    Ok(file.into())
}

/// Opens `/dev/null`, for [`open_closed_standard`] and for the stdin of children.
pub fn open_null() -> Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let fd = retry(|| nix::fcntl::open("/dev/null", flags, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, "/dev/null"))?;
    above_standard(fd)
}

/// Duplicates `null`, from [`open_null`], in place of each descriptor from 0 to 2 that is closed. Otherwise the next
/// descriptors opened would get these numbers, and printing would write into shared memory, or into the pipe whose
/// closing kills workers.
pub fn open_closed_standard(null: &OwnedFd) -> Result<()> {
    loop {
        // Returns the lowest free number.
        match allowed().and_then(|()| fcntl(null, FcntlArg::F_DUPFD(0)).map_err(none_free)) {
            Ok(0..=2) => {}
            Ok(number) => {
                // SAFETY: Linux has just made this descriptor for this process, and no other code knows its number.
                drop(unsafe { OwnedFd::from_raw_fd(number) });
                return Ok(());
            }
            // No number is free.
            Err(Errno::EMFILE) => return Ok(()),
            Err(errno) => return Err(Error::new("fcntl(F_DUPFD)", errno, "/dev/null")),
        }
    }
}

/// Moves a descriptor to a number above 2: the program may close its standard descriptors at any time.
pub fn above_standard(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    duplicate(fd.as_fd())
}

/// Returns a new descriptor of the same description, close-on-exec and numbered above 2.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let number = allowed()
        .and_then(|()| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3)).map_err(none_free))
        .map_err(|errno| Error::new("fcntl(F_DUPFD_CLOEXEC)", errno, "an end of a pipe"))?;
    // SAFETY: Linux has just made this descriptor for this process, and no other code knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Turns the error of a copy whose least number is at or above the limit on open files into that for no free number.
fn none_free(errno: Errno) -> Errno {
    match errno {
        Errno::EINVAL => Errno::EMFILE,
        errno => errno,
    }
}

/// Duplicates this process's stdout (1) or stderr (2).
pub fn duplicate_standard(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: borrowed during this call only. If the number is not open, `fcntl` fails.
    duplicate(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Reads the available bytes, without waiting.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Found> {
    match retry(|| nix::unistd::read(fd, buffer)) {
        Ok(0) => Ok(Found::End),
        Ok(bytes) => Ok(Found::Bytes(bytes)),
        Err(Errno::EAGAIN) => Ok(Found::Nothing),
        Err(errno) => Err(Error::new("read", errno, "the output of a worker")),
    }
}

/// Writes all of `bytes`. Waits until the pipe has room, even if another process has made the description non-blocking.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    let failed = |errno| Error::new("write", errno, "the output of this worker");
    while !bytes.is_empty() {
        match retry(|| nix::unistd::write(fd, bytes)) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EAGAIN) => {
                let mut room = [PollFd::new(fd, PollFlags::POLLOUT)];
                retry(|| poll(&mut room, PollTimeout::NONE)).map_err(failed)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

/// Makes Linux send SIGURG to the thread `writer` on every write to this pipe. If `writer` itself writes, the signal
/// arrives before its `write` returns. [`watch_own_output`] handles the signal.
pub fn signal_writer(read: BorrowedFd<'_>, writer: Pid) -> Result<()> {
    /// From Linux' include/uapi/asm-generic/fcntl.h; libc defines them for some targets only.
    const F_SETSIG: c_int = 10;
    const F_SETOWN_EX: c_int = 15;
    const F_OWNER_TID: c_int = 0;
    #[repr(C)]
    struct Owner {
        kind: c_int,
        pid: c_int,
    }
    let owner = Owner {
        kind: F_OWNER_TID,
        pid: writer.as_raw(),
    };
    let failed = |call, errno| {
        let what = format!("a pipe that process {writer} writes to");
        Error::new(call, errno, what)
    };
    allowed()
        // SAFETY: `F_SETOWN_EX` reads a structure of two ints, which outlives the call.
        .map(|()| unsafe { libc::fcntl(read.as_raw_fd(), F_SETOWN_EX, &raw const owner) })
        .and_then(Errno::result)
        .map_err(|errno| failed("fcntl(F_SETOWN_EX)", errno))?;
    allowed()
        // SAFETY: `F_SETSIG` takes a number.
        .map(|()| unsafe { libc::fcntl(read.as_raw_fd(), F_SETSIG, libc::SIGURG) })
        .and_then(Errno::result)
        .map_err(|errno| failed("fcntl(F_SETSIG)", errno))?;
    let flags = OFlag::O_NONBLOCK | OFlag::O_ASYNC;
    allowed()
        .and_then(|()| fcntl(read, FcntlArg::F_SETFL(flags)))
        .map(drop)
        .map_err(|errno| Error::new("fcntl(O_ASYNC)", errno, "the output of a worker"))
}

/// Whether stdout or stderr was written to since the last [`clear_output_written`].
static WRITTEN: AtomicBool = AtomicBool::new(false);

extern "C" fn on_output(_signal: c_int) {
    // Relaxed: read by the thread that this handler interrupts.
    WRITTEN.store(true, Ordering::Relaxed);
}

/// Makes [`output_was_written`] return true after this process or a child of it has written to a pipe for which
/// [`signal_writer`] was called with the calling thread.
///
/// Uses SIGURG, whose default action is to do nothing. Interrupted system calls are restarted.
pub fn watch_own_output() -> Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(on_output),
        SaFlags::SA_RESTART | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    allowed()
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        .and_then(|()| unsafe { sigaction(Signal::SIGURG, &action) })
        .map(drop)
        .map_err(|errno| Error::new("sigaction", errno, "SIGURG"))
}

/// Returns whether output was written since the last [`clear_output_written`]; see [`watch_own_output`].
#[inline]
pub fn output_was_written() -> bool {
    WRITTEN.load(Ordering::Relaxed)
}

/// Makes [`output_was_written`] return false until output is written again.
pub fn clear_output_written() {
    WRITTEN.store(false, Ordering::Relaxed);
}

// Streams of the C library, which `libc` does not declare.
unsafe extern "C" {
    static stdout: *mut libc::FILE;
    fn ftrylockfile(stream: *mut libc::FILE) -> c_int;
    fn funlockfile(stream: *mut libc::FILE);
    fn fflush_unlocked(stream: *mut libc::FILE) -> c_int;
}

/// Makes the C library buffer stdout by line, as on a terminal: text in a larger buffer would be lost when the process
/// is killed.
pub fn print_line_by_line() {
    // SAFETY: this is the C library's own stream, for which it allocates the buffer. Called at the start of the
    // process, before anything is printed.
    let _ = unsafe { libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOLBF, 0) };
}

/// Flushes the C library's stdout, unless another thread has it locked.
pub fn flush_c_stdout() {
    // SAFETY: the stream is the C library's own, and it is used and unlocked only if this thread has locked it.
    unsafe {
        if ftrylockfile(stdout) == 0 {
            fflush_unlocked(stdout);
            funlockfile(stdout);
        }
    }
}

/// Flushes the C library's streams. Blocks while another thread has a stream locked.
pub fn flush_c_streams() {
    // SAFETY: null stands for all streams; the C library locks each of them.
    let _ = unsafe { libc::fflush(std::ptr::null_mut()) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_until_all_writers_are_closed() {
        let OutputPipe { read: from, write } = OutputPipe::new().unwrap();
        let mut buffer = [0; 16];
        assert_eq!(read(from.as_fd(), &mut buffer).unwrap(), Found::Nothing);
        write_all(write.as_fd(), b"abc").unwrap();
        assert_eq!(read(from.as_fd(), &mut buffer).unwrap(), Found::Bytes(3));
        assert_eq!(&buffer[..3], b"abc");
        let other = duplicate(write.as_fd()).unwrap();
        drop(write);
        assert_eq!(read(from.as_fd(), &mut buffer).unwrap(), Found::Nothing);
        drop(other);
        assert_eq!(read(from.as_fd(), &mut buffer).unwrap(), Found::End);
    }

    #[test]
    fn write_all_waits_for_a_full_non_blocking_pipe() {
        let OutputPipe { read: from, write } = OutputPipe::new().unwrap();
        fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let reader = std::thread::spawn(move || {
            let (mut buffer, mut sum) = ([0; 5000], 0);
            loop {
                match read(from.as_fd(), &mut buffer).unwrap() {
                    Found::Bytes(bytes) => sum += bytes,
                    Found::Nothing => std::thread::yield_now(),
                    Found::End => return sum,
                }
            }
        });
        write_all(write.as_fd(), &[7; 1 << 20]).unwrap();
        drop(write);
        assert_eq!(reader.join().unwrap(), 1 << 20);
    }

    #[test]
    fn a_writer_is_signalled_before_its_write_returns() {
        let OutputPipe { read: from, write } = OutputPipe::new().unwrap();
        watch_own_output().unwrap();
        signal_writer(from.as_fd(), nix::unistd::gettid()).unwrap();
        for _ in 0..100 {
            clear_output_written();
            assert!(!output_was_written());
            write_all(write.as_fd(), b"x").unwrap();
            assert!(output_was_written());
        }
    }
}
