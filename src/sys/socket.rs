//! Functions for Unix sockets that the start-up handshake needs and `ipc-channel` lacks.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open as open_file};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::error::{Error, Result, retry};
use super::inject::allowed;

/// Connects to the packet socket `path` and closes the connection at once. This ends an `accept` in which a thread is
/// blocked.
pub fn connect_and_close(path: &str) -> Result<()> {
    let error = |errno| Error::new("connect", errno, path);
    let kind = SockType::SeqPacket;
    let socket_fd = allowed()
        .and_then(|()| socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None))
        .map_err(error)?;
    let address = UnixAddr::new(path).map_err(error)?;
    retry(|| connect(socket_fd.as_raw_fd(), &address)).map_err(error)
}

/// Returns whether `file` is a socket file to which no other user except root can connect.
pub fn is_private(file: BorrowedFd<'_>) -> Result<bool> {
    let stat = retry(|| fstat(file))
        .map_err(|errno| Error::new("fstat", errno, "the file of a socket"))?;
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    // Connecting requires write permission.
    Ok(kind == SFlag::S_IFSOCK
        && stat.st_uid == super::effective_user()
        && !mode.intersects(Mode::S_IWGRP | Mode::S_IWOTH))
}

/// Opens a folder with `O_PATH`, to be used as `/proc/self/fd/N`.
pub fn open_folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = retry(|| open_file(path, flags, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, path.display().to_string()))?;
    super::pipe::above_standard(folder)
}

/// Opens the file of a socket with `O_PATH`, so that a process can connect to the socket as `/proc/self/fd/N`, without
/// its name.
pub fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    retry(|| open_file(path, flags, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, path.display().to_string()))
}
