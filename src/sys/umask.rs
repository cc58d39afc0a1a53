//! Creating files that only this user can access, regardless of the program's umask.

use std::thread;

use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};

use super::error::{Error, Result};
use super::inject::allowed;

/// Runs `make` with a umask that gives other users no access to the files and folders it creates.
///
/// `make` runs on a thread with a umask of its own. If a container forbids such a thread (`unshare`), the umask of the
/// whole process changes while `make` runs, and files that other threads create meanwhile are private too.
pub fn with_private_umask<T: Send>(make: impl FnOnce() -> T + Send) -> Result<T> {
    let own = Mode::S_IRWXG | Mode::S_IRWXO;
    thread::scope(|threads| {
        let thread = move || {
            let is_own = super::process::keep_own_folders();
            let before = umask(own);
            let made = make();
            if !is_own {
                umask(before);
            }
            made
        };
        let started = allowed()
            .map_err(std::io::Error::from)
            .and_then(|()| thread::Builder::new().spawn_scoped(threads, thread));
        let error = |errno| Error::new("clone", errno, "a thread with a umask of its own");
        let started = started
            .map_err(|why| error(Errno::from_raw(why.raw_os_error().unwrap_or(libc::EAGAIN))))?;
        // A panic in `make` continues in the caller.
        Ok(started
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn other_users_have_no_access_and_the_umask_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        let before = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let path = folder.path().join("made");
        with_private_umask(|| std::fs::create_dir(&path))
            .unwrap()
            .unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let after = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let of = |status: &str| {
            status
                .lines()
                .find(|line| line.starts_with("Umask:"))
                .map(str::to_owned)
        };
        assert_eq!(of(&before), of(&after));
    }
}
