//! Jobs that are asked, or forced, to end.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use arenite::{Array, Engine, JobErrorKind};
use nix::sys::signal::Signal;

use crate::harness::{
    Diary, Lab, assert_kind, block_on, note, note_after, send_signal, step, tests, wait_until,
};

tests![
    a_queued_job_is_cancelled,
    a_running_job_is_asked_and_still_returns_its_value,
    a_dropped_handle_is_a_request,
    a_running_job_is_killed,
    a_handle_that_kills_on_drop_ends_only_a_running_job,
    a_stopped_worker_is_killed,
    a_finished_job_keeps_its_answer,
    cancel_races_with_the_end_of_the_job,
    kill_races_with_the_end_of_the_job,
    cancelling_affects_no_other_engine,
];

/// In a kernel: runs until it is asked to end.
fn until_cancelled(diary: &str) -> usize {
    note(diary, "begun");
    while !arenite::cancelled() {
        std::hint::spin_loop();
    }
    note_after(diary, "asked")
}

fn await_lines(diary: &Diary, lines: usize) {
    wait_until(&format!("{lines} lines are in the diary"), || {
        diary.lines().len() >= lines
    });
}

fn a_queued_job_is_cancelled() {
    let lab = Lab::new(1);
    let (running, held) = lab.hold();
    // In the lane, and in the queue.
    let behind: Vec<_> = (0..600u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
    for (n, job) in behind.iter().enumerate() {
        match n % 3 {
            0 => job.cancel(),
            1 => job.kill(),
            _ => {}
        }
    }
    drop(held);
    running.wait().unwrap();
    for (n, job) in (0..).zip(behind) {
        match job.wait() {
            Ok(value) => assert_eq!((n % 3, value), (2, n)),
            Err(error) => {
                assert_ne!(n % 3, 2, "{error}");
                assert_eq!(*error.kind(), JobErrorKind::Cancelled);
                assert_eq!(error.worker(), None);
            }
        }
    }
    assert_eq!(lab.stats().workers[0].restarts, 0);
    lab.assert_in_use(0);
}

fn a_running_job_is_asked_and_still_returns_its_value() {
    let lab = Lab::new(1);
    for _ in 0..20 {
        let diary = Diary::new();
        let job = lab.submit(until_cancelled, (&diary.path(),));
        let next = lab.submit(arenite::cancelled, ());
        await_lines(&diary, 1);
        job.cancel();
        job.cancel();
        step("a kernel that was asked to end");
        assert_eq!(job.wait().unwrap(), 1);
        assert!(!next.wait().unwrap(), "it asks this job only");
    }
    lab.assert_in_use(0);
}

fn a_dropped_handle_is_a_request() {
    let lab = Lab::new(1);
    let diary = Diary::new();
    let job = lab.submit(until_cancelled, (&diary.path(),));
    await_lines(&diary, 1);
    drop(job);
    await_lines(&diary, 2);
    lab.assert_in_use(0);
}

fn spin(diary: &str) {
    note(diary, "begun");
    loop {
        std::hint::spin_loop();
    }
}

fn a_running_job_is_killed() {
    let lab = Lab::new(1);
    for round in 1..=6 {
        let diary = Diary::new();
        let job = lab.submit(spin, (&diary.path(),));
        await_lines(&diary, 1);
        job.kill();
        job.kill();
        let error = if round % 2 == 0 {
            lab.failure_of(job)
        } else {
            block_on(job).unwrap_err()
        };
        assert_kind!(error, JobErrorKind::Cancelled);
        assert_eq!(error.worker(), Some(0));
        lab.await_restart(0, round);
    }
    lab.assert_in_use(0);
}

fn a_handle_that_kills_on_drop_ends_only_a_running_job() {
    let lab = Lab::new(1);
    let ended = lab.submit(|n: u32| n, (1,)).kill_on_drop();
    wait_until("the job has ended", || ended.is_done());
    drop(ended);
    let (running, held) = lab.hold();
    drop(lab.submit(|n: u32| n, (2,)).kill_on_drop());
    drop(held);
    running.wait().unwrap();
    assert_eq!(lab.stats().workers[0].restarts, 0);
    // The kernel does not ask whether it is to end.
    for round in 1..=3 {
        let diary = Diary::new();
        let job = lab.submit(spin, (&diary.path(),)).kill_on_drop();
        await_lines(&diary, 1);
        drop(job);
        lab.await_restart(0, round);
    }
    assert_eq!(lab.submit(|n: u32| n, (3,)).wait().unwrap(), 3);
    lab.assert_in_use(0);
}

fn a_stopped_worker_is_killed() {
    let lab = Lab::new(1);
    for round in 1..=3 {
        let (job, _held) = lab.hold();
        send_signal(lab.pid(0), Signal::SIGSTOP);
        job.cancel();
        assert!(!job.is_done());
        job.kill();
        assert_eq!(*lab.failure_of(job).kind(), JobErrorKind::Cancelled);
        lab.await_restart(0, round);
    }
}

fn a_finished_job_keeps_its_answer() {
    let lab = Lab::new(1);
    let job = lab.submit(|| 5u8, ());
    wait_until("the job is done", || job.is_done());
    job.cancel();
    job.kill();
    assert_eq!(job.wait().unwrap(), 5);
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

/// From another thread, at any moment.
fn cancel_races_with_the_end_of_the_job() {
    let lab = Lab::new(2);
    let (mut done, mut cancelled) = (0u64, 0u64);
    for n in 0.. {
        if n >= 3000 && done > 0 && cancelled > 0 {
            break;
        }
        step(format!("the race {n}"));
        let job = lab.submit(|n: u64| Array::from_slice(&[n; 20]), (n,));
        let go = AtomicBool::new(false);
        std::thread::scope(|threads| {
            if n % 3 != 0 {
                threads.spawn(|| {
                    while !go.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                    // Ever longer, as long as none finishes in time.
                    (0..n % 200 + n / 3000 * 1000).for_each(|_| std::hint::spin_loop());
                    job.cancel();
                });
            } else {
                job.cancel();
            }
            go.store(true, SeqCst);
        });
        match job.wait() {
            Ok(values) => {
                assert_eq!(values[..], [n; 20]);
                done += 1;
            }
            Err(error) => {
                assert_kind!(error, JobErrorKind::Cancelled);
                cancelled += 1;
            }
        }
    }
    println!("{done} done, {cancelled} cancelled");
    let stats = lab.stats();
    assert_eq!(stats.kernels[0].calls, done, "what was cancelled never ran");
    assert_eq!(stats.restarts(), 0);
    lab.assert_in_use(0);
}

fn kill_races_with_the_end_of_the_job() {
    const LENGTH: Duration = Duration::from_millis(1);
    fn work(n: u64) -> Array<u64> {
        let from = Instant::now();
        while from.elapsed() < LENGTH {
            std::hint::spin_loop();
        }
        Array::from_slice(&[n; 20])
    }
    let lab = Lab::new(2);
    let (mut done, mut ended) = (0u64, 0u64);
    // The time at which both outcomes are equally likely moves with the load and is adjusted.
    let mut micros = 1000u64;
    for n in 0..600u64 {
        let job = lab.submit(work, (n,));
        let from = Instant::now();
        while from.elapsed() < Duration::from_micros(micros + n * 7 % 200) {
            std::hint::spin_loop();
        }
        job.kill();
        match job.wait() {
            Ok(values) => {
                assert_eq!(values[..], [n; 20]);
                done += 1;
                micros = micros.saturating_sub(20);
            }
            Err(error) => {
                assert_kind!(error, JobErrorKind::Cancelled);
                ended += u64::from(error.worker().is_some());
                micros += 60;
            }
        }
    }
    println!("{done} done, {ended} ended while they ran");
    assert!(done > 0 && ended > 0, "no race at all");
    wait_until("all workers that were ended are replaced", || {
        let stats = lab.stats();
        stats.restarts() == ended && stats.workers.iter().all(|worker| worker.ready)
    });
    lab.assert_in_use(0);
}

fn cancelling_affects_no_other_engine() {
    assert!(!arenite::cancelled());
    let engine = Engine::inline();
    let job = engine.submit(arenite::cancelled, ());
    job.cancel();
    job.kill();
    assert!(!job.wait().unwrap());
}
