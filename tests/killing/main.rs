//! Workers and supervisors killed and stopped at each step of the protocols; see `arenite::points`.
//!
//! One program, because a worker is a copy of it. Tests of a process run one after the other: they share a board, and each is
//! checked for leftovers.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod arrays;
mod board;
#[path = "../common/mod.rs"]
mod harness;
mod lanes;
mod model;
mod orphans;
mod passings;
mod policies;
mod programs;
mod reached;
mod reduced;
mod retained;
mod scene;
mod spawned;
mod stopped;
mod strict;
mod sums;
mod supervisors;
mod template;
mod workers;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use libtest_mimic::{Arguments, Trial};

fn main() {
    template::before_init();
    arenite::init();
    // Some tests kill a supervisor, which is this program in another role.
    harness::programs::play(programs::ROLES);
    harness::share_out();
    let folder = board::install();
    harness::before_each(|| board::board().disarm());

    let tests = [
        reached::tests(),
        workers::trials(),
        lanes::trials(),
        model::trials(),
        spawned::trials(),
        reduced::trials(),
        retained::trials(),
        arrays::trials(),
        sums::trials(),
        policies::trials(),
        stopped::trials(),
        strict::trials(),
        supervisors::trials(),
        template::trials(),
        orphans::tests(),
    ];
    let conclusion = harness::run(drawn(tests.into_iter().flatten().collect()));
    drop(folder);
    conclusion.exit();
}

/// Leaves one trial of each point in each group, such as `workers::claim.taken` or `workers::retried::claim.taken` or
/// `workers::spared::claim.taken`, drawn by the seed of this run. A filter, or `ARENITE_VARIANTS=all`, leaves every trial.
fn drawn(trials: Vec<Trial>) -> Vec<Trial> {
    let is_filtered = Arguments::from_args().filter.is_some();
    if is_filtered || std::env::var("ARENITE_VARIANTS").is_ok_and(|which| which == "all") {
        return trials;
    }
    let mut groups: BTreeMap<(String, String), Vec<Trial>> = BTreeMap::new();
    for trial in trials {
        let name = trial.name().to_owned();
        let (path, last) = name.rsplit_once("::").expect("a path");
        // Points have a dot in their names, functions have none.
        let key = match last.contains('.') {
            true => (path.split("::").next().unwrap().to_owned(), last.to_owned()),
            false => (name.clone(), String::new()),
        };
        groups.entry(key).or_default().push(trial);
    }
    let draw = |(key, mut variants): (_, Vec<Trial>)| {
        let mut hasher = DefaultHasher::new();
        (harness::asked::seed(), key).hash(&mut hasher);
        variants.swap_remove((hasher.finish() % variants.len() as u64) as usize)
    };
    groups.into_iter().map(draw).collect()
}
