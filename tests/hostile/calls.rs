//! The n-th system call of the supervisor fails, for every n and every reason: an error with a type or a success, no
//! hang, and nothing is left. Needs the feature `points`.

use arenite::{Array, Backing, Engine, failing_calls};

use crate::harness::{Invariant, tests};
use crate::programs::{Program, say};

tests![
    too_many_files,
    no_memory,
    try_again,
    no_room,
    interrupted,
    not_permitted,
];

pub const SCENARIOS: &[(&str, fn())] = &[("calls", every_call)];

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
    assert!(calls > 80, "only {calls} calls in two backings");
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

fn every_call() {
    let errno: i32 = std::env::var("ARENITE_HOSTILE_ERRNO")
        .unwrap()
        .parse()
        .unwrap();
    // What is made once and kept, and what goes only in a moment.
    let first = Invariant::before();
    assert_eq!(life(Backing::Memfd), Ok(()));
    first.nothing_left().unwrap();
    for backing in [Backing::Memfd, Backing::Named] {
        for n in 1.. {
            let before = Invariant::before();
            failing_calls::arm(n, errno);
            let result = life(backing);
            let calls = failing_calls::disarm();
            if let Err(what) = before.nothing_left() {
                panic!("call {n} of {backing:?}, {result:?}: {what}");
            }
            say(n);
            // With names, only making the arena is another thing.
            if backing == Backing::Named && n == 30 {
                break;
            }
            if calls < n {
                assert_eq!(result, Ok(()));
                break;
            }
            // An interrupted call is made again, and nobody hears of it.
            if errno == libc::EINTR {
                assert_eq!(result, Ok(()), "call {n} of {backing:?}");
            }
        }
    }
}

/// Build, submit, map, lose a worker and get another one, shut down. The first error ends it.
fn life(backing: Backing) -> Result<(), String> {
    fn ramp(n: usize) -> Array<u8> {
        Array::from_fn(n, |i| i as u8)
    }
    fn sum(bytes: &[u8]) -> u64 {
        bytes.iter().map(|&x| u64::from(x)).sum()
    }
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let engine = Engine::builder()
        .workers(2)
        .capacity(16 << 20)
        .backing(backing)
        .build()
        .map_err(|error| text(&error))?;
    let values = engine
        .from_fn(100_000, |i| i as u8)
        .map_err(|error| text(&error))?;
    let expected = values.iter().map(|&x| u64::from(x)).sum::<u64>();
    let mut failure = None;
    let mut note = |error: arenite::JobError| {
        failure.get_or_insert(error.to_string());
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
    if engine
        .submit(|| -> u8 { std::process::abort() }, ())
        .wait()
        .is_ok()
    {
        return Err("a worker that aborts has no value".into());
    }
    match engine.submit(ramp, (700_000,)).wait() {
        Ok(bytes) => assert_eq!(bytes.len(), 700_000),
        Err(error) => note(error),
    }
    drop(values);
    engine.shutdown();
    failure.map_or(Ok(()), Err)
}
