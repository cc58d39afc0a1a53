//! Graphs: each node once, in whatever order, whatever dies meanwhile.

mod failures;
mod memory;
mod pictures;
mod statistics;
mod storms;
mod values;
mod waiting;

use std::io::Write;

use arenite::{Array, ArrayMut, Engine, Graph, GraphError, JobError, JobErrorKind, Node};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Gate, Lab, pass, step, tests, wait_until};

/// The tests of all parts.
pub fn tests() -> Vec<libtest_mimic::Trial> {
    let parts = [
        failures::tests(),
        memory::tests(),
        pictures::tests(),
        statistics::tests(),
        storms::tests(),
        values::tests(),
        waiting::tests(),
    ];
    parts.into_iter().flatten().collect()
}

fn note(path: &str, n: u32) {
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.write_all(format!("{n}\n").as_bytes()).unwrap();
}

fn notes(path: &str) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// A file that kernels write to.
fn notebook() -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
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
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the worker exists");
}
