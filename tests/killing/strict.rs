//! Sandboxed workers, and their supervisor, killed at the steps that only they have, and at the common steps of a job and of a
//! recovery.
//!
//! The scene is that of the other suites without jobs that modify in place. Because such a worker cannot open files, it is stopped
//! while jobs queue up, instead of waiting at a gate, and prints which job starts, instead of logging it to a file.

use std::cell::Cell;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arenite::points::{Fault, Point, Side};
use arenite::{Array, Backoff, Engine, JobError, Sandbox};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::board::{board, locked, of};
use crate::harness::{Answers, Invariant, Lab, builder, named, send_signal, step, wait_until};
use crate::passings::{Nth, Saw, each};
use crate::programs::workers_are_busy;
use crate::scene::{self, Pending, bytes, input, len_of, sum_of, text_of, value_at};
use crate::supervisors::{self, Round};
use crate::workers::{Passings, expect_visible, passed};

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
    let starts = locked(Side::Worker).flat_map(|point| {
        [
            named(name(point), move || while_starting(point, 0)),
            named(retried(point), move || while_starting(point, 2)),
        ]
    });
    let common = of(Side::Worker).filter(|point| COMMON.contains(&point.name));
    let jobs = common.flat_map(|point| {
        [
            named(name(point), move || in_a_job(point, 0)),
            named(retried(point), move || in_a_job(point, 2)),
        ]
    });
    let ours = |point: &&Point| point.step() == "recover" || point.name == "reap.received";
    let supervisors = of(Side::Supervisor)
        .filter(ours)
        .chain(locked(Side::Supervisor))
        .map(|point| named(name(point), move || supervisor_at(point)));
    starts.chain(jobs).chain(supervisors).collect()
}

// ---- the scene ----------------------------------------------------------------------------------------------

/// Jobs of the first batch, submitted while the worker is stopped.
const FIRST: u32 = 9;
/// Jobs of each rare kind: a first, a second and a last.
const RARE: u32 = 3;
/// Jobs that are cancelled while they run, and end.
const ASKED: Range<u32> = FIRST + 3..FIRST + 3 + RARE;

/// Prints that a job has started. Lines arrive in the order of execution.
fn begin(job: u32) {
    println!("{job}");
}

fn sum(input: &Array<u32>, job: u32) -> u64 {
    begin(job);
    sum_of(input, job)
}

/// Larger than a first grant; the supervisor copies it.
fn large(input: &Array<u32>, job: u32) -> Array<u32> {
    begin(job);
    Array::from_fn(len_of(job), |i| value_at(input, job, i))
}

/// Larger than a slot: its words are in a block.
fn long(input: &Array<u32>, job: u32) -> String {
    begin(job);
    text_of(input, job)
}

/// Ends when it is cancelled.
fn obey(job: u32) -> u64 {
    begin(job);
    while !arenite::cancelled() {
        std::thread::park_timeout(Duration::from_micros(100));
    }
    u64::from(job) * 5
}

/// Returns the results of one process, computed once.
fn reference() -> &'static [Vec<u8>] {
    static REFERENCE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    REFERENCE.get_or_init(compute)
}

fn compute() -> Vec<Vec<u8>> {
    let input = &input();
    let answer = |job: u32| match job {
        job if ASKED.contains(&job) => (u64::from(job) * 5).to_le_bytes().to_vec(),
        _ => match job % 3 {
            0 => sum_of(input, job).to_le_bytes().to_vec(),
            1 => {
                let value = |i| value_at(input, job, i);
                bytes(&Vec::from_iter((0..len_of(job)).map(value)))
            }
            _ => text_of(input, job).into_bytes(),
        },
    };
    (0..ASKED.end).map(answer).collect()
}

fn submit(engine: &Engine, retries: u32, input: &Array<u32>, job: u32) -> Pending {
    macro_rules! sent {
        ($kernel:expr) => {{
            let job = engine.job($kernel, (input, job)).retries(retries);
            job.backoff(Backoff::NONE).submit()
        }};
    }
    match job % 3 {
        0 => Pending::Number(sent!(sum)),
        1 => Pending::Array(sent!(large)),
        _ => Pending::Text(sent!(long)),
    }
}

/// The outcome of a run.
pub struct Played {
    /// Results in the order of the jobs.
    answers: Vec<Result<Vec<u8>, JobError>>,
    /// Jobs in the order in which they started.
    began: Vec<u32>,
    /// Number of passings of each point at the time of the last result.
    passed: Passings,
}

/// An engine with one sandboxed worker, and its output.
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

    /// Runs the scene. Calls `between` between the two batches.
    fn play(&self, retries: u32, between: impl FnOnce(&Lab)) -> Played {
        let input = self.lab.from_slice(&input()).unwrap();
        let submit = |job| submit(&self.lab, retries, &input, job);
        step("the first batch");
        let jobs = self.while_stopped(|| {
            let mut jobs = vec![submit(0)];
            // Retracted before they start: they wait behind the first.
            (0..RARE).for_each(|_| drop(self.lab.submit(sum, (&input, ASKED.end))));
            jobs.extend((1..FIRST).map(submit));
            jobs
        });
        let mut answers: Vec<_> = jobs.into_iter().map(Pending::wait).collect();
        between(&self.lab);
        step("the second batch");
        let jobs: Vec<_> = (FIRST..ASKED.start).map(submit).collect();
        answers.extend(jobs.into_iter().map(Pending::wait));
        answers.extend(ASKED.map(|job| self.ask(retries, job)));
        let passed = passed();
        Played {
            answers,
            began: self.began(),
            passed,
        }
    }

    /// Cancels a job as soon as it runs.
    fn ask(&self, retries: u32, number: u32) -> Result<Vec<u8>, JobError> {
        let job = self.lab.job(obey, (number,)).retries(retries);
        let job = job.backoff(Backoff::NONE).submit();
        wait_until(
            "the job that is to be cancelled runs, or has failed",
            || job.is_done() || self.has_printed(&number.to_string()),
        );
        job.cancel();
        Pending::Number(job).wait()
    }

    /// Returns the jobs that have started, in order.
    fn began(&self) -> Vec<u32> {
        board().disarm();
        let last = || println!("all");
        self.lab.submit(last, ()).wait().unwrap();
        // Lines arrive in order, and this is the last.
        wait_until("all that was printed is here", || self.has_printed("all"));
        let printed = self.printed.lock().unwrap();
        printed.iter().flat_map(|line| line.parse()).collect()
    }
}

/// Runs the scene on a new engine and checks the invariant. Calls `arm` before the first job and `judge` with the results.
pub fn play(retries: u32, replace: bool, arm: impl FnOnce(), judge: impl FnOnce(&Lab, &Played)) {
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
    invariant.ends(lab).unwrap();
}

/// Runs without deaths: each step is taken. For tests that read the board.
pub fn undisturbed() {
    play(
        0,
        true,
        || {},
        |_, played| {
            judge(played, 0, 0, 0).unwrap();
        },
    );
}

/// Returns the passings of each point in a scene without deaths, up to its last result.
fn passings() -> &'static Passings {
    static PASSINGS: OnceLock<Passings> = OnceLock::new();
    PASSINGS.get_or_init(|| {
        let (mut before, mut all) = (Passings::new(), Passings::new());
        play(
            0,
            false,
            || before = passed(),
            |_, played| all = played.passed.clone(),
        );
        all.iter_mut().for_each(|(name, all)| *all -= before[name]);
        all
    })
}

/// Checks the results after `deaths`, of which `cost` hit a running job; returns how many of these are visible.
pub fn judge(played: &Played, retries: u32, deaths: u32, cost: u32) -> Result<u32, String> {
    let answers = Answers::compare(played.answers.iter().cloned(), reference())?;
    let once = |job| ASKED.contains(&job);
    scene::judge(&answers, &played.began, retries, deaths, cost, once)
}

// ---- a worker dies ------------------------------------------------------------------------------------------

/// The first worker of an engine dies at the point, so that no engine starts; a replacement does once, twice, three times.
fn while_starting(point: &'static Point, retries: u32) {
    let invariant = Invariant::before();
    board().arm(point.name, Fault::Kill, 1..u64::MAX);
    step(format!("an engine whose workers die at {}", point.name));
    let built = builder(2, 64 << 20).sandbox(Sandbox::Strict).build();
    board().disarm();
    let error = built.expect_err("no worker can be ready").to_string();
    assert!(error.contains("SIGKILL"), "{}: {error}", point.name);
    invariant.nothing_left().unwrap();
    for times in 1..=3u32 {
        let what = format!("{}, {times} times", point.name);
        play(
            retries,
            true,
            || board().arm(point.name, Fault::Kill, 1..u64::from(times) + 1),
            |_, played| {
                assert_eq!(board().done(point.name).0, times, "{what}");
                judge(played, retries, 0, 0).unwrap_or_else(|why| panic!("{what}: {why}"));
            },
        );
    }
}

/// Returns whether a death at this point loses a running job.
fn costs_a_job(point: &Point) -> bool {
    point.step() != "complete" && point.name != "claim.retracted"
}

fn in_a_job(point: &'static Point, retries: u32) {
    let all = passings()[point.name];
    each(
        point.name,
        all,
        &[Nth::First, Nth::Second, Nth::Last],
        |passing, what| killed_at(point, retries, passing, what),
    );
}

/// Runs a scene in which the worker is killed at its `nth` passing.
fn killed_at(point: &'static Point, retries: u32, nth: u64, what: &str) -> Result<Saw, String> {
    let before = Cell::new(0);
    let (mut passed, mut deaths, mut verdict) = (0, 0, Ok(()));
    play(
        retries,
        false,
        || {
            before.set(board().passed(point.name));
            board().arm(point.name, Fault::Kill, nth..nth + 1);
        },
        |lab, played| {
            passed = played.passed[point.name] - before.get();
            deaths = board().done(point.name).0;
            wait_until(&format!("the death is noticed ({what})"), || {
                lab.stats().workers[0].restarts == u64::from(deaths)
            });
            let cost = u32::from(costs_a_job(point)) * deaths;
            verdict = judge(played, retries, deaths, cost)
                .and_then(|visible| expect_visible(point, visible, cost));
            let asked = &played.answers[ASKED.start as usize..];
            let ended = asked.iter().filter(|answer| answer.is_ok()).count();
            if point.step() == "cancel" && ended + deaths as usize != asked.len() {
                verdict = Err("it was asked to end, and ran again".into());
            }
        },
    );
    verdict.map(|()| Saw { passed, deaths })
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
        let made = engine.submit(large, (&input, 1)).wait().unwrap();
        assert_eq!(made.len(), len_of(1));
    };
    (1..COPIES).for_each(|_| again());
    let workers = engine.stats().workers;
    let idle = workers.iter().find(|worker| worker.open == 0).unwrap();
    send_signal(idle.pid as i32, Signal::SIGKILL);
    again();
}
