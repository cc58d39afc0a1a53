//! The first acts of a worker, numbered as in the README of this floor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};
use std::thread;

use nix::sys::signal::Signal;

use super::lane::{Home, Lane};
use super::pages::Pages;
#[cfg(feature = "sandbox")]
use super::sandbox;
use super::{EXIT_CANNOT_START, EXIT_LANE_PANICKED, fence, output};
use crate::arena::{AttachSpec, View};
use crate::control::{Caller, LaneStart, Welcome};
use crate::kernel::wire::{ReplyWriter, WordReader};
use crate::link::{LinkCells, Phase, steps};
use crate::sys::event::EventFd;
use crate::sys::{abort, fault, heap, inject, process};

/// What the environment tells a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The supervisor.
    pub(crate) parent: i32,
    /// Number of the first inherited descriptor: watch pipe, bell, socket of the
    /// handshake, control segment, regions.
    pub(crate) first_fd: RawFd,
    /// How many there are.
    pub(crate) fds: usize,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.parent, self.first_fd, self.fds)
    }
}

impl std::str::FromStr for Mark {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let mut next = || {
            parts
                .next()
                .ok_or_else(|| format!("malformed mark {text:?}"))
        };
        let number = |part: &str| {
            part.parse::<i32>()
                .map_err(|_| format!("malformed mark {text:?}"))
        };
        let parent = number(next()?)?;
        let first_fd = number(next()?)?;
        let fds = usize::try_from(number(next()?)?).map_err(|error| error.to_string())?;
        Ok(Self {
            parent,
            first_fd,
            fds,
        })
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
    inject::arm_worker();
    crate::sync::point!("attach.marked");
    // 2.
    let bound = !crate::sync::orphans_live();
    if bound {
        process::set_pdeathsig(Signal::SIGKILL).map_err(text)?;
        if process::getppid().as_raw() != mark.parent {
            return Err(String::new());
        }
    }
    crate::sync::point!("attach.bound");
    // 3.
    let inherited = process::adopt_inherited(mark.first_fd, mark.fds).map_err(text)?;
    crate::sync::point!("attach.adopted");
    // 4.
    process::ignore_group_signals().map_err(text)?;
    process::reset_fault_handlers().map_err(text)?;
    output::begin().map_err(text)?;
    // 5.
    let mut inherited = inherited.into_iter();
    let mut next = || inherited.next().ok_or("descriptors are missing");
    let (watch, bell, server) = (next()?, next()?, next()?);
    let mut own = Own {
        bell: bell.as_raw_fd(),
        watch: -1,
    };
    if bound {
        let watched = process::kill_me_on_hangup(watch.as_fd()).map_err(text)?;
        own.watch = watched.as_raw_fd();
        // Watching ends with the descriptor, so it stays open for good.
        std::mem::forget(watched);
    }
    drop(watch);
    crate::sync::point!("attach.watched");
    // 6.
    let build_id = crate::sys::image::image().build_id;
    let (caller, welcome) =
        Caller::hello(server.as_fd(), build_id.as_bytes()).map_err(|error| error.to_string())?;
    drop(server);
    crate::sync::point!("attach.greeted");
    // 7 to 11.
    match attach(inherited.collect(), EventFd::from_fd(bell), &welcome, own) {
        Ok(Prepared { first, stopped }) => {
            crate::sync::point!("attach.prepared");
            inject::disarm_worker();
            // 12.
            caller.ready().map_err(|error| error.to_string())?;
            crate::sync::point!("attach.ready");
            first.run();
            stopped.wait();
            output::flush();
            crate::sync::point!("stop.flushed");
            Ok(())
        }
        Err(why) => {
            caller.failed(why);
            Err(String::new())
        }
    }
}

/// Numbers of the descriptors that a worker keeps.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "sandbox"),
    allow(dead_code, reason = "for locking down")
)]
pub(super) struct Own {
    /// Rings the monitor.
    pub(super) bell: RawFd,
    /// Ends this process with the supervisor.
    pub(super) watch: RawFd,
}

/// The lanes of a worker, each on its thread: the first on this one.
struct Prepared {
    first: &'static Lane,
    /// Where all of them come to when they have stopped.
    stopped: Arc<Barrier>,
}

/// A lane, and its link.
type Link = (LaneStart, Arc<LinkCells>);

/// What a worker has when its memory is mapped.
struct Mapped {
    view: &'static View,
    /// The lane of this thread.
    first: Link,
    others: Vec<Link>,
}

fn attach(
    fds: Vec<OwnedFd>,
    bell: EventFd,
    welcome: &Welcome,
    own: Own,
) -> Result<Prepared, String> {
    // 7.
    let mapped = map(fds, welcome)?;
    let (view, others) = (mapped.view, mapped.others);
    let (start, cells) = mapped.first;
    let single = others.is_empty();
    process::set_name(&format!("{}:{}", welcome.label, welcome.worker));
    // 8.
    cells.set_phase(Phase::Starting(steps::LIMIT));
    limit(welcome, &cells, single)?;
    #[cfg(feature = "sandbox")]
    let before = if welcome.strict {
        Some(sandbox::Before::note(own, &cells)?)
    } else {
        None
    };
    #[cfg(not(feature = "sandbox"))]
    let _ = own;
    fence::install(Arc::clone(&cells));
    let home: &'static Home = Box::leak(Box::new(Home {
        view,
        region: welcome.region,
        guard: welcome.guard,
        pages: Pages::new(view, welcome.guard),
        limited: welcome.memory_limit > 0,
        single,
        bell,
        seed: welcome.seed,
        cores: welcome.cores as usize,
    }));
    let lane = Lane::begin(start, Arc::clone(&cells), home);
    // 9.
    cells.set_phase(Phase::Starting(steps::ON_START));
    if let Some(offset) = welcome.on_start {
        run_on_start(offset, lane)?;
    }
    // Not before, so that a subscriber of the program's own stays.
    #[cfg(feature = "tracing")]
    super::events::send(welcome.events, Arc::clone(&cells), single);
    // 10.
    cells.set_phase(Phase::Starting(steps::SANDBOX));
    #[cfg(feature = "sandbox")]
    if let Some(before) = before {
        if welcome.memory_limit > 0 {
            let reserved = ADDRESSES + ADDRESSES_PER_CORE * u64::from(welcome.cores);
            let more = welcome.memory_limit.saturating_add(reserved);
            crate::sys::limits::set_address_limit(more).map_err(|error| error.to_string())?;
        }
        before.lock_down(view, welcome.kernel)?;
        crate::sync::point!("attach.locked");
    }
    // 11.
    cells.set_phase(Phase::Starting(steps::LANES));
    let lanes = 1 + others.len();
    let stopped = Arc::new(Barrier::new(lanes));
    for (number, link) in (2..).zip(others) {
        start_lane(number, link, home, Arc::clone(&stopped)).map_err(|error| {
            format!("a thread for each of {lanes} lanes cannot be started: {error}")
        })?;
    }
    cells.set_phase(Phase::Starting(steps::READY));
    Ok(Prepared {
        first: lane,
        stopped,
    })
}

/// Maps the regions and finds the links in them. What is not needed any more is closed.
fn map(fds: Vec<OwnedFd>, welcome: &Welcome) -> Result<Mapped, String> {
    let spec = AttachSpec {
        fds,
        own: welcome.region,
        reservation: welcome.reservation,
        lend: !welcome.strict,
    };
    let view: &'static View = Box::leak(Box::new(
        View::attach(spec).map_err(|error| error.to_string())?,
    ));
    crate::sync::point!("attach.mapped");
    let links = welcome.lanes.iter().map(|lane| {
        let cells = LinkCells::in_view(view, lane.link as usize);
        cells.map(|cells| (*lane, Arc::new(cells)))
    });
    let links: Result<Vec<_>, _> = links.collect();
    let mut links = links.map_err(|error| error.to_string())?.into_iter();
    let first = links.next().ok_or("a worker without lanes")?;
    first.1.set_phase(Phase::Starting(steps::MAP));
    view.close_control();
    if welcome.strict {
        view.close_descriptors();
    } else {
        view.keep_readable_in_forks();
    }
    crate::sync::point!("attach.linked");
    Ok(Mapped {
        view,
        first,
        others: links.collect(),
    })
}

/// Addresses that a locked-down worker with a ceiling may have beyond that: what allocators reserve and do not touch. Who has
/// taken over the worker can fill so much that the ceiling does not count.
#[cfg(feature = "sandbox")]
const ADDRESSES: u64 = 1 << 30;
/// What glibc reserves where many threads allocate: eight heaps for each core, of 64 MiB each.
#[cfg(feature = "sandbox")]
const ADDRESSES_PER_CORE: u64 = 8 * (64 << 20);

/// Bounds what this process may have, sees to it that its end is heard of where it has several lanes, and keeps others from
/// looking into it.
fn limit(welcome: &Welcome, cells: &Arc<LinkCells>, single: bool) -> Result<(), String> {
    let text = |error: crate::sys::Error| error.to_string();
    let for_good: &'static Arc<LinkCells> = Box::leak(Box::new(Arc::clone(cells)));
    if single {
        heap::keep_freed(welcome.keep_freed);
    } else {
        fault::note_ends(&for_good.reply().culprit_lane).map_err(text)?;
        fault::number_thread(1).map_err(text)?;
    }
    if welcome.memory_limit > 0 {
        crate::sys::limits::set_data_limit(welcome.memory_limit).map_err(text)?;
        crate::sys::limits::set_stack_limit(welcome.memory_limit).map_err(text)?;
        abort::note_aborts(&for_good.reply().abort).map_err(text)?;
    }
    process::set_dumpable(false).map_err(text)
}

/// Runs the program's own code that comes before the first job.
fn run_on_start(offset: u64, lane: &'static Lane) -> Result<(), String> {
    #[allow(unsafe_code, reason = "a kernel is called by the offset of its entry")]
    // SAFETY: computed by the supervisor, of the same build, from an entry.
    let entry = unsafe { crate::kernel::from_offset(offset) };
    let mut reply = ReplyWriter::default();
    match fence::run_briefly(|| entry(WordReader::new(&[]), lane, &mut reply)) {
        fence::Outcome::Returned(Ok(())) => Ok(()),
        fence::Outcome::Returned(Err(why)) => Err(format!("on_worker_start failed: {why:?}")),
        fence::Outcome::Panicked(text) => {
            let (message, location, _) = fence::split(&text);
            Err(format!("on_worker_start panicked at {location}: {message}"))
        }
        fence::Outcome::Full(full) => Err(format!("on_worker_start: {full}")),
    }
}

/// Runs a lane on a thread of its own, which never ends: what would be dropped with it is the program's, and other lanes may still
/// run jobs.
fn start_lane(
    number: u32,
    (start, cells): Link,
    home: &'static Home,
    stopped: Arc<Barrier>,
) -> std::io::Result<()> {
    let run = move || {
        let run = || {
            // Without a stack for faults an overflow ends the process without telling whose it was.
            let _ = fault::number_thread(number);
            Lane::begin(start, cells, home).run();
        };
        // A panic here is a defect of this crate. The supervisor hears of it by the end of the process.
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            fault::note_end();
            process::exit_now(EXIT_LANE_PANICKED);
        }
        stopped.wait();
        loop {
            thread::park();
        }
    };
    let builder = thread::Builder::new().name(format!("lane {number}"));
    process::start_thread::<()>(builder, run).map(drop)
}
