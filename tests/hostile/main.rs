//! Attacks from the environment and from inside a worker, with real processes: each has exactly its documented cost.
//!
//! Tests run one after the other: each is checked for what it leaves behind in the process and in the system.

#![allow(clippy::unwrap_used, reason = "tests")]

#[cfg(feature = "points")]
mod calls;
mod full;
#[path = "../common/mod.rs"]
mod harness;
mod limits;
mod maps;
mod stale;
#[cfg(feature = "points")]
mod strangers;
mod surroundings;
mod taken;
mod users;
mod wild;
mod words;

use libtest_mimic::Arguments;

fn main() {
    arenite::init();
    // Most tests run a program in its own environment: this one, started with a scenario.
    let scenarios = [
        #[cfg(feature = "points")]
        calls::SCENARIOS,
        full::SCENARIOS,
        limits::SCENARIOS,
        #[cfg(feature = "points")]
        strangers::SCENARIOS,
        surroundings::SCENARIOS,
        taken::SCENARIOS,
    ];
    harness::programs::play(&scenarios.concat());
    harness::share_out();

    let tests = [
        #[cfg(feature = "points")]
        calls::tests(),
        full::tests(),
        limits::tests(),
        surroundings::tests(),
        #[cfg(feature = "points")]
        strangers::tests(),
        stale::tests(),
        taken::tests(),
        wild::tests(),
        words::tests(),
    ];
    let mut tests: Vec<_> = tests.into_iter().flatten().collect();
    // The rest is for release builds, where it takes a fifth of the time; in a debug build it runs by name.
    let filtered = Arguments::from_args().filter.is_some();
    if cfg!(feature = "points") && !filtered {
        tests.retain(|trial| {
            ["calls::", "strangers::"]
                .iter()
                .any(|part| trial.name().starts_with(part))
        });
    }
    harness::run(tests).exit();
}
