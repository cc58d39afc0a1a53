//! Every kill point is passed by a run without deaths.

use arenite::points::{POINTS, Side};

use crate::arrays;
use crate::board::{board, of};
use crate::harness::{Invariant, Lab, tests};
use crate::model;
use crate::programs::{Home, LIVES, run_to_its_end};
use crate::reduced;
use crate::retained;
use crate::scene::{Kind, Played, Policy};
use crate::strict;
use crate::workers::{judge, play};

tests![
    every_point_of_a_worker_is_passed,
    every_point_of_the_supervisor_is_passed,
    names_say_the_step,
];

fn every_point_of_a_worker_is_passed() {
    let before: Vec<u64> = POINTS
        .iter()
        .map(|point| board().passed(point.name))
        .collect();
    for (kind, replace) in [(Kind::Plain, false), (Kind::Sandboxed, true)] {
        let is_right = |_: &Lab, played: &Played| _ = judge(played, Policy::NONE, 0, 0).unwrap();
        play(kind, Policy::NONE, replace, |_| {}, is_right);
    }
    model::undisturbed();
    reduced::undisturbed();
    retained::undisturbed();
    arrays::undisturbed();
    let missed: Vec<_> = POINTS
        .iter()
        .zip(before)
        .filter(|(point, before)| {
            point.side == Side::Worker && board().passed(point.name) == *before
        })
        .map(|(point, _)| point.name)
        .collect();
    assert!(missed.is_empty(), "not passed: {missed:?}");
}

fn every_point_of_the_supervisor_is_passed() {
    let invariant = Invariant::before();
    // A persistent name is not removed early.
    let others = [(LIVES[0], true), (strict::ROLE, false)];
    let lives = LIVES.map(|role| (role, false)).into_iter().chain(others);
    let mut passed = Vec::new();
    for (role, kept) in lives {
        let home = Home::new(kept);
        run_to_its_end(&home, role);
        passed.extend(home.passed(false));
    }
    let missed: Vec<_> = of(Side::Supervisor)
        .filter(|point| !passed.contains(&point.name))
        .map(|point| point.name)
        .collect();
    assert!(missed.is_empty(), "not passed: {missed:?}");
    invariant.nothing_left().unwrap();
}

fn names_say_the_step() {
    for (at, point) in POINTS.iter().enumerate() {
        assert!(point.name.split('.').count() == 2, "{}", point.name);
        assert!(POINTS[..at].iter().all(|other| other.name != point.name));
    }
    // Both sides have points for each step.
    let steps = |side| of(side).map(|point| point.step()).collect::<Vec<_>>();
    for step in [
        "attach", "claim", "run", "cancel", "allocate", "publish", "complete", "subtree", "state",
        "stop", "retain", "release",
    ] {
        assert!(steps(Side::Worker).contains(&step), "{step}");
    }
    for step in [
        "deadline", "condemn", "retry", "cancel", "recycle", "admit", "create", "spawn", "submit",
        "drain", "copy", "commit", "grant", "recover", "input", "actor", "call", "save", "tasks",
        "stop",
    ] {
        assert!(steps(Side::Supervisor).contains(&step), "{step}");
    }
}
