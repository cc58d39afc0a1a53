//! Commits and writes 1 GiB of memory.

use std::time::{Duration, Instant};

use super::super::memory::LEN;
use super::super::start::each;
use super::super::{BenchError, Running, Setup};
use super::{engine, refused};
use arenite::Engine;

fn timed_write(engine: &Engine) -> Result<Duration, BenchError> {
    let start = Instant::now();
    let mut array = engine.zeros::<u8>(LEN).map_err(refused)?;
    array.fill(7);
    let taken = start.elapsed();
    BenchError::expect(u64::from(std::hint::black_box(&array)[LEN - 1]), 7)?;
    Ok(taken)
}

pub(in super::super) fn fresh_write(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    timed_write(&engine)?;
    Ok(Box::new(move |times| {
        each(times, || {
            engine.trim();
            timed_write(&engine)
        })
    }))
}

pub(in super::super) fn cold_write(setup: &Setup) -> Result<Running, BenchError> {
    let workers = setup.workers;
    Ok(Box::new(move |times| {
        each(times, || timed_write(&engine(workers)?))
    }))
}
