//! Graphs of empty jobs.

use super::{Case, Goal, Setup, Unit, ours};

/// The number of nodes in the wide graph.
pub(super) const NODES: u64 = 100_000;
/// The number of nodes in one layer of the wide graph.
pub(super) const WIDE: usize = 10;
/// The number of nodes in the chain.
pub(super) const LENGTH: u64 = 10_000;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let runs = if setup.quick { 3 } else { 7 };
    let wide = Case::new(
        "graph-100k",
        "A graph of 100,000 empty nodes, 10 wide, beside as many jobs that depend on nothing",
        Unit::NanosecondsPerJob(NODES),
    )
    .plan(1, runs, 1)
    .goals(&[Goal::AtMost(3.0, "independent")])
    .system("arenite", ours::graph_layers)
    .system("independent", ours::graph_independent);
    let chain = Case::new(
        "chain-10k",
        "A graph of 10,000 empty nodes, each of which takes the value of the one before",
        Unit::NanosecondsPerJob(LENGTH),
    )
    .plan(1, runs, 1)
    .goals(&[Goal::AtMost(0.2, "unfused")])
    .system("fused", |setup| ours::graph_chain(setup, true))
    .system("unfused", |setup| ours::graph_chain(setup, false));
    vec![wide, chain]
}
