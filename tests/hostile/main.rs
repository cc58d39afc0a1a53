//! Attacks from the environment and from inside a worker, with real processes: each has exactly its documented cost.
//!
//! Tests run one after the other: each is checked for what it leaves behind in the process and in the system.

#![allow(clippy::unwrap_used, reason = "tests")]

#[cfg(feature = "points")]
mod calls;
mod full;
#[path = "../common/mod.rs"]
mod harness;
#[path = "../common/lacking.rs"]
#[allow(dead_code, reason = "it is used in part here")]
mod kernels;
mod limits;
mod maps;
mod refused;
mod stale;
#[cfg(feature = "points")]
mod strangers;
mod surroundings;
mod taken;
mod users;
mod wild;
mod words;

fn main() {
    arenite::init();
    // Most tests run a program in its own environment: this one, started with a scenario.
    let scenarios = [
        #[cfg(feature = "points")]
        calls::SCENARIOS,
        limits::SCENARIOS,
        refused::SCENARIOS,
        #[cfg(feature = "points")]
        strangers::SCENARIOS,
        surroundings::SCENARIOS,
        taken::SCENARIOS,
    ];
    harness::programs::play(&[scenarios.concat(), full::scenarios()].concat());
    harness::share_out();

    let tests = [
        #[cfg(feature = "points")]
        calls::tests(),
        full::tests(),
        limits::tests(),
        refused::tests(),
        surroundings::tests(),
        #[cfg(feature = "points")]
        strangers::tests(),
        stale::tests(),
        taken::tests(),
        wild::tests(),
        words::tests(),
    ];
    harness::run(tests.into_iter().flatten().collect()).exit();
}
