//! The sockets of stores and services: one for each name, in a folder that only this user can enter, or at a path that
//! the caller chooses.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;

use super::error::{StoreError, StoreErrorKind};
use crate::sys::packet::PacketSocket;
use crate::sys::{effective_user, passed};

/// Returns the folder of the sockets: `$XDG_RUNTIME_DIR/arenite`, or `/tmp/arenite-UID` if that variable is not set.
pub(super) fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if Path::new(&runtime).is_absolute() => Path::new(&runtime).join("arenite"),
        _ => PathBuf::from(format!("/tmp/arenite-{}", effective_user())),
    }
}

/// Returns the path of the socket of the store or service `name`: `name` itself if it contains a `/`. The socket need
/// not exist.
///
/// # Errors
///
/// [`StoreErrorKind::BadName`].
pub fn socket(name: &str) -> Result<PathBuf, StoreError> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(is_plain) {
        return Err(StoreError::new(
            StoreErrorKind::BadName,
            format!(
                "{name:?} is no name for a server; use up to 64 letters, digits, '-', '_' and '.', or the path of a socket"
            ),
        ));
    }
    Ok(folder().join(format!("{name}.sock")))
}

/// The right to serve a name: a file lock, which Linux releases however the process ends.
#[derive(Debug)]
pub(crate) struct Claim {
    lock: File,
    lock_path: PathBuf,
    socket_path: PathBuf,
    /// The inode of the socket that this claim created at `socket_path`.
    socket: Option<u64>,
    /// A socket that a service manager created and passed. It stays open when the server ends.
    passed: Option<PacketSocket>,
}

impl Claim {
    /// Claims `name`, and removes the socket that a killed server left. Returns `None` if a server runs.
    pub(crate) fn new(name: &str) -> Result<Option<Claim>, StoreError> {
        let socket_path = socket(name)?;
        let mut lock_path = socket_path.clone().into_os_string();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        if !name.contains('/') {
            make_folder(&folder())?;
        }
        let error = |error: &io::Error, path: &Path| {
            StoreError::io(&format!("cannot use {}", path.display()), error)
        };
        let strange = |path: &Path, what: &str| {
            let text = format!("{} exists and is no {what} of a server", path.display());
            StoreError::new(StoreErrorKind::BadName, text)
        };
        loop {
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed())
                .open(&lock_path)
                .map_err(|why| error(&why, &lock_path))?;
            let held = lock.metadata().map_err(|why| error(&why, &lock_path))?;
            if !held.is_file() || held.len() > 0 {
                return Err(strange(&lock_path, "lock"));
            }
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(why)) => return Err(error(&why, &lock_path)),
            }
            // A server that ends removes the lock's file before it releases the lock.
            if inode(&lock_path) != Some(held.ino()) {
                continue;
            }
            let claim = Claim {
                lock,
                lock_path,
                passed: passed::socket_at(&socket_path),
                socket_path,
                socket: None,
            };
            if claim.passed.is_some() {
                return Ok(Some(claim));
            }
            return match fs::symlink_metadata(&claim.socket_path) {
                Ok(found) if !found.file_type().is_socket() => {
                    Err(strange(&claim.socket_path, "socket"))
                }
                // Another process has removed the lock's file of the server that runs.
                Ok(_) if PacketSocket::connect(&claim.socket_path, PATIENCE).is_ok() => Ok(None),
                Ok(_) => match fs::remove_file(&claim.socket_path) {
                    Ok(()) => Ok(Some(claim)),
                    Err(why) => Err(error(&why, &claim.socket_path)),
                },
                Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Some(claim)),
                Err(why) => Err(error(&why, &claim.socket_path)),
            };
        }
    }

    /// Creates the socket, unless it was passed.
    pub(crate) fn listen(&mut self) -> Result<PacketSocket, StoreError> {
        if let Some(socket) = self.passed.take() {
            return Ok(socket);
        }
        let socket = PacketSocket::listen(&self.socket_path)?;
        self.socket = inode(&self.socket_path);
        Ok(socket)
    }

    /// Returns the path of the socket.
    pub(crate) fn socket_path(&self) -> &Path {
        &self.socket_path
    }
}

/// The time limit for the connection that tests whether a server runs.
const PATIENCE: Duration = Duration::from_secs(1);

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

impl Drop for Claim {
    fn drop(&mut self) {
        // In this order: clients reach no server of this name until another server can claim it. Removes only the
        // socket that this claim created: after the lock's file was removed, another server may have created its own.
        if self.socket.is_some() && inode(&self.socket_path) == self.socket {
            let _ = fs::remove_file(&self.socket_path);
        }
        if self.lock.metadata().ok().map(|held| held.ino()) == inode(&self.lock_path) {
            let _ = fs::remove_file(&self.lock_path);
        }
        let _ = self.lock.unlock();
    }
}

/// Creates the folder of the sockets, or checks that only this user can enter the one that exists.
pub(crate) fn make_folder(path: &Path) -> Result<(), StoreError> {
    let failed =
        |why: &io::Error| StoreError::io(&format!("cannot use the folder {}", path.display()), why);
    match DirBuilder::new().mode(0o700).create(path) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&why)),
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(|why| failed(&why))?;
    let is_private = found.is_dir()
        && found.uid() == effective_user()
        && found.permissions().mode() & 0o077 == 0;
    if is_private {
        return Ok(());
    }
    Err(StoreError::new(
        StoreErrorKind::Denied,
        format!(
            "{} is no folder of this user that others cannot enter (mode 0700); remove it, or set XDG_RUNTIME_DIR",
            path.display()
        ),
    ))
}

/// Returns the name that Linux has for the program of a process. Empty if the process is gone.
pub(crate) fn program_of(pid: i32) -> String {
    let name: io::Result<Vec<u8>> = fs::read(format!("/proc/{pid}/comm"));
    name.map_or(String::new(), |name| {
        String::from_utf8_lossy(&name).trim_end().to_owned()
    })
}

/// Returns the time in seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
