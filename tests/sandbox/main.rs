//! Sandboxed workers: what hostile kernels try in vain, and what honest ones can still do.
//!
//! One binary, because a worker is a copy of the running program. A test is listed as ignored if Linux lacks the
//! feature it needs, or if it inspects a sandboxed worker from outside without being root.

#![allow(clippy::unwrap_used, reason = "tests")]

mod calls;
#[path = "../common/mod.rs"]
mod harness;
mod images;
#[path = "../common/lacking.rs"]
mod kernels;
mod lab;
mod lacking;
mod maps;
mod model;
mod resources;
#[path = "../hostile/maps.rs"]
#[allow(dead_code, reason = "it is used in part here")]
mod segments;
mod surroundings;
mod wild;
mod work;

use arenite::SandboxReport;
use libtest_mimic::Arguments;

fn main() {
    arenite::init();
    // Some tests need Linux without a feature: this program, started under a system call filter.
    harness::programs::play(lacking::SCENARIOS);
    surroundings::hide_secrets_in_the_environment();

    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let report = SandboxReport::of_this_kernel();
    let lacks = |part: &str| {
        report
            .lacking()
            .iter()
            .any(|lacking| lacking.starts_with(part))
    };
    let tests = [
        (calls::tests(), "seccomp"),
        (maps::tests(), "seccomp"),
        (maps::sealed::tests(), "mseal"),
        (surroundings::tests(), "seccomp"),
        (images::tests(), "nothing"),
        (lacking::tests(), "nothing"),
        (model::tests(), "seccomp"),
        (resources::tests(), "seccomp"),
        (wild::tests(), "seccomp"),
        (work::tests(), "nothing"),
    ];
    let tests = tests.into_iter().flat_map(|(tests, needed)| {
        let lacking = lacks(needed);
        tests
            .into_iter()
            .map(move |test| match test.has_ignored_flag() {
                true => test,
                false => test.with_ignored_flag(lacking),
            })
    });
    libtest_mimic::run(&arguments, tests.collect()).exit();
}
