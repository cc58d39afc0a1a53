//! One system call is refused by a filter, as in a container: for a program and its workers, for good, with `ENOSYS` or
//! `EPERM`. The program works or gets an error. It never hangs, spins or dies of a signal, and leaves nothing behind.
//!
//! Without `ARENITE_EVERY_CALL` only calls that the engine makes itself are tried; with it, every number.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::time::Duration;

use arenite::{Array, Engine, JobError, JobErrorKind, JobLimit, WorkerExit};

use crate::harness::programs::{Ended, Program, Scenario, say};
use crate::harness::{hang, shared_memory_named, step, tests};
use crate::kernels::refusing;

tests![
    a_refused_call_is_an_error,
    a_monitor_that_cannot_poll_ends_its_engine
];

pub const SCENARIOS: &[Scenario] = &[("refused", refused)];

/// The system call that is refused, and the reason.
const CALL: &str = "ARENITE_HOSTILE_CALL";
const ERRNO: &str = "ARENITE_HOSTILE_ERRNO";

/// Seconds that a program has by the clock, and of processor time. Linux counts them.
const PATIENCE: u32 = 20;
const PROCESSOR_TIME: u64 = 10;

/// One more than the largest number of a system call.
const NUMBERS: libc::c_long = 471;

/// Calls of the engine itself.
const OURS: &[libc::c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_mprotect,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_prctl,
    libc::SYS_sendmsg,
    libc::SYS_socket,
    libc::SYS_waitid,
];

/// What ends a program for which a call is refused, whatever library it uses: the C library, its loader and Rust's
/// standard library do not handle it.
const INDISPENSABLE: &[(libc::c_long, &str)] = &[
    (
        libc::SYS_close,
        "the standard library panics where a folder cannot be closed",
    ),
    (libc::SYS_exit_group, "no process can end"),
    (libc::SYS_exit, "no thread can end"),
    (libc::SYS_futex, "no lock can be waited for"),
    (
        libc::SYS_rseq,
        "glibc ends a program whose second thread is refused it",
    ),
    (libc::SYS_rt_sigreturn, "no signal handler can return"),
    (libc::SYS_write, "the program cannot say how it fares"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "the name of a socket cannot be removed"),
    #[cfg(not(target_arch = "x86_64"))]
    (libc::SYS_unlinkat, "the name of a socket cannot be removed"),
];

/// How a program fared, or what is not acceptable about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Works,
    Error,
    Hangs,
    Spins,
    Killed(i32),
    Panics,
    Leaves,
}

/// Runs a program for which this call is refused.
fn run(call: libc::c_long, errno: i32) -> (Fate, Ended) {
    let folder = tempfile::tempdir().unwrap();
    let shared = shared_memory_named("arenite-");
    let change = |command: &mut std::process::Command| {
        command.env(CALL, call.to_string());
        command.env(ERRNO, errno.to_string());
        command.env("TMPDIR", folder.path());
    };
    let bounded = || {
        let limit = libc::rlimit {
            rlim_cur: PROCESSOR_TIME,
            rlim_max: PROCESSOR_TIME + 1,
        };
        // SAFETY: two system calls, which take numbers and read a structure that lives.
        unsafe {
            libc::alarm(PATIENCE);
            libc::setrlimit(libc::RLIMIT_CPU, &raw const limit);
        }
        Ok(())
    };
    let mut program = Program::with("refused", bounded, change);
    let ended = program.wait();
    program.await_all_gone();
    let left = fs::read_dir(folder.path()).unwrap().count();
    let fate = match (ended.signal, ended.code) {
        (Some(libc::SIGALRM), _) => Fate::Hangs,
        (Some(libc::SIGXCPU), _) => Fate::Spins,
        (Some(signal), _) => Fate::Killed(signal),
        (None, Some(0)) if left > 0 || shared_memory_named("arenite-") > shared => Fate::Leaves,
        (None, Some(0)) if ended.output.starts_with("works") => Fate::Works,
        (None, Some(0)) if ended.output.starts_with("error: ") => Fate::Error,
        (None, _) => Fate::Panics,
    };
    (fate, ended)
}

fn a_refused_call_is_an_error() {
    let calls = match std::env::var_os("ARENITE_EVERY_CALL") {
        Some(_) => (0..NUMBERS).collect(),
        None => OURS.to_vec(),
    };
    let mut fates: BTreeMap<Fate, Vec<String>> = BTreeMap::new();
    for call in calls {
        if INDISPENSABLE.iter().any(|&(other, _)| other == call) {
            continue;
        }
        for errno in [libc::ENOSYS, libc::EPERM] {
            let what = format!("call {call} refused with errno {errno}");
            step(&what);
            let (fate, ended) = run(call, errno);
            let is_accepted = matches!(fate, Fate::Works | Fate::Error);
            if fate != Fate::Works {
                println!("{what}: {fate:?}: {}", ended.output.trim_end());
            }
            if !is_accepted {
                eprintln!("{what}: {ended:?}");
            }
            fates.entry(fate).or_default().push(what);
        }
    }
    let count = |fate| fates.get(&fate).map_or(0, Vec::len);
    println!(
        "{} work, {} are errors",
        count(Fate::Works),
        count(Fate::Error)
    );
    fates.retain(|fate, _| !matches!(fate, Fate::Works | Fate::Error));
    assert!(fates.is_empty(), "{fates:#?}");
}

/// Without `epoll_wait` (`epoll_pwait` on processors that have only that) nothing can be supervised: workers are killed,
/// and the program gets an error that names the call.
fn a_monitor_that_cannot_poll_ends_its_engine() {
    #[cfg(target_arch = "x86_64")]
    const WAIT: libc::c_long = libc::SYS_epoll_wait;
    #[cfg(not(target_arch = "x86_64"))]
    const WAIT: libc::c_long = libc::SYS_epoll_pwait;
    for errno in [libc::ENOSYS, libc::EPERM] {
        step(format!("a program without epoll_wait, errno {errno}"));
        let (fate, ended) = run(WAIT, errno);
        assert_eq!(fate, Fate::Error, "{ended:?}");
        assert!(ended.output.contains("epoll_wait"), "{ended:?}");
    }
}

// ---- what the program does ----------------------------------------------------------------------------------

fn refused() {
    let number = |name: &str| {
        std::env::var(name)
            .unwrap()
            .parse::<libc::c_long>()
            .unwrap()
    };
    let (call, errno) = (number(CALL), number(ERRNO) as i32);
    refusing(&[call], errno)().unwrap();
    match live() {
        Ok(()) => say("works"),
        Err(error) => say(format!("error: {error}")),
    }
    // What is checked afterwards needs calls that may be refused here.
    std::process::exit(0);
}

fn ramp(n: usize) -> Array<u32> {
    Array::from_fn(n, |i| i as u32)
}

fn sum(values: &[u32]) -> u64 {
    values.iter().copied().map(u64::from).sum()
}

/// What a program does with an engine, as far as it gets: arrays both ways, a worker that dies, one that is killed.
fn live() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder().workers(2).capacity(16 << 20).build()?;
    let values = engine.submit(ramp, (60_000,)).wait()?;
    assert!(values.iter().zip(0..).all(|(&value, i)| value == i));
    let copied = engine.from_slice(&values)?;
    assert_eq!(engine.submit(sum, (&copied,)).wait()?, 59_999 * 30_000);
    for (n, result) in engine
        .map(ramp, (0..20_usize).map(|n| (n * 500,)))
        .enumerate()
    {
        assert_eq!(result?.len(), n * 500);
    }
    let is_expected = |error: &JobError| match error.kind() {
        JobErrorKind::Lost(WorkerExit::Signal(signal)) => *signal == libc::SIGABRT,
        JobErrorKind::Limit(JobLimit::Deadline { .. }) => true,
        _ => false,
    };
    let abort = || -> () { std::process::abort() };
    let late = engine.job(hang, ()).deadline(Duration::from_millis(1));
    for job in [engine.submit(abort, ()), late.submit()] {
        let error = job.wait().unwrap_err();
        if !is_expected(&error) {
            return Err(error.into());
        }
    }
    assert_eq!(engine.submit(sum, (&values,)).wait()?, 59_999 * 30_000);
    engine.shutdown();
    Ok(())
}
