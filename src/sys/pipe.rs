//! Pipes for what a child writes to stdout and stderr.

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
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

/// A pipe of which the reading end does not block, both ends close-on-exec and above the standard three.
#[derive(Debug)]
pub struct OutputPipe {
    /// To keep.
    pub read: OwnedFd,
    /// To hand to a child.
    pub write: OwnedFd,
}

/// What a look at a pipe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nobody can write any more.
    End,
}

impl OutputPipe {
    /// A new one.
    pub fn new() -> Result<OutputPipe> {
        let failed = |errno| Error::new("pipe2", errno, "for the output of a worker");
        let made = allowed().and_then(|()| nix::unistd::pipe2(OFlag::O_CLOEXEC));
        let (read, write) = made.map_err(failed)?;
        let (read, write) = (above_standard(read)?, above_standard(write)?);
        allowed()
            .and_then(|()| fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)))
            .map_err(failed)?;
        Ok(OutputPipe { read, write })
    }

    /// The end to keep; the other one is closed.
    pub fn into_read(self) -> OwnedFd {
        self.read
    }
}

/// What is there and is no file, opened to be written into: it waits for nobody, so a named pipe that nobody has opened for
/// reading is an error (`ENXIO`). What is written later waits for the reader as usual.
pub fn open_to_write(path: &Path) -> Result<File> {
    let what = || path.display().to_string();
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let file = retry(|| nix::fcntl::open(path, flags, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, what()))?;
    // A description of its own: nobody else has these flags.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))
        .map_err(|errno| Error::new("fcntl(F_SETFL)", errno, what()))?;
    Ok(file.into())
}

/// A file that is empty, to hand to a child as its stdin.
pub fn nothing() -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let fd = retry(|| nix::fcntl::open("/dev/null", flags, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, "/dev/null"))?;
    above_standard(fd)
}

/// Opens each of the standard three that this program has closed: as a file that is empty and takes everything. Otherwise the next
/// descriptors get their numbers, and whoever prints writes into shared memory, or into a pipe that ends workers.
pub fn hold_standard() -> Result<()> {
    loop {
        let fd = retry(|| nix::fcntl::open("/dev/null", OFlag::O_RDWR, Mode::empty()))
            .map_err(|errno| Error::new("open", errno, "/dev/null"))?;
        // The lowest number that is free.
        if fd.as_raw_fd() > 2 {
            return Ok(());
        }
        let _: RawFd = fd.into_raw_fd();
    }
}

/// The same description under a number above 2: a program may close its standard descriptors at any time.
fn above_standard(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    copy(fd.as_fd())
}

/// Another descriptor of the same description, close-on-exec and above the standard three.
pub fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let number = allowed()
        .and_then(|()| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3)))
        .map_err(|errno| Error::new("fcntl(F_DUPFD_CLOEXEC)", errno, "an end of a pipe"))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A copy of this process's stdout (1) or stderr (2).
pub fn copy_standard(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: borrowed for the length of this call; a number that is not open is an error of it.
    copy(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Reads what is there.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Found> {
    match retry(|| nix::unistd::read(fd, buffer)) {
        Ok(0) => Ok(Found::End),
        Ok(bytes) => Ok(Found::Bytes(bytes)),
        Err(Errno::EAGAIN) => Ok(Found::Nothing),
        Err(errno) => Err(Error::new("read", errno, "the output of a worker")),
    }
}

/// Writes all of `bytes`; waits where there is no room, also if somebody has made the description
/// non-blocking.
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

/// Whatever is written to the other end of this pipe, the kernel tells the thread `writer` of it at once,
/// with the signal that [`hear_own_output`] hears: for a writer, before `write` returns.
pub fn announce_to(read: BorrowedFd<'_>, writer: Pid) -> Result<()> {
    /// From the kernel's include/uapi/asm-generic/fcntl.h; libc names them for some targets only.
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
        // SAFETY: `F_SETOWN_EX` reads a structure of two ints, which lives through the call.
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

/// Something was written to stdout or stderr since this was last cleared.
static WRITTEN: AtomicBool = AtomicBool::new(false);

extern "C" fn heard(_signal: c_int) {
    // Relaxed: for the thread that is interrupted here.
    WRITTEN.store(true, Ordering::Relaxed);
}

/// From now on [`output_was_written`] is true after this process, or a child of it, has written to a pipe
/// that is announced to the calling thread.
///
/// By SIGURG, which does nothing where nobody listens. System calls that it interrupts are taken up again.
pub fn hear_own_output() -> Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(heard),
        SaFlags::SA_RESTART | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    allowed()
        // SAFETY: the handler stores into an atomic, which is allowed at any moment.
        .and_then(|()| unsafe { sigaction(Signal::SIGURG, &action) })
        .map(drop)
        .map_err(|errno| Error::new("sigaction", errno, "SIGURG"))
}

/// See [`hear_own_output`].
#[inline]
pub fn output_was_written() -> bool {
    WRITTEN.load(Ordering::Relaxed)
}

/// What has been written so far is known.
pub fn clear_output_written() {
    WRITTEN.store(false, Ordering::Relaxed);
}

/// Has the C library pass on what it prints to stdout line by line, as it does on a terminal: what it keeps
/// is lost with the process.
pub fn print_line_by_line() {
    unsafe extern "C" {
        static stdout: *mut libc::FILE;
    }
    // SAFETY: the C library's own stream, with a buffer that it finds itself; called at the start of the
    // process, before anything is printed.
    let _ = unsafe { libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOLBF, 0) };
}

/// Writes what the C library's streams keep, and waits for those that another thread has locked.
pub fn flush_c_streams() {
    // SAFETY: null stands for all streams; the C library locks each of them itself.
    let _ = unsafe { libc::fflush(std::ptr::null_mut()) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_end_is_seen() {
        let OutputPipe { read: from, write } = OutputPipe::new().unwrap();
        let mut buffer = [0; 16];
        assert_eq!(read(from.as_fd(), &mut buffer).unwrap(), Found::Nothing);
        write_all(write.as_fd(), b"abc").unwrap();
        assert_eq!(read(from.as_fd(), &mut buffer).unwrap(), Found::Bytes(3));
        assert_eq!(&buffer[..3], b"abc");
        let other = copy(write.as_fd()).unwrap();
        drop(write);
        assert_eq!(read(from.as_fd(), &mut buffer).unwrap(), Found::Nothing);
        drop(other);
        assert_eq!(read(from.as_fd(), &mut buffer).unwrap(), Found::End);
    }

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for() {
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
    fn the_writer_hears_of_its_own_output_before_it_goes_on() {
        let OutputPipe { read: from, write } = OutputPipe::new().unwrap();
        hear_own_output().unwrap();
        announce_to(from.as_fd(), nix::unistd::gettid()).unwrap();
        for _ in 0..100 {
            clear_output_written();
            assert!(!output_was_written());
            write_all(write.as_fd(), b"x").unwrap();
            assert!(output_was_written());
        }
    }
}
