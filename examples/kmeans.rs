//! K-means clustering in 20 rounds: `cargo run --release --example kmeans [MEGABYTES]`.
//!
//! The points are in shared memory once. In each round every worker reads its chunks of them and the same few centres.
//! The result has the same bits for 1, 2 and 7 workers.

use std::time::{Duration, Instant};

use arenite::{Array, Engine, Shape, TileMut};
use rand::RngExt;

const DIMENSIONS: usize = 16;
const GROUPS: usize = 8;
const ROUNDS: usize = 20;
/// Size of all points, in millions of bytes.
const MEGABYTES: usize = if cfg!(debug_assertions) { 1 } else { 80 };
/// Number of points that one job generates. It must not depend on the workers, because the points depend on the job.
const POINTS_PER_JOB: usize = 8192;

/// Scatters points around corners of a cube, one corner per group.
fn scatter(mut points: TileMut<'_, f32>) {
    let mut rng = arenite::rng();
    for point in points.chunks_mut(DIMENSIONS) {
        let group: usize = rng.random_range(0..GROUPS);
        for (d, x) in point.iter_mut().enumerate() {
            let corner = if group >> (d % 3) & 1 == 0 { -2.0 } else { 2.0 };
            *x = corner + rng.random_range(-1.0..1.0f32);
        }
    }
}

/// Returns, for each centre, the sum and the number of the points nearest to it.
fn assign(points: &Array<f32>, centres: &[f32]) -> Array<f64> {
    // The centres by dimension and then by group, so that a point is compared with all centres at once. A worker
    // computes this for the first of its chunks in a round and reuses it for the others.
    let mut by_dimension = arenite::scratch(|| (Vec::new(), [[0.0; GROUPS]; DIMENSIONS]));
    let (of, by_dimension) = &mut *by_dimension;
    if of[..] != *centres {
        centres.clone_into(of);
        for (i, &x) in centres.iter().enumerate() {
            by_dimension[i % DIMENSIONS][i / DIMENSIONS] = x;
        }
    }
    let mut sums = [[0.0; DIMENSIONS + 1]; GROUPS];
    for point in points.as_chunks::<DIMENSIONS>().0 {
        let mut distances = [0.0f32; GROUPS];
        for (x, centres) in point.iter().zip(&*by_dimension) {
            for (distance, centre) in distances.iter_mut().zip(centres) {
                *distance += (x - centre) * (x - centre);
            }
        }
        let mut nearest = 0;
        for group in 1..GROUPS {
            if distances[group] < distances[nearest] {
                nearest = group;
            }
        }
        for (sum, &x) in sums[nearest].iter_mut().zip(point) {
            *sum += f64::from(x);
        }
        sums[nearest][DIMENSIONS] += 1.0;
    }
    Array::from_slice(sums.as_flattened())
}

fn add(left: &[f64], right: &[f64]) -> Array<f64> {
    Array::from_fn(left.len(), |i| left[i] + right[i])
}

/// The result of all rounds.
struct Found {
    centres: Vec<f32>,
    sizes: Vec<u64>,
    /// The fastest round.
    round: Duration,
}

fn find(workers: usize, points: usize) -> Result<Found, Box<dyn std::error::Error>> {
    let bytes = points * DIMENSIONS * size_of::<f32>();
    let engine = Engine::builder()
        .workers(workers)
        .capacity(bytes as u64 + (64 << 20))
        .seed(2026)
        .build()?;
    let mut scattered = engine.uninit::<f32>([points, DIMENSIONS])?;
    engine.scope(|scope| {
        for tile in scattered.tiles_mut(POINTS_PER_JOB) {
            scope.submit(scatter, (tile,));
        }
    })?;
    let points = scattered.seal();

    // The first points are the initial centres.
    let mut centres: Vec<f32> = points[..GROUPS * DIMENSIONS].to_vec();
    let mut sizes = Vec::new();
    let mut quickest = Duration::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let shared = engine.from_slice(&centres)?;
        let sums = engine.par(&points).reduce(assign, (&shared,), add)?;
        let (groups, _) = sums.as_chunks::<{ DIMENSIONS + 1 }>();
        for (group, centre) in groups.iter().zip(centres.chunks_mut(DIMENSIONS)) {
            let size = group[DIMENSIONS];
            // A centre without points does not move.
            if size > 0.0 {
                for (x, sum) in centre.iter_mut().zip(group) {
                    *x = (sum / size) as f32;
                }
            }
        }
        sizes = groups
            .iter()
            .map(|group| group[DIMENSIONS] as u64)
            .collect();
        quickest = quickest.min(begun.elapsed());
    }
    assert_eq!(sizes.iter().sum::<u64>() as usize, points.shape().rows());
    Ok(Found {
        centres,
        sizes,
        round: quickest,
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    let argument = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let megabytes: usize = argument.unwrap_or(MEGABYTES);
    let points = (megabytes * 1_000_000 / (DIMENSIONS * size_of::<f32>())).max(GROUPS);
    println!("{} points", Shape::from([points, DIMENSIONS]));

    let mut first: Option<Found> = None;
    for workers in [1, 2, 7] {
        let found = find(workers, points)?;
        println!(
            "{workers} workers: {:.2?} per round, groups of {:?}",
            found.round, found.sizes
        );
        let bits = |found: &Found| {
            found
                .centres
                .iter()
                .map(|x| x.to_bits())
                .collect::<Vec<_>>()
        };
        match &first {
            None => first = Some(found),
            Some(first) => assert_eq!(bits(first), bits(&found), "{workers} workers"),
        }
    }
    println!("the same bits each time");
    Ok(())
}
