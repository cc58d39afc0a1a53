//! One large array, in rounds.

use super::super::noop::timed;
use super::super::numbers::{checksum, expected_checksum, expected_sum};
use super::super::{BenchError, Running, Setup};
use super::{engine, refused};
use crate::work::{self, CENTRES, DIMENSIONS};
use arenite::Array;

/// Numbers of workers that have to add up to the same bits as those that are measured.
const OTHERS: [usize; 2] = [1, 7];

fn nearest(points: &[f32], centres: &[f32]) -> Array<f64> {
    let centres = centres.try_into().expect("all of them");
    Array::from_slice(&work::nearest(points, centres))
}

fn add(a: &[f64], b: &[f64]) -> Array<f64> {
    Array::from_fn(a.len(), |i| a[i] + b[i])
}

pub(in super::super) fn kmeans(setup: &Setup, points: &[f32]) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let expected = expected_checksum(points);
    let rows = points.len() / DIMENSIONS;
    let points = engine.from_slice(points).map_err(refused)?;
    let points = points.reshape([rows, DIMENSIONS]).map_err(refused)?;
    Ok(Box::new(move |times| {
        timed(times, |_| {
            // New ones in each round, as in the algorithm.
            let centres = engine.from_slice(&CENTRES).map_err(refused)?;
            let sums = engine.par(&points).reduce(nearest, (&centres,), add);
            BenchError::expect(checksum(&sums.map_err(refused)?), expected)
        })
    }))
}

/// One number of each.
fn glance(points: &[f32], centres: &[f32], at: u64) -> f32 {
    points[at as usize] + centres[0]
}

pub(in super::super) fn round(setup: &Setup, points: &[f32]) -> Result<Running, BenchError> {
    /// On other pages than the last round, so that it is not one line that all of them read.
    const STEP: usize = 1 << 14;
    let engine = engine(setup.workers)?;
    let shared = engine.from_slice(points).map_err(refused)?;
    // Chosen before: the time of a round is not to hold a look at other memory.
    let chosen: Vec<(u64, f32)> = (0..points.len())
        .step_by(STEP)
        .map(|at| (at as u64, points[at]))
        .collect();
    Ok(Box::new(move |times| {
        timed(times, |i| {
            let (at, expected) = chosen[i as usize % chosen.len()];
            let centres = engine.from_slice(&CENTRES).map_err(refused)?;
            let answer = engine.submit(glance, (&shared, &centres, at)).wait();
            let got = answer.map_err(refused)?.to_bits();
            BenchError::expect(got.into(), (expected + CENTRES[0]).to_bits().into())
        })
    }))
}

pub(in super::super) fn reduce(setup: &Setup, numbers: &[f32]) -> Result<Running, BenchError> {
    let expected = expected_sum(numbers);
    // Bits that others get too; one engine after the other, because each has all the numbers.
    for workers in OTHERS {
        adding(workers, numbers, expected)?.run(1)?;
    }
    adding(setup.workers, numbers, expected)
}

fn adding(workers: usize, numbers: &[f32], expected: u64) -> Result<Running, BenchError> {
    let engine = engine(workers)?;
    let numbers = engine.from_slice(numbers).map_err(refused)?;
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let sum = engine.par(&numbers).sum().map_err(refused)?;
            BenchError::expect(sum.to_bits().into(), expected)
        })
    }))
}
