//! One long map: its rate, and its memory, which must not grow with the length of the map.

use super::{Case, Goal, Setup, Unit, ours};

/// Items of the map.
pub(super) const ITEMS: u64 = 1_000_000;
/// The maximum memory of the map in megabytes. A list of the arguments alone would take 24.
const MAX: f64 = 8.0;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let runs = if setup.quick { 5 } else { 9 };
    let rate = Case::new(
        "map-1m",
        "One map over an iterator of 1,000,000 small arguments, beside as many empty jobs",
        Unit::JobsPerSecond(ITEMS),
    )
    .plan(1, runs, 1)
    .goals(&[Goal::AtLeast(0.8, "noop")])
    .system("arenite", ours::map_of_small_arguments)
    .system("noop", ours::noop_million);
    let memory = Case::new(
        "map-1m-memory",
        "The most memory that such a map adds to an engine that has just started",
        Unit::Megabytes,
    )
    .plan(1, 1, 0)
    .goals(&[Goal::Below(MAX)])
    .note("private memory of this process and of the workers, and all shared memory")
    .system("arenite", ours::map_memory);
    vec![rate, memory]
}
