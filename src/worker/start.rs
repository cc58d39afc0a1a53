//! The start of a worker, in the numbered steps of the README.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Template;
use super::lane::{Lane, WorkerContext};
use super::pages::Pages;
#[cfg(feature = "sandbox")]
use super::sandbox;
#[cfg(feature = "template")]
use super::template::{self, ForkedTemplate};
use super::{EXIT_CANNOT_START, EXIT_CANNOT_START_NOW, EXIT_LANE_PANICKED, output, panics};
use crate::arena::{AttachSpec, View};
use crate::control::{Client, LaneStart, OnStart, ProgramId, StartFailure, Welcome};
use crate::kernel::Failure;
use crate::kernel::wire::{ReplyWriter, WordReader};
use crate::link::{LinkCells, Phase, steps};
use crate::sys::crash::Located;
use crate::sys::event::EventFd;
use crate::sys::process::Program;
use crate::sys::{abort, crash, fault, heap, inject, process};

/// The value of the environment variable that makes a process a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Process id of the supervisor.
    pub(crate) parent: i32,
    /// The number of the first inherited descriptor. The order is watch pipe, monitor event, handshake socket, control
    /// segment, regions.
    pub(crate) first_fd: RawFd,
    /// The number of inherited descriptors.
    pub(crate) fds: usize,
    /// Whether the process becomes a template for workers. A template inherits the watch pipe and a socket.
    pub(crate) is_template: bool,
    /// Whether the process is a copy of the program itself. The thread that has forked it may end earlier.
    pub(crate) is_forked: bool,
}

impl Mark {
    /// Returns the mark of a process of `program` that inherits `fds`, and as its standard streams `standard`.
    pub(crate) fn new(
        program: &Program,
        fds: &[BorrowedFd<'_>],
        standard: &[BorrowedFd<'_>; 3],
    ) -> Self {
        let all: Vec<_> = fds.iter().chain(standard).copied().collect();
        Self {
            parent: std::process::id() as i32,
            first_fd: process::first_target_fd(program, &all),
            fds: fds.len(),
            is_template: false,
            is_forked: false,
        }
    }

    /// Starts the process, with the arguments of [`new`](Self::new).
    pub(crate) fn spawn(
        &self,
        program: &Program,
        fds: &[BorrowedFd<'_>],
        standard: [BorrowedFd<'_>; 3],
    ) -> crate::sys::Result<Pid> {
        let variables = [(super::MARK, self.to_string())];
        process::spawn(program, &variables, fds, self.first_fd, Some(standard))
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match (self.is_template, self.is_forked) {
            (true, _) => ":template",
            (false, true) => ":forked",
            (false, false) => "",
        };
        write!(f, "{}:{}:{}{kind}", self.parent, self.first_fd, self.fds)
    }
}

impl std::str::FromStr for Mark {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let kind = |kind: &str| text.strip_suffix(kind);
        let (template, forked) = (kind(":template"), kind(":forked"));
        let (is_template, is_forked) = (template.is_some(), forked.is_some());
        let text = template.or(forked).unwrap_or(text);
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
            is_template,
            is_forked,
        })
    }
}

/// Runs a worker until it stops. If the mark says so, the process is first a template.
pub(super) fn main(mark: &str, identity: Option<&[u8]>, template: Option<&dyn Template>) -> ! {
    let run = |mark: Mark| match (mark.is_template, template) {
        (false, _) => start_and_run(&mark, identity, None),
        #[cfg(feature = "template")]
        (true, Some(template)) => {
            let (mark, fds) = template::serve(&mark, template)?;
            start_and_run(&mark, identity, Some(fds))
        }
        (true, _) => Err("the worker program is to be a template: it has to call \
             arenite::run_worker_from_template"
            .into()),
    };
    let parsed = mark.parse::<Mark>().map_err(StartFailure::from);
    end(parsed.and_then(run))
}

/// Runs a template that is a fork of the program, and in its copies the workers.
#[cfg(feature = "template")]
pub(super) fn run_forked(fork: ForkedTemplate, identity: &[u8], template: &dyn Template) -> ! {
    let copied = fork.serve(template);
    end(copied.and_then(|(mark, fds)| start_and_run(&mark, Some(identity), Some(fds))))
}

/// Ends this process, with the reason if it could not be a worker.
fn end(outcome: Result<(), StartFailure>) -> ! {
    let code = match outcome {
        Ok(()) => 0,
        Err(StartFailure { why, may_pass }) => {
            if !why.is_empty() {
                report(&why);
            }
            match may_pass {
                true => EXIT_CANNOT_START_NOW,
                false => EXIT_CANNOT_START,
            }
        }
    };
    process::exit_now(code)
}

/// Prints why this process cannot be a worker. Ignores a failure: perhaps no process reads the output.
pub(super) fn report(why: &str) {
    let _ = writeln!(
        std::io::stderr(),
        "arenite worker {}: {why}",
        std::process::id()
    );
}

/// Starts the worker, runs its jobs and stops it. An error with an empty text need not be reported, because it was
/// reported already, or no process would receive the report.
///
/// `adopted`: the descriptors of this process if it is the copy of a template, which has no other descriptors;
/// otherwise `None`.
fn start_and_run(
    mark: &Mark,
    identity: Option<&[u8]>,
    adopted: Option<Vec<OwnedFd>>,
) -> Result<(), StartFailure> {
    inject::arm_worker();
    crate::sync::point!("attach.marked");
    // 2. Bind the lifetime of this process to that of the supervisor.
    let bound = bind(mark.parent, mark.is_forked)?;
    crate::sync::point!("attach.bound");
    // 3. Close all other descriptors. If threads might use them, this process does not become a worker. A worker
    // program may have threads on purpose, so for such a program they are closed without this check.
    let threads = match identity {
        None => process::threads_with_descriptors(mark.first_fd, mark.fds),
        Some(_) => 0,
    };
    let inherited = match adopted {
        Some(fds) => fds,
        None => process::adopt_inherited(mark.first_fd, mark.fds, threads == 0)?,
    };
    crate::sync::point!("attach.adopted");
    // 4. Signals and output.
    process::ignore_group_signals()?;
    process::reset_fault_handlers()?;
    output::install()?;
    // 5. The watch pipe.
    let mut inherited = inherited.into_iter();
    let mut next = || inherited.next().ok_or("descriptors are missing");
    let (watch, monitor_event, server) = (next()?, next()?, next()?);
    let mut own = OwnFds {
        monitor_event: monitor_event.as_raw_fd(),
        watch: -1,
    };
    if bound {
        let watched = process::kill_me_on_hangup(watch.as_fd())?;
        own.watch = watched.as_raw_fd();
        // Never closed: closing would end the watch.
        std::mem::forget(watched);
    }
    drop(watch);
    crate::sync::point!("attach.watched");
    // 6. Hello.
    let id = ProgramId::of(identity.unwrap_or_default().to_vec());
    let (client, welcome) = Client::hello(server.as_fd(), id)?;
    drop(server);
    if threads > 0 {
        let why = format!(
            "the program had started {threads} threads before it called arenite::init(), and workers, which are copies of \
             it, do so too: call arenite::init() before the runtime, first in main (with #[tokio::main], write out main; \
             the documentation of init shows how)"
        );
        client.failed(why.into());
        return Err("".into());
    }
    crate::sync::point!("attach.greeted");
    // 7. to 11.
    let monitor_event = EventFd::from_fd(monitor_event);
    match attach(inherited.collect(), monitor_event, &welcome, own) {
        Ok(Prepared {
            first,
            stopped,
            code,
        }) => {
            crate::sync::point!("attach.prepared");
            inject::disarm_worker();
            // 12. Ready.
            client.ready(code)?;
            crate::sync::point!("attach.ready");
            first.run();
            stopped.wait();
            super::run_at_end();
            output::flush();
            crate::sync::point!("stop.flushed");
            Ok(())
        }
        Err(why) => {
            client.failed(why);
            Err("".into())
        }
    }
}

/// Makes this process end with its supervisor. Returns false in tests that let orphans live.
///
/// A copy of the program ends with the watch pipe only: the thread that has forked it may end earlier.
pub(super) fn bind(parent: i32, is_forked: bool) -> Result<bool, StartFailure> {
    let bound = !crate::sync::orphans_live();
    if bound {
        if !is_forked {
            process::set_pdeathsig(Signal::SIGKILL)?;
        }
        if process::getppid().as_raw() != parent {
            // Nobody waits for this worker any more: it ends without a word, as it would have a moment later.
            if !process::is_running(parent) {
                return Err("".into());
            }
            return Err(format!(
                "process {parent}, which has started it, is not its parent: the worker program starts another process, \
                 instead of running the worker in its own (a script must use `exec`)"
            )
            .into());
        }
    }
    Ok(bound)
}

/// Descriptors that a worker keeps open.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "sandbox"),
    allow(dead_code, reason = "used by the sandbox")
)]
pub(super) struct OwnFds {
    /// Wakes the monitor.
    pub(super) monitor_event: RawFd,
    /// The watch pipe, which ends this process when the supervisor ends.
    pub(super) watch: RawFd,
}

/// The lanes of a worker.
struct Prepared {
    /// The lane of this thread. The other lanes are running already.
    first: &'static Lane,
    /// The barrier at which each lane waits when it has stopped.
    stopped: Arc<Barrier>,
    /// The lines of `/proc/self/maps` for code of files, in a sandbox; otherwise empty.
    code: Vec<u8>,
}

/// The start position of a lane, and its link.
type LaneLink = (LaneStart, Arc<LinkCells>);

/// The memory of a worker, mapped.
struct Mapped {
    view: &'static View,
    /// The lane of this thread.
    first: LaneLink,
    others: Vec<LaneLink>,
}

fn attach(
    fds: Vec<OwnedFd>,
    monitor_event: EventFd,
    welcome: &Welcome,
    own: OwnFds,
) -> Result<Prepared, StartFailure> {
    // 7. Map.
    let mapped = map(fds, welcome)?;
    let (view, others) = (mapped.view, mapped.others);
    let (start, cells) = mapped.first;
    let has_one_lane = others.is_empty();
    process::set_name(&format!("{}:{}", welcome.label, welcome.worker));
    super::set_identity(welcome);
    // 8. Limits and handlers.
    cells.set_phase(Phase::Starting(steps::LIMIT));
    limit(welcome, &cells, view, has_one_lane)?;
    #[cfg(feature = "sandbox")]
    let pre_sandbox = if welcome.sandboxed {
        let has_limit = welcome.memory_limit > 0;
        Some(sandbox::PreSandbox::record(own, &cells, has_limit)?)
    } else {
        None
    };
    #[cfg(not(feature = "sandbox"))]
    let _ = own;
    panics::install(Arc::clone(&cells));
    // A sandbox with a memory limit keeps memory writable.
    let guard = welcome.guard && !(welcome.sandboxed && welcome.memory_limit > 0);
    let worker: &'static WorkerContext = Box::leak(Box::new(WorkerContext {
        view,
        region: welcome.region,
        guard,
        pages: Pages::new(view, guard),
        retain: welcome.retain,
        has_memory_limit: welcome.memory_limit > 0,
        has_one_lane,
        monitor_event,
        seed: welcome.seed,
        cores: welcome.cores as usize,
    }));
    let lane = Lane::begin(start, Arc::clone(&cells), worker);
    // 9. Code of the program.
    cells.set_phase(Phase::Starting(steps::ON_START));
    if let Some(call) = &welcome.on_start {
        run_on_start(call, lane)?;
    }
    crash::note_crashes_first()?;
    // Installed after the program's code has run, so that a subscriber of the program is not replaced.
    #[cfg(feature = "tracing")]
    super::events::install(welcome.events, Arc::clone(&cells), has_one_lane);
    // 10. The sandbox.
    cells.set_phase(Phase::Starting(steps::SANDBOX));
    #[cfg_attr(
        not(feature = "sandbox"),
        allow(unused_mut, reason = "set by the sandbox")
    )]
    let mut code = Vec::new();
    #[cfg(feature = "sandbox")]
    if let Some(pre_sandbox) = pre_sandbox {
        if welcome.memory_limit > 0 {
            let reserved = RESERVED_ADDRESSES + RESERVED_PER_CORE * u64::from(welcome.cores);
            let more = welcome.memory_limit.saturating_add(reserved);
            crate::sys::limits::set_address_limit(more)?;
        }
        code = pre_sandbox.enter(view, welcome.kernel)?;
        crate::sync::point!("attach.locked");
    }
    // 11. The other lanes.
    cells.set_phase(Phase::Starting(steps::LANES));
    let lanes = 1 + others.len();
    let stopped = Arc::new(Barrier::new(lanes));
    for (number, link) in (2..).zip(others) {
        start_lane(number, link, worker, Arc::clone(&stopped)).map_err(|error| {
            let what = format!("a thread for each of {lanes} lanes cannot be started");
            StartFailure::from(error).context(&what)
        })?;
    }
    cells.set_phase(Phase::Starting(steps::READY));
    Ok(Prepared {
        first: lane,
        stopped,
        code,
    })
}

/// Maps the regions and finds the links. Closes descriptors that are no longer needed.
fn map(fds: Vec<OwnedFd>, welcome: &Welcome) -> Result<Mapped, StartFailure> {
    let spec = AttachSpec {
        fds,
        own: welcome.region,
        reservation: welcome.reservation,
        lend: !welcome.sandboxed,
    };
    let view: &'static View = Box::leak(Box::new(View::attach(spec)?));
    crate::sync::point!("attach.mapped");
    let links = welcome.lanes.iter().map(|lane| {
        let cells = LinkCells::in_view(view, lane.link as usize);
        cells.map(|cells| (*lane, Arc::new(cells)))
    });
    let links: Result<Vec<_>, _> = links.collect();
    let mut links = links?.into_iter();
    let first = links.next().ok_or("a worker without lanes")?;
    first.1.set_phase(Phase::Starting(steps::MAP));
    view.close_control();
    if welcome.sandboxed {
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

/// Address space beyond the memory limit that a sandboxed worker may use: memory that allocators reserve and do not
/// touch. The bound also limits the page tables of the worker. If Linux has no seccomp, hostile code can fill this much
/// memory and make it read-only, so that the memory limit does not count it.
#[cfg(feature = "sandbox")]
const RESERVED_ADDRESSES: u64 = 1 << 30;
/// Address space per core that glibc reserves for many allocating threads: eight heaps of 64 MiB each.
#[cfg(feature = "sandbox")]
const RESERVED_PER_CORE: u64 = 8 * (64 << 20);

/// Sets the limits of this process, installs the handlers that record its end, and forbids core dumps. In a sandbox
/// also forbids debuggers.
fn limit(
    welcome: &Welcome,
    cells: &Arc<LinkCells>,
    view: &'static View,
    has_one_lane: bool,
) -> Result<(), StartFailure> {
    let cells: &'static Arc<LinkCells> = Box::leak(Box::new(Arc::clone(cells)));
    let _ = VIEW.set(view);
    crash::note_crashes(&cells.reply().crash, locate)?;
    crash::prepare_thread()?;
    if has_one_lane {
        heap::keep_freed(welcome.keep_freed);
    } else {
        fault::note_ends(&cells.reply().culprit_lane)?;
    }
    fault::know_thread(u32::from(!has_one_lane));
    if welcome.memory_limit > 0 {
        crate::sys::limits::set_data_limit(welcome.memory_limit)?;
        crate::sys::limits::set_stack_limit(welcome.memory_limit)?;
        abort::note_aborts(&cells.reply().abort);
    }
    if welcome.sandboxed {
        return Ok(process::set_dumpable(false)?);
    }
    // A core file would contain the whole arena, and writing it would delay the report of this worker's end.
    Ok(crate::sys::limits::forbid_core_dumps()?)
}

/// The view of the arena in this process.
static VIEW: OnceLock<&'static View> = OnceLock::new();

/// Returns the location of an address in the arena. Async-signal-safe.
fn locate(address: usize) -> Option<Located> {
    VIEW.get()?.locate(address)
}

/// Runs `on_worker_start`.
fn run_on_start(call: &OnStart, lane: &'static Lane) -> Result<(), String> {
    #[allow(unsafe_code, reason = "a kernel is called by the offset of its entry")]
    // SAFETY: the supervisor computed the offset from an entry, and is the same build (checked in the handshake).
    let entry = unsafe { crate::kernel::from_offset(call.entry) };
    let mut reply = ReplyWriter::default();
    match panics::catch_without_backtrace(|| entry(WordReader::new(&call.words), lane, &mut reply))
    {
        panics::Outcome::Returned(Ok(())) => Ok(()),
        panics::Outcome::Returned(Err(Failure::Returned(why))) => {
            Err(format!("on_worker_start failed: {}", why.text()))
        }
        panics::Outcome::Returned(Err(why)) => Err(format!("on_worker_start failed: {why:?}")),
        panics::Outcome::Panicked(text) => {
            let (message, location, _) = panics::split(&text);
            Err(format!("on_worker_start panicked at {location}: {message}"))
        }
        panics::Outcome::Full(full) => Err(format!("on_worker_start: {full}")),
    }
}

/// Runs a lane on a separate thread, which never ends: its end would drop thread-locals of the program, which could
/// take any time while other lanes still run jobs.
fn start_lane(
    number: u32,
    (start, cells): LaneLink,
    worker: &'static WorkerContext,
    stopped: Arc<Barrier>,
) -> std::io::Result<()> {
    let run = move || {
        let run = || {
            // On failure there is no separate signal stack; a stack overflow then ends the process without the number
            // of the lane.
            let _ = crash::prepare_thread();
            fault::know_thread(number);
            Lane::begin(start, cells, worker).run();
        };
        // A panic here is a defect of this crate. The exit code reports it.
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
