//! Workers killed at each step of retaining arrays and of reporting that they are released: whatever was retained is freed
//! exactly once.

use std::sync::Mutex;

use arenite::points::{Point, Side};
use arenite::{Array, Backoff, JobErrorKind};
use libtest_mimic::Trial;

use crate::board::points;
use crate::harness::{Answers, Invariant, KILLED, Lab, builder, step};
use crate::passings::{Death, Saw, once_and_retried, without_death};
use crate::workers::costs_a_job;

/// Steps of a worker that only arrays left behind have.
pub fn owns(point: &Point) -> bool {
    matches!(point.step(), "retain" | "release")
}

/// Steps of every job at which retained arrays make a difference.
const COMMON: [&str; 12] = [
    "claim.taken",
    "claim.announced",
    "run.returned",
    "run.closed",
    "lend.opened",
    "lend.closed",
    "publish.spilled",
    "publish.settled",
    "publish.filled",
    "complete.stored",
    "complete.woken",
    "complete.rung",
];

pub fn trials() -> Vec<Trial> {
    let mine = |point: &&Point| owns(point) || COMMON.contains(&point.name);
    once_and_retried("retained", points(Side::Worker).filter(mine), 2, scene)
}

static KEPT: Mutex<Vec<Array<u32>>> = Mutex::new(Vec::new());

const JOBS: u32 = 24;
const LEN: usize = 5000;

/// Leaves arrays behind, more than a slot can name for some jobs, and drops those of earlier jobs.
fn cache(inputs: &[Array<u32>], job: u32) -> Result<Array<u32>, String> {
    let mut kept = KEPT.lock().unwrap();
    let own = Array::from_fn(LEN * (1 + job as usize % 4 * 10), |_| job);
    if !job.is_multiple_of(3) {
        kept.clear();
    }
    kept.push(own.clone());
    kept.push(Array::from_fn(100, |i| i as u32));
    kept.extend(inputs.iter().take(job as usize % 5 * 4).cloned());
    match job % 8 {
        7 => Err(format!("job {job}")),
        _ => Ok(own),
    }
}

/// Leaves an array behind that was lent to it.
fn own(mut values: arenite::ArrayMut<u32>, job: u32) -> Array<u32> {
    values.fill(job);
    let values = values.seal();
    KEPT.lock().unwrap().push(values.clone());
    values
}

fn forget() {
    KEPT.lock().unwrap().clear();
}

/// The results, and jobs that failed for another reason than a death.
fn reference() -> Vec<Vec<u8>> {
    let of = |job: u32| match job % 8 {
        7 => Vec::new(),
        6 => crate::scene::bytes(&vec![job; LEN]),
        _ => crate::scene::bytes(&vec![job; LEN * (1 + job as usize % 4 * 10)]),
    };
    (0..JOBS).map(of).collect()
}

/// Runs jobs that leave arrays behind, on a worker that is killed at this passing.
fn scene(point: &'static Point, retries: u32, passing: Option<u64>) -> Result<Saw, String> {
    let invariant = Invariant::before();
    let lab = Lab::with(1, |builder| builder.retain_escaped(|| {}));
    let inputs: Vec<_> = (0..16)
        .map(|i| lab.from_slice(&[i; 600]).unwrap())
        .collect();
    let death = Death::arm(point, passing);
    let send = |job: u32| match job % 8 {
        6 => lab.submit(own, (lab.zeros::<u32>(LEN).unwrap(), job)),
        _ => {
            let sent = lab.job(cache, (&inputs, job)).retries(retries);
            sent.backoff(Backoff::NONE).submit()
        }
    };
    // Some find the worker asleep.
    let mut answers = Vec::new();
    for first in (0..JOBS).step_by(6) {
        let jobs: Vec<_> = (first..first + 6).map(send).collect();
        step("every answer");
        let bytes = |values: Array<u32>| crate::scene::bytes(&values);
        answers.extend(jobs.into_iter().map(|job| match job.wait() {
            Err(error) if matches!(error.kind(), JobErrorKind::Returned(_)) => Ok(Vec::new()),
            answer => answer.map(bytes),
        }));
        lab.job(forget, ()).retries(1).submit().wait().unwrap();
    }
    let (saw, hit) = death.disarm(&lab);
    let answers = Answers::compare(answers, &reference())?;
    answers.cost_at_most(saw.deaths as usize, |why| *why == KILLED)?;
    let lost = answers.failed.len();
    if retries == 0 && costs_a_job(point) && hit > 0 && lost > 1 {
        return Err(format!("one death has cost {:?}", answers.failed));
    }
    drop(inputs);
    let retained = lab.stats().retained();
    if retained > 0 {
        return Err(format!("{retained} bytes are retained at the end"));
    }
    invariant.ends(lab)?;
    Ok(saw)
}

/// Runs without deaths: each step is taken. For tests that read the board.
pub fn undisturbed() {
    without_death(owns, |point, passing| scene(point, 0, passing));
}

/// What a supervisor does that is killed: an engine of its own retains arrays.
pub fn live() {
    let engine = builder(1, 64 << 20)
        .retain_escaped(|| {})
        .build()
        .expect("an engine can be built");
    let input = engine.from_slice(&[1u32; 600]).unwrap();
    for job in 0..6 {
        let inputs = vec![input.clone(); 16];
        engine.submit(cache, (&inputs, job)).wait().unwrap();
    }
    engine.submit(forget, ()).wait().unwrap();
    assert_eq!(engine.stats().retained(), 0);
}
