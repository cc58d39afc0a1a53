//! The scene in which a worker is killed: jobs of each kind, in a known order, such that a worker passes each of its points.
//!
//! A sandboxed worker cannot open files: it is stopped while jobs queue up, instead of waiting at a gate, and prints which job
//! starts, instead of logging it to a file. It gets no jobs that modify in place.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arenite::engine::LogSource;
use arenite::points::Point;
use arenite::raw::{Buffer, Buffers, Received};
use arenite::{Array, Backoff, Engine, Job, JobError, JobOptions, Sandbox, TileMut};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::board::board;
use crate::harness::{Answers, KILLED, Lab, note, step, wait_until};
use crate::workers::{Passings, passed};

/// Jobs of the first batch; the first occupies the worker until all are submitted.
const FIRST: u32 = 10;
/// Jobs of the second batch, which finds the worker asleep.
const SECOND: u32 = 4;
/// Jobs of each rare kind: a first, a second and a last.
const RARE: u32 = 3;
/// Jobs that are cancelled while they run, and end.
pub const ASKED: Range<u32> = FIRST + SECOND..FIRST + SECOND + RARE;
/// The last jobs, which modify an array of the supervisor in place.
pub const LENT: Range<u32> = ASKED.end..ASKED.end + RARE;
const JOBS: u32 = LENT.end;

/// How the jobs are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// With this number of retries.
    pub retries: u32,
    /// With this deadline.
    pub deadline: Option<Duration>,
}

impl Policy {
    pub const NONE: Self = Self {
        retries: 0,
        deadline: None,
    };
}

/// Logs that a job has started: one line each, in the order of execution. Prints it if there is no log.
pub fn begin(log: &str, job: u32) {
    match log {
        "" => println!("{job}"),
        log => note(log, job),
    }
}

pub fn sum_of(input: &[u32], job: u32) -> u64 {
    input.iter().map(|&x| u64::from(x ^ job)).sum()
}

/// A value that differs for all jobs.
pub fn len_of(job: u32) -> usize {
    40_000 + job as usize
}

pub fn value_at(input: &[u32], job: u32, i: usize) -> u32 {
    input[i % input.len()].wrapping_mul(job)
}

pub fn text_of(input: &[u32], job: u32) -> String {
    input[..200]
        .iter()
        .map(|x| format!("{:x}.", x ^ job))
        .collect()
}

fn hold(log: &str, go: &str, job: u32) -> u64 {
    begin(log, job);
    while !go.is_empty() && !Path::new(go).exists() {
        std::thread::park_timeout(Duration::from_micros(100));
    }
    u64::from(job) * 3
}

fn plain(log: &str, input: &Array<u32>, job: u32) -> u64 {
    begin(log, job);
    sum_of(input, job)
}

/// Larger than a first grant: the lane has to request memory. In a sandbox the supervisor copies it.
pub fn large(log: &str, input: &Array<u32>, job: u32) -> Array<u32> {
    begin(log, job);
    Array::from_fn(len_of(job), |i| value_at(input, job, i))
}

/// Larger than a slot: its words are in a block.
fn long(log: &str, input: &Array<u32>, job: u32) -> String {
    begin(log, job);
    text_of(input, job)
}

/// Ends when it is cancelled.
fn obey(log: &str, job: u32) -> u64 {
    begin(log, job);
    while !arenite::cancelled() {
        std::thread::park_timeout(Duration::from_micros(100));
    }
    u64::from(job) * 5
}

/// Modifies a tile in place.
fn fill(log: &str, mut tile: TileMut<'_, u32>, job: u32) {
    begin(log, job);
    for (i, value) in tile.iter_mut().enumerate() {
        *value = value.wrapping_add(i as u32 ^ job);
    }
}

/// Modifies a buffer in place.
fn fill_buffer(log: &str, buffers: Buffers<'_>, job: u32) {
    begin(log, job);
    for buffer in buffers {
        let Received::Write(mut bytes) = buffer else {
            panic!("it is lent");
        };
        let values = bytemuck::cast_slice_mut::<u8, u32>(&mut bytes);
        for (i, value) in values.iter_mut().enumerate() {
            *value = value.wrapping_add(i as u32 ^ job);
        }
    }
}

/// A submitted job.
pub enum Pending {
    Number(Job<u64>),
    Array(Job<Array<u32>>),
    Text(Job<String>),
}

impl Pending {
    /// Waits for its result, as bytes.
    pub fn wait(self) -> Result<Vec<u8>, JobError> {
        Ok(match self {
            Self::Number(job) => job.wait()?.to_le_bytes().to_vec(),
            Self::Array(job) => bytes(&job.wait()?),
            Self::Text(job) => job.wait()?.into_bytes(),
        })
    }
}

/// Returns the bytes of a value, for comparison.
pub fn bytes(values: &[u32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Checks results and execution order after `deaths`, of which `cost` hit a running job. Jobs that modify in place or are cancelled
/// run `once`, whatever the policy is.
///
/// Returns the number of those deaths that are visible: by a lost job, or by one that started again.
pub fn judge(
    answers: &Answers,
    began: &[u32],
    retries: u32,
    deaths: u32,
    cost: u32,
    once: impl Fn(u32) -> bool,
) -> Result<u32, String> {
    answers.cost_at_most(deaths as usize, |why| *why == KILLED)?;
    let lost = answers.failed.len() as u32;
    let is_final = |(job, _): &(usize, _)| retries == 0 || once(*job as u32);
    if !answers.failed.iter().all(is_final) || lost > cost || (retries == 0 && lost < cost) {
        return Err(format!(
            "{deaths} deaths, {cost} of them in a job, failed {:?}",
            answers.failed
        ));
    }
    // In order and once; only a retried job may start again, or late.
    let mut newest = None;
    let late = began.iter().filter(|&&job| {
        let is_late = newest.is_some_and(|newest| newest >= job);
        newest = newest.max(Some(job));
        is_late
    });
    let visible = lost + late.count() as u32;
    // A death that lost a job causes no retry.
    if visible > cost || began.is_empty() {
        return Err(format!(
            "{cost} deaths in a job, failed {:?}, and the jobs began like this: {began:?}",
            answers.failed
        ));
    }
    Ok(visible)
}

/// Points at which a death is always visible: the running kernel has logged its start.
pub fn has_begun(point: &Point) -> bool {
    matches!(point.step(), "allocate" | "publish" | "cancel") || point.name == "run.returned"
}

/// Submits a job with the policy.
macro_rules! send {
    ($engine:expr, $policy:expr, $kernel:expr, $args:expr) => {{
        let job = $engine.job($kernel, $args).retries($policy.retries);
        let mut job = job.backoff(Backoff::NONE);
        if let Some(limit) = $policy.deadline {
            job = job.deadline(limit);
        }
        job.submit()
    }};
}

/// The worker of a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// With a spare that takes over.
    Spared,
    Sandboxed,
}

/// An engine with one worker, and what its jobs write when they start.
pub struct Scene {
    pub lab: Lab,
    kind: Kind,
    folder: TempDir,
    /// The output of a sandboxed worker.
    printed: Arc<Mutex<Vec<String>>>,
}

/// The outcome of a run.
pub struct Played {
    /// Results in the order of the jobs.
    pub answers: Vec<Result<Vec<u8>, JobError>>,
    /// Jobs in the order in which they started.
    pub began: Vec<u32>,
    /// Number of passings of each point at the time of the last result.
    pub passed: Passings,
}

/// Returns a new file in the folder.
fn file(folder: &TempDir, name: &str) -> String {
    let path = folder.path().join(name);
    File::create(&path).unwrap();
    path.into_os_string().into_string().unwrap()
}

/// Stops the worker while `pile` submits jobs.
fn while_stopped<T>(lab: &Lab, pile: impl FnOnce() -> T) -> T {
    let worker = Pid::from_raw(lab.pid(0));
    kill(worker, Signal::SIGSTOP).expect("the worker runs");
    step("the worker to be stopped");
    waitid(
        Id::Pid(worker),
        WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT,
    )
    .expect("the worker is a child");
    let piled = pile();
    kill(worker, Signal::SIGCONT).expect("the worker is there");
    piled
}

impl Scene {
    pub fn new(kind: Kind) -> Self {
        let printed = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&printed);
        let lab = Lab::with(1, |builder| match kind {
            Kind::Plain => builder,
            Kind::Spared => builder.spares(1),
            Kind::Sandboxed => builder.sandbox(Sandbox::Strict).on_log(move |line| {
                if line.source == LogSource::Stdout {
                    listener.lock().unwrap().push(line.text.clone());
                }
            }),
        });
        Self {
            lab,
            kind,
            folder: tempfile::tempdir().unwrap(),
            printed,
        }
    }

    /// Runs the scene. Calls `between` between the two batches.
    pub fn play(&self, policy: Policy, between: impl FnOnce(&Lab)) -> Played {
        let lab = &self.lab;
        let is_sandboxed = self.kind == Kind::Sandboxed;
        let go = self.folder.path().join("go");
        let (log, gate) = match is_sandboxed {
            true => (String::new(), ""),
            false => (file(&self.folder, "log"), go.to_str().unwrap()),
        };
        let log = &*log;
        let input = lab.from_slice(&input()).unwrap();
        let slept = board().passed("claim.announced");
        step("the first batch");
        let pile = || {
            let mut jobs = vec![number(lab, policy, (log, gate, 0))];
            // Retracted before they start: they wait behind the first.
            (0..RARE).for_each(|_| drop(lab.submit(plain, (log, &input, JOBS))));
            jobs.extend((1..FIRST).map(|job| submit(lab, policy, log, &input, job)));
            jobs
        };
        let jobs = match is_sandboxed {
            true => while_stopped(lab, pile),
            false => pile(),
        };
        File::create(&go).unwrap();
        let mut answers: Vec<_> = jobs.into_iter().map(Pending::wait).collect();
        between(lab);
        wait_until("the worker goes to sleep", || {
            board().passed("claim.announced") > slept
                && lab.stats().workers.iter().any(|worker| worker.ready)
        });
        step("the second batch");
        let jobs = (FIRST..ASKED.start).map(|job| submit(lab, policy, log, &input, job));
        answers.extend(jobs.collect::<Vec<_>>().into_iter().map(Pending::wait));
        answers.extend(ASKED.map(|job| self.ask(policy, log, job)));
        if !is_sandboxed {
            step("the jobs in place");
            answers.extend(LENT.map(|job| match job - LENT.start {
                1 => lend_buffer(lab, policy, log, job),
                _ => lend(lab, policy, log, job),
            }));
        }
        let passed = passed();
        if is_sandboxed {
            board().disarm();
            lab.submit(|| println!("all"), ()).wait().unwrap();
            // Lines arrive in order, and this is the last.
            wait_until("all that was printed is here", || {
                self.lines(log).iter().any(|line| line == "all")
            });
        }
        let began = self.lines(log).into_iter().filter(|line| line != "all");
        Played {
            answers,
            began: began.map(|line| line.parse().unwrap()).collect(),
            passed,
        }
    }

    /// Returns what jobs have written so far.
    fn lines(&self, log: &str) -> Vec<String> {
        match self.kind {
            Kind::Sandboxed => self.printed.lock().unwrap().clone(),
            _ => {
                let lines = std::fs::read_to_string(log).unwrap();
                lines.lines().map(str::to_owned).collect()
            }
        }
    }

    /// Cancels the job as soon as it runs.
    fn ask(&self, policy: Policy, log: &str, number: u32) -> Result<Vec<u8>, JobError> {
        let job = send!(self.lab, policy, obey, (log, number));
        let line = number.to_string();
        wait_until(
            "the job that is to be cancelled runs, or has failed",
            || job.is_done() || self.lines(log).contains(&line),
        );
        job.cancel();
        Pending::Number(job).wait()
    }

    /// Returns the results of one process, computed once.
    pub fn reference() -> &'static [Vec<u8>] {
        static REFERENCE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        REFERENCE.get_or_init(Self::compute)
    }

    fn compute() -> Vec<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let log = &*file(&folder, "log");
        let input = Array::from_slice(&input());
        let answer = |job: u32| match job {
            0 => hold(log, "", 0).to_le_bytes().to_vec(),
            job if ASKED.contains(&job) => (u64::from(job) * 5).to_le_bytes().to_vec(),
            job if LENT.contains(&job) => {
                bytes(&Vec::from_iter((0..LENT_LEN as u32).map(|i| i ^ job)))
            }
            _ => match job % 3 {
                0 => plain(log, &input, job).to_le_bytes().to_vec(),
                1 => bytes(&large(log, &input, job)),
                _ => long(log, &input, job).into_bytes(),
            },
        };
        (0..JOBS).map(answer).collect()
    }
}

pub fn input() -> Vec<u32> {
    (0..3000u32)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect()
}

fn number(engine: &Engine, policy: Policy, args: (&str, &str, u32)) -> Pending {
    Pending::Number(send!(engine, policy, hold, args))
}

const LENT_LEN: usize = 30_000;

/// Submits a job with the whole array as its tile. It cannot be retried, whatever the policy is.
fn lend(engine: &Engine, policy: Policy, log: &str, number: u32) -> Result<Vec<u8>, JobError> {
    let mut out = engine.zeros::<u32>(LENT_LEN).unwrap();
    engine.scope(|scope| {
        for tile in out.tiles_mut(LENT_LEN) {
            let mut options = JobOptions::new();
            if let Some(limit) = policy.deadline {
                options = options.deadline(limit);
            }
            scope.submit_with(&options, fill, (log, tile, number));
        }
    })?;
    Ok(bytes(&out.seal()))
}

/// Submits a job with the bytes of the array as a buffer. It is not retried, whatever the policy is.
fn lend_buffer(
    engine: &Engine,
    policy: Policy,
    log: &str,
    number: u32,
) -> Result<Vec<u8>, JobError> {
    let out = engine.zeros::<u8>(4 * LENT_LEN).unwrap().seal();
    // SAFETY: nothing else refers to the bytes before the job is answered.
    let buffer = unsafe { Buffer::write(out.clone()) };
    send!(engine, policy, fill_buffer, (log, vec![buffer], number)).wait()?;
    Ok(out.to_vec())
}

fn submit(engine: &Engine, policy: Policy, log: &str, input: &Array<u32>, job: u32) -> Pending {
    let args = (log, input, job);
    match job % 3 {
        0 => Pending::Number(send!(engine, policy, plain, args)),
        1 => Pending::Array(send!(engine, policy, large, args)),
        _ => Pending::Text(send!(engine, policy, long, args)),
    }
}
