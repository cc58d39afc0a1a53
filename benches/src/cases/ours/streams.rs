//! A stream of large frames that are changed where they lie.

use std::time::Duration;

use super::super::noop::timed;
use super::super::streams::{FRAME, IN_FLIGHT, brighten, expected, mix};
use super::super::{BenchError, Reading, Running, Setup};
use super::{engine, refused};
use crate::{program, work};
use arenite::ArrayMut;
use arenite::Engine;
use arenite::stream::Stream;

/// Between two looks at the memory. A frame takes longer.
const LOOK_EVERY: Duration = Duration::from_millis(2);

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

/// Each stage has one job at a time, as the slowest stage alone has.
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
    // Its workers will be children of this process, which holds so much without them.
    let roots = [std::process::id()];
    let before = program::memory_of(&roots);
    let engine = engine(setup.workers)?;
    Ok(Box::new(move |_| {
        let (ran, most) =
            program::peak_while(&roots, LOOK_EVERY, || run(&engine, frames, expected));
        ran?;
        Ok(Reading::Amount(most.saturating_sub(before) as f64 / 1e6))
    }))
}
