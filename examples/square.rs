//! A million squares, computed in other processes: `cargo run --release --example square`.
//!
//! The function is an ordinary one, and the numbers are not copied: workers read them in shared memory, and each writes
//! its part of one array of squares.

use arenite::{Array, Engine};

/// A kernel that takes an array and returns a number.
fn sum_of_squares(numbers: &[i64]) -> i64 {
    numbers.iter().map(|x| x * x).sum()
}

/// A kernel that takes and returns an array. The result is created in shared memory, so it is not copied either.
fn squares(numbers: &Array<i64>) -> Array<i64> {
    Array::from_fn(numbers.shape(), |i| numbers[i] * numbers[i])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Workers are copies of this program. In them this call never returns.
    arenite::init();
    let engine = Engine::builder().workers(2).capacity(256 << 20).build()?;
    let numbers = engine.from_fn(1_000_000, |i| i as i64)?;

    // One call for all workers at once.
    let all = engine.par(&numbers).map(|x| x * x)?;
    assert_eq!(all[999_999], 999_999 * 999_999);

    // One job, and a handle to wait for its result; this thread may work in the meantime.
    let job = engine.submit(squares, (&numbers,));
    let sum: i64 = all.iter().sum();
    assert_eq!(job.wait()?[..], all[..]);

    // A part of an array is an array: a thousand jobs on a thousand numbers each, with results in order.
    let parts = (0..1000).map(|n| (numbers.rows(n * 1000..(n + 1) * 1000),));
    let sums: Result<Vec<i64>, _> = engine.map(sum_of_squares, parts).collect();
    assert_eq!(sums?.iter().sum::<i64>(), sum);

    // A failure is the error of one job, here an index out of bounds.
    if let Err(error) = engine
        .submit(|x: &Array<i64>| x[1_000_000], (&numbers,))
        .wait()
    {
        println!("as it should: {error}");
    }
    println!("the squares of 0 to 999,999 add up to {sum}");
    Ok(())
}
