//! The programming model on real workers: the promises of each part, also when workers are killed.
//!
//! One binary, because a worker is a copy of the running program. Tests of a process run one after the other, and each
//! is checked for leftovers in the process and in the system.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod actors;
mod ahead;
mod flat;
mod futures;
mod groups;
mod handles;
#[path = "../common/mod.rs"]
mod harness;
mod lanes;
mod limiter;
mod maps;
mod narrow;
mod numbers;
mod observing;
mod origins;
mod programs;
mod random;
mod rounds;
mod scopes;
mod spawn;
mod streams;

fn main() {
    arenite::init();
    // Runs as a program to be killed, if a test asks for it.
    harness::programs::play(observing::SCENARIOS);
    harness::share_out();
    // Started first, so that no test is blamed for its thread.
    futures::start_reactor();

    let tests = [
        // Alphabetical.
        actors::tests(),
        ahead::tests(),
        flat::tests(),
        futures::tests(),
        groups::tests(),
        handles::tests(),
        lanes::tests(),
        limiter::tests(),
        maps::tests(),
        numbers::tests(),
        observing::tests(),
        origins::tests(),
        programs::tests(),
        random::tests(),
        rounds::tests(),
        scopes::tests(),
        spawn::tests(),
        streams::tests(),
        streams::ends::tests(),
        streams::windows::tests(),
    ];
    harness::run(tests.into_iter().flatten().collect()).exit();
}
