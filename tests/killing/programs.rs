//! Programs of their own, whose supervisor is to be killed: this one, told what to do.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use arenite::points::{Board, Fault, Point, Side, VARIABLE};
use arenite::{Array, Backing, Backoff, Engine, JobErrorKind, JobLimit, Limiter};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::board::of;
use crate::harness::programs::{Program, Scenario, say, stay};
use crate::harness::{Gate, pass, wait_until};

const NAME: &str = "ARENITE_TEST_NAME";
/// A point to be armed when the program has workers that are busy, and one that is stopped, and for which passing.
const LATER: &str = "ARENITE_TEST_KILL_LATER";

/// The folder for temporary files of its processes.
const TEMPORARY: &str = "temporary";

/// The board as it was when the workers were busy, beside the board.
const BUSY: &str = "busy";

/// Lives of a supervisor in which it comes by all its points but those of locked-down workers, each with a worker that is busy for
/// good and one that is stopped. Played one after the other until one comes by a point, so the short ones are first.
pub const LIVES: [&str; 5] = ["jobs", "graphs", "spawns", "policies", "grown"];

/// Where a program lives that is to be killed: with a board of its own.
pub struct Home {
    pub board: Board,
    folder: TempDir,
    name: Option<String>,
}

impl Home {
    /// With a kept name, or without.
    pub fn new(kept: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let board = Board::create(&folder.path().join("board")).unwrap();
        std::fs::create_dir(folder.path().join(TEMPORARY)).unwrap();
        let name = kept.then(|| {
            let folder = folder.path().file_name().unwrap().to_str().unwrap();
            format!("killing-{}", folder.trim_start_matches('.'))
        });
        Self {
            board,
            folder,
            name,
        }
    }

    /// The name that its arena keeps.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Sockets that its processes have left where temporary files are made, beside what the scene itself has there.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join(TEMPORARY)).unwrap();
        entries
            .map(|entry| entry.unwrap().path().join("socket"))
            .filter(|socket| socket.exists())
            .collect()
    }

    /// Leaves the socket of a start there, as a program does that is killed at the wrong moment.
    pub fn leave_a_socket(&self) {
        let folder = self.folder.path().join(TEMPORARY).join(".tmpKilled");
        std::fs::create_dir_all(&folder).unwrap();
        drop(UnixListener::bind(folder.join("socket")).unwrap());
    }

    /// The points that were passed there, from the beginning or from when its workers were busy.
    pub fn passed(&self, since_busy: bool) -> Vec<&'static str> {
        let busy = since_busy.then(|| Board::open(&self.folder.path().join(BUSY)).unwrap());
        let before = |name| busy.map_or(0, |busy| busy.passed(name));
        of(Side::Supervisor)
            .map(|point| point.name)
            .filter(|name| self.board.passed(name) > before(name))
            .collect()
    }

    fn board_path(&self) -> PathBuf {
        self.folder.path().join("board")
    }

    pub fn start(&self, role: &str) -> Program {
        self.start_with(role, None)
    }

    /// With a point at which it is to be killed when it comes by for the so manieth time, counted from when it has busy
    /// workers.
    pub fn start_armed(&self, role: &str, point: &Point, passing: u64) -> Program {
        self.start_with(role, Some(format!("{} {passing}", point.name)))
    }

    fn start_with(&self, role: &str, later: Option<String>) -> Program {
        let change = |command: &mut Command| {
            command
                .env(VARIABLE, self.board_path())
                .env("TMPDIR", self.folder.path().join(TEMPORARY));
            if let Some(name) = &self.name {
                command.env(NAME, name);
            }
            if let Some(later) = later {
                command.env(LATER, later);
            }
        };
        Program::with(role, || Ok(()), change)
    }
}

/// Runs a program there undisturbed, in this role.
pub fn run_to_its_end(home: &Home, role: &str) {
    home.start(role).end().assert_done();
}

// ---- what they do -------------------------------------------------------------------------------------------

/// What they may be told to do.
pub const ROLES: &[Scenario] = &[
    ("jobs", || live(jobs)),
    ("graphs", || live(|_| crate::model::live())),
    ("spawns", || live(|_| crate::spawned::live())),
    ("policies", || live(|_| policies())),
    ("grown", || live(|_| grown())),
    ("next", next),
    ("orphan", orphan),
    (crate::strict::ROLE, crate::strict::live),
];

/// The name that the arena of this program keeps.
pub fn name() -> Option<String> {
    std::env::var(NAME).ok()
}

fn build(workers: usize) -> Engine {
    let mut builder = Engine::builder()
        .workers(workers)
        .capacity(256 << 20)
        // Names are what may be left behind.
        .backing(Backing::Named)
        .grace(Duration::from_millis(50));
    if let Some(name) = name() {
        builder = builder.name(name);
    }
    builder.build().expect("an engine can be built")
}

/// In a program that has busy workers now: if it is to be killed later, that is from here on.
pub fn workers_are_busy() {
    eprintln!("workers are busy");
    let board = PathBuf::from(std::env::var_os(VARIABLE).unwrap());
    std::fs::copy(&board, board.with_file_name(BUSY)).unwrap();
    if let Ok(later) = std::env::var(LATER) {
        let board = Board::open(&board).unwrap();
        let (point, passing) = later.split_once(' ').unwrap();
        let passing = passing.parse().unwrap();
        board.arm(point, Fault::Kill, passing..passing + 1);
    }
}

/// Busy for good, in the time that nobody else needs.
fn spin(gate: &str) -> u64 {
    // SAFETY: no memory is involved. If it is refused, others have to share.
    unsafe { libc::nice(19) };
    pass(gate);
    loop {
        std::hint::spin_loop();
    }
}

fn hang() -> u8 {
    loop {
        std::thread::park();
    }
}

fn make(n: usize) -> Array<u32> {
    Array::from_fn(n, |i| i as u32)
}

/// A life with a third worker to work with.
fn live(work: fn(&Engine)) {
    let engine = build(3);
    // Two workers that never end by themselves; one of them is stopped.
    let gates = [Gate::new(), Gate::new()];
    for gate in &gates {
        engine.submit(spin, (&gate.path(),)).detach();
        gate.open();
    }
    let busy = engine.stats().workers;
    let stopped = busy.iter().position(|worker| worker.open > 0).unwrap();
    kill(Pid::from_raw(busy[stopped].pid as i32), Signal::SIGSTOP).unwrap();
    workers_are_busy();
    work(&engine);
    // The busy ones are killed after the grace.
    eprintln!("the end");
    drop(engine);
}

/// Jobs of each kind, and workers that die or have to.
fn jobs(engine: &Engine) {
    // Results that are known to be large are granted ahead, whole chunks at once.
    for n in [1, 100_000, 3_000_000] {
        assert_eq!(engine.submit(make, (n,)).wait().unwrap().len(), n);
    }
    // What does not fit into a slot lies beside it.
    let text = "long ".repeat(1000);
    let len = engine.submit(|text: &str| text.len(), (&text[..],));
    assert_eq!(len.wait().unwrap(), text.len());
    // More than lanes take ahead, the last of which is taken back.
    let gate = Gate::new();
    let held = engine.submit(pass, (&gate.path(),));
    let mut behind: Vec<_> = (0..8usize).map(|n| engine.submit(make, (n,))).collect();
    behind.truncate(4);
    drop(engine.submit(make, (1,)));
    gate.open();
    held.wait().unwrap();
    for (n, job) in behind.into_iter().enumerate() {
        assert_eq!(job.wait().unwrap().len(), n);
    }
    eprintln!("a worker dies");
    let idle = engine.stats().workers;
    let idle = idle.iter().find(|worker| worker.open == 0).unwrap();
    kill(Pid::from_raw(idle.pid as i32), Signal::SIGKILL).unwrap();
    assert_eq!(
        engine.submit(make, (100_000,)).wait().unwrap().len(),
        100_000
    );
    eprintln!("a job takes too long for its deadline, and is tried again");
    let late = engine.job(hang, ()).deadline(Duration::from_millis(20));
    let error = late.retries(1).submit().wait().unwrap_err();
    assert!(
        matches!(error.kind(), JobErrorKind::Limit(JobLimit::Deadline { .. })),
        "{error}"
    );
    // Its successor has nothing to do when the engine ends.
    assert_eq!(engine.submit(make, (1000,)).wait().unwrap().len(), 1000);
    engine.trim();
}

/// Runs until it is asked to end.
fn obey(gate: &str) -> u8 {
    pass(gate);
    while !arenite::cancelled() {
        std::thread::park_timeout(Duration::from_micros(100));
    }
    7
}

/// Keeps memory for good.
fn leak() {
    std::mem::forget(std::hint::black_box(vec![1u8; 2 * LARGE as usize]));
}

/// Private memory above which a worker is replaced.
const LARGE: u64 = 32 << 20;

fn await_passing(point: &str, before: u64) {
    wait_until(point, || board().passed(point) > before);
}

fn board() -> Board {
    Board::open(std::env::var_os(VARIABLE).unwrap().as_ref()).unwrap()
}

/// Beside it an engine that lets jobs in by their bytes, and is asked to give up on jobs.
fn policies() {
    let board = board();
    let engine = Engine::builder()
        .workers(1)
        .capacity(64 << 20)
        .max_in_flight_bytes(1 << 20)
        .build()
        .expect("an engine can be built");
    // A kernel that has never run is let in alone: whoever comes next waits until it has ended.
    let gate = Gate::new();
    let waited = board.passed("admit.waits");
    let held = engine.submit(pass, (&gate.path(),));
    std::thread::scope(|threads| {
        let path = gate.path();
        threads.spawn(move || {
            await_passing("admit.waits", waited);
            drop(File::options().write(true).open(path).unwrap());
        });
        assert_eq!(engine.submit(make, (1,)).wait().unwrap().len(), 1);
    });
    held.wait().unwrap();
    // A job that runs is asked to end; one behind it is taken back; one is given up while it runs.
    let obeys = || {
        let job = engine.submit(obey, (&gate.path(),));
        gate.open();
        job
    };
    let asked = obeys();
    asked.cancel();
    assert_eq!(asked.wait().unwrap(), 7);
    let running = obeys();
    let behind = engine.submit(make, (1,));
    behind.cancel();
    let error = behind.wait().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    drop(running);
    // One that waits for its next attempt.
    let told = board.passed("retry.reported");
    let late = engine.job(hang, ()).deadline(Duration::from_millis(20));
    let hour = Duration::from_secs(3600);
    let late = late.retries(1).backoff(Backoff::new(hour, hour)).submit();
    await_passing("retry.reported", told);
    late.cancel();
    let error = late.wait().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    // One that waits for the permit of another.
    let one = Limiter::builder().concurrency(1).build();
    let first = engine.job(pass, (&gate.path(),)).limit(&one).submit();
    let second = engine.job(make, (1,)).limit(&one).submit();
    gate.open();
    first.wait().unwrap();
    assert_eq!(second.wait().unwrap().len(), 1);
    // One that does not listen is ended with its worker.
    let deaf = engine.submit(spin, (&gate.path(),));
    gate.open();
    deaf.kill();
    let error = deaf.wait().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    assert_eq!(engine.submit(make, (1,)).wait().unwrap().len(), 1);
}

/// Beside it an engine that replaces its worker when that has grown. A life of its own, as it waits until somebody looks at the
/// memory.
fn grown() {
    let board = board();
    let engine = Engine::builder()
        .workers(1)
        .capacity(64 << 20)
        .recycle_above_bytes(LARGE)
        .build()
        .expect("an engine can be built");
    // It is told to stop while it runs a job and holds others ahead.
    let gate = Gate::new();
    let told = board.passed("recycle.rung");
    let grown = engine.submit(leak, ());
    let held = engine.submit(pass, (&gate.path(),));
    let behind: Vec<_> = (1..4usize).map(|n| engine.submit(make, (n,))).collect();
    let at_the_gate = gate.meet();
    await_passing("recycle.rung", told);
    drop(at_the_gate);
    grown.wait().unwrap();
    held.wait().unwrap();
    for (n, job) in (1..).zip(behind) {
        assert_eq!(job.wait().unwrap().len(), n);
    }
}

/// The next start.
fn next() {
    let engine = build(1);
    assert_eq!(engine.submit(make, (1000,)).wait().unwrap()[999], 999);
    engine.shutdown();
}

/// The shared memory that this process has mapped, one number for device and inode of each segment. It may always look at itself, whoever it is; at a worker, which
/// is not dumpable, only root may.
pub fn own_maps() -> Vec<u64> {
    let text = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    let mut segments: Vec<u64> = text
        .lines()
        .filter(|line| line.contains("/dev/shm/") || line.contains("memfd:"))
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(3);
            let (_, minor) = words.next()?.split_once(':')?;
            let inode: u64 = words.next()?.parse().ok()?;
            Some(u64::from_str_radix(minor, 16).ok()? << 48 | inode)
        })
        .collect();
    segments.sort_unstable();
    segments.dedup();
    segments
}

/// Says which worker computes and on which memory, and computes on until it is killed.
fn orphan() {
    fn scribble(gate: &str) -> u64 {
        let mut own = arenite::ArrayMut::<u32>::zeros(100_000);
        let maps: Vec<String> = own_maps().iter().map(u64::to_string).collect();
        std::fs::write(format!("{gate}.maps"), maps.join(" ")).unwrap();
        pass(gate);
        // Into memory that was granted, for ever.
        for round in 0u32.. {
            own.fill(round | 0x8000_0000);
            std::hint::black_box(&own[..]);
        }
        0
    }
    let engine = build(1);
    let gate = Gate::new();
    engine.submit(scribble, (&gate.path(),)).detach();
    gate.open();
    let maps = std::fs::read_to_string(format!("{}.maps", gate.path())).unwrap();
    let worker = engine.stats().workers[0].pid;
    say(format!("computes {worker} {maps}"));
    stay();
}
