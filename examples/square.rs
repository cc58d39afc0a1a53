//! scratch
use arenite::{Array, Engine};
fn total(values: &Array<u32>) -> u64 { values.iter().map(|&v| u64::from(v)).sum() }
fn noop() {}
fn double(values: &Array<u32>) -> Array<u32> { Array::from_fn(values.shape(), |i| values[i] * 2) }
fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    let t = std::time::Instant::now();
    let engine = Engine::builder().workers(2).capacity(1 << 30).build()?;
    println!("built in {:?}", t.elapsed());
    let values = engine.from_slice(&[1u32, 2, 3])?;
    println!("{}", engine.submit(total, (&values,)).wait()?);
    println!("{:?}", &engine.submit(double, (&values,)).wait()?[..]);
    println!("first {:?}", t.elapsed());
    let n = 20000;
    for _ in 0..5 {
    let t = std::time::Instant::now();
    for _ in 0..n { engine.submit(noop, ()).wait()?; }
    println!("rtt {:?}", t.elapsed() / n);
    let n = 100_000u32;
    let t = std::time::Instant::now();
    let jobs: Vec<_> = (0..n).map(|_| engine.submit(noop, ())).collect();
    for j in jobs { j.wait()?; }
    println!("submit {:?}", t.elapsed() / n);
    let t = std::time::Instant::now();
    let k = engine.map(noop, (0..n).map(|_| ())).count();
    println!("map {:?} {k}", t.elapsed() / n);
    }
    let big = engine.par_map(&engine.from_fn(1_000_000, |i| i as i64)?, |x| x * x)?;
    println!("{}", big[999_999]);
    println!("{:?}", engine.submit(|x: u32| -> u32 { if x > 0 { panic!("oh") } x }, (1,)).wait());
    println!("{}", engine.submit(|x: u32| -> u32 { if x > 0 { std::process::abort() } x }, (1,)).wait().unwrap_err());
    println!("{:?}", engine.submit(total, (&values,)).wait()?);
    println!("{:?}", engine.stats());
    Ok(())
}
