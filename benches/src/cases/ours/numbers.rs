//! Rounds over one large array.

use super::super::noop::timed;
use super::super::numbers::{checksum, expected_checksum, expected_sum};
use super::super::{BenchError, Running, Setup};
use super::{engine, refused};
use crate::work::{self, CENTRES, DIMENSIONS};
use arenite::Array;

/// Other numbers of workers, with which the sum must have the same bits.
const OTHERS: [usize; 2] = [1, 7];

fn nearest(points: &[f32], centres: &[f32]) -> Array<f64> {
    let centres = centres.try_into().expect("an array of all centres");
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
            // Each round of the algorithm has new centres.
            let centres = engine.from_slice(&CENTRES).map_err(refused)?;
            let sums = engine.par(&points).reduce(nearest, (&centres,), add);
            BenchError::expect(checksum(&sums.map_err(refused)?), expected)
        })
    }))
}

/// Reads one number of each array.
fn read_one(points: &[f32], centres: &[f32], at: u64) -> f32 {
    points[at as usize] + centres[0]
}

pub(in super::super) fn round(setup: &Setup, points: &[f32]) -> Result<Running, BenchError> {
    /// The distance between the numbers that two rounds read: they are on different pages, so that the rounds do not
    /// all read the same cache line.
    const STEP: usize = 1 << 14;
    let engine = engine(setup.workers)?;
    let shared = engine.from_slice(points).map_err(refused)?;
    // Read the expected numbers in advance, so that the time of a round includes no access to other memory.
    let chosen: Vec<(u64, f32)> = (0..points.len())
        .step_by(STEP)
        .map(|at| (at as u64, points[at]))
        .collect();
    Ok(Box::new(move |times| {
        timed(times, |i| {
            let (at, expected) = chosen[i as usize % chosen.len()];
            let centres = engine.from_slice(&CENTRES).map_err(refused)?;
            let answer = engine.submit(read_one, (&shared, &centres, at)).wait();
            let got = answer.map_err(refused)?.to_bits();
            BenchError::expect(got.into(), (expected + CENTRES[0]).to_bits().into())
        })
    }))
}

pub(in super::super) fn reduce(setup: &Setup, numbers: &[f32]) -> Result<Running, BenchError> {
    let expected = expected_sum(numbers);
    // Check one engine after the other, because each has a copy of all numbers.
    for workers in OTHERS {
        summing(workers, numbers, expected)?.run(1)?;
    }
    summing(setup.workers, numbers, expected)
}

fn summing(workers: usize, numbers: &[f32], expected: u64) -> Result<Running, BenchError> {
    let engine = engine(workers)?;
    let numbers = engine.from_slice(numbers).map_err(refused)?;
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let sum = engine.par(&numbers).sum().map_err(refused)?;
            BenchError::expect(sum.to_bits().into(), expected)
        })
    }))
}
