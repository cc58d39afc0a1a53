//! Child programs whose supervisor is killed.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use arenite::engine::WorkerStats;
use arenite::points::{Board, Fault, Point, Side, VARIABLE};
use arenite::{Array, Backing, Backoff, Engine, JobErrorKind, JobLimit, Limiter};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::board::of;
use crate::harness::programs::{Program, Scenario, say, stay};
use crate::harness::{Gate, assert_kind, builder, hang, pass, send_signal, wait_until};

const NAME: &str = "ARENITE_TEST_NAME";
/// Environment variable: a point and a passing, armed when the program has busy workers, one of which is stopped.
const LATER: &str = "ARENITE_TEST_KILL_LATER";

/// Name of the folder for temporary files of its processes.
const TEMPORARY: &str = "temporary";

/// Name of the file that a forked copy of a program creates if it finds wrong bytes.
pub const COMPLAINT: &str = "complaint";

/// Name of a copy of the board at the time when the workers were busy.
const BUSY: &str = "busy";

/// Roles of a supervisor that together pass all its points except those of sandboxed workers. In each, a worker is busy forever and
/// another is stopped. They are tried in order until one passes the point, so the short ones are first.
pub const LIVES: [&str; 7] = [
    "jobs",
    "jobs of jobs",
    "spawns",
    "retained",
    "policies",
    "arrays",
    "grown",
];

/// The environment of a program that is killed, with a board of its own.
pub struct Home {
    pub board: Board,
    folder: TempDir,
    name: Option<String>,
}

impl Home {
    /// Creates it, with a persistent arena name or without.
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

    /// The persistent name of its arena.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the sockets that its processes have left in the temporary folder.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join(TEMPORARY)).unwrap();
        entries
            .map(|entry| entry.unwrap().path().join("socket"))
            .filter(|socket| socket.exists())
            .collect()
    }

    /// The file that a copy of a program creates which finds wrong bytes.
    pub fn complaint(&self) -> PathBuf {
        self.folder.path().join(COMPLAINT)
    }

    /// Creates a handshake socket, as a program leaves that is killed during a start.
    pub fn leave_a_socket(&self) {
        let folder = self.folder.path().join(TEMPORARY).join(".tmpKilled");
        std::fs::create_dir_all(&folder).unwrap();
        drop(UnixListener::bind(folder.join("socket")).unwrap());
    }

    /// Returns the points that were passed, from the beginning or since its workers were busy.
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

    /// Arms a point at which the program is killed at its `nth` passing since its workers are busy.
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

/// Runs a program in this role without killing it.
pub fn run_to_its_end(home: &Home, role: &str) {
    home.start(role).end().assert_done();
}

// ---- what they do -------------------------------------------------------------------------------------------

/// The roles of child programs.
pub const ROLES: &[Scenario] = &[
    ("jobs", || live(jobs)),
    ("jobs of jobs", || live(|_| crate::model::live())),
    ("spawns", || live(|_| crate::spawned::live())),
    ("retained", || live(|_| crate::retained::live())),
    ("policies", || live(|_| policies())),
    ("arrays", || live(crate::arrays::live)),
    ("grown", || live(|_| grown())),
    ("next", next),
    ("orphan", orphan),
    (crate::strict::ROLE, crate::strict::live),
];

/// Returns the persistent name of the arena of this program.
pub fn name() -> Option<String> {
    std::env::var(NAME).ok()
}

fn build(workers: usize, spares: usize) -> Engine {
    let mut builder = Engine::builder()
        .workers(workers)
        .spares(spares)
        .capacity(256 << 20)
        // Named, so that names may be left.
        .backing(Backing::Named)
        .grace(Duration::from_millis(50));
    if let Some(name) = name() {
        builder = builder.name(name);
    }
    builder.build().expect("an engine can be built")
}

/// Called when the program has busy workers: arms the point at which it is killed.
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

/// Busy forever, with the lowest scheduling priority.
fn spin(gate: &str) -> u64 {
    // SAFETY: no memory is involved. If it fails, other processes have less processor time.
    unsafe { libc::nice(19) };
    pass(gate);
    loop {
        std::hint::spin_loop();
    }
}

fn make(n: usize) -> Array<u32> {
    Array::from_fn(n, |i| i as u32)
}

/// Starts an engine with a third worker for work.
fn live(work: fn(&Engine)) {
    let engine = build(3, 1);
    // Two workers that never end on their own; one of them is stopped.
    let gates = [Gate::new(), Gate::new()];
    for gate in &gates {
        engine.submit(spin, (&gate.path(),)).detach();
        gate.open();
    }
    let busy = engine.stats().workers;
    let stopped = busy.iter().position(|worker| worker.open > 0).unwrap();
    send_signal(busy[stopped].pid as i32, Signal::SIGSTOP);
    workers_are_busy();
    work(&engine);
    // The busy workers are killed after the grace period.
    eprintln!("the end");
    drop(engine);
}

/// Runs jobs of each kind, and lets workers die or be killed.
fn jobs(engine: &Engine) {
    // Results that are known to be large get grants of whole chunks in advance.
    for n in [1, 100_000, 3_000_000] {
        assert_eq!(engine.submit(make, (n,)).wait().unwrap().len(), n);
    }
    // Arguments that do not fit into a slot are in a block.
    let text = "long ".repeat(1000);
    let len = engine.submit(|text: &str| text.len(), (&text[..],));
    assert_eq!(len.wait().unwrap(), text.len());
    // More than the lanes take in advance; the last is retracted.
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
    let is_idle = |worker: &&WorkerStats| worker.ready && worker.open == 0;
    let idle = idle.iter().find(is_idle).unwrap();
    send_signal(idle.pid as i32, Signal::SIGKILL);
    assert_eq!(
        engine.submit(make, (100_000,)).wait().unwrap().len(),
        100_000
    );
    eprintln!("a job takes too long for its deadline, and is tried again");
    let late = engine.job(hang, ()).deadline(Duration::from_millis(20));
    let error = late.retries(1).submit().wait().unwrap_err();
    assert_kind!(error, JobErrorKind::Limit(JobLimit::Deadline { .. }));
    // Its successor is idle when the engine ends.
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

/// Leaks memory.
fn leak() {
    std::mem::forget(std::hint::black_box(vec![1u8; 2 * LARGE as usize]));
}

/// Private memory above which a worker is recycled.
const LARGE: u64 = 32 << 20;

fn await_passing(point: &str, before: u64) {
    wait_until(point, || board().passed(point) > before);
}

/// The board of this program.
pub fn board() -> Board {
    Board::open(std::env::var_os(VARIABLE).unwrap().as_ref()).unwrap()
}

/// Also runs an engine with an admission limit, whose jobs are cancelled.
fn policies() {
    let board = board();
    let engine = builder(1, 64 << 20)
        .max_in_flight_bytes(1 << 20)
        .build()
        .expect("an engine can be built");
    // A kernel that has never run is admitted alone: the next submission waits until it has ended.
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
    // A running job is cancelled, one behind it is retracted, one is abandoned while it runs.
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
    // A job that waits for its next attempt.
    let reports = board.passed("retry.reported");
    let late = engine.job(hang, ()).deadline(Duration::from_millis(20));
    let hour = Duration::from_secs(3600);
    let late = late.retries(1).backoff(Backoff::new(hour, hour)).submit();
    await_passing("retry.reported", reports);
    late.cancel();
    let error = late.wait().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    // A job that waits for the permit of another.
    let one = Limiter::new().concurrency(1);
    let first = engine.job(pass, (&gate.path(),)).limit(&one).submit();
    let second = engine.job(make, (1,)).limit(&one).submit();
    gate.open();
    first.wait().unwrap();
    assert_eq!(second.wait().unwrap().len(), 1);
    // A job that ignores cancellation is killed with its worker.
    let deaf = engine.submit(spin, (&gate.path(),));
    gate.open();
    deaf.kill();
    let error = deaf.wait().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    assert_eq!(engine.submit(make, (1,)).wait().unwrap().len(), 1);
}

/// Also runs an engine that recycles its worker when its memory has grown. A role of its own, because it waits for the next check of
/// memory.
fn grown() {
    let board = board();
    let engine = builder(1, 64 << 20)
        .recycle_above_bytes(LARGE)
        .build()
        .expect("an engine can be built");
    // It is asked to stop while it runs a job and has others in its slots.
    let gate = Gate::new();
    let requests = board.passed("recycle.rung");
    let grown = engine.submit(leak, ());
    let held = engine.submit(pass, (&gate.path(),));
    let behind: Vec<_> = (1..4usize).map(|n| engine.submit(make, (n,))).collect();
    let at_the_gate = gate.meet();
    await_passing("recycle.rung", requests);
    drop(at_the_gate);
    grown.wait().unwrap();
    held.wait().unwrap();
    for (n, job) in (1..).zip(behind) {
        assert_eq!(job.wait().unwrap().len(), n);
    }
}

/// The next start.
fn next() {
    let engine = build(1, 0);
    assert_eq!(engine.submit(make, (1000,)).wait().unwrap()[999], 999);
    engine.shutdown();
}

/// Returns the shared memory that this process has mapped: one number for device and inode of each segment. A process may always
/// read its own maps; those of a worker, which is not dumpable, only root may read.
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

/// Prints which worker runs and which memory it has mapped, and runs until it is killed.
fn orphan() {
    fn scribble(gate: &str) -> u64 {
        let mut own = arenite::ArrayMut::<u32>::zeros(100_000);
        let maps: Vec<String> = own_maps().iter().map(u64::to_string).collect();
        std::fs::write(format!("{gate}.maps"), maps.join(" ")).unwrap();
        pass(gate);
        // Writes to granted memory forever.
        for round in 0u32.. {
            own.fill(round | 0x8000_0000);
            std::hint::black_box(&own[..]);
        }
        0
    }
    let engine = build(1, 0);
    let gate = Gate::new();
    engine.submit(scribble, (&gate.path(),)).detach();
    gate.open();
    let maps = std::fs::read_to_string(format!("{}.maps", gate.path())).unwrap();
    let worker = engine.stats().workers[0].pid;
    say(format!("computes {worker} {maps}"));
    stay();
}
