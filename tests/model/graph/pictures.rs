//! Pictures of graphs that have run: how long each node took, where it ran, and which was slowest.

use std::time::{Duration, Instant};

use super::*;

tests![
    a_picture_shows_run_time_and_worker_of_each_node,
    a_picture_shows_which_nodes_were_one_job,
    the_slowest_node_has_the_warmest_color,
];

/// Works for so long by its own clock, and says in which process.
fn busy(millis: u64) -> u32 {
    let (began, long) = (Instant::now(), Duration::from_millis(millis));
    while began.elapsed() < long {
        std::hint::spin_loop();
    }
    std::process::id()
}

/// What a picture says of a node.
#[derive(Debug)]
struct Said {
    took: Duration,
    /// How many other nodes were the same job.
    with: usize,
    worker: usize,
    /// The blue of its fill: the less, the warmer.
    cold: u8,
}

/// `5.1ms with 2 more, worker 0`.
fn parse(text: &str, cold: u8) -> Said {
    let (took, worker) = text.split_once(", worker ").expect(text);
    let (took, with) = match took.split_once(" with ") {
        Some((took, with)) => (took, with.strip_suffix(" more").expect(text)),
        None => (took, "0"),
    };
    let unit = took
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap();
    let (number, unit) = took.split_at(unit);
    let unit = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => panic!("{text}"),
    };
    Said {
        took: Duration::from_secs_f64(unit * number.parse::<f64>().unwrap()),
        with: with.parse().unwrap(),
        worker: worker.parse().unwrap(),
        cold,
    }
}

/// What the picture says of the node with this label.
fn node(dot: &str, label: &str) -> Said {
    let start = format!("[label=\"{label}\\n");
    let mut found = dot.split(&start).skip(1);
    let rest = found.next().expect(dot);
    assert!(found.next().is_none(), "two nodes are {label}: {dot}");
    let fill = rest.split("fillcolor=\"#").nth(1).expect(rest);
    let blue = u8::from_str_radix(&fill[4..6], 16).expect(rest);
    parse(rest.split('"').next().unwrap(), blue)
}

fn a_picture_shows_run_time_and_worker_of_each_node() {
    fn at_gate(gate: &str, millis: u64) -> u32 {
        pass(gate);
        busy(millis)
    }
    let lab = Lab::new(2);
    let gates = [Gate::new(), Gate::new()];
    let mut graph = Graph::new();
    let paths = [gates[0].path(), gates[1].path()];
    let left = graph.job(at_gate, (&paths[0], 5)).name("left").add();
    let right = graph.job(at_gate, (&paths[1], 20)).name("right").add();
    let running = graph.run(&lab, (&left, &right)).unwrap();
    // Both have begun, so each has a worker to itself.
    let held = [gates[0].meet(), gates[1].meet()];
    drop(held);
    let (dot, busy) = (running.dot(), running.busy());
    let (left, right) = running.wait().unwrap();
    assert_ne!(left, right);
    for (label, millis, pid) in [("left", 5, left), ("right", 20, right)] {
        let said = node(&dot, label);
        assert!(said.took >= Duration::from_millis(millis), "{said:?}");
        assert!(said.took <= busy, "{said:?}");
        assert_eq!(said.with, 0, "{said:?}");
        assert_eq!(lab.pid(said.worker), pid as i32, "{label}: {said:?}");
    }
    lab.assert_in_use(0);
}

fn a_picture_shows_which_nodes_were_one_job() {
    fn next(before: u32, millis: u64) -> u32 {
        busy(millis) - before
    }
    let lab = Lab::new(1);
    // Whatever else the machine has to do may fall into any of them.
    wait_until("each has its own time", || {
        let mut graph = Graph::new();
        let first = graph.job(busy, (5,)).name("first").retries(1).add();
        let a = graph.add(next, (&first, 0));
        let b = graph.add(next, (&a, 5));
        let c = graph.add(next, (&b, 0));
        let running = graph.run(&lab, (&first, &c)).unwrap();
        // The first one has options, the others have none.
        assert_eq!(running.jobs(), 2);
        let (dot, busy) = (running.dot(), running.busy());
        for (label, millis) in [("first", 5), ("next 1", 0), ("next 2", 5), ("next 3", 0)] {
            let said = node(&dot, label);
            // To a 65,000th of the chain, and to the digits that are shown.
            let least = Duration::from_micros(millis * 989);
            assert!(said.took >= least, "{label}: {said:?}");
            assert_eq!((said.with, said.worker), (0, 0), "{label}: {said:?}");
        }
        let all = ["first", "next 1", "next 2", "next 3"].map(|label| node(&dot, label).took);
        assert!(all.iter().sum::<Duration>() <= busy + Duration::from_millis(1));
        running.wait().unwrap();
        all[1] + all[3] < all[2]
    });

    // Of nine each eighth is measured.
    let mut graph = Graph::new();
    let mut last = graph.add(busy, (5,));
    for _ in 0..8 {
        last = graph.add(next, (&last, 0));
    }
    let running = graph.run(&lab, &last).unwrap();
    assert_eq!(running.jobs(), 1);
    let said = node(&running.dot(), "busy 0");
    assert!(said.took >= Duration::from_millis(5), "{said:?}");
    assert_eq!(said.with, 8, "{said:?}");
    // Its value is not taken.
    drop(running);

    let mut graph = Graph::new();
    let alone = graph.job(busy, (5,)).name("alone").add();
    let inline = Engine::inline();
    let said = node(&graph.run(&inline, &alone).unwrap().dot(), "alone");
    assert!(said.took >= Duration::from_millis(5), "{said:?}");
    assert_eq!((said.with, said.worker), (0, 0), "{said:?}");
    lab.assert_in_use(0);
}

fn the_slowest_node_has_the_warmest_color() {
    let lab = Lab::new(1);
    let mut graph = Graph::new();
    let nodes: Vec<_> = [0, 40, 0, 10, 0]
        .into_iter()
        .enumerate()
        .map(|(n, millis)| graph.job(busy, (millis,)).name(format!("<{n}>")).add())
        .collect();
    let dot = graph.run(&lab, &nodes).unwrap().dot();
    let mut said = [0, 1, 2, 3, 4].map(|n| node(&dot, &format!("<{n}>")));
    said.sort_by_key(|said| said.took);
    assert!(
        said.is_sorted_by_key(|said| std::cmp::Reverse(said.cold)),
        "the longer, the warmer: {said:#?}"
    );
    let [quickest, .., slowest] = &said;
    assert!(slowest.took >= Duration::from_millis(40), "{said:#?}");
    assert!(slowest.cold < quickest.cold, "{said:#?}");
}
