//! Nodes that fail, and workers that die.

use std::thread;
use std::time::Duration;

use arenite::{Backoff, Limiter, OnFailure, Priority};

use super::*;
use crate::harness::{KILLED, assert_kind, cause_of, late, panicked};
use crate::maps::Watched;

tests![
    a_failed_node_stops_only_its_dependents,
    a_graph_that_stops_at_a_failure_stops_running_nodes,
    a_cancelled_chain_is_no_failure,
    skipped_nodes_are_reported_inline_as_on_workers,
    a_map_that_stops_at_a_failure_sends_no_more,
    a_panicking_validity_check_fails_the_consumer_of_the_value,
    a_failure_in_a_chain_names_its_node,
    a_value_without_room_fails_the_last_node,
    a_death_in_a_chain_names_its_node,
    a_node_with_retries_survives_its_worker,
    a_hang_in_a_node_ends_at_its_deadline,
    a_killed_node_returns_its_permit,
    a_node_with_higher_priority_goes_first,
];

fn a_failed_node_stops_only_its_dependents() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        let diary = Diary::new();
        let path = diary.path();
        let mut graph = Graph::new();
        let six = graph.add(leaf, (&path, 6));
        let odd = graph.job(half, (7,)).name("the odd one").add();
        let lost = graph.add(sum, (&path, &six, &odd));
        let lost_too = graph.add(sum, (&path, &lost, &six));
        let fine = graph.add(sum, (&path, &six, &six));
        let results = graph
            .run(engine, (&odd, &lost, &lost_too, &fine))
            .unwrap()
            .results();
        let (odd, lost, lost_too, fine) = results;
        assert_eq!(
            *odd.unwrap_err().kind(),
            JobErrorKind::Returned("7 is odd".into())
        );
        assert_eq!(fine.unwrap(), 12);
        for lost in [lost, lost_too] {
            let error = lost.unwrap_err();
            let JobErrorKind::Dependency(FailedDependency::Node {
                node,
                kernel,
                cause,
                ..
            }) = error.kind()
            else {
                panic!("{error}");
            };
            assert_eq!(node, "node \"the odd one\"");
            assert!(
                kernel.ends_with("half") && error.kernel().ends_with("sum"),
                "{error}"
            );
            assert_eq!(**cause, JobErrorKind::Returned("7 is odd".into()));
            assert!(error.to_string().contains("the odd one"), "{error}");
        }
        let mut ran = diary.numbers();
        ran.sort_unstable();
        assert_eq!(ran, [6, 112]);
    }
    lab.assert_in_use(0);
}

/// Runs until cancelled.
fn runs_on(gate: &str) -> Result<u32, String> {
    pass(gate);
    while !arenite::cancelled() {
        thread::yield_now();
    }
    Err("asked to stop".into())
}

fn a_graph_that_stops_at_a_failure_stops_running_nodes() {
    let lab = Lab::new(2);
    let [slow_gate, bad_gate] = [Gate::new(), Gate::new()];
    let mut graph = Graph::new();
    graph.on_failure(OnFailure::Stop);
    let early = graph.add(|| 7u32, ());
    let slow = graph.job(runs_on, (&slow_gate.path(),)).add();
    let behind = graph.add(|x: u32| x + 1, (&slow,));
    let bad = graph
        .job(
            |gate: &str| {
                pass(gate);
                Err::<u32, _>("bad".to_owned())
            },
            (&bad_gate.path(),),
        )
        .add();
    graph.after(&bad, &early).unwrap();
    let many: Vec<_> = (0..1000u32)
        .map(|n| graph.add(|x: u32, n: u32| x + n, (&behind, n)))
        .collect();
    let wanted = ((&early, &slow, &bad, &behind), &many);
    let running = graph.run(&lab, wanted).unwrap();
    drop(slow_gate.meet());
    bad_gate.open();
    let ((early, slow, bad, behind), many) = running.results();
    let returned = |text: &str| JobErrorKind::Returned(text.into());
    assert_eq!(early.unwrap(), 7);
    assert_eq!(*bad.unwrap_err().kind(), returned("bad"));
    assert_eq!(*slow.unwrap_err().kind(), returned("asked to stop"));
    for lost in many.into_iter().chain([behind]) {
        let error = lost.unwrap_err();
        assert_eq!(*error.kind(), JobErrorKind::Cancelled);
        let origin = error.origin().expect("the failure");
        assert_eq!(*origin.kind(), returned("bad"));
        assert!(error.to_string().contains("stops at a failure"), "{error}");
    }
    let ran: u64 = lab.stats().kernels.iter().map(|one| one.calls).sum();
    assert_eq!(ran, 3, "no node began after the failure");
    lab.assert_in_use(0);
    lab.assert_idle();
}

fn a_cancelled_chain_is_no_failure() {
    fn until_asked(gate: &str) -> u32 {
        pass(gate);
        while !arenite::cancelled() {
            thread::yield_now();
        }
        1
    }
    let lab = Lab::new(2);
    let [slow_gate, bad_gate] = [Gate::new(), Gate::new()];
    let mut graph = Graph::new();
    graph.on_failure(OnFailure::Stop);
    let slow = graph.add(until_asked, (&slow_gate.path(),));
    let behind = graph.add(|x: u32| x + 1, (&slow,));
    let bad = graph.add(
        |gate: &str| {
            pass(gate);
            Err::<u32, _>("bad".to_owned())
        },
        (&bad_gate.path(),),
    );
    assert_eq!(graph.plan((&behind, &bad)).unwrap().jobs, 2);
    let running = graph.run(&lab, (&behind, &bad)).unwrap();
    drop(slow_gate.meet());
    bad_gate.open();
    let (behind, _) = running.results();
    let error = behind.unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    let origin = error.origin().expect("the failure");
    assert_eq!(*origin.kind(), JobErrorKind::Returned("bad".into()));
    lab.assert_in_use(0);
    lab.assert_idle();
}

fn skipped_nodes_are_reported_inline_as_on_workers() {
    let engine = Engine::inline();
    // Its only permit is taken, so none of these nodes runs.
    let limiter = Limiter::builder()
        .rate(1, Duration::from_secs(3600))
        .build();
    for (stops, on_failure) in [(true, OnFailure::Stop), (false, OnFailure::GoOn)] {
        let mut graph = Graph::new();
        graph.on_failure(on_failure);
        let bad = graph.add(|| Err::<u32, _>("bad".to_owned()), ());
        let stopped = graph.add(|| 1u32, ());
        let lost: Vec<_> = (0..3u32)
            .map(|n| {
                graph
                    .job(|x: u32, n: u32| x + n, (&bad, n))
                    .limit(&limiter)
                    .add()
            })
            .collect();
        let behind = graph.job(|x: u32| x, (&stopped,));
        let behind = if stops {
            behind.limit(&limiter)
        } else {
            behind
        }
        .add();
        let running = graph.run(&engine, (&lost, &behind)).unwrap();
        let (failed, behind) = running.results();
        for error in failed.into_iter().map(Result::unwrap_err) {
            assert_kind!(
                error,
                JobErrorKind::Dependency(FailedDependency::Node { .. })
            );
        }
        if stops {
            let error = behind.unwrap_err();
            assert_eq!(*error.kind(), JobErrorKind::Cancelled);
            let origin = error.origin().expect("the failure");
            assert_eq!(*origin.kind(), JobErrorKind::Returned("bad".into()));
        } else {
            assert_eq!(behind.unwrap(), 1);
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
        lab.assert_idle();
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
    fn odd_panics(x: u32) -> u32 {
        assert!(x.is_multiple_of(2), "{x} is odd");
        x / 2
    }
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
        let JobErrorKind::Dependency(FailedDependency::Node {
            cause,
            node,
            kernel,
            ..
        }) = error.kind()
        else {
            panic!("{error}");
        };
        assert_eq!(node, "node \"three\"");
        assert!(kernel.ends_with("half"), "{error}");
        assert_eq!(**cause, JobErrorKind::Returned("3 is odd".into()));
        assert_eq!(*error.origin().unwrap().kind(), **cause);

        // The second node of the chain runs the same kernel; its label is not part of the chain.
        let mut graph = Graph::new();
        let first = graph.job(half, (6,)).name("first").add();
        let second = graph.job(half, (&first,)).name("second").add();
        let lost = graph.job(down, (&second,)).retries(1).add();
        let error = graph.run(engine, &lost).unwrap().wait().unwrap_err();
        assert_kind!(
            error,
            JobErrorKind::Dependency(FailedDependency::Node { node, .. })
                if node == "node \"second\""
        );

        let mut graph = Graph::new();
        let three = graph.add(down, (4,));
        let fails = graph.add(odd_panics, (&three,));
        let last = graph.add(down, (&fails,));
        let error = graph.run(engine, &last).unwrap().wait().unwrap_err();
        assert!(error.to_string().contains("3 is odd"), "{error}");
        assert!(error.to_string().contains("odd_panics"), "{error}");
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
            std::process::abort();
        }
        x
    }
    let lab = Lab::new(2);
    let mut graph = Graph::new();
    let mut x = graph.add(|| 6u32, ());
    for _ in 0..6 {
        x = graph.add(down, (&x,));
        x = graph.add(abort, (&x,));
    }
    let fine = graph.add(down, (7,));
    let after = graph
        .job(down, (&x,))
        .deadline(std::time::Duration::from_secs(100))
        .add();
    let (x, fine, after) = graph.run(&lab, (&x, &fine, &after)).unwrap().results();
    let error = x.unwrap_err();
    assert_kind!(
        error,
        JobErrorKind::Dependency(FailedDependency::Node { node, kernel, cause, .. })
            if node == "node 6" && kernel.ends_with("abort") && **cause == ABORTED
    );
    assert_eq!(*error.origin().unwrap().kind(), ABORTED);
    assert_eq!(fine.unwrap(), 6);
    let error = after.unwrap_err();
    assert_kind!(
        error,
        JobErrorKind::Dependency(FailedDependency::Node { kernel, .. }) if kernel.ends_with("abort")
    );
    lab.assert_in_use(0);
}

fn a_node_with_retries_survives_its_worker() {
    fn ramp(n: usize) -> Array<u32> {
        Array::from_fn(n, |i| i as u32)
    }
    /// Takes a list of nodes.
    fn at_gate(gate: &str, values: &[Array<u32>]) -> Array<u32> {
        pass(gate);
        let sum = |i| values.iter().map(|values| values[i]).sum::<u32>() + 1;
        Array::from_fn(values[0].shape(), sum)
    }
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut graph = Graph::new();
    let ramps = [(); 3].map(|()| graph.add(ramp, (1000,)));
    let more = graph
        .job(at_gate, (&gate.path(), &ramps[..]))
        .retries(2)
        .add();
    let total = graph.add(
        |a: &[u32], b: &[u32]| a.iter().chain(b).sum::<u32>(),
        (&more, &ramps[0]),
    );
    let running = graph.run(&lab, &total).unwrap();
    for restarts in 1..=2 {
        let held = gate.meet();
        end(lab.pid(0));
        lab.await_restart(0, restarts);
        drop(held);
    }
    gate.open();
    assert_eq!(running.wait().unwrap(), 4 * 499_500 + 1000);
    lab.assert_in_use(0);

    // A node without retries fails, with its dependents.
    let mut graph = Graph::new();
    let values = [graph.add(ramp, (1000,))];
    let more = graph.add(at_gate, (&gate.path(), &values[..]));
    let count = graph.add(
        |a: &[u32], b: &[u32]| a.len() + b.len(),
        (&more, &values[0]),
    );
    let running = graph.run(&lab, &count).unwrap();
    let held = gate.meet();
    end(lab.pid(0));
    let error = running.wait().unwrap_err();
    drop(held);
    assert_eq!(*cause_of(&error), KILLED);
    lab.assert_in_use(0);
}

fn hang(x: u32) -> u32 {
    loop {
        thread::park();
        std::hint::black_box(x);
    }
}

/// Its dependents fail with the cause; all other nodes run.
fn a_hang_in_a_node_ends_at_its_deadline() {
    const LIMIT: Duration = Duration::from_millis(50);
    let lab = Lab::new(2);
    let diary = Diary::new();
    let path = diary.path();
    let mut graph = Graph::new();
    let six = graph.add(leaf, (&path, 6));
    let hung = graph.job(hang, (&six,)).name("stuck").deadline(LIMIT);
    let hung = hung.retries(1).backoff(Backoff::NONE).add();
    let lost = graph.add(sum, (&path, &hung, &six));
    let lost_too = graph.add(sum, (&path, &lost, &six));
    let fine = graph.add(sum, (&path, &six, &six));
    step("a graph with a node that hangs");
    let running = graph.run(&lab, (&hung, &lost, &lost_too, &fine)).unwrap();
    let (hung, lost, lost_too, fine) = running.results();
    let error = hung.unwrap_err();
    assert_eq!((error.kind(), error.attempt()), (&late(LIMIT), 2));
    assert_eq!(
        error.deaths(),
        [late(LIMIT)],
        "each attempt has the full time"
    );
    for lost in [lost, lost_too] {
        let error = lost.unwrap_err();
        let JobErrorKind::Dependency(FailedDependency::Node { node, cause, .. }) = error.kind()
        else {
            panic!("{error}");
        };
        assert_eq!((node.as_str(), &**cause), ("node \"stuck\"", &late(LIMIT)));
    }
    assert_eq!(fine.unwrap(), 12);
    let mut ran = diary.numbers();
    ran.sort_unstable();
    assert_eq!(ran, [6, 112]);
    lab.assert_in_use(0);
}

/// One node at a time over all workers; the permit of the killed one goes to the next.
fn a_killed_node_returns_its_permit() {
    fn stand(path: &str, gate: &str, n: u32) -> u32 {
        let again = numbers(path).contains(&n);
        note(path, n);
        if !gate.is_empty() && !again {
            pass(gate);
        }
        note(path, n + 100);
        n
    }
    for retries in [0, 1] {
        let lab = Lab::new(2);
        let one = Limiter::builder().concurrency(1).build();
        let (diary, gate) = (Diary::new(), Gate::new());
        let path = diary.path();
        let gate_path = gate.path();
        let mut graph = Graph::new();
        let mut add = |n: u32| {
            let gate = if n == 0 { gate_path.as_str() } else { "" };
            let node = graph.job(stand, (&path, gate, n));
            node.retries(retries)
                .backoff(Backoff::NONE)
                .limit(&one)
                .add()
        };
        let nodes = [add(0), add(1), add(2), add(3)];
        let [first, second, third, fourth] = &nodes;
        let free = graph.add(down, (1,));
        let last = graph.add(|a: u32, b: u32| a + b, (first, fourth));
        let wanted = (second, third, fourth, &free, &last);
        let running = graph.run(&lab, wanted).unwrap();
        step("the first of four nodes that share a permit");
        let held = gate.meet();
        wait_until("the others wait for the permit", || {
            lab.stats().limited == 3
        });
        wait_until("the job without a permit has ended", || {
            lab.stats().open == 1
        });
        lab.replace(lab.busy_worker());
        drop(held);
        // Its second attempt waits for its turn.
        let (second, third, fourth, free, last) = running.results();
        assert_eq!((second, third, fourth, free), (Ok(1), Ok(2), Ok(3), Ok(0)));
        let ran = diary.numbers();
        match last {
            Ok(value) => {
                assert_eq!((value, retries), (3, 1));
                assert_eq!(ran, [0, 1, 101, 2, 102, 3, 103, 0, 100]);
            }
            Err(error) => {
                assert_eq!(retries, 0, "{error}");
                assert_eq!(*cause_of(&error), KILLED);
                assert_eq!(ran, [0, 1, 101, 2, 102, 3, 103]);
            }
        }
        assert!(format!("{one:?}").contains("given: 0, waiting: 0"));
        lab.assert_in_use(0);
    }
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
