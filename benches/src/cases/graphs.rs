//! Empty jobs that take each other's values.

use super::{Case, Goal, Setup, Unit, ours};

/// The number of jobs in the wide graph.
pub(super) const NODES: u64 = 100_000;
/// The number of jobs in one layer of the wide graph.
pub(super) const WIDE: usize = 10;
/// The number of kernels in the chain.
pub(super) const LENGTH: u64 = 10_000;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let runs = if setup.quick { 3 } else { 7 };
    let wide = Case::new(
        "graph-100k",
        "100,000 empty jobs, 10 wide, that each take two values of the layer before, beside as many that take none",
        Unit::NanosecondsPerJob(NODES),
    )
    .plan(1, runs, 1)
    .goals(&[Goal::AtMost(2.0, "independent")])
    .system("arenite", ours::graph_layers)
    .system("independent", ours::graph_independent);
    let chain = Case::new(
        "chain-10k",
        "10,000 empty kernels, each of which takes the value of the one before, as one job each or ten in a job",
        Unit::NanosecondsPerJob(LENGTH),
    )
    .plan(1, runs, 1)
    .goals(&[Goal::AtMost(0.2, "unfused")])
    .system("fused", |setup| ours::graph_chain(setup, true))
    .system("unfused", |setup| ours::graph_chain(setup, false));
    vec![wide, chain]
}
