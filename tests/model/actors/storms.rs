//! Workers killed at random moments, and the accounts of actors afterwards.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

tests![
    each_call_has_one_answer_and_losses_are_reported,
    calls_run_concurrently_in_several_lanes,
    deadlines_and_actors_share_workers,
    calls_go_on_while_memory_is_low,
];

/// The outcomes of the calls of one actor.
#[derive(Default)]
struct Diary {
    answered: Vec<u64>,
    lost: Vec<u64>,
}

/// Calls the actor until `stop` is set, with some calls in flight.
fn keep_calling(list: &Actor<List>, stop: &AtomicBool) -> Diary {
    let mut diary = Diary::default();
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) || next < 400 {
        let calls: Vec<_> = (next..next + 200)
            .map(|x| (x, list.call(List::push, (x,))))
            .collect();
        next += 200;
        for (x, call) in calls {
            match call.wait() {
                Ok(_) => diary.answered.push(x),
                Err(error) => {
                    let again = matches!(
                        error.kind(),
                        JobErrorKind::Dependency(FailedDependency::Actor {
                            restarted: true,
                            ..
                        })
                    );
                    assert!(again, "{error}");
                    diary.lost.push(x);
                }
            }
        }
    }
    diary
}

/// Kills workers in turn, each a varying time after it is ready.
fn kill_in_turn(lab: &Lab, workers: usize, kills: usize) {
    for n in 0..kills {
        let worker = n % workers;
        lab.replace(worker);
        // Between none and a few hundred jobs.
        (0..n * n % 13 * 20).for_each(|x| lab.submit(|x: usize| x, (x,)).detach());
    }
}

fn storm(lab: &Lab, workers: usize, every: &[u64], kills: usize) {
    let actors: Vec<_> = every
        .iter()
        .map(|&every| {
            lab.actor(List::new, ())
                .checkpoint(every, List::seen, List::restore)
                .start()
        })
        .collect();
    let stop = AtomicBool::new(false);
    let diaries: Vec<_> = thread::scope(|threads| {
        let stop = &stop;
        let callers = actors
            .iter()
            .map(|list| threads.spawn(|| keep_calling(list, stop)));
        let callers: Vec<_> = callers.collect();
        kill_in_turn(lab, workers, kills);
        stop.store(true, Ordering::Relaxed);
        step("the callers to end");
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    let mut restarts = 0;
    for ((list, diary), &every) in actors.iter().zip(diaries).zip(every) {
        let left = seen(list);
        let status = list.status();
        restarts += status.restarts;
        assert!(
            left.is_sorted_by(|a, b| a < b),
            "in order, without duplicates"
        );
        let has = |x: &u64| left.binary_search(x).is_ok();
        assert!(
            !diary.lost.iter().any(has),
            "what was lost has left nothing"
        );
        let forgotten = diary.answered.iter().filter(|x| !has(x)).count() as u64;
        assert_eq!(status.forgotten, forgotten, "every {every}: {status:?}");
        assert!(forgotten <= status.restarts * every);
        let both = left.len() as u64 + forgotten;
        assert_eq!(
            both,
            diary.answered.len() as u64,
            "every value has an origin"
        );
        assert!(diary.lost.len() as u64 <= status.restarts);
    }
    assert!(restarts as usize >= kills, "{restarts} restarts");
    drop(actors);
    lab.assert_in_use(0);
}

fn each_call_has_one_answer_and_losses_are_reported() {
    storm(&Lab::new(2), 2, &[1, 4, 64, 3], 16);
}

fn calls_run_concurrently_in_several_lanes() {
    let lab = Lab::with(2, |builder| builder.lanes(3));
    // Actors are spread over the lanes.
    let actors: Vec<_> = (0..6).map(|_| lab.actor(List::new, ()).start()).collect();
    let gates: Vec<_> = actors.iter().map(|_| Gate::new()).collect();
    let calls = actors.iter().zip(&gates);
    let calls: Vec<_> = calls
        .map(|(list, gate)| list.call(List::push_at, (0, gate.path())))
        .collect();
    step("all of them at their gates at once");
    let held: Vec<_> = gates.iter().map(Gate::meet).collect();
    drop(held);
    calls
        .into_iter()
        .for_each(|call| assert_eq!(call.wait().unwrap(), 1));
    drop((actors, gates));
    storm(&lab, 2, &[2, 5, 7, 1, 30, 3, 9], 8);
}

/// Jobs with deadlines run exclusively on a worker; calls with deadlines run where their actor is.
fn deadlines_and_actors_share_workers() {
    let lab = Lab::with(2, |builder| builder.lanes(2));
    let actors: Vec<_> = (0..4)
        .map(|_| {
            lab.actor(List::new, ())
                .checkpoint(1, List::seen, List::restore)
                .start()
        })
        .collect();
    let long = Duration::from_secs(1_000);
    for round in 0..50 {
        let jobs: Vec<_> = (0..4)
            .map(|x| lab.job(|x: u64| x, (x,)).deadline(long).submit())
            .collect();
        let calls: Vec<_> = actors
            .iter()
            .map(|list| list.call_within(long, List::push, (round,)))
            .collect();
        assert!(
            jobs.into_iter()
                .zip(0..)
                .all(|(job, x)| job.wait().unwrap() == x)
        );
        for call in calls {
            assert_eq!(call.wait().unwrap(), round + 1);
        }
    }
    let limit = Duration::from_millis(30);
    let (why, ..) = lost(actors[0].call_within(limit, List::hang, ()));
    assert_eq!(why, JobErrorKind::Limit(JobLimit::Deadline { limit }));
    for list in &actors {
        let seen = seen(list);
        assert!(seen.iter().copied().eq(0..50), "{seen:?}");
    }
}

/// With little memory, calls and other jobs run one at a time.
fn calls_go_on_while_memory_is_low() {
    let root = tempfile::tempdir().unwrap();
    let info = |free: u64| {
        let text = format!("MemTotal: 16777216 kB\nMemAvailable: {free} kB\nMemFree: {free} kB\n");
        std::fs::create_dir_all(root.path().join("proc")).unwrap();
        std::fs::write(root.path().join("proc/meminfo"), text).unwrap();
    };
    // Below the mark, but enough for this test.
    info(40 << 10);
    let lab = Lab::with(2, |builder| builder.memory_root(root.path()));
    let gate = Gate::new();
    let list = lab
        .actor(List::new, ())
        .checkpoint(2, List::seen, List::restore)
        .start();
    let first = list.call(List::push_at, (0, gate.path()));
    let held = gate.meet();
    wait_until("the death is noticed", || lab.stats().memory_short);
    let calls: Vec<_> = (1..50).map(|x| list.call(List::push, (x,))).collect();
    let jobs: Vec<_> = (0..50u64).map(|x| lab.submit(|x: u64| x, (x,))).collect();
    drop(held);
    first.wait().unwrap();
    for (len, call) in (2..).zip(calls) {
        assert_eq!(call.wait().unwrap(), len);
    }
    assert!(
        jobs.into_iter()
            .zip(0..)
            .all(|(job, x)| job.wait().unwrap() == x)
    );
    assert!(seen(&list).into_iter().eq(0..50));
    info(1 << 24);
    drop(list);
    wait_until("memory is available again", || {
        // Only an engine with work checks memory.
        lab.submit(|| (), ()).wait().unwrap();
        !lab.stats().memory_short
    });
}
