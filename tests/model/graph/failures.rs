//! Nodes that fail, and workers that die.

use std::thread;
use std::time::Duration;

use arenite::{Backoff, Limiter, OnFailure, Priority};

use super::*;
use crate::harness::{assert_kind, late, panicked};
use crate::maps::Watched;

tests![
    a_failed_node_stops_only_its_dependents,
    a_graph_that_stops_at_a_failure_stops_running_nodes,
    skipped_nodes_are_reported_inline_as_on_workers,
    a_map_that_stops_at_a_failure_sends_no_more,
    a_panicking_validity_check_fails_the_consumer_of_the_value,
    a_failure_in_a_chain_names_its_node,
    a_value_without_room_fails_the_last_node,
    a_death_in_a_chain_names_its_node,
    a_hang_in_a_node_ends_at_its_deadline,
    a_node_with_higher_priority_goes_first,
];

fn a_failed_node_stops_only_its_dependents() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        fails_alone(engine, |graph, _| {
            let odd = graph.job(half, (7,)).name("stuck").add();
            (odd, JobErrorKind::Returned("7 is odd".into()), "half")
        });
    }
    lab.assert_in_use(0);
}

/// Runs a graph with this failing node, called "stuck". Its dependents fail with its cause; all other nodes run.
fn fails_alone(
    engine: &Engine,
    bad: impl FnOnce(&mut Graph, &Node<u32>) -> (Node<u32>, JobErrorKind, &'static str),
) -> JobError {
    let diary = Diary::new();
    let path = diary.path();
    let mut graph = Graph::new();
    let six = graph.add(leaf, (&path, 6));
    let (bad, why, of_kernel) = bad(&mut graph, &six);
    let lost = graph.add(sum, (&path, &six, &bad));
    let lost_too = graph.add(sum, (&path, &lost, &six));
    let fine = graph.add(sum, (&path, &six, &six));
    step("a graph with a node that fails");
    let running = graph.run(engine, (&bad, &lost, &lost_too, &fine)).unwrap();
    let (bad, lost, lost_too, fine) = running.results();
    assert_eq!(fine.unwrap(), 12);
    for error in [lost.unwrap_err(), lost_too.unwrap_err()] {
        let (node, kernel, cause) = failed_node(&error);
        assert_eq!((node, cause), ("node \"stuck\"", &why));
        assert!(kernel.ends_with(of_kernel), "{error}");
        assert!(error.kernel().ends_with("sum"), "{error}");
        assert!(error.to_string().contains("stuck"), "{error}");
    }
    let mut ran = diary.numbers();
    ran.sort_unstable();
    assert_eq!(ran, [6, 112]);
    let error = bad.unwrap_err();
    assert_eq!(*error.kind(), why);
    error
}

/// Runs until cancelled.
fn runs_on(gate: &str) {
    pass(gate);
    while !arenite::cancelled() {
        thread::yield_now();
    }
}

fn a_graph_that_stops_at_a_failure_stops_running_nodes() {
    let lab = Lab::new(3);
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let [slow_gate, chain_gate, bad_gate] = &gates;
    let mut graph = Graph::new();
    graph.on_failure(OnFailure::Stop);
    let early = graph.add(|| 7u32, ());
    let slow = |gate: &str| {
        runs_on(gate);
        Err::<u32, _>("asked to stop".to_owned())
    };
    let slow = graph.add(slow, (&slow_gate.path(),));
    let behind = graph.add(|x: u32| x + 1, (&slow,));
    // One job, whose first node returns a value.
    let first = |gate: &str| {
        runs_on(gate);
        1u32
    };
    let first = graph.add(first, (&chain_gate.path(),));
    let chain = graph.add(|x: u32| x + 1, (&first,));
    let bad = graph.add(bad_at_gate, (&bad_gate.path(),));
    graph.after(&bad, &early).unwrap();
    let many: Vec<_> = (0..1000u32)
        .map(|n| graph.add(|x: u32, n: u32| x + n, (&behind, n)))
        .collect();
    let wanted = ((&early, &slow, &bad, &behind, &chain), &many);
    let running = graph.run(&lab, wanted).unwrap();
    drop((slow_gate.meet(), chain_gate.meet()));
    bad_gate.open();
    let ((early, slow, bad, behind, chain), many) = running.results();
    let returned = |text: &str| JobErrorKind::Returned(text.into());
    assert_eq!(early.unwrap(), 7);
    assert_eq!(*bad.unwrap_err().kind(), returned("bad"));
    assert_eq!(*slow.unwrap_err().kind(), returned("asked to stop"));
    for lost in many.into_iter().chain([behind, chain]) {
        let error = lost.unwrap_err();
        assert_stopped(&error, "bad");
        assert!(error.to_string().contains("stops at a failure"), "{error}");
    }
    let ran: u64 = lab.stats().kernels.iter().map(|one| one.calls).sum();
    assert_eq!(
        ran, 3,
        "no node began after the failure, and none of the chain counts"
    );
    lab.assert_in_use(0);
}

fn skipped_nodes_are_reported_inline_as_on_workers() {
    let engine = Engine::inline();
    // Its only permit is taken, so none of these nodes runs.
    let hour = Duration::from_secs(3600);
    let limiter = Limiter::builder().rate(1, hour).build();
    for (stops, on_failure) in [(true, OnFailure::Stop), (false, OnFailure::GoOn)] {
        let mut graph = Graph::new();
        graph.on_failure(on_failure);
        let bad = graph.add(|| Err::<u32, _>("bad".to_owned()), ());
        let stopped = graph.add(|| 1u32, ());
        let mut limited = |x: &Node<u32>| graph.job(down, (x,)).limit(&limiter).add();
        let lost: Vec<_> = (0..3).map(|_| limited(&bad)).collect();
        let behind = match stops {
            true => limited(&stopped),
            false => graph.add(down, (&stopped,)),
        };
        let (failed, behind) = graph.run(&engine, (&lost, &behind)).unwrap().results();
        for error in failed.into_iter().map(Result::unwrap_err) {
            failed_node(&error);
        }
        match stops {
            true => assert_stopped(&behind.unwrap_err(), "bad"),
            false => assert_eq!(behind.unwrap(), 0),
        }
    }
}

fn a_map_that_stops_at_a_failure_sends_no_more() {
    fn ends(gate: &str, how: u32) -> Result<u32, String> {
        pass(gate);
        match how {
            0 => Err("bad".into()),
            _ => std::process::abort(),
        }
    }
    const LEAVES: u32 = 2000;
    for how in [0, 1] {
        let lab = Lab::new(1);
        let gate = Gate::new();
        let mut graph = Graph::new();
        graph.on_failure(OnFailure::Stop);
        let bad = graph.add(ends, (&gate.path(), how));
        let leaves: Vec<_> = (0..LEAVES).map(|n| graph.add(|n: u32| n, (n,))).collect();
        let running = graph.run(&lab, (&bad, &leaves)).unwrap();
        gate.open();
        let (bad, leaves) = running.results();
        let bad = bad.unwrap_err();
        let mut cancelled = 0;
        for (n, leaf) in (0..).zip(leaves) {
            match leaf {
                Ok(value) => assert_eq!(value, n),
                Err(error) => {
                    assert_kind!(error, JobErrorKind::Cancelled);
                    assert_eq!(error.origin(), Some(&bad));
                    cancelled += 1;
                }
            }
        }
        // A graph has at most 512 jobs in flight.
        assert!(cancelled >= LEAVES - 512, "{cancelled}");
        assert_eq!(lab.submit(|x: u32| x, (5,)).wait().unwrap(), 5);
        lab.assert_in_use(0);
    }
}

fn a_panicking_validity_check_fails_the_consumer_of_the_value() {
    let lab = Lab::new(2);
    let mut graph = Graph::new();
    graph.fuse(false);
    let three = graph.add(|n: u32| Watched(n), (3,));
    let nodes = [1, 2].map(|by| graph.add(|x: Watched, by: u32| x.0 * by, (&three, by)));
    let four = graph.add(|n: u32| Watched(n), (4,));
    let fine = graph.add(|x: Watched| x.0, (&four,));
    let [first, second] = &nodes;
    let running = graph.run(&lab, (first, second, &fine)).unwrap();
    let (first, second, fine) = running.results();
    assert_eq!(fine.unwrap(), 4);
    for answer in [first, second] {
        let error = answer.unwrap_err();
        let (message, ..) = panicked(error.kind());
        assert!(message.contains("not checked"), "{error}");
    }
    let progress = lab.progress();
    assert_eq!((progress.failed, progress.done), (2, 3), "{progress:?}");
    step("another graph");
    let mut graph = Graph::new();
    let node = graph.add(|| 7u32, ());
    assert_eq!(graph.run(&lab, &node).unwrap().wait().unwrap(), 7);
    assert_eq!(lab.stats().restarts(), 0, "no worker was replaced");
    lab.assert_in_use(0);
}

fn a_failure_in_a_chain_names_its_node() {
    let lab = Lab::new(1);
    for engine in [&*lab, &Engine::inline()] {
        let mut graph = Graph::new();
        let nine = graph.add(down, (10,));
        let eight = graph.add(down, (&nine,));
        let four = graph.job(half, (&eight,)).name("eight").add();
        let three = graph.add(down, (&four,));
        let fails = graph.job(half, (&three,)).name("three").add();
        let last = graph.add(down, (&fails,));
        assert_eq!(graph.plan(&last).unwrap().jobs, 1);
        let error = graph.run(engine, &last).unwrap().wait().unwrap_err();
        // On workers the chain is one job; the dependents have not run either way.
        let (node, kernel, cause) = failed_node(&error);
        assert_eq!(node, "node \"three\"");
        assert!(kernel.ends_with("half"), "{error}");
        assert_eq!(*cause, JobErrorKind::Returned("3 is odd".into()));
        assert_eq!(*error.origin().unwrap().kind(), *cause);

        // The second node of the chain runs the same kernel; its label is not part of the chain.
        let mut graph = Graph::new();
        let first = graph.job(half, (6,)).name("first").add();
        let second = graph.job(half, (&first,)).name("second").add();
        let lost = graph.job(down, (&second,)).retries(1).add();
        let error = graph.run(engine, &lost).unwrap().wait().unwrap_err();
        assert_eq!(failed_node(&error).0, "node \"second\"");

        let mut graph = Graph::new();
        let zero = graph.add(down, (1,));
        let fails = graph.add(down, (&zero,));
        let last = graph.add(half, (&fails,));
        let error = graph.run(engine, &last).unwrap().wait().unwrap_err();
        assert!(error.to_string().contains("overflow"), "{error}");
        assert!(failed_node(&error).1.ends_with("down"), "{error}");
    }
    lab.assert_in_use(0);
}

fn a_value_without_room_fails_the_last_node() {
    fn long(x: u32) -> String {
        "x".repeat((x as usize) << 20)
    }
    let lab = Lab::with(1, |builder| builder.capacity(16 << 20));
    let mut graph = Graph::new();
    let first = graph.add(down, (25,));
    let last = graph.add(long, (&first,));
    assert_eq!(graph.plan(&last).unwrap().jobs, 1);
    let error = graph.run(&lab, &last).unwrap().wait().unwrap_err();
    assert_kind!(error, JobErrorKind::Limit(JobLimit::Arena(full)) if full.requested > 24 << 20);
    // The next job is no chain: the node reached by this one is reset.
    assert_eq!(lab.submit(half, (8,)).wait().unwrap(), 4);
    lab.assert_in_use(0);
}

fn a_death_in_a_chain_names_its_node() {
    fn abort(x: u32) -> u32 {
        if x == 3 {
            eprintln!("in the middle");
            std::process::abort();
        }
        x
    }
    let lab = Lab::with(2, |builder| builder.on_log(|_| ()));
    let mut graph = Graph::new();
    let mut x = graph.add(|| 6u32, ());
    for _ in 0..6 {
        x = graph.add(down, (&x,));
        x = graph.add(abort, (&x,));
    }
    let fine = graph.add(down, (7,));
    let hour = Duration::from_secs(3600);
    let after = graph.job(down, (&x,)).deadline(hour).add();
    let (x, fine, after) = graph.run(&lab, (&x, &fine, &after)).unwrap().results();
    assert_eq!(fine.unwrap(), 6);
    for error in [x.unwrap_err(), after.unwrap_err()] {
        let (node, kernel, cause) = failed_node(&error);
        assert_eq!((node, cause), ("node 6", &ABORTED));
        assert!(kernel.ends_with("abort"), "{error}");
        let origin = error.origin().expect("the node that died");
        assert_eq!(*origin.kind(), ABORTED);
        assert_eq!(origin.last_words(), ["in the middle"], "{error}");
    }
    lab.assert_in_use(0);
}

fn a_hang_in_a_node_ends_at_its_deadline() {
    const LIMIT: Duration = Duration::from_millis(50);
    fn hang(x: u32) -> u32 {
        loop {
            thread::park();
            std::hint::black_box(x);
        }
    }
    let lab = Lab::new(2);
    let error = fails_alone(&lab, |graph, six| {
        let hung = graph.job(hang, (six,)).name("stuck").deadline(LIMIT);
        let hung = hung.retries(1).backoff(Backoff::NONE).add();
        (hung, late(LIMIT), "hang")
    });
    assert_eq!(error.attempt(), 2);
    assert_eq!(
        error.deaths(),
        [late(LIMIT)],
        "each attempt has the full time"
    );
    lab.assert_in_use(0);
}

/// While a job waits at a gate, nodes are ordered by priority.
fn a_node_with_higher_priority_goes_first() {
    let lab = Lab::new(1);
    let (diary, gate) = (Diary::new(), Gate::new());
    let path = diary.path();
    let running = lab.submit(pass, (&gate.path(),));
    let held = gate.meet();
    let mut graph = Graph::new();
    let plain = graph.add(leaf, (&path, 1));
    let low = graph.job(leaf, (&path, 2)).priority(Priority::Low).add();
    let high = graph.job(leaf, (&path, 3)).priority(Priority::High).add();
    let ran = graph.run(&lab, (&plain, &low, &high)).unwrap();
    drop(held);
    step("three nodes");
    assert_eq!(ran.wait(), Ok((1, 2, 3)));
    running.wait().unwrap();
    assert_eq!(diary.numbers(), [3, 1, 2]);
    lab.assert_in_use(0);
}
