//! Workers killed while the supervisor has already decided about them: they are to be recycled, their job is cancelled, or other
//! jobs wait for its end.

use std::time::Duration;

use arenite::points::Fault;
use arenite::{Array, Backoff, Engine, Job, JobErrorKind};
use libtest_mimic::Trial;

use crate::board::board;
use crate::harness::{Answers, Diary, Gate, Invariant, KILLED, Lab, named, pass, step, wait_until};
use crate::passings::AGAIN;
use crate::scene::begin;

const ROUNDS: u64 = 3;

/// Points that not every scene passes: whether a doorbell is rung depends on which side is awake, and the size of a grant on the
/// committed memory. Every job, or every ending worker, passes each of the others.
const NOT_ALWAYS: [&str; 2] = ["complete.rung", "allocate.granted"];

/// Runs the scene with a death at each of these passings; `scene` returns whether there was one.
fn at_each_passing(point: &str, scene: impl Fn(u64) -> bool) {
    for nth in 1..=ROUNDS {
        let tries = if NOT_ALWAYS.contains(&point) {
            AGAIN
        } else {
            1
        };
        let came = (0..tries).any(|_| scene(nth));
        assert!(came, "passing {nth} of {point}: not passed");
    }
}

pub fn trials() -> Vec<Trial> {
    type Test = fn(&'static str);
    const ENTERED: &str = "run.entered";
    const STORED: &str = "complete.stored";
    const OBEYED: &str = "stop.obeyed";
    let of_served = [
        "claim.taken",
        ENTERED,
        "publish.settled",
        STORED,
        "complete.rung",
        OBEYED,
    ];
    let of_admitted = [
        "claim.taken",
        "allocate.granted",
        "publish.settled",
        STORED,
        "complete.woken",
        "complete.rung",
    ];
    let groups: [(&str, Test, &[&'static str]); 4] = [
        ("served", served, &of_served),
        ("grown", grown, &["run.returned", STORED, OBEYED]),
        ("admitted", admitted, &of_admitted),
        ("ended_now", ended_now, &[ENTERED, "cancel.seen", STORED]),
    ];
    let trials = groups.into_iter().flat_map(|(group, test, points)| {
        let name = move |point| format!("policies::{group}::{point}");
        let trial = move |&point: &&'static str| named(name(point), move || test(point));
        points.iter().map(trial)
    });
    trials.collect()
}

/// Returns whether a death at this point loses a running job.
fn costs_a_job(point: &str) -> bool {
    !point.starts_with("complete.") && point != "stop.obeyed"
}

fn killed(why: &JobErrorKind) -> bool {
    *why == KILLED
}

/// Checks that no job has started twice.
fn expect_each_once(log: &Diary) {
    let mut began = log.numbers();
    began.sort_unstable();
    assert!(
        began.is_sorted_by(|a, b| a < b),
        "a job ran twice: {began:?}"
    );
}

/// Checks that the engine works and that its memory accounting balances; then ends it.
fn expect_whole(invariant: Invariant, lab: Lab) {
    board().disarm();
    wait_until("the worker is ready", || lab.stats().workers[0].ready);
    invariant.holds(&lab, 0).unwrap();
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

/// Waits for jobs that have made arrays of this length, of which a death may have cost one.
fn answers(jobs: Vec<Job<Array<u32>>>, len: usize) -> Answers {
    let made = |job: u32| Vec::from_iter((0..len as u32).map(|i| i ^ job));
    let reference: Vec<_> = (0..jobs.len() as u32).map(made).collect();
    let answers = jobs
        .into_iter()
        .map(|job| job.wait().map(|array| array.to_vec()));
    let answers = Answers::compare(answers, &reference).unwrap();
    answers.cost_at_most(1, killed).unwrap();
    answers
}

/// Workers that are recycled after two jobs, one of which dies: in its first job, in its last, or after that.
fn served(point: &'static str) {
    const JOBS: u32 = 8;
    at_each_passing(point, |nth| {
        let log = Diary::new();
        let invariant = Invariant::before();
        let lab = Lab::with(1, |builder| builder.recycle_after_jobs(2));
        board().arm(point, Fault::Kill, nth..nth + 1);
        let jobs: Vec<_> = (0..JOBS)
            .map(|job| lab.submit(make, (&log.path(), job, 5000)))
            .collect();
        let answers = answers(jobs, 5000);
        wait_until("the death is noticed", || {
            ends(&lab).0 == u64::from(board().done(point).0)
        });
        let (restarts, recycled) = ends(&lab);
        assert_eq!(
            answers.failed.len() as u64,
            if costs_a_job(point) { restarts } else { 0 }
        );
        // Each generation has at most two jobs, and one of them may have ended early.
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

/// A worker that is to stop dies while it stops, or before: jobs in its slots have been retracted, and run elsewhere.
fn grown(point: &'static str) {
    let (mut round, mut tries) = (0, 0);
    while round < ROUNDS {
        tries += 1;
        assert!(tries < 20, "its worker is never replaced while it runs");
        let log = Diary::new();
        let invariant = Invariant::before();
        let lab = Lab::with(1, |builder| builder.recycle_above_bytes(LARGE));
        let gate = Gate::new();
        let requests = board().passed("recycle.rung");
        let leaks = lab.submit(leak, ());
        let mut jobs = vec![lab.submit(held, (&log.path(), &gate.path(), 0))];
        jobs.extend((1..5).map(|job| lab.submit(make, (&log.path(), job, 100))));
        let at_the_gate = gate.meet();
        wait_until("the worker is asked to stop", || {
            board().passed("recycle.rung") > requests
        });
        // The request may have come before the job, which then runs in the next worker.
        let leaves = !lab.stats().workers[0].ready;
        if leaves {
            assert_eq!(lab.stats().queued, 4, "what it held ahead is back");
            board().arm(point, Fault::Kill, 1..2);
            round += 1;
        }
        drop(at_the_gate);
        leaks.wait().unwrap();
        let answers = answers(jobs, 100);
        wait_until("the worker is replaced", || {
            ends(&lab).0 + ends(&lab).1 == 1
        });
        let deaths = ends(&lab).0;
        assert_eq!(deaths, u64::from(leaves), "a death is not a replacement");
        let cost = usize::from(leaves && costs_a_job(point));
        let failed: Vec<_> = answers.failed.iter().map(|(job, _)| *job).collect();
        assert_eq!(failed, vec![0; cost]);
        expect_each_once(&log);
        expect_whole(invariant, lab);
    }
}

/// Each job fills most of the admission limit, so the submission of the next waits for the end of the one before, for which no
/// other thread waits; one of them dies.
fn admitted(point: &'static str) {
    const JOBS: u32 = 6;
    const LEN: usize = 150_000;
    at_each_passing(point, |nth| {
        let log = Diary::new();
        let invariant = Invariant::before();
        let lab = Lab::with(1, |builder| builder.max_in_flight_bytes(1 << 20));
        let waited = board().passed("admit.waits");
        board().arm(point, Fault::Kill, nth..nth + 1);
        let jobs: Vec<_> = (0..JOBS)
            .map(|job| {
                step(format!("job {job} to be let in"));
                lab.submit(make, (&log.path(), job, LEN))
            })
            .collect();
        let answers = answers(jobs, LEN);
        assert!(
            board().passed("admit.waits") > waited,
            "no submission waited"
        );
        let (done, _) = board().done(point);
        wait_until("the death is noticed", || {
            ends(&lab) == (u64::from(done), 0)
        });
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

/// A worker dies when it is about to be killed for its cancelled job: the job is not retried, and has one outcome.
fn ended_now(point: &'static str) {
    for round in 0..ROUNDS {
        let log = Diary::new();
        let invariant = Invariant::before();
        let lab = Lab::new(1);
        let path = log.path();
        board().arm(point, Fault::Kill, 1..2);
        // The kernel has seen the request.
        let asks = point == "cancel.seen";
        let heard = if asks { "yes" } else { "" };
        // A retry would take an hour.
        let hour = Duration::from_secs(3600);
        let job = lab.job(listen, (&path, 0, heard)).retries(3);
        let job = job.backoff(Backoff::new(hour, hour)).submit();
        let behind = lab.job(listen, (&path, 1, "")).retries(3).submit();
        if asks {
            wait_until("it runs", || !log.lines().is_empty());
            job.cancel();
        }
        if round > 0 {
            // Otherwise before its death or during it.
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
                // The cancellation has been requested, so the death is its outcome.
                assert!(
                    died || !asks || round < 2,
                    "it was to be tried again: {error}"
                );
            }
        }
        board().disarm();
        assert_eq!(behind.wait().unwrap(), 1);
        // If the first job ended before its worker passed the point, the next one's did.
        let deaths = ends(&lab).0;
        assert!(deaths <= if round == 0 { 2 } else { 1 }, "{deaths} deaths");
        expect_each_once(&log);
        expect_whole(invariant, lab);
    }
}
