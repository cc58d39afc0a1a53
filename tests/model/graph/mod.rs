//! Graphs: each node runs once, in any valid order, also when workers die.

mod failures;
mod memory;
mod pictures;
mod statistics;
mod values;
mod waiting;

use arenite::{
    Array, ArrayMut, Bytes, Engine, FailedDependency, Graph, GraphError, JobError, JobErrorKind,
    JobLimit, Node,
};
use nix::sys::signal::Signal;

use crate::harness::{
    ABORTED, Diary, Gate, Lab, are_all, filled, note, numbers, pass, send_signal, step, tests,
    wait_until,
};

/// The tests of all parts.
pub fn tests() -> Vec<libtest_mimic::Trial> {
    let parts = [
        failures::tests(),
        memory::tests(),
        pictures::tests(),
        statistics::tests(),
        values::tests(),
        waiting::tests(),
    ];
    parts.into_iter().flatten().collect()
}

fn leaf(path: &str, n: u32) -> u32 {
    note(path, n);
    n
}

fn sum(path: &str, a: u32, b: u32) -> u32 {
    note(path, 100 + a + b);
    a + b
}

fn half(x: u32) -> Result<u32, String> {
    if x.is_multiple_of(2) {
        Ok(x / 2)
    } else {
        Err(format!("{x} is odd"))
    }
}

fn down(x: u32) -> u32 {
    x - 1
}

fn end(pid: i32) {
    send_signal(pid, Signal::SIGKILL);
}
