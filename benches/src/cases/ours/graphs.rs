//! Builds and runs graphs of empty jobs, and the same jobs without dependencies.

use super::super::graphs::{LENGTH, NODES, WIDE};
use super::super::noop::timed;
use super::super::{BenchError, Running, Setup};
use super::{engine, refused};
use arenite::{Engine, Graph, Node};

/// Combines two values with next to no work.
fn pair(x: u64, y: u64) -> u64 {
    x ^ y.rotate_left(1)
}

fn next(x: u64) -> u64 {
    x.wrapping_add(1)
}

/// Runs a graph in which each node takes the values of two nodes of the previous layer.
fn layers(engine: &Engine) -> Result<u64, BenchError> {
    let mut graph = Graph::new();
    let mut layer: Vec<Node<u64>> = (0..WIDE as u64).map(|x| graph.add(pair, (x, 0))).collect();
    for _ in 1..NODES / WIDE as u64 {
        let nodes = 0..WIDE;
        layer = nodes
            .map(|n| graph.add(pair, (&layer[n], &layer[(n + 1) % WIDE])))
            .collect();
    }
    let values = graph.run(engine, &layer).map_err(refused)?.wait();
    Ok(values.map_err(refused)?.into_iter().fold(0, pair))
}

/// Returns the right result of the layers.
fn plain_layers() -> u64 {
    let mut layer: Vec<u64> = (0..WIDE as u64).map(|x| pair(x, 0)).collect();
    for _ in 1..NODES / WIDE as u64 {
        let nodes = 0..WIDE;
        layer = nodes
            .map(|n| pair(layer[n], layer[(n + 1) % WIDE]))
            .collect();
    }
    layer.into_iter().fold(0, pair)
}

pub(in super::super) fn graph_layers(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let expected = plain_layers();
    Ok(Box::new(move |times| {
        timed(times, |_| BenchError::expect(layers(&engine)?, expected))
    }))
}

pub(in super::super) fn graph_independent(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let expected = (0..NODES).fold(0u64, |sum, x| sum.wrapping_add(pair(x, 1)));
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let jobs: Vec<_> = (0..NODES).map(|x| engine.submit(pair, (x, 1))).collect();
            let mut sum = 0u64;
            for job in jobs {
                sum = sum.wrapping_add(job.wait().map_err(refused)?);
            }
            BenchError::expect(sum, expected)
        })
    }))
}

pub(in super::super) fn graph_chain(setup: &Setup, fuse: bool) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let mut graph = Graph::new();
            graph.fuse(fuse);
            let mut node = graph.add(next, (0,));
            for _ in 1..LENGTH {
                node = graph.add(next, (&node,));
            }
            let value = graph.run(&engine, &node).map_err(refused)?.wait();
            BenchError::expect(value.map_err(refused)?, LENGTH)
        })
    }))
}
