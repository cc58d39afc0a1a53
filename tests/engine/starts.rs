//! Workers that do not become ready, and the errors about them.

use std::path::Path;
use std::time::Duration;

use arenite::engine::Builder;
use arenite::{BuildError, Engine, JobErrorKind, WorkerExit};

use crate::harness::{Env, Lab, step, tests, wait_until};

tests![
    a_start_that_hangs,
    a_start_that_stops_itself,
    a_later_start_that_hangs,
    a_start_may_take_its_time,
    a_program_that_does_not_become_a_worker,
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
        "denied" => {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGSYS).unwrap();
        }
        code => std::process::exit(code.parse().unwrap()),
    }
}

fn build(start_timeout: Duration, start: impl FnOnce(Builder) -> Builder) -> String {
    let builder = Engine::builder()
        .workers(2)
        .capacity(64 << 20)
        .start_timeout(start_timeout);
    step("an engine that cannot be built");
    let error = start(builder).build().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BuildError::Worker(_)), "{text}");
    assert_eq!(crate::harness::children(), [], "{text}");
    text
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

fn a_start_that_hangs() {
    fn hang() {
        loop {
            std::hint::spin_loop();
        }
    }
    let (text, limit) = hung_in(|builder| builder.on_worker_start(hang));
    assert!(text.contains(&format!("{limit:?}")), "{text}");
}

fn a_start_that_stops_itself() {
    fn stop() {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
    }
    let (text, limit) = hung_in(|builder| builder.on_worker_start(stop));
    assert!(text.contains(&format!("{limit:?}")), "{text}");
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
        let builder = Engine::builder().workers(1).capacity(64 << 20);
        let why = match builder.on_worker_start(start).start_timeout(limit).build() {
            Ok(engine) => given_up(&Lab::of(engine), &file),
            Err(BuildError::Worker(why)) => why,
            Err(error) => panic!("{error}"),
        };
        // Not the reason why there was no engine.
        if file.exists() && why.contains("on_worker_start has not returned") {
            assert!(why.contains(&format!("{limit:?}")), "{why}");
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
    let error = lab.submit(|| 1_u8, ()).wait().unwrap_err();
    match error.kind() {
        JobErrorKind::NoWorkers(why) => why.to_string(),
        _ => panic!("{error}"),
    }
}

/// A distant limit changes nothing, nor does one beyond every clock.
fn a_start_may_take_its_time() {
    for limit in [NEVER, Duration::MAX] {
        let lab = Lab::with(1, |builder| builder.start_timeout(limit));
        assert_eq!(lab.submit(|| 1_u8, ()).wait().unwrap(), 1);
        lab.replace(0);
        assert_eq!(lab.submit(|| 1_u8, ()).wait().unwrap(), 1);
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
    let _env = Env::set(FATE, "wait");
    let text = build(SOON, |builder| builder);
    assert!(text.contains("it has not become a worker"), "{text}");
}
