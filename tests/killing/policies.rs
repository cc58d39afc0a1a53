//! Workers killed while somebody has made up his mind about them: they are to be replaced, their job is given up, or
//! others wait for its end.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use arenite::points::Fault;
use arenite::{Array, Backoff, Engine, JobErrorKind, WorkerExit};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::board::board;
use crate::harness::{Answers, Gate, Invariant, Lab, named, pass, step, wait_until};
use crate::passings::AGAIN;
use crate::scene::begin;

const ROUNDS: u64 = 3;

/// Whether a bell has to be rung depends on who is awake, and how much one grant is on what was committed, so there may be a
/// scene without. Every other point is passed by every job, or by every worker that ends.
const NOT_ALWAYS: [&str; 2] = ["complete.rung", "allocate.granted"];

/// Has the scene played with a death at each of these passings; it tells whether there was one.
fn at_each_passing(point: &str, scene: impl Fn(u64) -> bool) {
    for nth in 1..=ROUNDS {
        let tries = if NOT_ALWAYS.contains(&point) {
            AGAIN
        } else {
            1
        };
        let came = (0..tries).any(|_| scene(nth));
        assert!(came, "passing {nth} of {point}: nobody came by");
    }
}

pub fn trials() -> Vec<Trial> {
    type Test = fn(&'static str);
    let groups: [(&str, Test, &[&'static str]); 4] = [
        (
            "served",
            served,
            &[
                "claim.taken",
                "run.entered",
                "publish.settled",
                "complete.stored",
                "complete.rung",
                "stop.obeyed",
            ],
        ),
        (
            "grown",
            grown,
            &["run.returned", "complete.stored", "stop.obeyed"],
        ),
        (
            "admitted",
            admitted,
            &[
                "claim.taken",
                "allocate.granted",
                "publish.settled",
                "complete.stored",
                "complete.woken",
                "complete.rung",
            ],
        ),
        (
            "ended_now",
            ended_now,
            &["run.entered", "cancel.seen", "complete.stored"],
        ),
    ];
    let trial = |group: &str, test: Test, point| {
        named(format!("policies::{group}::{point}"), move || test(point))
    };
    groups
        .into_iter()
        .flat_map(|(group, test, points)| {
            points.iter().map(move |&point| trial(group, test, point))
        })
        .collect()
}

/// Does a death there take a running job with it?
fn costs_a_job(point: &str) -> bool {
    !point.starts_with("complete.") && point != "stop.obeyed"
}

fn killed(why: &JobErrorKind) -> bool {
    *why == JobErrorKind::Lost(WorkerExit::Signal(Signal::SIGKILL as i32))
}

fn log() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    File::create(&path).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// No job has begun twice.
fn expect_each_once(log: &str) {
    let text = std::fs::read_to_string(log).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), all, "a job ran twice: {text}");
}

/// The engine goes on, and its books balance; then it ends and leaves nothing.
fn expect_whole(invariant: Invariant, lab: Lab) {
    board().disarm();
    wait_until("the worker is ready", || lab.stats().workers[0].ready);
    invariant.holds(&lab, 0).unwrap();
    assert_eq!(lab.stats().admitted, 0, "nothing is in flight");
    step("the engine to shut down");
    lab.into_inner().shutdown();
    invariant.nothing_left().unwrap();
}

/// (restarts, recycled)
fn ends(engine: &Engine) -> (u64, u64) {
    let worker = &engine.stats().workers[0];
    (worker.restarts, worker.recycled)
}

fn make(log: &str, job: u32, len: usize) -> Array<u32> {
    begin(log, job);
    Array::from_fn(len, |i| i as u32 ^ job)
}

fn made(job: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| i ^ job).collect()
}

/// Workers that are replaced after two jobs, one of which dies: in its first job, in its last one, or after that.
fn served(point: &'static str) {
    const JOBS: u32 = 8;
    at_each_passing(point, |nth| {
        let invariant = Invariant::before();
        let lab = Lab::with(1, |builder| builder.recycle_after_jobs(2));
        let (_folder, log) = log();
        board().arm(point, Fault::Kill, nth..nth + 1);
        let jobs: Vec<_> = (0..JOBS)
            .map(|job| lab.submit(make, (&*log, job, 5000)))
            .collect();
        let answers = jobs
            .into_iter()
            .map(|job| job.wait().map(|array| array.to_vec()));
        let reference: Vec<_> = (0..JOBS).map(|job| made(job, 5000)).collect();
        let answers = Answers::compare(answers, &reference).unwrap();
        answers.cost_at_most(1, killed).unwrap();
        wait_until("the death is noticed", || {
            ends(&lab).0 == u64::from(board().done(point).0)
        });
        let (restarts, recycled) = ends(&lab);
        assert_eq!(
            answers.failed.len() as u64,
            if costs_a_job(point) { restarts } else { 0 }
        );
        // Each life has two jobs at most, and one of them may have ended early.
        assert!(
            restarts + recycled >= u64::from(JOBS / 2) - 1,
            "{recycled} of {JOBS} jobs"
        );
        expect_each_once(&log);
        expect_whole(invariant, lab);
        restarts == 1
    });
}

const LARGE: u64 = 64 << 20;

fn leak() {
    std::mem::forget(std::hint::black_box(vec![1u8; 3 * LARGE as usize / 2]));
}

fn held(log: &str, gate: &str, job: u32) -> Array<u32> {
    begin(log, job);
    pass(gate);
    Array::from_fn(100, |i| i as u32 ^ job)
}

/// A worker that has been told to stop dies of it, or before: what it held ahead has been taken back, and runs elsewhere.
fn grown(point: &'static str) {
    let (mut round, mut tries) = (0, 0);
    while round < ROUNDS {
        tries += 1;
        assert!(tries < 20, "its worker is never replaced while it runs");
        let invariant = Invariant::before();
        let lab = Lab::with(1, |builder| builder.recycle_above_bytes(LARGE));
        let (_folder, log) = log();
        let gate = Gate::new();
        let told = board().passed("recycle.rung");
        let leaks = lab.submit(leak, ());
        let mut jobs = vec![lab.submit(held, (&*log, &gate.path(), 0))];
        jobs.extend((1..5).map(|job| lab.submit(make, (&*log, job, 100))));
        let at_the_gate = gate.meet();
        wait_until("the worker is told to stop", || {
            board().passed("recycle.rung") > told
        });
        // It may have been told before the job came, which has the next one now.
        let leaves = !lab.stats().workers[0].ready;
        if leaves {
            assert_eq!(lab.stats().queued, 4, "what it held ahead is back");
            board().arm(point, Fault::Kill, 1..2);
            round += 1;
        }
        drop(at_the_gate);
        leaks.wait().unwrap();
        let answers = jobs
            .into_iter()
            .map(|job| job.wait().map(|array| array.to_vec()));
        let reference: Vec<_> = (0..5).map(|job| made(job, 100)).collect();
        let answers = Answers::compare(answers, &reference).unwrap();
        wait_until("the worker is replaced", || {
            ends(&lab).0 + ends(&lab).1 == 1
        });
        assert_eq!(
            ends(&lab).0,
            u64::from(leaves),
            "a death is not a replacement"
        );
        answers.cost_at_most(1, killed).unwrap();
        let cost = usize::from(leaves && costs_a_job(point));
        assert_eq!(answers.failed.len(), cost, "{:?}", answers.failed);
        assert!(
            answers.failed.iter().all(|(job, _)| *job == 0),
            "{:?}",
            answers.failed
        );
        expect_each_once(&log);
        expect_whole(invariant, lab);
    }
}

/// Each job fills most of what may be in flight, so whoever submits the next one waits for the end of the one before,
/// which nobody else waits for; one of them dies.
fn admitted(point: &'static str) {
    const JOBS: u32 = 6;
    const LEN: usize = 150_000;
    at_each_passing(point, |nth| {
        let invariant = Invariant::before();
        let lab = Lab::with(1, |builder| builder.max_in_flight_bytes(1 << 20));
        let (_folder, log) = log();
        let waited = board().passed("admit.waits");
        board().arm(point, Fault::Kill, nth..nth + 1);
        let jobs: Vec<_> = (0..JOBS)
            .map(|job| {
                step(format!("job {job} to be let in"));
                lab.submit(make, (&*log, job, LEN))
            })
            .collect();
        let answers = jobs
            .into_iter()
            .map(|job| job.wait().map(|array| array.to_vec()));
        let reference: Vec<_> = (0..JOBS).map(|job| made(job, LEN)).collect();
        let answers = Answers::compare(answers, &reference).unwrap();
        assert!(board().passed("admit.waits") > waited, "nobody waited");
        let (done, _) = board().done(point);
        wait_until("the death is noticed", || {
            ends(&lab) == (u64::from(done), 0)
        });
        answers.cost_at_most(1, killed).unwrap();
        let cost = if costs_a_job(point) { done } else { 0 };
        assert_eq!(answers.failed.len() as u32, cost, "{:?}", answers.failed);
        expect_each_once(&log);
        expect_whole(invariant, lab);
        done == 1
    });
}

fn listen(log: &str, job: u32, heard: &str) -> u32 {
    begin(log, job);
    while !heard.is_empty() && !arenite::cancelled() {
        std::thread::park_timeout(Duration::from_micros(50));
    }
    job
}

/// A worker dies just when its job is to be ended with it: the job is not tried again, and has one answer.
fn ended_now(point: &'static str) {
    for round in 0..ROUNDS {
        let invariant = Invariant::before();
        let lab = Lab::new(1);
        let (_folder, log) = log();
        board().arm(point, Fault::Kill, 1..2);
        // Who hears it has been asked before.
        let asks = point == "cancel.seen";
        let heard = if asks { "yes" } else { "" };
        // Were it tried again it would not be answered for an hour.
        let hour = Duration::from_secs(3600);
        let job = lab.job(listen, (&*log, 0, heard)).retries(3);
        let job = job.backoff(Backoff::new(hour, hour)).submit();
        let behind = lab.job(listen, (&*log, 1, "")).retries(3).submit();
        if asks {
            wait_until("it runs", || Path::new(&log).metadata().unwrap().len() > 0);
            job.cancel();
        }
        if round > 0 {
            // Otherwise before it dies, or while it does.
            wait_until("it dies", || board().done(point).0 == 1);
        }
        if round > 1 {
            wait_until("its end is confirmed", || ends(&lab).0 == 1);
        }
        job.kill();
        match job.wait() {
            Ok(0) => assert_eq!(point, "complete.stored"),
            Ok(other) => panic!("job 0 answers {other}"),
            Err(error) => {
                let kind = error.kind();
                let died = killed(kind) && asks;
                assert!(died || *kind == JobErrorKind::Cancelled, "{error}");
                let done = point == "complete.stored" && round > 0;
                assert!(!done, "it was over before: {error}");
                // It was asked to end already, so its death is its answer.
                assert!(
                    died || !asks || round < 2,
                    "it was to be tried again: {error}"
                );
            }
        }
        board().disarm();
        assert_eq!(behind.wait().unwrap(), 1);
        // Where the first one was ended before its worker came by, the next one did.
        let deaths = ends(&lab).0;
        assert!(deaths <= if round == 0 { 2 } else { 1 }, "{deaths} deaths");
        expect_each_once(&log);
        expect_whole(invariant, lab);
    }
}
