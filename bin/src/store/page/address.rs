//! The address of the page: [`Address`], and [`Listener`] and [`Stream`] for TCP on this machine and for Unix sockets.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

use crate::folder::{Folder, Identity};
use crate::text::show_path;

/// An address that other machines cannot reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Address {
    /// A loopback address. Port 0 stands for any free port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Parses `127.0.0.1:0`, `[::1]:8080`, `unix:PATH`, or a path with a `/`.
    pub(in crate::store) fn parse(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("the path of the socket is missing".to_owned()),
                path => Ok(Address::Unix(PathBuf::from(path))),
            };
        }
        if text.contains('/') {
            return Ok(Address::Unix(PathBuf::from(text)));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            "it is no address; write 127.0.0.1:0, [::1]:8080, or the path of a Unix socket"
                .to_owned()
        })?;
        if address.ip().is_loopback() {
            return Ok(Address::Tcp(address));
        }
        Err(format!(
            "other machines can reach {}, and the page is not encrypted; use 127.0.0.1 or [::1], and 'ssh -L' from elsewhere",
            address.ip()
        ))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => f.write_str(&show_path(path)),
        }
    }
}

/// Accepts connections.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The file of a Unix socket. Dropping it removes the file, unless another socket has its name by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    folder: Folder,
    name: OsString,
    identity: Identity,
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = self.folder.entry(&self.name);
        if found.is_ok_and(|found| found.identity() == self.identity) {
            let _ = self.folder.remove(&self.name);
        }
    }
}

impl Listener {
    /// Listens at `address`. If it is a Unix socket, returns its file too.
    pub(super) fn bind(address: &Address) -> io::Result<(Listener, Option<SocketFile>)> {
        match address {
            Address::Tcp(address) => Ok((Listener::Tcp(TcpListener::bind(address)?), None)),
            Address::Unix(path) => {
                let Some(name) = path.file_name() else {
                    return Err(no_socket());
                };
                // Kept open, so that no file elsewhere is removed if another program exchanges the folder.
                let folder = Folder::open(path.parent().unwrap_or(Path::new("")))?;
                remove_stale(&folder, name, path)?;
                let listener = bind_private(path)?;
                let identity = folder.entry(name)?.identity();
                let file = Some(SocketFile {
                    path: path.clone(),
                    name: name.to_owned(),
                    folder,
                    identity,
                });
                Ok((Listener::Unix(listener), file))
            }
        }
    }

    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Returns the beginning of this server's URLs, without a path.
    pub(super) fn origin(&self) -> io::Result<String> {
        match self {
            Listener::Tcp(listener) => Ok(format!("http://{}", listener.local_addr()?)),
            Listener::Unix(_) => Ok("http://localhost".to_owned()),
        }
    }
}

/// Removes the socket that a killed server has left.
fn remove_stale(folder: &Folder, name: &OsStr, path: &Path) -> io::Result<()> {
    match folder.entry(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.is_socket() => Err(no_socket()),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => folder.remove(name),
            // A socket of another type, such as a store's, refuses the connection with another error.
            Ok(_) | Err(_) => Err(Errno::EADDRINUSE.into()),
        },
    }
}

fn no_socket() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no socket")
}

/// Listens at `path`. Only this user can open the file of the socket, from the moment it exists.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Linux gives the file the mode of the socket.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(64)?)?;
    Ok(UnixListener::from(fd))
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Limits the time of each read and each write.
    pub(super) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let patience = Some(patience);
        match self {
            Stream::Tcp(stream) => stream
                .set_read_timeout(patience)
                .and_then(|()| stream.set_write_timeout(patience)),
            Stream::Unix(stream) => stream
                .set_read_timeout(patience)
                .and_then(|()| stream.set_write_timeout(patience)),
        }
    }

    /// Signals the other end that nothing more will be written.
    pub(super) fn finish(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Unix(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_taken() {
        let tcp = |text: &str| Ok(Address::Tcp(text.parse().unwrap()));
        for text in ["127.0.0.1:0", "127.1.2.3:80", "[::1]:8080"] {
            assert_eq!(Address::parse(text), tcp(text));
        }
        let unix = |path: &str| Ok(Address::Unix(PathBuf::from(path)));
        assert_eq!(Address::parse("unix:page"), unix("page"));
        assert_eq!(Address::parse("./page"), unix("./page"));
        for text in [
            "0.0.0.0:80",
            "[::]:80",
            "10.0.0.1:80",
            "[::ffff:127.0.0.1]:80",
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains("other machines can reach"), "{error}");
        }
        for text in ["", "127.0.0.1", "localhost:80", "8080", "unix:"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
