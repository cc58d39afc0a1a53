//! The n-th system call of the supervisor fails, for every n and every reason, and the n-th call of a worker that
//! starts or has jobs. The result is a typed error or a success, without a hang or a leak, and with consistent
//! accounting. Needs the feature `points`.

mod lives;
mod workers;

use arenite::{Engine, failing_calls};
use libtest_mimic::Trial;

use crate::harness::programs::{Program, Scenario, may_have_own_shm, own_shm, say};
use crate::harness::{Invariant, named};
use lives::{Failed, LIVES, Life};

pub const SCENARIOS: &[Scenario] = &[
    ("calls", every_call),
    ("starts", workers::every_start),
    ("jobs", workers::every_job),
];

/// The reasons for which calls fail.
const REASONS: [(&str, i32); 6] = [
    ("too_many_files", libc::EMFILE),
    ("no_memory", libc::ENOMEM),
    ("try_again", libc::EAGAIN),
    ("no_room", libc::ENOSPC),
    ("interrupted", libc::EINTR),
    ("not_permitted", libc::EPERM),
];

/// One test for each of the reasons.
pub fn tests() -> Vec<Trial> {
    REASONS
        .map(|(name, errno)| named(format!("calls::{name}"), move || fail_with(errno)))
        .into()
}

/// Supervisors, starts of workers, and jobs: in parallel if each can have its own `/dev/shm`, which is checked for
/// leftovers.
fn fail_with(errno: i32) {
    if !may_have_own_shm() {
        of_the_supervisor(start("calls", errno, || Ok(())));
        for scenario in ["starts", "jobs"] {
            start(scenario, errno, || Ok(())).end().assert_done();
        }
        return;
    }
    // Started by this thread, so they end with it.
    let [calls, starts, jobs] =
        ["calls", "starts", "jobs"].map(|scenario| start(scenario, errno, own_shm(None)));
    std::thread::scope(|threads| {
        for program in [starts, jobs] {
            threads.spawn(|| program.end().assert_done());
        }
        of_the_supervisor(calls);
    });
}

fn start(
    scenario: &str,
    errno: i32,
    prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) -> Program {
    let change = |command: &mut std::process::Command| {
        command.env("ARENITE_HOSTILE_ERRNO", errno.to_string());
    };
    Program::with(scenario, prepare, change)
}

fn of_the_supervisor(mut program: Program) {
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
    assert!(calls > 200, "only {calls} calls in all lives");
}

// ---- what the program does ----------------------------------------------------------------------------------

/// The reason for which the call fails.
fn asked_errno() -> i32 {
    let text = std::env::var("ARENITE_HOSTILE_ERRNO").unwrap();
    text.parse().unwrap()
}

/// Whether each call fails for each of the reasons: set by `ARENITE_EVERY_CALL`. It takes minutes.
fn each_for_each() -> bool {
    std::env::var_os("ARENITE_EVERY_CALL").is_some()
}

fn every_call() {
    let errno = asked_errno();
    let place = REASONS.iter().position(|(_, reason)| *reason == errno);
    let place = place.unwrap() as u64;
    if errno == libc::EPERM {
        faults_are_explained_later(errno);
    }
    // What is created once and kept, and what goes away a moment later.
    let first = Invariant::before();
    (LIVES[0].live)(&first).unwrap();
    first.nothing_left().unwrap();
    for life in LIVES {
        for n in 1u64.. {
            if !each_for_each() && n > life.each && n % REASONS.len() as u64 != place {
                continue;
            }
            if fail(*life, n, errno) {
                // The number of calls that building an engine takes.
                assert!(n > 20, "only {n} calls in {}", life.name);
                break;
            }
        }
    }
}

/// A scenario in which the `n`-th call fails. Returns whether it made fewer calls.
fn fail(life: Life, n: u64, errno: i32) -> bool {
    let before = Invariant::before();
    failing_calls::arm(n, errno);
    let result = (life.live)(&before);
    let calls = failing_calls::disarm();
    let what = format!("call {n} of {} with errno {errno}", life.name);
    if let Err(Failed::Accounting(why)) = &result {
        panic!("{what}: {why}");
    }
    if let Err(left) = before.nothing_left() {
        panic!("{what}, {result:?}: {left}");
    }
    say(n);
    if calls < n {
        result.unwrap_or_else(|failed| panic!("{what}, which is none: {failed:?}"));
        return true;
    }
    if let Err(failed) = result {
        // An interrupted call is retried silently.
        assert!(
            errno != libc::EINTR && failed.says(errno),
            "{what}: {failed:?}"
        );
    }
    false
}

/// Runs in forked copies of a program that has had no engine yet, and so has no SIGBUS handler. Whichever call of the
/// first engine fails, the next engine installs the handler.
fn faults_are_explained_later(errno: i32) {
    // More calls than creating an arena takes.
    for n in 1..=30 {
        // SAFETY: this program has one thread at this time.
        let copy = unsafe { libc::fork() };
        assert!(copy >= 0);
        if copy == 0 {
            let explained = std::panic::catch_unwind(|| explained_after(n, errno));
            // SAFETY: ends this copy, which must not return into the parent's code.
            unsafe { libc::_exit(i32::from(explained.ok() != Some(true))) };
        }
        let mut status = 0;
        // SAFETY: waits for the child made above.
        unsafe { libc::waitpid(copy, &raw mut status, 0) };
        assert_eq!(status, 0, "call {n}: no handler explains SIGBUS");
    }
}

fn explained_after(n: u64, errno: i32) -> bool {
    let build = || Engine::builder().workers(1).capacity(8 << 20).build();
    let before = handler_of_faults();
    failing_calls::arm(n, errno);
    drop(build());
    failing_calls::disarm();
    drop(build().unwrap());
    handler_of_faults() != before
}

fn handler_of_faults() -> usize {
    // SAFETY: only queries, into a structure for which zeros are valid.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(
            libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut now),
            0
        );
        now.sa_sigaction
    }
}
