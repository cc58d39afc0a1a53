//! An unprivileged user, and root; and what programs of these tests are asked for.

use arenite::{Backing, Engine};

use crate::harness::ABORTED;

/// The user id of Linux' unprivileged user.
pub const UNPRIVILEGED: u32 = 65534;

/// Whether this process may do what only root may: become another user, mount, create namespaces.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Becomes the unprivileged user, if this is root.
pub fn become_unprivileged() -> std::io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    // SAFETY: takes numbers only; the list of groups is empty.
    let answer = unsafe {
        libc::setgroups(0, std::ptr::null())
            | libc::setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
            | libc::setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// The variable with the backing of a program's arena: `named` or `memfd`.
pub const BACKING: &str = "ARENITE_HOSTILE_BACKING";

pub fn asked_backing() -> Backing {
    match std::env::var(BACKING).as_deref() {
        Ok("named") => Backing::Named,
        _ => Backing::Memfd,
    }
}

/// Ends a worker.
pub fn lose_a_worker(engine: &Engine) {
    let aborts = engine.submit(|| -> u8 { std::process::abort() }, ());
    let error = aborts.wait().unwrap_err();
    assert_eq!(*error.kind(), ABORTED, "{error}");
}
