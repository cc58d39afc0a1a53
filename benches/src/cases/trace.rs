//! The cost of observation: the same jobs with a trace and progress queries, and without them.
//!
//! The trace is complete: the file of events, written while the jobs run, and the statistics of the report. The page of
//! the report is written when the engine ends, outside the measurement.
//!
//! *Off* is an engine without a trace, in the same program. There is no program compiled without traces to compare
//! with, but the remaining cost is only a flag in a word of each job that is read anyway.

use super::{Case, Goal, Setup, Unit, ours};
use crate::work;

/// The number of jobs in one operation.
const JOBS: usize = 1_000;
/// The time of each job in microseconds.
const EACH: f64 = 50.0;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let case = Case::new(
        "trace",
        "1,000 jobs of 50 µs, with a trace and a progress query every 100 jobs, and without",
        Unit::Milliseconds,
    )
    .plan(
        if setup.quick { 2 } else { 5 },
        if setup.quick { 15 } else { 31 },
        1,
    )
    .goals(&[Goal::AtMost(1.02, "off")])
    .note("off: an engine without a trace; its figure includes the test of a flag for each job")
    .system("arenite", |setup| ours::traced(setup, &jobs()))
    .system("off", |setup| ours::mixed(setup, &jobs()));
    vec![case]
}

fn jobs() -> Vec<u64> {
    vec![(work::turns_per_microsecond() * EACH) as u64; JOBS]
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_systems_are_given_the_same_jobs() {
        assert_eq!(super::jobs(), super::jobs());
    }
}
