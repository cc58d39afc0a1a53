//! What every test with real engines gets: a watchdog that fails with a dump instead of hanging, and a check of what is
//! left over. Shared by several test binaries, each of which uses a part of it.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

mod asked;
mod bytes;
mod diary;
mod environment;
mod futures;
mod lab;
pub mod programs;
pub mod runs;
mod shares;

use std::cell::Cell;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

pub use bytes::{are_all, filled};
pub use diary::{Diary, note, note_after, numbers};
pub use environment::Env;
pub use futures::{WakeFlag, block_on};
pub use lab::{
    Answers, Dice, End, Gate, Invariant, Lab, case, children, expect_in_use, judge, pass, patience,
    private_bytes, processes_of, state_of, step, wait_until, watched,
};
pub use shares::{run, share_out};

/// How many names in /dev/shm have this in them.
pub fn shared_memory_named(part: &str) -> usize {
    let entries = std::fs::read_dir("/dev/shm").unwrap();
    entries
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_str()
                .is_some_and(|name| name.contains(part))
        })
        .count()
}

/// A list of trials out of functions; those behind a condition are listed as ignored where it does not hold.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$(crate::harness::trial(concat!(module_path!(), "::", stringify!($name)), $name)),+]
        }
    };
    ($($name:ident),*; where $holds:expr => $($only:ident),+ $(,)?) => {
        pub fn tests() -> Vec<libtest_mimic::Trial> {
            let trial = crate::harness::trial;
            let mut all = vec![$(trial(concat!(module_path!(), "::", stringify!($name)), $name)),*];
            $(
                let only = trial(concat!(module_path!(), "::", stringify!($only)), $only);
                all.push(only.with_ignored_flag(!$holds));
            )+
            all
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
        for round in 0..asked::times() {
            once(round, test.clone())?;
        }
        Ok(())
    })
}

thread_local! {
    /// How often the trial of this thread was run before.
    static ROUND: Cell<u64> = const { Cell::new(0) };
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

/// Seeds for so many cases of a trial: other ones each time that it runs again. Whoever fails on one names it by [`case`], and
/// `ARENITE_FUZZ_SEED` begins with it.
pub fn seeds(count: u64) -> Range<u64> {
    let first = asked::first_seed().wrapping_add(ROUND.get().wrapping_mul(count));
    first..first.saturating_add(count)
}

/// What is done before each trial, so that none has to do with what a failed one has left.
static BEFORE_EACH: OnceLock<fn()> = OnceLock::new();

/// Says what that is, before the first one.
pub fn before_each(tidy: fn()) {
    assert!(BEFORE_EACH.set(tidy).is_ok(), "it is said once");
}

fn once(round: u64, test: impl FnOnce() + Send + 'static) -> Result<(), Failed> {
    if let Some(tidy) = BEFORE_EACH.get() {
        tidy();
    }
    let before = Invariant::before();
    lab::watched(lab::patience(), move || {
        ROUND.set(round);
        test();
        Ok(())
    })?;
    before.nothing_left().map_err(Failed::from)
}
