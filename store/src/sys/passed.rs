//! Descriptors that a service manager such as systemd passes to a program that it starts (`sd_listen_fds(3)`): the
//! first is number 3, `LISTEN_FDS` is their number, `LISTEN_FDNAMES` their names, and `LISTEN_PID` the process that
//! they are for.
#![allow(
    unsafe_code,
    reason = "the environment names descriptors by their numbers"
)]

use std::ops::Range;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

use super::packet::PacketSocket;

/// The first descriptor that a service manager passes.
const FIRST: RawFd = 3;

/// Returns the numbers of the descriptors that were passed to this process.
fn numbers() -> Range<RawFd> {
    let number = |name| std::env::var(name).ok()?.parse::<i32>().ok();
    let is_for_this = number("LISTEN_PID").map(i32::cast_unsigned) == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|&count| is_for_this && count > 0);
    FIRST..FIRST.saturating_add(count.unwrap_or(0))
}

/// Returns a copy of the descriptor of the socket that listens at this path, if it was passed.
pub(crate) fn socket_at(path: &Path) -> Option<PacketSocket> {
    numbers().find_map(|number| {
        // SAFETY: borrowed only for the call that copies it. The service manager has opened it for this process, and no
        // code of this process closes it. If the number is no descriptor, the call returns an error.
        let passed = unsafe { BorrowedFd::borrow_raw(number) };
        PacketSocket::listening_at(passed.try_clone_to_owned().ok()?, path)
    })
}

/// Returns the descriptors with names for which `is_wanted` holds, as owned descriptors. The second call returns none.
pub(crate) fn take_named(is_wanted: impl Fn(&str) -> bool) -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let numbers = numbers();
    // Relaxed: only a flag. The descriptors and the variables that it guards existed when the process began.
    if numbers.is_empty() || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let wanted = names
        .split(':')
        .zip(numbers)
        .filter(|(name, _)| is_wanted(name));
    wanted
        .filter_map(|(name, number)| Some((name.to_owned(), take(number)?)))
        .collect()
}

/// Takes ownership of a descriptor that was passed. Returns `None` if this number is no open descriptor.
fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: borrowed for one call, which fails if the number is no descriptor.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC).ok()?;
    // SAFETY: the descriptor is open, and no other code owns it: the service manager has passed it to this process
    // under a name of this crate, and only `take_named` looks for these names, once in the life of the process.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
