//! The n-th system call of the supervisor fails, for every n and every reason, and the n-th one of a worker that starts:
//! an error of the type that says it or a success, no hang, and nothing is left. Needs the feature `points`.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use arenite::engine::{ArenaError, Builder, SystemError};
use arenite::{
    ArenaFull, Array, Backing, BuildError, Engine, JobError, JobErrorKind, failing_calls,
};

use crate::harness::{Invariant, tests, wait_until};
use crate::programs::{Program, say};

tests![
    too_many_files,
    no_memory,
    try_again,
    no_room,
    interrupted,
    not_permitted,
    starts_without_files,
    starts_without_memory,
    starts_that_try_again,
    starts_without_room,
    starts_that_are_interrupted,
    starts_without_permission,
];

pub const SCENARIOS: &[(&str, fn())] = &[("calls", every_call), ("starts", every_start)];

/// Why calls fail.
const REASONS: [i32; 6] = [
    libc::EMFILE,
    libc::ENOMEM,
    libc::EAGAIN,
    libc::ENOSPC,
    libc::EINTR,
    libc::EPERM,
];
/// So many calls fail for each of the reasons.
const EACH: u64 = 60;

fn fails_with(errno: i32) {
    let change = |command: &mut std::process::Command| {
        command.env("ARENITE_HOSTILE_ERRNO", errno.to_string());
    };
    let mut program = Program::with("calls", || Ok(()), change);
    let (mut last, mut calls) = (0, 0);
    loop {
        let line = program.line();
        match line.parse() {
            Ok(n) => {
                last = n;
                calls += 1;
            }
            Err(_) => {
                let ended = program.end();
                assert_eq!(
                    (line.as_str(), ended.code),
                    ("done", Some(0)),
                    "after call {last}: {ended:?}"
                );
                break;
            }
        }
    }
    assert!(calls > 150, "only {calls} calls in two backings");
}

fn too_many_files() {
    fails_with(libc::EMFILE);
}

fn no_memory() {
    fails_with(libc::ENOMEM);
}

fn try_again() {
    fails_with(libc::EAGAIN);
}

fn no_room() {
    fails_with(libc::ENOSPC);
}

fn interrupted() {
    fails_with(libc::EINTR);
}

fn not_permitted() {
    fails_with(libc::EPERM);
}

// ---- what the program does ----------------------------------------------------------------------------------

/// The reason of the call that fails.
fn asked_errno() -> i32 {
    let text = std::env::var("ARENITE_HOSTILE_ERRNO").unwrap();
    text.parse().unwrap()
}

fn every_call() {
    let errno = asked_errno();
    let share = REASONS.iter().position(|&reason| reason == errno).unwrap() as u64 % 3;
    // What is made once and kept, and what goes only in a moment.
    let first = Invariant::before();
    life(Backing::Memfd).unwrap();
    first.nothing_left().unwrap();
    for backing in [Backing::Memfd, Backing::Named] {
        for n in 1u64.. {
            // Building an engine meets every reason at every call. Of what follows each reason takes a third, so that
            // every call meets two of them.
            if n > EACH && n % 3 != share {
                continue;
            }
            let before = Invariant::before();
            failing_calls::arm(n, errno);
            let result = life(backing);
            let calls = failing_calls::disarm();
            let what = format!("call {n} of {backing:?} with errno {errno}");
            if let Err(left) = before.nothing_left() {
                panic!("{what}, {result:?}: {left}");
            }
            say(n);
            if calls < n {
                result.unwrap_or_else(|failed| panic!("{what}, which is none: {failed:?}"));
                break;
            }
            if let Err(failed) = result {
                // An interrupted call is made again, and nobody hears of it.
                assert!(
                    errno != libc::EINTR && failed.says(errno),
                    "{what}: {failed:?}"
                );
            }
        }
    }
}

/// Where a life ended early, with the error that says it.
#[derive(Debug)]
enum Failed {
    Build(BuildError),
    Input(ArenaFull),
    Job(JobError),
}

impl Failed {
    /// Whether this is what a failed call with this reason may become, on its way to the program.
    fn says(&self, errno: i32) -> bool {
        let is_ours = |error: &SystemError| error.errno() as i32 == errno;
        match self {
            Self::Build(BuildError::System(error)) => is_ours(error),
            Self::Build(BuildError::Arena(ArenaError::System(error))) => is_ours(error),
            Self::Build(BuildError::Arena(ArenaError::Full(_))) => true,
            Self::Build(BuildError::Worker(_)) => true,
            Self::Build(_) => false,
            Self::Input(full) => full.requested > 0,
            Self::Job(error) => matches!(error.kind(), JobErrorKind::ArenaFull(_)),
        }
    }
}

/// Build, submit, map, lose a worker by its own hand and one by ours, get others, shut down. The first error is told.
fn life(backing: Backing) -> Result<(), Failed> {
    fn ramp(n: usize) -> Array<u8> {
        Array::from_fn(n, |i| i as u8)
    }
    fn sum(bytes: &[u8]) -> u64 {
        bytes.iter().map(|&x| u64::from(x)).sum()
    }
    fn hang() -> u8 {
        loop {
            std::thread::park();
        }
    }
    let builder = Engine::builder().workers(2).capacity(16 << 20);
    let engine = builder.backing(backing).build().map_err(Failed::Build)?;
    let values = engine
        .from_fn(100_000, |i| i as u8)
        .map_err(Failed::Input)?;
    let expected = values.iter().map(|&x| u64::from(x)).sum::<u64>();
    let mut failure = None;
    let mut note = |error: JobError| {
        failure.get_or_insert(Failed::Job(error));
    };
    match engine.submit(sum, (&values,)).wait() {
        Ok(found) => assert_eq!(found, expected),
        Err(error) => note(error),
    }
    for (n, result) in (0..20).zip(engine.map(ramp, (0..20usize).map(|n| (n * 5000,)))) {
        match result {
            Ok(bytes) => assert!(
                bytes.len() == n * 5000 && bytes.iter().enumerate().all(|(i, &x)| x == i as u8)
            ),
            Err(error) => note(error),
        }
    }
    let abort = || -> u8 { std::process::abort() };
    match engine.submit(abort, ()).wait().unwrap_err() {
        error if *error.kind() == JobErrorKind::Signal(libc::SIGABRT) => {}
        error => note(error),
    }
    let limit = Duration::from_millis(1);
    let late = engine.job(hang, ()).deadline(limit).submit();
    match late.wait().unwrap_err() {
        error if matches!(error.kind(), JobErrorKind::DeadlineExceeded { .. }) => {}
        error => note(error),
    }
    // Not before the one that hangs is gone.
    match engine.submit(ramp, (700_000,)).wait() {
        Ok(bytes) => assert_eq!(bytes.len(), 700_000),
        Err(error) => note(error),
    }
    wait_until("both that died have been replaced", || {
        let stats = engine.stats();
        stats.restarts() >= 2 && stats.workers.iter().all(|worker| worker.ready)
    });
    drop(values);
    engine.shutdown();
    failure.map_or(Ok(()), Err)
}

// ---- in a worker --------------------------------------------------------------------------------------------

fn starts_fail_with(errno: i32) {
    let change = |command: &mut std::process::Command| {
        command.env("ARENITE_HOSTILE_ERRNO", errno.to_string());
    };
    Program::with("starts", || Ok(()), change)
        .end()
        .assert_done();
}

fn starts_without_files() {
    starts_fail_with(libc::EMFILE);
}

fn starts_without_memory() {
    starts_fail_with(libc::ENOMEM);
}

fn starts_that_try_again() {
    starts_fail_with(libc::EAGAIN);
}

fn starts_without_room() {
    starts_fail_with(libc::ENOSPC);
}

fn starts_that_are_interrupted() {
    starts_fail_with(libc::EINTR);
}

fn starts_without_permission() {
    starts_fail_with(libc::EPERM);
}

/// Whether the workers of an engine are locked down.
type Change = fn(Builder) -> Builder;

fn every_start() {
    let errno = asked_errno();
    let changes: &[Change] = &[
        |builder| builder,
        #[cfg(feature = "sandbox")]
        |builder| builder.sandbox(arenite::Sandbox::Strict),
    ];
    for change in changes {
        let (mut starts, mut refused) = (0, 0);
        for n in 1.. {
            let before = Invariant::before();
            let what = format!("call {n} of a start with errno {errno}");
            // SAFETY: no engine, and so no other thread, is there.
            unsafe { std::env::set_var(failing_calls::WORKERS, format!("{n}:{errno}")) };
            let (built, is_over) = start(*change);
            if let Err(left) = before.nothing_left() {
                panic!("{what}, {built:?}: {left}");
            }
            starts += 1;
            match built {
                Ok(()) if is_over => break,
                Ok(()) => {}
                Err(BuildError::Worker(why)) => {
                    assert!(errno != libc::EINTR && !is_over, "{what}: {why}");
                    refused += 1;
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
        assert!(starts > 10, "only {starts} calls");
        assert_eq!(
            refused == 0,
            errno == libc::EINTR,
            "{refused} starts failed"
        );
    }
}

/// An engine with one worker, if it can be built, and whether all calls of that were made.
fn start(change: Change) -> (Result<(), BuildError>, bool) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let builder = Engine::builder()
        .workers(1)
        .lanes(2)
        .memory_limit(256 << 20)
        .capacity(16 << 20)
        .on_log(move |line| {
            // Nobody listens to what comes later.
            let _ = tell.lock().unwrap().send(line.text.clone());
        });
    let built = change(builder).build().map(|engine| {
        assert_eq!(engine.submit(|| 7u8, ()).wait().unwrap(), 7);
        engine.shutdown();
    });
    let is_over = told
        .try_iter()
        .any(|line| line.starts_with(failing_calls::WORKERS));
    (built, is_over)
}
