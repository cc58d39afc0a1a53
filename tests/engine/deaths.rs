//! Workers killed from outside while they run, start or stop. For random moments see `model::programs`; what is behind a
//! job that dies is in `policies::deadlines`.

use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, ArrayMut, JobError, JobErrorKind};
use nix::sys::signal::Signal;

use crate::harness::{
    Calls, Env, Gate, KILLED, Lab, assert_kind, by_signal, pass, send_signal, step, tests,
    wait_until,
};

tests![
    while_running,
    stopped_workers,
    while_starting,
    a_crash_loop_is_given_up,
    a_crash_loop_without_jobs_slows_down,
];

fn while_running() {
    let lab = Lab::balanced(1);
    for signal in [Signal::SIGKILL, Signal::SIGQUIT, Signal::SIGABRT] {
        let (mut job, held) = lab.hold();
        assert!(job.wait_timeout(Duration::from_millis(1)).is_none());
        send_signal(lab.pid(0), signal);
        wait_until("the job has its answer", || job.is_done());
        let error = job.wait_timeout(Duration::ZERO).unwrap().unwrap_err();
        drop(held);
        assert_eq!(*error.kind(), by_signal(signal as i32), "{error}");
        assert_eq!(lab.value_of(|| 1u8, ()), 1);
    }
}

/// A stopped worker blocks its own job and no other.
fn stopped_workers() {
    let lab = Lab::new(2);
    let (job, held) = lab.hold();
    let stopped = lab.busy_worker();
    send_signal(lab.pid(stopped), Signal::SIGSTOP);
    for n in 0..1000u32 {
        let job = lab.submit(|n: u32| Array::from_slice(&[n]), (n,));
        assert_eq!(job.wait().unwrap()[..], [n]);
    }
    send_signal(lab.pid(stopped), Signal::SIGCONT);
    drop(held);
    job.wait().unwrap();
    // Two workers that stay stopped do not keep the engine from ending.
    (0..2).for_each(|worker| send_signal(lab.pid(worker), Signal::SIGSTOP));
    step("the end of an engine with stopped workers");
    drop(lab);
}

/// The start-up kernel stops at a gate once. The gate's name is in a variable, because it has no arguments.
const GATE: &str = "ARENITE_TEST_START_GATE";

fn start() {
    if let Some(gate) = std::env::var_os(GATE).and_then(|gate| gate.into_string().ok())
        && std::path::Path::new(&gate).exists()
    {
        pass(&gate);
    }
}

fn while_starting() {
    let gate = Gate::new();
    let away = gate.path() + ".away";
    std::fs::rename(gate.path(), &away).unwrap();
    let _env = Env::set(GATE, gate.path());
    let lab = Lab::balanced_with(1, |builder| builder.on_worker_start(start));
    assert_eq!(lab.value_of(|| 1u8, ()), 1);
    std::fs::rename(&away, gate.path()).unwrap();
    send_signal(lab.pid(0), Signal::SIGKILL);
    let job = lab.submit(|| 2u8, ());
    // Workers that end themselves so often end the engine.
    for left in (0..6).rev() {
        // The replacement is at the gate, before it is ready.
        let held = gate.meet();
        if left == 0 {
            std::fs::remove_file(gate.path()).unwrap();
        }
        assert!(!lab.stats().workers[0].ready);
        let starting = lab.pid(0);
        send_signal(starting, Signal::SIGKILL);
        wait_until("its end is noticed", || lab.pid(0) != starting);
        drop(held);
    }
    step("the job that waits for a worker");
    assert_eq!(job.wait().unwrap(), 2);
}

fn a_crash_loop_is_given_up() {
    fn start_unless_told() {
        let path = std::env::var("ARENITE_TEST_CRASH_LOOP").unwrap();
        assert!(!std::path::Path::new(&path).exists(), "the drive is gone");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crash");
    let _env = Env::set("ARENITE_TEST_CRASH_LOOP", &path);
    let lab = Lab::with(1, |builder| {
        let builder = builder.on_worker_start(start_unless_told);
        builder.max_in_flight_bytes(1 << 20)
    });
    fn one() -> u8 {
        1
    }
    // The size of what these kernels return is known.
    assert_eq!(lab.value_of(one, ()), 1);
    let (known, held) = lab.hold();
    drop(held);
    known.wait().unwrap();
    let (running, held) = lab.hold();
    let queued: Vec<_> = (0..10).map(|_| lab.submit(one, ())).collect();
    let is_the_reason = |error: JobError| {
        assert_kind!(
            error,
            JobErrorKind::NoWorkers(why)
                if why.contains("the drive is gone") && why.starts_with("4 times in a row: ")
        );
    };
    thread::scope(|threads| {
        let is_let_in = || {
            let array = lab.zeros(2 << 20).unwrap();
            lab.error_of(|_: ArrayMut<u8>| (), (array,))
        };
        let waiting = [(); 3].map(|()| threads.spawn(is_let_in));
        wait_until("three more wait to be let in", || {
            lab.stats().arena.in_use >= 6 << 20
        });
        std::fs::write(&path, "").unwrap();
        send_signal(lab.pid(0), Signal::SIGKILL);
        assert_eq!(*lab.failure_of(running).kind(), KILLED);
        drop(held);
        step("the engine to give up");
        let waiting = waiting.map(|thread| thread.join().unwrap());
        waiting.into_iter().for_each(is_the_reason);
    });
    let errors = queued.into_iter().map(|job| lab.failure_of(job));
    errors.for_each(is_the_reason);
    let error = lab.error_of(|| 1u8, ());
    assert_kind!(error, JobErrorKind::NoWorkers(_));
    // Another attempt fails like the first, until the cause is gone.
    assert!(lab.revive());
    let tried = lab.submit(one, ());
    is_the_reason(lab.failure_of(tried));
    std::fs::remove_file(&path).unwrap();
    assert!(lab.revive() && !lab.revive());
    assert_eq!(lab.value_of(one, ()), 1);
    assert_eq!(lab.broken(), None);
}

fn a_crash_loop_without_jobs_slows_down() {
    const FOLDER: &str = "ARENITE_TEST_ENDS";
    /// A library's thread may end a worker that is ready and idle: this one waits for a signal file.
    fn start_a_thread_that_aborts() {
        let path = std::env::var(FOLDER).unwrap();
        let signal = std::path::Path::new(&path).join(std::process::id().to_string());
        thread::spawn(move || {
            while !signal.exists() {
                thread::park_timeout(Duration::from_millis(1));
            }
            std::process::abort();
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let _env = Env::set(FOLDER, folder.path());
    let lab = Lab::with(1, |builder| {
        builder.on_worker_start(start_a_thread_that_aborts)
    });
    for deaths in 1..=8 {
        let pid = lab.pid(0);
        // Taken before the worker dies, so that the whole pause counts, whenever it is observed.
        let before = Instant::now();
        std::fs::write(folder.path().join(pid.to_string()), "").unwrap();
        wait_until("it is dead", || lab.stats().workers[0].restarts == deaths);
        wait_until("there is another one", || lab.stats().workers[0].ready);
        let absent = before.elapsed();
        // From the third death on: 10, 20, 40, 80, 160, 320 ms.
        let pause = deaths.checked_sub(3).map_or(0, |more| 10 << more);
        assert!(
            absent >= Duration::from_millis(pause),
            "{absent:?} after {deaths} deaths"
        );
    }
    assert_eq!(lab.value_of(|| 1u8, ()), 1);
}
