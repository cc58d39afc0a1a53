//! Words that an honest worker cannot have written.

use super::super::actor::ActorPlan;
use super::*;

const RUNNING: u32 = 2;
const RETRACTED: u32 = 5;

/// An actor whose calls can be distinguished.
fn an_actor(shared: &Supervisor) -> ActorId {
    fn start() {}
    fn end() {}
    fn info<F: crate::kernel::Kernel<(), ()>>(_: F) -> KernelInfo {
        KernelInfo::of::<Single<F, (), ()>>()
    }
    shared.new_actor(ActorPlan {
        start: info(start),
        args: ArgWriter::new(shared.arena.id()),
        end: info(end),
        checkpoints: None,
    })
}

/// An engine with one job in flight; no other job is admitted.
fn full(jobs: usize) -> (Arc<Supervisor>, Vec<JobId>) {
    let (shared, _consumers) = fixture(1, 1);
    let all: Vec<_> = (0..jobs).map(|_| submit(&shared)).collect();
    let mut state = shared.lock();
    state.admission = Some(Box::new(Admission::new(1)));
    let kernel = state.kernels.index(&kernel());
    let entry = state.admit(kernel, 0, Some(1)).unwrap();
    state.charge_admitted(all[jobs - 1], entry);
    shared.unlock(state);
    (shared, all)
}

/// A thread waits for admission, and the worker is killed.
fn costs_the_worker(shared: &Supervisor) {
    let mut line = LineTicket::default();
    assert!(poll_enter(shared, &mut line).is_pending());
    assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
    die(shared, 0);
    let poll = poll_enter(shared, &mut line);
    assert!(poll.is_ready(), "nothing is in flight any more");
}

#[test]
fn a_job_that_reads_as_taken_back_does_not_block_waiters() {
    in_time(|| {
        let (shared, all) = full(1);
        write_word(&shared, 0, RETRACTED);
        costs_the_worker(&shared);
        let why = answer(&shared, all[0]).unwrap();
        assert!(why.contains("said to be over"), "{why}");
    });
}

#[test]
fn an_end_behind_a_job_that_was_not_skipped_does_not_block_waiters() {
    in_time(|| {
        let (shared, all) = full(2);
        shared.abandon(all[0]);
        write_word(&shared, 1, DONE_BARE);
        costs_the_worker(&shared);
        let why = answer(&shared, all[1]).unwrap();
        assert!(why.contains("said to be over"), "{why}");
    });
}

/// The thread that waits for the job checks, requests a notice, and sleeps, instead of staying awake.
#[test]
fn a_waiting_thread_finds_the_fault() {
    in_time(|| {
        let (shared, _consumers) = fixture(1, 1);
        let [_first, second] = [(); 2].map(|()| submit(&shared));
        write_word(&shared, 1, DONE_BARE);
        let limit = Duration::from_millis(1);
        while shared.lock().workers[0].status() == Status::Ready {
            assert!(
                shared
                    .wait_timeout(second, <() as Reply>::receive, limit)
                    .is_none()
            );
        }
    });
}

/// Lets one worker after the other die with the job at the head of its lane.
fn is_answered_after_some_deaths(shared: &Supervisor, job: JobId) {
    let mut deaths = 0;
    let why = loop {
        die_of(shared, 0, 11);
        deaths += 1;
        assert!(deaths < 100, "it comes back for ever");
        if let Some(why) = answer(shared, job) {
            break why;
        }
        shared.lock().set_status(0, Status::Ready);
        shared.lock().refill();
    };
    assert!(
        deaths > 4 && why.contains("SIGSEGV"),
        "{deaths} deaths: {why}"
    );
}

/// A job that reports that it has not begun, and ends its worker.
#[test]
fn a_job_in_front_of_dying_workers_is_answered_eventually() {
    let (shared, _consumers) = fixture(1, 1);
    let [lies, waits] = [(); 2].map(|()| submit(&shared));
    is_answered_after_some_deaths(&shared, lies);
    assert!(answer(&shared, waits).is_none(), "it was never in front");
}

/// Each start is another job, so the deaths are counted for the actor.
#[test]
fn an_actor_start_in_front_of_dying_workers_is_answered_eventually() {
    let (shared, _consumers) = fixture(1, 1);
    let args = || ArgWriter::new(shared.arena.id());
    let actor = an_actor(&shared);
    let call = shared.submit(&kernel(), &mut args(), actor, None);
    is_answered_after_some_deaths(&shared, call);
}

/// Calls of an actor that is about to end, one of which is too late. Its worker reports that the end, which was posted
/// after them, has begun.
#[test]
fn calls_before_an_end_that_has_begun_are_answered() {
    let (shared, mut consumers) = fixture(1, 1);
    let args = || ArgWriter::new(shared.arena.id());
    let actor = an_actor(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    consumers[0].finish(false, 1000, None);
    shared.stats();
    let index = shared.lock().kernels.index(&kernel());
    shared.lock().kernels.get(index).learn(1000, 0, false);
    let calls = [(); 3].map(|()| shared.submit(&kernel(), &mut args(), actor, None));
    assert_eq!(consumers[0].next(), Next::Run);
    shared.end_actor(actor);
    let open = shared.lock().lanes[0].producer.open_positions();
    assert_eq!(open.clone().count(), 4, "three calls, and the end");
    let first = open.start;
    write_word(&shared, first + 3, RUNNING);
    let why = JobErrorKind::Limit(JobLimit::Deadline {
        limit: Duration::from_secs(1),
    });
    let mut state = shared.lock();
    state.end_worker_of(0, first, why);
    shared.unlock(state);
    die(&shared, 0);
    for call in calls {
        assert!(answer(&shared, call).is_some());
    }
}

#[test]
fn a_job_that_says_it_was_cancelled_costs_the_worker() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    consumers[0].finish(true, 1, Some(&one_word(kind::CANCELLED, &[0])));
    let mut state = shared.lock();
    state.drain_busy();
    assert_eq!(state.workers[0].status(), Status::Leaving);
    shared.unlock(state);
    die(&shared, 0);
    let why = answer(&shared, id).unwrap();
    assert!(why.contains("answered that it was cancelled"), "{why}");
}

/// A job claims that it has not begun, and that a later job has.
#[test]
fn a_job_cannot_blame_another_job() {
    let (shared, _consumers) = fixture(1, 1);
    let [lies, waits, behind] = [(); 3].map(|()| submit(&shared));
    write_word(&shared, 1, RUNNING);
    die_of(&shared, 0, 11);
    let why = answer(&shared, lies).expect("it has begun before the other one");
    assert!(why.contains("SIGSEGV"), "{why}");
    assert!(answer(&shared, waits).is_some(), "it may have begun");
    assert!(answer(&shared, behind).is_none());
}

/// The same for jobs of one scope, where the failure of the first cancels the others.
#[test]
fn a_failure_cancels_the_jobs_behind_it_once() {
    for running in [1, 2] {
        let (shared, mut consumers) = fixture(1, 1);
        // Many jobs that are known to be short are on one lane.
        for _ in 0..50 {
            let job = submit(&shared);
            assert_eq!(consumers[0].next(), Next::Run);
            consumers[0].finish(false, 10, None);
            answer(&shared, job).unwrap();
        }
        let group = shared.new_group(false);
        let jobs = [(); 4].map(|()| submit_in(&shared, group));
        let held: Vec<_> = shared.lock().lanes[0].held().collect();
        assert_eq!(held.len(), 4);
        assert_eq!(consumers[0].next(), Next::Run);
        write_word(&shared, held[running], RUNNING);
        die_of(&shared, 0, 6);
        let why = answer(&shared, jobs[0]).expect("it ran");
        assert!(why.contains("SIGABRT"), "{why}");
        for (number, &job) in jobs.iter().enumerate().skip(1) {
            let answer = answer(&shared, job);
            let why = answer.unwrap_or_else(|| panic!("job {number} has no answer"));
            assert!(
                why.contains("cancelled") || why.contains("SIGABRT"),
                "{number}: {why}"
            );
        }
        let state = shared.lock();
        assert_eq!(
            (state.lanes.open(), state.records.live(), state.queue.len()),
            (0, 0, 0)
        );
    }
}
