//! What every test with real engines gets: a watchdog that fails with a dump instead of hanging, and a check of what is
//! left over. Shared by several test binaries, each of which uses a part of it; the lab and the runs also with
//! `arenite soak`, which is where they lie.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

#[path = "../../bin/src/soak/lab/mod.rs"]
mod lab;
#[path = "../../bin/src/soak/runs/mod.rs"]
pub mod runs;

use std::time::Duration;

use libtest_mimic::{Failed, Trial};

pub use lab::{
    Answers, Gate, Invariant, Lab, children, expect_in_use, pass, patience, processes_with, step,
    wait_until, watched,
};

/// A list of trials out of functions.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$(crate::harness::trial(concat!(module_path!(), "::", stringify!($name)), $name)),+]
        }
    };
}
pub(crate) use tests;

/// A trial by the name of its path, without that of the test binary.
pub fn trial(path: &'static str, test: fn()) -> Trial {
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    named(name, test)
}

/// A trial by its name.
pub fn named(name: impl Into<String>, test: impl Fn() + Clone + Send + 'static) -> Trial {
    Trial::test(name, move || {
        for _ in 0..times() {
            run(test.clone())?;
        }
        Ok(())
    })
}

/// How often each trial runs: `ARENITE_TIMES` makes it more, for who looks for what happens once in a thousand times.
fn times() -> u64 {
    let asked = std::env::var("ARENITE_TIMES").ok();
    asked.map_or(1, |text| text.parse().unwrap())
}

/// Whether figures are asserted rather than told: `ARENITE_STRICT_FIGURES` asks for it, for a machine that has nothing else to
/// do.
pub fn figures_are_strict() -> bool {
    std::env::var_os("ARENITE_STRICT_FIGURES").is_some()
}

/// Something took as long as was promised, or less; looked at only where [`figures_are_strict`].
#[track_caller]
pub fn expect_figure(what: &str, took: Duration, promised: Duration) {
    assert!(
        took <= promised || !figures_are_strict(),
        "{what} {took:.1?}, and at most {promised:?} was promised"
    );
}

fn run(test: impl FnOnce() + Send + 'static) -> Result<(), Failed> {
    let before = Invariant::before();
    lab::watched(lab::patience(), move || {
        test();
        Ok(())
    })?;
    before.nothing_left().map_err(Failed::from)
}
