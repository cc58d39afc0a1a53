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

use crate::harness::{
    ABORTED, Diary, Gate, Lab, are_all, filled, note, pass, step, tests, wait_until,
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

/// Waits at the gate and returns the number.
fn at_gate(gate: &str, n: u32) -> u32 {
    pass(gate);
    n
}

/// Waits at the gate and fails.
fn bad_at_gate(gate: &str) -> Result<u32, String> {
    pass(gate);
    Err("bad".into())
}

/// Returns the name, kernel and cause of the failed node that this failure comes from.
#[track_caller]
fn failed_node(error: &JobError) -> (&str, &str, &JobErrorKind) {
    let JobErrorKind::Dependency(FailedDependency::Node {
        node,
        kernel,
        cause,
        ..
    }) = error.kind()
    else {
        panic!("{error}");
    };
    (node, kernel, cause)
}

/// Checks that a node did not run because the graph was stopped by a failure with this text.
#[track_caller]
fn assert_stopped(error: &JobError, by: &str) {
    assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    let origin = error.origin().expect("the failure");
    assert_eq!(*origin.kind(), JobErrorKind::Returned(by.into()));
}
