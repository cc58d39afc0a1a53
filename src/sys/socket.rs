//! Unix sockets, as far as the start-up channel leaves something to do.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::os::fd::AsRawFd;

use super::error::{Error, Result, retry};

/// Connects to the packet socket of this name and hangs up: whoever waits there for a caller stops waiting.
pub fn knock(path: &str) -> Result<()> {
    let error = |errno| Error::new("connect", errno, path);
    let kind = SockType::SeqPacket;
    let caller = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).map_err(error)?;
    let address = UnixAddr::new(path).map_err(error)?;
    retry(|| connect(caller.as_raw_fd(), &address)).map_err(error)
}
