//! One long map.

use super::{Case, Goal, Setup, Unit, ours};

/// Items of the map.
pub(super) const ITEMS: u64 = 1_000_000;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let runs = if setup.quick { 5 } else { 9 };
    vec![
        Case::new(
            "map-1m",
            "One map over an iterator of 1,000,000 small arguments, beside as many empty jobs",
            Unit::JobsPerSecond(ITEMS),
        )
        .plan(1, runs, 1)
        .goals(&[Goal::AtLeast(0.8, "noop")])
        .system("arenite", ours::map_of_small_arguments)
        .system("noop", ours::noop_million),
    ]
}
