//! Values passed between nodes, their order, and rejected graphs.

use super::*;
use crate::harness::block_on;

tests![
    values_of_every_kind_are_passed_on,
    a_node_takes_a_list_of_nodes,
    a_graph_reduction_combines_pairs_in_a_fixed_order,
    an_exclusive_array_moves_from_node_to_node,
    parts_of_arrays_are_spawned_without_a_copy,
    many_dependencies_on_newer_nodes,
    misuse_is_an_error_before_anything_runs,
    a_foreign_array_is_named_before_any_node_runs,
];

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
    fn reversed(bytes: &Bytes) -> Bytes {
        bytes.iter().rev().copied().collect::<Vec<u8>>().into()
    }
    fn nothing() -> Array<u8> {
        Array::from_slice(&[])
    }
    fn thirds(n: usize) -> Vec<bool> {
        (0..n).map(|at| at % 3 == 0).collect()
    }
    fn weigh(flags: Vec<bool>, more: Vec<bool>, weights: &[f32]) -> f32 {
        flags.iter().chain(&more).filter(|&&flag| flag).count() as f32 * weights[1]
    }
    fn count(a: &[u8], b: &[u8; 4], c: char) -> Result<u32, String> {
        Ok(a.len() as u32 + u32::from(b[3]) + u32::from(c))
    }
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        for fuse in [true, false] {
            let mut graph = Graph::new();
            graph.fuse(fuse);
            // Too long for a slot.
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
            let bytes = graph.add(reversed, (b"ab\xff".repeat(100),));
            let bytes = graph.add(reversed, (&bytes,));
            let flags = graph.add(thirds, (&length,));
            let weight = graph.add(weigh, (flags, vec![true, false], [1.0, 2.0]));
            let running = graph
                .run(engine, (&total, &pair, unit, vec![count], &bytes, weight))
                .unwrap();
            let (total, pair, (), counts, bytes, weight) = running.wait().unwrap();
            assert_eq!(weight, 335.0 * 2.0);
            assert_eq!(*bytes, *b"ab\xff".repeat(100));
            assert_eq!(total, (1999.0 * 1000.0 + 6.0) * 0.5);
            assert_eq!((pair.0.len(), pair.1.as_deref()), (2000, Some("pair")));
            assert_eq!(counts, [4 + 97]);
        }
    }
    lab.assert_in_use(0);
}

/// Concatenates the parts.
fn joined(parts: &[Array<u64>]) -> Array<u64> {
    let all: Vec<_> = parts.iter().flat_map(|part| part.iter().copied()).collect();
    Array::from_slice(&all)
}

fn a_node_takes_a_list_of_nodes() {
    fn ramp(n: u64) -> Array<u64> {
        Array::from_fn(n as usize, |i| 100 * n + i as u64)
    }
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        for (count, fuse) in [(0, true), (1, true), (1, false), (2, true), (300, true)] {
            let mut graph = Graph::new();
            graph.fuse(fuse);
            let parts: Vec<_> = (0..count).map(|n| graph.add(ramp, (n,))).collect();
            let own = [ramp(7), ramp(8)].map(|array| engine.import(&array).unwrap());
            let all = graph.job(joined, (&parts,)).retries(1).add();
            let mut twice = vec![graph.add(|a: &Array<u64>| a.clone(), (&all,))];
            twice.push(graph.add(|a: &Array<u64>| a.rows(0..a.len()), (&all,)));
            let twice = graph.add(joined, (twice,));
            let given = graph.add(joined, (&own[..],));
            let chain = graph.add(joined, (parts,));
            let length = graph.add(|all: &[u64]| all.len(), (chain,));
            let running = graph.run(engine, (&all, &twice, &given, &length)).unwrap();
            let (all, twice, given, length) = running.wait().unwrap();
            let expected: Vec<u64> = (0..count).flat_map(|n| ramp(n).to_vec()).collect();
            assert_eq!((&all[..], length), (&expected[..], expected.len()));
            assert_eq!(&twice[..], [&expected[..], &expected[..]].concat());
            assert_eq!(&given[..], [&ramp(7)[..], &ramp(8)[..]].concat());
        }
    }
    // If its list has one node without other dependents, all nodes are one chain.
    for engine in [&*lab, &Engine::inline()] {
        for (fuse, jobs) in [(true, 1), (false, 3)] {
            let mut graph = Graph::new();
            graph.fuse(fuse);
            let part = graph.add(ramp, (50,));
            let all = graph.add(joined, (vec![part],));
            let sum = graph.add(|all: &[u64]| all.iter().sum::<u64>(), (all,));
            assert_eq!(graph.plan(&sum).unwrap().jobs, jobs);
            let sum = graph.run(engine, sum).unwrap().wait().unwrap();
            assert_eq!(sum, ramp(50).iter().sum::<u64>());
        }
    }
    lab.assert_in_use(0);
}

fn a_graph_reduction_combines_pairs_in_a_fixed_order() {
    let lab = Lab::new(2);
    for count in [0, 1, 2, 3, 8, 101] {
        let value = |n: u32| 1.0 / (n as f32 + 0.3);
        // Adds neighbours, then their sums.
        let mut row: Vec<f32> = (0..count).map(value).collect();
        while row.len() > 1 {
            row = row.chunks(2).map(|pair| pair.iter().sum()).collect();
        }
        for engine in [&*lab, &Engine::inline()] {
            let mut graph = Graph::new();
            let parts: Vec<_> = (0..count).map(|n| graph.add(value, (n,))).collect();
            let sum = graph.reduce(|a: f32, b: f32| a + b, parts);
            assert_eq!(sum.is_some(), count > 0);
            let Some(sum) = sum else { continue };
            let sum = graph.run(engine, sum).unwrap().wait().unwrap();
            assert_eq!(sum.to_bits(), row[0].to_bits(), "of {count}");
        }
    }
    let texts = ["a", "b", "c"];
    let mut graph = Graph::new();
    let nodes = texts.map(|text| graph.add(|text: &str| text.to_owned(), (text,)));
    let all = graph.reduce(|a: &str, b: &str| format!("({a}{b})"), nodes);
    let all = graph.run(&lab, all.unwrap()).unwrap().wait().unwrap();
    assert_eq!(all, "((ab)c)");
}

fn an_exclusive_array_moves_from_node_to_node() {
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

fn parts_of_arrays_are_spawned_without_a_copy() {
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

/// The cost of an edge and of a picture's layout does not depend on the number of nodes.
fn many_dependencies_on_newer_nodes() {
    const NODES: usize = 100_000;
    let engine = Engine::inline();
    step("a chain of values, all of it before a node that was there first");
    let mut graph = Graph::new();
    let done = graph.add(|| 7u32, ());
    let mut last = graph.add(|| 0u32, ());
    graph.after(&done, &last).unwrap();
    for _ in 1..NODES {
        last = graph.add(|n: u32| n + 1, (&last,));
        graph.after(&done, &last).unwrap();
    }
    let Err(GraphError::Cycle { nodes }) = graph.after(&last, &done) else {
        panic!("it goes round");
    };
    assert_eq!(nodes.len(), 2);
    assert_eq!(graph.plan(&done).unwrap().nodes, NODES + 1);
    step("nodes before one that is before all of them");
    let mut graph = Graph::new();
    let nodes: Vec<_> = (0..NODES).map(|_| graph.add(|| (), ())).collect();
    let start = graph.add(|| (), ());
    for node in &nodes {
        graph.after(node, &start).unwrap();
    }
    assert_eq!(graph.plan(&nodes[0]).unwrap().nodes, 2);
    step("a chain from the last one to the first");
    let mut graph = Graph::new();
    let nodes: Vec<_> = (0..NODES as u32)
        .map(|n| graph.add(|n: u32| n, (n,)))
        .collect();
    for pair in nodes.windows(2) {
        graph.after(&pair[0], &pair[1]).unwrap();
    }
    let error = graph.after(&nodes[NODES - 1], &nodes[0]).unwrap_err();
    assert!(matches!(error, GraphError::Cycle { nodes } if nodes.len() == NODES));
    let mut running = graph.run(&engine, &nodes[0]).unwrap();
    assert_eq!(block_on(&mut running).unwrap(), 0);
    step("its picture");
    let dot = running.dot();
    assert_eq!(dot.matches("[label=").count(), NODES);
    assert_eq!(dot.matches("[style=dashed]").count(), NODES - 1);
}

fn misuse_is_an_error_before_anything_runs() {
    let lab = Lab::new(1);
    let diary = Diary::new();
    let path = diary.path();
    let mut graph = Graph::new();
    let a = graph.job(leaf, (&path, 1)).name("a").add();
    let b = graph.add(sum, (&path, &a, &a));
    let c = graph.add(sum, (&path, &b, &b));
    let nodes = ["node 2", "node 1", "node \"a\""].map(str::to_owned);
    let cycle = GraphError::Cycle {
        nodes: nodes.into(),
    };
    assert_eq!(graph.after(&a, &c), Err(cycle));
    assert!(matches!(graph.after(&a, &a), Err(GraphError::Cycle { .. })));
    let mut other = Graph::new();
    let foreign = other.add(leaf, (&path, 1));
    let Err(GraphError::ForeignNode { at }) = graph.after(&a, &foreign) else {
        panic!()
    };
    assert!(at.contains("values.rs"), "{at}");
    let is_at = |error: GraphError, line: u32| {
        let place = format!("values.rs:{line}");
        assert!(error.to_string().contains(&place), "{error}");
    };
    let bad = graph.add(sum, (&path, &a, &foreign));
    let line = line!() - 1;
    is_at(graph.run(&lab, &bad).unwrap_err(), line);

    let mut graph = Graph::new();
    let a = graph.job(leaf, (&path, 1)).name("a").add();
    let error = graph.run(&lab, (&a, &a)).unwrap_err();
    let node = "node \"a\"".into();
    assert_eq!(error, GraphError::AskedTwice { node });
    // Requested from another graph: the location is that of the call.
    is_at(Graph::new().run(&lab, &foreign).unwrap_err(), line!());
    is_at(Graph::new().plan(&foreign).unwrap_err(), line!());
    assert!(diary.numbers().is_empty());
    // No requested node, no work.
    let graph = Graph::new();
    assert!(graph.is_empty());
    let none: Vec<Node<u32>> = Vec::new();
    assert!(graph.run(&lab, none).unwrap().wait().unwrap().is_empty());
    lab.assert_in_use(0);
}

/// A kernel with two arrays, of which the second belongs to another engine.
fn both(path: &str, own: &[u32], stray: &Array<u32>) -> u32 {
    note(path, 0);
    own[0] + stray[0]
}

fn a_foreign_array_is_named_before_any_node_runs() {
    let (lab, other) = (Lab::new(1), Lab::new(1));
    let diary = Diary::new();
    let path = diary.path();
    let own = lab.from_slice(&[1u32]).unwrap();
    let mut elsewhere = Graph::new();
    let made = elsewhere.add(|n: u32| Array::from_slice(&[n]), (2,));
    let made = elsewhere.run(&other, made).unwrap().wait().unwrap();
    let strays = [
        ("private", Array::from_slice(&[2u32])),
        ("of another engine", other.from_slice(&[2u32]).unwrap()),
        ("the result of another engine's graph", made),
    ];
    let refusal = |graph: Graph, wanted: &Node<u32>| {
        let error = graph.run(&lab, wanted).unwrap_err();
        let text = error.to_string();
        let GraphError::ForeignArray {
            node,
            kernel,
            argument,
        } = error
        else {
            panic!("{text}");
        };
        assert!(text.contains("engine.import"), "{text}");
        assert!(text.contains(&format!("argument {argument} of {node}")));
        (
            node,
            kernel.rsplit("::").next().unwrap().to_owned(),
            argument,
        )
    };
    let graph = |stray: &Array<u32>| {
        let mut graph = Graph::new();
        let first = graph.add(leaf, (&path, 1));
        // A node that is not requested does not matter.
        let unasked = graph.add(both, (&path, stray, stray));
        let last = graph.job(both, (&path, &own, stray)).name("the last").add();
        graph.after(&last, &first).unwrap();
        (graph, first, last, unasked)
    };
    for (what, stray) in &strays {
        let (refused, _, last, _) = graph(stray);
        let (node, kernel, argument) = refusal(refused, &last);
        assert_eq!((&*node, argument), ("node \"the last\"", 3), "{what}");
        assert_eq!(kernel, "both", "{what}");
    }
    let mut changes = Graph::new();
    let changed = |_: u32, values: ArrayMut<u32>| values[0];
    let zeros = other.zeros::<u32>(10).unwrap();
    let changed = changes.add(changed, (7, zeros));
    let (node, _, argument) = refusal(changes, &changed);
    assert_eq!((&*node, argument), ("node 0", 2));
    let mut lists = Graph::new();
    let list = [lab.import(&strays[0].1).unwrap(), strays[1].1.clone()];
    let listed = lists.add(|list: &[Array<u32>]| list.len() as u32, (&list[..],));
    let (node, _, argument) = refusal(lists, &listed);
    assert_eq!((&*node, argument), ("node 0", 1));
    drop(list);
    assert!(lab.stats().kernels.is_empty(), "a node has run");
    assert!(diary.numbers().is_empty());

    for (what, stray) in &strays {
        // The advice in the message helps.
        let (fine, _, last, _) = graph(&lab.import(stray).unwrap());
        assert_eq!(fine.run(&lab, last).unwrap().wait(), Ok(3), "{what}");
        let (fine, first, ..) = graph(stray);
        assert_eq!(fine.run(&lab, first).unwrap().wait(), Ok(1), "{what}");
        // On an inline engine, arrays may be anywhere.
        let (fine, _, last, _) = graph(stray);
        let inline = Engine::inline();
        assert_eq!(fine.run(&inline, last).unwrap().wait(), Ok(3), "{what}");
    }
    drop((own, strays));
    lab.assert_in_use(0);
    other.assert_in_use(0);
}
