//! Event descriptors (`eventfd`) and waiting for several descriptors (`epoll`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::{Errno, retry_on_intr};

use super::{Error, Result};

/// An event counter, close-on-exec, that wakes the threads that wait for it with a [`Poller`].
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    /// Creates an event counter that is not readable.
    pub(crate) fn new() -> Result<EventFd> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(EventFd)
            .map_err(|errno| Error::new("eventfd", errno, "an event descriptor"))
    }

    /// Makes the descriptor readable.
    pub(crate) fn ring(&self) -> Result<()> {
        match retry_on_intr(|| rustix::io::write(&self.0, &1_u64.to_ne_bytes())) {
            // A full counter is readable already.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(Error::new("write", errno, "an event descriptor")),
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of several descriptors is readable or hung up.
#[derive(Debug)]
pub(crate) struct Poller(OwnedFd);

/// The maximum number of descriptors that one wait reports.
const EVENTS: usize = 64;

impl Poller {
    /// Creates a poller that watches no descriptor.
    pub(crate) fn new() -> Result<Poller> {
        epoll::create(CreateFlags::CLOEXEC)
            .map(Poller)
            .map_err(|errno| Error::new("epoll_create1", errno, "a poller"))
    }

    /// Watches `fd` for input and hang-up until it is removed or closed; [`Poller::wait`] reports it by `token`.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> Result<()> {
        epoll::add(&self.0, fd, EventData::new_u64(token), EventFlags::IN)
            .map_err(|errno| Error::new("epoll_ctl(ADD)", errno, &format!("token {token}")))
    }

    /// Stops watching `fd`.
    pub(crate) fn remove(&self, fd: impl AsFd) -> Result<()> {
        epoll::delete(&self.0, fd)
            .map_err(|errno| Error::new("epoll_ctl(DEL)", errno, "a descriptor"))
    }

    /// Waits until a descriptor is ready, for at most `timeout` (rounded up to a millisecond). Returns the tokens of
    /// the descriptors that are ready.
    ///
    /// A signal ends the wait early, without a token: callers check their own state after each wait.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<Vec<u64>> {
        let timeout = timeout.map(|time| {
            let millis = time.as_micros().div_ceil(1000).min(i32::MAX as u128) as i64;
            Timespec {
                tv_sec: millis / 1000,
                tv_nsec: millis % 1000 * 1_000_000,
            }
        });
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.0, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {
                Ok(events.into_iter().map(|event| event.data.u64()).collect())
            }
            Err(errno) => Err(Error::new("epoll_wait", errno, "a poller")),
        }
    }
}
