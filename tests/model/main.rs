//! The programming model on real workers: what each part of it promises, also when a worker dies in the middle.
//!
//! One binary, because a worker is a copy of the running program. Tests of a process run one after the other: each is checked for
//! what it leaves behind in the process and in the system.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod actors;
mod ahead;
mod flat;
mod futures;
mod graph;
mod groups;
#[path = "../common/mod.rs"]
mod harness;
mod inlined;
mod lanes;
mod limiter;
mod maps;
mod numbers;
mod observing;
mod origins;
mod random;
mod rounds;
mod scopes;
mod spawn;
mod streams;

fn main() {
    arenite::init();
    // A program to be killed: this one, told what to do.
    harness::programs::play(observing::SCENARIOS);
    harness::share_out();
    // It stays, and no test has left it behind.
    futures::start_reactor();

    let tests = [
        // In the order of the alphabet.
        actors::tests(),
        ahead::tests(),
        flat::tests(),
        futures::tests(),
        graph::tests(),
        groups::tests(),
        inlined::tests(),
        lanes::tests(),
        limiter::tests(),
        maps::tests(),
        numbers::tests(),
        observing::tests(),
        origins::tests(),
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
