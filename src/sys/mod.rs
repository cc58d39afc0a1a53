//! Linux as values and typed errors: every system call the crate makes by itself is wrapped once, here.
//!
//! Each wrapper retries `EINTR`, owns what it opened ([`Segment`], [`Map`], [`PidFd`], [`EventFd`], [`Poller`]) and
//! answers with an [`Error`] that names the call, the thing it was about and the kernel's reason. Nothing in here knows
//! about arenas, links or jobs.

#![allow(
    dead_code,
    unused_imports,
    reason = "a floor is written whole: some wrappers wait for the floor below that calls them"
)]

pub mod cores;
mod error;
pub mod event;
pub mod futex;
pub mod image;
pub mod limits;
mod map;
pub mod process;
mod segment;
pub mod socket;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use event::{EventFd, Poller};
pub use map::{HUGE, Map, PAGE, Prot, mapped_file, page_size};
pub use process::{
    Exit, PidFd, WatchPipe, close_all_except, effective_user, first_target_fd, getppid,
    ignore_sigint, kill_me_on_hangup, set_dumpable, set_pdeathsig, spawn_self,
};
pub use segment::{Access, Segment, SegmentStat};
