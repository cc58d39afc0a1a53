//! Descriptors that a service manager such as systemd passes to a program that it starts (`sd_listen_fds(3)`): the
//! first is number 3, `LISTEN_FDS` says how many there are, `LISTEN_FDNAMES` what they are called, and `LISTEN_PID` for
//! which process they are.
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

/// The numbers of the descriptors that were passed to this process.
fn numbers() -> Range<RawFd> {
    let number = |name| std::env::var(name).ok()?.parse::<i32>().ok();
    let is_for_this = number("LISTEN_PID").map(i32::cast_unsigned) == Some(std::process::id());
    let count = number("LISTEN_FDS").filter(|&count| is_for_this && count > 0);
    FIRST..FIRST.saturating_add(count.unwrap_or(0))
}

/// The socket that listens at this path, if it was passed: a copy of its descriptor.
pub(crate) fn socket_at(path: &Path) -> Option<PacketSocket> {
    numbers().find_map(|number| {
        // SAFETY: the service manager has opened it for this process, which keeps it open; a number that is no
        // descriptor is an error of the call that copies it.
        let passed = unsafe { BorrowedFd::borrow_raw(number) };
        PacketSocket::listening_at(passed.try_clone_to_owned().ok()?, path)
    })
}

/// The descriptors with names for which `is_wanted` holds, which the caller owns then. Nothing when it is asked again.
pub(crate) fn take_named(is_wanted: impl Fn(&str) -> bool) -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let numbers = numbers();
    // Only a flag: what it guards was there when the process began.
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

/// Takes ownership of a descriptor that was passed; `None` if there is none of this number.
fn take(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: borrowed for a call that fails if it is no descriptor.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open. The service manager has passed it to this process under a name of this crate, and
    // `take_named`, which passes each number once in the life of the process, is the only code that looks for these
    // names.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
