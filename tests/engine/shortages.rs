//! Shortages that pass while workers have to be replaced: of descriptors, of processes. Jobs wait, and end as if there
//! had been none. And programs that lose what workers were started from: their root directory, the worker program.

use std::fs::File;
use std::os::unix::fs::chroot;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use arenite::engine::{Builder, WorkerProgram};
use arenite::{Engine, Job, JobError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::programs::{Program, SCENARIO, Scenario, say};
use crate::harness::{ABORTED, Calls, assert_says, builder, step, tests, wait_until};

#[path = "../hostile/users.rs"]
#[allow(dead_code, reason = "it is used in part here")]
mod users;

tests![
    jobs_wait_while_descriptors_are_short,
    jobs_wait_while_few_descriptors_are_left,
    jobs_wait_while_no_process_may_be_started,
    a_deleted_worker_program_is_started,
    a_program_that_the_loader_was_given,
    valgrind_is_named;
    where users::is_root() => the_root_directory_may_change,
];

pub const SCENARIOS: &[Scenario] = &[
    ("short-descriptors", || short(Resource::RLIMIT_NOFILE, 256)),
    ("few-descriptors", few_descriptors),
    ("short-processes", || short(Resource::RLIMIT_NPROC, 0)),
    ("changes-root", changes_root),
    ("short-valgrind", under_valgrind),
];

/// The kind of engine that a scenario builds, and a folder for it.
const KIND: &str = "ARENITE_TEST_KIND";
const FOLDER: &str = "ARENITE_TEST_FOLDER";
const KINDS: [&str; 5] = ["plain", "lanes", "spares", "background", "template"];

fn asked() -> Builder {
    let plain = builder(2, 64 << 20);
    match &*std::env::var(KIND).unwrap() {
        "lanes" => plain.lanes(2),
        "spares" => plain.spares(1),
        "background" => plain.start_in_background(),
        "template" => crate::template::builder("words"),
        _ => plain,
    }
}

fn run(scenario: &str, kind: &str, prepare: fn() -> std::io::Result<()>) {
    step(format!("{scenario} {kind}"));
    let folder = tempfile::tempdir().unwrap();
    let change = |command: &mut Command| {
        command.env(KIND, kind).env(FOLDER, folder.path());
    };
    Program::with(scenario, prepare, change).end().assert_done();
}

fn jobs_wait_while_descriptors_are_short() {
    for kind in KINDS {
        run("short-descriptors", kind, || Ok(()));
    }
}

fn jobs_wait_while_few_descriptors_are_left() {
    for kind in ["plain", "template"] {
        run("few-descriptors", kind, || Ok(()));
    }
}

/// Linux limits the processes of all users but root.
fn jobs_wait_while_no_process_may_be_started() {
    for kind in KINDS {
        run("short-processes", kind, users::become_unprivileged);
    }
}

fn the_root_directory_may_change() {
    for kind in KINDS {
        run("changes-root", kind, || Ok(()));
    }
}

// ---- shortages ----------------------------------------------------------------------------------------------

/// How long something is short: some failed starts of each worker take less.
const LASTS: Duration = Duration::from_secs(1);

/// A limit that is too low, as long as the value lives.
struct Shortage {
    resource: Resource,
    before: u64,
    is_over: Arc<AtomicBool>,
    eater: Option<thread::JoinHandle<Vec<File>>>,
}

impl Shortage {
    fn begin(resource: Resource, low: u64) -> Self {
        let (before, most) = getrlimit(resource).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        setrlimit(resource, low, most).unwrap();
        let has_all = Arc::new(AtomicBool::new(resource != Resource::RLIMIT_NOFILE));
        let (ends, all) = (Arc::clone(&is_over), Arc::clone(&has_all));
        // A server that accepts all connections that it can get.
        let eat = move || {
            let mut files = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                match File::open("/") {
                    Ok(file) => files.push(file),
                    Err(_) => all.store(true, Ordering::Relaxed),
                }
            }
            files
        };
        let eater = (resource == Resource::RLIMIT_NOFILE).then(|| thread::spawn(eat));
        wait_until("all is used up", || has_all.load(Ordering::Relaxed));
        Self {
            resource,
            before,
            is_over,
            eater,
        }
    }

    /// Returns the descriptors that are used up. From now on the program may have what others give back.
    fn stop_eating(&mut self) -> Vec<File> {
        self.is_over.store(true, Ordering::Relaxed);
        let eater = self.eater.take();
        eater.map_or_else(Vec::new, |eater| eater.join().unwrap())
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        self.stop_eating();
        let (_, most) = getrlimit(self.resource).unwrap();
        setrlimit(self.resource, self.before, most).unwrap();
    }
}

fn square(n: u64, crashes: bool) -> u64 {
    if crashes {
        std::process::abort();
    }
    n * n
}

/// Which jobs crash is the model: of these each attempt fails, and all others have their value.
fn check(n: u64, crashes: bool, result: Result<u64, JobError>) {
    match result {
        Ok(value) => assert_eq!((value, crashes), (n * n, false)),
        Err(error) => assert!(crashes && *error.kind() == ABORTED, "job {n}: {error}"),
    }
}

/// Submits jobs, of which some crash.
fn submit(engine: &Engine) -> Vec<(u64, bool, Job<u64>)> {
    let submit = |n| {
        let crashes = n % 4 == 0;
        // On one of several lanes, a crash ends other jobs too, which are not to blame.
        let job = engine.job(square, (n, crashes)).retries(1).submit();
        (n, crashes, job)
    };
    (0..12).map(submit).collect()
}

/// Looks at the engine meanwhile.
fn stays_whole(engine: &Engine, lasts: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < lasts {
        assert_eq!(engine.broken(), None);
        thread::park_timeout(Duration::from_millis(10));
    }
}

fn all_are_back(engine: &Engine) {
    wait_until("all workers are back", || {
        let stats = engine.stats();
        let is_up = stats
            .workers
            .iter()
            .all(|worker| worker.ready || worker.spare);
        is_up && stats.start_failure.is_none()
    });
}

fn short(resource: Resource, low: u64) {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&notices);
    let engine = asked().on_log(move |line| lines.lock().unwrap().push(line.text.clone()));
    let engine = engine.build().unwrap();
    assert_eq!(engine.value_of(square, (3, false)), 9);
    let shortage = Shortage::begin(resource, low);
    let jobs = submit(&engine);
    wait_until("a start fails", || engine.stats().start_failure.is_some());
    stays_whole(&engine, LASTS);
    let stats = engine.stats();
    assert_eq!(
        stats.workers.iter().filter(|worker| worker.ready).count(),
        0
    );
    let why = stats.start_failure.unwrap();
    assert_says(&why, "ulimit -");
    drop(shortage);
    step("the jobs after the shortage");
    for (n, crashes, job) in jobs {
        check(n, crashes, job.wait());
    }
    assert_eq!(engine.value_of(square, (4, false)), 16);
    all_are_back(&engine);
    assert!(!engine.revive(), "there is nothing to revive");
    engine.flush_logs();
    let notices = notices.lock().unwrap();
    let said = notices.iter().filter(|line| line.contains("tried again"));
    assert!((1..10).contains(&said.count()), "{notices:?}");
    drop(notices);
    engine.shutdown();
}

/// Each step of a start lacks descriptors in its turn.
fn few_descriptors() {
    let engine = asked().build().unwrap();
    let low_limits = (0..5).map(|low| (low, 0));
    for (low, left) in (0..16).map(|left| (256, left)).chain(low_limits) {
        let mut shortage = Shortage::begin(Resource::RLIMIT_NOFILE, low);
        let jobs = submit(&engine);
        wait_until("a start fails", || engine.stats().start_failure.is_some());
        let mut files = shortage.stop_eating();
        files.truncate(files.len() - left);
        step(format!("{left} descriptors are left of {low}"));
        // Four failed starts, with the pauses between them.
        stays_whole(&engine, Duration::from_millis(300));
        let why = engine.stats().start_failure.unwrap_or_default();
        let lacks_a_descriptor = why.contains("exited with code 70");
        assert!(!lacks_a_descriptor, "{left} of {low}: {why}");
        drop((files, shortage));
        for (n, crashes, job) in jobs {
            check(n, crashes, job.wait());
        }
        all_are_back(&engine);
    }
    engine.shutdown();
}

// ---- what workers are started from --------------------------------------------------------------------------

fn changes_root() {
    let engine = asked().build().unwrap();
    let empty = PathBuf::from(std::env::var(FOLDER).unwrap());
    chroot(&empty).unwrap();
    assert!(File::open("/dev/null").is_err() && File::open("/proc/self/exe").is_err());
    for n in 0..6 {
        let crashed = engine.submit(square, (n, true)).wait();
        check(n, true, crashed);
        check(n, false, engine.submit(square, (n, false)).wait());
    }
    engine.shutdown();
    // What is left cannot be looked up without `/proc`.
    say("done");
    std::process::exit(0);
}

fn a_deleted_worker_program_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
    let program = WorkerProgram::new(&path).args(["--run-worker", ""]);
    let engine = builder(1, 64 << 20)
        .worker_program(program)
        .build()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    for n in 0..2 {
        check(n, true, engine.submit(square, (n, true)).wait());
        check(n, false, engine.submit(square, (n, false)).wait());
    }
    engine.shutdown();
}

/// Bundles of programs start a program so.
fn a_program_that_the_loader_was_given() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let paths = maps
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(5));
    let is_loader = |path: &&str| path.contains("/ld-") || path.contains("/ld.");
    let loader = { paths }
        .find(is_loader)
        .expect("this program is loaded by one");
    for options in [
        &[][..],
        &["--library-path", "/nowhere"],
        &["--inhibit-cache"],
    ] {
        let mut command = Command::new(loader);
        command.args(options).arg(std::env::current_exe().unwrap());
        command.env(SCENARIO, "starts-anywhere");
        Program::spawn(command, || Ok(())).end().assert_done();
    }
}

fn has_valgrind() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok()
}

/// Passes where valgrind is not installed.
fn valgrind_is_named() {
    if !has_valgrind() {
        return;
    }
    let mut command = Command::new("valgrind");
    command
        .args(["-q", "--tool=none"])
        .arg(std::env::current_exe().unwrap());
    command.env(SCENARIO, "short-valgrind");
    Program::spawn(command, || Ok(())).end().assert_done();
}

fn under_valgrind() {
    let error = Engine::builder().workers(1).build().unwrap_err();
    assert_says(&error, "runs under valgrind");
    assert_says(&error, "Engine::inline()");
    assert_eq!(Engine::inline().value_of(square, (5, false)), 25);
}
