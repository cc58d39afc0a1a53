//! Workers that do not become ready, and what is said about them.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use arenite::{BuildError, Engine, JobErrorKind};

use crate::harness::{Lab, step, tests, wait_until};

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

/// A variable of the environment as long as this lives. Tests run one after the other.
pub struct Env {
    name: &'static str,
    before: Option<OsString>,
}

impl Env {
    pub fn set(name: &'static str, value: &str) -> Self {
        let before = std::env::var_os(name);
        // SAFETY: no other thread of this program reads the environment now: the last test's engines are gone.
        unsafe { std::env::set_var(name, value) };
        Self { name, before }
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        // SAFETY: as in `set`; it is dropped after the engine of its test.
        unsafe {
            match self.before.take() {
                Some(value) => std::env::set_var(self.name, value),
                None => std::env::remove_var(self.name),
            }
        }
    }
}

/// In `main`, before `init`.
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

fn build(
    start_timeout: Duration,
    start: fn(arenite::engine::Builder) -> arenite::engine::Builder,
) -> String {
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

const SOON: Duration = Duration::from_millis(100);
const NEVER: Duration = Duration::from_secs(3600);

fn a_start_that_hangs() {
    fn hang() {
        loop {
            std::hint::spin_loop();
        }
    }
    let text = build(SOON, |builder| builder.on_worker_start(hang));
    assert!(
        text.contains("on_worker_start has not returned") && text.contains("100ms"),
        "{text}"
    );
}

fn a_start_that_stops_itself() {
    fn stop() {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
    }
    let text = build(SOON, |builder| builder.on_worker_start(stop));
    assert!(text.contains("on_worker_start has not returned"), "{text}");
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
    // As long as nothing hangs a start is done by then, at least at the next attempt: the machine may have much else to do.
    let build = || {
        let builder = Engine::builder().workers(1).capacity(64 << 20);
        builder.on_worker_start(start).start_timeout(SOON).build()
    };
    let lab = loop {
        match build() {
            Ok(engine) => break Lab::of(engine),
            Err(error) => assert!(matches!(error, BuildError::Worker(_)), "{error}"),
        }
    };
    std::fs::write(&file, "").unwrap();
    let job = lab.submit(|| -> u8 { std::process::exit(1) }, ());
    let error = lab.failure_of(job);
    assert_eq!(*error.kind(), JobErrorKind::Exited(Some(1)));
    step("the engine to give up");
    wait_until("the start has failed often enough", || {
        let error = lab
            .submit(|| 1_u8, ())
            .wait_timeout(Duration::from_millis(1));
        matches!(error, Some(Err(_)))
    });
    let error = lab.submit(|| 1_u8, ()).wait().unwrap_err();
    let JobErrorKind::NoWorkers(why) = error.kind() else {
        panic!("{error}")
    };
    assert!(why.contains("on_worker_start has not returned"), "{why}");
}

/// A limit that is far away changes nothing, and neither does one beyond all clocks.
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
