//! The first acts of a worker, numbered as in the README of this floor.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::signal::Signal;

use super::lane::Lane;
use super::{EXIT_CANNOT_START, fence};
use crate::arena::{AttachSpec, View};
use crate::control::{Caller, Welcome};
use crate::kernel::wire::{ReplyWriter, WordReader};
use crate::link::{LINK_BYTES, LinkCells, REPLY_AT, Taker, link_at};
use crate::sys::event::EventFd;
use crate::sys::process;

/// Which inherited descriptor is what, counted from the first.
pub(crate) mod fds {
    /// Read end of the pipe whose hang-up ends the worker.
    pub(crate) const WATCH: usize = 0;
    /// Eventfd that rings the monitor.
    pub(crate) const BELL: usize = 1;
    /// The control segment; the regions follow.
    pub(crate) const CONTROL: usize = 2;
}

/// What the environment tells a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The supervisor.
    pub(crate) parent: i32,
    /// Number of the first inherited descriptor.
    pub(crate) first_fd: RawFd,
    /// How many there are.
    pub(crate) fds: usize,
    /// Name of the handshake's server.
    pub(crate) server: String,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}:{}", self.parent, self.first_fd, self.fds, self.server)
    }
}

impl std::str::FromStr for Mark {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(4, ':');
        let mut next = || parts.next().ok_or_else(|| format!("malformed mark {text:?}"));
        let number = |part: &str| part.parse::<i32>().map_err(|_| format!("malformed mark {text:?}"));
        let parent = number(next()?)?;
        let first_fd = number(next()?)?;
        let fds = usize::try_from(number(next()?)?).map_err(|error| error.to_string())?;
        Ok(Self { parent, first_fd, fds, server: next()?.to_owned() })
    }
}

/// The whole life of a worker.
pub(super) fn main(mark: &str) -> ! {
    let code = match mark.parse::<Mark>().and_then(|mark| live(&mark)) {
        Ok(()) => 0,
        Err(why) => {
            if !why.is_empty() {
                eprintln!("arenite worker {}: {why}", std::process::id());
            }
            EXIT_CANNOT_START
        }
    };
    process::exit_now(code)
}

/// An empty error has been reported already.
fn live(mark: &Mark) -> Result<(), String> {
    let text = |error: crate::sys::Error| error.to_string();
    // 2.
    process::set_pdeathsig(Signal::SIGKILL).map_err(text)?;
    if process::getppid().as_raw() != mark.parent {
        return Err(String::new());
    }
    // 3.
    let numbers: Vec<RawFd> = (0..mark.fds as RawFd).map(|n| mark.first_fd + n).collect();
    process::close_all_except(&numbers).map_err(text)?;
    let inherited: Vec<OwnedFd> = numbers
        .iter()
        // SAFETY: the supervisor opened exactly these for this process, and nothing here owns them yet.
        .map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect();
    // 4.
    process::ignore_sigint().map_err(text)?;
    process::ignore_sigpipe().map_err(text)?;
    // 5.
    let mut inherited = inherited.into_iter();
    let (watch, bell) = match (inherited.next(), inherited.next()) {
        (Some(watch), Some(bell)) => (watch, bell),
        _ => return Err("descriptors are missing".into()),
    };
    let watched = process::kill_me_on_hangup(std::os::fd::AsFd::as_fd(&watch)).map_err(text)?;
    // Watching ends with the descriptor, so it stays open for good.
    let _ = watched.as_raw_fd();
    std::mem::forget(watched);
    drop(watch);
    // 6.
    let build_id = crate::sys::image::image().build_id;
    let (caller, welcome) =
        Caller::hello(&mark.server, build_id.as_bytes()).map_err(|error| error.to_string())?;
    // 7 to 9.
    match attach(inherited.collect(), EventFd::from_fd(bell), &welcome) {
        Ok(lane) => {
            // 10.
            caller.ready().map_err(|error| error.to_string())?;
            lane.run();
            Ok(())
        }
        Err(why) => {
            caller.failed(why);
            Err(String::new())
        }
    }
}

fn attach(fds: Vec<OwnedFd>, bell: EventFd, welcome: &Welcome) -> Result<&'static Lane, String> {
    let spec = AttachSpec {
        fds,
        own: welcome.region,
        reservation: welcome.reservation,
        lend: true,
    };
    let text = |error: crate::sys::Error| error.to_string();
    let mut view = View::attach(spec).map_err(|error| error.to_string())?;
    let link = link_at(welcome.worker as usize);
    let body = view.control_body();
    let reply = view
        .control_writable(link + REPLY_AT..link + LINK_BYTES)
        .map_err(|error| error.to_string())?;
    let cells = {
        let (hub, post) = match (body.at(0), body.at(link)) {
            (Some(hub), Some(post)) => (hub, post),
            _ => return Err("the control segment is too short for this worker's link".into()),
        };
        let base = reply.base();
        let keep = Arc::new((body, reply));
        // SAFETY: the supervisor laid the link out there (same build, so the same layout), and both
        // maps live as long as the cells.
        unsafe { LinkCells::from_mapped(hub, post, base, keep) }
    };
    // 8.
    if welcome.memory_limit > 0 {
        crate::sys::limits::set_data_limit(welcome.memory_limit).map_err(text)?;
    }
    process::set_dumpable(false).map_err(text)?;
    fence::install();
    let taker = Taker::new(Arc::new(cells), welcome.position, welcome.grants);
    let lane = Lane::new(taker, view, welcome.region, welcome.guard, bell);
    let lane: &'static Lane = Box::leak(Box::new(lane));
    // 9.
    if let Some(offset) = welcome.on_start {
        // SAFETY: computed by the supervisor, of the same build, from an entry.
        let entry = unsafe { crate::kernel::from_offset(offset) };
        let mut reply = ReplyWriter::default();
        match fence::run(|| entry(WordReader::new(&[]), lane, &mut reply)) {
            fence::Outcome::Returned(Ok(())) => {}
            fence::Outcome::Returned(Err(why)) => {
                return Err(format!("on_worker_start failed: {why:?}"));
            }
            fence::Outcome::Panicked(text) => {
                let (message, location, _) = fence::split(&text);
                return Err(format!("on_worker_start panicked at {location}: {message}"));
            }
            fence::Outcome::Full(full) => return Err(format!("on_worker_start: {full}")),
        }
    }
    Ok(lane)
}
