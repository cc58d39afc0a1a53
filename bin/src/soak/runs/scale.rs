//! Many jobs, many workers, many engines: memory and descriptors stay what they are.

use std::time::Instant;

use arenite::{Array, Engine};

use super::super::lab::{Invariant, Lab, step};
use super::{Figure, Order, Seen};

fn tiny(n: u64) -> u64 {
    n.rotate_left(17) ^ 0xfeed
}

fn small(n: u64) -> Array<u64> {
    Array::from_slice(&[n, n + 1])
}

/// Tiny jobs through many more workers than there are cores, rounds of them until the time is up.
pub fn tiny_jobs(order: Order, workers: usize, per_round: u64) -> Result<Seen, String> {
    let invariant = Invariant::before();
    let lab = Lab::new(workers);
    let end = Instant::now() + order.length;
    let mut seen = Seen::default();
    let mut settled = None;
    while settled.is_none() || Instant::now() < end {
        step("tiny jobs");
        let answers = lab.map(tiny, (0..per_round).map(|n| (n,)));
        for (n, answer) in (0..).zip(answers) {
            if answer.map_err(|error| error.to_string())? != tiny(n) {
                return Err(format!("job {n} is wrong"));
            }
        }
        let arrays = lab.map(small, (0..per_round / 100).map(|n| (n,)));
        for (n, answer) in (0..).zip(arrays) {
            if answer.map_err(|error| error.to_string())?[..] != [n, n + 1] {
                return Err(format!("array {n} is wrong"));
            }
        }
        seen.jobs += per_round + per_round / 100;
        // What the first round has taken is enough for all that follow.
        settled.get_or_insert_with(private_memory);
    }
    let grown = private_memory().saturating_sub(settled.unwrap_or(0));
    invariant.holds(&lab, 0)?;
    drop(lab);
    invariant.nothing_left()?;
    seen.figure(
        order,
        Figure {
            name: "grown over the jobs",
            value: grown as f64 / 1e6,
            unit: "MB",
            limit: 32.0,
        },
    )?;
    Ok(seen)
}

/// Engines that start, work and end.
pub fn cycles(order: Order) -> Result<Seen, String> {
    let invariant = Invariant::before();
    let end = Instant::now() + order.length;
    let mut seen = Seen::default();
    let mut settled = None;
    while settled.is_none() || Instant::now() < end {
        for round in 0..10u64 {
            step("an engine that starts, works and ends");
            let engine = Engine::builder()
                .workers(1 + round as usize % 3)
                .capacity(64 << 20)
                .build()
                .map_err(|error| error.to_string())?;
            let answer = engine.submit(small, (round,)).wait();
            if answer.map_err(|error| error.to_string())?[..] != [round, round + 1] {
                return Err(format!("array {round} is wrong"));
            }
            if round % 2 == 0 {
                engine.shutdown();
            }
            seen.jobs += 1;
        }
        settled.get_or_insert_with(private_memory);
    }
    let grown = private_memory().saturating_sub(settled.unwrap_or(0));
    invariant.nothing_left()?;
    seen.figure(
        order,
        Figure {
            name: "grown over the engines",
            value: grown as f64 / 1e6,
            unit: "MB",
            limit: 32.0,
        },
    )?;
    Ok(seen)
}

/// Private bytes of this process. Pages of the arena that it has looked at are not its own; the invariant counts those.
fn private_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
