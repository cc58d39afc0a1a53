//! Jobs that a simulated worker spawns: a correct worker, and one that sends a wrong value for each word.

use super::*;
use crate::kernel::{SPAWNS, to_offset};
use crate::supervisor::admission::Admission;
use crate::supervisor::depend::CancelMode;

fn spawning() -> KernelInfo {
    KernelInfo {
        spawns: true,
        ..kernel()
    }
}

/// One child with the number 5, and the task that continues with its value.
fn list() -> Vec<u64> {
    let entry = to_offset(kernel().entry).unwrap();
    let one = 1 << 32;
    vec![1 | one, entry, entry, 0, one, one, one, 5, one, 1 | one]
}

fn spawn(consumer: &mut Consumer, words: &[u64]) {
    let answer = OutgoingReply {
        kind: kind::SPAWN,
        words,
        ..value(words)
    };
    consumer.finish(false, 10, Some(&answer));
}

fn value(words: &[u64]) -> OutgoingReply<'_> {
    OutgoingReply {
        kind: kind::VALUE,
        arrays: 0,
        retained: 0,
        spilled: false,
        len: words.len() as u32,
        grant: NO_GRANT,
        cursor: 0,
        words,
    }
}

fn submit(shared: &Supervisor, info: &KernelInfo) -> JobId {
    let mut call = ArgWriter::new(shared.arena.id());
    shared.submit(info, &mut call, Owner::Handle, None)
}

fn take(shared: &Supervisor, id: JobId) -> Option<Result<u64, JobError>> {
    shared.wait_timeout(id, <u64 as Reply>::receive, Duration::ZERO)
}

#[test]
fn children_run_and_the_last_one_answers() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit(&shared, &spawning());
    assert_eq!(consumers[0].next(), Next::Run);
    spawn(&mut consumers[0], &list());
    assert!(take(&shared, id).is_none());
    assert_eq!(shared.lock().runs.waiting_parents(), 1);
    assert_eq!(consumers[0].next(), Next::Run);
    let child = consumers[0].call();
    assert_eq!(child.args[..child.len as usize], [1, 1 << 32, 5]);
    consumers[0].finish(false, 10, Some(&value(&[6])));
    assert!(take(&shared, id).is_none());
    assert_eq!(consumers[0].next(), Next::Run);
    let last = consumers[0].call();
    assert_eq!(last.args[..last.len as usize], [1, 1 << 32, 6]);
    assert_ne!(last.seed, child.seed);
    consumers[0].finish(false, 10, Some(&value(&[7])));
    assert_eq!(take(&shared, id).unwrap().unwrap(), 7);
    let state = shared.lock();
    assert_eq!((state.records.live(), state.runs.waiting_parents()), (0, 0));
    assert_eq!(state.records.submitted(), 3);
}

/// A child runs on after the run was stopped, and ends before it is killed.
#[test]
fn a_run_that_was_stopped_leaves_no_timer() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit(&shared, &spawning());
    assert_eq!(consumers[0].next(), Next::Run);
    spawn(&mut consumers[0], &list());
    assert!(take(&shared, id).is_none());
    assert_eq!(consumers[0].next(), Next::Run);
    let mut state = shared.lock();
    let Stage::Spawned { run } = state.records.get(id).stage else {
        panic!("the job has spawned")
    };
    state.cancel_run(run, JobErrorKind::Cancelled, CancelMode::AskThenKill);
    assert!(state.timers.has_ends(), "the child is to be killed");
    shared.unlock(state);
    consumers[0].finish(false, 10, Some(&value(&[6])));
    let error = take(&shared, id).unwrap().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    assert!(!shared.lock().timers.has_ends());
}

/// The end of the later job was not requested: the end of the earlier job was to be reported first.
#[test]
fn waiting_for_any_ends_with_a_job_behind_one_that_spawned() {
    let (shared, mut consumers) = fixture(1, 1);
    let ids = [submit(&shared, &spawning()), submit(&shared, &kernel())];
    assert_eq!(shared.poll_any(ids.into_iter(), Waker::noop()), None);
    // The monitor "sleeps".
    shared.cells[0].hub().arm(1);
    assert_eq!(consumers[0].next(), Next::Run);
    spawn(&mut consumers[0], &list());
    shared.stats();
    assert_eq!(shared.lock().runs.waiting_parents(), 1);
    shared.cells[0].hub().arm(2);
    assert_eq!(consumers[0].next(), Next::Run);
    assert!(consumers[0].finish(false, 10, None), "the monitor is rung");
}

/// An admitted job ends by spawning jobs before its submission is completed.
#[test]
fn a_job_that_has_spawned_counts_no_bytes() {
    let (shared, mut consumers) = fixture(1, 1);
    let mut state = shared.lock();
    state.admission = Some(Box::new(Admission::new(1 << 20)));
    let kernel = state.kernels.index(&spawning());
    let entry = state.admit(kernel, 0, Some(1)).unwrap();
    let mut call = ArgWriter::new(shared.arena.id());
    let id = state.submit(&spawning(), &mut call, Owner::Handle, None);
    assert_eq!(consumers[0].next(), Next::Run);
    let mut words = list();
    words[3] = SPAWNS;
    spawn(&mut consumers[0], &words);
    state.drain(0);
    state.charge_admitted(id, entry);
    let bytes = |state: &EngineState| state.admission.as_ref().unwrap().bytes();
    assert_eq!(bytes(&state), 0, "it waits");
    // The child is admitted and runs.
    state.refill();
    assert_eq!(consumers[0].next(), Next::Run);
    consumers[0].finish(false, 10, Some(&value(&[6])));
    state.drain(0);
    // The last task spawns again, and its record is removed.
    assert_eq!(consumers[0].next(), Next::Run);
    let is_task = |owner| matches!(owner, Owner::Task { .. });
    let mut open = state.records.open_of(is_task).into_iter();
    let last = open.find(|&other| other != id).unwrap();
    let entry = state.admit(kernel, 0, Some(1)).unwrap();
    spawn(&mut consumers[0], &words);
    state.drain(0);
    state.charge_admitted(last, entry);
    assert_eq!(state.runs.waiting_parents(), 1);
    shared.unlock(state);
    // The child of the new run is cancelled with the job.
    shared.abandon(id);
    let state = shared.lock();
    assert_eq!((bytes(&state), state.records.live()), (0, 0));
}

#[test]
fn only_a_spawning_kernel_may_spawn() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit(&shared, &kernel());
    assert_eq!(consumers[0].next(), Next::Run);
    spawn(&mut consumers[0], &list());
    assert!(take(&shared, id).is_none(), "its worker is to go");
    assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
    die(&shared, 0);
    let error = take(&shared, id).unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), JobErrorKind::Lost(WorkerExit::Protocol(_))),
        "{error}"
    );
}

#[test]
fn a_sandboxed_worker_cannot_spawn() {
    let (shared, mut consumers) = fixture(1, 1);
    shared.lock().config.is_sandboxed = true;
    // The list is not read, whether it is correct or not.
    for words in [list(), vec![u64::MAX; 12]] {
        let id = submit(&shared, &spawning());
        assert_eq!(consumers[0].next(), Next::Run);
        spawn(&mut consumers[0], &words);
        let error = take(&shared, id).unwrap().unwrap_err();
        assert_eq!(*error.kind(), JobErrorKind::Rejected(Rejection::Spawning));
        assert_ne!(consumers[0].next(), Next::Run);
    }
}

#[test]
fn a_failed_or_cancelled_child_fails_its_parent() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit(&shared, &spawning());
    assert_eq!(consumers[0].next(), Next::Run);
    spawn(&mut consumers[0], &list());
    assert!(take(&shared, id).is_none());
    assert_eq!(consumers[0].next(), Next::Run);
    let words = [3, u64::from_ne_bytes(*b"bad\0\0\0\0\0")];
    let text = OutgoingReply {
        kind: kind::RETURNED,
        ..value(&words)
    };
    consumers[0].finish(true, 10, Some(&text));
    let error = take(&shared, id).unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), JobErrorKind::Dependency(FailedDependency::Child { job: Some(2), cause, .. })
            if **cause == JobErrorKind::Returned("bad".into())),
        "{error}"
    );
    // A child that has begun is asked to stop, and the job is answered when it has.
    let id = submit(&shared, &spawning());
    assert_eq!(consumers[0].next(), Next::Run);
    spawn(&mut consumers[0], &list());
    assert!(take(&shared, id).is_none());
    assert_eq!(consumers[0].next(), Next::Run);
    shared.cancel(id);
    assert!(take(&shared, id).is_none() && consumers[0].is_cancelled());
    consumers[0].finish(false, 10, Some(&value(&[6])));
    let error = take(&shared, id).unwrap().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    // A child that has not begun never will.
    let id = submit(&shared, &spawning());
    assert_eq!(consumers[0].next(), Next::Run);
    spawn(&mut consumers[0], &list());
    assert!(take(&shared, id).is_none());
    shared.cancel(id);
    assert!(take(&shared, id).unwrap().is_err());
    assert_ne!(consumers[0].next(), Next::Run);
    assert_eq!(shared.lock().records.live(), 0);
}

/// Each word of the list is replaced by each wrong number once: either the list is refused and the worker is killed, or
/// it is a valid list and all its tasks run.
#[test]
fn wrong_spawn_lists_are_refused() {
    let (mut refused, mut run) = (0, 0);
    let truth = list();
    for at in 0..truth.len() {
        let lies = [
            0,
            1,
            2,
            u64::MAX,
            1 << 63,
            truth[at].wrapping_add(1),
            truth[at].wrapping_sub(1),
            truth[at] ^ 1 << 32,
            truth[at] ^ 1 << 8,
            truth[at].rotate_left(32),
        ];
        for lie in lies {
            let (shared, mut consumers) = fixture(1, 1);
            let mut words = truth.clone();
            words[at] = lie;
            let id = submit(&shared, &spawning());
            assert_eq!(consumers[0].next(), Next::Run);
            spawn(&mut consumers[0], &words);
            let mut answer = take(&shared, id);
            if shared.lock().workers[0].status() == Status::Leaving {
                assert!(answer.is_none());
                die(&shared, 0);
                let error = take(&shared, id).unwrap().unwrap_err();
                assert!(
                    matches!(error.kind(), JobErrorKind::Lost(WorkerExit::Protocol(_))),
                    "{error}"
                );
                refused += 1;
            } else {
                while answer.is_none() {
                    assert_eq!(consumers[0].next(), Next::Run, "word {at} is {lie:#x}");
                    consumers[0].finish(false, 10, Some(&value(&[6])));
                    answer = take(&shared, id);
                }
                run += 1;
            }
            let state = shared.lock();
            assert_eq!((state.records.live(), state.runs.waiting_parents()), (0, 0));
        }
    }
    assert!(refused > 60 && run > 10, "{refused} refused, {run} run");
}
