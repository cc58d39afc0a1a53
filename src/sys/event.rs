//! Event descriptors (`eventfd`) and waiting for several descriptors (`epoll`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd as RawEventFd};

use super::error::{Error, Result, retry_undisturbed};
use super::inject::{allowed, undisturbed};
use super::segment::Identity;

/// A non-blocking, close-on-exec event counter that wakes the threads polling it.
#[derive(Debug)]
pub struct EventFd {
    raw: RawEventFd,
    identity: Identity,
}

impl EventFd {
    /// Creates an event descriptor that is not signalled.
    pub fn new() -> Result<EventFd> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        allowed()
            .and_then(|()| RawEventFd::from_value_and_flags(0, flags))
            .map(EventFd::from)
            .map_err(|errno| Error::new("eventfd", errno, "an event descriptor"))
    }

    /// Takes ownership of an inherited event descriptor.
    pub fn from_fd(fd: OwnedFd) -> EventFd {
        // SAFETY: the caller passes ownership of the descriptor. It is an eventfd that the supervisor made for this
        // process; if it is not, `ring` fails.
        EventFd::from(unsafe { RawEventFd::from_owned_fd(fd) })
    }

    /// Returns false if code of this process has closed the descriptor, whose number another file may have now.
    pub fn is_open(&self) -> bool {
        self.identity.is_of(&self.raw)
    }

    /// Makes the descriptor readable. Fails with `EAGAIN` if the counter is full; then the descriptor is readable
    /// already.
    pub fn ring(&self) -> Result<()> {
        match retry_undisturbed(|| self.raw.write(1)) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(Error::new("write", errno, "an event descriptor")),
        }
    }

    /// Makes the descriptor unreadable again. Returns whether it was readable.
    pub fn clear(&self) -> Result<bool> {
        match retry_undisturbed(|| self.raw.read()) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(Error::new("read", errno, "an event descriptor")),
        }
    }

    /// Returns the descriptor to poll.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl From<RawEventFd> for EventFd {
    fn from(raw: RawEventFd) -> Self {
        let identity = Identity::of(&raw);
        Self { raw, identity }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

/// Waits until one of several descriptors is readable or hung up.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
}

impl Poller {
    /// Creates a poller that watches no descriptor.
    pub fn new() -> Result<Poller> {
        allowed()
            .and_then(|()| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC))
            .map(|epoll| Poller { epoll })
            .map_err(|errno| Error::new("epoll_create1", errno, "a poller"))
    }

    /// Watches `fd` for input and hang-up until `fd` is removed or closed. [`Poller::wait`] reports `fd` by `token`.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.add_with(fd, EpollFlags::EPOLLIN, token)
    }

    /// Like [`add`](Poller::add), but reports `fd` once for each arrival of input, whether it was read or not. What has
    /// arrived before counts too.
    pub fn add_edge(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        self.add_with(fd, EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token)
    }

    fn add_with(&self, fd: BorrowedFd<'_>, flags: EpollFlags, token: u64) -> Result<()> {
        allowed()
            .and_then(|()| self.epoll.add(fd, EpollEvent::new(flags, token)))
            .map_err(|errno| Error::new("epoll_ctl(ADD)", errno, format!("token {token}")))
    }

    /// Stops watching `fd`.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<()> {
        allowed()
            .and_then(|()| self.epoll.delete(fd))
            .map_err(|errno| Error::new("epoll_ctl(DEL)", errno, "a descriptor"))
    }

    /// Waits until a descriptor is ready, at most for `timeout` (rounded up to a millisecond). Returns the tokens of
    /// the descriptors that are ready.
    ///
    /// An interrupted wait ends early and returns no tokens: callers check their own state after each wait anyway.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Vec<u64>> {
        let timeout = match timeout {
            None => EpollTimeout::NONE,
            Some(time) => {
                let millis = time.as_micros().div_ceil(1000).min(i32::MAX as u128);
                EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
            }
        };
        let mut events = [EpollEvent::empty(); 64];
        let ready = match undisturbed().and_then(|()| self.epoll.wait(&mut events, timeout)) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(Error::new("epoll_wait", errno, "a poller")),
        };
        Ok(events.iter().take(ready).map(EpollEvent::data).collect())
    }
}
