//! A template, and copies that are no workers yet, killed and stopped at each step; and its supervisor.

use arenite::Template;
use arenite::engine::WorkerProgram;
use arenite::points::{Fault, Point, Side};
use libtest_mimic::Trial;

use crate::board::{board, of};
use crate::harness::{Invariant, Lab, builder, children, named, wait_until};

/// The first argument of the program of workers.
const RUN: &str = "--template";
/// Passings of a point that are tried, one after the other.
const PASSINGS: u64 = 3;

/// Called in `main`, before `init`.
pub fn before_init() {
    if std::env::args().nth(1).as_deref() == Some(RUN) {
        arenite::run_worker_from_template(b"", &Nothing);
    }
}

struct Nothing;

impl Template for Nothing {
    fn load(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

pub fn trials() -> Vec<Trial> {
    let faults = [("killed", Fault::Kill), ("stopped", Fault::Stop)];
    let trial = |point: &'static Point| {
        faults.map(|(how, fault)| {
            let name = format!("template::{how}::{}", point.name);
            named(name, move || at(point, fault))
        })
    };
    of(Side::Template).flat_map(trial).collect()
}

/// Whatever happens to the template or a copy, the engine starts, and replaces its workers. Nothing is left.
fn at(point: &'static Point, fault: Fault) {
    let is_once = matches!(point.name, "template.started" | "template.loaded");
    for passing in 0..if is_once { 1 } else { PASSINGS } {
        let invariant = Invariant::before();
        let from = board().passed(point.name) + passing;
        board().arm(point.name, fault, from..from + 1);
        let program = WorkerProgram::new(std::env::current_exe().unwrap())
            .args([RUN])
            .template("");
        let engine = builder(2, 64 << 20)
            .start_timeout(std::time::Duration::from_secs(3))
            .worker_program(program)
            .build()
            .unwrap();
        let lab = Lab::of(engine);
        for worker in [0, 1, 0] {
            let double = lab.job(|n: u32| 2 * n, (worker as u32,)).retries(1);
            assert_eq!(double.submit().wait().unwrap(), 2 * worker as u32);
            lab.replace(worker);
        }
        board().disarm();
        lab.into_inner().shutdown();
        assert!(
            board().passed(point.name) > from,
            "passing {passing} was not reached"
        );
        wait_until("no process is left", || children().is_empty());
        invariant.nothing_left().unwrap();
    }
}
