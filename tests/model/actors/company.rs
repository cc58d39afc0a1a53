//! Actors that share lanes, deadlines and scarce memory with other work.

use super::*;

tests![
    calls_run_concurrently_in_several_lanes,
    deadlines_and_actors_share_workers,
    calls_go_on_while_memory_is_low,
];

fn calls_run_concurrently_in_several_lanes() {
    let lab = Lab::with(2, |builder| builder.lanes(3));
    // Actors are spread over the lanes.
    let actors: Vec<_> = (0..6).map(|_| lab.actor(List::new, ()).start()).collect();
    let mut each = actors.iter();
    let (calls, held) = at_gates(6, |gate| {
        let list = each.next().unwrap();
        list.call(List::push_at, (0, gate.to_owned()))
    });
    drop(held);
    calls
        .into_iter()
        .for_each(|call| assert_eq!(call.wait().unwrap(), 1));
    drop(actors);
    lab.assert_in_use(0);
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
    assert_eq!(why, late(limit));
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
