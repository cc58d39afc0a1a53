//! Actors that share lanes and scarce memory with other work.

use super::*;

tests![
    calls_run_concurrently_in_several_lanes,
    calls_go_on_while_memory_is_low,
];

fn calls_run_concurrently_in_several_lanes() {
    let lab = Lab::with(2, |builder| builder.lanes(3));
    // Actors are spread over the lanes.
    let actors: Vec<_> = (0..6).map(|_| new_list(&lab)).collect();
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
    let list = saved_list(&lab, 2);
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
