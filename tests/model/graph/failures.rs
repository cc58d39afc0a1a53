//! Nodes that give no value, and workers that die.

use super::*;

tests![
    a_failed_node_stops_what_depends_on_it_and_nothing_else,
    a_failure_in_a_chain_names_its_node,
    a_death_in_a_chain_names_its_node,
    a_node_with_retries_survives_its_worker,
];

fn a_failed_node_stops_what_depends_on_it_and_nothing_else() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        let (_file, path) = notebook();
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
            let JobErrorKind::DependencyFailed {
                node,
                kernel,
                cause,
                ..
            } = error.kind()
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
        let mut ran = notes(&path);
        ran.sort_unstable();
        assert_eq!(ran, [6, 112]);
    }
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
        // On workers the chain is one job, and its error is that of the node; otherwise what follows has not run.
        let cause = match error.kind() {
            JobErrorKind::DependencyFailed { cause, node, .. } => {
                assert_eq!(node, "node \"three\"");
                (**cause).clone()
            }
            kind => {
                assert!(error.kernel().ends_with("half"), "{error}");
                kind.clone()
            }
        };
        assert_eq!(cause, JobErrorKind::Returned("3 is odd".into()));

        // The second node of its kernel, named by what is no part of the chain.
        let mut graph = Graph::new();
        let first = graph.job(half, (6,)).name("first").add();
        let second = graph.job(half, (&first,)).name("second").add();
        let lost = graph.job(down, (&second,)).retries(1).add();
        let error = graph.run(engine, &lost).unwrap().wait().unwrap_err();
        assert!(
            matches!(error.kind(), JobErrorKind::DependencyFailed { node, .. } if node == "node \"second\""),
            "{error}"
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
    assert_eq!(*error.kind(), JobErrorKind::Signal(libc::SIGABRT));
    assert!(error.kernel().ends_with("abort"), "{error}");
    assert_eq!(fine.unwrap(), 6);
    let error = after.unwrap_err();
    assert!(
        matches!(error.kind(), JobErrorKind::DependencyFailed { kernel, .. } if kernel.ends_with("abort")),
        "{error}"
    );
    lab.assert_in_use(0);
}

fn a_node_with_retries_survives_its_worker() {
    fn at_gate(gate: &str, values: &Array<u32>) -> Array<u32> {
        pass(gate);
        Array::from_fn(values.shape(), |i| values[i] + 1)
    }
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut graph = Graph::new();
    let ramp = graph.add(|n: usize| Array::from_fn(n, |i| i as u32), (1000,));
    let more = graph.job(at_gate, (&gate.path(), &ramp)).retries(2).add();
    let total = graph.add(
        |a: &[u32], b: &[u32]| a.iter().chain(b).sum::<u32>(),
        (&more, &ramp),
    );
    let running = graph.run(&lab, &total).unwrap();
    for restarts in 1..=2 {
        let held = gate.meet();
        end(lab.pid(0));
        lab.await_restart(0, restarts);
        drop(held);
    }
    gate.open();
    assert_eq!(running.wait().unwrap(), 2 * 499_500 + 1000);
    lab.assert_in_use(0);

    // One without is over, with what depends on it.
    let mut graph = Graph::new();
    let values = graph.add(|n: usize| Array::from_fn(n, |i| i as u32), (1000,));
    let more = graph.add(at_gate, (&gate.path(), &values));
    let count = graph.add(|a: &[u32], b: &[u32]| a.len() + b.len(), (&more, &values));
    let running = graph.run(&lab, &count).unwrap();
    let held = gate.meet();
    end(lab.pid(0));
    let error = running.wait().unwrap_err();
    drop(held);
    assert!(
        matches!(error.kind(), JobErrorKind::DependencyFailed { cause, .. } if **cause == JobErrorKind::Signal(9)),
        "{error}"
    );
    lab.assert_in_use(0);
}
