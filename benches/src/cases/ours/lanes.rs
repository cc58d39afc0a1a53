//! Calls that wait, on several lanes.

use super::super::lanes::{CALLS, LANES, call};
use super::super::noop::timed;
use super::super::{BenchError, Running, Setup};
use super::refused;
use arenite::Engine;

/// Makes all calls by one map.
pub(in super::super) fn calls_that_wait(setup: &Setup) -> Result<Running, BenchError> {
    let builder = Engine::builder().workers(setup.workers);
    let builder = builder.lanes(LANES.div_ceil(setup.workers));
    let engine = builder.build().map_err(refused)?;
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let answers = engine.map(call, (0..CALLS).map(|n| (n,)));
            let sum = answers.sum::<Result<u64, _>>().map_err(refused)?;
            BenchError::expect(sum, CALLS * (CALLS - 1) / 2)
        })
    }))
}
