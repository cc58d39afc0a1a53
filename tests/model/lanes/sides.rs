//! Concurrent jobs in one worker: their lanes, start and stop.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use arenite::engine::Builder;
use arenite::{Engine, JobErrorKind};

use super::{Waiting, at_gate, lanes};
use crate::harness::{Diary, Gate, Lab, note, pass, step, tests, wait_until};

tests![
    jobs_wait_side_by_side,
    a_slow_call_does_not_hold_up_the_next,
    jobs_are_spread_over_all_workers,
    a_worker_starts_once_for_all_its_lanes,
    workers_are_replaced_after_so_many_jobs_of_all_lanes,
    a_shutdown_waits_for_all_lanes,
    a_stop_does_not_drop_thread_locals,
    a_dropped_engine_does_not_finish_the_queue,
    too_many_lanes_are_an_error,
];

fn jobs_wait_side_by_side() {
    let lab = lanes(1, 8);
    let waiting = Waiting::new(&lab, 8);
    assert_eq!(lab.stats().workers[0].open, 8);
    let pids: BTreeSet<u32> = waiting.go().into_iter().collect();
    assert_eq!(pids.len(), 1, "one process: {pids:?}");
    assert_eq!(lab.stats().workers.len(), 1);
    lab.assert_in_use(0);
}

fn a_slow_call_does_not_hold_up_the_next() {
    let lab = lanes(1, 2);
    for _ in 0..10 {
        let slow = Waiting::new(&lab, 1);
        // Some are posted behind the slow job, and the other lane takes them over.
        let quick: Vec<_> = (0..50u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
        step("quick jobs beside a slow one");
        for (n, job) in (0..).zip(quick) {
            assert_eq!(job.wait().unwrap(), n);
        }
        slow.go();
    }
    lab.assert_in_use(0);
}

fn jobs_are_spread_over_all_workers() {
    let lab = lanes(3, 4);
    for count in [3, 6, 12] {
        let mut of = BTreeMap::new();
        for pid in Waiting::new(&lab, count).go() {
            *of.entry(pid).or_insert(0) += 1;
        }
        let each: Vec<usize> = of.into_values().collect();
        assert_eq!(each, [count / 3; 3], "{count} jobs");
    }
}

fn a_worker_starts_once_for_all_its_lanes() {
    static STARTS: AtomicU32 = AtomicU32::new(0);
    fn starts(gate: &str) -> u32 {
        pass(gate);
        STARTS.load(Ordering::Relaxed)
    }
    fn thread(gate: &str) -> String {
        pass(gate);
        let id: ThreadId = thread::current().id();
        format!("{id:?}")
    }
    let start = || {
        STARTS.fetch_add(1, Ordering::Relaxed);
    };
    let lab = Lab::with(1, |builder| builder.lanes(4).on_worker_start(start));
    for _ in 0..2 {
        let gates: Vec<_> = (0..4).map(|_| Gate::new()).collect();
        let jobs: Vec<_> = gates
            .iter()
            .map(|gate| lab.submit(starts, (&gate.path(),)))
            .collect();
        let held: Vec<_> = gates.iter().map(Gate::meet).collect();
        drop(held);
        for job in jobs {
            assert_eq!(job.wait().unwrap(), 1);
        }
        let jobs: Vec<_> = gates
            .iter()
            .map(|gate| lab.submit(thread, (&gate.path(),)))
            .collect();
        let held: Vec<_> = gates.iter().map(Gate::meet).collect();
        drop(held);
        let threads: BTreeSet<String> = jobs.into_iter().map(|job| job.wait().unwrap()).collect();
        assert_eq!(threads.len(), 4, "one thread per lane: {threads:?}");
        lab.replace(0);
    }
}

fn workers_are_replaced_after_so_many_jobs_of_all_lanes() {
    const JOBS: u64 = 10;
    let lab = Lab::with(2, |builder| builder.lanes(4).recycle_after_jobs(JOBS));
    let mut of = BTreeMap::new();
    for wait in [false, true] {
        let job = |wait: bool| {
            if wait {
                thread::sleep(Duration::from_millis(1));
            }
            std::process::id()
        };
        let jobs: Vec<_> = (0..100).map(|_| lab.submit(job, (wait,))).collect();
        for job in jobs {
            *of.entry(job.wait().unwrap()).or_insert(0) += 1;
        }
    }
    assert_eq!(of.values().sum::<u64>(), 200);
    assert!(of.values().all(|&jobs| jobs <= JOBS), "{of:?}");
    wait_until(
        "all workers that reached their number of jobs are replaced",
        || lab.stats().recycled() as usize >= of.values().filter(|&&jobs| jobs == JOBS).count(),
    );
    let stats = lab.stats();
    assert_eq!(stats.restarts(), 0, "{stats:?}");
    lab.assert_in_use(0);
}

fn a_shutdown_waits_for_all_lanes() {
    let lab = lanes(2, 4);
    let waiting = Waiting::new(&lab, 6);
    let behind: Vec<_> = (0..20u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
    let Waiting { jobs, held } = waiting;
    let engine = lab.into_inner();
    thread::scope(|threads| {
        let ending = threads.spawn(move || engine.shutdown());
        drop(held);
        ending.join().unwrap();
    });
    assert!(jobs.into_iter().all(|job| job.wait().is_ok()));
    for (n, job) in (0..).zip(behind) {
        assert_eq!(job.wait().unwrap(), n);
    }
}

/// Dropping them may take any time, while other lanes still run jobs.
fn a_stop_does_not_drop_thread_locals() {
    struct Kept(String);
    impl Drop for Kept {
        fn drop(&mut self) {
            note(&self.0, "dropped");
        }
    }
    thread_local! {
        static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    }
    fn keep(diary: &str, gate: &str) -> u32 {
        KEPT.with_borrow_mut(|kept| kept.push(Kept(diary.to_owned())));
        note(diary, "kept");
        at_gate(gate)
    }
    let lab = lanes(1, 3);
    let (diary, gates) = (Diary::new(), [(); 3].map(|()| Gate::new()));
    let jobs = gates
        .each_ref()
        .map(|gate| lab.submit(keep, (&diary.path(), &gate.path())));
    let held = gates.each_ref().map(Gate::meet);
    drop(held);
    for job in jobs {
        job.wait().unwrap();
    }
    lab.into_inner().shutdown();
    assert_eq!(diary.lines(), ["kept"; 3]);
}

fn a_dropped_engine_does_not_finish_the_queue() {
    let lab = lanes(2, 4);
    let Waiting { jobs, held } = Waiting::new(&lab, 6);
    drop(lab.into_inner());
    for job in jobs {
        assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::ShutDown);
    }
    drop(held);
}

fn too_many_lanes_are_an_error() {
    let build = |builder: Builder| builder.capacity(64 << 20).build();
    let error = build(Engine::builder().workers(2).lanes(4000)).unwrap_err();
    assert!(
        error.to_string().contains("4000 lanes in each worker"),
        "{error}"
    );
    let error = build(Engine::builder().workers(1).lanes(0)).unwrap_err();
    assert!(
        error.to_string().contains("lanes cannot be 0: set it to 1"),
        "{error}"
    );
    // Their stacks do not fit into the memory limit: an error, without leftovers.
    let builder = Engine::builder()
        .workers(1)
        .lanes(200)
        .memory_limit(64 << 20);
    let error = build(builder).unwrap_err();
    assert!(
        error.to_string().contains("lanes cannot be started"),
        "{error}"
    );
}
