//! What observing costs: the same jobs with a trace and looks at the progress, and without.

use super::super::work;
use super::{Case, Goal, Setup, Unit, ours};

/// Jobs in one operation.
const JOBS: usize = 1_000;
/// Microseconds of each.
const EACH: f64 = 50.0;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let case = Case::new(
        "trace",
        "1,000 jobs of 50 µs, with a trace and a look at the progress every 100 jobs, and without",
        Unit::Milliseconds,
    )
    .plan(if setup.quick { 2 } else { 5 }, 15, 1)
    .goals(&[Goal::AtMost(1.02, "off")])
    .system("arenite", |setup| ours::traced(setup, &jobs()))
    .system("off", |setup| ours::mixed(setup, &jobs()));
    vec![case]
}

fn jobs() -> Vec<u64> {
    vec![(work::turns_per_microsecond() * EACH) as u64; JOBS]
}
