//! The workers on which actors start, and the jobs beside them.

use super::*;
use crate::harness::hang;

tests![
    a_job_that_may_kill_its_worker_runs_apart_from_actors,
    an_actor_starts_on_a_free_worker,
];

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn at_gate(gate: &str) -> u32 {
    pass(gate);
    std::process::id()
}

fn a_job_that_may_kill_its_worker_runs_apart_from_actors() {
    let lab = Lab::with(2, |builder| builder.lanes(2));
    let list = new_list(&lab);
    assert_eq!(list.call(List::push, (7,)).wait().unwrap(), 1);
    let limit = Duration::from_millis(1);
    for _ in 0..3 {
        let error = lab.failure_of(lab.job(hang, ()).deadline(limit).submit());
        assert_eq!(*error.kind(), late(limit));
        assert_eq!(seen(&list), [7]);
        wait_until("both workers are ready", || {
            lab.stats().workers.iter().all(|worker| worker.ready)
        });
    }
    let own = list.call(List::pid, ()).wait().unwrap();
    // Without a free worker, the exclusive job gets the other worker, and new jobs run beside the actor.
    let (jobs, held) = at_gates(2, |gate| lab.submit(at_gate, (gate,)));
    let gate = Gate::new();
    let timed = lab.job(at_gate, (gate.path(),)).deadline(LONG).submit();
    assert_eq!(lab.stats().queued, 1);
    let beside = lab.submit(std::process::id, ()).wait().unwrap();
    assert_eq!(beside, own);
    drop(held);
    let pids: Vec<_> = jobs.into_iter().map(|job| job.wait().unwrap()).collect();
    assert_ne!(pids[0], pids[1], "each worker had one");
    drop(gate.meet());
    timed.wait().unwrap();
    assert_eq!(seen(&list), [7]);
}

fn an_actor_starts_on_a_free_worker() {
    // One worker runs an exclusive job, or one lane a long job; the other is free.
    for lanes in [2, 1] {
        let lab = Lab::with(2, |builder| builder.lanes(lanes));
        for _ in 0..3 {
            let gate = Gate::new();
            let job = lab.job(at_gate, (gate.path(),));
            let job = if lanes > 1 { job.deadline(LONG) } else { job };
            let long = job.submit();
            let held = gate.meet();
            step("an actor beside a job that takes long");
            let list = new_list(&lab);
            let other = list.call(List::pid, ()).wait().unwrap();
            drop(held);
            assert_ne!(long.wait().unwrap(), other);
            // An actor that is ending still counts.
            drop(list);
            lab.assert_idle();
        }
    }
}
