//! Child programs that are killed at random moments, with all their workers.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, Backing, Engine};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::Dice;
use crate::harness::programs::{Program, Scenario};
use crate::harness::runs::{Order, Seen};
use crate::harness::{Invariant, step};

/// What child programs do.
pub(super) const SCENARIOS: &[Scenario] = &[
    (WORK, work),
    ("once", once),
    ("crowd", crate::crowded::play),
];

/// Until it is killed.
pub(super) const WORK: &str = "work";

const NAME: &str = "ARENITE_SOAK_NAME";

fn spin() -> u32 {
    loop {
        std::hint::spin_loop();
    }
}

fn make(n: usize) -> Array<u32> {
    Array::from_fn(n, |i| i as u32)
}

/// Named, so that names may be left.
fn build() -> Engine {
    let builder = Engine::builder().workers(2).capacity(64 << 20);
    let builder = builder.backing(Backing::Named);
    let engine = match std::env::var(NAME) {
        Ok(name) => builder.name(name).build(),
        Err(_) => builder.build(),
    };
    engine.expect("an engine can be built")
}

/// Starts an engine, runs one job, and ends.
fn once() {
    let engine = build();
    engine.submit(make, (1000,)).wait().expect("a job");
    engine.shutdown();
}

/// Starts an engine, works, and begins again. An engine that is dropped leaves no name, whatever it was doing.
fn work() {
    loop {
        let engine = build();
        // One worker is busy forever, and is stopped; the other works, dies, and works again.
        engine.submit(spin, ()).detach();
        for n in [10, 100_000, 1_000_000] {
            engine.submit(make, (n,)).wait().expect("a job");
        }
        let workers = engine.stats().workers;
        for worker in workers.iter().filter(|worker| worker.pid != 0) {
            let signal = if worker.open > 0 {
                Signal::SIGSTOP
            } else {
                Signal::SIGKILL
            };
            // Fails if the worker has just ended.
            let _ = kill(Pid::from_raw(worker.pid as i32), signal);
        }
        engine.submit(make, (1000,)).wait().expect("a job");
        engine.trim();
    }
}

/// Kills supervisors at random moments: their workers end with them, and the next start succeeds.
pub(super) fn killed(order: Order) -> Result<Seen, String> {
    let mut dice = Dice::new(order.seed);
    let mut seen = Seen::default();
    let mut slowest = Duration::ZERO;
    let mut met = 0u32;
    let end = Instant::now() + order.length;
    // At least one has workers when it is killed.
    while seen.faults == 0 || met == 0 || Instant::now() < end {
        let invariant = Invariant::before();
        let name = format!("soak-{}-{}", std::process::id(), seen.faults);
        let name = (dice.below(2) == 0).then_some(&*name);
        let start = |scenario| {
            let named = |command: &mut Command| {
                command.envs(name.map(|name| (NAME, name)));
            };
            Program::with(scenario, || Ok(()), named)
        };
        let mut child = start(WORK);
        // More often early than late; later and later as long as no program had workers.
        let longest = [3_000, 20_000, 100_000][dice.below(3) as usize];
        let slower = if met == 0 { seen.faults / 16 } else { 0 };
        thread::sleep(dice.micros(0, longest << slower.min(8)));
        step("a program to be killed");
        met += u32::from(child.processes().len() > 1);
        child.kill();
        let ended = child.wait();
        if ended.signal != Some(Signal::SIGKILL as i32) {
            return Err(format!("{ended:?}"));
        }
        child.await_all_gone();
        slowest = slowest.max(ended.at.elapsed());
        drop(child);
        step("the next start");
        let ended = start("once").end();
        if !ended.status.success() {
            return Err(format!("the next start: {ended:?}"));
        }
        invariant.nothing_left()?;
        seen.faults += 1;
        seen.jobs += 1;
    }
    // For information: chance decides which.
    seen.figure(order, "had workers", (met.into(), "times"), f64::INFINITY)?;
    seen.figure(order, "all gone after", (slowest.as_secs_f64(), "s"), 1.0)?;
    Ok(seen)
}
