//! A million squares, computed in other processes: `cargo run --release --example square`.
//!
//! The function is an ordinary one, and the numbers are not copied: workers read them where they lie, and write the
//! squares into one array, each its own part of it.

use arenite::{Array, Engine};

/// A kernel of one's own: an array in, a number out.
fn sum_of_squares(numbers: &[i64]) -> i64 {
    numbers.iter().map(|x| x * x).sum()
}

/// Another one: an array in, an array out. The result is made in memory that everybody can read, so it is not copied
/// either.
fn squares(numbers: &Array<i64>) -> Array<i64> {
    Array::from_fn(numbers.shape(), |i| numbers[i] * numbers[i])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Workers are copies of this program; in them this call never returns.
    arenite::init();
    let engine = Engine::builder().workers(2).capacity(256 << 20).build()?;
    let numbers = engine.from_fn(1_000_000, |i| i as i64)?;

    // All workers at once, by one call.
    let all = engine.par(&numbers).map(|x| x * x)?;
    assert_eq!(all[999_999], 999_999 * 999_999);

    // One worker, and a handle to wait for while something else is done here.
    let job = engine.submit(squares, (&numbers,));
    let sum: i64 = all.iter().sum();
    assert_eq!(job.wait()?[..], all[..]);

    // A part of an array is an array: a thousand jobs on a thousand numbers each, answered in order.
    let parts = (0..1000).map(|n| (numbers.rows(n * 1000..(n + 1) * 1000),));
    let sums: Result<Vec<i64>, _> = engine.map(sum_of_squares, parts).collect();
    assert_eq!(sums?.iter().sum::<i64>(), sum);

    // What goes wrong is the error of one job: here a wrong index.
    if let Err(error) = engine
        .submit(|x: &Array<i64>| x[1_000_000], (&numbers,))
        .wait()
    {
        println!("as it should: {error}");
    }
    println!("the squares of 0 to 999,999 add up to {sum}");
    Ok(())
}
