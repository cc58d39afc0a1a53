//! Chooses the folder in which the channel makes its sockets. The folder must be writable. A socket's file exists there
//! for microseconds.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::sys;

/// Max length in bytes of the folder's name. The path of a socket has at most 108 bytes, including `/.tmpXXXXXX/socket`
/// and the final zero.
const MAX_NAME: usize = 108 - 19 - 1;

/// The file system that usually accepts files if the root file system is read-only.
const SHARED_MEMORY: &str = "/dev/shm";

/// Returns the folder for sockets: the folder for temporary files (`TMPDIR`) if a socket can be made there, under a
/// shorter name if the folder's name is too long for a socket; otherwise `XDG_RUNTIME_DIR` or `/dev/shm`.
///
/// The channel uses the folder that is set in the crate `tempfile`. So any choice but the first affects all code of
/// this object that uses `tempfile`. This does no harm: such code still makes its files in the same folder, under a
/// shorter name, or could make no files before.
///
/// # Errors
///
/// The reason why there is no such folder, as a sentence.
pub(crate) fn choose() -> Result<PathBuf, String> {
    let folder = tempfile::env::temp_dir();
    let Err(why) = check(&folder) else {
        return Ok(folder);
    };
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let others = run
        .into_iter()
        .chain([PathBuf::from(SHARED_MEMORY)])
        .filter(|other| other.is_absolute());
    let found = shorter_name(&folder)
        .into_iter()
        .chain(others)
        .find(|other| check(other).is_ok());
    match found {
        Some(other) if tempfile::env::override_temp_dir(&other).is_ok() => Ok(other),
        // Another thread has set a folder meanwhile, or a folder that was set before has become unusable.
        _ => Some(tempfile::env::temp_dir())
            .filter(|chosen| check(chosen).is_ok())
            .ok_or_else(|| fault(&folder, &why)),
    }
}

/// Returns `/dev/shm` if `TMPDIR` is not set and a folder can be made there. Making a folder takes 30 microseconds in
/// shared memory; in ext4, which looks for a number that no file had in the last minutes, it has taken 1.3 ms.
pub(super) fn in_memory() -> Option<PathBuf> {
    let is_chosen = std::env::var_os("TMPDIR").is_some_and(|name| !name.is_empty());
    (!is_chosen && tempfile::tempdir_in(SHARED_MEMORY).is_ok()).then(|| SHARED_MEMORY.into())
}

/// Returns the error message for a folder in which no socket can be made.
pub(super) fn fault(folder: &Path, why: &str) -> String {
    let advice = match sys::image::image().is_program {
        true => "set TMPDIR to a writable folder",
        false => "start this program with TMPDIR set to a writable folder that stays",
    };
    format!(
        "workers connect to a socket in {}, but {why}; {advice}, or make {SHARED_MEMORY} writable",
        folder.display()
    )
}

/// Checks that a socket can be made in this folder.
fn check(folder: &Path) -> Result<(), String> {
    let Some(name) = folder.to_str() else {
        return Err("its name is not UTF-8".into());
    };
    if name.len() > MAX_NAME {
        return Err(format!("its name is longer than {MAX_NAME} bytes"));
    }
    check_use(folder)
}

fn check_use(folder: &Path) -> Result<(), String> {
    match fs::metadata(folder) {
        Err(error) => Err(format!("it cannot be accessed: {error}")),
        Ok(meta) if !meta.is_dir() => Err("it is not a folder".into()),
        Ok(_) if !sys::probe::may_write(folder) => Err("it is not writable".into()),
        Ok(_) => Ok(()),
    }
}

/// Returns a short name for a folder: `/proc/…` with the number of the folder's descriptor, which stays open. Child
/// processes may use the name while this process runs. Returns `None` if the folder cannot be opened, or if this
/// function has named a folder before.
fn shorter_name(folder: &Path) -> Option<PathBuf> {
    static OPEN: Mutex<Option<OwnedFd>> = Mutex::new(None);
    check_use(folder).ok()?;
    let descriptor = sys::socket::open_folder(folder).ok()?;
    let name = format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd());
    let mut open = OPEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match &*open {
        Some(_) => None,
        None => {
            *open = Some(descriptor);
            Some(name.into())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn folders_of_no_use_are_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let long = folder.path().join("x".repeat(MAX_NAME));
        fs::create_dir(&long).unwrap();
        assert!(check(folder.path()).is_ok());
        assert!(check_use(&long).is_ok());
        for (path, why) in [
            (&folder.path().join("missing"), "cannot be accessed"),
            (&file, "not a folder"),
            (&long, "longer than"),
        ] {
            let text = check(path).unwrap_err();
            assert!(text.contains(why), "{text}");
        }
    }
}
