//! The records and bytes that a graph needs at one time.

use std::time::Duration;

use arenite::{OnFailure, Sandbox};

use super::*;
use crate::harness::patience;
use crate::narrow::joins;

tests![
    a_wide_graph_has_few_records,
    intermediates_are_freed_at_their_last_use,
    a_graph_that_does_not_fit_is_rejected_before_it_runs,
    a_graph_runs_in_an_order_that_fits,
    nodes_wait_for_planned_memory,
    admission_delays_spawned_jobs_without_deadlock,
    an_unpolled_future_does_not_hold_up_a_graph,
    a_stopped_graph_frees_the_inputs_of_nodes_that_will_not_run,
    a_failed_node_frees_the_inputs_of_its_dependents,
];

fn a_wide_graph_has_few_records() {
    const WIDE: u32 = 20_000;
    let lab = Lab::new(2);
    let gate = Gate::new();
    let mut graph = Graph::new();
    let held = graph.add(at_gate, (&gate.path(), 1));
    let nodes: Vec<_> = (0..WIDE)
        .map(|n| graph.add(|x: u32, n: u32| x + n, (&held, n)))
        .collect();
    let ones = nodes.iter().map(|x| graph.add(|x: u32| x % 2, (x,)));
    let ones: Vec<_> = ones.collect();
    let sum = graph.reduce(|a: u32, b: u32| a + b, ones).unwrap();
    let running = graph.run(&lab, &sum).unwrap();
    assert_eq!(lab.stats().untaken, 1);
    gate.open();
    let most = std::iter::from_fn(|| {
        (!running.wait_timeout(Duration::from_millis(1))).then(|| lab.stats().untaken)
    });
    let most = most.max().unwrap_or(0);
    assert_eq!(running.wait().unwrap(), WIDE / 2);
    // Those in flight, and values that wait for the other operand.
    assert!(most < 4000, "{most} records for {WIDE} nodes");
    lab.assert_in_use(0);
}

const MIB: usize = 1 << 20;

fn block_of(n: usize, with: u8) -> Array<u8> {
    filled(n, with).seal()
}

fn same_size(a: &Array<u8>) -> Array<u8> {
    assert!(are_all(a, a[0]));
    filled(a.len(), a[0].wrapping_add(1)).seal()
}

fn intermediates_are_freed_at_their_last_use() {
    // As a job each, and as one chain.
    for (workers, capacity, sandbox, fuse) in [
        (2, 96 << 20, Sandbox::Off, false),
        (2, 96 << 20, Sandbox::Strict, false),
        (1, 64 << 20, Sandbox::Off, true),
    ] {
        let lab = Lab::with(workers, |builder| {
            builder.capacity(capacity).sandbox(sandbox)
        });
        let mut graph = Graph::new();
        graph.fuse(fuse);
        let mut values = graph.add(block_of, (2 * MIB, 0));
        for _ in 0..200 {
            values = graph.add(same_size, (&values,));
        }
        let jobs = graph.plan(&values).unwrap().jobs;
        assert_eq!(jobs, if fuse { 1 } else { 201 });
        let values = graph.run(&lab, &values).unwrap().wait().unwrap();
        assert!(are_all(&values, 200));
        lab.assert_in_use(2 << 20);
    }
}

fn add_up(a: &[u8], b: &[u8]) -> Array<u8> {
    assert!(are_all(a, a[0]) && are_all(b, b[0]));
    filled(a.len().max(b.len()), a[0].wrapping_add(b[0])).seal()
}

fn a_graph_that_does_not_fit_is_rejected_before_it_runs() {
    let lab = Lab::with(2, |builder| builder.capacity(64 << 20));
    let mut graph = Graph::new();
    let large = (0..5).map(|n| {
        graph
            .job(block_of, (16 * MIB, n))
            .shape::<u8>(16 * MIB)
            .add()
    });
    let large: Vec<_> = large.collect();
    let error = graph.run(&lab, &large).unwrap_err();
    let GraphError::DoesNotFit { peak, room } = error else {
        panic!("{error}")
    };
    assert_eq!(peak, 80 << 20);
    assert!(room <= 64 << 20);
    assert!(lab.stats().kernels.is_empty(), "a node has run");
    // Their sum overflows.
    let mut graph = Graph::new();
    let mut values = graph.job(block_of, (1, 0)).bytes(u64::MAX).add();
    for bytes in [8, u64::MAX, 8] {
        values = graph.job(same_size, (&values,)).bytes(bytes).add();
    }
    let more = graph.job(block_of, (1, 0)).bytes(u64::MAX).add();
    let both = graph.job(add_up, (&values, &more)).bytes(u64::MAX / 2);
    let both = both.add();
    let error = graph.run(&lab, &both).unwrap_err();
    let is_whole = matches!(error, GraphError::DoesNotFit { peak: u64::MAX, .. });
    assert!(is_whole, "{error}");
}

/// In the order of addition, all leaves would be in memory at once.
fn tree(graph: &mut Graph, leaves: usize, bytes: usize) -> Node<Array<u8>> {
    let mut level: Vec<_> = (0..leaves)
        .map(|_| graph.job(block_of, (bytes, 1)).bytes(bytes as u64).add())
        .collect();
    while level.len() > 1 {
        let pairs = level.chunks(2).map(|pair| {
            let both = graph.job(add_up, (&pair[0], &pair[1]));
            both.bytes(bytes as u64).add()
        });
        level = pairs.collect();
    }
    level.remove(0)
}

fn a_graph_runs_in_an_order_that_fits() {
    let lab = Lab::with(2, |builder| builder.capacity(96 << 20));
    let mut graph = Graph::new();
    let top = tree(&mut graph, 32, 4 * MIB);
    let plan = graph.plan(&top).unwrap();
    assert_eq!((plan.nodes, plan.total_bytes), (63, 63 * (4 << 20)));
    assert_eq!(plan.peak_bytes, 33 * (4 << 20), "as they were added");
    let top = graph.run(&lab, &top).unwrap().wait().unwrap();
    assert!(are_all(&top, 32));
    lab.assert_in_use(4 << 20);
}

/// One pair fits, but not one per worker.
fn nodes_wait_for_planned_memory() {
    let lab = Lab::with(4, |builder| builder.capacity(80 << 20));
    let mut graph = Graph::new();
    let first = |block: &[u8]| u64::from(block[7]);
    let sums: Vec<_> = (0..20)
        .map(|n| {
            let block = graph.job(block_of, (12 * MIB, n)).bytes(12 << 20).add();
            graph.job(first, (&block,)).retries(1).add()
        })
        .collect();
    let plan = graph.plan(&sums).unwrap();
    assert_eq!((plan.peak_bytes, plan.total_bytes), (12 << 20, 240 << 20));
    let sums = graph.run(&lab, &sums).unwrap().wait().unwrap();
    assert_eq!(sums, (0..20).collect::<Vec<u64>>());
    lab.assert_in_use(0);
}

fn admission_delays_spawned_jobs_without_deadlock() {
    let lab = Lab::with(2, |builder| builder.max_in_flight_bytes(2000));
    let gate = Gate::new();
    let mut graph = Graph::new();
    let nodes: Vec<_> = (0..100u32)
        .map(|n| {
            let a = graph.add(|n: u32| n, (n,));
            graph.add(|a: u32, b: u32| a + b, (&a, &a))
        })
        .collect();
    let holding = lab.submit(pass, (&gate.path(),));
    let held = gate.meet();
    let running = graph.run(&lab, &nodes).unwrap();
    // Of a hundred nodes that could begin.
    let stats = lab.stats();
    assert!(stats.open + stats.queued < 20, "{stats:?}");
    drop(held);
    holding.wait().unwrap();
    let values = running.wait().unwrap();
    assert_eq!(values, (0..100).map(|n| 2 * n).collect::<Vec<u32>>());
    lab.assert_in_use(0);
}

fn a_stopped_graph_frees_the_inputs_of_nodes_that_will_not_run() {
    let lab = Lab::new(2);
    // The node fails once the other one runs; a node that has not begun would be skipped.
    let [gate, failing] = [Gate::new(), Gate::new()];
    let mut graph = Graph::new();
    graph.fuse(false).on_failure(OnFailure::Stop);
    let large = graph.add(block_of, (20 * MIB, 1));
    let waits = graph.add(at_gate, (&gate.path(), 1));
    let both = graph.add(|a: &[u8], n: u32| a.len() as u32 + n, (&large, &waits));
    let bad = |_: &[u8], gate: &str| bad_at_gate(gate);
    let bad = graph.add(bad, (&large, &failing.path()));
    let running = graph.run(&lab, (&both, &bad)).unwrap();
    let held = gate.meet();
    failing.open();
    assert!(running.wait_timeout(patience()));
    wait_until("the large value is freed", || {
        lab.stats().arena.in_use < 10 << 20
    });
    drop(held);
    running.wait().unwrap_err();
    lab.assert_in_use(0);
}

fn an_unpolled_future_does_not_hold_up_a_graph() {
    let lab = Lab::with(1, |builder| builder.max_in_flight_bytes(2000));
    let (holding, held) = lab.hold();
    let mut first = lab.job(|n: u32| n, (1,)).submit_async();
    joins(&mut first);
    let diary = Diary::new();
    let mut graph = Graph::new();
    let node = graph.add(note, (&diary.path(), 2));
    let running = graph.run(&lab, &node).unwrap();
    drop(held);
    holding.wait().unwrap();
    // No running job can end, and the graph's turn for admission comes after a future that is not polled.
    wait_until("its job has run", || diary.numbers() == [2]);
    running.wait().unwrap();
    drop(first);
    lab.assert_in_use(0);
}

fn a_failed_node_frees_the_inputs_of_its_dependents() {
    fn fails() -> Result<u8, String> {
        Err("of course".into())
    }
    let lab = Lab::new(2);
    let gate = Gate::new();
    let mut graph = Graph::new();
    let large = graph.add(block_of, (2 * MIB, 1));
    let failed = graph.add(fails, ());
    let lost = graph.add(|a: &[u8], b: u8| a[0] + b, (&large, &failed));
    let held = graph.add(|gate: &str| pass(gate), (&gate.path(),));
    let running = graph.run(&lab, (&lost, &held)).unwrap();
    wait_until("only the job that is held has a record", || {
        let progress = running.progress();
        (progress.done, progress.failed) == (1, 1) && lab.stats().untaken == 1
    });
    gate.open();
    let (lost, held) = running.results();
    assert!(lost.is_err() && held.is_ok());
    lab.assert_in_use(0);
}
