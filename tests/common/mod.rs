//! The harness of tests with real engines: a watchdog that fails with a dump instead of hanging, and a check for leftovers.
//! Shared by several test programs, each of which uses a part.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test binary uses a part"
)]

pub mod asked;
mod bytes;
mod diary;
mod environment;
mod errors;
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

pub use asked::not_tried;
pub use bytes::{are_all, filled, made, vandal};
pub use diary::{Diary, note, note_after, numbers};
pub use environment::Env;
pub use errors::{ABORTED, KILLED, assert_says, by_signal, cause_of, late, panicked, rejected};
pub use futures::{WakeFlag, block_on};
pub use lab::{
    Answers, Calls, Dice, End, Gate, Invariant, Lab, at_gates, builder, case, children,
    expect_in_use, field_of, hang, judge, pass, patience, private_bytes, processes_of, refused,
    send_signal, state_of, status_of, step, through, wait_until, watched,
};
pub use shares::{run, share_out};

/// Returns the number of names in /dev/shm that contain `part`.
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

/// Builds a list of trials from functions. Those after a condition are ignored where it does not hold.
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

/// Asserts the kind of an error; the message of the failure is the error.
macro_rules! assert_kind {
    ($error:expr, $kind:pat $(if $condition:expr)?) => {
        match &$error {
            error => assert!(matches!(error.kind(), $kind $(if $condition)?), "{error}"),
        }
    };
}
pub(crate) use assert_kind;

/// Returns a trial named by its path, without the name of the test program.
pub fn trial(path: &'static str, test: fn()) -> Trial {
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    named(name, test)
}

/// Returns a trial with this name.
pub fn named(name: impl Into<String>, test: impl Fn() + Clone + Send + 'static) -> Trial {
    Trial::test(name, move || {
        for round in 0..asked::times() {
            once(round, test.clone())?;
        }
        Ok(())
    })
}

thread_local! {
    /// How often the trial of this thread has run before.
    static ROUND: Cell<u64> = const { Cell::new(0) };
}

/// Returns whether figures are asserted, not only printed: `ARENITE_STRICT_FIGURES`, for an idle machine.
pub fn figures_are_strict() -> bool {
    std::env::var_os("ARENITE_STRICT_FIGURES").is_some()
}

/// Asserts that something took at most the promised time, if [`figures_are_strict`].
#[track_caller]
pub fn expect_figure(what: &str, took: Duration, promised: Duration) {
    assert!(
        took <= promised || !figures_are_strict(),
        "{what} {took:.1?}, more than the promised {promised:?}"
    );
}

/// Returns seeds for `count` cases of a trial, new ones for each repetition. A trial names the current one by [`case`];
/// `ARENITE_FUZZ_SEED` starts with it.
pub fn seeds(count: u64) -> Range<u64> {
    let first = asked::first_seed().wrapping_add(ROUND.get().wrapping_mul(count));
    first..first.saturating_add(count)
}

/// Called before each trial, to clean up after a failed one.
static BEFORE_EACH: OnceLock<fn()> = OnceLock::new();

/// Sets the function that is called before each trial. Call it once, before the first trial.
pub fn before_each(tidy: fn()) {
    assert!(BEFORE_EACH.set(tidy).is_ok(), "it is set once");
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
