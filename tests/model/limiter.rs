//! Shared limits: concurrency, rate, and the order of callers.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use arenite::stream::Stream;
use arenite::{Array, Backoff, Engine, Job, JobErrorKind, JobOptions, Limiter, Rejection};

use crate::harness::{
    Diary, Gate, KILLED, Lab, block_on, late, note, pass, rejected, step, tests, through,
    wait_until,
};

tests![
    at_most_the_limit_run_at_a_time,
    a_rate_limit_delays_jobs,
    callers_take_turns,
    tasks_of_one_thread_take_turns_with_their_own_handles,
    all_submissions_of_a_handle_are_one_caller,
    engines_share_a_limit,
    an_inline_engine_shares_a_limit,
    a_job_that_waits_for_its_own_permit_is_rejected,
    a_permit_is_returned_when_its_worker_dies,
    each_attempt_needs_a_permit,
    a_job_cancelled_while_waiting_for_a_permit_leaves_the_queue,
    dropping_a_running_job_keeps_its_permit_until_it_ends,
    a_map_leaves_permits_for_others,
    shutdown_runs_jobs_that_wait_for_permits,
    a_dropped_engine_answers_its_jobs_and_frees_its_permits,
];

fn at_once(jobs: u32) -> Limiter {
    Limiter::new().concurrency(jobs)
}

/// Submits a job that waits at the gate, if any, and returns the number.
fn send(lab: &Engine, limiter: &Limiter, gate: &str, n: u64) -> Job<u64> {
    lab.job(through, (gate, n)).limit(limiter).submit()
}

fn at_most_the_limit_run_at_a_time() {
    /// Notes when it began and ended.
    fn mark(diary: &str) {
        note(diary, "begins");
        (0..2000).for_each(|n| {
            std::hint::black_box(n);
        });
        note(diary, "ends");
    }
    let file = Diary::new();
    let diary = file.path();
    let lab = Lab::new(4);
    let two = at_once(2);
    step("350 jobs, two at a time");
    let jobs: Vec<_> = (0..150)
        .map(|_| lab.job(mark, (&diary,)).limit(&two).submit())
        .collect();
    let mapped = lab.map(mark, (0..150).map(|_| (diary.clone(),)));
    mapped
        .options(&JobOptions::new().limit(&two))
        .for_each(Result::unwrap);
    let paths = (0..50).map(|_| diary.clone());
    let streamed = Stream::new(paths)
        .stage(mark, ())
        .options(&JobOptions::new().limit(&two))
        .run(&lab);
    streamed.for_each(Result::unwrap);
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    let marks = file.lines();
    assert_eq!(marks.len(), 700);
    let (mut inside, mut most) = (0, 0);
    for mark in marks {
        inside += if mark == "begins" { 1 } else { -1 };
        most = most.max(inside);
    }
    assert!(most <= 2, "{most} at a time");
    lab.assert_idle();
}

fn a_rate_limit_delays_jobs() {
    let lab = Lab::new(2);
    let limiter = Limiter::new().rate(200, Duration::from_secs(1));
    let start = Instant::now();
    step("21 jobs, 5 ms from one to the next");
    let jobs: Vec<_> = (0..21).map(|n| send(&lab, &limiter, "", n)).collect();
    assert!(jobs.into_iter().map(|job| job.wait().unwrap()).eq(0..21));
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(100), "{took:?}");
    // A burst does not wait; later jobs do.
    let bursts = Limiter::new().rate(1, Duration::from_secs(3600));
    let bursts = bursts.burst(3);
    let mut jobs: Vec<_> = (0..4).map(|n| send(&lab, &bursts, "", n)).collect();
    let last = jobs.pop().unwrap();
    assert!(jobs.into_iter().all(|job| job.wait().is_ok()));
    assert_eq!(lab.stats().limited, 1);
    drop(last);
    lab.assert_idle();
}

fn noted(diary: &str, n: u64) {
    note(diary, n);
}

fn callers_take_turns() {
    let file = Diary::new();
    let diary = file.path();
    let labs = [Lab::new(2), Lab::new(2)];
    let one = at_once(1);
    let gate = Gate::new();
    let first = send(&labs[0], &one, &gate.path(), 0);
    let held = gate.meet();
    // Each caller submits all its jobs before the next begins; the last uses another engine.
    let submit = |lab: &Lab, numbers: std::ops::Range<u64>| -> Vec<Job<()>> {
        let send = |n| lab.job(noted, (&diary, n)).limit(&one).submit();
        thread::scope(|s| s.spawn(|| numbers.map(send).collect()).join().unwrap())
    };
    let mut jobs = submit(&labs[0], 100..120);
    jobs.extend(submit(&labs[0], 200..202));
    jobs.extend(submit(&labs[1], 300..303));
    drop(held);
    step("all waiting jobs");
    first.wait().unwrap();
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    let rounds = [100, 200, 300, 101, 201, 301, 102, 302];
    assert!(
        file.numbers()
            .into_iter()
            .eq(rounds.into_iter().chain(103..120))
    );
}

/// Two tasks of one thread: the first has queued 100 jobs when the second submits one. Returns the jobs in the order
/// they ran.
fn two_tasks(first: &Limiter, second: &Limiter) -> Vec<u32> {
    let file = Diary::new();
    let diary = file.path();
    let lab = Lab::new(2);
    let gate = Gate::new();
    let running = send(&lab, first, &gate.path(), 0);
    let held = gate.meet();
    let tasks = smol::LocalExecutor::new();
    let many = tasks.spawn(async {
        let send = |n| lab.job(noted, (&diary, n)).limit(first).submit();
        for job in (0..100).map(send).collect::<Vec<_>>() {
            job.await.unwrap();
        }
    });
    block_on(tasks.run(async {
        while lab.stats().limited < 100 {
            smol::future::yield_now().await;
        }
        // A clone counts as the same caller.
        let job = lab.job(noted, (&diary, 100)).limit(&second.clone());
        let one = job.submit();
        assert_eq!(lab.stats().limited, 101);
        drop(held);
        step("both tasks");
        one.await.unwrap();
        many.await;
    }));
    running.wait().unwrap();
    lab.assert_idle();
    file.numbers()
}

fn tasks_of_one_thread_take_turns_with_their_own_handles() {
    let (one, behind) = (at_once(1), 0..=100);
    assert!(two_tasks(&one, &one).into_iter().eq(behind.clone()));
    let same = one.caller();
    assert!(two_tasks(&same, &same.clone()).into_iter().eq(behind));
    let between = || (0..1).chain([100]).chain(1..100);
    for (first, second) in [
        (one.caller(), one.caller()),
        (one.clone(), one.caller()),
        (one.caller(), one.clone()),
        (same.clone(), same.caller()),
    ] {
        assert!(two_tasks(&first, &second).into_iter().eq(between()));
    }
    assert_eq!((one.given(), one.waiting()), (0, 0));
}

/// Jobs, scoped jobs, a job that takes a value and a map with one handle queue behind each other; another handle comes
/// in between.
fn all_submissions_of_a_handle_are_one_caller() {
    let file = Diary::new();
    let diary = file.path();
    let lab = Lab::new(1);
    let one = at_once(1);
    let (mine, other) = (one.caller(), one.caller());
    let gate = Gate::new();
    let running = send(&lab, &one, &gate.path(), 0);
    let held = gate.meet();
    let jobs = [1, 2].map(|n| lab.job(noted, (&diary, n)).limit(&mine).submit());
    let run = lab.job(noted, (diary.clone(), 3)).limit(&mine).submit();
    let mut map = lab
        .map(noted, [4, 5].map(|n| (diary.clone(), n)))
        .options(&JobOptions::new().limit(&mine))
        .stream();
    let pulls = futures_core::Stream::poll_next(
        std::pin::Pin::new(&mut map),
        &mut std::task::Context::from_waker(std::task::Waker::noop()),
    );
    assert!(pulls.is_pending());
    assert_eq!(lab.stats().limited, 5);
    lab.scope(|s| {
        s.submit_with(&JobOptions::new().limit(&mine), noted, (&diary, 6));
        let others = [10, 11].map(|n| lab.job(noted, (&diary, n)).limit(&other).submit());
        assert_eq!(lab.stats().limited, 8);
        drop(held);
        step("one caller with jobs of all kinds, and another one in between");
        others.into_iter().for_each(|job| job.wait().unwrap());
    })
    .unwrap();
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    run.wait().unwrap();
    running.wait().unwrap();
    drop(map);
    assert_eq!(file.numbers(), [1, 10, 2, 11, 3, 4, 5, 6]);
    lab.assert_idle();
}

fn engines_share_a_limit() {
    let (one, labs) = (at_once(1), [Lab::new(1), Lab::new(1)]);
    let gate = Gate::new();
    let first = send(&labs[0], &one, &gate.path(), 1);
    let held = gate.meet();
    let second = send(&labs[1], &one, "", 2);
    let stats = labs[1].stats();
    assert_eq!((stats.limited, stats.open + stats.queued), (1, 0));
    drop(held);
    step("the job of the other engine, which is not polled before it has run");
    wait_until("it has run", || second.is_done());
    assert_eq!((first.wait().unwrap(), second.wait().unwrap()), (1, 2));
    labs.iter().for_each(Lab::assert_idle);
}

fn an_inline_engine_shares_a_limit() {
    let (one, lab, inline) = (at_once(1), Lab::new(1), Engine::inline());
    let gate = Gate::new();
    let first = send(&lab, &one, &gate.path(), 1);
    let held = gate.meet();
    let began = AtomicBool::new(false);
    thread::scope(|s| {
        let (one, inline, began) = (&one, &inline, &began);
        let second = s.spawn(move || {
            let value = send(inline, one, "", 2).wait();
            began.store(true, SeqCst);
            value
        });
        wait_until("the thread waits", || one.waiting() == 1);
        assert!(!began.load(SeqCst));
        drop(held);
        step("the thread");
        assert_eq!(second.join().unwrap().unwrap(), 2);
    });
    first.wait().unwrap();
    // An inline job that panics returns its permit.
    for _ in 0..2 {
        let failed = inline
            .map(|n: u64| -> u64 { panic!("{n}") }, [(1,)])
            .options(&JobOptions::new().limit(&one))
            .next();
        assert!(failed.unwrap().is_err());
    }
    let rate = Limiter::new().rate(100, Duration::from_secs(1));
    let start = Instant::now();
    let all = inline
        .map(through, (0..6).map(|n| ("", n)))
        .options(&JobOptions::new().limit(&rate));
    assert_eq!(all.count(), 6);
    assert!(start.elapsed() >= Duration::from_millis(50));
}

/// For kernels, which capture nothing: the engine and limiter of the test.
static INLINE: Mutex<Vec<(Arc<Engine>, Limiter)>> = Mutex::new(Vec::new());

fn inline() -> (Arc<Engine>, Limiter) {
    INLINE.lock().unwrap()[0].clone()
}

fn is_refused<R>(answer: Result<R, arenite::JobError>) -> bool {
    let Err(error) = answer else { return false };
    let text = error.to_string();
    assert!(text.contains("all permits of its limiter"), "{text}");
    matches!(
        error.kind(),
        JobErrorKind::Rejected(Rejection::Deadlock { .. })
    )
}

/// For all ways to submit a job whose limiter's permits are all held by the jobs that it runs in.
fn a_job_that_waits_for_its_own_permit_is_rejected() {
    fn plain() -> u64 {
        1
    }
    fn outer() -> u64 {
        let (engine, limiter) = inline();
        let mut refused = 0;
        let job = engine.job(plain, ()).limit(&limiter).submit();
        refused += u64::from(is_refused(job.wait()));
        let map = engine
            .map(|n: u64| n, [(1,), (2,)])
            .options(&JobOptions::new().limit(&limiter));
        refused += map.map(|answer| u64::from(is_refused(answer))).sum::<u64>();
        let scope =
            engine.scope(|s| drop(s.submit_with(&JobOptions::new().limit(&limiter), plain, ())));
        refused += u64::from(is_refused(scope));
        refused
    }
    /// Uses two permits, one per level, so that none is left for the job of the inner one.
    fn nested() -> u64 {
        let (engine, limiter) = inline();
        engine
            .job(outer, ())
            .limit(&limiter)
            .submit()
            .wait()
            .unwrap()
    }
    for permits in [1, 2, 3] {
        let limiter = at_once(permits);
        let engine = Arc::new(Engine::inline());
        *INLINE.lock().unwrap() = vec![(Arc::clone(&engine), limiter.clone())];
        step(format!("jobs in each other, and {permits} permits"));
        let alone = engine
            .job(outer, ())
            .limit(&limiter)
            .submit()
            .wait()
            .unwrap();
        assert_eq!(alone, if permits == 1 { 4 } else { 0 });
        if permits > 1 {
            let two = engine.job(nested, ()).limit(&limiter).submit().wait();
            assert_eq!(two.unwrap(), if permits == 2 { 4 } else { 0 });
        }
        assert_eq!((limiter.given(), limiter.waiting()), (0, 0));
        assert_eq!(engine.job(plain, ()).limit(&limiter).submit().wait(), Ok(1));
    }
    INLINE.lock().unwrap().clear();
}

fn a_permit_is_returned_when_its_worker_dies() {
    let lab = Lab::new(2);
    let one = at_once(1);
    let gate = Gate::new();
    let job = send(&lab, &one, &gate.path(), 1);
    let next = send(&lab, &one, "", 2);
    let held = gate.meet();
    let worker = lab.busy_worker();
    lab.replace(worker);
    step("the job that got the permit of a dead one");
    assert_eq!(next.wait().unwrap(), 2);
    assert_eq!(job.wait().unwrap_err().kind(), &KILLED);
    drop(held);
    // The same if a job ends by its deadline, by cancellation, by a panic, or is rejected.
    let limit = Duration::from_millis(20);
    let hangs = lab.job(through, (gate.path(), 3)).limit(&one);
    let error = lab.failure_of(hangs.deadline(limit).submit());
    assert_eq!(*error.kind(), late(limit));
    let hung = send(&lab, &one, &gate.path(), 4);
    let held = gate.meet();
    hung.kill();
    assert_eq!(*lab.failure_of(hung).kind(), JobErrorKind::Cancelled);
    drop(held);
    lab.failure_of(lab.job(|| -> u64 { panic!("no") }, ()).limit(&one).submit());
    let foreign = Array::from_slice(&[1u8]);
    let refused = lab.job(|values: &[u8]| values.len() as u64, (&foreign,));
    let error = lab.failure_of(refused.limit(&one).submit());
    assert_eq!(*error.kind(), rejected(Rejection::ForeignArray));
    assert_eq!(send(&lab, &one, "", 5).wait().unwrap(), 5);
    lab.assert_idle();
}

fn each_attempt_needs_a_permit() {
    fn die_once(marker: &str, gate: &str) -> u64 {
        if std::fs::exists(marker).unwrap() {
            return 1;
        }
        std::fs::write(marker, "").unwrap();
        pass(gate);
        std::process::abort();
    }
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("marker").to_str().unwrap().to_owned();
    let lab = Lab::new(2);
    let one = at_once(1);
    let gates = [Gate::new(), Gate::new()];
    let tried = lab
        .job(die_once, (&marker, &gates[0].path()))
        .retries(1)
        .backoff(Backoff::NONE)
        .limit(&one)
        .submit();
    let held = gates[0].meet();
    let other = send(&lab, &one, &gates[1].path(), 2);
    drop(held);
    // The first attempt has ended, and the other job has its permit.
    let held = gates[1].meet();
    wait_until("the second attempt waits for its permit", || {
        lab.stats().limited == 1
    });
    drop(held);
    step("the second attempt");
    assert_eq!(tried.wait().unwrap(), 1);
    assert_eq!(other.wait().unwrap(), 2);
    lab.assert_idle();
}

fn a_job_cancelled_while_waiting_for_a_permit_leaves_the_queue() {
    let lab = Lab::new(2);
    let one = at_once(1);
    let gate = Gate::new();
    let running = send(&lab, &one, &gate.path(), 0);
    let held = gate.meet();
    let line: Vec<_> = (0..6).map(|n| send(&lab, &one, "", n)).collect();
    let [dropped, cancelled, ended, detached, kept, last]: [Job<u64>; 6] = line.try_into().unwrap();
    drop(dropped);
    cancelled.cancel();
    ended.kill();
    detached.detach();
    for job in [cancelled, ended] {
        assert_eq!(job.wait().unwrap_err().kind(), &JobErrorKind::Cancelled);
    }
    assert_eq!(lab.stats().limited, 3);
    drop(held);
    step("the remaining jobs");
    assert_eq!((kept.wait().unwrap(), last.wait().unwrap()), (4, 5));
    running.wait().unwrap();
    lab.assert_idle();
}

fn dropping_a_running_job_keeps_its_permit_until_it_ends() {
    let lab = Lab::new(2);
    let one = at_once(1);
    let gate = Gate::new();
    for detach in [false, true] {
        let running = send(&lab, &one, &gate.path(), 0);
        let held = gate.meet();
        if detach {
            running.detach();
        } else {
            drop(running);
        }
        let next = send(&lab, &one, "", 1);
        assert_eq!(lab.stats().limited, 1, "it still runs");
        drop(held);
        step("the next one, after a detached job");
        assert_eq!(next.wait().unwrap(), 1);
    }
    lab.assert_idle();
}

/// A caller with one job comes in between the items of a map.
fn a_map_leaves_permits_for_others() {
    let lab = Lab::new(2);
    let one = at_once(1);
    let gate = Gate::new();
    // The kernel is known to be quick, so hundreds of its jobs would be in flight.
    let known = lab.map(through, (0..500).map(|n| ("", n)));
    known.for_each(|value| assert!(value.is_ok()));
    let items = (0..1000).map(|n| (if n == 0 { gate.path() } else { String::new() }, n));
    let mut map = lab
        .map(through, items)
        .options(&JobOptions::new().limit(&one));
    thread::scope(|s| {
        let taken = Arc::new(Mutex::new(0));
        let count = Arc::clone(&taken);
        let (lab, one) = (&lab, &one);
        let map = s.spawn(move || {
            for value in &mut map {
                value.unwrap();
                *count.lock().unwrap() += 1;
            }
        });
        let held = gate.meet();
        wait_until("the map waits with all that it may have in flight", || {
            lab.stats().limited == 3
        });
        let other = lab.job(|| 7u64, ()).limit(one).submit();
        assert_eq!(lab.stats().limited, 4);
        assert_eq!(*taken.lock().unwrap(), 0);
        drop(held);
        step("the caller in between");
        assert_eq!(other.wait().unwrap(), 7);
        map.join().unwrap();
        assert_eq!(*taken.lock().unwrap(), 1000);
    });
    lab.assert_idle();
}

fn shutdown_runs_jobs_that_wait_for_permits() {
    let lab = Lab::new(1);
    let limiter = Limiter::new()
        .concurrency(1)
        .rate(1000, Duration::from_secs(1));
    let jobs: Vec<_> = (0..20).map(|n| send(&lab, &limiter, "", n)).collect();
    step("the end of all jobs, including waiting ones");
    lab.into_inner().shutdown();
    for (n, job) in (0..20).zip(jobs) {
        assert_eq!(job.wait().unwrap(), n);
    }
}

fn a_dropped_engine_answers_its_jobs_and_frees_its_permits() {
    let (one, first, second) = (at_once(1), Lab::new(1), Lab::new(1));
    let gate = Gate::new();
    let running = send(&first, &one, &gate.path(), 0);
    let held = gate.meet();
    let in_front: Vec<_> = (0..10).map(|n| send(&first, &one, "", n)).collect();
    let behind = send(&second, &one, "", 2);
    drop(first.into_inner());
    step("the job of the remaining engine");
    assert_eq!(behind.wait().unwrap(), 2);
    for job in in_front.into_iter().chain([running]) {
        assert_eq!(job.wait().unwrap_err().kind(), &JobErrorKind::ShutDown);
    }
    drop(held);
    assert_eq!((one.given(), one.waiting()), (0, 0));
    second.assert_idle();
}
