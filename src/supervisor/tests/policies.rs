//! Policies without processes: deadlines, attempts and priorities.

use std::sync::atomic::Ordering;

use super::*;
use crate::link::SLOTS;
use crate::supervisor::error::Death;
use crate::supervisor::lane::Alarm;
use crate::supervisor::lifecycle::Closing;
use crate::supervisor::monitor::{Monitor, idle};
use crate::supervisor::policy::{After, Policy};
use crate::supervisor::queue::Constraint;
use crate::sys::clock;
use crate::sys::process::Exit;

pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// A deadline that has passed as soon as the job begins.
const MOMENT: Duration = Duration::from_nanos(1);

pub(super) fn submit_with(shared: &Supervisor, options: JobOptions) -> JobId {
    let mut call = ArgWriter::new(shared.arena.id());
    shared.submit(&kernel(), &mut call, Owner::Handle, Some(&options))
}

pub(super) fn timed(limit: Duration) -> JobOptions {
    JobOptions {
        deadline: Some(limit),
        ..JobOptions::default()
    }
}

fn retried(retries: u32) -> JobOptions {
    JobOptions {
        retries,
        backoff: Backoff::NONE,
        ..JobOptions::default()
    }
}

fn ranked(priority: Priority) -> JobOptions {
    JobOptions {
        priority,
        ..JobOptions::default()
    }
}

pub(super) fn finish(consumer: &mut Consumer) {
    consumer.finish(false, 1, None);
}

/// The position whose clock runs in the first lane.
fn clock(shared: &Supervisor) -> Option<u64> {
    shared.lock().lanes[0].alarm().map(|alarm| alarm.position)
}

fn run_timers(shared: &Supervisor) {
    let mut state = shared.lock();
    state.run_timers();
    state.refill();
    shared.unlock(state);
}

/// Makes the next generation of the worker ready.
pub(super) fn revive(shared: &Supervisor, consumer: &mut Consumer) {
    let mut state = shared.lock();
    let producer = &state.lanes[0].producer;
    *consumer = Consumer::new(
        Arc::clone(&shared.cells[0]),
        producer.tail(),
        producer.granted(),
    );
    state.set_status(0, Status::Ready);
    state.refill();
    shared.unlock(state);
}

#[test]
fn a_clock_starts_at_posting_or_when_the_job_before_is_drained() {
    let (shared, mut consumers) = fixture(1, 1);
    let first = submit_with(&shared, timed(HOUR));
    assert_eq!(clock(&shared), Some(0));
    let second = submit_with(&shared, timed(HOUR));
    assert_eq!(clock(&shared), Some(0));
    assert_eq!(consumers[0].next(), Next::Run);
    // The monitor "sleeps". The worker rings it because the clock of the next job starts with this end.
    shared.cells[0].hub().arm(1);
    assert!(consumers[0].finish(false, 1, None), "the monitor is rung");
    shared.stats();
    assert_eq!(clock(&shared), Some(1));
    assert_eq!(consumers[0].next(), Next::Run);
    assert!(
        !consumers[0].finish(false, 1, None),
        "no thread waits for this"
    );
    shared.stats();
    assert_eq!(clock(&shared), None);
    assert_eq!(answer(&shared, first).unwrap(), "value");
    assert_eq!(answer(&shared, second).unwrap(), "value");
}

#[test]
fn time_while_the_program_was_stopped_does_not_count() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit_with(&shared, timed(MOMENT));
    assert_eq!(consumers[0].next(), Next::Run);
    let mut state = shared.lock();
    assert!(state.has_clocks());
    state.postpone(HOUR);
    state.postpone(Duration::MAX);
    let alarm = state.lanes[0].alarm().expect("its clock runs on");
    assert!(alarm.at > Instant::now() + HOUR / 2);
    shared.unlock(state);
    run_timers(&shared);
    finish(&mut consumers[0]);
    assert_eq!(answer(&shared, id).unwrap(), "value");
    assert!(!shared.lock().has_clocks());
}

/// The program was stopped while the monitor was awake, so the monitor has not slept too long.
#[test]
fn time_while_the_monitor_was_stopped_awake_does_not_count() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit_with(&shared, timed(MOMENT));
    assert_eq!(consumers[0].next(), Next::Run);
    let mut monitor = Monitor::idle(Arc::clone(&shared));
    let long_ago = Instant::now()
        .checked_sub(HOUR)
        .expect("this machine runs for longer");
    monitor.looked.0 = long_ago;
    monitor.serve();
    assert_eq!(shared.lock().workers[0].status(), Status::Ready);
    finish(&mut consumers[0]);
    assert_eq!(answer(&shared, id).unwrap(), "value");
    // A monitor that slept all the time was not stopped.
    let late = submit_with(&shared, timed(MOMENT));
    assert_eq!(consumers[0].next(), Next::Run);
    monitor.looked.0 = long_ago;
    monitor.slept = 2 * HOUR;
    monitor.serve();
    assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
    drop(consumers);
    monitor.recover_for_test(0, Exit::Signal(9));
    let why = answer(&shared, late).unwrap();
    assert!(why.contains("deadline"), "{why}");
}

/// A monitor that worked all the time, or partly slept and partly worked, was not stopped either.
#[test]
fn only_time_without_sleep_and_work_counts_as_stopped() {
    let seconds = Duration::from_secs;
    for (slept, worked, expected) in [(0, 0, 9), (9, 0, 0), (0, 9, 0), (4, 5, 0), (4, 3, 2)] {
        let idle = idle(seconds(9), seconds(slept), seconds(worked));
        assert_eq!(idle, seconds(expected));
    }
    // The clocks may differ a little.
    assert_eq!(idle(seconds(9), seconds(5), seconds(5)), Duration::ZERO);
}

#[test]
fn the_end_of_a_shutdown_waits_for_a_program_that_is_stopped() {
    let (shared, consumers) = fixture(1, 1);
    let id = submit(&shared);
    let mut state = shared.lock();
    state.lifecycle.close(Closing::Drain, Some(Instant::now()));
    assert!(state.has_clocks());
    state.postpone(HOUR);
    state.run_timers();
    assert_eq!(state.lifecycle.closing(), Closing::Drain);
    drop(state);
    drop(consumers);
    die(&shared, 0);
    assert!(answer(&shared, id).is_none());
}

/// A job with a deadline of zero is not placed, and no worker is killed for it.
#[test]
fn a_job_with_a_deadline_of_zero_is_answered_at_once() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit_with(&shared, timed(Duration::ZERO));
    let why = answer(&shared, id).unwrap();
    assert!(why.contains("its deadline is 0"), "{why}");
    assert_eq!(consumers[0].next(), Next::Empty);
    let state = shared.lock();
    assert_eq!((state.lanes.open(), state.records.live()), (0, 0));
    assert_eq!(state.workers[0].status(), Status::Ready);
}

#[test]
fn jobs_requeued_after_the_engine_gave_up_are_answered() {
    let (shared, mut consumers) = with_lanes(1, 2, 1);
    let ids = [(); 2].map(|()| submit_with(&shared, retried(3)));
    assert!(
        consumers
            .iter_mut()
            .all(|consumer| consumer.next() == Next::Run)
    );
    let mut state = shared.lock();
    state.give_up("no worker starts");
    shared.unlock(state);
    // The first lane reports itself as the culprit.
    let culprit_lane = &shared.cells[0].reply().culprit_lane;
    culprit_lane.store(1, Ordering::Relaxed);
    die(&shared, 0);
    let [culprit, beside] = ids.map(|id| answer(&shared, id).expect("no worker will run it"));
    assert!(culprit.contains("SIGKILL"), "{culprit}");
    assert!(beside.contains("no worker starts"), "{beside}");
    assert_eq!(shared.lock().records.live(), 0);
}

#[test]
fn a_clock_starts_when_all_jobs_before_were_taken_back_or_ended() {
    let (shared, mut consumers) = fixture(1, 1);
    shared.lock().kernels.index(&kernel());
    shared.lock().kernels.get(0).expected_ns = 1000;
    let (first, second) = (submit(&shared), submit(&shared));
    let third = submit_with(&shared, timed(HOUR));
    assert_eq!(consumers[0].next(), Next::Run);
    shared.cells[0].hub().arm(1);
    // The other job is gone; now the end of the first job matters.
    shared.cancel(second);
    assert_eq!(clock(&shared), None);
    assert!(consumers[0].finish(false, 1, None), "the monitor is rung");
    shared.stats();
    assert_eq!(clock(&shared), Some(2), "nothing that runs is before it");
    assert_eq!(consumers[0].next(), Next::Run);
    finish(&mut consumers[0]);
    assert_eq!(answer(&shared, third).unwrap(), "value");
    answer(&shared, first).unwrap();
    answer(&shared, second).unwrap();
}

#[test]
fn an_end_before_the_request_for_notice_is_drained_again() {
    let (shared, mut consumers) = fixture(1, 1);
    let first = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    finish(&mut consumers[0]);
    let second = submit_with(&shared, timed(HOUR));
    assert!(
        shared.lock().monitor.is_to_look_again(),
        "the lane has to be drained first"
    );
    answer(&shared, first).unwrap();
    assert_eq!(clock(&shared), Some(1));
    drop(shared.lock().abandon(second));
}

#[test]
fn a_job_that_ended_late_keeps_its_value() {
    let (shared, mut consumers) = fixture(1, 1);
    let job = submit_with(&shared, timed(MOMENT));
    assert_eq!(consumers[0].next(), Next::Run);
    finish(&mut consumers[0]);
    run_timers(&shared);
    assert_eq!(answer(&shared, job).unwrap(), "value");
    assert_eq!(shared.lock().workers[0].status(), Status::Ready);
}

/// Runs timers until the worker is asked to end, or the alarm of its lane has gone off `times` times.
fn runs_timers(shared: &Supervisor, times: usize) -> Status {
    for _ in 0..times {
        let Some(at) = shared.lock().lanes[0].alarm().map(|alarm| alarm.at) else {
            break;
        };
        while Instant::now() < at {
            std::thread::yield_now();
        }
        run_timers(shared);
    }
    shared.lock().workers[0].status()
}

#[test]
fn a_job_that_loads_is_timed_from_when_it_begins() {
    // The second time is beyond the range of the clock.
    for most in [HOUR, Duration::MAX] {
        let (shared, mut consumers) = fixture(1, 1);
        let job = submit_with(&shared, timed(MOMENT).loading(most));
        assert_eq!(consumers[0].next(), Next::Run);
        assert_eq!(runs_timers(&shared, 3), Status::Ready, "it has not begun");
        consumers[0].begin_timed(clock::monotonic_ns());
        assert_eq!(runs_timers(&shared, 1), Status::Leaving);
        die(&shared, 0);
        assert!(answer(&shared, job).unwrap().contains("deadline"));
    }
}

#[test]
fn a_worker_cannot_postpone_a_deadline_for_ever() {
    for begins in [false, true] {
        let (shared, mut consumers) = fixture(1, 1);
        let job = submit_with(&shared, timed(MOMENT).loading(MOMENT));
        assert_eq!(consumers[0].next(), Next::Run);
        if begins {
            // The worker reports a time that is an hour ahead.
            let later = clock::monotonic_ns() + 3_600_000_000_000;
            consumers[0].begin_timed(later);
        }
        assert_eq!(runs_timers(&shared, 1), Status::Leaving);
        die(&shared, 0);
        assert!(answer(&shared, job).unwrap().contains("deadline"));
    }
}

/// The last attempt finds the stamps of the first in its slot.
#[test]
fn an_attempt_is_not_timed_from_when_an_earlier_one_began() {
    let (shared, mut consumers) = fixture(1, 1);
    let options = JobOptions {
        deadline: Some(MOMENT),
        ..retried(SLOTS as u32)
    };
    submit_with(&shared, options.loading(HOUR));
    for _ in 0..SLOTS {
        assert_eq!(consumers[0].next(), Next::Run);
        consumers[0].begin_timed(clock::monotonic_ns());
        consumers[0].finish(true, 1, Some(&one_word(kind::PANICKED, &[0])));
        shared.stats();
        run_timers(&shared);
    }
    assert_eq!(consumers[0].next(), Next::Run);
    assert_eq!(runs_timers(&shared, 1), Status::Ready, "it has not begun");
}

/// The program was stopped for an hour while a job loaded, or after it began.
#[test]
fn a_job_that_loads_loses_no_time_while_the_program_is_stopped() {
    for begins in [false, true] {
        let (shared, mut consumers) = fixture(1, 1);
        submit_with(&shared, timed(HOUR / 2).loading(HOUR / 2));
        assert_eq!(consumers[0].next(), Next::Run);
        let ago = HOUR + HOUR / 4;
        if begins {
            let ns = clock::monotonic_ns().saturating_sub(ago.as_nanos() as u64);
            consumers[0].begin_timed(ns);
        }
        let mut state = shared.lock();
        let alarm = state.lanes[0].alarm().unwrap();
        let past = Instant::now().checked_sub(ago).unwrap();
        state.lanes[0].set_alarm(Some(Alarm {
            at: past,
            since: past,
            ..alarm
        }));
        state.postpone(HOUR);
        shared.unlock(state);
        assert_eq!(
            runs_timers(&shared, 1),
            Status::Ready,
            "it has begun: {begins}"
        );
    }
}

#[test]
fn the_first_deadline_wakes_a_monitor_that_would_not_see_a_stop() {
    let (shared, _consumers) = fixture(1, 1);
    let sleeps = |beats| {
        shared
            .lock()
            .monitor
            .sleeps_until(Some(Instant::now() + MOMENT), beats);
        let _ = shared.monitor_event().clear();
    };
    sleeps(false);
    submit_with(&shared, timed(HOUR));
    assert!(shared.monitor_event().clear().unwrap(), "it is rung");
    assert!(shared.lock().monitor.take_end(), "it has to beat");
}

/// The job has ended, and the lane was not drained: its worker must not be killed.
#[test]
fn a_deadline_kills_no_worker_whose_job_has_ended() {
    let (shared, mut consumers) = fixture(1, 1);
    let job = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    finish(&mut consumers[0]);
    shared.kill(job);
    assert_eq!(shared.lock().workers[0].status(), Status::Ready);
    assert_eq!(answer(&shared, job).unwrap(), "value");
}

#[test]
fn an_end_after_the_worker_was_condemned_is_not_read() {
    let (shared, mut consumers) = fixture(2, 1);
    let late = submit_with(&shared, timed(MOMENT));
    let behind = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    run_timers(&shared);
    assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
    assert!(shared.lock().next_timer().is_none(), "its time is up once");
    finish(&mut consumers[0]);
    assert!(answer(&shared, late).is_none(), "its process lives");
    assert_eq!(
        shared.lock().queue.len(),
        1,
        "what lay behind it runs elsewhere"
    );
    die(&shared, 0);
    assert!(answer(&shared, late).unwrap().contains("deadline"));
    assert!(answer(&shared, behind).is_none());
    let state = shared.lock();
    assert_eq!(
        (state.lanes.open(), state.queue.len(), state.records.live()),
        (0, 1, 1)
    );
    assert!(state.next_timer().is_none());
}

#[test]
fn a_clock_that_goes_off_finds_the_job_that_has_begun_meanwhile() {
    let (shared, mut consumers) = fixture(1, 1);
    shared.lock().kernels.index(&kernel());
    shared.lock().kernels.get(0).expected_ns = 1000;
    let first = submit_with(&shared, timed(MOMENT));
    let second = submit(&shared);
    // The job has ended, and the next has begun: no worker must be killed.
    assert_eq!(consumers[0].next(), Next::Run);
    finish(&mut consumers[0]);
    assert_eq!(consumers[0].next(), Next::Run);
    run_timers(&shared);
    assert_eq!(shared.lock().workers[0].status(), Status::Ready);
    assert_eq!(answer(&shared, first).unwrap(), "value");
    finish(&mut consumers[0]);
    assert_eq!(answer(&shared, second).unwrap(), "value");
}

/// Reports of a condemned lane are ignored. A cancellation that is requested then takes effect at the exit.
#[test]
fn a_job_cancelled_behind_a_condemned_one_never_runs() {
    let (shared, mut consumers) = fixture(1, 1);
    shared.lock().kernels.index(&kernel());
    shared.lock().kernels.get(0).expected_ns = 1000;
    let escaping = submit(&shared);
    let behind = [
        submit(&shared),
        submit(&shared),
        submit(&shared),
        submit(&shared),
    ];
    assert_eq!(consumers[0].next(), Next::Run);
    let said = one_word(kind::ESCAPED, &[1]);
    consumers[0].finish(true, 1, Some(&said));
    shared.stats();
    assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
    shared.cancel(behind[0]);
    shared.kill(behind[1]);
    shared.abandon(behind[2]);
    assert!(answer(&shared, behind[0]).is_none(), "its worker lives");
    die(&shared, 0);
    assert!(answer(&shared, escaping).unwrap().contains("handle"));
    assert!(answer(&shared, behind[0]).unwrap().contains("cancelled"));
    assert!(answer(&shared, behind[1]).unwrap().contains("cancelled"));
    assert!(
        answer(&shared, behind[3]).is_none(),
        "it waits for a worker"
    );
    let state = shared.lock();
    assert_eq!((state.queue.len(), state.records.live()), (1, 1));
}

/// A worker that reports two running jobs at once is killed.
#[test]
fn a_lane_that_reports_two_running_jobs_is_killed() {
    let (shared, _consumers) = fixture(1, 1);
    let first = submit_with(&shared, timed(MOMENT));
    let second = submit(&shared);
    const RUNNING: u32 = 2;
    write_word(&shared, 0, RUNNING);
    write_word(&shared, 1, RUNNING);
    in_time({
        let shared = Arc::clone(&shared);
        move || run_timers(&shared)
    });
    assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
    die(&shared, 0);
    assert!(
        answer(&shared, first)
            .unwrap()
            .contains("longer than its deadline")
    );
    let lost = answer(&shared, second).unwrap();
    assert!(
        lost.contains("lost with its worker, because of job 1"),
        "{lost}"
    );
}

#[test]
fn after_a_broken_protocol_only_jobs_with_retries_run_again() {
    let (shared, _consumers) = fixture(1, 1);
    shared.lock().kernels.index(&kernel());
    shared.lock().kernels.get(0).expected_ns = 1000;
    let blamed = submit(&shared);
    let plain = submit(&shared);
    let safe = submit_with(&shared, retried(1));
    write_word(&shared, 0, 7);
    assert!(answer(&shared, blamed).is_none());
    die(&shared, 0);
    assert!(
        answer(&shared, blamed)
            .unwrap()
            .contains("broke the protocol")
    );
    let lost = answer(&shared, plain).unwrap();
    assert!(
        lost.contains("because of job 1") && lost.contains("protocol"),
        "{lost}"
    );
    assert!(answer(&shared, safe).is_none());
    let mut state = shared.lock();
    let record = state.records.get(safe);
    assert_eq!(
        (record.stage, record.attempt),
        (Stage::Queued, 1),
        "no attempt"
    );
}

/// Another job is reported as the culprit, every time.
#[test]
fn a_job_that_is_lost_with_others_is_answered_eventually() {
    let mut policy = Policy::new(retried(100));
    let times = (0..100).take_while(|_| policy.may_run_again_after_loss(5));
    assert_eq!(times.count(), 5);
    assert!(
        !Policy::new(timed(HOUR)).may_run_again_after_loss(5),
        "not safe"
    );
}

#[test]
fn pauses_double_up_to_the_longest() {
    let backoff = Backoff::new(Duration::from_millis(3), Duration::from_millis(20));
    let pauses: Vec<_> = (1..6).map(|n| backoff.pause(n, 7).as_millis()).collect();
    assert_eq!(pauses, [3, 6, 12, 20, 20]);
    assert_eq!(backoff.pause(u32::MAX, 7).as_millis(), 20);
    let endless = Backoff::new(Duration::MAX, Duration::MAX);
    assert_eq!(endless.pause(7, 7), Duration::MAX);
}

#[test]
fn jitter_spreads_the_pauses_of_jobs_over_half_of_each() {
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10)).jitter();
    for (failed, whole) in (1..).zip([100.0, 200.0, 400.0]) {
        let of = |job| backoff.pause(failed, job).as_secs_f64() * 1e3 / whole;
        assert!((1..1000).map(of).all(|part| (0.5..=1.0).contains(&part)));
        // About a tenth of the pauses lie in each tenth of the span.
        for tenth in 0..10 {
            let from = 0.5 + f64::from(tenth) / 20.0;
            let here = (1..1000)
                .map(of)
                .filter(|part| (from..from + 0.05).contains(part));
            assert!((60..140).contains(&here.count()), "{failed} {tenth}");
        }
    }
    assert_ne!(backoff.pause(1, 7), backoff.pause(2, 7) / 2);
    let endless = Backoff::new(Duration::MAX, Duration::MAX).jitter();
    assert!(endless.pause(7, 7) >= Duration::MAX / 2);
}

#[test]
fn dropped_jobs_leave_no_entries_in_the_queue() {
    let (shared, _consumers) = fixture(1, 0);
    let mut jobs: Vec<_> = (0..10_000).map(|_| submit(&shared)).collect();
    // Drops the jobs in another order than that of their submission.
    for n in 0..jobs.len() {
        jobs.swap(n, n * 7919 % 10_000);
    }
    for (n, id) in jobs.into_iter().enumerate() {
        shared.abandon(id);
        let state = shared.lock();
        assert_eq!(state.queue.len(), 9_999 - n);
        assert!(state.queue.entries() <= 2 * state.queue.len() + 64);
    }
    assert!(shared.lock().queue.len() == 0);
}

#[test]
fn an_entry_of_a_removed_job_is_not_that_of_the_next() {
    let (shared, _consumers) = fixture(1, 0);
    let (gone, first) = (submit(&shared), submit(&shared));
    shared.abandon(gone);
    // The record is queued again, for a job that comes after the other one.
    let second = submit(&shared);
    assert_eq!(gone.index, second.index);
    let mut state = shared.lock();
    let state = &mut *state;
    let order = [(); 3].map(|()| state.queue.next_for(Constraint::Any, &state.records));
    assert_eq!(order, [Some(first.index), Some(second.index), None]);
    assert_eq!(state.queue.len(), 0);
}

#[test]
fn unbegun_jobs_wait_for_jobs_of_higher_priority() {
    let (shared, mut consumers) = fixture(2, 2);
    // Each lane has one job that begins and one ahead, all of the lowest priority.
    let low: Vec<_> = (0..6)
        .map(|_| submit_with(&shared, ranked(Priority::Low)))
        .collect();
    assert_eq!(consumers[0].next(), Next::Run);
    assert_eq!(consumers[1].next(), Next::Run);
    assert_eq!(shared.lock().lanes.open(), 4);
    let normal = submit(&shared);
    let high = submit_with(&shared, ranked(Priority::High));
    let state = shared.lock();
    let begun = [low[0], low[1]].map(|id| id.index);
    let order = state.queue.in_order(&state.records);
    let ahead: Vec<u32> = state.lanes.iter().flat_map(|lane| lane.records()).collect();
    drop(state);
    let ahead: Vec<u32> = ahead
        .into_iter()
        .filter(|&index| index != NO_RECORD && !begun.contains(&index))
        .collect();
    // The jobs ahead now have a higher priority than the queued ones.
    let all: Vec<u32> = ahead.into_iter().chain(order).collect();
    let at = |id: JobId| all.iter().position(|&index| index == id.index).unwrap();
    assert!(at(high) < 2 && at(normal) < 2, "{all:?}");
    let rest: Vec<_> = all[2..].to_vec();
    assert_eq!(rest, low[2..].iter().map(|id| id.index).collect::<Vec<_>>());
}

#[test]
fn a_dropped_job_does_not_delay_others() {
    let (shared, mut consumers) = fixture(1, 1);
    let submit = |priority| submit_with(&shared, ranked(priority));
    let _runs = submit(Priority::Low);
    assert_eq!(consumers[0].next(), Next::Run);
    // One job is ahead on the lane, the other is queued; both are then dropped.
    let both = [submit(Priority::High), submit(Priority::High)];
    assert_eq!(shared.lock().queue.len(), 1);
    both.into_iter().rev().for_each(|id| shared.abandon(id));
    let low = submit(Priority::Low);
    let high = submit(Priority::High);
    let mut state = shared.lock();
    let mut stage = |id| state.records.get(id).stage;
    assert!(matches!(stage(high), Stage::Placed { .. }));
    assert_eq!(stage(low), Stage::Queued);
}

// ---- one attempt -------------------------------------------------------------------------------

#[test]
fn a_failed_attempt_is_retried_answered_or_quarantined() {
    let panicked = || JobErrorKind::Panicked {
        message: String::new(),
        location: String::new(),
        backtrace: Default::default(),
    };
    let aborted = || JobErrorKind::Lost(WorkerExit::Signal(6));
    let fails = |policy: &mut Policy, kind, quarantine_after, closing| {
        let words = vec!["so far".to_owned()];
        policy.attempt_failed(
            Death {
                kind,
                worker: Some(1),
                last_words: words,
                crash: None,
            },
            7,
            quarantine_after,
            closing,
        )
    };
    let mut policy = Policy::new(retried(2));
    let once_more = After::Again {
        pause: Duration::ZERO,
    };
    assert_eq!(fails(&mut policy, panicked(), 2, false), once_more);
    assert_eq!(fails(&mut policy, aborted(), 2, false), once_more);
    assert_eq!(fails(&mut policy, panicked(), 2, false), After::Answer);
    assert_eq!(policy.deaths, [panicked(), aborted()]);
    let is_known = |death: &Death| death.worker == Some(1) && death.last_words == ["so far"];
    assert!(policy.deaths.iter().all(is_known));
    // The second death reaches the limit, whatever retries are left.
    let mut policy = Policy::new(retried(9));
    let quarantined = After::Quarantine { deaths: 2 };
    assert_eq!(fails(&mut policy, aborted(), 2, false), once_more);
    assert_eq!(fails(&mut policy, aborted(), 2, false), quarantined);
    assert_eq!(policy.deaths, [aborted(), aborted()]);
    // There is no further attempt while the engine closes, or after the job was dropped.
    let mut policy = Policy::new(retried(9));
    assert_eq!(fails(&mut policy, aborted(), 9, true), After::Answer);
    policy.given_up = true;
    assert_eq!(fails(&mut policy, aborted(), 9, false), After::Answer);
    for once in [
        JobErrorKind::Returned("".into()),
        JobErrorKind::Lost(WorkerExit::Escaped { count: 1 }),
        JobErrorKind::Rejected(Rejection::ForeignArray),
        JobErrorKind::Rejected(Rejection::ForeignKernel),
        JobErrorKind::Cancelled,
        JobErrorKind::ShutDown,
    ] {
        let mut policy = Policy::new(retried(9));
        assert_eq!(fails(&mut policy, once, 9, false), After::Answer);
    }
}

#[test]
fn a_worker_pauses_after_its_third_death_in_a_row() {
    let (shared, mut consumers) = fixture(1, 1);
    let consumer = &mut consumers[0];
    let die_with = |consumer: &mut Consumer, running: bool, signal: i32| {
        let job = running.then(|| submit(&shared));
        if running {
            assert_eq!(consumer.next(), Next::Run);
        }
        die_of(&shared, 0, signal);
        if let Some(job) = job {
            answer(&shared, job).unwrap();
        }
        let Status::Absent { not_before } = shared.lock().workers[0].status() else {
            panic!("a dead worker is absent");
        };
        revive(&shared, consumer);
        not_before.is_some()
    };
    let finish_one = |consumer: &mut Consumer| {
        let job = submit(&shared);
        assert_eq!(consumer.next(), Next::Run);
        finish(consumer);
        assert_eq!(answer(&shared, job).unwrap(), "value");
    };
    // Deaths because of jobs, deaths without a job, or both in turns: a job that ends resets the count.
    for kinds in [[true; 4], [false; 4], [true, false, true, false]] {
        let row = kinds.map(|running| die_with(consumer, running, 6));
        assert_eq!(row, [false, false, true, true], "{kinds:?}");
        finish_one(consumer);
    }
    // An idle worker that is killed from outside is replaced at once, however often.
    let row = [(); 4].map(|()| die_with(consumer, false, 9));
    assert_eq!(row, [false; 4]);
    let row = [(); 4].map(|()| die_with(consumer, true, 9));
    assert_eq!(row, [false, false, true, true]);
}
