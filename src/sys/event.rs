//! Doorbells and waiting on several descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd as RawEventFd};

use super::error::{Error, Result, retry_undisturbed};
use super::inject::{allowed, undisturbed};

/// A counter that wakes whoever polls it; non-blocking and close-on-exec.
#[derive(Debug)]
pub struct EventFd {
    raw: RawEventFd,
}

impl EventFd {
    /// A silent one.
    pub fn new() -> Result<EventFd> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        allowed()
            .and_then(|()| RawEventFd::from_value_and_flags(0, flags))
            .map(|raw| EventFd { raw })
            .map_err(|errno| Error::new("eventfd", errno, "a doorbell"))
    }

    /// One that was inherited.
    pub fn from_fd(fd: OwnedFd) -> EventFd {
        // SAFETY: the descriptor is an eventfd that the supervisor made for this; wrong ones only make ring fail.
        let raw = unsafe { RawEventFd::from_owned_fd(fd) };
        EventFd { raw }
    }

    /// Makes it readable. A counter that is full (`EAGAIN`) is readable already, so that is not an error.
    pub fn ring(&self) -> Result<()> {
        match retry_undisturbed(|| self.raw.write(1)) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(Error::new("write", errno, "a doorbell")),
        }
    }

    /// Makes it silent again; says whether it had been rung.
    pub fn clear(&self) -> Result<bool> {
        match retry_undisturbed(|| self.raw.read()) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(Error::new("read", errno, "a doorbell")),
        }
    }

    /// The descriptor to poll.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

/// Waits until one of several descriptors becomes readable or is hung up.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
}

impl Poller {
    /// One that watches nothing.
    pub fn new() -> Result<Poller> {
        allowed()
            .and_then(|()| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC))
            .map(|epoll| Poller { epoll })
            .map_err(|errno| Error::new("epoll_create1", errno, "a poller"))
    }

    /// Watches `fd` for readable and hang-up, until it is removed or closed; `token` names it in [`Poller::wait`].
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        allowed()
            .and_then(|()| {
                self.epoll
                    .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))
            })
            .map_err(|errno| Error::new("epoll_ctl(ADD)", errno, format!("token {token}")))
    }

    /// Stops watching `fd`.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<()> {
        allowed()
            .and_then(|()| self.epoll.delete(fd))
            .map_err(|errno| Error::new("epoll_ctl(DEL)", errno, "a descriptor"))
    }

    /// Sleeps until something is ready, at most for `timeout` (rounded up to a millisecond); the tokens that are.
    ///
    /// An interrupted sleep ends early with no tokens: whoever waits looks at its own state anyway.
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
