//! A merge sort whose kernels submit further work: `cargo run --release --example sort [COUNT]`.
//!
//! A kernel that needs more work returns it, here sorting both halves and then `merge`. No worker waits for another, so
//! one worker is enough for any depth. Only the merges copy: half an array is a view of it, and the next job reads a
//! result where the last one wrote it.

use std::time::Instant;

use arenite::{Array, ArrayMut, Engine, Spawn, call};

/// A part with fewer elements is sorted in one job: milliseconds of work, a few hundred times the cost of a job.
const LEAF: usize = 64 * 1024;

fn sort(values: &Array<i64>) -> Spawn<Array<i64>> {
    if values.len() <= LEAF {
        let mut sorted = ArrayMut::from_slice(values);
        sorted.sort_unstable();
        return sorted.seal().into();
    }
    let half = values.len() / 2;
    let (left, right) = (values.rows(..half), values.rows(half..));
    Spawn::new(merge, (call(sort, (left,)), call(sort, (right,))))
}

fn merge(left: &[i64], right: &[i64]) -> Array<i64> {
    let (mut l, mut r) = (0, 0);
    Array::from_fn(left.len() + right.len(), |_| {
        let takes_left = r == right.len() || l < left.len() && left[l] <= right[r];
        let (from, at) = if takes_left {
            (left, &mut l)
        } else {
            (right, &mut r)
        };
        *at += 1;
        from[*at - 1]
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    let count = std::env::args().nth(1);
    let count = count.map_or(Ok(1_000_000), |count| count.parse())?;
    let engine = Engine::builder().build()?;
    // The same unsorted numbers in each run.
    let scattered = |i: usize| (i as i64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> 16;
    let values = engine.from_fn(count, scattered)?;

    let start = Instant::now();
    let sorted = engine.submit(sort, (&values,)).wait()?;
    let took = start.elapsed();

    let mut expected = values.to_vec();
    expected.sort_unstable();
    assert!(sorted[..] == expected[..], "in order, and none is lost");
    let jobs: u64 = engine
        .stats()
        .kernels
        .iter()
        .map(|kernel| kernel.calls)
        .sum();
    println!(
        "{count} numbers in {:.1} ms: {jobs} jobs on {} workers, of which one was submitted",
        took.as_secs_f64() * 1e3,
        engine.stats().workers.len()
    );
    Ok(())
}
