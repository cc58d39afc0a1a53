//! Faults at random moments: short runs of what `arenite soak` does for as long as one likes. Figures are printed, not
//! asserted: the machine may have other things to do.

use std::time::Duration;

use crate::harness::runs::storm::Blow;
use crate::harness::runs::{Order, Seen, bombs, crashes, deadlines, scale, storm};
use crate::harness::tests;

tests![
    of_kills,
    of_stops,
    jobs_that_end_at_their_deadlines,
    jobs_that_hang,
    poison_among_others,
    a_flood_of_poison,
    memory_bombs,
    tiny_jobs_for_many_workers,
    engines_that_start_and_stop,
];

/// Longer with the number of seconds in this variable.
const SECONDS: &str = "ARENITE_TEST_STORM_SECONDS";

fn play(run: impl Fn(Order) -> Result<Seen, String>) {
    let asked = std::env::var(SECONDS).ok();
    let seconds = asked.and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let order = Order {
        seed: 4711,
        length: Duration::from_secs_f64(seconds),
        strict: false,
    };
    let seen = run(order).unwrap_or_else(|why| panic!("{why}"));
    println!("{seen:?}");
    assert!(seen.jobs > 0);
}

fn of_kills() {
    play(|order| storm::run(order, Blow::Kill));
}

fn of_stops() {
    play(|order| storm::run(order, Blow::Stop));
}

fn jobs_that_end_at_their_deadlines() {
    play(deadlines::race);
}

fn jobs_that_hang() {
    play(deadlines::hung);
}

fn poison_among_others() {
    play(crashes::poison_among_others);
}

fn a_flood_of_poison() {
    play(crashes::flood);
}

fn memory_bombs() {
    play(bombs::run);
}

fn tiny_jobs_for_many_workers() {
    play(|order| scale::tiny_jobs(order, 64, 10_000));
}

fn engines_that_start_and_stop() {
    play(scale::cycles);
}
