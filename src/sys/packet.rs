//! Unix packet sockets that carry descriptors, over which the store's server and its clients communicate.

use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::{self, PeerCredentials, ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, getsockname, getsockopt, listen, sendmsg, setsockopt, shutdown, socket,
    socketpair,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::error::{Error, Result, retry};
use super::inject::allowed;

/// Max number of descriptors in a packet (`SCM_MAX_FD`). With room for all of them, Linux closes none while a packet is
/// received; closing may wait.
const MAX_FDS: u32 = 253;
/// Length in bytes of a control message with `MAX_FDS` descriptors.
// SAFETY: `CMSG_SPACE` only calculates.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(MAX_FDS * size_of::<RawFd>() as u32) } as usize;

/// Memory for control messages, aligned as Linux requires.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);
const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());

/// One end of a connection that preserves the boundaries of packets, or a socket that accepts such connections. Its
/// descriptor is close-on-exec.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

/// The process at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process id at the time when it connected or began to listen.
    pub pid: i32,
    /// The effective user id at that time.
    pub uid: u32,
}

/// A packet that was received.
#[derive(Debug)]
pub struct Packet {
    /// Length in bytes; 0 if the other end is closed.
    pub len: usize,
    /// The descriptors in the packet.
    pub fds: Vec<OwnedFd>,
    /// Whether the packet was longer than the buffer, or some of its descriptors could not be received.
    pub is_cut: bool,
}

impl PacketSocket {
    fn new(flags: SockFlag) -> Result<PacketSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | flags;
        allowed()
            .and_then(|()| socket(AddressFamily::Unix, SockType::SeqPacket, flags, None))
            .map(|fd| PacketSocket { fd })
            .map_err(|errno| Error::new("socket", errno, "a Unix packet socket"))
    }

    /// Creates the socket file `path`, which must not exist, and listens there. Accepting never waits.
    pub fn listen(path: &Path) -> Result<PacketSocket> {
        let error = |call| move |errno| Error::new(call, errno, path.display().to_string());
        let socket = PacketSocket::new(SockFlag::SOCK_NONBLOCK)?;
        let address = UnixAddr::new(path).map_err(error("bind"))?;
        allowed()
            .and_then(|()| bind(socket.fd.as_raw_fd(), &address))
            .map_err(error("bind"))?;
        listen(&socket.fd, Backlog::MAXCONN).map_err(error("listen"))?;
        Ok(socket)
    }

    /// A copy of the descriptor `fd` that this process was started with, if it is a packet socket that listens at
    /// `path`.
    pub fn inherited(fd: RawFd, path: &Path) -> Option<PacketSocket> {
        // SAFETY: `fcntl` accesses no memory of this process. A number that is no descriptor is an error.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        let socket = PacketSocket {
            fd: own(Errno::result(copy).ok()?),
        };
        let is_packet = getsockopt(&socket.fd, sockopt::SockType) == Ok(SockType::SeqPacket);
        let listens = getsockopt(&socket.fd, sockopt::AcceptConn) == Ok(true);
        let address: UnixAddr = getsockname(socket.fd.as_raw_fd()).ok()?;
        let is_wanted = is_packet && listens && address.path() == Some(path);
        // Accepting never waits.
        let nonblocking = fcntl(&socket.fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        (is_wanted && nonblocking.is_ok()).then_some(socket)
    }

    /// A socket that sends messages to a service manager at `path`: a path, or an abstract name that begins with `@`.
    /// Sending waits at most for `patience`.
    pub fn notify(path: &OsStr, patience: Duration) -> Result<PacketSocket> {
        let error = |errno| Error::new("connect", errno, path.display().to_string());
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None).map_err(error)?;
        let limit = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
        setsockopt(&fd, SendTimeout, &limit).map_err(error)?;
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => UnixAddr::new_abstract(name),
            None => UnixAddr::new(path),
        };
        connect(fd.as_raw_fd(), &address.map_err(error)?).map_err(error)?;
        Ok(PacketSocket { fd })
    }

    /// Connects to `path`. Later calls on the socket fail with `EAGAIN` if they wait longer than `patience`.
    pub fn connect(path: &Path, patience: Duration) -> Result<PacketSocket> {
        let error = |errno| Error::new("connect", errno, path.display().to_string());
        let socket = PacketSocket::new(SockFlag::empty())?;
        let limit = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
        setsockopt(&socket.fd, SendTimeout, &limit).map_err(error)?;
        setsockopt(&socket.fd, ReceiveTimeout, &limit).map_err(error)?;
        let address = UnixAddr::new(path).map_err(error)?;
        retry(|| connect(socket.fd.as_raw_fd(), &address)).map_err(error)?;
        Ok(socket)
    }

    /// Two ends of a connection. Calls on the first end fail with `EAGAIN` if they wait longer than `patience`.
    pub fn pair(patience: Duration) -> Result<(PacketSocket, PacketSocket)> {
        let error = |errno| Error::new("socketpair", errno, "two Unix packet sockets");
        let flags = SockFlag::SOCK_CLOEXEC;
        let (first, second) = allowed()
            .and_then(|()| socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags))
            .map_err(error)?;
        let limit = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
        setsockopt(&first, SendTimeout, &limit).map_err(error)?;
        setsockopt(&first, ReceiveTimeout, &limit).map_err(error)?;
        let above = super::pipe::above_standard;
        Ok((
            PacketSocket { fd: above(first)? },
            PacketSocket { fd: above(second)? },
        ))
    }

    /// Lets `receive` wait without a limit. The limit of `send` stays.
    pub fn wait_forever(&self) -> Result<()> {
        setsockopt(&self.fd, ReceiveTimeout, &TimeVal::milliseconds(0))
            .map_err(|errno| Error::new("setsockopt(SO_RCVTIMEO)", errno, "a connection"))
    }

    /// Ends the connection, for all threads that use it.
    pub fn close_both_ways(&self) {
        // Fails only if the connection has ended already.
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Both);
    }

    /// Accepts the next connection. Calls on it never wait. `None` if no connection is pending.
    pub fn accept(&self) -> Result<Option<PacketSocket>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match retry(|| accept4(self.fd.as_raw_fd(), flags)) {
            Ok(fd) => Ok(Some(PacketSocket { fd: own(fd) })),
            // ECONNABORTED: the client has closed before it was accepted.
            Err(Errno::EAGAIN | Errno::ECONNABORTED) => Ok(None),
            Err(errno) => Err(Error::new("accept4", errno, "a Unix packet socket")),
        }
    }

    /// The process at the other end.
    pub fn peer(&self) -> Result<Peer> {
        getsockopt(&self.fd, PeerCredentials)
            .map(|peer| Peer {
                pid: peer.pid(),
                uid: peer.uid(),
            })
            .map_err(|errno| Error::new("getsockopt(SO_PEERCRED)", errno, "a connection"))
    }

    /// Sends `bytes` as one packet, with copies of `fds`.
    ///
    /// `EAGAIN` means that the other end does not read. If this end never waits, it is returned at once, otherwise
    /// after the time limit.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_with(bytes, fds, MsgFlags::empty())
    }

    /// Like [`send`](Self::send), but never waits, and sends no descriptors.
    pub fn send_now(&self, bytes: &[u8]) -> Result<()> {
        self.send_with(bytes, &[], MsgFlags::MSG_DONTWAIT)
    }

    fn send_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: MsgFlags) -> Result<()> {
        let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = (!fds.is_empty()).then(|| ControlMessage::ScmRights(&fds));
        let flags = flags | MsgFlags::MSG_NOSIGNAL;
        retry(|| {
            sendmsg::<()>(
                self.fd.as_raw_fd(),
                &[IoSlice::new(bytes)],
                rights.as_slice(),
                flags,
                None,
            )
        })
        .map(|_| ())
        .map_err(|errno| {
            Error::new(
                "sendmsg",
                errno,
                format!("a packet of {} bytes", bytes.len()),
            )
        })
    }

    /// Receives the next packet into `bytes`. `EAGAIN` as in [`PacketSocket::send`].
    pub fn receive(&self, bytes: &mut [u8]) -> Result<Packet> {
        let error = |errno| Error::new("recvmsg", errno, "a packet");
        match retry(|| self.receive_once(bytes)) {
            // The other end has closed before it had read everything. The packets that it had sent come after this
            // error.
            Err(Errno::ECONNRESET) => retry(|| self.receive_once(bytes)).map_err(error),
            received => received.map_err(error),
        }
    }

    /// Does not use `nix`: if some descriptors of a packet could not be received, it drops the others without closing
    /// them.
    fn receive_once(&self, bytes: &mut [u8]) -> nix::Result<Packet> {
        let mut control = Control([0; CONTROL]);
        let mut part = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        // SAFETY: all zeros are a valid `msghdr`, with null pointers and lengths of 0.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = CONTROL as _;
        // SAFETY: the message points to one part, and to `CONTROL` bytes aligned as `cmsghdr` is; both outlive the
        // call.
        let answer = unsafe {
            libc::recvmsg(
                self.fd.as_raw_fd(),
                &raw mut message,
                libc::MSG_CMSG_CLOEXEC,
            )
        };
        let len = usize::try_from(answer).map_err(|_| Errno::last())?;
        let mut fds = Vec::new();
        // SAFETY: Linux has filled `msg_controllen` bytes of the buffer; the macros stay within them.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !header.is_null() {
            // SAFETY: Linux has written the header, and after it the number of bytes that the header says.
            unsafe {
                if ((*header).cmsg_level, (*header).cmsg_type)
                    == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
                {
                    let data: *const RawFd = libc::CMSG_DATA(header).cast();
                    let size = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                    for index in 0..size / size_of::<RawFd>() {
                        fds.push(own(data.add(index).read_unaligned()));
                    }
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        Ok(Packet {
            len,
            fds,
            is_cut: message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        })
    }
}

impl From<OwnedFd> for PacketSocket {
    /// Wraps a descriptor that this process was started with.
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Takes ownership of the descriptor `fd` that this process was started with. May be called once for each descriptor.
/// `None` if there is no such descriptor.
pub fn inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: `fcntl` accesses no memory of this process. A number that is no descriptor is an error.
    let set = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    Errno::result(set).ok()?;
    Some(own(fd))
}

/// Takes ownership of a descriptor that a system call has just made.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: `accept4`, `recvmsg` and `fcntl(F_DUPFD_CLOEXEC)` return descriptors that they have just made for this
    // process, so nothing else owns them. An inherited descriptor is taken once, by the only code that looks for it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
