//! The user who may do nothing, and the one who may do all.

/// The user who may do nothing.
pub const NOBODY: u32 = 65534;

/// Whether this process may do what only root may: become somebody else, mount, make namespaces.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Becomes the user who may do nothing, if this is root.
pub fn become_nobody() -> std::io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    // SAFETY: numbers only; the groups are none.
    let answer = unsafe {
        libc::setgroups(0, std::ptr::null())
            | libc::setresgid(NOBODY, NOBODY, NOBODY)
            | libc::setresuid(NOBODY, NOBODY, NOBODY)
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
