//! Workers that run another program: this one with arguments, scripts, and programs that are no workers.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use arenite::engine::{Builder, WorkerProgram};
use arenite::{BuildError, Engine, JobErrorKind, WorkerExit};

use crate::harness::programs::{Program, pause, say, scenario_name};
use crate::harness::{Calls, Env, Lab, assert_says, children, refused, tests};

tests![
    workers_run_the_program_with_its_arguments_and_environment,
    the_environment_is_that_of_the_time_of_building,
    a_program_that_never_calls_init,
    programs_that_are_no_workers,
    a_script_runs_the_worker_in_its_own_process,
    a_worker_program_without_an_engine,
    a_worker_program_that_dies_is_replaced,
];

/// The first argument of a worker program; the second is its identity.
const RUN: &str = "--run-worker";
/// The first argument of a program that builds an engine instead.
const NEST: &str = "--nest";
/// A variable of the environment.
const GIVEN: &str = "ARENITE_TEST_GIVEN";

/// Called in `main`, before `init`.
pub fn before_init() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(RUN) => arenite::run_worker(args[2].as_bytes()),
        Some(NEST) => {
            // It must not start programs that start programs.
            let built = builder(this(&[NEST])).build();
            println!("built: {built:?}");
            std::process::exit(0);
        }
        _ => {}
    }
    if scenario_name().as_deref() == Some(WITHOUT_INIT) {
        without_init();
        std::process::exit(0);
    }
}

fn this(args: &[&str]) -> WorkerProgram {
    WorkerProgram::new(std::env::current_exe().unwrap()).args(args)
}

fn builder(program: WorkerProgram) -> Builder {
    Engine::builder()
        .workers(1)
        .capacity(64 << 20)
        .worker_program(program)
}

/// Why no worker runs this program.
fn refusal(builder: Builder) -> String {
    let error = refused(builder);
    assert!(matches!(error, BuildError::Worker(_)), "{error}");
    error.to_string()
}

fn variables() -> String {
    let mut all: Vec<_> = std::env::vars().collect();
    all.sort();
    format!("{all:?}")
}

fn arguments() -> String {
    std::env::args().collect::<Vec<_>>().join(" ")
}

fn given() -> String {
    std::env::var(GIVEN).unwrap_or_default()
}

fn workers_run_the_program_with_its_arguments_and_environment() {
    let _env = Env::set(GIVEN, "by the program");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other name");
    symlink(std::env::current_exe().unwrap(), &path).unwrap();
    let program = WorkerProgram::new(&path)
        .args([RUN, "version 1"])
        .args(["a b", ""])
        .env([("B", "2=3"), ("A", "")])
        .identity("version 1");
    let lab = Lab::of(builder(program).workers(2).build().unwrap());
    let expected = format!("{} {RUN} version 1 a b ", path.display());
    assert_eq!(lab.value_of(arguments, ()), expected);
    let expected = r#"[("A", ""), ("B", "2=3")]"#;
    assert_eq!(lab.value_of(variables, ()), expected);
    let why = || match Engine::builder().build() {
        Err(BuildError::InWorker) => Engine::inline().submit(|| 1_u8, ()).wait().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(lab.value_of(why, ()), 1);
}

fn the_environment_is_that_of_the_time_of_building() {
    let before = Env::set(GIVEN, "before");
    for program in [None, Some(this(&[RUN, ""]))] {
        let builder = Engine::builder().workers(1).capacity(64 << 20);
        let builder = match program {
            Some(program) => builder.worker_program(program),
            None => builder,
        };
        let lab = Lab::of(builder.build().unwrap());
        assert_eq!(lab.value_of(given, ()), "before");
        let after = Env::set(GIVEN, "after");
        lab.replace(0);
        assert_eq!(lab.value_of(given, ()), "before");
        drop(after);
    }
    drop(before);
}

const WITHOUT_INIT: &str = "worker-program-without-init";

fn a_program_that_never_calls_init() {
    let mut program = Program::with(
        WITHOUT_INIT,
        || Ok(()),
        // That of a worker of another program, handed down.
        |command| {
            command.env("ARENITE_WORKER", "1:3:9");
        },
    );
    program.expect("42");
    program.go_on();
    program.end().assert_done();
}

fn without_init() {
    let engine = builder(this(&[RUN, ""])).build().unwrap();
    let answer = engine.value_of(|x: u32| x + 1, (41,));
    say(answer.to_string());
    pause();
    engine.shutdown();
    assert_eq!(children(), [0_i32; 0]);
    say("done");
}

fn programs_that_are_no_workers() {
    let folder = tempfile::tempdir().unwrap();
    let program = |path: &str| WorkerProgram::new(path);
    let sh = || program("/bin/sh");
    let script = |text: &str| sh().args(["-c", text]);
    let other = || this(&[RUN, "version 2"]);
    for (program, parts) in [
        (program("/missing/program"), "/missing/program: ENOENT"),
        (program(folder.path().to_str().unwrap()), "EACCES"),
        (
            script("exit 0"),
            "without having called arenite::run_worker()",
        ),
        (
            script("echo because >&2; exit 70"),
            "it said why on stderr: because",
        ),
        (
            script("kill -SEGV $$"),
            "before arenite::run_worker() crashes",
        ),
        (
            other().identity("version 1"),
            r#"calls itself "version 2", not "version 1""#,
        ),
        (other(), r#"calls itself "version 2", not """#),
        (
            this(&[NEST]),
            "did not call arenite::run_worker(): was started as a worker, and has not become one",
        ),
        (program("a\0b"), "contains a zero byte"),
        (sh().args(["a\0b"]), "contains a zero byte"),
        (sh().env([("a", "b\0")]), "contains a zero byte"),
        (sh().env([("", "")]), "no name for an environment variable"),
        (
            sh().env([("a=b", "")]),
            "no name for an environment variable",
        ),
    ] {
        let why = refusal(builder(program));
        parts.split(": ").for_each(|part| assert_says(&why, part));
    }
    let soon = Duration::from_millis(100);
    let endless = builder(script("while :; do :; done")).start_timeout(soon);
    assert_says(&refusal(endless), "has not called arenite::run_worker()");
}

fn a_script_runs_the_worker_in_its_own_process() {
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, exec: &str| -> PathBuf {
        let path = folder.path().join(name);
        let program = std::env::current_exe().unwrap();
        // A shell runs the last command of a script in its own process.
        let text = format!(
            "#!/bin/sh\n{exec}'{}' {RUN} ''\nexit $?\n",
            program.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let lab = Lab::of(
        builder(WorkerProgram::new(script("right", "exec ")))
            .build()
            .unwrap(),
    );
    assert_eq!(lab.value_of(|x: u32| x + 1, (41,)), 42);
    drop(lab);
    let why = refusal(builder(WorkerProgram::new(script("wrong", ""))));
    assert_says(&why, "is not its parent");
    assert_says(&why, "exec");
}

fn a_worker_program_without_an_engine() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([RUN, ""]).env_remove("ARENITE_WORKER");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(70));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_says(&errors, "no engine has started this process");
}

fn a_worker_program_that_dies_is_replaced() {
    let lab = Lab::of(builder(this(&[RUN, ""])).build().unwrap());
    let error = lab.error_of(|| -> u8 { std::process::exit(3) }, ());
    assert_eq!(*error.kind(), JobErrorKind::Lost(WorkerExit::Code(Some(3))));
    assert_eq!(lab.value_of(arguments, ()).split(' ').nth(1), Some(RUN));
}
