//! Workers that are replaced without a fault.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;

use arenite::{Array, JobErrorKind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{
    Calls, Gate, KILLED, Lab, assert_kind, at_gates, pass, send_signal, step, tests, wait_until,
};

tests![
    after_each_job,
    after_some_jobs,
    a_worker_above_the_memory_mark_is_recycled,
    a_recycled_worker_finishes_its_job,
    a_recycled_worker_that_dies_while_ending,
    a_recycled_worker_that_does_not_end_is_killed,
    shutdown_and_drop_during_recycling,
];

fn after_each_job() {
    let lab = Lab::with(1, |builder| builder.recycle_after_jobs(1));
    let mut pids: Vec<u32> = (0..10)
        .map(|_| lab.value_of(std::process::id, ()))
        .collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 10, "a process for each");
    wait_until("the last one is replaced", || lab.stats().recycled() == 10);
    assert_eq!(lab.stats().restarts(), 0);
    wait_until("there is a fresh one", || lab.stats().workers[0].ready);
    assert_eq!(
        lab.stats().arena.in_use,
        64 * 1024,
        "grants went with their workers"
    );
}

/// Number of jobs that each process ran.
fn census(pids: impl IntoIterator<Item = u32>) -> HashMap<u32, u64> {
    let mut jobs = HashMap::new();
    pids.into_iter()
        .for_each(|pid| *jobs.entry(pid).or_default() += 1);
    jobs
}

fn after_some_jobs() {
    fn work(n: u32) -> (u32, u32, Array<u32>) {
        (std::process::id(), n, Array::from_slice(&[n]))
    }
    // Of all lanes together.
    for (workers, lanes, most) in [(1, 1, 7), (2, 1, 1), (2, 4, 10), (2, 1, 50), (3, 1, 300)] {
        let lab = Lab::balanced_with(workers, |builder| {
            builder.lanes(lanes).recycle_after_jobs(most)
        });
        let submitted: Vec<_> = (0..400).map(|n| lab.submit(work, (n,))).collect();
        let results = submitted.into_iter().map(|job| job.wait().unwrap());
        let mapped = lab.map(work, (400..800).map(|n| (n,)));
        let mut pids = Vec::new();
        for (expected, (pid, n, array)) in (0..).zip(results.chain(mapped.map(Result::unwrap))) {
            assert_eq!((n, &array[..]), (expected, &[expected][..]));
            pids.push(pid);
        }
        let census = census(pids);
        assert!(
            census.values().all(|&jobs| jobs <= most),
            "{most} at most: {census:?}"
        );
        assert!(census.len() as u64 >= 800 / most, "{census:?}");
        assert_eq!(lab.stats().restarts(), 0);
        let gone = census.len() as u64;
        assert!((gone - workers as u64..=gone).contains(&lab.stats().recycled()));
    }
}

const MIB: usize = 1 << 20;

/// Leaks memory.
fn leak(mib: usize) -> u32 {
    static LEAKED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    LEAKED.lock().unwrap().push(black_box(vec![1; mib * MIB]));
    std::process::id()
}

fn a_worker_above_the_memory_mark_is_recycled() {
    let lab = Lab::with(2, |builder| builder.recycle_above_bytes(64 << 20));
    let mut pids = std::collections::HashSet::new();
    step("leaking workers to be replaced");
    while lab.stats().recycled() < 5 {
        // Bounded: it may grow further before it is checked.
        if pids.len() < 100 {
            pids.insert(lab.value_of(leak, (4,)));
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    assert!(pids.len() > 2, "{pids:?}");
    assert_eq!(lab.stats().restarts(), 0);
    // A worker that has run no job is not replaced, whatever it uses.
    let modest = Lab::with(1, |builder| builder.recycle_above_bytes(1));
    let first = modest.pid(0);
    let (job, held) = modest.hold();
    // A second engine that has replaced a worker shows that enough time has passed for a memory check.
    let other = Lab::with(1, |builder| builder.recycle_above_bytes(1));
    for round in 1..=2 {
        other.value_of(|| (), ());
        wait_until("the other engine's worker is replaced", || {
            other.stats().recycled() == round
        });
    }
    assert_eq!(
        (modest.pid(0), modest.stats().recycled()),
        (first, 0),
        "it has not ended a job"
    );
    drop(held);
    job.wait().unwrap();
    wait_until("it is replaced", || modest.stats().recycled() == 1);
}

/// Stopped after its last job, so that it cannot obey: it gets the grace period.
fn a_recycled_worker_that_does_not_end_is_killed() {
    let lab = Lab::with(1, |builder| {
        builder
            .recycle_above_bytes(8 << 20)
            .grace(std::time::Duration::from_millis(50))
    });
    let first = lab.value_of(leak, (16,));
    // Usually before its size is checked; otherwise it is gone already.
    let _ = kill(Pid::from_raw(first as i32), Signal::SIGSTOP);
    wait_until("another one is ready", || {
        let stats = lab.stats();
        stats.workers[0].ready && stats.workers[0].pid != first
    });
    assert_ne!(lab.value_of(std::process::id, ()), first);
}

/// The memory check may come before the job that is meant to be running, but not every time.
fn until_told(scene: fn() -> bool) {
    assert!(
        (0..20).any(|_| scene()),
        "no worker is asked to end while it runs"
    );
}

/// Whether this worker, which runs a job, is asked to end. Otherwise its replacement runs that job.
fn is_asked_to_end(lab: &Lab, worker: usize) -> bool {
    let is_asked = || {
        let stats = lab.stats();
        stats.recycled() == 0 && !stats.workers[worker].ready
    };
    wait_until("it is seen how large it is", || {
        is_asked() || lab.stats().recycled() > 0
    });
    is_asked()
}

fn a_recycled_worker_finishes_its_job() {
    until_told(grown_ends_what_it_runs);
}

fn grown_ends_what_it_runs() -> bool {
    fn slow(gate: &str, len: usize) -> Array<u8> {
        pass(gate);
        Array::from_fn(len, |i| i as u8)
    }
    let lab = Lab::with(2, |builder| builder.recycle_above_bytes(64 << 20));
    let grown = lab.value_of(leak, (100,));
    let index = (0..2).find(|&worker| lab.pid(worker) as u32 == grown);
    let Some(index) = index else {
        // It was replaced before it could be asked for more.
        return false;
    };
    let (jobs, held) = at_gates(2, |gate| lab.submit(slow, (gate, 20 * MIB)));
    let behind: Vec<_> = (0..200_u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
    let is_asked = is_asked_to_end(&lab, index);
    // It still gets memory for its result.
    drop(held);
    for job in jobs {
        let array = job.wait().unwrap();
        assert_eq!((array.len(), array[MIB + 7]), (20 * MIB, 7));
    }
    for (n, job) in (0..).zip(behind) {
        assert_eq!(job.wait().unwrap(), n);
    }
    wait_until("it is replaced", || lab.stats().recycled() >= 1);
    assert_eq!(lab.stats().restarts(), 0);
    is_asked
}

fn a_recycled_worker_that_dies_while_ending() {
    until_told(dies_on_its_way_out);
}

fn dies_on_its_way_out() -> bool {
    let lab = Lab::with(1, |builder| builder.recycle_above_bytes(64 << 20));
    let gate = Gate::new();
    lab.submit(leak, (100,)).detach();
    let job = lab.submit(pass, (&gate.path(),));
    let behind = lab.submit(|| 5_u8, ());
    let held = gate.meet();
    if !is_asked_to_end(&lab, 0) {
        return false;
    }
    send_signal(lab.pid(0), Signal::SIGKILL);
    let error = lab.failure_of(job);
    drop(held);
    assert_eq!(*error.kind(), KILLED, "{error}");
    assert_eq!(behind.wait().unwrap(), 5);
    assert_eq!(
        (lab.stats().restarts(), lab.stats().recycled()),
        (1, 0),
        "a death is a death"
    );
    lab.assert_in_use(0);
    true
}

fn shutdown_and_drop_during_recycling() {
    for round in 0..20 {
        let lab = Lab::with(2, |builder| builder.recycle_after_jobs(2));
        let jobs: Vec<_> = (0..30_u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
        if round % 2 == 0 {
            step("shutdown while workers are replaced");
            lab.into_inner().shutdown();
            for (n, job) in (0..).zip(jobs) {
                assert_eq!(job.wait().unwrap(), n);
            }
        } else {
            step("the engine to be dropped while workers are replaced");
            drop(lab);
            for (n, job) in (0..).zip(jobs) {
                match job.wait() {
                    Ok(value) => assert_eq!(value, n),
                    Err(error) => assert_kind!(error, JobErrorKind::ShutDown),
                }
            }
        }
        assert_eq!(crate::harness::children(), [0_i32; 0]);
    }
}
