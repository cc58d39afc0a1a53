//! Named places between two steps of the protocols, where a test can kill or stop the process that
//! comes by.
//!
//! Only with the feature `points`, which no release build can have. Code says `point!("claim.taken")`
//! where one step is done and the next one is not; without the feature that is nothing at all.
//!
//! The processes of a test share a *board*: a small file, named by [`VARIABLE`] in the environment, which
//! each of them maps when it comes to its first point. It has a line for each point of [`POINTS`]: how often it
//! was passed, by whomever, and from which passing to which one something is done to who passes. Counting
//! goes on when a worker has been replaced, so its successor is spared unless the test asks for it too.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::signal::{Signal, raise};

#[cfg(not(debug_assertions))]
compile_error!(
    "the feature `points` lets a file say where this program is to be killed: not in a release build"
);

/// The variable that names the board's file.
pub const VARIABLE: &str = "ARENITE_POINTS";

/// Who comes by a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A worker.
    Worker,
    /// The supervisor.
    Supervisor,
    /// A store's server.
    Store,
    /// A program that serves kernels.
    Service,
    /// A process that workers are copied from, and its copies before they are workers.
    Template,
}

/// A named place between two steps.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// `step.what_is_done`.
    pub name: &'static str,
    /// Who comes by.
    pub side: Side,
}

impl Point {
    /// The part of its name before the dot.
    pub fn step(&self) -> &'static str {
        self.name.split('.').next().unwrap_or(self.name)
    }
}

macro_rules! points {
    (worker: $($worker:literal)* supervisor: $($supervisor:literal)* store: $($store:literal)* service: $($service:literal)*
     template: $($template:literal)*) => {
        &[
            $(Point { name: $worker, side: Side::Worker },)*
            $(Point { name: $supervisor, side: Side::Supervisor },)*
            $(Point { name: $store, side: Side::Store },)*
            $(Point { name: $service, side: Side::Service },)*
            $(Point { name: $template, side: Side::Template },)*
        ]
    };
}

/// All points, in the order in which a process reaches them.
pub const POINTS: &[Point] = points! {
    worker:
        // Start.
        "attach.marked" "attach.bound" "attach.adopted" "attach.watched" "attach.called" "attach.greeted"
        "attach.mapped" "attach.linked" "attach.locked" "attach.prepared" "attach.ready"
        // Looking for work.
        "claim.taken" "claim.retracted" "claim.passed" "claim.announced" "claim.woken"
        // A job.
        "run.read" "run.entered" "lend.opened" "run.returned" "lend.closed" "run.closed"
        "cancel.seen"
        "allocate.wanted" "allocate.rung" "allocate.read" "allocate.granted" "allocate.opened" "allocate.placed"
        "publish.spilled" "publish.settled" "publish.filled"
        "complete.stored" "complete.woken" "complete.rung"
        // Arrays that outlive their job.
        "retain.prepared" "release.closed" "release.filled" "release.reported"
        // Arrays of the program, and private copies of arguments.
        "file.opened" "file.mapped" "private.mapped" "private.detached"
        // A subtree of a reduction.
        "subtree.leaf" "subtree.pair"
        // The state of an actor.
        "state.made" "state.retained" "state.lent" "state.called" "state.saved" "state.back"
        "state.dropped"
        // The end.
        "stop.obeyed" "stop.dropped" "stop.flushed"
    supervisor:
        // The arena.
        "create.named" "create.locked" "create.sized" "create.unnamed" "create.header"
        "create.region_named" "create.region_unnamed" "create.region_mapped" "create.ready"
        // A worker.
        "spawn.named" "spawn.served" "spawn.started" "spawn.watched" "spawn.recorded" "spawn.accepted"
        "spawn.answered" "spawn.greeted" "spawn.activated" "spawn.welcomed"
        // A job.
        "submit.spilled" "submit.recorded" "submit.retained" "submit.filled" "submit.posted" "submit.noted"
        "submit.rung"
        "retract.taken" "retract.reported"
        "drain.seen" "drain.received" "drain.answered" "drain.reported"
        // Arrays that outlive their job.
        "retain.recorded" "release.taken" "release.freed"
        // Arrays that the program writes: their memory, snapshots and forks, and results.
        "heap.mapped" "heap.taken" "heap.prepared" "heap.private" "heap.lent" "heap.marked" "heap.stored" "heap.copied"
        "heap.freed" "heap.shared" "heap.returned" "heap.forking" "heap.retired" "heap.forked"
        "result.mapped" "result.marked" "result.stored"
        // The result of a sandboxed worker.
        "copy.allocated" "copy.done"
        // Memory.
        "commit.grown" "commit.seeded" "commit.collapsed" "commit.allocated" "commit.noted"
        "grant.found" "grant.ahead" "grant.filled" "grant.given" "grant.answered"
        "reclaim.freed" "reclaim.taken" "reclaim.punched"
        // A worker's end, by a kill or on its own.
        "deadline.set" "deadline.started" "deadline.drained"
        "condemn.due" "condemn.cleared" "condemn.marked" "condemn.killed" "condemn.refilled"
        "recover.noticed" "recover.confirmed" "recover.drained" "recover.classified" "recover.revoked"
        "recover.restarted" "recover.done"
        // Another attempt.
        "retry.waits" "retry.reported" "retry.over" "retry.due"
        // Giving up on a job.
        "cancel.taken" "cancel.answered" "cancel.abandoned" "cancel.retained" "cancel.asked"
        "cancel.condemned"
        // The replacement of a healthy worker.
        "recycle.retired" "recycle.reclaimed" "recycle.requested" "recycle.rung" "recycle.counted"
        // Bytes in flight.
        "admit.entered" "admit.charged" "admit.waits" "admit.left"
        // Limits that callers share.
        "limit.came" "limit.waits" "limit.given_back" "limit.called"
        // A job that takes values of other jobs.
        "input.waits" "input.taken"
        // An actor.
        "actor.entered" "actor.started" "actor.ready" "call.retained" "call.posted" "save.posted"
        "save.taken" "actor.gone" "actor.lost" "actor.ending" "actor.removed"
        // Spawned jobs.
        "tasks.begun" "tasks.forwarded" "tasks.recorded" "tasks.placed" "tasks.answered" "tasks.freed"
        "tasks.continued" "tasks.cancelled"
        // The engine's end.
        "stop.requested" "stop.ended" "stop.unnamed"
    store:
        // A request.
        "store.received" "store.checked" "store.answered" "store.sent"
    service:
        // A call.
        "service.received" "service.queued" "service.submitted" "service.ended" "service.sent"
    template:
        // Its start.
        "template.started" "template.loaded"
        // A copy.
        "template.asked" "template.copied" "copied.sent" "copied.adopted"
};

/// The index of a point on the board. A name that is not listed does not compile.
#[must_use]
pub const fn index(name: &str) -> usize {
    let mut at = 0;
    while at < POINTS.len() {
        if same(POINTS[at].name.as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("this point is not listed in POINTS")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// What happens to the process that passes an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// SIGKILL.
    Kill = 1,
    /// SIGSTOP.
    Stop = 2,
}

/// The state of one point on the board.
#[repr(C)]
#[derive(Debug)]
struct Line {
    passed: AtomicU64,
    /// The fault is injected from this passing on …
    from: AtomicU64,
    /// … and before this one.
    until: AtomicU64,
    fault: AtomicU32,
    /// Number of injected faults.
    done: AtomicU32,
    /// Process id of the last victim.
    victim: AtomicI32,
    unused: AtomicU32,
}

#[repr(C)]
#[derive(Debug)]
struct Cells {
    /// Not 0: workers survive the death of their supervisor.
    orphans: AtomicU64,
    lines: [Line; POINTS.len()],
}

/// The board that the processes of a test share.
#[derive(Clone, Copy, Debug)]
pub struct Board(&'static Cells);

impl Board {
    /// Creates a board in a new file.
    ///
    /// # Errors
    /// If the file exists or cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        file.set_len(size_of::<Cells>() as u64)?;
        Self::map(&file)
    }

    /// Opens the board in an existing file.
    ///
    /// # Errors
    /// If the file does not exist or is not a board.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        if file.metadata()?.len() != size_of::<Cells>() as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(&file)
    }

    fn map(file: &File) -> io::Result<Self> {
        let map: MmapRaw = MmapOptions::new().len(size_of::<Cells>()).map_raw(file)?;
        let cells = map.as_mut_ptr().cast::<Cells>();
        // Stays mapped until the process ends.
        std::mem::forget(map);
        // SAFETY: the map has the length of the cells (set or checked by the callers), starts at a page, is never
        // unmapped, and consists of atomics, for which every bit pattern is valid.
        Ok(Self(unsafe { &*cells }))
    }

    fn line(&self, point: &str) -> &'static Line {
        &self.0.lines[index(point)]
    }

    /// Injects `fault` into the processes that pass `point` at these passings; 1 is the next one.
    pub fn arm(&self, point: &str, fault: Fault, passings: Range<u64>) {
        let line = self.line(point);
        line.fault.store(0, SeqCst);
        let passed = line.passed.load(SeqCst);
        line.done.store(0, SeqCst);
        line.from
            .store(passed.saturating_add(passings.start), SeqCst);
        line.until
            .store(passed.saturating_add(passings.end), SeqCst);
        line.fault.store(fault as u32, SeqCst);
    }

    /// Stops injecting faults at all points.
    pub fn disarm(&self) {
        for line in &self.0.lines {
            line.fault.store(0, SeqCst);
        }
        self.0.orphans.store(0, SeqCst);
    }

    /// How often `point` was passed.
    #[must_use]
    pub fn passed(&self, point: &str) -> u64 {
        self.line(point).passed.load(SeqCst)
    }

    /// How often the fault was injected since the point was armed, and the last victim's process id.
    #[must_use]
    pub fn done(&self, point: &str) -> (u32, i32) {
        let line = self.line(point);
        (line.done.load(SeqCst), line.victim.load(SeqCst))
    }

    /// Lets workers that start from now on survive the death of their supervisor.
    pub fn let_orphans_live(&self) {
        self.0.orphans.store(1, SeqCst);
    }
}

/// The board of this process, if the environment names one.
fn board() -> Option<&'static Board> {
    static BOARD: OnceLock<Option<Board>> = OnceLock::new();
    BOARD
        .get_or_init(|| {
            let path = std::env::var_os(VARIABLE)?;
            Some(Board::open(Path::new(&path)).expect("the board that the environment names"))
        })
        .as_ref()
}

/// Counts a passing of the point and injects its fault, if armed.
pub fn pass(index: usize) {
    let Some(board) = board() else { return };
    let line = &board.0.lines[index];
    let nth = line.passed.fetch_add(1, SeqCst) + 1;
    let fault = line.fault.load(SeqCst);
    if fault == 0 || !(line.from.load(SeqCst)..line.until.load(SeqCst)).contains(&nth) {
        return;
    }
    line.victim.store(std::process::id() as i32, SeqCst);
    line.done.fetch_add(1, SeqCst);
    let signal = if fault == Fault::Kill as u32 {
        Signal::SIGKILL
    } else {
        Signal::SIGSTOP
    };
    // `raise` signals this very thread, so it takes no further step.
    raise(signal).expect("a process can signal itself");
}

/// Whether workers survive the death of their supervisor.
pub(crate) fn orphans_live() -> bool {
    board().is_some_and(|board| board.0.orphans.load(SeqCst) != 0)
}
