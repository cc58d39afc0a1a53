//! No-op jobs.

use super::super::noop::{JOBS, timed, timed_after_pauses};
use super::super::{BenchError, Running, Setup};
use super::{engine, refused};
use crate::{pool, work};
use arenite::Engine;

pub(super) fn round_trip(engine: &Engine, x: u64) -> Result<(), BenchError> {
    let got = engine.submit(work::noop, (x,)).wait().map_err(refused)?;
    BenchError::expect(got, work::noop(x))
}

pub(in super::super) fn noop_hot(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    Ok(Box::new(move |times| {
        timed(times, |i| round_trip(&engine, i))
    }))
}

/// One of the workers computes meanwhile.
pub(in super::super) fn noop_beside_own(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    Ok(Box::new(move |times| {
        let computing = engine.submit(compute, ());
        while !computing.is_running() {
            std::thread::yield_now();
        }
        let took = timed(times, |i| round_trip(&engine, i));
        computing.cancel();
        computing.wait().map_err(refused)?;
        took
    }))
}

fn compute() {
    work::burn(arenite::cancelled);
}

pub(in super::super) fn noop_idle(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    Ok(Box::new(move |times| {
        timed_after_pauses(times, |i| round_trip(&engine, i))
    }))
}

/// Runs all jobs of one operation by one call of `map`.
pub(super) fn map_all(engine: &Engine, expected: u64) -> Result<(), BenchError> {
    let mut total = 0_u64;
    for result in engine.map(work::noop, (0..JOBS).map(|x| (x,))) {
        total = total.wrapping_add(result.map_err(refused)?);
    }
    BenchError::expect(total, expected)
}

pub(in super::super) fn noop_map(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let expected = pool::noop_total(JOBS);
    Ok(Box::new(move |times| {
        timed(times, |_| map_all(&engine, expected))
    }))
}

/// Submits all jobs, one call each, before it takes the first result.
pub(in super::super) fn noop_submit(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let expected = pool::noop_total(JOBS);
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let jobs: Vec<_> = (0..JOBS).map(|x| engine.submit(work::noop, (x,))).collect();
            let mut total = 0_u64;
            for job in jobs {
                total = total.wrapping_add(job.wait().map_err(refused)?);
            }
            BenchError::expect(total, expected)
        })
    }))
}
