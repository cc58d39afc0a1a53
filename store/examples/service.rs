//! A service and its client: `cargo run -p arenite-store --example service -- serve` in one terminal,
//! `cargo run -p arenite-store --example service -- call` in another. Without an argument, the program is both.

use std::thread;

use arenite::{Array, Engine};
use arenite_store::service::{Client, Service, ServiceErrorKind, connect};

/// The number of values in each bin between the smallest and the largest one.
fn histogram(values: &Array<f32>, bins: u32) -> Result<Array<u64>, String> {
    let (low, high) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| {
            (low.min(value), high.max(value))
        });
    if values.is_empty() || bins == 0 || !(high - low).is_finite() {
        return Err("a histogram needs finite values, and bins".to_owned());
    }
    let mut counts = vec![0; bins as usize];
    for &value in values.iter() {
        let bin = (value - low) / (high - low) * bins as f32;
        // The largest value belongs to the last bin.
        let bin = (bin as usize).min(counts.len() - 1);
        counts[bin] += 1;
    }
    Ok(Array::from_slice(&counts))
}

/// Ends the worker, as a bug in a C library may do.
fn crash() {
    std::process::abort()
}

fn service() -> Result<Service, arenite::BuildError> {
    let engine = Engine::builder().workers(2).capacity(256 << 20).build()?;
    Ok(Service::new(engine)
        .kernel("histogram", histogram)
        .kernel("crash", crash))
}

fn call(service: &Client) -> Result<(), Box<dyn std::error::Error>> {
    for kernel in service.info()?.kernels {
        println!("{}{}", kernel.name, kernel.signature);
    }
    let values = Array::from_fn(1_000_000, |i| ((i * 7919) % 1000) as f32);
    // The calls run at the same time; one of them does not come back.
    let counts = service.call::<Array<u64>>("histogram", (&values, 8_u32));
    let crash = service.call::<()>("crash", ());
    println!("{:?}", &counts.wait()?[..]);
    let error = crash.wait().expect_err("it aborts");
    assert_eq!(error.kind(), ServiceErrorKind::Crashed { signal: 6 });
    println!("{error}");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    match std::env::args().nth(1).as_deref() {
        Some("serve") => Ok(service()?.run("example")?),
        Some("call") => call(&connect("example")?),
        _ => {
            let folder =
                std::env::temp_dir().join(format!("arenite-example-{}.sock", std::process::id()));
            let name = folder
                .to_str()
                .ok_or("a folder for temporary files in UTF-8")?;
            let serving = service()?.bind(name)?;
            let stopper = serving.stopper();
            let running = thread::spawn(move || serving.run());
            let called = call(&connect(name)?);
            stopper.stop();
            running.join().map_err(|_| "the service panicked")??;
            called
        }
    }
}
