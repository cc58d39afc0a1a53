//! Jobs that are retried.

use std::time::Duration;

use arenite::{Array, Backoff, Job, JobErrorKind, JobLimit, Rejection, WorkerExit};

use crate::harness::{
    ABORTED, Calls, Diary, Gate, Lab, assert_kind, assert_says, block_on, hang, late, note,
    note_after, panicked, pass, rejected, step, tests, wait_until,
};

tests![
    a_death_fails_or_is_retried,
    deaths_are_listed_and_attempts_counted,
    each_attempt_has_the_whole_deadline,
    failures_that_are_never_retried,
    inputs_live_until_the_answer,
    a_poison_job_is_quarantined,
    a_dropped_job_is_not_retried,
    a_cancelled_job_is_not_retried,
    jobs_waiting_for_a_retry_can_be_cancelled,
    all_attempts_run_whoever_waits,
    the_end_of_the_engine_answers_waiting_retries,
    a_chain_is_retried_as_a_whole,
];

const FOREVER: Backoff = Backoff::new(Duration::from_secs(3600), Duration::from_secs(3600));

/// In a kernel: dies until the file has this number of lines.
fn die_until(diary: &str, attempts: u32) -> u32 {
    let before = note_after(diary, "tried") as u32;
    if before + 1 < attempts {
        std::process::abort();
    }
    before + 1
}

fn die() {
    std::process::abort();
}

/// A job that has died once and waits for a second attempt that will not come.
fn waiting(lab: &Lab) -> Job<()> {
    let before = lab.stats().waiting;
    let job = lab.job(die, ()).retries(1).backoff(FOREVER).submit();
    wait_until("a job waits for its next attempt", || {
        lab.stats().waiting > before
    });
    job
}

/// The first, the second or the last of several jobs dies once.
fn a_death_fails_or_is_retried() {
    let lab = Lab::balanced(2);
    for retries in [0, 1] {
        for bad in [0, 1, 9] {
            let diary = Diary::new();
            let (running, held) = lab.hold();
            let jobs: Vec<_> = (0..10)
                .map(|n| {
                    let attempts = if n == bad { 2 } else { 1 };
                    let own = if n == bad {
                        diary.path()
                    } else {
                        "/dev/null".into()
                    };
                    let job = lab.job(die_until, (own, attempts));
                    job.retries(retries).submit()
                })
                .collect();
            drop(held);
            running.wait().unwrap();
            for (n, job) in jobs.into_iter().enumerate() {
                match job.wait() {
                    Ok(attempts) => assert_eq!(attempts, if n == bad { 2 } else { 1 }),
                    Err(error) => {
                        assert_eq!((n, retries), (bad, 0), "{error}");
                        assert_eq!(*error.kind(), ABORTED);
                        assert!(error.deaths().is_empty());
                    }
                }
            }
            assert_eq!(diary.lines().len() as u32, 1 + retries);
        }
    }
}

fn deaths_are_listed_and_attempts_counted() {
    fn in_turn(diary: &str) {
        match note_after(diary, "tried") {
            0 => std::process::abort(),
            1 => std::process::exit(3),
            2 => panic!("third"),
            _ => hang(),
        }
    }
    let lab = Lab::balanced_with(1, |builder| builder.quarantine_after(100));
    let mut limit = Duration::from_millis(300);
    let error = loop {
        step(format!("four attempts of {limit:?}"));
        let diary = Diary::new();
        let job = lab.job(in_turn, (diary.path(),));
        let error = lab.failure_of(job.retries(3).deadline(limit).submit());
        assert_eq!(*error.kind(), late(limit));
        // On a busy machine the others may have been too late as well.
        if error.deaths().iter().all(|death| *death != late(limit)) {
            break error;
        }
        limit *= 2;
    };
    assert_eq!(error.attempt(), 4);
    let [first, second, third] = error.deaths() else {
        panic!("{error:?}");
    };
    let (message, ..) = panicked(&third.kind);
    assert_eq!(*first, ABORTED);
    assert_eq!(*second, JobErrorKind::Lost(WorkerExit::Code(Some(3))));
    assert_eq!(message, "third");
    assert_says(&error, "attempt 4");
    // Only the last are retained.
    let error = lab.failure_of(
        lab.job(|| -> () { panic!("again") }, ())
            .retries(30)
            .backoff(Backoff::NONE)
            .submit(),
    );
    assert_eq!((error.attempt(), error.deaths().len()), (31, 16));
}

fn each_attempt_has_the_whole_deadline() {
    fn hang_until(diary: &str, attempts: u32) -> u32 {
        let before = note_after(diary, "tried") as u32;
        if before + 1 < attempts {
            hang();
        }
        before + 1
    }
    let lab = Lab::balanced(2);
    // Each attempt must write to the diary by then, on a machine that may be busy.
    let mut limit = Duration::from_millis(100);
    loop {
        step(format!("three attempts of {limit:?}"));
        let diary = Diary::new();
        let job = lab.job(hang_until, (diary.path(), 3));
        match job.deadline(limit).retries(2).submit().wait() {
            Ok(attempts) => break assert_eq!(attempts, 3),
            Err(error) => assert_eq!(*error.kind(), late(limit)),
        }
        limit *= 2;
    }
}

fn failures_that_are_never_retried() {
    static KEPT: std::sync::Mutex<Option<Array<u8>>> = std::sync::Mutex::new(None);
    fn returned(diary: &str) -> Result<(), String> {
        note(diary, "tried");
        Err("no".into())
    }
    fn full(diary: &str) -> Array<u8> {
        note(diary, "tried");
        Array::zeros(1 << 40)
    }
    fn escaped(diary: &str) {
        note(diary, "tried");
        *KEPT.lock().unwrap() = Some(Array::from_slice(&[1]));
    }
    let lab = Lab::balanced(1);
    let diary = Diary::new();
    let path = diary.path();
    let error = lab.failure_of(lab.job(returned, (&path,)).retries(9).submit());
    assert_eq!(*error.kind(), JobErrorKind::Returned("no".into()));
    let error = lab.failure_of(lab.job(full, (&path,)).retries(9).submit());
    assert_kind!(error, JobErrorKind::Limit(JobLimit::Arena(_)));
    let error = lab.failure_of(lab.job(escaped, (&path,)).retries(9).submit());
    assert_kind!(error, JobErrorKind::Lost(WorkerExit::Escaped { count: 1 }));
    let foreign = Array::from_slice(&[1u8]);
    let sum = |values: &Array<u8>| values.len();
    let error = lab.failure_of(lab.job(sum, (&foreign,)).retries(9).submit());
    assert_eq!(*error.kind(), rejected(Rejection::ForeignArray));
    assert_eq!(diary.lines().len(), 3, "each once");
}

/// The caller drops its handles after the first attempt; their memory is not reused.
fn inputs_live_until_the_answer() {
    fn sum(diary: &str, values: &Array<u64>, long: &str) -> Array<u64> {
        assert_eq!(long.len(), 1000);
        match note_after(diary, "tried") {
            0 => panic!("the worker lives on"),
            1 => std::process::abort(),
            _ => Array::from_slice(&[values.iter().sum()]),
        }
    }
    let lab = Lab::balanced(1);
    let diary = Diary::new();
    let values = lab.from_fn(100_000, |i| i as u64).unwrap();
    let expected: u64 = values.iter().sum();
    let job = lab.job(sum, (diary.path(), &values, "x".repeat(1000)));
    let pause = Backoff::new(Duration::from_millis(50), Duration::from_millis(50));
    let job = job.retries(2).backoff(pause).submit();
    drop(values);
    wait_until("the first attempt is over", || lab.stats().waiting > 0);
    // Overwrites all free memory.
    for _ in 0..20 {
        let fill = lab.from_fn(100_000, |_| u64::MAX).unwrap();
        drop(fill);
    }
    let result = job.wait().unwrap();
    assert_eq!(result[..], [expected]);
}

fn a_poison_job_is_quarantined() {
    let lab = Lab::with(2, |builder| builder.quarantine_after(3));
    for round in 1..=20 {
        let job = lab.job(die, ()).retries(1000).submit();
        let error = lab.failure_of(job);
        assert_eq!(
            *error.kind(),
            JobErrorKind::Limit(JobLimit::Quarantined { deaths: 3 })
        );
        assert_eq!(error.deaths(), [ABORTED, ABORTED, ABORTED]);
        assert_eq!(error.attempt(), 3);
        assert_says(&error, "SIGABRT");
        assert_eq!(lab.value_of(|| 1u8, ()), 1);
        assert_eq!(lab.stats().restarts(), 3 * round, "no more than that");
    }
    lab.assert_in_use(0);
    // Five by default.
    let lab = Lab::new(2);
    let error = lab.failure_of(lab.job(die, ()).retries(1000).submit());
    assert_eq!(
        *error.kind(),
        JobErrorKind::Limit(JobLimit::Quarantined { deaths: 5 })
    );
    assert_eq!(lab.stats().restarts(), 5);
}

fn a_dropped_job_is_not_retried() {
    let lab = Lab::new(1);
    // While it waits.
    let input = lab.zeros::<u8>(1 << 20).unwrap().seal();
    let on = |_: &Array<u8>| -> () { std::process::abort() };
    let job = lab.job(on, (&input,)).retries(1).backoff(FOREVER).submit();
    drop(input);
    wait_until("it waits", || lab.stats().waiting == 1);
    drop(job);
    lab.assert_in_use(0);
    // While it runs.
    let (diary, gate) = (Diary::new(), Gate::new());
    let run = |diary: &str, gate: &str| -> () {
        note(diary, "tried");
        pass(gate);
        std::process::abort();
    };
    let job = lab.job(run, (diary.path(), gate.path()));
    let job = job.retries(3).backoff(Backoff::NONE).submit();
    let held = gate.meet();
    drop(job);
    drop(held);
    lab.assert_in_use(0);
    assert_eq!(diary.lines().len(), 1);
}

fn a_cancelled_job_is_not_retried() {
    fn run(diary: &str, gate: &str) {
        note(diary, "tried");
        pass(gate);
        panic!("badly");
    }
    let lab = Lab::balanced(1);
    let (diary, gate) = (Diary::new(), Gate::new());
    let job = lab.job(run, (diary.path(), gate.path()));
    let job = job.retries(3).backoff(Backoff::NONE).submit();
    let held = gate.meet();
    job.cancel();
    drop(held);
    let error = lab.failure_of(job);
    assert_kind!(error, JobErrorKind::Panicked { .. });
    assert_eq!((error.attempt(), diary.lines().len()), (1, 1));
}

fn jobs_waiting_for_a_retry_can_be_cancelled() {
    let lab = Lab::balanced(1);
    for now in [false, true] {
        let job = waiting(&lab);
        if now {
            job.kill();
        } else {
            job.cancel();
        }
        let error = lab.failure_of(job);
        assert_eq!(*error.kind(), JobErrorKind::Cancelled);
        assert_eq!(error.deaths(), [ABORTED], "what had happened before");
    }
}

fn all_attempts_run_whoever_waits() {
    fn panic_until(diary: &str) -> usize {
        let before = note_after(diary, "tried");
        assert!(before >= 2, "not yet");
        before
    }
    let lab = Lab::balanced(1);
    let diary = Diary::new();
    let job = lab.job(panic_until, (&diary.path(),)).retries(5).submit();
    assert_eq!(job.wait().unwrap(), 2);
    assert_eq!(lab.stats().workers[0].restarts, 0, "in the same worker");
    let diary = Diary::new();
    let job = lab.job(die_until, (diary.path(), 4)).retries(3).submit();
    step("a future, over three deaths");
    assert_eq!(block_on(job).unwrap(), 4);
    let job = lab.job(die, ()).retries(2).submit();
    assert_eq!(block_on(job).unwrap_err().attempt(), 3);
    let diary = Diary::new();
    let job = lab.job(die_until, (diary.path(), 3)).retries(2);
    job.submit().detach();
    wait_until("the third attempt", || diary.lines().len() == 3);
}

fn the_end_of_the_engine_answers_waiting_retries() {
    for drains in [true, false] {
        let lab = Lab::new(2);
        let job = waiting(&lab);
        let future = waiting(&lab);
        waiting(&lab).detach();
        let future = std::thread::spawn(move || block_on(future));
        let done = lab.submit(|| 1u8, ());
        match drains {
            true => lab.into_inner().shutdown(),
            false => drop(lab),
        }
        for error in [job.wait().unwrap_err(), future.join().unwrap().unwrap_err()] {
            assert_eq!(*error.kind(), JobErrorKind::ShutDown);
            assert_eq!(error.deaths(), [ABORTED]);
        }
        assert!(done.wait() == Ok(1) || !drains);
    }
    // What fails while the engine drains is not retried.
    let lab = Lab::new(1);
    let gate = Gate::new();
    let run = |gate: &str| -> () {
        pass(gate);
        std::process::abort()
    };
    let job = lab.job(run, (gate.path(),)).retries(9).submit();
    let held = gate.meet();
    let engine = lab.into_inner();
    let closing = std::thread::spawn(move || engine.shutdown());
    // `close` has been called when a job is refused, but that cannot be observed any more, so the kernel continues at
    // some moment before or after. Either way draining ends.
    drop(held);
    closing.join().unwrap();
    let kind = job.wait().unwrap_err().kind().clone();
    assert!(
        kind == JobErrorKind::ShutDown || kind == ABORTED,
        "{kind:?}"
    );
}

fn a_chain_is_retried_as_a_whole() {
    fn begin(diary: &str) -> Array<u32> {
        Array::from_slice(&[note_after(diary, "begin") as u32])
    }
    fn end(values: &Array<u32>, diary: &str) -> u32 {
        if note_after(diary, "end") < 3 {
            std::process::abort();
        }
        values[0]
    }
    let lab = Lab::balanced(1);
    let diary = Diary::new();
    let job = lab.job(begin, (diary.path(),)).then(end, (diary.path(),));
    assert_eq!(job.retries(1).submit().wait().unwrap(), 2);
    assert_eq!(diary.lines(), ["begin", "end", "begin", "end"]);
}
