//! The n-th system call of a worker fails: while it starts, and while it has jobs.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use arenite::{
    Array, BuildError, Engine, JobError, JobErrorKind, TileMut, WorkerExit, failing_calls,
};

use super::asked_errno;
use crate::harness::{Invariant, Lab};

/// All threads of its workers are sandboxed as the engine reports.
pub fn assert_locked_down(engine: &Engine) {
    let report = engine.sandbox_report().expect("workers are locked down");
    let lacks = |part: &str| {
        report
            .lacking()
            .iter()
            .any(|lacking| lacking.starts_with(part))
    };
    for worker in engine.stats().workers {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", worker.pid)).unwrap();
        let mut threads = 0;
        for task in tasks {
            // A thread that has just ended is still listed for a moment.
            let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else {
                continue;
            };
            threads += 1;
            let has = |line: &str| status.lines().any(|own| own == line);
            assert!(has("NoNewPrivs:\t1"), "{status}");
            assert!(has("Seccomp:\t2") || lacks("seccomp"), "{report}: {status}");
        }
        assert!(threads > 0, "worker {} has no thread", worker.pid);
    }
}

/// Calls of every start whose failure must be reported by name.
const NAMED: [&str; 13] = [
    "prctl(SET_PDEATHSIG)",
    "close_range",
    "fcntl(F_SETFD)",
    "sigaction of SIGHUP",
    "signal of SIGTTIN",
    "pthread_sigmask",
    "sigaction of SIGURG",
    "sigaction of SIGSEGV",
    "sigaction of SIGABRT",
    "sigaltstack",
    "setrlimit",
    "mmap",
    "a thread for each of 2 lanes",
];
/// The same for sandboxed workers.
const NAMED_IF_LOCKED: [&str; 10] = [
    "prctl(SET_DUMPABLE)",
    "mseal",
    "readdir of /proc/self/fd",
    "readdir of /proc/self/task",
    "prctl(NO_NEW_PRIVS)",
    "landlock_restrict_self",
    "sigaction of SIGSYS",
    "seccomp of",
    "prctl(GET_SECCOMP)",
    "no thread can be started",
];

pub fn every_start() {
    for strict in [false, true] {
        starts(strict);
    }
}

fn starts(strict: bool) {
    let errno = asked_errno();
    let (mut starts, mut refused) = (0, 0);
    let mut named = BTreeSet::new();
    for n in 1.. {
        let before = Invariant::before();
        let what = format!("call {n} of a start with errno {errno}, strict: {strict}");
        // For the watchdog of the test that waits for this program.
        eprintln!("{what}");
        // SAFETY: there is no engine, and so no other thread.
        unsafe { std::env::set_var(failing_calls::WORKERS, format!("{n}:{errno}")) };
        let (built, said) = start(strict);
        if let Err(left) = before.nothing_left() {
            panic!("{what}, {built:?}: {left}");
        }
        starts += 1;
        let is_over = said
            .iter()
            .any(|line| line.starts_with(failing_calls::WORKERS));
        named.extend(said);
        match built {
            Ok(()) if is_over => break,
            Ok(()) => {}
            Err(BuildError::Worker(why)) => {
                assert!(errno != libc::EINTR && !is_over, "{what}: {why}");
                named.insert(why);
                refused += 1;
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert!(starts > 30, "only {starts} calls");
    if errno == libc::EINTR {
        assert_eq!(refused, 0);
        return;
    }
    let locked = NAMED_IF_LOCKED.iter().filter(|_| strict && is_complete());
    for call in NAMED.iter().chain(locked) {
        let is_named = named.iter().any(|why| why.contains(call));
        assert!(
            is_named,
            "{call} has not failed, strict: {strict}: {named:#?}"
        );
    }
}

fn is_complete() -> bool {
    arenite::SandboxReport::of_this_kernel().is_complete()
}

/// An engine with one worker, if it can be built, and its output.
fn start(strict: bool) -> (Result<(), BuildError>, Vec<String>) {
    let (sender, lines) = channel();
    let sender = Mutex::new(sender);
    let builder = Engine::builder()
        .workers(1)
        .lanes(2)
        .memory_limit(256 << 20)
        .capacity(16 << 20)
        .on_log(move |line| {
            // Later lines have no receiver.
            let _ = sender.lock().unwrap().send(line.text.clone());
        });
    let builder = if strict {
        builder.sandbox(arenite::Sandbox::Strict)
    } else {
        builder
    };
    let built = builder.build().map(|engine| {
        if strict {
            assert_locked_down(&engine);
        }
        assert_eq!(engine.submit(|| 7u8, ()).wait().unwrap(), 7);
        engine.shutdown();
    });
    (built, lines.try_iter().collect())
}

// ---- jobs ---------------------------------------------------------------------------------------------------

/// From the end of this job on.
fn arm(n: u64, errno: i32) {
    println!("call {n}");
    failing_calls::arm(n, errno);
}

fn disarm() -> u64 {
    failing_calls::disarm()
}

/// Fills its input, and allocates more than it was granted ahead.
fn fill(mut tile: TileMut<'_, u32>) {
    println!("a tile");
    tile.fill(7);
}

fn make(n: usize) -> Array<u32> {
    println!("an array");
    let dropped = Array::from_fn(n / 2, |i| i as u32);
    let made = Array::from_fn(n, |i| i as u32);
    drop(dropped);
    made
}

pub fn every_job() {
    for strict in [false, true] {
        let before = Invariant::before();
        jobs(strict);
        before.nothing_left().unwrap();
    }
}

/// Jobs of one worker, in which its `n`-th call fails; a worker that ends because of it is replaced.
fn jobs(strict: bool) {
    let errno = asked_errno();
    let lab = Lab::with(1, |builder| {
        if strict {
            return builder.sandbox(arenite::Sandbox::Strict);
        }
        builder
    });
    for n in 1.. {
        let what = format!("call {n} of jobs with errno {errno}, strict: {strict}");
        eprintln!("{what}");
        let restarts = lab.stats().restarts();
        let mut failed = Vec::new();
        let mut note = |error: JobError| failed.push(error);
        if let Err(error) = lab.submit(arm, (n, errno)).wait() {
            note(error);
        }
        if !strict {
            let mut array = lab.zeros::<u32>(20_000).unwrap();
            let filled = lab.scope(|scope| {
                for tile in array.tiles_mut(20_000) {
                    scope.submit(fill, (tile,));
                }
            });
            match filled {
                Ok(()) => assert!(array.iter().all(|&x| x == 7), "{what}"),
                Err(error) => note(error),
            }
        }
        for len in [1_000, 300_000] {
            match lab.submit(make, (len,)).wait() {
                Ok(array) => {
                    let right = array.len() == len && array.iter().zip(0..).all(|(&x, i)| x == i);
                    assert!(right, "{what}");
                }
                Err(error) => note(error),
            }
        }
        // No call of a later worker fails.
        let calls = match lab.submit(disarm, ()).wait() {
            Ok(calls) => calls,
            Err(error) => {
                note(error);
                0
            }
        };
        for error in &failed {
            // It ends on its own, or is killed because it could not read its arguments, and reports why.
            let ended = match error.kind() {
                JobErrorKind::Lost(WorkerExit::Code(Some(code))) => *code != 0,
                JobErrorKind::Lost(WorkerExit::Protocol(_)) => {
                    error.to_string().contains("mprotect of bytes")
                }
                _ => false,
            };
            assert!(errno != libc::EINTR && ended, "{what}: {error}");
        }
        assert!(failed.len() < 2, "{what}: {failed:?}");
        // A worker that ended between two jobs is no reason to stop: the count of its replacement is irrelevant.
        if failed.is_empty() && calls < n && lab.stats().restarts() == restarts {
            assert!(n > 5, "only {calls} calls");
            break;
        }
    }
    lab.assert_in_use(0);
    lab.into_inner().shutdown();
}
