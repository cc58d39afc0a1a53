//! Where stores are found: a socket for each name, in a folder that only this user can enter, or at a path of the
//! caller's choice.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::{StoreError, StoreErrorKind};
use crate::sys::effective_user;

/// The folder of the sockets: `$XDG_RUNTIME_DIR/arenite`, or `/tmp/arenite-UID` where that is not set.
fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if Path::new(&runtime).is_absolute() => Path::new(&runtime).join("arenite"),
        _ => PathBuf::from(format!("/tmp/arenite-{}", effective_user())),
    }
}

/// The path of a store's socket: `name` itself if it contains a `/`.
pub(super) fn socket(name: &str) -> Result<PathBuf, StoreError> {
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(is_plain) {
        return Err(StoreError::new(
            StoreErrorKind::BadName,
            format!(
                "{name:?} is no name for a store; use up to 64 letters, digits, '-', '_' and '.', or the path of a socket"
            ),
        ));
    }
    Ok(folder().join(format!("{name}.sock")))
}

/// The right to serve a name. Held by a lock, which Linux releases however the process ends.
#[derive(Debug)]
pub(super) struct Claim {
    lock: File,
    lock_path: PathBuf,
    socket_path: PathBuf,
}

impl Claim {
    /// Claims `name`, and removes the socket that a killed server left. `None` if a server runs.
    pub(super) fn new(name: &str) -> Result<Option<Claim>, StoreError> {
        let socket_path = socket(name)?;
        let lock_path = socket_path.with_extension("lock");
        if !name.contains('/') {
            make_folder(&folder())?;
        }
        let error = |error: &io::Error, path: &Path| {
            StoreError::io(&format!("cannot use {}", path.display()), error)
        };
        loop {
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&lock_path)
                .map_err(|why| error(&why, &lock_path))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(why)) => return Err(error(&why, &lock_path)),
            }
            // A server that ends removes its file before it releases the lock.
            let held = lock.metadata().map_err(|why| error(&why, &lock_path))?;
            let is_current =
                fs::symlink_metadata(&lock_path).is_ok_and(|now| now.ino() == held.ino());
            if !is_current {
                continue;
            }
            match fs::remove_file(&socket_path) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => {
                    return Err(error(&why, &socket_path));
                }
                _ => {}
            }
            return Ok(Some(Claim {
                lock,
                lock_path,
                socket_path,
            }));
        }
    }

    /// The path for the socket.
    pub(super) fn socket_path(&self) -> &Path {
        &self.socket_path
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // In this order: clients see no server before another one can claim the name. A failure leaves a file that the
        // next server removes.
        let _ = fs::remove_file(&self.socket_path);
        let _ = fs::remove_file(&self.lock_path);
        let _ = self.lock.unlock();
    }
}

/// Creates the folder of the sockets, or checks that only this user can enter the one that exists.
pub(super) fn make_folder(path: &Path) -> Result<(), StoreError> {
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
