//! Workers killed while they compute subtrees of a reduction.

use arenite::Array;
use arenite::points::{Point, Side};
use libtest_mimic::Trial;

use crate::board::points;
use crate::harness::{Diary, Invariant, KILLED, Lab};
use crate::passings::{Death, Saw, killed_at, without_death};
use crate::scene::begin;
use crate::workers::costs_a_job;

/// Steps of a worker that only reductions have.
pub fn owns(point: &Point) -> bool {
    point.step() == "subtree"
}

/// Steps of every job at which earlier results make a difference.
const COMMON: [&str; 4] = [
    "claim.taken",
    "run.returned",
    "allocate.placed",
    "publish.filled",
];

/// Only without retries, which a reduction does not allow.
pub fn trials() -> Vec<Trial> {
    let mine = |point: &&Point| owns(point) || COMMON.contains(&point.name);
    killed_at("reduced", points(Side::Worker).filter(mine), scene)
}

/// Runs without deaths: each step is taken. For tests that read the board.
pub fn undisturbed() {
    without_death(owns, scene);
}

/// Bytes of a chunk, and number of chunks.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 250;

/// Bounds of its chunk.
fn span(chunk: &[u64], log: &str) -> Array<u64> {
    let ends = [chunk[0], chunk[chunk.len() - 1]];
    begin(log, (ends[0] * 8 / CHUNK as u64) as u32);
    Array::from_slice(&ends)
}

fn join(left: &[u64], right: &[u64]) -> Array<u64> {
    assert_eq!(left[1] + 1, right[0]);
    Array::from_slice(&[left[0], right[1]])
}

/// Runs a reduction, during which a worker is killed at this passing.
fn scene(point: &'static Point, passing: Option<u64>) -> Result<Saw, String> {
    let log = Diary::new();
    let invariant = Invariant::before();
    let lab = Lab::new(1);
    let numbers = lab.from_fn(CHUNKS * CHUNK / 8, |i| i as u64).unwrap();
    let death = Death::arm(point, passing);
    let whole = lab.par(&numbers).reduce(span, (&*log.path(),), join);
    let (saw, hit) = death.disarm(&lab);
    let mut began = log.numbers();
    began.sort_unstable();
    match whole {
        Ok(whole) => {
            let is_whole = hit == 0 || !costs_a_job(point);
            assert!(is_whole, "a job that its worker died of ran again");
            assert_eq!(whole[..], [0, numbers.len() as u64 - 1]);
            assert!(began.into_iter().eq(0..CHUNKS as u32));
        }
        Err(error) => {
            assert_eq!((error.kind(), saw.deaths), (&KILLED, 1), "{error}");
            assert!(error.kernel().contains("reduced::"), "{error}");
            assert!(began.is_sorted_by(|a, b| a < b), "a chunk twice");
        }
    }
    drop(numbers);
    invariant.ends(lab)?;
    Ok(saw)
}
