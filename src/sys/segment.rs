//! Shared-memory segments: in-memory files with or without a name.

use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl};
use nix::sys::memfd::MFdFlags;
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::Pid;

use super::error::{Error, Result, retry};
use super::inject::allowed;
use super::limits::without_file_size_signal;

/// The access rights of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading. A map made from such a descriptor can never become writable.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

impl Access {
    fn flag(self) -> OFlag {
        match self {
            Access::ReadOnly => OFlag::O_RDONLY,
            Access::ReadWrite => OFlag::O_RDWR,
        }
    }
}

/// Size, memory and names of a segment at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentStat {
    /// Length in bytes, holes included.
    pub len: u64,
    /// Bytes of memory that are allocated to the segment.
    pub blocks: u64,
    /// Number of names; 0 once the segment is unlinked.
    pub nlink: libc::nlink_t,
    /// Device and inode: different for any two files.
    pub identity: (u64, u64),
    /// Owner's user id.
    pub uid: u32,
    /// The time when the segment was last resized, or written by a system call.
    pub modified: SystemTime,
}

/// A shared-memory segment with an owned, close-on-exec descriptor.
///
/// A program that closes all descriptors, as daemons do, closes this descriptor too. Then a file of the program may get
/// the descriptor's number. So the segment checks that the descriptor is still its own before it writes, truncates or
/// closes.
#[derive(Debug)]
pub struct Segment {
    fd: ManuallyDrop<OwnedFd>,
    identity: Identity,
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.check().is_ok() {
            // SAFETY: the descriptor is used neither by this value again nor by others, which borrow it from here.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

/// Device and inode of the file that a descriptor referred to: shows whether code of this process has closed the
/// descriptor since.
#[derive(Clone, Copy, Debug)]
pub struct Identity(Option<(u64, u64)>);

impl Identity {
    /// Returns the identity of an open file.
    pub fn of(fd: impl AsFd) -> Self {
        Self(fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino)))
    }

    /// Returns true if the descriptor still refers to this file. A sandboxed process, which cannot look, cannot close
    /// its descriptors either.
    pub fn is_of(self, fd: impl AsFd) -> bool {
        match fstat(fd) {
            Ok(stat) => Some((stat.st_dev, stat.st_ino)) == self.0,
            Err(errno) => errno != Errno::EBADF,
        }
    }
}

impl Segment {
    fn new(fd: OwnedFd) -> Segment {
        Segment {
            identity: Identity::of(&fd),
            fd: ManuallyDrop::new(fd),
        }
    }

    /// Checks that the descriptor still refers to the segment.
    ///
    /// # Errors
    ///
    /// `EBADF`: code of this process has closed it.
    pub fn check(&self) -> Result<()> {
        match self.identity.is_of(&*self.fd) {
            true => Ok(()),
            false => Err(Error::new(
                "fstat",
                Errno::EBADF,
                "a segment, whose descriptor was closed",
            )),
        }
    }

    /// Device and inode of the file.
    pub(crate) fn identity(&self) -> (u64, u64) {
        self.identity.0.unwrap_or_default()
    }

    /// Creates the segment `name` (such as `/arenite-0-ab12`) exclusively, with mode 0600 and no bytes.
    pub(crate) fn create_named(name: &str) -> Result<Segment> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        retry(|| shm_open(name, flags, Mode::S_IRUSR | Mode::S_IWUSR))
            .map(Segment::new)
            .map_err(|errno| Error::new("shm_open", errno, format!("the new segment {name}")))
    }

    /// Reads into `bytes` from offset `at`. Returns the number of bytes read.
    ///
    /// Unlike a read through a map, this cannot raise SIGBUS if another process truncates the segment.
    pub(crate) fn read_at(&self, bytes: &mut [u8], at: i64) -> Result<usize> {
        retry(|| nix::sys::uio::pread(&*self.fd, bytes, at))
            .map_err(|errno| Error::new("pread", errno, "a segment"))
    }

    /// Writes `bytes` from offset `at` on.
    #[cfg(any(test, feature = "template"))]
    pub(crate) fn write_at(&self, bytes: &[u8], at: i64) -> Result<()> {
        self.check()?;
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            done += without_file_size_signal(|| {
                retry(|| nix::sys::uio::pwrite(&*self.fd, rest, at + done as i64))
            })
            .map_err(|errno| Error::new("pwrite", errno, "a segment"))?;
        }
        Ok(())
    }

    /// Opens the existing segment `name`.
    ///
    /// The name may refer to any file. Fails with `EINVAL` if the file is not a regular file, and does not block if it
    /// is a pipe.
    pub(crate) fn open_named(name: &str, access: Access) -> Result<Segment> {
        let error = |errno| Error::new("shm_open", errno, format!("the segment {name}"));
        let flags = access.flag() | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = retry(|| shm_open(name, flags, Mode::empty())).map_err(error)?;
        let stat = retry(|| fstat(&fd)).map_err(error)?;
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Ok(Segment::new(fd)),
            _ => Err(error(Errno::EINVAL)),
        }
    }

    /// Creates a segment without a name.
    ///
    /// A `sealed` segment can grow but never shrink; further seals can be added.
    pub fn create_memfd(label: &str, sealed: bool) -> Result<Segment> {
        let mut flags = MFdFlags::MFD_CLOEXEC;
        if sealed {
            flags |= MFdFlags::MFD_ALLOW_SEALING;
        }
        let fd = memfd_create(label, flags).map_err(|errno| {
            Error::new("memfd_create", errno, format!("the segment \"{label}\""))
        })?;
        let segment = Segment::new(fd);
        if sealed {
            let seals = SealFlag::F_SEAL_SHRINK;
            retry(|| fcntl(&*segment.fd, FcntlArg::F_ADD_SEALS(seals))).map_err(|errno| {
                Error::new(
                    "fcntl(F_ADD_SEALS)",
                    errno,
                    format!("the segment \"{label}\""),
                )
            })?;
        }
        Ok(segment)
    }

    /// Makes content and length of a segment without a name final: no process can write, grow or shrink the segment
    /// afterwards.
    ///
    /// Fails with `EBUSY` while any process maps it for writing.
    pub(crate) fn seal(&self) -> Result<()> {
        let seals = Segment::FINAL | SealFlag::F_SEAL_SEAL;
        retry(|| fcntl(&*self.fd, FcntlArg::F_ADD_SEALS(seals)))
            .map(|_| ())
            .map_err(|errno| Error::new("fcntl(F_ADD_SEALS)", errno, "a segment"))
    }

    /// Returns whether content and length are final. Fails with `EINVAL` if the segment is no memory file.
    pub(crate) fn is_sealed(&self) -> Result<bool> {
        retry(|| fcntl(&*self.fd, FcntlArg::F_GET_SEALS))
            .map(|seals| SealFlag::from_bits_truncate(seals).contains(Segment::FINAL))
            .map_err(|errno| Error::new("fcntl(F_GET_SEALS)", errno, "a segment"))
    }

    /// Returns whether no process can make the segment shorter. Fails with `EINVAL` if the segment is no memory file.
    pub(crate) fn keeps_length(&self) -> Result<bool> {
        retry(|| fcntl(&*self.fd, FcntlArg::F_GET_SEALS))
            .map(|seals| SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK))
            .map_err(|errno| Error::new("fcntl(F_GET_SEALS)", errno, "a segment"))
    }

    const FINAL: SealFlag = SealFlag::F_SEAL_WRITE
        .union(SealFlag::F_SEAL_GROW)
        .union(SealFlag::F_SEAL_SHRINK);

    /// Removes `name`. Processes that have the segment open can still use it.
    pub(crate) fn unlink(name: &str) -> Result<()> {
        retry(|| shm_unlink(name))
            .map_err(|errno| Error::new("shm_unlink", errno, format!("the segment {name}")))
    }

    /// Takes ownership of a descriptor of a segment.
    #[cfg(any(test, feature = "template"))]
    pub(crate) fn from_fd(fd: OwnedFd) -> Segment {
        Segment::new(fd)
    }

    /// Opens the segment of descriptor `fd` again, as a new description with its own rights and locks.
    pub fn reopen(fd: RawFd, access: Access) -> Result<Segment> {
        let path = format!("/proc/self/fd/{fd}");
        // If another process has a lease on the file (`F_SETLEASE`), opening fails instead of waiting.
        let flags = access.flag() | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        retry(|| nix::fcntl::open(path.as_str(), flags, Mode::empty()))
            .map(Segment::new)
            .map_err(|errno| Error::new("open", errno, path.clone()))
    }

    /// Opens the file that descriptor `fd` of another process of this user refers to, for reading.
    ///
    /// The number may have been reused meanwhile for any file. So opening never blocks, and the caller must compare
    /// [`SegmentStat::identity`].
    pub(crate) fn open_in_process(process: Pid, fd: u32) -> Result<Segment> {
        let path = format!("/proc/{process}/fd/{fd}");
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        allowed()
            .and_then(|()| retry(|| nix::fcntl::open(path.as_str(), flags, Mode::empty())))
            .map(Segment::new)
            .map_err(|errno| Error::new("open", errno, path.clone()))
    }

    /// The descriptor.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The descriptor's number.
    pub fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Sets the length in bytes. New bytes read as zeros and have no memory yet.
    pub fn set_len(&self, len: u64) -> Result<()> {
        self.check()?;
        let what = || format!("a segment to {len} bytes");
        let signed =
            i64::try_from(len).map_err(|_| Error::new("ftruncate", Errno::EFBIG, what()))?;
        without_file_size_signal(|| retry(|| nix::unistd::ftruncate(&*self.fd, signed)))
            .map_err(|errno| Error::new("ftruncate", errno, what()))
    }

    /// Allocates memory for `range`. Changes neither the content nor the length: if another process has truncated the
    /// segment, growing it again would make lost content read as zeros.
    ///
    /// Fails with `ENOSPC` if there is no memory. Without this call, a later page fault would raise SIGBUS instead.
    pub fn allocate(&self, range: Range<u64>) -> Result<()> {
        self.fallocate("fallocate", FallocateFlags::FALLOC_FL_KEEP_SIZE, range)
    }

    /// Frees the memory of `range`, which reads as zeros afterwards. The length does not change.
    pub fn punch(&self, range: Range<u64>) -> Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        self.fallocate("fallocate(PUNCH_HOLE)", flags, range)
    }

    fn fallocate(
        &self,
        call: &'static str,
        flags: FallocateFlags,
        range: Range<u64>,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.check()?;
        let error = |errno| {
            Error::new(
                call,
                errno,
                format!("bytes {} to {}", range.start, range.end),
            )
        };
        let start = i64::try_from(range.start).map_err(|_| error(Errno::EFBIG))?;
        let len = i64::try_from(range.end - range.start).map_err(|_| error(Errno::EFBIG))?;
        without_file_size_signal(|| retry(|| fallocate(&*self.fd, flags, start, len)))
            .map_err(error)
    }

    /// Returns length, memory and names at this moment.
    pub(crate) fn stat(&self) -> Result<SegmentStat> {
        let stat =
            retry(|| fstat(&*self.fd)).map_err(|errno| Error::new("fstat", errno, "a segment"))?;
        Ok(SegmentStat {
            len: u64::try_from(stat.st_size).unwrap_or(0),
            // POSIX counts st_blocks in units of 512 bytes, whatever the block size of the file system is.
            blocks: u64::try_from(stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(512),
            nlink: stat.st_nlink,
            identity: (stat.st_dev, stat.st_ino),
            uid: stat.st_uid,
            modified: SystemTime::UNIX_EPOCH
                + Duration::new(
                    u64::try_from(stat.st_mtime).unwrap_or(0),
                    u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
                ),
        })
    }

    /// Takes the exclusive `flock` for this description. Returns `false` if another description has a lock.
    ///
    /// Linux releases the lock when the last descriptor of this description is closed, however the process ends.
    pub(crate) fn try_lock(&self) -> Result<bool> {
        self.flock(libc::LOCK_EX | libc::LOCK_NB)
    }

    /// Returns whether another description has the exclusive `flock`. Several processes may call this at the same time.
    pub(crate) fn is_locked(&self) -> Result<bool> {
        let free = self.flock(libc::LOCK_SH | libc::LOCK_NB)?;
        if free {
            self.flock(libc::LOCK_UN)?;
        }
        Ok(!free)
    }

    /// Marks the file as in use until this description is closed in all processes: see [`is_held`](Self::is_held).
    pub fn hold(&self) -> Result<()> {
        self.flock(libc::LOCK_SH | libc::LOCK_NB).map(drop)
    }

    /// Returns whether another description [holds](Self::hold) the file.
    pub fn is_held(&self) -> Result<bool> {
        let free = self.try_lock()?;
        if free {
            self.flock(libc::LOCK_UN)?;
        }
        Ok(!free)
    }

    fn flock(&self, operation: i32) -> Result<bool> {
        // SAFETY: flock takes numbers only; the descriptor stays open while `self` lives.
        let call = || unsafe { libc::flock(self.fd.as_raw_fd(), operation) };
        match retry(|| Errno::result(call())) {
            Ok(_) => Ok(true),
            Err(Errno::EWOULDBLOCK) => Ok(false),
            Err(errno) => Err(Error::new("flock", errno, "a segment")),
        }
    }
}

/// Calls `memfd_create` by its number, because versions of glibc before 2.27 lack the function.
pub fn memfd_create(label: &str, flags: MFdFlags) -> nix::Result<OwnedFd> {
    let label = CString::new(label).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the call reads a string that ends with a zero byte, and returns a number.
    let call = || unsafe { libc::syscall(libc::SYS_memfd_create, label.as_ptr(), flags.bits()) };
    let fd = retry(|| Errno::result(call()))?;
    // SAFETY: the call has just opened the descriptor. Descriptors fit 32 bits.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Segment {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl From<OwnedFd> for Segment {
    fn from(fd: OwnedFd) -> Segment {
        Segment::new(fd)
    }
}

impl From<Segment> for OwnedFd {
    fn from(segment: Segment) -> OwnedFd {
        let mut segment = ManuallyDrop::new(segment);
        // SAFETY: the segment is not used, and not dropped, from here on.
        unsafe { ManuallyDrop::take(&mut segment.fd) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_file_of_the_program_that_has_its_number_is_left_alone() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let segment = Segment::create_memfd("closed", false).unwrap();
        segment.set_len(8192).unwrap();
        let number = segment.as_raw_fd();
        // SAFETY: the number is that of the segment. What replaces it is closed below.
        let replaced = unsafe { libc::dup2(file.as_raw_fd(), number) };
        assert_eq!(replaced, number);
        for refused in [
            segment.punch(0..8192),
            segment.allocate(0..8192),
            segment.set_len(8192),
            segment.write_at(&[1], 0),
        ] {
            assert_eq!(refused.unwrap_err().errno(), Errno::EBADF);
        }
        drop(segment);
        // SAFETY: the descriptor that was made above, unless it was closed with the segment.
        assert_eq!(unsafe { libc::close(number) }, 0);
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        assert!(content == [7; 10_000]);
    }
}
