//! Workers killed while they run spawned jobs, and the steps of the supervisor for those.

use arenite::points::{Point, Side};
use arenite::{Array, Backoff, Engine, FailedDependency, JobErrorKind, Spawn, call};
use libtest_mimic::Trial;

use crate::board::points;
use crate::harness::{Invariant, KILLED, Lab, assert_kind};
use crate::passings::{Death, Saw, once_and_retried};
use crate::workers::costs_a_job;

/// Steps of a job at which earlier events make a difference.
const STEPS: [&str; 6] = [
    "claim.taken",
    "run.entered",
    "publish.settled",
    "publish.filled",
    "complete.stored",
    "complete.rung",
];

pub fn trials() -> Vec<Trial> {
    let mine = points(Side::Worker).filter(|point| STEPS.contains(&point.name));
    once_and_retried("spawned", mine, 3, scene)
}

fn sort(values: &Array<u32>) -> Spawn<Array<u32>> {
    if values.len() <= 50 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        return Array::from_slice(&sorted).into();
    }
    let half = values.len() / 2;
    let halves = (values.rows(..half), values.rows(half..));
    Spawn::new(merge, (call(sort, (halves.0,)), call(sort, (halves.1,))))
}

fn merge(left: &[u32], right: &[u32]) -> Array<u32> {
    let mut both = [left, right].concat();
    both.sort();
    Array::from_slice(&both)
}

fn numbers() -> Vec<u32> {
    (0..1_000).map(|n| n * 7_919 % 1_009).collect()
}

/// Runs a job that spawns others, during which a worker is killed at this passing.
fn scene(point: &'static Point, retries: u32, passing: Option<u64>) -> Result<Saw, String> {
    let mut expected = numbers();
    expected.sort_unstable();
    let invariant = Invariant::before();
    let lab = Lab::new(1);
    let values = lab.from_slice(&numbers()).unwrap();
    let death = Death::arm(point, passing);
    let job = lab.job(sort, (&values,)).retries(retries);
    let sorted = job.backoff(Backoff::NONE).submit().wait();
    let (saw, hit) = death.disarm(&lab);
    match &sorted {
        Ok(sorted) => {
            assert!(sorted[..] == expected);
            let is_whole = retries > 0 || hit == 0 || !costs_a_job(point);
            assert!(is_whole, "a job that its worker died of ran again");
        }
        Err(error) => {
            let cause = match error.kind() {
                JobErrorKind::Dependency(FailedDependency::Child { cause, .. }) => cause,
                own => own,
            };
            assert_eq!(*cause, KILLED);
            assert!(retries == 0 && saw.deaths == 1, "{error}");
        }
    }
    drop((sorted, values));
    invariant.ends(lab)?;
    Ok(saw)
}

/// The scenario of a killed supervisor: a job that spawns others, and one whose spawned job fails.
pub fn live() {
    let engine = Engine::builder().workers(1).capacity(64 << 20).build();
    let engine = engine.expect("an engine can be built");
    let values = engine.from_slice(&numbers()).unwrap();
    let sorted = engine.submit(sort, (&values,)).wait().unwrap();
    assert!(sorted.is_sorted());
    let spawns = |n: u32| -> Spawn<u32> { Spawn::new(|n: u32| n, (call(broken, (n,)),)) };
    let error = engine.submit(spawns, (7,)).wait().unwrap_err();
    assert_kind!(
        error,
        JobErrorKind::Dependency(FailedDependency::Child { .. })
    );
    engine.shutdown();
}

fn broken(n: u32) -> Result<u32, String> {
    Err(format!("{n}"))
}
