//! Runs empty jobs that take each other's values, and the same jobs without dependencies.

use super::super::graphs::{LENGTH, NODES, WIDE};
use super::super::noop::timed;
use super::super::{BenchError, Running, Setup};
use super::{engine, refused};
use arenite::{Engine, Job};

/// Combines two values with next to no work.
fn pair(x: u64, y: u64) -> u64 {
    x ^ y.rotate_left(1)
}

fn next(x: u64) -> u64 {
    x.wrapping_add(1)
}

/// Runs jobs that each take the values of two jobs of the previous layer.
fn layers(engine: &Engine) -> Result<u64, BenchError> {
    let mut layer: Vec<Job<u64>> = (0..WIDE as u64)
        .map(|x| engine.submit(pair, (x, 0)))
        .collect();
    for _ in 1..NODES / WIDE as u64 {
        let jobs = 0..WIDE;
        layer = jobs
            .map(|n| engine.submit(pair, (&layer[n], &layer[(n + 1) % WIDE])))
            .collect();
    }
    let values: Result<Vec<_>, _> = layer.into_iter().map(Job::wait).collect();
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

/// Runs jobs that each take the value of the one before: one kernel each, or ten.
pub(in super::super) fn graph_chain(setup: &Setup, fuse: bool) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let mut job = engine.submit(next, (0,));
            if fuse {
                for _ in 1..LENGTH / 10 {
                    let four = engine
                        .job(next, (job,))
                        .then(next, ())
                        .then(next, ())
                        .then(next, ());
                    let seven = four.then(next, ()).then(next, ()).then(next, ());
                    job = seven.then(next, ()).then(next, ()).then(next, ()).submit();
                }
                return BenchError::expect(job.wait().map_err(refused)?, LENGTH - 9);
            }
            for _ in 1..LENGTH {
                job = engine.submit(next, (job,));
            }
            BenchError::expect(job.wait().map_err(refused)?, LENGTH)
        })
    }))
}
