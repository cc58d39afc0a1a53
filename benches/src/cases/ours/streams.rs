//! A stream of large frames that are modified in place.

use std::time::Duration;

use super::super::noop::timed;
use super::super::streams::{FRAME, IN_FLIGHT, brighten, expected, mix};
use super::super::{BenchError, Reading, Running, Setup};
use super::{engine, refused};
use crate::{program, work};
use arenite::ArrayMut;
use arenite::Engine;
use arenite::stream::Stream;

/// Time between two samples of the memory; shorter than the processing of a frame.
const SAMPLE_EVERY: Duration = Duration::from_millis(2);

fn brightened(mut frame: ArrayMut<u8>, by: u8) -> ArrayMut<u8> {
    brighten(&mut frame, by);
    frame
}

fn mixed(mut frame: ArrayMut<u8>) -> ArrayMut<u8> {
    mix(&mut frame);
    frame
}

fn summed(frame: ArrayMut<u8>) -> u64 {
    work::sum(&frame)
}

/// Runs all frames. Each stage has one job at a time, as the slowest stage has when it is measured on its own.
fn run(engine: &Engine, frames: u64, expected: u64) -> Result<(), BenchError> {
    let source = (0..frames).map(|_| engine.zeros::<u8>(FRAME));
    let stream = Stream::fallible(source)
        .in_flight(IN_FLIGHT)
        .stage(brightened, (3,))
        .jobs(1)
        .stage(mixed, ())
        .jobs(1)
        .stage(summed, ())
        .jobs(1);
    for sum in stream.run(engine) {
        BenchError::expect(sum.map_err(refused)?, expected)?;
    }
    Ok(())
}

pub(in super::super) fn stream(setup: &Setup, frames: u64) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let expected = expected();
    Ok(Box::new(move |times| {
        timed(times, |_| run(&engine, frames, expected))
    }))
}

pub(in super::super) fn stream_memory(setup: &Setup, frames: u64) -> Result<Running, BenchError> {
    let expected = expected();
    // The workers will be children of this process. The memory that this process has before they start is subtracted.
    let roots = [std::process::id()];
    let before = program::memory_of(&roots);
    let engine = engine(setup.workers)?;
    Ok(Box::new(move |_| {
        let (result, peak) =
            program::peak_while(&roots, SAMPLE_EVERY, || run(&engine, frames, expected));
        result?;
        Ok(Reading::Amount(peak.saturating_sub(before) as f64 / 1e6))
    }))
}
