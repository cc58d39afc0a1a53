//! Sandboxed workers, and their supervisor, killed at the steps that only they have, and at the common steps of a job and of a
//! recovery.
//!
//! The scene is that of the other suites without jobs that modify in place.

use std::time::Duration;

use arenite::Sandbox;
use arenite::points::{Point, Side};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::board::{locked, of};
use crate::harness::{builder, named, send_signal, wait_until};
use crate::programs::workers_are_busy;
use crate::scene::{Kind, Policy, input, large, len_of};
use crate::supervisors::{self, Round};
use crate::workers::{RETRIED, at};

/// Steps of a job in the worker.
const COMMON: [&str; 11] = [
    "claim.taken",
    "claim.retracted",
    "run.entered",
    "run.returned",
    "cancel.seen",
    "allocate.granted",
    "publish.spilled",
    "publish.settled",
    "publish.filled",
    "complete.stored",
    "complete.rung",
];

pub fn trials() -> Vec<Trial> {
    let name = |point: &Point| format!("strict::{}", point.name);
    let retried = |point: &Point| format!("strict::retried::{}", point.name);
    let common = of(Side::Worker).filter(|point| COMMON.contains(&point.name));
    let workers = locked(Side::Worker).chain(common).flat_map(|point| {
        let play = |policy| move || at(Kind::Sandboxed, point, policy);
        [
            named(name(point), play(Policy::NONE)),
            named(retried(point), play(RETRIED)),
        ]
    });
    let ours = |point: &&Point| point.step() == "recover" || point.name == "drain.received";
    let supervisors = of(Side::Supervisor)
        .filter(ours)
        .chain(locked(Side::Supervisor))
        .map(|point| named(name(point), move || supervisor_at(point)));
    workers.chain(supervisors).collect()
}

// ---- the supervisor dies ------------------------------------------------------------------------------------

/// The role of a program with sandboxed workers.
pub const ROLE: &str = "strict";

fn supervisor_at(point: &'static Point) {
    // The first, second and last passing of copies; the others are passed once.
    let passings = match point.step() {
        "copy" => [1, 2, COPIES],
        _ => [1; 3],
    };
    let kept = [true, false, true].into_iter();
    let rounds = kept.zip(passings);
    supervisors::at(
        point,
        |_| vec![ROLE],
        rounds.map(|(kept, passing)| Round::Later { kept, passing }),
    );
}

/// Results that it copies while a worker is busy forever.
const COPIES: u64 = 4;

fn spin() -> u64 {
    loop {
        std::hint::spin_loop();
    }
}

/// The role of a supervisor that copies results of sandboxed workers, one of which is busy forever, and replaces the other.
pub fn live() {
    let mut builder = builder(2, 64 << 20)
        .grace(Duration::from_millis(50))
        .sandbox(Sandbox::Strict);
    if let Some(name) = crate::programs::name() {
        builder = builder.name(name);
    }
    let engine = builder.build().expect("an engine can be built");
    engine.submit(spin, ()).detach();
    wait_until("a worker is busy, and the other one ready", || {
        let workers = engine.stats().workers;
        workers.iter().all(|worker| worker.ready) && workers.iter().any(|worker| worker.open > 0)
    });
    workers_are_busy();
    let input = engine.from_slice(&input()).unwrap();
    let again = || {
        let made = engine.submit(large, ("", &input, 1)).wait().unwrap();
        assert_eq!(made.len(), len_of(1));
    };
    (1..COPIES).for_each(|_| again());
    let workers = engine.stats().workers;
    let idle = workers.iter().find(|worker| worker.open == 0).unwrap();
    send_signal(idle.pid as i32, Signal::SIGKILL);
    again();
}
