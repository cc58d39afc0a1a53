//! Programs that kernels start: the signals that reach them, and when they end.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use arenite::{Engine, JobErrorKind, WorkerExit};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::harness::{ABORTED, Calls, Gate, Lab, late, pass, state_of, step, tests, wait_until};

tests![
    a_program_is_ended_by_signals_that_workers_ignore,
    a_forked_copy_is_ended_by_signals_that_workers_ignore,
    a_job_that_loses_its_worker_ends_its_programs,
    the_end_of_an_engine_ends_the_programs,
    a_recycled_worker_leaves_no_program,
    a_worker_may_be_inspected,
];

/// Starts a program that does not end on its own, and returns its number.
fn start() -> i32 {
    let mut command = Command::new("sleep");
    #[allow(clippy::zombie_processes, reason = "the engine ends it")]
    let child = command.arg("1000").stdin(Stdio::null()).spawn().unwrap();
    child.id().cast_signed()
}

/// Starts a program, says its number through the gate, and goes on as it is told.
fn start_and(path: &str, end: u32) {
    let pid = start();
    std::fs::write(format!("{path}.pid"), pid.to_string()).unwrap();
    pass(path);
    match end {
        0 => loop {
            std::thread::park();
        },
        1 => std::process::abort(),
        _ => std::process::exit(3),
    }
}

/// The number of the program that [`start_and`] has started.
fn program_of(gate: &Gate) -> i32 {
    gate.open();
    let path = format!("{}.pid", gate.path());
    let pid = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    std::fs::remove_file(path).unwrap();
    pid
}

/// Waits until a program has ended. The process that would reap it may not do so.
fn await_end(pid: i32) {
    wait_until("the program has ended", || {
        state_of(pid).is_none_or(|state| state == 'Z')
    });
}

fn a_program_is_ended_by_signals_that_workers_ignore() {
    fn end(signal: i32) -> i32 {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        kill(pid, Signal::try_from(signal).unwrap()).unwrap();
        child.wait().unwrap().signal().unwrap_or_default()
    }
    let lab = Lab::new(1);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
        step(format!("a program to end by signal {signal}"));
        assert_eq!(lab.value_of(end, (signal,)), signal);
    }
    // The worker itself has ignored them, as before.
    let ignored = || {
        [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGPIPE,
        ]
        .iter()
        .for_each(|&signal| nix::sys::signal::raise(signal).unwrap());
    };
    lab.value_of(ignored, ());
    assert_eq!(lab.stats().restarts(), 0);
}

/// Also one that arrives right after the fork.
fn a_forked_copy_is_ended_by_signals_that_workers_ignore() {
    const COPIES: usize = 100;
    fn end(signal: i32) -> usize {
        let signal = Signal::try_from(signal).unwrap();
        let end_one = || {
            // SAFETY: the copy only waits.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => loop {
                    nix::unistd::pause();
                },
                ForkResult::Parent { child } => {
                    kill(child, signal).unwrap();
                    waitpid(child, None).unwrap() == WaitStatus::Signaled(child, signal, false)
                }
            }
        };
        let blocked_before = nix::sys::signal::SigSet::thread_get_mask().unwrap();
        let ended = (0..COPIES).filter(|_| end_one()).count();
        assert_eq!(
            nix::sys::signal::SigSet::thread_get_mask().unwrap(),
            blocked_before
        );
        ended
    }
    let lab = Lab::new(1);
    // A copy that has lost its signal waits without end.
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        step(format!("copies to end by signal {signal}"));
        let ended = lab.job(end, (signal,)).deadline(Duration::from_secs(30));
        assert_eq!(ended.submit().wait().unwrap(), COPIES);
    }
}

fn a_job_that_loses_its_worker_ends_its_programs() {
    let lab = Lab::new(1);
    let limit = Duration::from_secs(3);
    for (end, is_killed, expected) in [
        (0, false, late(limit)),
        (0, true, JobErrorKind::Cancelled),
        (1, false, ABORTED),
        (2, false, JobErrorKind::Lost(WorkerExit::Code(Some(3)))),
    ] {
        let gate = Gate::new();
        let job = lab.job(start_and, (gate.path(), end)).deadline(limit);
        let job = job.submit();
        let program = program_of(&gate);
        assert_ne!(state_of(program), None);
        if is_killed {
            job.kill();
        }
        assert_eq!(*lab.failure_of(job).kind(), expected);
        await_end(program);
    }
}

fn the_end_of_an_engine_ends_the_programs() {
    for ends in [|lab: Engine| drop(lab), |lab: Engine| lab.shutdown()] {
        let lab = Lab::new(1);
        let program = lab.value_of(start, ());
        assert!(state_of(program).is_some_and(|state| state != 'Z'));
        ends(lab.into_inner());
        await_end(program);
    }
}

fn a_recycled_worker_leaves_no_program() {
    let lab = Lab::with(1, |builder| builder.recycle_after_jobs(1));
    let program = lab.value_of(start, ());
    await_end(program);
}

fn a_worker_may_be_inspected() {
    let lab = Lab::new(1);
    let dumpable = || nix::sys::prctl::get_dumpable().unwrap();
    assert!(lab.value_of(dumpable, ()));
    let core = || getrlimit(Resource::RLIMIT_CORE).unwrap().0;
    assert!(lab.value_of(core, ()) <= 1);
}
