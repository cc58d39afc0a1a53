//! Jobs that are asked, or forced, to end.

use arenite::{Engine, JobErrorKind};
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
    let lab = Lab::balanced(1);
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
}

fn a_running_job_is_asked_and_still_returns_its_value() {
    let lab = Lab::balanced(1);
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
}

fn a_dropped_handle_is_a_request() {
    let lab = Lab::balanced(1);
    let diary = Diary::new();
    let job = lab.submit(until_cancelled, (&diary.path(),));
    await_lines(&diary, 1);
    drop(job);
    await_lines(&diary, 2);
}

fn spin(diary: &str) {
    note(diary, "begun");
    loop {
        std::hint::spin_loop();
    }
}

fn a_running_job_is_killed() {
    let lab = Lab::balanced(1);
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
}

fn a_handle_that_kills_on_drop_ends_only_a_running_job() {
    let lab = Lab::balanced(1);
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

fn cancelling_affects_no_other_engine() {
    assert!(!arenite::cancelled());
    let engine = Engine::inline();
    let job = engine.submit(arenite::cancelled, ());
    job.cancel();
    job.kill();
    assert!(!job.wait().unwrap());
}
