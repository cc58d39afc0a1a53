//! `arenite top` with engines, from outside. With a store: `serve.rs`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Output};

use arenite::Engine;
use nix::unistd::geteuid;
use serde_json::Value;
use tempfile::TempDir;

arenite::test_workers!();

/// A folder without a store.
struct World(TempDir);

impl World {
    fn new() -> World {
        World(tempfile::tempdir().unwrap())
    }

    fn run(&self, line: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_arenite"))
            .args(line.split_whitespace())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env_remove("ARENITE_STORE")
            .output()
            .unwrap()
    }

    #[track_caller]
    fn succeeds(&self, line: &str) -> String {
        let output = self.run(line);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the engines of this process with this label.
    fn engines(&self, label: &str) -> Vec<Value> {
        let mut view: Value = serde_json::from_str(&self.succeeds("top --json")).unwrap();
        assert_eq!(view["store"], Value::Null);
        let Value::Array(engines) = view["engines"].take() else {
            panic!("{view}");
        };
        let own = std::process::id();
        let is_meant = |engine: &Value| engine["name"] == label && engine["pid"] == own;
        engines.into_iter().filter(is_meant).collect()
    }
}

fn bind(name: &str) -> UnixListener {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
}

fn kernel(number: u64) -> u64 {
    number + 1
}

#[test]
fn engines_are_shown_without_a_store() {
    let world = World::new();
    let engine = Engine::builder().workers(2).label("shown").build().unwrap();
    for number in 0..3 {
        engine.submit(kernel, (number,)).wait().unwrap();
    }
    engine
        .submit(|| -> u8 { panic!("once") }, ())
        .wait()
        .unwrap_err();
    let own = std::env::current_exe().unwrap();
    let program = own.file_name().unwrap().to_str().unwrap();

    let view = world.succeeds("top");
    let mut lines = view.lines();
    assert!(lines.next().unwrap().starts_with("no store   "), "{view}");
    assert_eq!(lines.next(), Some(""));
    let heading: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        heading.join(" "),
        "ENGINE PROCESS UP WORKERS RUNNING WAITING DONE FAILED RESTARTS ARENA RUNS"
    );
    let line = lines.find(|line| line.starts_with(&format!("{program}: shown")));
    let line: Vec<_> = line
        .unwrap_or_else(|| panic!("{view}"))
        .split_whitespace()
        .collect();
    assert_eq!(line[2], std::process::id().to_string());
    // Up for a number of seconds.
    assert_eq!(line[4], "s");
    assert_eq!(line[5..10], ["2", "0", "0", "3", "1"], "{view}");

    let seen = world.engines("shown");
    let [seen] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(seen["program"], program);
    assert_eq!(seen["pid"], std::process::id());
    let pids: Vec<_> = engine
        .stats()
        .workers
        .iter()
        .map(|worker| worker.pid)
        .collect();
    let workers = seen["workers"].as_array().unwrap();
    assert_eq!(
        workers
            .iter()
            .map(|worker| &worker["pid"])
            .collect::<Vec<_>>(),
        pids
    );
    assert_eq!(seen["arena"]["capacity"], engine.stats().arena.capacity);
    engine.shutdown();
    assert!(world.engines("shown").is_empty());
}

#[test]
fn a_named_store_must_run() {
    let world = World::new();
    for line in ["top --store main", "top --store other --json"] {
        let output = world.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    assert!(world.succeeds("top").starts_with("no store"));
}

/// What an engine answers while its workers cannot start.
#[test]
fn an_engine_without_workers_says_why() {
    let world = World::new();
    let engine = Engine::builder().workers(1).label("ready").build().unwrap();
    let ready = world.engines("ready").remove(0);
    assert_eq!(ready["start_failure"], Value::Null);
    let mut starving = ready;
    starving["name"] = "starving".into();
    starving["start_failure"] = "fork: too many processes".into();
    let number = format!("arenite-engine-{}-{}-1001", geteuid(), std::process::id());
    let listener = bind(&number);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let (mut peer, _) = listener.accept().unwrap();
                peer.write_all(format!("{starving}\n").as_bytes()).unwrap();
            }
        });
        let view = world.succeeds("top");
        let line = view.lines().find(|line| line.contains(": starving"));
        let why = "no worker starts: fork: too many processes";
        assert!(line.is_some_and(|line| line.ends_with(why)), "{view}");
        let report: Value = serde_json::from_str(&world.succeeds("doctor --json")).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let engines = findings.iter().find(|it| it["subject"] == "engines");
        let found = engines.unwrap()["found"].as_str().unwrap();
        assert!(found.ends_with("): fork: too many processes"), "{found}");
    });
    engine.shutdown();
}

/// Sockets with names of engines that are none, or do not answer.
#[test]
fn what_does_not_answer_is_left_out() {
    let world = World::new();
    let engine = Engine::builder()
        .workers(1)
        .label("among others")
        .build()
        .unwrap();
    let prefix = format!("arenite-engine-{}-{}", geteuid(), std::process::id());
    // One accepts nothing, as the forked copy of a killed program.
    let silent = bind(&format!("{prefix}-1001"));
    // The others answer.
    let answers: [&[u8]; 5] = [
        b"",
        b"\n",
        b"{\"version\":1}\n",
        b"[[[[[\xff",
        &[b'['; 100_000],
    ];
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, answer) in (1002..).zip(answers) {
            let listener = bind(&format!("{prefix}-{number}"));
            threads.push(scope.spawn(move || {
                let (mut peer, _) = listener.accept().unwrap();
                let _ = peer.write_all(answer);
            }));
        }
        assert_eq!(world.engines("among others").len(), 1);
        for thread in threads {
            thread.join().unwrap();
        }
    });
    assert_eq!(world.engines("among others").len(), 1);
    drop(silent);
    engine.shutdown();
}
