//! Attacks from the environment and from inside a worker, with real processes: each costs what it must, and nothing else.
//!
//! Tests run one after the other: each is checked for what it leaves behind in the process and in the system.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../common/mod.rs"]
mod harness;
mod maps;
mod wild;
mod words;

use libtest_mimic::Arguments;

fn main() {
    arenite::init();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let tests = [wild::tests(), words::tests()];
    libtest_mimic::run(&arguments, tests.into_iter().flatten().collect()).exit();
}
