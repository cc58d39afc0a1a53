//! Graphs progress with a waiting thread, without one, and with a future; and how they end.

use std::thread;

use super::*;
use crate::harness::{block_on, cause_of};

tests![
    a_graph_runs_without_a_waiting_thread,
    values_may_be_taken_while_other_nodes_run,
    dropping_the_handle_ends_the_graph,
    shutdown_finishes_and_dropping_the_engine_cancels,
    pictures_tell_times_and_failures,
];

fn a_graph_runs_without_a_waiting_thread() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let mut graph = Graph::new();
    graph.fuse(false);
    let mut x = graph.add(|| 100u32, ());
    for _ in 0..50 {
        let a = graph.add(down, (&x,));
        let b = graph.add(down, (&x,));
        x = graph.add(|a: u32, b: u32| a.min(b), (&a, &b));
    }
    let last = graph.add(at_gate, (&gate.path(), &x));
    let running = graph.run(&lab, &last).unwrap();
    // The last node runs without any help of this thread.
    gate.open();
    assert_eq!(running.wait().unwrap(), 50);
    lab.assert_in_use(0);
}

/// All requested nodes are decided when `bad` has failed, while `slow` still runs.
fn values_may_be_taken_while_other_nodes_run() {
    for fails in [false, true] {
        let lab = Lab::new(2);
        let gate = Gate::new();
        let mut graph = Graph::new();
        graph.fuse(false);
        let one = graph.add(|| 1u32, ());
        let bad = graph.add(|| Err::<u32, _>("bad".to_owned()), ());
        let slow = graph.add(
            |gate: &str, fails: bool| {
                pass(gate);
                (!fails).then_some(2u32).ok_or("slow".to_owned())
            },
            (&gate.path(), fails),
        );
        let both = [0, 1].map(|_| graph.add(|a: u32, b: u32| a + b, (&one, &slow)));
        let all = graph.add(
            |a: u32, b: u32, c: u32| a + b + c,
            (&both[0], &both[1], &bad),
        );
        let mut running = graph.run(&lab, (&one, &all)).unwrap();
        failed_node(&block_on(&mut running).unwrap_err());
        gate.open();
        let calls = || lab.stats().kernels.iter().map(|one| one.calls).sum::<u64>();
        wait_until("the slow one has ended", || calls() == 3);
        assert_eq!(lab.submit(|x: u32| x, (5,)).wait().unwrap(), 5);
        assert_eq!(calls(), 4, "unrequested nodes do not run");
        drop(running);
        lab.assert_in_use(0);
    }
}

fn dropping_the_handle_ends_the_graph() {
    let lab = Lab::new(1);
    let diary = Diary::new();
    let path = diary.path();
    let gate = Gate::new();
    let mut graph = Graph::new();
    let first = graph.add(at_gate, (&gate.path(), 1));
    let mut nodes: Vec<_> = (2..600).map(|n| graph.add(leaf, (&path, n))).collect();
    nodes.push(graph.add(sum, (&path, &first, &nodes[0])));
    let running = graph.run(&lab, &nodes).unwrap();
    let held = gate.meet();
    drop(running);
    drop(held);
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    assert!(diary.numbers().is_empty());
    lab.assert_in_use(0);
}

fn shutdown_finishes_and_dropping_the_engine_cancels() {
    let build = |gate: &Gate| {
        let mut graph = Graph::new();
        graph.fuse(false);
        let mut x = graph.add(at_gate, (&gate.path(), 0));
        for _ in 0..100 {
            x = graph.add(|x: u32| x + 1, (&x,));
        }
        (graph, x)
    };
    let lab = Lab::new(2);
    let gate = Gate::new();
    let (graph, x) = build(&gate);
    let running = graph.run(&lab, &x).unwrap();
    let held = gate.meet();
    let engine = lab.into_inner();
    let ending = thread::spawn(move || engine.shutdown());
    drop(held);
    assert_eq!(running.wait().unwrap(), 100);
    ending.join().unwrap();

    let lab = Lab::new(2);
    let (graph, x) = build(&gate);
    let running = graph.run(&lab, &x).unwrap();
    let held = gate.meet();
    drop(lab.into_inner());
    drop(held);
    let error = running.wait().unwrap_err();
    assert_eq!(*cause_of(&error), JobErrorKind::ShutDown);
}

fn pictures_tell_times_and_failures() {
    let lab = Lab::new(1);
    for engine in [&*lab, &Engine::inline()] {
        let mut graph = Graph::new();
        let one = graph.job(down, (4,)).name("a <first> \"node\"").add();
        let two = graph.add(down, (&one,));
        let fails = graph.add(half, (&two,));
        let fails = graph.add(half, (&fails,));
        let left = graph.add(half, (&two,));
        let lost = graph.add(|a: u32, b: u32| a + b, (&fails, &left));
        let _unasked = graph.add(down, (&lost,));
        let dot = graph.dot();
        assert!(dot.starts_with("digraph {"), "{dot}");
        assert!(dot.contains("n0 -> n1;"), "{dot}");
        let running = graph.run(engine, (&two, &lost)).unwrap();
        assert_eq!(running.jobs(), 4);
        let dot = running.dot();
        for part in [
            "cluster_0",
            "color=red, style=dashed",
            r#"label="a <first> \"node\""#,
            "not needed",
            "not run",
            "failed",
        ] {
            assert!(dot.contains(part), "{part}: {dot}");
        }
        assert_eq!(dot.matches("[label=").count(), 7);
        assert_eq!(dot.matches(" -> ").count(), 7);
        let (two, lost) = running.results();
        assert_eq!(two.unwrap(), 2);
        lost.unwrap_err();
    }
}
