//! Workers that do not become ready, and the errors about them.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use arenite::engine::{Builder, WorkerProgram};
use arenite::{Array, BuildError, Bytes, Engine, JobErrorKind, WorkerExit};

use crate::harness::{
    Calls, Env, Gate, Lab, assert_kind, assert_says, builder, hang, pass, refused, step, tests,
    wait_until,
};

tests![
    a_start_that_hangs_or_stops_itself,
    a_later_start_that_hangs,
    a_start_may_take_its_time,
    a_program_that_does_not_become_a_worker,
    a_start_in_the_background,
    a_failed_start_in_the_background,
    a_start_in_the_background_that_is_not_waited_for,
    a_start_with_arguments,
    a_start_with_arrays_is_refused,
    a_start_that_returns_an_error,
];

/// What a copy of this program does instead of becoming a worker.
const FATE: &str = "ARENITE_TEST_FATE";
/// Workers hang at their start while this file exists.
const HANG: &str = "ARENITE_TEST_HANG";

/// Called in `main`, before `init`.
pub fn before_init() {
    let (Ok(fate), Ok(_)) = (std::env::var(FATE), std::env::var("ARENITE_WORKER")) else {
        return;
    };
    match &*fate {
        "go on" => {
            let _ = Engine::builder().workers(1).build();
        }
        "wait" => loop {
            std::thread::park();
        },
        // As `#[tokio::main]` does. Its threads rely on descriptors.
        "runtime" => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            std::mem::forget(runtime.worker_threads(2).enable_all().build().unwrap());
        }
        "denied" => {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGSYS).unwrap();
        }
        code => std::process::exit(code.parse().unwrap()),
    }
}

fn build(start_timeout: Duration, start: impl FnOnce(Builder) -> Builder) -> String {
    let error = refused(start(builder(2, 64 << 20).start_timeout(start_timeout)));
    assert!(matches!(error, BuildError::Worker(_)), "{error}");
    error.to_string()
}

/// The first limit that is tried.
const SOON: Duration = Duration::from_millis(100);
/// More than any worker needs to reach its start, however busy the machine is.
const LATE: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_secs(3600);

/// A start whose limit passes after the worker has reached `on_worker_start`, and its error. The limit is doubled until
/// then, because the machine may be busy.
fn hung_in(start: impl Fn(Builder) -> Builder) -> (String, Duration) {
    let mut limit = SOON;
    loop {
        let text = build(limit, &start);
        if text.contains("on_worker_start has not returned") {
            return (text, limit);
        }
        assert!(limit < LATE, "{text}");
        limit *= 2;
    }
}

fn a_start_that_hangs_or_stops_itself() {
    fn stop() {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
    }
    for (text, limit) in [
        hung_in(|builder| builder.on_worker_start(hang)),
        hung_in(|builder| builder.on_worker_start(stop)),
    ] {
        assert_says(&text, &format!("{limit:?}"));
    }
}

fn a_later_start_that_hangs() {
    fn start() {
        while std::env::var(HANG).is_ok_and(|path| Path::new(&path).exists()) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hang");
    let _env = Env::set(HANG, file.to_str().unwrap());
    // By then workers that do not hang are ready, and those that do have reached their start. The limit is doubled
    // until both hold, because the machine may be busy.
    let mut limit = SOON;
    loop {
        let builder = builder(1, 64 << 20);
        let why = match builder.on_worker_start(start).start_timeout(limit).build() {
            Ok(engine) => given_up(&Lab::of(engine), &file),
            Err(BuildError::Worker(why)) => why,
            Err(error) => panic!("{error}"),
        };
        // Not the reason why there was no engine.
        if file.exists() && why.contains("on_worker_start has not returned") {
            assert_says(&why, &format!("{limit:?}"));
            break;
        }
        assert!(limit < LATE, "{why}");
        limit *= 2;
        let _ = std::fs::remove_file(&file);
    }
}

/// Makes further workers hang at their start, kills the existing one, and waits until the engine gives up. Returns the
/// reason.
fn given_up(lab: &Lab, file: &Path) -> String {
    std::fs::write(file, "").unwrap();
    let job = lab.submit(|| -> u8 { std::process::exit(1) }, ());
    let error = lab.failure_of(job);
    assert_eq!(*error.kind(), JobErrorKind::Lost(WorkerExit::Code(Some(1))));
    step("the engine to give up");
    wait_until("the start has failed often enough", || {
        let error = lab
            .submit(|| 1_u8, ())
            .wait_timeout(Duration::from_millis(1));
        matches!(error, Some(Err(_)))
    });
    let error = lab.error_of(|| 1_u8, ());
    match error.kind() {
        JobErrorKind::NoWorkers(why) => why.to_string(),
        _ => panic!("{error}"),
    }
}

/// A distant limit changes nothing, nor does one beyond every clock.
fn a_start_may_take_its_time() {
    for limit in [NEVER, Duration::MAX] {
        let lab = Lab::with(1, |builder| builder.start_timeout(limit));
        assert_eq!(lab.value_of(|| 1_u8, ()), 1);
        lab.replace(0);
        assert_eq!(lab.value_of(|| 1_u8, ()), 1);
    }
}

fn a_program_that_does_not_become_a_worker() {
    for (fate, expected) in [
        ("127", "shared library"),
        ("0", "arenite::init() must be the first thing in main"),
        ("2", "arenite::init() must be the first thing in main"),
        ("go on", "arenite::init() must be the first thing in main"),
        ("denied", "seccomp"),
    ] {
        let _env = Env::set(FATE, fate);
        let text = build(NEVER, |builder| builder);
        assert!(text.contains(expected), "{fate}: {text}");
        assert!(text.contains("worker "), "{fate}: {text}");
    }
    let _env = Env::set(FATE, "runtime");
    let text = build(NEVER, |builder| builder);
    assert_says(&text, "call arenite::init() before the runtime");
    assert!(!text.contains("panicked"), "{text}");
    let _env = Env::set(FATE, "wait");
    let text = build(SOON, |builder| builder);
    assert_says(&text, "it has not become a worker");
}

/// Where a worker waits at its start.
const GATE: &str = "ARENITE_TEST_START_GATE";

fn wait_at_gate() {
    pass(&std::env::var(GATE).unwrap());
}

fn a_start_in_the_background() {
    let gate = Gate::new();
    let _env = Env::set(GATE, gate.path());
    let start = |builder: Builder| builder.on_worker_start(wait_at_gate).start_in_background();
    // It is there although its worker waits.
    let lab = Lab::with(1, start);
    let jobs: Vec<_> = (0..100_u32)
        .map(|n| lab.submit(|x: u32| x + 1, (n,)))
        .collect();
    assert_eq!(lab.stats().queued, 100);
    gate.open();
    for (n, job) in (1..).zip(jobs) {
        assert_eq!(job.wait().unwrap(), n);
    }
    lab.assert_idle();
}

fn a_failed_start_in_the_background() {
    let builder = || builder(2, 64 << 20).start_in_background();
    let missing = WorkerProgram::new("/missing/program");
    for (builder, expected) in [
        (
            builder().on_worker_start(|| panic!("on purpose")),
            "on purpose",
        ),
        (builder().worker_program(missing), "/missing/program"),
    ] {
        let lab = Lab::of(builder.build().unwrap());
        let jobs: Vec<_> = (0..4).map(|_| lab.submit(|| 1_u8, ())).collect();
        for job in jobs {
            let error = job.wait().unwrap_err();
            assert_kind!(error, JobErrorKind::NoWorkers(why) if why.contains(expected));
        }
        // It does not try again.
        let error = lab.error_of(|| 1_u8, ());
        assert_says(&error, expected);
    }
}

fn a_start_in_the_background_that_is_not_waited_for() {
    let gate = Gate::new();
    let _env = Env::set(GATE, gate.path());
    for queued in [0, 3] {
        let builder = builder(2, 64 << 20);
        let engine = builder
            .on_worker_start(wait_at_gate)
            .start_in_background()
            .build()
            .unwrap();
        let jobs: Vec<_> = (0..queued).map(|_| engine.submit(|| 1_u8, ())).collect();
        step("the end of an engine that is starting");
        drop(engine);
        for job in jobs {
            assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::ShutDown);
        }
    }
}

static GIVEN: OnceLock<String> = OnceLock::new();

fn take(text: &str, number: u64, bytes: &Bytes) {
    GIVEN
        .set(format!("{} {number} {}", text.len(), bytes.len()))
        .unwrap();
}

fn given() -> String {
    GIVEN.get().cloned().unwrap_or_default()
}

fn a_start_with_arguments() {
    for (text, bytes) in [("", 0), ("short", 3), (&*"x".repeat(100_000), 1 << 20)] {
        let expected = format!("{} {} {bytes}", text.len(), u64::MAX);
        let args = (text, u64::MAX, Bytes::from(vec![7; bytes]));
        let lab = Lab::with(1, |builder| builder.on_worker_start_with(take, args));
        assert_eq!(lab.value_of(given, ()), expected);
        // Those that replace it get the same.
        lab.replace(0);
        assert_eq!(lab.value_of(given, ()), expected);
    }
}

fn a_start_with_arrays_is_refused() {
    fn count(values: &Array<u8>) {
        assert!(values.is_empty());
    }
    let other = Lab::new(1);
    let shared = other.from_slice(&[1_u8]).unwrap();
    for array in [Array::from_slice(&[1_u8]), shared.clone()] {
        let builder = Engine::builder()
            .workers(1)
            .on_worker_start_with(count, (&array,));
        let error = builder.build().unwrap_err();
        assert!(matches!(error, BuildError::StartWithArrays), "{error}");
    }
}

fn a_start_that_returns_an_error() {
    let fails = || -> Result<(), String> { Err("no configuration".to_owned()) };
    let text = build(NEVER, |builder| builder.on_worker_start_with(fails, ()));
    assert_says(&text, "on_worker_start failed: no configuration");
}
