//! Removes sockets left by programs that were killed between creating a handshake socket and removing its name.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

/// Min age of a socket that is removed. A younger socket may be in use where this process cannot see it: in a container
/// with its own network namespace and the same folder for temporary files. No handshake takes this long.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Max number of entries of the folder that are examined.
const MAX_ENTRIES: usize = 4096;

/// Removes sockets of this user that killed programs have left in the folder for temporary files. Runs once per
/// program.
///
/// The channel chooses the names of sockets, so sockets of other programs that use `ipc-channel` look the same. A
/// socket is removed only if no open socket of the system has its name.
pub(crate) fn sweep_once() {
    static ONCE: Once = Once::new();
    // The start of the first worker has set the folder.
    ONCE.call_once(|| sweep(&tempfile::env::temp_dir()));
}

fn sweep(temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else {
        return;
    };
    let made_by_channel = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.len() == 10 && name.as_encoded_bytes().starts_with(b".tmp")
    };
    let folders = entries.take(MAX_ENTRIES).flatten().filter(made_by_channel);
    let sockets: Vec<_> = folders
        .filter_map(|entry| old_socket(&entry.path()))
        .collect();
    if sockets.is_empty() {
        return;
    }
    let Ok(bound) = fs::read_to_string("/proc/net/unix") else {
        return;
    };
    for socket in sockets {
        let is_its = |line: &str| socket.to_str().is_some_and(|name| line.ends_with(name));
        if !bound.lines().any(is_its) {
            // Fails if another program has removed the socket or added a file to the folder.
            let _ = fs::remove_file(&socket);
            let _ = socket.parent().map(fs::remove_dir);
        }
    }
}

/// Returns the socket in a folder, if the socket is old enough and the folder contains nothing else.
fn old_socket(folder: &Path) -> Option<PathBuf> {
    let ours = |path: &Path| {
        let meta = fs::symlink_metadata(path).ok()?;
        (meta.uid() == crate::sys::effective_user()).then_some(meta)
    };
    let age = ours(folder)?.modified().ok()?.elapsed().ok()?;
    let socket = folder.join("socket");
    let is_socket = age >= MIN_AGE && ours(&socket)?.file_type().is_socket();
    (is_socket && fs::read_dir(folder).ok()?.count() == 1).then_some(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::SystemTime;

    use super::*;

    fn made(within: &Path, old: bool) -> (tempfile::TempDir, UnixListener) {
        let folder = tempfile::tempdir_in(within).unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        if old {
            make_old(folder.path());
        }
        (folder, listener)
    }

    fn make_old(folder: &Path) {
        let file = fs::File::open(folder).unwrap();
        file.set_modified(SystemTime::now() - 2 * MIN_AGE).unwrap();
    }

    #[test]
    fn only_old_closed_sockets_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let (gone, listener) = made(temporary.path(), true);
        drop(listener);
        let (young, listener) = made(temporary.path(), false);
        drop(listener);
        let (alive, _listener) = made(temporary.path(), true);
        let (full, listener) = made(temporary.path(), false);
        drop(listener);
        fs::write(full.path().join("file"), "").unwrap();
        make_old(full.path());
        let file = tempfile::tempdir_in(temporary.path()).unwrap();
        fs::write(file.path().join("socket"), "").unwrap();
        make_old(file.path());
        sweep(temporary.path());
        assert!(!gone.path().exists());
        for (what, folder) in [
            ("young", &young),
            ("alive", &alive),
            ("full", &full),
            ("file", &file),
        ] {
            assert!(folder.path().join("socket").exists(), "{what}");
        }
    }
}
