//! A socket in the abstract namespace that sends one text to each process of this user that connects.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{MsgFlags, Shutdown, getsockopt, send, shutdown};

use super::error::{Error, Result};
use super::inject::allowed;

/// A listening stream socket without a file. It is non-blocking and close-on-exec.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    /// A descriptor that is closed to accept a connection while this process has no other left: a shortage is when a
    /// user asks.
    spare: Option<OwnedFd>,
    /// The user whose processes are answered: that of this process when the socket was made.
    user: u32,
}

impl Listener {
    /// Creates the socket `name`. Fails with `EADDRINUSE` if there is one of this name.
    pub fn new(name: &str) -> Result<Listener> {
        let error = |errno| Error::new("bind", errno, format!("the socket @{name}"));
        let socket = allowed()
            .and_then(|()| {
                let address = SocketAddr::from_abstract_name(name);
                let bound = address.and_then(|address| UnixListener::bind_addr(&address));
                bound.map_err(|why| errno_of(&why))
            })
            .map_err(error)?;
        let socket = UnixListener::from(super::pipe::above_standard(socket.into())?);
        allowed()
            .and_then(|()| socket.set_nonblocking(true).map_err(|why| errno_of(&why)))
            .map_err(error)?;
        Ok(Listener {
            spare: socket.as_fd().try_clone_to_owned().ok(),
            socket,
            user: super::effective_user(),
        })
    }

    /// Accepts a connection that waits, sends as much of the text as fits its buffer if the peer is a process of this
    /// user, and closes it. Returns false if no connection waits. Never blocks.
    pub fn answer(&mut self, text: impl FnOnce() -> String) -> Result<bool> {
        let accept = || allowed().and_then(|()| self.socket.accept().map_err(|why| errno_of(&why)));
        let mut accepted = accept();
        if matches!(accepted, Err(Errno::EMFILE | Errno::ENFILE)) && self.spare.take().is_some() {
            accepted = accept();
        }
        let peer = match accepted {
            Ok((peer, _)) => peer,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(errno) => return Err(Error::new("accept4", errno, "a listening socket")),
        };
        if getsockopt(&peer, PeerCredentials).is_ok_and(|peer| peer.uid() == self.user) {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            // The peer may be gone, or have a small buffer: both are its own affair.
            let _ = send(peer.as_raw_fd(), text().as_bytes(), flags);
        }
        drop(peer);
        if self.spare.is_none() {
            self.spare = self.socket.as_fd().try_clone_to_owned().ok();
        }
        Ok(true)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A forked copy of the process may hold the socket open: from now on it refuses connections.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL))
}
