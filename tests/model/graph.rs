//! Graphs: each node once, in whatever order, whatever dies meanwhile.

use std::future::Future;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use arenite::{Array, ArrayMut, Engine, Graph, GraphError, JobErrorKind, Node};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::harness::{Gate, Lab, pass, step, tests, wait_until};

tests![
    only_what_is_asked_for_runs_and_once,
    values_of_every_kind_are_passed_on,
    an_exclusive_array_goes_from_node_to_node,
    parts_of_arrays_are_passed_on_without_a_copy,
    a_failed_node_stops_what_depends_on_it_and_nothing_else,
    a_failure_in_a_chain_names_its_node,
    a_death_in_a_chain_names_its_node,
    a_node_with_retries_survives_its_worker,
    it_goes_on_although_nobody_waits,
    a_future_wakes_whoever_polls_it,
    dropping_it_ends_it,
    order_without_a_value_is_kept,
    misuse_is_an_error_before_anything_runs,
    a_wide_graph_has_few_records,
    intermediates_are_freed_at_their_last_use,
    a_chain_of_arrays_takes_the_memory_of_two,
    what_does_not_fit_is_refused_before_anything_runs,
    an_order_that_fits_is_found,
    jobs_wait_for_memory_that_was_planned,
    admission_holds_it_back_and_lets_it_end,
    shutdown_finishes_it_and_dropping_the_engine_ends_it,
    pictures_tell_times_and_failures,
    random_numbers_belong_to_the_node,
    random_graphs_with_deaths_give_what_a_plain_program_gives,
];

fn note(path: &str, n: u32) {
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.write_all(format!("{n}\n").as_bytes()).unwrap();
}

fn notes(path: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// A file that kernels write to.
fn notebook() -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

fn leaf(path: &str, n: u32) -> u32 {
    note(path, n);
    n
}

fn sum(path: &str, a: u32, b: u32) -> u32 {
    note(path, 100 + a + b);
    a + b
}

fn only_what_is_asked_for_runs_and_once() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        let (_file, path) = notebook();
        let mut graph = Graph::new();
        let one = graph.add(leaf, (&path, 1));
        let two = graph.add(leaf, (&path, 2));
        let three = graph.add(leaf, (&path, 3));
        let _unasked = graph.add(sum, (&path, &two, &three));
        let left = graph.add(sum, (&path, &one, &two));
        let right = graph.add(sum, (&path, &one, &one));
        let all = graph.add(sum, (&path, &left, &right));
        assert_eq!(graph.len(), 7);
        let (all, one) = graph.run(engine, (&all, &one)).unwrap().wait().unwrap();
        assert_eq!((all, one), (5, 1));
        let mut ran = notes(&path);
        ran.sort_unstable();
        assert_eq!(ran, [1, 2, 102, 103, 105]);
    }
    lab.assert_in_use(0);
}

fn values_of_every_kind_are_passed_on() {
    fn text(n: u32) -> String {
        "x".repeat(n as usize)
    }
    fn length(text: &str) -> usize {
        text.len()
    }
    fn ramp(n: usize) -> Array<u64> {
        Array::from_fn([n, 2], |i| i as u64)
    }
    fn total(a: &Array<u64>, b: &[u64], by: f64) -> f64 {
        assert_eq!(a.shape().rank(), 2);
        (a.iter().sum::<u64>() + b.iter().sum::<u64>()) as f64 * by
    }
    fn pair(n: usize) -> (Array<u64>, Option<String>) {
        (ramp(n), Some("pair".into()))
    }
    fn unit(_: bool) {}
    fn nothing() -> Array<u8> {
        Array::from_slice(&[])
    }
    fn count(a: &[u8], b: &[u8; 4], c: char) -> Result<u32, String> {
        Ok(a.len() as u32 + u32::from(b[3]) + u32::from(c))
    }
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        for fuse in [true, false] {
            let mut graph = Graph::new();
            graph.fuse(fuse);
            // Long enough not to fit into a slot.
            let text = graph.add(text, (1000u32,));
            let length = graph.add(length, (&text,));
            let ramp = graph.add(ramp, (&length,));
            let own = engine.from_slice(&[1u64, 2, 3]).unwrap();
            let total = graph.add(total, (&ramp, own, 0.5));
            let pair = graph.add(pair, (&length,));
            let truth = graph.add(|x: f64| x > 0.0, (&total,));
            let unit = graph.add(unit, (&truth,));
            let nothing = graph.add(nothing, ());
            let four = graph.add(|| [1u8, 2, 3, 4], ());
            let count = graph.add(
                |a: &Array<u8>, b: [u8; 4], c: char| count(a, &b, c),
                (&nothing, four, 'a'),
            );
            let running = graph
                .run(engine, (&total, &pair, unit, vec![count]))
                .unwrap();
            let (total, pair, (), counts) = running.wait().unwrap();
            assert_eq!(total, (1999.0 * 1000.0 + 6.0) * 0.5);
            assert_eq!((pair.0.len(), pair.1.as_deref()), (2000, Some("pair")));
            assert_eq!(counts, [4 + 97]);
        }
    }
    lab.assert_in_use(0);
}

fn an_exclusive_array_goes_from_node_to_node() {
    fn zeros(n: usize) -> ArrayMut<u32> {
        ArrayMut::zeros(n)
    }
    fn add(mut values: ArrayMut<u32>, by: u32) -> ArrayMut<u32> {
        values.iter_mut().for_each(|x| *x += by);
        values
    }
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        for fuse in [true, false] {
            let mut graph = Graph::new();
            graph.fuse(fuse);
            let mut values = graph.add(zeros, (100_000usize,));
            for by in 1..=10 {
                values = graph.add(add, (values, by));
            }
            let mut values = graph.run(engine, &values).unwrap().wait().unwrap();
            assert!(values.iter().all(|&x| x == 55));
            values[0] = 1;
        }
        let given = engine.zeros::<u32>(10).unwrap();
        let mut graph = Graph::new();
        let added = graph.add(add, (given, 7));
        assert_eq!(
            graph.run(engine, added).unwrap().wait().unwrap()[..],
            [7; 10]
        );
    }
    lab.assert_in_use(0);
}

fn parts_of_arrays_are_passed_on_without_a_copy() {
    fn part(values: &Array<u32>) -> Array<u32> {
        values.rows(10..20)
    }
    let lab = Lab::new(2);
    let values = lab.from_fn(100, |i| i as u32).unwrap();
    let mut graph = Graph::new();
    graph.fuse(false);
    let part = graph.add(part, (&values,));
    let same = graph.add(|values: &Array<u32>| values.clone(), (&part,));
    let total = graph.add(
        |a: &[u32], b: &[u32]| a.iter().chain(b).sum::<u32>(),
        (&part, &same),
    );
    let (same, total) = graph.run(&lab, (&same, &total)).unwrap().wait().unwrap();
    assert_eq!((total, same.as_ptr()), (2 * 145, values[10..].as_ptr()));
    drop((same, values));
    lab.assert_in_use(0);
}

fn half(x: u32) -> Result<u32, String> {
    if x.is_multiple_of(2) {
        Ok(x / 2)
    } else {
        Err(format!("{x} is odd"))
    }
}

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

fn down(x: u32) -> u32 {
    x - 1
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

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the worker exists");
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

fn it_goes_on_although_nobody_waits() {
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
    let last = graph.add(
        |gate: &str, x: u32| {
            pass(gate);
            x
        },
        (&gate.path(), &x),
    );
    let running = graph.run(&lab, &last).unwrap();
    // The last node runs, and this thread has done nothing for it.
    gate.open();
    assert_eq!(running.wait().unwrap(), 50);
    lab.assert_in_use(0);
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        step("to be woken for a graph");
        thread::park();
    }
}

fn a_future_wakes_whoever_polls_it() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        for _ in 0..20 {
            let mut graph = Graph::new();
            let one = graph.add(|| 1u32, ());
            let left = graph.add(|x: u32| x + 1, (&one,));
            let right = graph.add(|x: u32| x + 2, (&one,));
            let both = graph.add(|a: u32, b: u32| a * b, (&left, &right));
            assert_eq!(block_on(graph.run(engine, &both).unwrap()).unwrap(), 6);
        }
    }
    lab.assert_in_use(0);
}

fn dropping_it_ends_it() {
    fn at_gate(gate: &str, path: &str, n: u32) -> u32 {
        pass(gate);
        leaf(path, n)
    }
    let lab = Lab::new(1);
    let (_file, path) = notebook();
    let gate = Gate::new();
    let mut graph = Graph::new();
    let first = graph.add(at_gate, (&gate.path(), &path, 1));
    let mut nodes: Vec<_> = (2..600).map(|n| graph.add(leaf, (&path, n))).collect();
    nodes.push(graph.add(sum, (&path, &first, &nodes[0])));
    let running = graph.run(&lab, &nodes).unwrap();
    let held = gate.meet();
    drop(running);
    drop(held);
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    assert_eq!(notes(&path), [1]);
    lab.assert_idle();
    lab.assert_in_use(0);
}

fn order_without_a_value_is_kept() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        let (_file, path) = notebook();
        let mut graph = Graph::new();
        let third = graph.add(leaf, (&path, 3));
        let first = graph.add(leaf, (&path, 1));
        let second = graph.add(leaf, (&path, 2));
        graph.after(&second, &first).unwrap();
        graph.after(&third, &second).unwrap();
        assert_eq!(graph.run(engine, &third).unwrap().wait().unwrap(), 3);
        assert_eq!(notes(&path), [1, 2, 3]);

        let mut graph = Graph::new();
        let fails = graph.add(half, (1,));
        let later = graph.add(leaf, (&path, 4));
        graph.after(&later, &fails).unwrap();
        let error = graph.run(engine, &later).unwrap().wait().unwrap_err();
        assert!(
            matches!(error.kind(), JobErrorKind::DependencyFailed { .. }),
            "{error}"
        );
        assert_eq!(notes(&path).len(), 3);
        std::fs::write(&path, "").unwrap();
    }
}

fn misuse_is_an_error_before_anything_runs() {
    let lab = Lab::new(1);
    let (_file, path) = notebook();
    let mut graph = Graph::new();
    let a = graph.job(leaf, (&path, 1)).name("a").add();
    let b = graph.add(sum, (&path, &a, &a));
    let c = graph.add(sum, (&path, &b, &b));
    assert_eq!(
        graph.after(&a, &c),
        Err(GraphError::Cycle {
            nodes: vec!["node 2".into(), "node 1".into(), "node \"a\"".into()]
        })
    );
    assert!(matches!(graph.after(&a, &a), Err(GraphError::Cycle { .. })));
    let mut other = Graph::new();
    let foreign = other.add(leaf, (&path, 1));
    let Err(GraphError::ForeignNode { at }) = graph.after(&a, &foreign) else {
        panic!()
    };
    assert!(at.contains("graph.rs"), "{at}");
    let bad = graph.add(sum, (&path, &a, &foreign));
    let line = line!() - 1;
    let error = graph.run(&lab, &bad).unwrap_err();
    assert!(
        error.to_string().contains(&format!("graph.rs:{line}")),
        "{error}"
    );

    let mut graph = Graph::new();
    let a = graph.job(leaf, (&path, 1)).name("a").add();
    let error = graph.run(&lab, (&a, &a)).unwrap_err();
    assert_eq!(
        error,
        GraphError::AskedTwice {
            node: "node \"a\"".into()
        }
    );
    assert!(matches!(
        Graph::new().run(&lab, &foreign),
        Err(GraphError::ForeignNode { .. })
    ));
    // Arrays of another engine are found when they are passed.
    let mut graph = Graph::new();
    let private = Array::from_slice(&[1u32]);
    let bad = graph.add(|x: &[u32]| x[0], (&private,));
    let error = graph.run(&lab, &bad).unwrap().wait().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::ForeignArray);
    assert!(notes(&path).is_empty());
    // Nothing asked for, nothing done.
    let graph = Graph::new();
    assert!(graph.is_empty());
    let none: Vec<Node<u32>> = Vec::new();
    assert!(graph.run(&lab, none).unwrap().wait().unwrap().is_empty());
    lab.assert_in_use(0);
}

fn a_wide_graph_has_few_records() {
    const WIDE: u32 = 20_000;
    let lab = Lab::new(2);
    let gate = Gate::new();
    let mut graph = Graph::new();
    let held = graph.add(
        |gate: &str| {
            pass(gate);
            1u32
        },
        (&gate.path(),),
    );
    let nodes: Vec<_> = (0..WIDE)
        .map(|n| graph.add(|x: u32, n: u32| x + n, (&held, n)))
        .collect();
    let ones: Vec<_> = nodes
        .iter()
        .map(|x| graph.add(|x: u32| x % 2, (x,)))
        .collect();
    let mut sums = ones;
    while sums.len() > 1 {
        let pairs = sums.chunks(2).map(|pair| match pair {
            [a, b] => graph.add(|a: u32, b: u32| a + b, (a, b)),
            [one] => graph.add(|a: u32| a, (one,)),
            _ => unreachable!(),
        });
        sums = pairs.collect();
    }
    let running = graph.run(&lab, &sums).unwrap();
    assert_eq!(lab.stats().untaken, 1);
    gate.open();
    let most = std::iter::from_fn(|| {
        (!running.wait_timeout(std::time::Duration::from_millis(1))).then(|| lab.stats().untaken)
    });
    let most = most.max().unwrap_or(0);
    assert_eq!(running.wait().unwrap(), [WIDE / 2]);
    // Those in flight, and values that wait for their pair.
    assert!(most < 4000, "{most} records for {WIDE} nodes");
    lab.assert_in_use(0);
}

const MIB: usize = 1 << 20;

fn block_of(n: usize, with: u8) -> Array<u8> {
    Array::from_fn(n, |_| with)
}

fn same_size(a: &Array<u8>) -> Array<u8> {
    Array::from_fn(a.shape(), |i| a[i].wrapping_add(1))
}

fn intermediates_are_freed_at_their_last_use() {
    let lab = Lab::with(2, |builder| builder.capacity(96 << 20));
    let mut graph = Graph::new();
    graph.fuse(false);
    let mut values = graph.add(block_of, (2 * MIB, 0));
    for _ in 0..200 {
        values = graph.add(same_size, (&values,));
    }
    let values = graph.run(&lab, &values).unwrap().wait().unwrap();
    assert!(values.iter().all(|&x| x == 200));
    lab.assert_in_use(2 << 20);
}

fn a_chain_of_arrays_takes_the_memory_of_two() {
    let lab = Lab::with(1, |builder| builder.capacity(64 << 20));
    let mut graph = Graph::new();
    let mut values = graph.add(block_of, (2 * MIB, 0));
    for _ in 0..200 {
        values = graph.add(same_size, (&values,));
    }
    assert_eq!(graph.plan(&values).unwrap().jobs, 1);
    let values = graph.run(&lab, &values).unwrap().wait().unwrap();
    assert!(values.iter().all(|&x| x == 200));
    lab.assert_in_use(2 << 20);
}

fn add_up(a: &[u8], b: &[u8]) -> Array<u8> {
    Array::from_fn(a.len().max(b.len()), |i| {
        a[i.min(a.len() - 1)].wrapping_add(b[i.min(b.len() - 1)])
    })
}

fn what_does_not_fit_is_refused_before_anything_runs() {
    let lab = Lab::with(2, |builder| builder.capacity(64 << 20));
    let mut graph = Graph::new();
    let large: Vec<_> = (0..5)
        .map(|n| {
            graph
                .job(block_of, (16 * MIB, n))
                .shape::<u8>(16 * MIB)
                .add()
        })
        .collect();
    let error = graph.run(&lab, &large).unwrap_err();
    let GraphError::DoesNotFit { peak, room } = error else {
        panic!("{error}")
    };
    assert_eq!(peak, 80 << 20);
    assert!(room <= 64 << 20);
    assert!(lab.stats().kernels.is_empty(), "something ran");
}

/// Leaves first, as they were added, would all be there at one time.
fn tree(graph: &mut Graph, leaves: usize, bytes: usize) -> Node<Array<u8>> {
    let mut level: Vec<_> = (0..leaves)
        .map(|_| graph.job(block_of, (bytes, 1)).bytes(bytes as u64).add())
        .collect();
    while level.len() > 1 {
        let pairs = level.chunks(2);
        level = pairs
            .map(|pair| {
                graph
                    .job(add_up, (&pair[0], &pair[1]))
                    .bytes(bytes as u64)
                    .add()
            })
            .collect();
    }
    level.remove(0)
}

fn an_order_that_fits_is_found() {
    let lab = Lab::with(2, |builder| builder.capacity(96 << 20));
    let mut graph = Graph::new();
    let top = tree(&mut graph, 32, 4 * MIB);
    let plan = graph.plan(&top).unwrap();
    assert_eq!((plan.nodes, plan.total_bytes), (63, 63 * (4 << 20)));
    assert_eq!(plan.peak_bytes, 33 * (4 << 20), "as they were added");
    let top = graph.run(&lab, &top).unwrap().wait().unwrap();
    assert!(top.iter().all(|&x| x == 32));
    lab.assert_in_use(4 << 20);
}

fn jobs_wait_for_memory_that_was_planned() {
    // Each pair fits, and as many as there are workers would not, side by side.
    let lab = Lab::with(4, |builder| builder.capacity(80 << 20));
    let mut graph = Graph::new();
    let sums: Vec<_> = (0..20)
        .map(|n| {
            let block = graph.job(block_of, (12 * MIB, n)).bytes(12 << 20).add();
            graph
                .job(|block: &[u8]| u64::from(block[7]), (&block,))
                .retries(1)
                .add()
        })
        .collect();
    let plan = graph.plan(&sums).unwrap();
    assert_eq!((plan.peak_bytes, plan.total_bytes), (12 << 20, 240 << 20));
    let sums = graph.run(&lab, &sums).unwrap().wait().unwrap();
    assert_eq!(sums, (0..20).collect::<Vec<u64>>());
    lab.assert_in_use(0);
}

fn admission_holds_it_back_and_lets_it_end() {
    let lab = Lab::with(2, |builder| builder.admission(2000));
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
    drop(held);
    holding.wait().unwrap();
    let values = running.wait().unwrap();
    assert_eq!(values, (0..100).map(|n| 2 * n).collect::<Vec<u32>>());
    assert_eq!(lab.stats().admitted, 0);
    lab.assert_in_use(0);
}

fn shutdown_finishes_it_and_dropping_the_engine_ends_it() {
    let build = |gate: &Gate| {
        let mut graph = Graph::new();
        graph.fuse(false);
        let mut x = graph.add(
            |gate: &str| {
                pass(gate);
                0u32
            },
            (&gate.path(),),
        );
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
    assert!(
        matches!(error.kind(), JobErrorKind::DependencyFailed { cause, .. } if **cause == JobErrorKind::ShutDown),
        "{error}"
    );
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
        assert!(
            dot.starts_with("digraph {") && dot.contains("n0 -> n1;"),
            "{dot}"
        );
        let running = graph.run(engine, (&two, &lost)).unwrap();
        let report = running.report();
        assert_eq!(report.jobs(), 4);
        let dot = report.dot();
        assert!(
            dot.contains("cluster_0") && dot.contains("color=red, style=dashed"),
            "{dot}"
        );
        let svg = report.svg();
        assert!(svg.contains("a &lt;first&gt; &quot;node&quot;"), "{svg}");
        assert!(
            svg.contains("not needed") && svg.contains("not run") && svg.contains("failed"),
            "{svg}"
        );
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        assert_eq!(svg.matches("<g>").count(), 7);
        assert_eq!(svg.matches("marker-end").count(), 7);
        let (two, lost) = running.results();
        assert_eq!(two.unwrap(), 2);
        lost.unwrap_err();
    }
}

fn random_numbers_belong_to_the_node() {
    fn draw(before: u64) -> u64 {
        use rand::Rng;
        before ^ arenite::rng().next_u64() ^ arenite::rng().next_u64().rotate_left(1)
    }
    let draws = |engine: &Engine, fuse: bool| {
        let mut graph = Graph::new();
        graph.fuse(fuse);
        let mut nodes = vec![graph.add(draw, (0,))];
        for n in 1..10 {
            nodes.push(graph.add(draw, (&nodes[n - 1],)));
        }
        let last = nodes.remove(9);
        graph.run(engine, last).unwrap().wait().unwrap()
    };
    let fused = draws(&Lab::with(2, |builder| builder.seed(7)), true);
    let apart = draws(&Lab::with(3, |builder| builder.seed(7)), false);
    let here = draws(&Engine::builder().seed(7).inline(), true);
    assert_eq!([fused, apart], [here, here]);
    assert_ne!(fused, draws(&Engine::builder().seed(8).inline(), true));
}

/// A node of a random graph: what it takes, and what it does.
#[derive(Clone, Debug)]
struct Plain {
    left: Option<prop::sample::Index>,
    right: Option<prop::sample::Index>,
    own: u32,
    fails: bool,
    retries: bool,
}

fn combine(left: &[u32], right: &[u32], own: u32, fails: bool) -> Result<Array<u32>, String> {
    if fails {
        return Err(format!("{own} fails"));
    }
    let value = |x: &[u32], i: usize| x.get(i).copied().unwrap_or(0);
    Ok(Array::from_fn(8, |i| {
        value(left, i)
            .wrapping_mul(31)
            .wrapping_add(value(right, 7 - i))
            ^ own
    }))
}

/// What a plain program computes.
fn reference(nodes: &[Plain]) -> Vec<Result<Vec<u32>, u32>> {
    let mut values: Vec<Result<Vec<u32>, u32>> = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let of = |index: &Option<prop::sample::Index>| match index {
            Some(index) if at > 0 => values[index.index(at)].clone(),
            _ => Ok(vec![]),
        };
        let value = of(&node.left).and_then(|left| {
            let right = of(&node.right)?;
            if node.fails {
                return Err(at as u32);
            }
            let value = |x: &[u32], i: usize| x.get(i).copied().unwrap_or(0);
            Ok((0..8)
                .map(|i| {
                    value(&left, i)
                        .wrapping_mul(31)
                        .wrapping_add(value(&right, 7 - i))
                        ^ node.own
                })
                .collect())
        });
        values.push(value);
    }
    values
}

fn random_graphs_with_deaths_give_what_a_plain_program_gives() {
    let lab = Lab::new(3);
    let inline = Engine::inline();
    let node = (
        prop::option::of(any::<prop::sample::Index>()),
        prop::option::of(any::<prop::sample::Index>()),
        any::<u32>(),
        prop::bool::weighted(0.03),
        any::<bool>(),
    );
    let node = node.prop_map(|(left, right, own, fails, retries)| Plain {
        left,
        right,
        own,
        fails,
        retries,
    });
    let case = (
        prop::collection::vec(node, 1..120),
        prop::collection::vec(any::<prop::sample::Index>(), 1..8),
        any::<bool>(),
        prop::collection::vec(0..3usize, 0..3),
    );
    let config = Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&case, |(nodes, asked, fuse, kills)| {
        step(format!(
            "a graph of {} nodes, with {} deaths",
            nodes.len(),
            kills.len()
        ));
        let expected = reference(&nodes);
        for (engine, kills) in [(&*lab, &kills[..]), (&inline, &[])] {
            let nothing = engine.from_slice(&[]).unwrap();
            let mut graph = Graph::new();
            graph.fuse(fuse);
            let mut made: Vec<Node<Array<u32>>> = Vec::new();
            for (at, node) in nodes.iter().enumerate() {
                let of = |index: &Option<prop::sample::Index>| {
                    index.filter(|_| at > 0).map(|index| &made[index.index(at)])
                };
                // Where workers die every node has to have retries; otherwise some may be fused.
                let retries = if node.retries || !kills.is_empty() {
                    20
                } else {
                    0
                };
                let (own, fails) = (node.own, node.fails);
                macro_rules! made {
                    ($left:expr, $right:expr) => {
                        graph
                            .job(combine, ($left, $right, own, fails))
                            .retries(retries)
                            .backoff(arenite::Backoff::NONE)
                            .add()
                    };
                }
                let next = match (of(&node.left), of(&node.right)) {
                    (Some(left), Some(right)) => made!(left, right),
                    (Some(left), None) => made!(left, &nothing),
                    (None, Some(right)) => made!(&nothing, right),
                    (None, None) => made!(&nothing, &nothing),
                };
                made.push(next);
            }
            let mut wanted: Vec<usize> =
                asked.iter().map(|index| index.index(nodes.len())).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let mut at = 0..nodes.len();
            made.retain(|_| at.next().is_some_and(|at| wanted.contains(&at)));
            let running = graph.run(engine, made).unwrap();
            for &worker in kills {
                let pid = lab.stats().workers[worker].pid;
                if pid != 0 {
                    // It may have ended since.
                    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
                }
            }
            for (result, &node) in running.results().into_iter().zip(&wanted) {
                match (result, &expected[node]) {
                    (Ok(value), Ok(expected)) => prop_assert_eq!(&value[..], &expected[..]),
                    (Err(error), Err(_)) => {
                        let cause = match error.kind() {
                            JobErrorKind::DependencyFailed { cause, .. } => cause,
                            kind => kind,
                        };
                        prop_assert!(matches!(cause, JobErrorKind::Returned(_)), "{}", error);
                    }
                    (result, expected) => prop_assert!(false, "{result:?} and not {expected:?}"),
                }
            }
        }
        for worker in 0..3 {
            wait_until("the workers are back", || lab.stats().workers[worker].ready);
        }
        lab.assert_in_use(0);
        Ok(())
    });
    result.unwrap();
}
