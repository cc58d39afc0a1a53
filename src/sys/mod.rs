//! System calls of Linux as RAII values and typed errors. Only this module makes system calls.
//!
//! Each wrapper retries `EINTR`, owns what it opened ([`Segment`], [`Map`], [`process::PidFd`], [`event::EventFd`],
//! [`event::Poller`]) and returns an [`Error`] that names the call, its object and the errno. This module knows nothing
//! of arenas, links or jobs.

pub mod abort;
#[cfg(test)]
#[path = "../../tests/common/asked.rs"]
pub(crate) mod asked;
pub mod clock;
pub mod code_maps;
#[cfg(feature = "template")]
pub mod copy;
pub mod cores;
pub mod crash;
mod error;
pub mod event;
pub mod fault;
pub mod fork;
pub mod futex;
pub mod heap;
pub mod image;
#[cfg(feature = "template")]
mod inherited;
pub mod inject;
pub mod limits;
pub mod listener;
pub mod loader;
mod map;
pub mod oom;
#[cfg(feature = "template")]
pub mod packet;
pub mod pipe;
pub mod probe;
pub mod process;
mod random;
#[cfg(feature = "sandbox")]
pub mod sandbox;
mod segment;
pub mod short_slice;
pub mod socket;
pub mod symbols;
#[cfg(test)]
pub(crate) mod tests;
pub mod truncation;
pub mod umask;
mod unwind;

pub(crate) use error::debug_as_text;
pub use error::{Error, Result};
pub use map::{HUGE, Map, PAGE, Prot, mapped_file, page_size};
pub use process::effective_user;
pub use random::random;
#[cfg(test)]
pub use segment::memfd_create;
pub use segment::{Access, Identity, Segment, SegmentStat};

// Short paths for tests.
#[cfg(test)]
pub use {
    event::{EventFd, Poller},
    process::{
        Exit, PidFd, WatchPipe, close_all_except, first_target_fd, getppid, ignore_group_signals,
        kill_me_on_hangup, set_dumpable, set_pdeathsig, spawn,
    },
};
