//! What happens to the other lanes of a worker when one of them ends the process.

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use arenite::{Engine, JobError, JobErrorKind, JobLimit, WorkerExit};
use nix::sys::signal::Signal;

use super::{Waiting, assert_lost, at_gate, end, lanes};
use crate::harness::{
    ABORTED, Gate, KILLED, Lab, assert_kind, by_signal, send_signal, step, tests,
};

tests![
    a_crash_names_the_jobs_lost_with_it,
    job_numbers_in_an_error_match_job_ids,
    a_kill_from_outside_blames_no_job,
    retryable_jobs_lost_with_a_worker_run_again,
    unbegun_jobs_run_elsewhere,
    a_panic_stays_in_its_lane,
    an_error_has_the_last_lines_of_its_worker,
];

/// The maximum memory of a worker whose job hoards it.
const MEMORY: u64 = 128 << 20;

/// Ways to end a process from within, and the reported causes.
fn ways() -> [(u32, JobErrorKind); 8] {
    let full = JobLimit::Memory {
        limit: MEMORY,
        requested: Some(1 << 20),
        hint: None,
    };
    [
        (0, ABORTED),
        (1, by_signal(libc::SIGSEGV)),
        (2, JobErrorKind::Lost(WorkerExit::Code(Some(3)))),
        (3, by_signal(libc::SIGSEGV)),
        (4, by_signal(libc::SIGFPE)),
        (5, by_signal(libc::SIGBUS)),
        (6, JobErrorKind::Lost(WorkerExit::Escaped { count: 1 })),
        (7, JobErrorKind::Limit(full)),
    ]
}

fn a_crash_names_the_jobs_lost_with_it() {
    let lab = Lab::with(1, |builder| builder.lanes(4).memory_limit(MEMORY));
    for (way, cause) in ways() {
        for beside in [3, 1] {
            let waiting = Waiting::new(&lab, beside);
            let culprit = lab.failure_of(lab.submit(end, (way,)));
            assert_eq!(*culprit.kind(), cause, "way {way}: {culprit}");
            assert_lost(&waiting.fail(&lab), &culprit);
        }
        // As the only job it loses no other.
        let culprit = lab.failure_of(lab.submit(end, (way,)));
        assert_eq!(*culprit.kind(), cause, "way {way}: {culprit}");
        assert!(culprit.lost_jobs().is_empty(), "{culprit}");
    }
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    lab.assert_in_use(0);
}

/// The job numbers in an error are those that `Job::id` returns.
fn job_numbers_in_an_error_match_job_ids() {
    let lab = lanes(1, 4);
    let gates = [Gate::new(), Gate::new()];
    let submit = |gate: &Gate| lab.job(at_gate, (gate.path(),));
    let plain = submit(&gates[0]).submit();
    let kept = submit(&gates[1]).keep_args().submit();
    let held = gates.each_ref().map(Gate::meet);
    let ids = [plain.id(), kept.id()].map(Option::unwrap);
    let mut scoped = None;
    step("the job that loses the others");
    let ended = lab.scope(|s| scoped = s.submit(end, (0,)).id());
    let error = ended.unwrap_err();
    drop(held);
    assert_eq!(
        (error.job(), error.lost_jobs()),
        (scoped, &ids[..]),
        "{error}"
    );
    assert_eq!(plain.id(), Some(ids[0]), "also when it has ended");
    assert_eq!(lab.failure_of(plain).job(), Some(ids[0]));
    assert_eq!(kept.wait().unwrap_err().error.job(), Some(ids[1]));
    // A job whose value was taken has no number, and neither has one that ran inline.
    let mut taken = lab.submit(|| 1u8, ());
    assert!(taken.id() > scoped);
    while taken.wait_timeout(Duration::from_secs(1)).is_none() {}
    assert_eq!(taken.id(), None);
    assert_eq!(Engine::inline().submit(|| 1u8, ()).id(), None);
    lab.assert_in_use(0);
}

fn a_kill_from_outside_blames_no_job() {
    let lab = lanes(1, 4);
    let waiting = Waiting::new(&lab, 3);
    send_signal(lab.pid(0), Signal::SIGKILL);
    let errors = waiting.fail(&lab);
    let jobs: Vec<u64> = errors.iter().filter_map(JobError::job).collect();
    for error in &errors {
        assert_eq!(*error.kind(), KILLED, "{error}");
        let others = jobs.iter().copied().filter(|&job| Some(job) != error.job());
        assert_eq!(error.lost_jobs(), others.collect::<Vec<_>>(), "{error}");
        let text = error.to_string();
        assert!(text.contains("any of them may be at fault"), "{text}");
    }
    // The only job of a worker is the culprit.
    let waiting = Waiting::new(&lab, 1);
    send_signal(lab.pid(0), Signal::SIGKILL);
    let errors = waiting.fail(&lab);
    assert!(errors[0].lost_jobs().is_empty(), "{}", errors[0]);
    lab.assert_in_use(0);
}

fn retryable_jobs_lost_with_a_worker_run_again() {
    let lab = lanes(1, 3);
    let gate = Gate::new();
    let first = lab.job(at_gate, (&gate.path(),)).retries(1).submit();
    let held = gate.meet();
    let lost = Waiting::new(&lab, 1);
    let culprit = lab.failure_of(lab.submit(end, (0,)));
    drop(held);
    assert_eq!(
        *lost.fail(&lab)[0].kind(),
        JobErrorKind::Lost(WorkerExit::OtherJob {
            job: culprit.job(),
            cause: Box::new(ABORTED),
        })
    );
    // Its attempt does not count: it comes to the gate again.
    gate.open();
    assert_eq!(first.wait().unwrap() as i32, lab.pid(0));
    lab.assert_in_use(0);
}

fn unbegun_jobs_run_elsewhere() {
    let lab = lanes(2, 2);
    let waiting = Waiting::new(&lab, 4);
    // All lanes are busy, so these wait in them or in the queue.
    let behind: Vec<_> = (0..600u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
    send_signal(lab.pid(0), Signal::SIGKILL);
    step("the jobs behind the dead ones");
    for (n, job) in (0..).zip(behind) {
        assert_eq!(job.wait().unwrap(), n);
    }
    let Waiting { jobs, held } = waiting;
    drop(held);
    let failed = jobs.into_iter().filter_map(|job| job.wait().err());
    assert_eq!(failed.count(), 2, "those of one worker");
    lab.assert_in_use(0);
}

fn a_panic_stays_in_its_lane() {
    fn fail(n: u32) {
        panic!("number {n}");
    }
    let lab = lanes(1, 3);
    let pid = lab.pid(0);
    let waiting = Waiting::new(&lab, 2);
    for n in 0..20u32 {
        let error = lab.failure_of(lab.submit(fail, (n,)));
        let said = format!("number {n}");
        assert_kind!(error, JobErrorKind::Panicked { message, .. } if *message == said);
    }
    assert_eq!(waiting.go(), [pid as u32; 2]);
}

fn an_error_has_the_last_lines_of_its_worker() {
    fn say_and_end(way: u32) {
        println!("about to end");
        std::io::stdout().flush().unwrap();
        end(way);
    }
    let (sender, lines) = channel();
    let log = move |line: &arenite::engine::LogLine| {
        let _ = sender.send((line.job, line.text.clone()));
    };
    let lab = Lab::with(1, |builder| builder.lanes(3).on_log(log));
    let waiting = Waiting::new(&lab, 1);
    let culprit = lab.failure_of(lab.submit(say_and_end, (0,)));
    assert_eq!(culprit.last_words(), ["about to end"]);
    let lost = waiting.fail(&lab);
    assert_eq!(lost[0].last_words(), ["about to end"]);
    step("the queue itself");
    // The line cannot be attributed to one of the two lanes.
    assert_eq!(lines.recv().unwrap(), (None, "about to end".to_owned()));
}
