//! Concurrent jobs in one worker: their lanes, start and stop.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, ThreadId};

use arenite::JobErrorKind;

use super::{Waiting, at_gate, lanes};
use crate::harness::{Diary, Lab, at_gates, note, pass, step, tests};

tests![
    a_slow_call_does_not_hold_up_the_next,
    jobs_are_spread_over_all_workers,
    a_worker_starts_once_for_all_its_lanes,
    a_shutdown_waits_for_all_lanes,
    a_stop_does_not_drop_thread_locals,
    a_dropped_engine_does_not_finish_the_queue,
];

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
        let (jobs, held) = at_gates(4, |gate| lab.submit(starts, (gate,)));
        drop(held);
        for job in jobs {
            assert_eq!(job.wait().unwrap(), 1);
        }
        let (jobs, held) = at_gates(4, |gate| lab.submit(thread, (gate,)));
        drop(held);
        let threads: BTreeSet<String> = jobs.into_iter().map(|job| job.wait().unwrap()).collect();
        assert_eq!(threads.len(), 4, "one thread per lane: {threads:?}");
        assert_eq!(STARTS.load(Ordering::Relaxed), 0, "not in this process");
        lab.replace(0);
    }
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
    let diary = Diary::new();
    let (jobs, held) = at_gates(3, |gate| lab.submit(keep, (&diary.path(), gate)));
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
