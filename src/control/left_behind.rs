//! What a program leaves that is killed between making the socket of a handshake and removing its name.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

/// Younger than this, it may be somebody's whose sockets cannot be seen from here: in a container with a network of its
/// own, and the same folder for temporary files. Nobody waits as long for the other end.
const OLD: Duration = Duration::from_secs(60);

/// How many entries are looked at, of a folder that may have any number.
const MOST: usize = 4096;

/// At the first start of a program: removes such names of this user below the folder for temporary files.
///
/// The channel chooses the name, so it does not say whose it is: other programs that use the same channel leave the same.
/// It is removed only if no socket of the system has it any more.
pub(crate) fn sweep_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| sweep(&std::env::temp_dir()));
}

fn sweep(temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else {
        return;
    };
    let made_by_channel = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.len() == 10 && name.as_encoded_bytes().starts_with(b".tmp")
    };
    let folders = entries.take(MOST).flatten().filter(made_by_channel);
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
            // Somebody else may be faster, or have put something there.
            let _ = fs::remove_file(&socket);
            let _ = socket.parent().map(fs::remove_dir);
        }
    }
}

/// The socket of a folder with nothing else.
fn old_socket(folder: &Path) -> Option<PathBuf> {
    let ours = |path: &Path| {
        let meta = fs::symlink_metadata(path).ok()?;
        (meta.uid() == crate::sys::effective_user()).then_some(meta)
    };
    let age = ours(folder)?.modified().ok()?.elapsed().ok()?;
    let socket = folder.join("socket");
    let is_socket = age >= OLD && ours(&socket)?.file_type().is_socket();
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
        file.set_modified(SystemTime::now() - 2 * OLD).unwrap();
    }

    #[test]
    fn only_names_of_sockets_that_are_gone_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let (gone, listener) = made(temporary.path(), true);
        drop(listener);
        let (young, listener) = made(temporary.path(), false);
        drop(listener);
        let (alive, _listener) = made(temporary.path(), true);
        let (full, listener) = made(temporary.path(), false);
        drop(listener);
        fs::write(full.path().join("letter"), "").unwrap();
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
