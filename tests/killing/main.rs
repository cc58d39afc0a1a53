//! Workers and supervisors killed and stopped at each step of the protocols; see `arenite::points`.
//!
//! One program, because a worker is a copy of it. Tests of a process run one after the other: they share a board, and each is
//! checked for leftovers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod board;
#[path = "../common/mod.rs"]
mod harness;
mod lanes;
mod model;
mod orphans;
mod passings;
mod policies;
mod programs;
mod reached;
mod reduced;
mod retained;
mod scene;
mod spawned;
mod stopped;
mod strict;
mod sums;
mod supervisors;
mod workers;

fn main() {
    arenite::init();
    // Some tests kill a supervisor, which is this program in another role.
    harness::programs::play(programs::ROLES);
    harness::share_out();
    let folder = board::install();
    harness::before_each(|| board::board().disarm());

    let tests = [
        reached::tests(),
        workers::trials(),
        lanes::trials(),
        model::trials(),
        spawned::trials(),
        reduced::trials(),
        retained::trials(),
        sums::trials(),
        policies::trials(),
        stopped::trials(),
        strict::trials(),
        supervisors::trials(),
        orphans::tests(),
    ];
    let conclusion = harness::run(tests.into_iter().flatten().collect());
    drop(folder);
    conclusion.exit();
}
