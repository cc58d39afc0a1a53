//! Statistics of nodes that were fused into one job, and of failed nodes.

use std::time::{Duration, Instant};

use arenite::engine::KernelStats;

use super::*;

tests![
    each_node_of_a_chain_counts,
    statistics_divide_the_time_of_a_chain_by_kernel,
    a_failed_chain_counts_the_nodes_that_it_reached,
    a_failed_attempt_does_not_count_for_another_node,
    the_running_node_of_a_chain_is_reported,
    progress_counts_planned_jobs,
    a_job_that_never_ran_has_no_number,
];

fn of(engine: &Engine, name: &str) -> KernelStats {
    let kernels = engine.progress().kernels;
    let named: Vec<_> = kernels
        .into_iter()
        .filter(|kernel| kernel.name.ends_with(name))
        .collect();
    let [one] = &*named else {
        panic!("{} kernels are called {name}", named.len());
    };
    one.clone()
}

fn spin_for_a_while(x: u32) -> u32 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(200) {
        std::hint::spin_loop();
    }
    x + 1
}

fn fresh(x: u32) -> Array<u32> {
    Array::from_fn(1000, |_| x)
}

fn each_node_of_a_chain_counts() {
    let lab = Lab::new(1);
    for engine in [&*lab, &Engine::inline()] {
        // Run as a job of its own first, which sets the expectation.
        engine.submit(down, (5,)).wait().unwrap();
        let before = of(engine, "::down");
        let start = Instant::now();
        for _ in 0..3 {
            let mut graph = Graph::new();
            let mut x = graph.add(|| 40u32, ());
            for _ in 0..10 {
                x = graph.add(down, (&x,));
                x = graph.add(spin_for_a_while, (&x,));
            }
            let array = graph.add(fresh, (&x,));
            let running = graph.run(engine, &array).unwrap();
            assert_eq!(running.jobs(), 1);
            assert!(running.wait().unwrap().iter().all(|&x| x == 40));
        }
        let elapsed = start.elapsed();
        let all = ["::down", "::spin_for_a_while", "::fresh"].map(|name| of(engine, name));
        assert_eq!(all.each_ref().map(|kernel| kernel.calls), [31, 30, 3]);
        assert!(all.iter().all(|kernel| kernel.failures == 0), "{all:?}");
        let total: Duration = all.iter().map(|kernel| kernel.total).sum();
        let total = total - before.total;
        // The first node has its share as well, less than 1/22. A worker that lost its core reads the clock long before
        // it claims a job.
        assert!(
            30 * Duration::from_micros(200) * 21 / 22 <= total + Duration::from_nanos(100)
                && total <= elapsed * 3 / 2,
            "{total:?} in {elapsed:?}"
        );
        let of_workers = std::ptr::eq(engine, &raw const *lab);
        if of_workers {
            assert_eq!(
                all[0].expected, before.expected,
                "it is not known what a part took"
            );
            assert_eq!(all.map(|kernel| kernel.bytes), [0, 0, 3 * 4000]);
        }
        let progress = engine.progress();
        let calls: u64 = progress.kernels.iter().map(|kernel| kernel.calls).sum();
        assert_eq!(calls, 1 + 3 * 22, "no entry beside those of the nodes");
        assert_eq!(progress.submitted, if of_workers { 4 } else { 1 + 3 * 22 });
    }
    lab.assert_in_use(0);
}

fn statistics_divide_the_time_of_a_chain_by_kernel() {
    fn slow(x: u32) -> u32 {
        (0..50).fold(x, |x, _| spin_for_a_while(x))
    }
    fn all_slow(x: u32) -> Array<u32> {
        Array::from_fn([2, 3, 4], |_| slow(0) + x)
    }
    fn nothing(x: &[u32]) {
        assert_eq!(x.len(), 24);
    }
    // Other load of the machine may slow down any of them.
    let lab = loop {
        let lab = Lab::new(1);
        let mut graph = Graph::new();
        let x = graph.add(down, (5,));
        let x = graph.add(slow, (&x,));
        let x = graph.add(down, (&x,));
        let array = graph.add(all_slow, (&x,));
        let last = graph.add(nothing, (&array,));
        step("a run in which each kernel has its own time");
        let running = graph.run(&lab, &last).unwrap();
        assert_eq!(running.jobs(), 1);
        running.wait().unwrap();
        let kernels = ["::down", "::slow", "::all_slow", "::nothing"];
        let took = kernels.map(|name| of(&lab, name).total);
        assert!(took[1] >= Duration::from_micros(9_900), "{took:?}");
        // It does 24 times as much work.
        if took[2] >= 2 * took[1] && took[0] + took[3] < took[1] {
            break lab;
        }
        println!("not {took:?}");
    };

    // The value of the last node is intact, inside and outside the slot.
    for len in 0..20usize {
        let mut graph = Graph::new();
        let x = graph.add(down, (5,));
        let text = graph.add(
            |x: u32, len: u64| format!("{x:0>width$}", width = len as usize),
            (&x, len as u64 * 8),
        );
        let text = graph.run(&lab, &text).unwrap().wait().unwrap();
        assert_eq!(
            (text.len(), text.trim_start_matches('0')),
            ((len * 8).max(1), "4")
        );
    }
    lab.assert_in_use(0);
}

fn a_failed_chain_counts_the_nodes_that_it_reached() {
    fn abort(_: u32) -> u32 {
        std::process::abort()
    }
    let lab = Lab::new(1);
    let chain = |kernel: fn(&mut Graph, &Node<u32>) -> Node<u32>| {
        let mut graph = Graph::new();
        let mut x = graph.add(|| 5u32, ());
        x = graph.add(down, (&x,));
        x = graph.add(down, (&x,));
        x = kernel(&mut graph, &x);
        x = graph.add(down, (&x,));
        graph.run(&lab, &x).unwrap().wait().unwrap_err()
    };
    let origin = |error: JobError| error.origin().unwrap().kind().clone();
    let error = origin(chain(|graph, x| graph.add(half, (x,))));
    assert_eq!(error, JobErrorKind::Returned("3 is odd".into()));
    let figures = |name: &str| {
        let kernel = of(&lab, name);
        (kernel.calls, kernel.failures)
    };
    assert_eq!((figures("::down"), figures("::half")), ((2, 0), (1, 1)));
    // The nodes of a chain whose worker died are not counted.
    let error = origin(chain(|graph, x| graph.add(abort, (x,))));
    assert_eq!(error, ABORTED);
    assert_eq!((figures("::down"), figures("::abort")), ((2, 0), (0, 0)));
    lab.assert_in_use(0);
}

/// Its first attempt returns a text that is too long for a slot.
fn says_much_at_first(gate: &str, x: u32) -> u32 {
    let first = std::fs::File::create_new(format!("{gate}.seen")).is_ok();
    assert!(!first, "{}", "a long story. ".repeat(100));
    x
}

fn a_failed_attempt_does_not_count_for_another_node() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut graph = Graph::new();
    let mut x = graph.add(|| 5u32, ());
    x = graph
        .job(says_much_at_first, (&gate.path(), &x))
        .retries(1)
        .add();
    x = graph.add(down, (&x,));
    let last = graph.add(half, (&x,));
    assert_eq!(graph.run(&lab, &last).unwrap().wait().unwrap(), 2);
    let seen = std::fs::remove_file(format!("{}.seen", gate.path()));
    assert!(seen.is_ok(), "its first attempt did not fail");
    for kernel in lab.progress().kernels {
        let may_have = kernel.name.contains("says_much");
        assert!(kernel.bytes == 0 || may_have, "{kernel:?}");
    }
    drop(gate);
    lab.assert_in_use(0);
}

/// More nodes than are sent at once, some of which fail. A node that is not requested does not count.
fn progress_counts_planned_jobs() {
    const NODES: u32 = 3000;
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut graph = Graph::new();
    let _unasked = graph.add(down, (1,));
    let first = graph.add(at_gate, (&gate.path(), 1));
    let wide = |x| {
        let one = graph.add(|first: u32, x: u32| first - 1 + x, (&first, x));
        graph.add(half, (&one,))
    };
    let all: Vec<_> = (0..NODES).map(wide).collect();
    let mut behind = Graph::new();
    let odd = behind.add(half, (1,));
    let lost = behind.add(down, (&odd,));
    let here = Engine::inline();
    let lost = behind.run(&here, &lost).unwrap();
    let progress = lost.progress();
    let ended = (progress.failed, progress.skipped, progress.left());
    assert_eq!((progress.nodes, ended), (2, (1, 1, 0)));

    let running = graph.run(&lab, &all).unwrap();
    let held = gate.meet();
    let (jobs, nodes) = (lab.progress(), running.progress());
    // Each pair is a chain, and so one job.
    let (all_jobs, all_nodes) = (1 + u64::from(NODES), 1 + 2 * NODES as usize);
    assert_eq!((jobs.submitted, jobs.planned), (1, all_jobs - 1));
    assert_eq!(jobs.left(), all_jobs);
    assert_eq!((nodes.nodes, nodes.left()), (all_nodes, all_nodes));
    drop(held);
    let mut done = 0;
    step("a graph of many nodes");
    while !running.wait_timeout(Duration::from_micros(100)) {
        let (jobs, nodes) = (lab.progress(), running.progress());
        assert_eq!(jobs.submitted + jobs.planned, all_jobs, "{jobs:?}");
        assert!(nodes.done >= done, "{nodes:?}");
        done = nodes.done;
    }
    let (jobs, nodes) = (lab.progress(), running.progress());
    assert_eq!((jobs.planned, jobs.left()), (0, 0));
    // A pair fails as a whole.
    let ended = (nodes.done, nodes.failed, nodes.left());
    assert_eq!(ended, (1 + NODES as usize, NODES as usize, 0), "{nodes:?}");
    drop(running);
    assert_eq!(lab.progress().planned, 0);
    lab.assert_in_use(0);
}

fn the_running_node_of_a_chain_is_reported() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut graph = Graph::new();
    let x = graph.add(|| 5u32, ());
    let x = graph.add(down, (&x,));
    let x = graph.add(at_gate, (&gate.path(), &x));
    let x = graph.add(down, (&x,));
    let running = graph.run(&lab, &x).unwrap();
    let held = gate.meet();
    let progress = lab.progress();
    assert_eq!((progress.running, progress.ahead), (1, 0));
    let busy = progress.kernels.iter().filter(|kernel| kernel.running > 0);
    let busy: Vec<_> = busy.map(|kernel| (kernel.name, kernel.running)).collect();
    assert!(
        matches!(&busy[..], [(name, 1)] if name.ends_with("at_gate")),
        "{busy:?}"
    );
    // The handle is dropped: the running job remains, its nodes are no longer counted.
    drop(running);
    let progress = lab.progress();
    assert_eq!((progress.running, progress.ahead), (1, 0));
    assert!(progress.kernels.iter().all(|kernel| kernel.running == 0));
    drop(held);
    lab.assert_in_use(0);
}

fn a_job_that_never_ran_has_no_number() {
    let lab = Lab::new(1);
    for (engine, of_job) in [(&*lab, "(job 2, "), (&Engine::inline(), "(")] {
        let mut graph = Graph::new();
        let odd = graph.add(|| 3u32, ());
        let fails = graph.job(half, (&odd,)).name("the half").retries(1).add();
        let after = graph.add(down, (&fails,));
        let error = graph.run(engine, &after).unwrap().wait().unwrap_err();
        assert_eq!(error.job(), None);
        let text = error.to_string();
        assert!(text.starts_with("model::graph::down: not run"), "{text}");
        let failed = format!("{of_job}model::graph::half)");
        assert!(text.contains(&failed) && !text.contains("job 0"), "{text}");
    }
}
