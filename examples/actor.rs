//! Running statistics in an actor whose state survives crashes of its worker. Some of the batches of numbers kill the
//! process that reads them.
//!
//! `cargo run --release --example actor [batches]`

use arenite::{Actor, Array, Engine, FailedDependency, JobErrorKind};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Mean and variance of all numbers so far, by Welford's method: each batch continues where the last one ended.
struct Running {
    /// Names of the batches: a state may hold more than numbers.
    log: Vec<String>,
    /// Read by every update. It is in shared memory and is not copied.
    weights: Array<f64>,
    count: f64,
    mean: f64,
    squares: f64,
}

impl Running {
    fn new(weights: &Array<f64>) -> Self {
        Self {
            log: Vec::new(),
            weights: weights.clone(),
            count: 0.0,
            mean: 0.0,
            squares: 0.0,
        }
    }

    /// Adds a batch. A method takes what a kernel may take, and may fail like a kernel.
    fn add(&mut self, name: &str, batch: &Array<f64>) -> Result<u64, String> {
        if batch.is_empty() {
            return Err(format!("{name} is empty")); // the actor lives on
        }
        for (x, weight) in batch.iter().zip(self.weights.iter().cycle()) {
            if x.is_infinite() {
                std::process::abort(); // stands for a bug in C code
            }
            self.count += 1.0;
            let delta = x * weight - self.mean;
            self.mean += delta / self.count;
            self.squares += delta * (x * weight - self.mean);
        }
        self.log.push(name.to_owned());
        Ok(self.log.len() as u64)
    }

    fn summary(&self) -> (f64, f64, f64, String) {
        let variance = self.squares / self.count;
        (self.count, self.mean, variance, self.log.join(" "))
    }

    /// Returns a checkpoint, which is an array.
    fn save(&self) -> Array<f64> {
        Array::from_slice(&[self.count, self.mean, self.squares])
    }

    fn restore(saved: &Array<f64>, weights: &Array<f64>) -> Self {
        Self {
            log: vec!["(checkpoint)".into()],
            count: saved[0],
            mean: saved[1],
            squares: saved[2],
            ..Self::new(weights)
        }
    }
}

fn main() -> Outcome {
    arenite::init();
    let batches = std::env::args().nth(1).map_or(Ok(20), |n| n.parse())?;
    let engine = Engine::builder().workers(2).capacity(256 << 20).build()?;
    let weights = engine.from_slice(&[1.0, 0.5, 2.0])?;

    // The state is created in a worker and stays there. It is saved after each call.
    let running = engine
        .actor(Running::new, (&weights,))
        .checkpoint(1, Running::save, Running::restore)
        .start_named("running")?;

    let batch = |n: u64| -> Result<Array<f64>, arenite::ArenaFull> {
        engine.from_fn(1_000, |i| match n % 7 {
            3 if i == 500 => f64::INFINITY,
            _ => ((n * 1_000 + i as u64) % 97) as f64,
        })
    };

    // Calls are submitted ahead and run one after the other.
    let calls: Vec<_> = (0..batches)
        .map(|n| {
            let data = batch(n)?;
            Ok((n, running.call(Running::add, (format!("batch-{n}"), data))))
        })
        .collect::<Result<_, arenite::ArenaFull>>()?;
    let mut crashed = Vec::new();
    for (n, call) in calls {
        match call.wait() {
            Ok(_) => {}
            Err(error) => match error.kind() {
                // This batch killed the worker. All earlier batches were saved.
                JobErrorKind::Dependency(FailedDependency::Actor {
                    forgotten: 0,
                    restarted: true,
                    ..
                }) => {
                    println!("batch {n}: {error}");
                    crashed.push(n);
                }
                _ => return Err(error.into()),
            },
        }
    }

    // An error of a method goes to its caller.
    let empty = engine.zeros::<f64>(0)?.seal();
    match running.call(Running::add, ("nothing", empty)).wait() {
        Ok(_) => return Err("an empty batch is an error".into()),
        Err(error) => println!("{error}"),
    }

    // The same actor, found by its name.
    let same: Actor<Running> = engine.actor_named("running")?;
    let (count, mean, variance, log) = same.call(Running::summary, ()).wait()?;
    println!(
        "{count} numbers, mean {mean:.3}, variance {variance:.3}; since the last crash: {log}"
    );

    // The same batches, computed in one process that never crashes.
    let mut alone = Running::new(&Array::from_slice(&weights));
    for n in (0..batches).filter(|n| !crashed.contains(n)) {
        alone.add("batch", &batch(n)?)?;
    }
    let (expected_count, expected_mean, expected_variance, _) = alone.summary();
    assert_eq!(
        (count, mean, variance),
        (expected_count, expected_mean, expected_variance)
    );
    assert!(
        crashed
            .iter()
            .copied()
            .eq((0..batches).filter(|n| n % 7 == 3))
    );

    let status = same.status();
    println!(
        "{} restarts, {} checkpoints, {} calls forgotten",
        status.restarts, status.checkpoints, status.forgotten
    );
    assert_eq!(
        (status.restarts, status.forgotten),
        (crashed.len() as u64, 0)
    );
    Ok(())
}
