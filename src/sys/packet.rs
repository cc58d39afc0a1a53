//! Unix packet sockets that carry descriptors, over which a supervisor and the template of its workers communicate.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, setsockopt, socketpair,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::error::{Error, Result, retry};
use super::inject::allowed;

/// Max number of descriptors in a packet (`SCM_MAX_FD`). Linux closes received descriptors for which the receiver has
/// no room, and closing may block; so the receiver has room for this number.
const MAX_FDS: u32 = 253;
/// Length in bytes of a control message with `MAX_FDS` descriptors.
// SAFETY: `CMSG_SPACE` only calculates.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(MAX_FDS * size_of::<RawFd>() as u32) } as usize;

/// Memory for control messages, aligned as Linux requires.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);
const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());

/// One end of a connection that preserves the boundaries of packets. Its descriptor is close-on-exec.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
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
    /// Creates the two ends of a connection. Calls of the first end that wait for longer than `patience` fail with
    /// `EAGAIN`.
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

    /// Sends `bytes` as one packet, with copies of `fds`.
    ///
    /// Fails with `EAGAIN` if the other end does not read within this end's time limit.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = (!fds.is_empty()).then(|| ControlMessage::ScmRights(&fds));
        retry(|| {
            sendmsg::<()>(
                self.fd.as_raw_fd(),
                &[IoSlice::new(bytes)],
                rights.as_slice(),
                MsgFlags::MSG_NOSIGNAL,
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

    /// Receives the next packet into `bytes`. Fails with `EAGAIN` if none arrives within this end's time limit.
    pub fn receive(&self, bytes: &mut [u8]) -> Result<Packet> {
        let error = |errno| Error::new("recvmsg", errno, "a packet");
        match retry(|| self.receive_once(bytes)) {
            // The other end was closed before it had read everything. The packets that it sent before can be received
            // after this error.
            Err(Errno::ECONNRESET) => retry(|| self.receive_once(bytes)).map_err(error),
            received => received.map_err(error),
        }
    }

    /// Does not use `nix`, which loses open descriptors: if some descriptors of a packet cannot be received, `nix`
    /// drops the others without closing them.
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

/// Takes ownership of a descriptor that a system call has just made.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: `recvmsg` returns descriptors that it made for this process in that very call, so nothing else owns them.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
