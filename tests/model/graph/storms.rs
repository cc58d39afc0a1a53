//! Graphs at random, beside a plain program, while workers die.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

tests![random_graphs_with_deaths_give_what_a_plain_program_gives,];

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
