//! Deadlines and cancellation in workers where killing a job loses others.

use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use arenite::{JobErrorKind, JobOptions};
use nix::sys::signal::Signal;

use super::{Waiting, assert_lost, at_gate, lanes};
use crate::harness::{Gate, Lab, at_gates, late, pass, send_signal, step, tests};

tests![
    a_job_with_a_deadline_runs_exclusively,
    other_jobs_run_while_one_waits_for_an_exclusive_worker,
    a_cancelled_deadline_job_does_not_keep_its_worker,
    other_jobs_have_their_turn_among_deadlines,
    deadlines_may_share_a_worker,
    killing_a_job_loses_its_neighbours,
    cancelling_reaches_only_the_lane_of_the_job,
];

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn a_job_with_a_deadline_runs_exclusively() {
    let lab = lanes(1, 4);
    for _ in 0..5 {
        let before = Waiting::new(&lab, 2);
        let gate = Gate::new();
        let timed = lab.job(at_gate, (&gate.path(),)).deadline(LONG).submit();
        // Its worker is busy, and starts no new job.
        let after = lab.submit(|| 1u8, ());
        assert_eq!(lab.stats().queued, 2);
        before.go();
        let held = gate.meet();
        assert_eq!(lab.stats().queued, 1, "nothing runs beside it");
        assert!(!after.is_done());
        drop(held);
        timed.wait().unwrap();
        assert_eq!(after.wait().unwrap(), 1);
    }
    // A job that exceeds it is killed without losing others, repeatedly.
    for _ in 0..3 {
        let limit = Duration::from_millis(1);
        let gate = Gate::new();
        let error = lab.failure_of(lab.job(at_gate, (&gate.path(),)).deadline(limit).submit());
        assert_eq!(*error.kind(), late(limit));
        assert!(error.lost_jobs().is_empty(), "{error}");
    }
    lab.assert_in_use(0);
}

fn other_jobs_run_while_one_waits_for_an_exclusive_worker() {
    let lab = lanes(2, 2);
    let first = Waiting::new(&lab, 1);
    let second = Waiting::new(&lab, 1);
    let gate = Gate::new();
    let timed = lab.job(at_gate, (&gate.path(),)).deadline(LONG).submit();
    let queue: Vec<_> = (0..3)
        .map(|_| lab.job(|| 1u8, ()).deadline(LONG).submit())
        .collect();
    // One of the two workers is reserved for the job; the other still has a lane.
    for n in 0..100u32 {
        assert_eq!(lab.submit(|n: u32| n, (n,)).wait().unwrap(), n);
    }
    assert!(!timed.is_done());
    first.go();
    second.go();
    let held = gate.meet();
    // The other exclusive jobs use the second worker, one after the other.
    for job in queue {
        assert_eq!(job.wait().unwrap(), 1);
    }
    let beside = lab.submit(std::process::id, ()).wait().unwrap();
    drop(held);
    assert_ne!(timed.wait().unwrap(), beside);
    lab.assert_in_use(0);
}

/// There are always more deadline jobs than workers. Each kind of job would wait forever if it got no turn.
fn other_jobs_have_their_turn_among_deadlines() {
    let lab = lanes(1, 3);
    let over = AtomicBool::new(false);
    let alone = AtomicU64::new(0);
    let numbers = iter::from_fn(|| (!over.load(Ordering::Relaxed)).then_some((1u64,)));
    thread::scope(|threads| {
        threads.spawn(|| {
            let map = lab
                .map(|x: u64| x, numbers)
                .options(&JobOptions::new().deadline(Duration::from_secs(60)));
            for one in map {
                alone.fetch_add(one.unwrap(), Ordering::Relaxed);
            }
        });
        let actor = lab.actor(|| 0_u64, ()).start();
        let mut n = 0;
        while n < 20 || alone.load(Ordering::Relaxed) < 20 {
            n += 1;
            // All later ones count as one step of the watchdog.
            if n <= 20 {
                step(format!("call {n}"));
            }
            let count = |state: &mut u64| {
                *state += 1;
                *state
            };
            assert_eq!(actor.call(count, ()).wait().unwrap(), n);
            let plain = lab.submit(|x: u64| x + 1, (n,));
            assert_eq!(plain.wait().unwrap(), n + 1);
        }
        over.store(true, Ordering::Relaxed);
    });
    lab.assert_in_use(0);
}

fn a_cancelled_deadline_job_does_not_keep_its_worker() {
    let lab = lanes(1, 3);
    for drops in [true, false] {
        let before = Waiting::new(&lab, 1);
        let timed = lab.job(|| 0u8, ()).deadline(LONG).submit();
        let after = lab.submit(|| 1u8, ());
        assert_eq!(lab.stats().queued, 2);
        if drops {
            drop(timed);
        } else {
            timed.cancel();
            assert_eq!(*lab.failure_of(timed).kind(), JobErrorKind::Cancelled);
        }
        assert_eq!(after.wait().unwrap(), 1);
        before.go();
    }
    // Neither does one whose worker dies while the job waits for it.
    let before = Waiting::new(&lab, 2);
    let timed = lab.job(|| 2u8, ()).deadline(LONG).submit();
    send_signal(lab.pid(0), Signal::SIGKILL);
    assert_eq!(timed.wait().unwrap(), 2);
    before.fail(&lab);
    assert_eq!(
        Waiting::new(&lab, 3).go().len(),
        3,
        "all lanes are there again"
    );
    lab.assert_in_use(0);
}

fn deadlines_may_share_a_worker() {
    let lab = Lab::with(1, |builder| builder.lanes(3).co_schedule_deadlines(true));
    let timed = |gate: &str| lab.job(at_gate, (gate,)).deadline(LONG).submit();
    let (jobs, held) = at_gates(2, timed);
    drop(held);
    for job in jobs {
        job.wait().unwrap();
    }
    let waiting = Waiting::new(&lab, 2);
    let limit = Duration::from_millis(1);
    let gate = Gate::new();
    let job = lab.job(at_gate, (&gate.path(),)).deadline(limit).submit();
    let culprit = lab.failure_of(job);
    assert_eq!(*culprit.kind(), late(limit));
    assert_lost(&waiting.fail(&lab), &culprit);
    lab.assert_in_use(0);
}

fn killing_a_job_loses_its_neighbours() {
    let lab = lanes(1, 3);
    let waiting = Waiting::new(&lab, 2);
    let (job, held) = lab.hold();
    job.kill();
    let culprit = lab.failure_of(job);
    drop(held);
    assert_eq!(*culprit.kind(), JobErrorKind::Cancelled);
    assert_lost(&waiting.fail(&lab), &culprit);
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    lab.assert_in_use(0);
}

fn cancelling_reaches_only_the_lane_of_the_job() {
    /// Passes the gate, waits until cancelled if `until`, and returns whether it was.
    fn was_cancelled(gate: &str, until: bool) -> bool {
        pass(gate);
        while until && !arenite::cancelled() {
            thread::yield_now();
        }
        arenite::cancelled()
    }
    let lab = lanes(1, 2);
    let gates = [Gate::new(), Gate::new()];
    let first = lab.submit(was_cancelled, (&gates[0].path(), true));
    let second = lab.submit(was_cancelled, (&gates[1].path(), false));
    let held: Vec<_> = gates.iter().map(Gate::meet).collect();
    first.cancel();
    drop(held);
    assert!(first.wait().unwrap());
    assert!(!second.wait().unwrap());
}
