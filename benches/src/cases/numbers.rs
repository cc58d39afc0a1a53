//! Sums of numbers and rounds of k-means: work on one large array.

use rayon::prelude::*;

use super::noop::timed;
use super::{BenchError, Case, Goal, Running, Setup, Shared, Unit, ours, rayon_pool};
use crate::work::pairwise_sum as sum;
use crate::work::{self, DIMENSIONS, GROUPS};

/// The number of numbers in `reduce-1gib`.
const NUMBERS: usize = (1 << 30) / size_of::<f32>();
/// The number of points in `kmeans`, which take 80 MB.
const POINTS: usize = 80_000_000 / (DIMENSIONS * size_of::<f32>());
/// The number of numbers in one rayon task: as many as in a chunk of the engine.
const NUMBERS_AT_ONCE: usize = 1 << 20;
/// The number of points in one rayon task: as many as in a chunk of the engine.
const POINTS_AT_ONCE: usize = POINTS / 256;

/// The sums of no points.
const NONE: work::Sums = [0.0; GROUPS * (DIMENSIONS + 1)];

type Numbers = Shared<Vec<f32>>;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let with = |start: fn(&Setup, &Numbers) -> Result<Running, BenchError>, data: &Numbers| {
        let data = data.clone();
        move |setup: &Setup| start(setup, &data)
    };
    let points: Numbers = Shared::new(make_points);
    let mut kmeans = Case::new(
        "kmeans",
        "A round of k-means on 80 MB of points: 16 dimensions, 8 centres, 2 workers",
        Unit::Milliseconds,
    )
    .plan(if setup.quick { 3 } else { 20 }, 7, 2)
    .goals(&[Goal::AtLeast(0.95, "rayon")])
    .system(
        "arenite",
        with(|setup, points| ours::kmeans(setup, &points.get()), &points),
    )
    .system("rayon", with(rayon_kmeans, &points))
    .system("one-thread", with(one_thread_kmeans, &points));
    kmeans.memory = 1 << 30;

    let mut round = Case::new(
        "round-rtt",
        "A round over the same 80 MB that computes next to nothing, and an empty job",
        Unit::Microseconds,
    )
    .plan(if setup.quick { 500 } else { 2_000 }, 9, 200)
    .note(
        "a round puts new centres (512 bytes) into the arena and submits one job, which reads one number of the points and one of \
         the centres: what rounds cost beside their work",
    )
    .system(
        "arenite",
        with(|setup, points| ours::round(setup, &points.get()), &points),
    )
    .system("noop", ours::noop_hot);
    round.memory = 1 << 30;

    let numbers: Numbers = Shared::new(make_numbers);
    let mut reduce = Case::new(
        "reduce-1gib",
        "Add up 1 GiB of f32 pairwise, the same bits every time, 2 workers",
        Unit::Milliseconds,
    )
    .plan(1, if setup.quick { 3 } else { 9 }, 1)
    .goals(&[Goal::AtLeast(0.95, "rayon")])
    .note(
        "every system has to return the same bits in every run; arenite with 1 and with 7 workers too, once \
         (with fewer numbers, in every run of the tests: `model numbers::the_same_bits_for_any_number_of_workers`)",
    )
    .system(
        "arenite",
        with(
            |setup, numbers| ours::reduce(setup, &numbers.get()),
            &numbers,
        ),
    )
    .system("rayon", with(rayon_reduce, &numbers))
    .system("one-thread", with(one_thread_reduce, &numbers));
    reduce.quick = false;
    reduce.memory = 4 << 30;
    vec![kmeans, round, reduce]
}

/// Creates small whole numbers, whose sums are exact in any order.
fn make_points() -> Vec<f32> {
    let bytes = work::Random::new(5).bytes(POINTS * DIMENSIONS);
    bytes.into_iter().map(f32::from).collect()
}

fn make_numbers() -> Vec<f32> {
    let bytes = work::Random::new(6).bytes(4 << 20);
    let (words, _) = bytes.as_chunks::<4>();
    let noise: Vec<f32> = words
        .iter()
        .map(|word| i32::from_ne_bytes(*word) as f32 / 1000.0)
        .collect();
    noise.repeat(NUMBERS / noise.len())
}

/// Returns a number that depends on all values of the result of a round.
pub(super) fn checksum(sums: &[f64]) -> u64 {
    sums.iter()
        .fold(0, |all, sum| all.rotate_left(1) ^ sum.to_bits())
}

/// Returns the checksum of the right result of a round.
pub(super) fn expected_checksum(points: &[f32]) -> u64 {
    let sums = points
        .par_chunks(POINTS_AT_ONCE * DIMENSIONS)
        .map(|points| work::nearest(points, &work::CENTRES))
        .reduce(|| NONE, work::add_sums);
    checksum(&sums)
}

/// Returns the bits of the right sum.
pub(super) fn expected_sum(numbers: &[f32]) -> u64 {
    sum(numbers).to_bits().into()
}

fn rayon_kmeans(setup: &Setup, points: &Numbers) -> Result<Running, BenchError> {
    let pool = rayon_pool(setup)?;
    let points = points.get();
    let expected = expected_checksum(&points);
    Ok(Box::new(move |times| {
        let points: &[f32] = &points;
        timed(times, |_| {
            let sums = pool.install(|| {
                points
                    .par_chunks(POINTS_AT_ONCE * DIMENSIONS)
                    .map(|points| work::nearest(points, &work::CENTRES))
                    .reduce(|| NONE, work::add_sums)
            });
            BenchError::expect(checksum(&sums), expected)
        })
    }))
}

fn one_thread_kmeans(_: &Setup, points: &Numbers) -> Result<Running, BenchError> {
    let points = points.get();
    let expected = expected_checksum(&points);
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let sums = work::nearest(std::hint::black_box(&points), &work::CENTRES);
            BenchError::expect(checksum(&sums), expected)
        })
    }))
}

/// Makes the same additions in the same order as the engine: the blocks of one task form a whole subtree.
fn rayon_reduce(setup: &Setup, numbers: &Numbers) -> Result<Running, BenchError> {
    let pool = rayon_pool(setup)?;
    let numbers = numbers.get();
    let expected = expected_sum(&numbers);
    Ok(Box::new(move |times| {
        let numbers: &[f32] = &numbers;
        timed(times, |_| {
            let parts: Vec<f32> =
                pool.install(|| numbers.par_chunks(NUMBERS_AT_ONCE).map(sum).collect());
            let mut parts = parts;
            // The number of parts is a power of two.
            while parts.len() > 1 {
                parts = parts.chunks(2).map(|pair| pair.iter().sum()).collect();
            }
            BenchError::expect(parts[0].to_bits().into(), expected)
        })
    }))
}

fn one_thread_reduce(_: &Setup, numbers: &Numbers) -> Result<Running, BenchError> {
    let numbers = numbers.get();
    let expected = expected_sum(&numbers);
    Ok(Box::new(move |times| {
        timed(times, |_| {
            let sum = sum(std::hint::black_box(&numbers));
            BenchError::expect(sum.to_bits().into(), expected)
        })
    }))
}
