//! Cancellation and shutdown of spawned jobs, and possible deadlocks.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arenite::{JobErrorKind, Spawn, call};

use super::{around, deep_around, fails, fib};
use crate::harness::{Diary, Gate, Lab, note, pass, step, tests, wait_until};

tests![
    cancelling_ends_all_spawned_jobs,
    dropping_the_handle_ends_all_spawned_jobs,
    a_failed_scope_leaves_nothing_behind,
    begun_spawn_trees_go_before_new_jobs,
    shutdown_finishes_and_dropping_the_engine_cancels,
];

fn cancelling_ends_all_spawned_jobs() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    step("polled, while a child runs");
    let job = lab.submit(around, (&gate.path(),));
    let held = gate.meet();
    job.cancel();
    assert!(!job.is_done(), "a child runs still");
    drop(held);
    assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::Cancelled);
    lab.assert_in_use(0);
    step("now, while a child runs");
    let before = lab.stats().restarts();
    let job = lab.submit(around, (&gate.path(),));
    let held = gate.meet();
    job.kill();
    assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::Cancelled);
    drop(held);
    lab.assert_idle();
    // The other worker may have run a child of the other call.
    let ended = lab.stats().restarts() - before;
    assert!(matches!(ended, 1 | 2), "the worker of the child was ended");
    step("deep");
    let job = lab.submit(deep_around, (2_000, &gate.path()));
    let held = gate.meet();
    job.cancel();
    drop(held);
    assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::Cancelled);
    step("while it spawns");
    for _ in 0..50 {
        let job = lab.submit(fib, (12,));
        job.cancel();
        match job.wait() {
            Ok(value) => assert_eq!(value, 144),
            Err(error) => assert_eq!(*error.kind(), JobErrorKind::Cancelled),
        }
    }
    lab.assert_in_use(0);
}

fn dropping_the_handle_ends_all_spawned_jobs() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let job = lab.submit(deep_around, (100, &gate.path()));
    let held = gate.meet();
    drop(job);
    drop(held);
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    lab.assert_in_use(0);
    for _ in 0..50 {
        drop(lab.submit(fib, (10,)));
    }
    lab.assert_in_use(0);
    let inner = lab.submit(deep_around, (5, &gate.path()));
    let running = lab.submit(|n: u64| n, (inner,));
    let held = gate.meet();
    drop(running);
    drop(held);
    lab.assert_in_use(0);
}

fn a_failed_scope_leaves_nothing_behind() {
    fn deaf(gate: &str) -> u64 {
        pass(gate);
        loop {
            std::thread::park();
        }
    }
    fn outer(gate: &str) -> Spawn<u64> {
        Spawn::new(|n: u64| n, (call(deaf, (gate,)),))
    }
    let lab = Lab::with(2, |builder| builder.grace(Duration::from_millis(50)));
    let gate = Gate::new();
    let result = lab.scope(|s| {
        let _job = s.submit(outer, (&gate.path(),));
        gate.open();
        s.submit(fails, (3,)).wait().unwrap_err();
    });
    let error = result.unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Returned("3 is wrong".into()));
    lab.assert_in_use(0);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn begun_spawn_trees_go_before_new_jobs() {
    // One job at a time, and more always wait.
    let lab = Lab::with(1, |builder| builder.max_in_flight_bytes(1));
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let come = || {
            while !over.load(Relaxed) {
                lab.submit(|| (), ()).wait().unwrap();
            }
        };
        for _ in 0..8 {
            threads.spawn(come);
        }
        // Also if an assertion fails, so that the threads end.
        let _over = Over(&over);
        wait_until("jobs begin and end", || lab.progress().submitted > 20);
        for n in 0..10 {
            step(format!("round {n}: jobs that spawn"));
            assert_eq!(lab.submit(fib, (7,)).wait().unwrap(), 13);
            step(format!("round {n}: jobs of jobs"));
            let mut last = lab.submit(|| 0u64, ());
            for _ in 0..10 {
                last = lab.submit(|x: u64| x + 1, (last,));
            }
            assert_eq!(last.wait().unwrap(), 10);
        }
    });
    assert_eq!(lab.stats().admitted, 0);
}

fn shutdown_finishes_and_dropping_the_engine_cancels() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let diary = Diary::new();
    let path = diary.path();
    fn noted(gate: &str, path: &str) -> Spawn<()> {
        Spawn::new(
            |path: &str, _: u64| note(path, "ran"),
            (path, call(around, (gate,))),
        )
    }
    lab.submit(noted, (&gate.path(), &path)).detach();
    let job = lab.submit(around, (&gate.path(),));
    let held = gate.meet();
    let engine = lab.into_inner();
    std::thread::scope(|threads| {
        threads.spawn(|| engine.shutdown());
        drop(held);
        gate.release_all(|| diary.lines().len() == 1 && job.is_done());
    });
    assert_eq!(job.wait().unwrap(), 55 + 2 * 499_500 + 1_000);

    let lab = Lab::new(2);
    let job = lab.submit(deep_around, (20, &gate.path()));
    let held = gate.meet();
    drop(lab);
    drop(held);
    assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::ShutDown);
}
