//! A worker with several lanes that is killed at each step of one of them: jobs of the other lanes are lost or retried, and the
//! memory of every lane is released.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use arenite::points::{Point, Side};
use arenite::{Array, Backoff, JobErrorKind, WorkerExit};
use libtest_mimic::Trial;

use crate::board::points;
use crate::harness::{Answers, Invariant, KILLED, Lab, step};
use crate::passings::{Death, Saw, once_and_retried};
use crate::scene::{Pending, bytes, input, len_of, sum_of, text_of, value_at};
use crate::workers::costs_a_job;

const LANES: usize = 3;
/// The first jobs occupy the lanes until all are submitted.
const JOBS: u32 = 18;

/// Steps of a lane, from claiming a job to completing it.
const STEPS: [&str; 13] = [
    "claim.taken",
    "claim.announced",
    "run.read",
    "run.entered",
    "run.returned",
    "run.closed",
    "allocate.wanted",
    "allocate.granted",
    "allocate.placed",
    "publish.spilled",
    "publish.settled",
    "publish.filled",
    "complete.stored",
];

pub fn trials() -> Vec<Trial> {
    let mine = points(Side::Worker).filter(|point| STEPS.contains(&point.name));
    let trials = once_and_retried("lanes", mine, 3, scene);
    assert_eq!(trials.len(), 2 * STEPS.len(), "a step without a point");
    trials
}

fn hold(go: &str, job: u32) -> u64 {
    while !Path::new(go).exists() {
        std::thread::park_timeout(Duration::from_micros(100));
    }
    job.into()
}

fn plain(input: &Array<u32>, job: u32) -> u64 {
    sum_of(input, job)
}

/// Larger than a first grant: the lane has to request memory.
fn large(input: &Array<u32>, job: u32) -> Array<u32> {
    Array::from_fn(len_of(job), |i| value_at(input, job, i))
}

/// Larger than a slot.
fn long(input: &Array<u32>, job: u32) -> String {
    text_of(input, job)
}

fn reference() -> Vec<Vec<u8>> {
    let input = Array::from_slice(&input());
    let of = |job: u32| match job % 3 {
        _ if job < LANES as u32 => u64::from(job).to_le_bytes().to_vec(),
        0 => plain(&input, job).to_le_bytes().to_vec(),
        1 => bytes(&large(&input, job)),
        _ => long(&input, job).into_bytes(),
    };
    (0..JOBS).map(of).collect()
}

/// Runs all jobs on one worker, which is killed at this passing.
fn scene(point: &'static Point, retries: u32, passing: Option<u64>) -> Result<Saw, String> {
    let invariant = Invariant::before();
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let lab = Lab::with(1, |builder| builder.lanes(LANES));
    let values = lab.from_slice(&input()).unwrap();
    let death = Death::arm(point, passing);
    macro_rules! sent {
        ($kernel:expr, $args:expr) => {{
            let job = lab.job($kernel, $args).retries(retries);
            job.backoff(Backoff::NONE).submit()
        }};
    }
    let send = |job: u32| match job % 3 {
        _ if job < LANES as u32 => Pending::Number(sent!(hold, (go.to_str().unwrap(), job))),
        0 => Pending::Number(sent!(plain, (&values, job))),
        1 => Pending::Array(sent!(large, (&values, job))),
        _ => Pending::Text(sent!(long, (&values, job))),
    };
    let jobs: Vec<_> = (0..JOBS).map(send).collect();
    File::create(&go).unwrap();
    step("every answer");
    let answers: Vec<_> = jobs.into_iter().map(Pending::wait).collect();
    let (saw, hit) = death.disarm(&lab);
    let answers = Answers::compare(answers, &reference())?;
    let lost = answers.failed.len();
    if retries == 0 && costs_a_job(point) && lost < hit as usize {
        return Err("a job that its worker died of ran again".into());
    }
    let by_the_death = |why: &JobErrorKind| {
        *why == KILLED || matches!(why, JobErrorKind::Lost(WorkerExit::OtherJob { .. }))
    };
    let most = if retries == 0 {
        LANES * saw.deaths as usize
    } else {
        0
    };
    if lost > most || !answers.failed.iter().all(|(_, why)| by_the_death(why)) {
        return Err(format!("{saw:?}, and failed {:?}", answers.failed));
    }
    drop(values);
    invariant.ends(lab)?;
    Ok(saw)
}
