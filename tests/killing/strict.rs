//! Workers without rights, and their supervisor, killed where they take other steps than elsewhere, and at the common
//! steps of a job and of a recovery.
//!
//! The scene is the one of the other suites, without what such a worker cannot do: nothing is lent in place, and
//! nothing is opened. Instead of waiting at a gate the worker is stopped while jobs pile up, and what begins is printed
//! instead of being noted in a file.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arenite::points::{Deed, Point, Side};
use arenite::{Array, Engine, Job, JobError, JobErrorKind, Sandbox};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::board::{board, locked, of};
use crate::harness::{Answers, Invariant, Lab, named, step, wait_until};
use crate::programs::workers_are_busy;
use crate::supervisors::{self, Round};

/// Steps of a job in a worker.
const COMMON: [&str; 11] = [
    "claim.taken",
    "claim.retracted",
    "run.entered",
    "run.returned",
    "cancel.heard",
    "allocate.granted",
    "publish.spilled",
    "publish.settled",
    "publish.filled",
    "complete.said",
    "complete.rung",
];

/// Whether a bell has to be rung depends on who is awake, so there may be a scene in which nobody comes by; but not so
/// many one after the other.
const SCENES: u32 = 20;

pub fn trials() -> Vec<Trial> {
    let name = |point: &Point| format!("strict::{}", point.name);
    let starts =
        locked(Side::Worker).map(|point| named(name(point), move || while_starting(point)));
    let jobs = of(Side::Worker)
        .filter(|point| COMMON.contains(&point.name))
        .map(|point| named(name(point), move || in_a_job(point)));
    let ours = |point: &&Point| point.step() == "recover" || point.name == "reap.received";
    let supervisors = of(Side::Supervisor)
        .filter(ours)
        .chain(locked(Side::Supervisor))
        .map(|point| named(name(point), move || supervisor_at(point)));
    starts.chain(jobs).chain(supervisors).collect()
}

// ---- the scene ----------------------------------------------------------------------------------------------

/// Jobs of the first batch, for all of which the worker is stopped.
const FIRST: u32 = 9;
/// A job that is asked to end while it runs, and obeys.
const ASKED: u32 = FIRST + 3;

/// Says that a job has begun. Whoever listens hears it in the order in which jobs ran.
fn begin(job: u32) {
    println!("{job}");
}

fn sum_of(input: &[u32], job: u32) -> u64 {
    input.iter().map(|&x| u64::from(x ^ job)).sum()
}

fn sum(input: &Array<u32>, job: u32) -> u64 {
    begin(job);
    sum_of(input, job)
}

fn value_at(input: &[u32], job: u32, i: usize) -> u32 {
    input[i % input.len()].wrapping_mul(job)
}

/// Not the same for any two jobs.
fn len_of(job: u32) -> usize {
    40_000 + job as usize
}

/// More than a first grant holds; the supervisor copies it.
fn large(input: &Array<u32>, job: u32) -> Array<u32> {
    begin(job);
    Array::from_fn(len_of(job), |i| value_at(input, job, i))
}

fn text_of(input: &[u32], job: u32) -> String {
    input[..200]
        .iter()
        .map(|x| format!("{:x}.", x ^ job))
        .collect()
}

/// More than a slot holds: its words take a block of their own.
fn long(input: &Array<u32>, job: u32) -> String {
    begin(job);
    text_of(input, job)
}

/// Ends when it is asked to.
fn obey(job: u32) -> u64 {
    begin(job);
    while !arenite::cancelled() {
        std::thread::park_timeout(Duration::from_micros(100));
    }
    u64::from(job) * 5
}

fn input() -> Vec<u32> {
    (0..3000u32)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect()
}

fn bytes(values: impl Iterator<Item = u32>) -> Vec<u8> {
    values.flat_map(u32::to_le_bytes).collect()
}

/// What one process alone computes.
fn reference() -> Vec<Vec<u8>> {
    let input = &input();
    let answer = |job: u32| match job {
        ASKED => (u64::from(ASKED) * 5).to_le_bytes().to_vec(),
        _ => match job % 3 {
            0 => sum_of(input, job).to_le_bytes().to_vec(),
            1 => bytes((0..len_of(job)).map(|i| value_at(input, job, i))),
            _ => text_of(input, job).into_bytes(),
        },
    };
    (0..=ASKED).map(answer).collect()
}

/// A job under way.
enum Pending {
    Number(Job<u64>),
    Array(Job<Array<u32>>),
    Text(Job<String>),
}

impl Pending {
    fn submit(engine: &Engine, retries: u32, input: &Array<u32>, job: u32) -> Self {
        match job % 3 {
            0 => Self::Number(engine.job(sum, (input, job)).retries(retries).submit()),
            1 => Self::Array(engine.job(large, (input, job)).retries(retries).submit()),
            _ => Self::Text(engine.job(long, (input, job)).retries(retries).submit()),
        }
    }

    /// Its answer, as bytes.
    fn wait(self) -> Result<Vec<u8>, JobError> {
        Ok(match self {
            Self::Number(job) => job.wait()?.to_le_bytes().to_vec(),
            Self::Array(job) => bytes(job.wait()?.iter().copied()),
            Self::Text(job) => job.wait()?.into_bytes(),
        })
    }
}

/// What came of one run.
struct Played {
    /// In the order of the jobs.
    answers: Vec<Result<Vec<u8>, JobError>>,
    /// In which order they began.
    began: Vec<u32>,
}

/// An engine with one locked-down worker, and what that has printed.
struct Stage {
    lab: Lab,
    printed: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    fn new() -> Self {
        let printed = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&printed);
        let lab = Lab::with(1, |builder| {
            builder
                .sandbox(Sandbox::Strict)
                .on_log(move |line| listener.lock().unwrap().push(line.text.clone()))
        });
        Self { lab, printed }
    }

    fn has_printed(&self, line: &str) -> bool {
        self.printed.lock().unwrap().iter().any(|text| text == line)
    }

    /// Stops the worker while `pile` submits jobs.
    fn while_stopped<T>(&self, pile: impl FnOnce() -> T) -> T {
        let worker = Pid::from_raw(self.lab.pid(0));
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

    /// Plays it. Between the two batches `between` is called.
    fn play(&self, retries: u32, between: impl FnOnce(&Lab)) -> Played {
        let input = self.lab.from_slice(&input()).unwrap();
        let submit = |job| Pending::submit(&self.lab, retries, &input, job);
        step("the first batch");
        let jobs = self.while_stopped(|| {
            let mut jobs = vec![submit(0)];
            // Taken back before it begins: it lies behind the first one.
            drop(self.lab.submit(sum, (&input, ASKED + 1)));
            jobs.extend((1..FIRST).map(submit));
            jobs
        });
        let mut answers: Vec<_> = jobs.into_iter().map(Pending::wait).collect();
        between(&self.lab);
        step("the second batch");
        let jobs: Vec<_> = (FIRST..ASKED).map(submit).collect();
        answers.extend(jobs.into_iter().map(Pending::wait));
        answers.push(self.ask(retries));
        Played {
            answers,
            began: self.began(),
        }
    }

    /// Asks a job to end as soon as it runs.
    fn ask(&self, retries: u32) -> Result<Vec<u8>, JobError> {
        let job = self.lab.job(obey, (ASKED,)).retries(retries).submit();
        wait_until(
            "the job that is to be cancelled runs, or has failed",
            || job.is_done() || self.has_printed(&ASKED.to_string()),
        );
        job.cancel();
        Pending::Number(job).wait()
    }

    /// What has begun, in order.
    fn began(&self) -> Vec<u32> {
        board().disarm();
        let last = || println!("all");
        self.lab.submit(last, ()).wait().unwrap();
        // Lines come in order, and this one is the last.
        wait_until("all that was printed is here", || self.has_printed("all"));
        let printed = self.printed.lock().unwrap();
        printed.iter().flat_map(|line| line.parse()).collect()
    }
}

/// Plays the scene on an engine of its own and checks what holds whatever happens. `arm` is called before the first
/// job, `judge` with the answers.
fn play(retries: u32, replace: bool, arm: impl FnOnce(), judge: impl FnOnce(&Lab, &Played)) {
    let invariant = Invariant::before();
    let stage = Stage::new();
    arm();
    let played = stage.play(retries, |lab| {
        if replace {
            lab.replace(0);
        }
    });
    judge(&stage.lab, &played);
    let lab = stage.lab;
    invariant.holds(&lab, 0).unwrap();
    step("the engine to shut down");
    lab.into_inner().shutdown();
    invariant.nothing_left().unwrap();
}

/// Undisturbed: each step is taken. For whoever looks at the board.
pub fn undisturbed() {
    play(
        0,
        true,
        || {},
        |_, played| {
            judge(played, 0, 0).unwrap();
        },
    );
}

/// The answers, after so many deaths in a job.
fn judge(played: &Played, retries: u32, cost: u32) -> Result<(), String> {
    let answers = Answers::compare(played.answers.iter().cloned(), &reference())?;
    let killed = |why: &JobErrorKind| *why == JobErrorKind::Signal(Signal::SIGKILL as i32);
    answers.cost_at_most(cost as usize, killed)?;
    // What was asked to end is not tried again.
    let is_final = |job: usize| retries == 0 || job == ASKED as usize;
    let lost = answers.failed.iter().all(|(job, _)| is_final(*job));
    if !lost || (retries == 0 && answers.failed.len() != cost as usize) {
        return Err(format!(
            "{cost} deaths in a job, failed {:?}",
            answers.failed
        ));
    }
    // In order, and nothing twice; only a job that was retried may come again, or late.
    let late = played.began.windows(2).filter(|two| two[0] >= two[1]);
    let may_be_late = if retries == 0 { 0 } else { cost as usize };
    if late.count() > may_be_late || played.began.is_empty() {
        return Err(format!("the jobs began like this: {:?}", played.began));
    }
    Ok(())
}

// ---- a worker dies ------------------------------------------------------------------------------------------

/// The first worker of an engine dies there, so that there is none; one that replaces another does, once and twice.
fn while_starting(point: &'static Point) {
    let invariant = Invariant::before();
    board().arm(point.name, Deed::Kill, 1..u64::MAX);
    step(format!("an engine whose workers die at {}", point.name));
    let built = Engine::builder()
        .workers(2)
        .capacity(64 << 20)
        .sandbox(Sandbox::Strict)
        .build();
    board().disarm();
    let error = built.expect_err("no worker can be ready").to_string();
    assert!(error.contains("SIGKILL"), "{}: {error}", point.name);
    invariant.nothing_left().unwrap();
    for times in 1..=2u32 {
        play(
            0,
            true,
            || board().arm(point.name, Deed::Kill, 1..u64::from(times) + 1),
            |_, played| {
                assert_eq!(board().done(point.name).0, times);
                judge(played, 0, 0).unwrap();
            },
        );
    }
}

/// Does a death there take a running job with it?
fn costs_a_job(point: &Point) -> bool {
    point.step() != "complete" && point.name != "claim.retracted"
}

fn in_a_job(point: &'static Point) {
    // One job is taken back, and one is asked to end.
    let passings: &[u64] = match point.name {
        "claim.retracted" | "cancel.heard" => &[1],
        _ => &[1, 3],
    };
    for retries in [0, 2] {
        for &nth in passings {
            let came = (0..SCENES).any(|_| killed_at(point, retries, nth) == 1);
            assert!(came, "{}: nobody came by {nth} times", point.name);
        }
    }
}

/// One scene, in which the worker is killed when it comes by for the `nth` time. How often that happened.
fn killed_at(point: &'static Point, retries: u32, nth: u64) -> u32 {
    let mut deaths = 0;
    play(
        retries,
        false,
        || board().arm(point.name, Deed::Kill, nth..nth + 1),
        |lab, played| {
            deaths = board().done(point.name).0;
            wait_until("the death is noticed", || {
                lab.stats().workers[0].restarts == u64::from(deaths)
            });
            let cost = u32::from(costs_a_job(point)) * deaths;
            judge(played, retries, cost).unwrap_or_else(|why| {
                panic!("{}, passing {nth}, {retries} retries: {why}", point.name)
            });
        },
    );
    deaths
}

// ---- the supervisor dies ------------------------------------------------------------------------------------

/// What a program is told that shall have locked-down workers.
pub const ROLE: &str = "strict";

fn supervisor_at(point: &'static Point) {
    let rounds = [false, true].map(|kept| Round::Later { kept });
    supervisors::at(point, ROLE, rounds);
}

fn spin() -> u64 {
    loop {
        std::hint::spin_loop();
    }
}

/// A life of a supervisor that copies results of locked-down workers, one of which is busy for good, and replaces the
/// other.
pub fn live() {
    let mut builder = Engine::builder()
        .workers(2)
        .capacity(64 << 20)
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
        let made = engine.submit(large, (&input, 1)).wait().unwrap();
        assert_eq!(made.len(), len_of(1));
    };
    again();
    let workers = engine.stats().workers;
    let idle = workers.iter().find(|worker| worker.open == 0).unwrap();
    kill(Pid::from_raw(idle.pid as i32), Signal::SIGKILL).unwrap();
    again();
}
