//! The engine with and without a protection.

use std::time::Instant;

use super::super::noop::timed;
use super::super::protection::WORDS;
use super::super::start::each;
use super::super::{BenchError, Running, Setup};
use super::noop::round_trip;
use super::{engine_with, refused};
use crate::work;
use arenite::Builder;

pub(in super::super) fn noop_with(
    setup: &Setup,
    change: fn(Builder) -> Builder,
) -> Result<Running, BenchError> {
    let engine = engine_with(setup.workers, change)?;
    Ok(Box::new(move |times| {
        timed(times, |i| round_trip(&engine, i))
    }))
}

fn increment_all(words: &mut [u64]) {
    for word in words {
        *word = word.wrapping_add(1);
    }
}

/// Runs one job on the whole array.
pub(in super::super) fn in_place(
    setup: &Setup,
    change: fn(Builder) -> Builder,
) -> Result<Running, BenchError> {
    let engine = engine_with(setup.workers, change)?;
    let mut array = engine.zeros::<u64>(WORDS).map_err(refused)?;
    let mut turns = 0;
    Ok(Box::new(move |times| {
        let reading = timed(times, |_| {
            engine
                .scope(|s| drop(s.submit(increment_all, (&mut array,))))
                .map_err(refused)
        })?;
        turns += times;
        BenchError::expect(
            work::sum(bytemuck::cast_slice(&array)),
            turns * WORDS as u64,
        )?;
        Ok(reading)
    }))
}

/// Ends the worker.
fn die() {
    std::process::exit(3);
}

pub(in super::super) fn respawn(change: fn(Builder) -> Builder) -> Result<Running, BenchError> {
    let engine = engine_with(1, change)?;
    Ok(Box::new(move |times| {
        each(times, || {
            if engine.submit(die, ()).wait().is_ok() {
                return Err(BenchError::Engine("a worker that exits answered".into()));
            }
            let failed = Instant::now();
            round_trip(&engine, 41)?;
            Ok(failed.elapsed())
        })
    }))
}
