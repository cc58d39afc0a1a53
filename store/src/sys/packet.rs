//! Unix packet sockets that carry descriptors, between servers and clients.

use std::ffi::OsStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_acceptconn, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, connect, getsockname, listen, recvmsg, sendmsg, shutdown,
    socket_with,
};

use super::{Error, Result};

/// The maximum number of descriptors in a packet (`SCM_MAX_FD`). With room for all of them, Linux closes none while a
/// packet is received: closing could block.
const MAX_FDS: usize = 253;
/// Size in bytes of a control message with `MAX_FDS` descriptors.
const CONTROL: usize = cmsg_space!(ScmRights(MAX_FDS));
/// The maximum number of connections that wait to be accepted. Linux has a limit of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// One end of a connection that preserves the boundaries of packets, or a socket that accepts such connections. Its
/// descriptor is close-on-exec.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
}

/// The process at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The process number when the process connected or began to listen. 0 if this process cannot see it.
    pub(crate) pid: i32,
    /// The effective user id at that moment.
    pub(crate) uid: u32,
}

/// A packet that was received.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Length in bytes; 0 if the other end is closed.
    pub(crate) len: usize,
    /// The descriptors that came with the packet.
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether the packet was longer than the buffer, or some of its descriptors could not be received.
    pub(crate) is_cut: bool,
}

impl PacketSocket {
    fn new(flags: SocketFlags) -> Result<PacketSocket> {
        let flags = SocketFlags::CLOEXEC | flags;
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map(|fd| PacketSocket { fd })
            .map_err(|errno| Error::new("socket", errno, "a Unix packet socket"))
    }

    /// Creates the socket file `path`, which must not exist, and listens on it. Accepting never waits.
    pub(crate) fn listen(path: &Path) -> Result<PacketSocket> {
        let error = |call| move |errno| Error::new(call, errno, &path.display().to_string());
        let socket = PacketSocket::new(SocketFlags::NONBLOCK)?;
        let address = SocketAddrUnix::new(path).map_err(error("bind"))?;
        bind(&socket.fd, &address).map_err(error("bind"))?;
        listen(&socket.fd, BACKLOG).map_err(error("listen"))?;
        Ok(socket)
    }

    /// Returns the socket of `fd` if it is a packet socket that listens at `path`. Accepting never waits from then on.
    pub(crate) fn listening_at(fd: OwnedFd, path: &Path) -> Option<PacketSocket> {
        let is_packet = socket_type(&fd) == Ok(SocketType::SEQPACKET);
        let listens = socket_acceptconn(&fd) == Ok(true);
        let address = SocketAddrUnix::try_from(getsockname(&fd).ok()?).ok()?;
        if !is_packet || !listens || address.path_bytes() != Some(path.as_os_str().as_bytes()) {
            return None;
        }
        fcntl_setfl(&fd, fcntl_getfl(&fd).ok()? | OFlags::NONBLOCK).ok()?;
        Some(PacketSocket { fd })
    }

    /// Creates a socket that sends messages to a service manager at `path`: a path, or an abstract name that begins
    /// with `@`. Sending waits for at most `patience`.
    pub(crate) fn notify(path: &OsStr, patience: Duration) -> Result<PacketSocket> {
        let error = |errno| Error::new("connect", errno, &path.display().to_string());
        let flags = SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(error)?;
        set_socket_timeout(&fd, Timeout::Send, Some(patience)).map_err(error)?;
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name),
            None => SocketAddrUnix::new(path),
        };
        connect(&fd, &address.map_err(error)?).map_err(error)?;
        Ok(PacketSocket { fd })
    }

    /// Connects to `path`. Later calls that wait for longer than `patience` fail with `EAGAIN`.
    pub(crate) fn connect(path: &Path, patience: Duration) -> Result<PacketSocket> {
        let error = |errno| Error::new("connect", errno, &path.display().to_string());
        let socket = PacketSocket::new(SocketFlags::empty())?;
        // Linux takes 0 for no limit.
        let limit = Some(patience.max(Duration::from_millis(1)));
        set_socket_timeout(&socket.fd, Timeout::Send, limit).map_err(error)?;
        set_socket_timeout(&socket.fd, Timeout::Recv, limit).map_err(error)?;
        let address = SocketAddrUnix::new(path).map_err(error)?;
        retry_on_intr(|| connect(&socket.fd, &address)).map_err(error)?;
        Ok(socket)
    }

    /// Lets receiving wait without a limit. Sending keeps its limit.
    pub(crate) fn wait_forever(&self) -> Result<()> {
        set_socket_timeout(&self.fd, Timeout::Recv, None)
            .map_err(|errno| Error::new("setsockopt(SO_RCVTIMEO)", errno, "a connection"))
    }

    /// Ends the connection, for all threads that use it.
    pub(crate) fn close_both_ways(&self) {
        // Shutting down fails only if the connection has ended.
        let _ = shutdown(&self.fd, Shutdown::Both);
    }

    /// Accepts the next connection, whose calls never wait. `None` if there is none.
    pub(crate) fn accept(&self) -> Result<Option<PacketSocket>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match retry_on_intr(|| accept_with(&self.fd, flags)) {
            Ok(fd) => Ok(Some(PacketSocket { fd })),
            // `ECONNABORTED`: the client was gone before it was accepted.
            Err(Errno::AGAIN | Errno::CONNABORTED) => Ok(None),
            Err(errno) => Err(Error::new("accept4", errno, "a Unix packet socket")),
        }
    }

    /// Returns the process at the other end.
    pub(crate) fn peer(&self) -> Result<Peer> {
        nix::sys::socket::getsockopt(&self.fd, nix::sys::socket::sockopt::PeerCredentials)
            .map(|peer| Peer {
                pid: peer.pid(),
                uid: peer.uid(),
            })
            .map_err(|errno| {
                let errno = Errno::from_raw_os_error(errno as i32);
                Error::new("getsockopt(SO_PEERCRED)", errno, "a connection")
            })
    }

    /// Sends `bytes` as one packet, with copies of `fds`.
    ///
    /// Fails with `EAGAIN` if the other end does not read: at once if this end never waits, otherwise after the time
    /// limit.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_with(bytes, fds, SendFlags::empty())
    }

    /// Sends `bytes` as one packet without descriptors, and without waiting.
    pub(crate) fn send_now(&self, bytes: &[u8]) -> Result<()> {
        self.send_with(bytes, &[], SendFlags::DONTWAIT)
    }

    fn send_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> Result<()> {
        let error = |errno| {
            let what = format!("a packet of {} bytes", bytes.len());
            Error::new("sendmsg", errno, &what)
        };
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            // The error of Linux for too many descriptors.
            return Err(error(Errno::INVAL));
        }
        let flags = flags | SendFlags::NOSIGNAL;
        retry_on_intr(|| sendmsg(&self.fd, &[IoSlice::new(bytes)], &mut control, flags))
            .map(drop)
            .map_err(error)
    }

    /// Receives the next packet into `bytes`. Fails with `EAGAIN` if none arrives within the time limit.
    pub(crate) fn receive(&self, bytes: &mut [u8]) -> Result<Packet> {
        let error = |errno| Error::new("recvmsg", errno, "a packet");
        match retry_on_intr(|| self.receive_once(bytes)) {
            // The other end closed before it had read everything. The packets that it had sent can be received after
            // this error.
            Err(Errno::CONNRESET) => retry_on_intr(|| self.receive_once(bytes)).map_err(error),
            received => received.map_err(error),
        }
    }

    fn receive_once(&self, bytes: &mut [u8]) -> rustix::io::Result<Packet> {
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(bytes)];
        let received = recvmsg(&self.fd, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        Ok(Packet {
            len: received.bytes,
            fds,
            is_cut: received
                .flags
                .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC),
        })
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
