//! A client that speaks the protocol by hand, and does not keep to it.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
    UnixAddr, bind, connect, listen as listen_at, recvmsg, sendmsg, socket,
};

/// A connection to a server.
pub struct Connection(OwnedFd);

impl Connection {
    pub fn new(path: &Path) -> Connection {
        Connection::try_new(path).unwrap()
    }

    pub fn try_new(path: &Path) -> nix::Result<Connection> {
        let fd = new_socket();
        connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap())?;
        Ok(Connection(fd))
    }

    pub fn send(&self, text: &str, files: &[&dyn AsFd]) {
        self.try_send(text, files).unwrap();
    }

    pub fn try_send(&self, text: &str, files: &[&dyn AsFd]) -> nix::Result<()> {
        let files: Vec<RawFd> = files.iter().map(|file| file.as_fd().as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&files)];
        let rights = if files.is_empty() { &[][..] } else { &rights };
        let text = [IoSlice::new(text.as_bytes())];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &text, rights, flags, None).map(drop)
    }

    /// The next answer, and the file that comes with it. `None` at the connection's end.
    pub fn answer(&self) -> Option<(serde_json::Value, Option<OwnedFd>)> {
        let mut bytes = vec![0; 64 << 10];
        let mut control = nix::cmsg_space!([RawFd; 4]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
        let mut file = None;
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for fd in fds {
                    // SAFETY: received for this process just now.
                    file = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        let len = message.bytes;
        if len == 0 {
            return None;
        }
        Some((serde_json::from_slice(&bytes[..len]).unwrap(), file))
    }

    pub fn ask(&self, text: &str, files: &[&dyn AsFd]) -> (serde_json::Value, Option<OwnedFd>) {
        self.send(text, files);
        self.answer().expect("an answer")
    }
}

/// Checks that a request with each of these files is this error: none, several, and those that are no memory files.
pub fn assert_refused(connection: &Connection, request: &str, error: &str) {
    let (reader, writer) = std::io::pipe().unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let [null, folder] = ["/dev/null", "/"].map(|path| File::open(path).unwrap());
    let file = tempfile::tempfile().unwrap();
    let sealed = sealed(&[0; 16]);
    // As many as a packet can have.
    let many: [&dyn AsFd; 253] = [&sealed; 253];
    let wrong: [&[&dyn AsFd]; 9] = [
        &[],
        &[&reader],
        &[&writer],
        &[&stream],
        &[&null],
        &[&folder],
        &[&file],
        &[&sealed, &sealed],
        &many,
    ];
    for files in wrong {
        let (answer, _) = connection.ask(request, files);
        assert_eq!(answer["error"], error, "{answer}");
    }
}

fn new_socket() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap()
}

/// Listens at a path.
pub fn listen(path: &Path) -> OwnedFd {
    let fd = new_socket();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen_at(&fd, Backlog::new(8).unwrap()).unwrap();
    fd
}

/// A memory file that can be sealed.
pub fn memory_file(bytes: &[u8]) -> File {
    use std::io::Write;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("test", flags).unwrap());
    file.write_all(bytes).unwrap();
    file
}

/// A sealed memory file.
pub fn sealed(bytes: &[u8]) -> File {
    let file = memory_file(bytes);
    seal(&file).unwrap();
    file
}

pub fn seal(file: &File) -> nix::Result<()> {
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals)).map(drop)
}
