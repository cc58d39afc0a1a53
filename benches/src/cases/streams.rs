//! A stream of large frames through three stages, and its slowest stage on its own.

use std::sync::mpsc;

use super::noop::timed;
use super::{BenchError, Case, Goal, Running, Setup, Unit, ours};
use crate::work::sum;

/// The number of bytes in a frame.
pub(super) const FRAME: usize = 10_000_000;
/// The number of frames that may be in flight.
pub(super) const IN_FLIGHT: usize = 6;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let frames = if setup.quick { 24 } else { 60 };
    let runs = if setup.quick { 3 } else { 9 };
    let speed = Case::new(
        "stream-3",
        format!("{frames} frames of 10 MB through 3 stages, and the slowest stage alone"),
        Unit::Milliseconds,
    )
    .plan(1, runs, 1)
    .goals(&[Goal::AtLeast(0.95, "ideal")])
    .system("arenite", move |setup| ours::stream(setup, frames))
    .system("ideal", move |_| ideal(frames))
    .system("threads", move |_| threads(frames))
    .note("threads: the same three stages, each in a thread of this process, over bounded channels, with reused frames");
    let memory = Case::new(
        "stream-3-memory",
        "The peak memory of such a stream and its engine, 6 frames in flight",
        Unit::Megabytes,
    )
    .plan(1, 1, 0)
    .goals(&[Goal::Below((IN_FLIGHT * FRAME / 1_000_000 + 20) as f64)])
    .note("private memory of this process and of the workers, and all shared memory, minus what was in use before")
    .system("arenite", move |setup| ours::stream_memory(setup, frames));
    vec![speed, memory]
}

/// Does the first stage, in which each byte is independent.
pub(super) fn brighten(frame: &mut [u8], by: u8) {
    for byte in frame {
        *byte = byte.saturating_add(by);
    }
}

/// Does the second and slowest stage, in which each byte depends on the previous byte.
pub(super) fn mix(frame: &mut [u8]) {
    let mut state = 1u32;
    for byte in frame {
        state = state.wrapping_mul(31).wrapping_add(u32::from(*byte));
        state ^= state >> 7;
        *byte = state as u8;
    }
}

/// Returns the sum of a frame of zeros after both stages.
pub(super) fn expected() -> u64 {
    let mut frame = vec![0; FRAME];
    brighten(&mut frame, 3);
    mix(&mut frame);
    sum(&frame)
}

/// Runs the same stream, written by hand with threads, without isolation.
fn threads(frames: u64) -> Result<Running, BenchError> {
    let expected = expected();
    let mut pool: Vec<_> = (0..IN_FLIGHT).map(|_| vec![0u8; FRAME]).collect();
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let (to_free, free) = mpsc::sync_channel(IN_FLIGHT);
            let (to_mix, bright) = mpsc::sync_channel(IN_FLIGHT);
            let (to_sum, mixed) = mpsc::sync_channel(IN_FLIGHT);
            for frame in pool.drain(..) {
                to_free.send(frame).expect("it is received below");
            }
            std::thread::scope(|scope| {
                let back = &mut pool;
                scope.spawn(move || {
                    for _ in 0..frames {
                        let Ok(mut frame): Result<Vec<u8>, _> = free.recv() else {
                            break;
                        };
                        frame.fill(0);
                        brighten(&mut frame, 3);
                        if to_mix.send(frame).is_err() {
                            break;
                        }
                    }
                    drop(to_mix);
                    back.extend(free);
                });
                scope.spawn(move || {
                    for mut frame in bright {
                        mix(&mut frame);
                        if to_sum.send(frame).is_err() {
                            break;
                        }
                    }
                });
                for frame in mixed {
                    BenchError::expect(sum(&frame), expected)?;
                    // This fails once the first stage has ended.
                    let _ = to_free.send(frame);
                }
                drop(to_free);
                Ok(())
            })
        })
    }))
}

/// Runs only the slowest stage, one frame after the other, in one warm buffer: no stream can be faster.
fn ideal(frames: u64) -> Result<Running, BenchError> {
    let mut frame = vec![0; FRAME];
    Ok(Box::new(move |times| {
        timed(times, |_| {
            for _ in 0..frames {
                mix(std::hint::black_box(&mut frame));
            }
            Ok(())
        })
    }))
}
