//! A stream of large frames through three stages, and its slowest stage alone.

use super::noop::timed;
use super::{Case, Goal, Running, Setup, TwinError, Unit, ours};

/// Bytes of a frame.
pub(super) const FRAME: usize = 10_000_000;
/// Frames that may be in flight.
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
    .system("ideal", move |_| ideal(frames));
    let memory = Case::new(
        "stream-3-memory",
        "The most memory that such a stream and its engine hold at one time, 6 frames in flight",
        Unit::Megabytes,
    )
    .plan(1, 1, 0)
    .goals(&[Goal::Below((IN_FLIGHT * FRAME / 1_000_000 + 20) as f64)])
    .note("private memory of this process and of the workers, and all shared memory, beyond what was there before")
    .system("arenite", move |setup| ours::stream_memory(setup, frames));
    vec![speed, memory]
}

/// The first stage: each byte on its own.
pub(super) fn brighten(frame: &mut [u8], by: u8) {
    for byte in frame {
        *byte = byte.saturating_add(by);
    }
}

/// The second, slowest one: each byte depends on the one before it.
pub(super) fn mix(frame: &mut [u8]) {
    let mut state = 1u32;
    for byte in frame {
        state = state.wrapping_mul(31).wrapping_add(u32::from(*byte));
        state ^= state >> 7;
        *byte = state as u8;
    }
}

/// One frame of zeros after both.
pub(super) fn expected() -> u64 {
    let mut frame = vec![0; FRAME];
    brighten(&mut frame, 3);
    mix(&mut frame);
    super::super::work::sum(&frame)
}

/// The slowest stage, one frame after the other, in one warm place: no stream can be quicker.
fn ideal(frames: u64) -> Result<Running, TwinError> {
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
