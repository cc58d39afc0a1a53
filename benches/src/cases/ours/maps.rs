//! One long map of small arguments, and the same number of no-op jobs.

use super::super::maps::ITEMS;
use super::super::noop::{JOBS, timed};
use super::super::{BenchError, Reading, Running, Setup};
use super::noop::map_all;
use super::{engine, refused};
use crate::{pool, program};

/// The number of results between two samples of the memory.
const SAMPLE_EVERY: u64 = 20_000;

/// Uses all arguments, with next to no work.
fn mix(index: u64, weight: f64, flags: [u8; 4], last: bool) -> u64 {
    index ^ weight.to_bits() ^ u64::from(u32::from_le_bytes(flags)) ^ u64::from(last)
}

fn arguments() -> impl Iterator<Item = (u64, f64, [u8; 4], bool)> {
    (0..ITEMS).map(|n| (n, n as f64, (n as u32).to_le_bytes(), n + 1 == ITEMS))
}

fn expected() -> u64 {
    let all = arguments().map(|(a, b, c, d)| mix(a, b, c, d));
    all.fold(0, u64::wrapping_add)
}

pub(in super::super) fn map_of_small_arguments(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let expected = expected();
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let mut total = 0_u64;
            for result in engine.map(mix, arguments()) {
                total = total.wrapping_add(result.map_err(refused)?);
            }
            BenchError::expect(total, expected)
        })
    }))
}

pub(in super::super) fn map_memory(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let expected = expected();
    // The workers are children of this process.
    let held = || program::memory_of(&[std::process::id()]);
    Ok(Box::new(move |_| {
        let before = held();
        let mut peak = before;
        let mut total = 0_u64;
        for (index, result) in (0..).zip(engine.map(mix, arguments())) {
            total = total.wrapping_add(result.map_err(refused)?);
            if index % SAMPLE_EVERY == 0 {
                peak = peak.max(held());
            }
        }
        BenchError::expect(total, expected)?;
        Ok(Reading::Amount((peak - before) as f64 / 1e6))
    }))
}

pub(in super::super) fn noop_million(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let expected = pool::noop_total(JOBS);
    Ok(Box::new(move |times| {
        timed(times, |_| {
            (0..ITEMS / JOBS).try_for_each(|_| map_all(&engine, expected))
        })
    }))
}
