//! Functions for Unix sockets that the start-up handshake needs and `ipc-channel` lacks.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open as open_file};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, shutdown, socket,
};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::error::{Error, Result, retry};
use super::inject::allowed;

/// Makes a packet socket that is not connected, for [`connect_and_hang_up`].
pub fn unconnected() -> Result<OwnedFd> {
    let kind = SockType::SeqPacket;
    allowed()
        .and_then(|()| socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None))
        .map_err(|errno| Error::new("socket", errno, "a socket that ends a handshake"))
}

/// Connects `own` to the packet socket `path` and ends the connection at once, which ends an `accept` in which a thread
/// is blocked. Needs no descriptor.
pub fn connect_and_hang_up(own: BorrowedFd<'_>, path: &str) -> Result<()> {
    let error = |errno| Error::new("connect", errno, path);
    let address = UnixAddr::new(path).map_err(error)?;
    retry(|| connect(own.as_raw_fd(), &address)).map_err(error)?;
    shutdown(own.as_raw_fd(), Shutdown::Both).map_err(|errno| Error::new("shutdown", errno, path))
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

/// Opens a file with `O_PATH`, to be used as `/proc/self/fd/N`: the socket there can be connected to without its name,
/// and the program there can be started after its file was deleted.
pub fn open_path(path: &CStr) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let file = retry(|| open_file(path, flags, Mode::empty()))
        .map_err(|errno| Error::new("open", errno, path.to_string_lossy()))?;
    super::pipe::above_standard(file)
}
