//! Workers killed from outside, at every moment.

use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, JobErrorKind};
use nix::sys::signal::Signal;

use crate::harness::{
    Diary, Env, Gate, KILLED, Lab, assert_kind, at_gates, by_signal, note, pass, send_signal, step,
    tests, wait_until,
};

tests![
    while_idle,
    while_running,
    with_jobs_queued_behind,
    all_at_once,
    stopped_workers,
    while_holding_arrays,
    while_starting,
    a_crash_loop_is_given_up,
    a_crash_loop_without_jobs_slows_down,
    a_timed_wait_reports_a_death,
];

fn while_idle() {
    let lab = Lab::new(2);
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    for worker in [0, 1, 0, 1] {
        let pid = lab.pid(worker);
        lab.replace(worker);
        assert_ne!(lab.pid(worker), pid);
        assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    }
    assert_eq!(lab.stats().restarts(), 4);
    lab.assert_in_use(0);
}

fn while_running() {
    let lab = Lab::new(1);
    for signal in [Signal::SIGKILL, Signal::SIGQUIT, Signal::SIGABRT] {
        let (job, held) = lab.hold();
        send_signal(lab.pid(0), signal);
        let error = lab.failure_of(job);
        drop(held);
        assert_eq!(*error.kind(), by_signal(signal as i32), "{error}");
        assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    }
    lab.assert_in_use(0);
}

/// Queued jobs are still answered, in order.
fn with_jobs_queued_behind() {
    fn noted(diary: &str, n: u32, _: &Array<u8>) -> Array<u32> {
        note(diary, n);
        Array::from_slice(&[n])
    }
    let lab = Lab::new(1);
    for round in 0..5 {
        let gate = Gate::new();
        let diary = Diary::new();
        let path = &*diary.path();
        let input = lab.zeros::<u8>(100_000).unwrap().seal();
        let first = lab.submit(noted, (path, 1000, &input));
        let running = lab.submit(pass, (&gate.path(),));
        // More than the slots of a link.
        let behind: Vec<_> = (0..600u32)
            .map(|n| lab.submit(noted, (path, n, &input)))
            .collect();
        let held = gate.meet();
        send_signal(lab.pid(0), Signal::SIGKILL);
        assert_eq!(*lab.failure_of(running).kind(), KILLED);
        drop(held);
        step("what was behind the job that died");
        for (n, job) in (0..).zip(behind) {
            assert_eq!(job.wait().unwrap()[..], [n]);
        }
        assert_eq!(
            first.wait().unwrap()[..],
            [1000],
            "what had ended before is a result"
        );
        let order = diary.numbers();
        let expected: Vec<u32> = std::iter::once(1000).chain(0..600).collect();
        assert_eq!(order, expected, "each ran once, in order");
        assert_eq!(lab.stats().workers[0].restarts, round * 2 + 1);
        drop(input);
        lab.assert_in_use(0);
    }
}

fn all_at_once() {
    let lab = Lab::new(4);
    let (jobs, held) = at_gates(4, |gate| lab.submit(pass, (gate,)));
    let behind: Vec<_> = (0..100u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
    (0..4).for_each(|worker| send_signal(lab.pid(worker), Signal::SIGKILL));
    for job in jobs {
        assert_eq!(*lab.failure_of(job).kind(), KILLED);
    }
    drop(held);
    step("the queue, after all workers died");
    for (n, job) in (0..).zip(behind) {
        assert_eq!(job.wait().unwrap(), n);
    }
    lab.assert_in_use(0);
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

fn while_holding_arrays() {
    fn busy(gate: &str, len: usize) -> Array<u8> {
        let arrays: Vec<_> = (0..10)
            .map(|_| arenite::ArrayMut::<u8>::zeros(len))
            .collect();
        pass(gate);
        arrays.into_iter().next().unwrap().seal()
    }
    let lab = Lab::new(1);
    for len in [10, 10_000, 3_000_000] {
        let kept = lab
            .submit(|len: usize| Array::from_fn(len, |i| i as u8), (len,))
            .wait()
            .unwrap();
        let gate = Gate::new();
        let job = lab.submit(busy, (&gate.path(), len));
        let held = gate.meet();
        send_signal(lab.pid(0), Signal::SIGKILL);
        assert_eq!(*lab.failure_of(job).kind(), KILLED);
        drop(held);
        // The next worker writes where the dead one did, but not where live results are.
        let next = lab
            .submit(|len: usize| Array::from_fn(len, |_| 7u8), (10 * len,))
            .wait()
            .unwrap();
        assert!(next.iter().all(|&x| x == 7));
        assert!(kept.iter().enumerate().all(|(i, &x)| x == i as u8));
    }
    lab.assert_in_use(0);
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
    let lab = Lab::with(1, |builder| builder.on_worker_start(start));
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    std::fs::rename(&away, gate.path()).unwrap();
    send_signal(lab.pid(0), Signal::SIGKILL);
    let job = lab.submit(|| 2u8, ());
    // The replacement is at the gate, before it is ready.
    let held = gate.meet();
    std::fs::remove_file(gate.path()).unwrap();
    assert!(!lab.stats().workers[0].ready);
    send_signal(lab.pid(0), Signal::SIGKILL);
    step("the job that waits for a worker");
    assert_eq!(job.wait().unwrap(), 2);
    drop(held);
    lab.assert_in_use(0);
}

fn a_crash_loop_is_given_up() {
    fn start_unless_told() {
        let path = std::env::var("ARENITE_TEST_CRASH_LOOP").unwrap();
        assert!(!std::path::Path::new(&path).exists(), "the drive is gone");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("crash");
    let _env = Env::set("ARENITE_TEST_CRASH_LOOP", &path);
    let lab = Lab::with(1, |builder| builder.on_worker_start(start_unless_told));
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    let gate = Gate::new();
    let running = lab.submit(pass, (&gate.path(),));
    let queued: Vec<_> = (0..10).map(|_| lab.submit(|| 1u8, ())).collect();
    let held = gate.meet();
    std::fs::write(&path, "").unwrap();
    send_signal(lab.pid(0), Signal::SIGKILL);
    assert_eq!(*lab.failure_of(running).kind(), KILLED);
    drop(held);
    step("the engine to give up");
    for job in queued {
        let error = lab.failure_of(job);
        assert_kind!(
            error,
            JobErrorKind::NoWorkers(why)
                if why.contains("the drive is gone") && why.starts_with("4 times in a row: ")
        );
    }
    let error = lab.failure_of(lab.submit(|| 1u8, ()));
    assert_kind!(error, JobErrorKind::NoWorkers(_));
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
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
}

fn a_timed_wait_reports_a_death() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut job = lab.submit(pass, (&gate.path(),));
    let held = gate.meet();
    assert!(
        job.wait_timeout(std::time::Duration::from_millis(1))
            .is_none()
    );
    send_signal(lab.pid(0), Signal::SIGKILL);
    wait_until("the job has its answer", || job.is_done());
    let error = job
        .wait_timeout(std::time::Duration::ZERO)
        .unwrap()
        .unwrap_err();
    assert_eq!(*error.kind(), KILLED);
    drop(held);
}
