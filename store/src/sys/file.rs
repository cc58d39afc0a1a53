//! Memory files (`memfd_create`) that seals make immutable.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use arenite::array::MemoryFile;
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create,
    open,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, getrlimit};

use super::{Error, Result};

/// The seals that make content and length immutable.
const FINAL: SealFlags = SealFlags::WRITE
    .union(SealFlags::GROW)
    .union(SealFlags::SHRINK);
/// Files of up to this number of bytes are written by a system call, larger files through a map.
const SMALL: usize = 1 << 20;

/// Length and allocated memory of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    /// Length in bytes, holes included.
    pub(crate) len: u64,
    /// Bytes of memory that are allocated to the file.
    pub(crate) blocks: u64,
}

/// Creates an empty memory file, close-on-exec. `/proc/*/fd` shows it as `label`.
pub(crate) fn create(label: &str) -> Result<File> {
    memfd_create(label, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map(File::from)
        .map_err(|errno| Error::new("memfd_create", errno, &format!("the file \"{label}\"")))
}

/// Creates a sealed memory file with these bytes.
pub(crate) fn sealed_copy(label: &str, bytes: &[u8]) -> Result<OwnedFd> {
    // Writing beyond a limit on file sizes may raise SIGXFSZ. `MemoryFile` does not.
    if bytes.len() > SMALL || getrlimit(Resource::Fsize).current.is_some() {
        let mut file = MemoryFile::new(label, bytes.len())?;
        file.copy_from_slice(bytes);
        return Ok(file.seal()?);
    }
    let file = create(label)?;
    file.write_all_at(bytes, 0).map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Error::new("pwrite", errno, "a memory file")
    })?;
    seal(&file)?;
    Ok(file.into())
}

/// Makes content and length immutable: no process can write, grow or shrink the file. Fails with `EBUSY` while any
/// process maps it for writing.
pub(crate) fn seal(file: &File) -> Result<()> {
    fcntl_add_seals(file, FINAL | SealFlags::SEAL)
        .map_err(|errno| Error::new("fcntl(F_ADD_SEALS)", errno, "a memory file"))
}

/// Returns whether content and length are immutable. Fails with `EINVAL` if this is no memory file.
pub(crate) fn is_sealed(file: impl AsFd) -> Result<bool> {
    fcntl_get_seals(file)
        .map(|seals| seals.contains(FINAL))
        .map_err(|errno| Error::new("fcntl(F_GET_SEALS)", errno, "a memory file"))
}

/// Returns the length and allocated memory at this moment.
pub(crate) fn stat(file: impl AsFd) -> Result<Stat> {
    let stat = fstat(file).map_err(|errno| Error::new("fstat", errno, "a memory file"))?;
    Ok(Stat {
        len: u64::try_from(stat.st_size).unwrap_or(0),
        // POSIX counts st_blocks in units of 512 bytes, independent of the file system's block size.
        blocks: u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512),
    })
}

/// Opens the file again for reading, with a new file description that has its own position.
pub(crate) fn reopen(file: impl AsFd) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    // If another process has a file lease (`F_SETLEASE`), opening fails instead of waiting.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    retry_on_intr(|| open(&path, flags, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, &path))
}

/// Reads up to `bytes.len()` bytes from the start of the file. Returns the number of bytes that were read.
///
/// Unlike reading a map, this cannot raise SIGBUS when another process truncates the file.
pub(crate) fn read(file: impl AsFd, bytes: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match retry_on_intr(|| rustix::io::pread(&file, &mut bytes[done..], done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(errno) => return Err(Error::new("pread", errno, "a memory file")),
        }
    }
    Ok(done)
}
