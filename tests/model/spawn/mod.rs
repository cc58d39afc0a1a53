//! Kernels that spawn jobs: the same value as a plain recursion, on any number of workers, also when workers die.

mod ends;
mod failures;
mod values;

use arenite::{Array, Spawn, call};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::harness::{pass, send_signal};

pub fn tests() -> Vec<Trial> {
    let all = [values::tests(), failures::tests(), ends::tests()];
    all.into_iter().flatten().collect()
}

/// Sends SIGKILL.
fn end(pid: i32) {
    send_signal(pid, Signal::SIGKILL);
}

fn fib(n: u64) -> Spawn<u64> {
    if n < 2 {
        return n.into();
    }
    Spawn::new(
        |a: u64, b: u64| a + b,
        (call(fib, (n - 1,)), call(fib, (n - 2,))),
    )
}

fn fails(n: u32) -> Result<u64, String> {
    Err(format!("{n} is wrong"))
}

fn gated(gate: &str, values: &Array<u32>) -> Array<u32> {
    pass(gate);
    Array::from_fn(values.shape(), |i| values[i] + 1)
}

fn around(gate: &str) -> Spawn<u64> {
    let made = Array::from_fn(1_000, |i| i as u32);
    let through = call(gated, (gate, &made));
    Spawn::new(
        |n: u64, made: &[u32], through: &[u32]| {
            n + made
                .iter()
                .chain(through)
                .map(|&x| u64::from(x))
                .sum::<u64>()
        },
        (call(fib, (10,)), made, through),
    )
}

fn deep_around(depth: u32, gate: &str) -> Spawn<u64> {
    match depth {
        0 => Spawn::new(|n: u64| n, (call(around, (gate,)),)),
        _ => Spawn::new(|n: u64| n, (call(deep_around, (depth - 1, gate)),)),
    }
}
