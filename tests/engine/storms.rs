//! Faults at random moments: short runs of the soak. Numbers are printed, and asserted only on request, in runs that
//! are long enough for that: the machine may be busy.

use std::time::Duration;

use crate::harness::runs::{Order, Seen, bombs, crashes, deadlines, scale, stops};
use crate::harness::{Env, case, figures_are_strict, seeds, tests};

tests![
    random_stops_at_deadlines,
    jobs_that_end_at_their_deadlines,
    jobs_that_hang,
    poison_jobs_among_others,
    starts_that_fail,
    memory_bombs,
    tiny_jobs_for_many_workers,
    engines_that_start_and_stop,
    a_flood_of_poison,
];

/// Runs for about the first number of seconds, or the second if numbers are asserted. No run ends before it has seen
/// what it tests. A debug build, which mostly does other things, runs for at most 3.
fn play(usual: f64, strict: f64, run: impl Fn(Order) -> Result<Seen, String>) -> Seen {
    let seconds = match figures_are_strict() {
        true => strict,
        false => usual,
    };
    let seconds = match cfg!(debug_assertions) {
        true => seconds.min(3.0),
        false => seconds,
    };
    let seed = seeds(1).start;
    case(format!("seed {seed}"));
    let order = Order {
        seed,
        length: Duration::from_secs_f64(seconds),
        strict: figures_are_strict(),
    };
    let seen = run(order).unwrap_or_else(|why| panic!("{why}"));
    println!("{seen:?}");
    assert!(seen.jobs > 0);
    seen
}

fn random_stops_at_deadlines() {
    play(2.0, 3.0, stops::at_deadlines);
}

fn jobs_that_end_at_their_deadlines() {
    play(0.0, 15.0, deadlines::race);
}

fn jobs_that_hang() {
    play(0.5, 3.0, deadlines::hung);
}

fn poison_jobs_among_others() {
    play(1.0, 1.0, crashes::poison_among_others);
}

fn a_flood_of_poison() {
    play(1.0, 5.0, crashes::flood);
}

fn starts_that_fail() {
    play(1.0, 3.0, crashes::at_start);
}

fn memory_bombs() {
    play(1.0, 10.0, bombs::run);
}

fn tiny_jobs_for_many_workers() {
    play(0.0, 3.0, |order| scale::tiny_jobs(order, 64, 10_000));
}

/// In its own folder for temporary files, in which nothing is left.
fn engines_that_start_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let _env = Env::set("TMPDIR", folder.path());
    play(0.0, 3.0, scale::cycles);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
