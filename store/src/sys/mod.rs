//! The system calls of this crate, with errors that say what failed and what to do.

mod error;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod packet;
pub(crate) mod passed;

use std::io;
use std::os::fd::AsRawFd;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, geteuid, getrlimit};

pub(crate) use error::{Error, Result};

/// Returns the effective user id.
pub(crate) fn effective_user() -> u32 {
    geteuid().as_raw()
}

/// Checks that this process may open `more` descriptors; the error names the limit.
///
/// Linux gives a new descriptor the lowest free number, so the number of a new one approximates that of open
/// descriptors.
pub(crate) fn room_for_descriptors(more: u64) -> Result<()> {
    let Some(limit) = getrlimit(Resource::Nofile).current else {
        return Ok(());
    };
    let error = |errno| {
        Error::new(
            "open",
            errno,
            &format!("{more} more descriptors of {limit} in all"),
        )
    };
    let next = match fcntl_dupfd_cloexec(io::stdin(), 0) {
        Ok(copy) => copy.as_raw_fd(),
        // Standard input is closed, so it cannot be duplicated to learn the next number.
        Err(Errno::BADF) => return Ok(()),
        // With a limit of 0, Linux reports an invalid number.
        Err(_) => return Err(error(Errno::MFILE)),
    };
    if u64::try_from(next).unwrap_or(0).saturating_add(more) > limit {
        return Err(error(Errno::MFILE));
    }
    Ok(())
}
