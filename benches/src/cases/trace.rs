//! What observing costs: the same jobs with a trace and looks at the progress, and without.
//!
//! The trace is all there is: the file of events, written while the jobs run, and the figures of the report, which are kept
//! meanwhile; its page is written when the engine ends, outside of what is measured.
//!
//! *Off* is an engine that nobody asked for a trace, in the same program. There is no program to compare it with that has
//! never heard of traces: what is left of them is a bit in the form of each job, which is looked at where the form is looked
//! at anyway, so that off costs nothing by construction and not by measurement.

use super::{Case, Goal, Setup, Unit, ours};
use crate::work;

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
    .plan(if setup.quick { 2 } else { 5 }, if setup.quick { 15 } else { 31 }, 1)
    .goals(&[Goal::AtMost(1.02, "off")])
    .note("off: an engine that was not asked for a trace; what it does for traces is in the figure, a look at a bit of each job")
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
