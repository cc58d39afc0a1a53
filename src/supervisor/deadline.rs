//! Clocks of running jobs, and killing a worker because of one of them.
//!
//! The clock of a job runs while it is the oldest open job of its lane: then its worker runs it, or is about to. When
//! it goes off, the lane is drained first, so a job that has ended in time or later keeps its value. Then the jobs
//! behind it are taken back, and the worker is killed. The answer comes with the exit.
//!
//! A job whose options have `loading` is timed from when its kernel calls `begin_timed`. The worker records that moment and
//! the number of the job beside the stamps of its slot. When the clock goes off, the moment is read there, and the clock is
//! set anew if less than the limit has passed since, or if nothing was recorded for this job so far. What a worker records
//! cannot postpone the end beyond `loading` and the limit.

use std::time::{Duration, Instant};

use super::depend::CancelMode;
use super::error::{JobErrorKind, JobLimit};
use super::lane::{Alarm, Clock, Lane};
use super::state::EngineState;
use super::timers::Timer;
use super::worker::Worker;
use crate::sys::clock;

/// How often a lane is drained again because a job behind the one in question says that it runs. With an honest worker
/// the second look finds the end of the first job.
const LOOKS: usize = 3;
/// How often it is looked whether a job has begun whose time before does not count.
const LOOK_FOR_BEGIN: Duration = Duration::from_millis(10);

impl Lane {
    /// The deadline of a job whose time before [`begin_timed`](crate::begin_timed) does not count, if that is not over:
    /// the time of another look while it has not begun. The worker says when that was, so there is a limit, after which
    /// the job is over whatever it says.
    fn due_after_loading(
        &self,
        alarm: Alarm,
        job: u64,
        limit: Duration,
        most: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let due = match self.producer.timed_since(alarm.position, job) {
            Some(began) => {
                let ago = Duration::from_nanos(clock::monotonic_ns().saturating_sub(began));
                now.checked_sub(ago)?.checked_add(limit)?
            }
            None => now + LOOK_FOR_BEGIN,
        };
        let last = alarm.since.checked_add(most)?.checked_add(limit)?;
        (due > now && now < last).then_some(due.min(last))
    }
}

impl EngineState {
    /// Starts the clock of the lane's oldest job, if that has a deadline, and requests notice of the end of the job
    /// before the next one with a deadline. To be called when either may have changed.
    pub(super) fn watch(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.is_condemned() {
            return;
        }
        let (clock, was_over) = lane.update_alarm();
        if was_over {
            self.monitor.look_again();
        }
        match clock {
            Clock::NotNeeded => self.lanes.end_exclusive(index),
            Clock::Unchanged => {}
            Clock::Starts(position) => {
                let record = lane.record_at(position);
                let policy = &self.records.at(record).policy;
                let limit = policy.as_ref().and_then(|policy| policy.options.deadline);
                // A limit beyond the range of the clock is none.
                let since = Instant::now();
                let at = limit.and_then(|limit| since.checked_add(limit));
                lane.set_alarm(at.map(|at| Alarm {
                    position,
                    at,
                    since,
                }));
                if let Some(at) = at {
                    crate::sync::point!("deadline.set");
                    self.monitor.call_before(at);
                    crate::sync::point!("deadline.started");
                }
            }
        }
    }

    /// Whether something is lost at a certain time: a job, a worker, or the rest of a drain.
    pub(super) fn has_clocks(&self) -> bool {
        self.lanes.iter().any(|lane| lane.alarm().is_some())
            || self.timers.has_ends()
            || self.workers.iter().any(|worker| worker.ends_by().is_some())
            || self.lifecycle.drains_until().is_some()
    }

    /// Allows this much more time for everything that ends at a certain time: the monitor did nothing meanwhile.
    pub(super) fn postpone(&mut self, by: Duration) {
        for lane in self.lanes.iter_mut() {
            lane.postpone_alarm(by);
        }
        self.timers.postpone_ends(by);
        self.lifecycle.postpone(by);
        for worker in &mut self.workers {
            worker.postpone_end(by);
        }
    }

    /// When the monitor has to do something next because of the time.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let alarms = self.lanes.iter().filter_map(|lane| lane.alarm());
        let admission = self.admission.as_ref();
        let recheck = admission.and_then(|admission| admission.recheck_at());
        let lines = self.permit_waiters.due().into_iter().chain(recheck);
        let times = alarms.map(|alarm| alarm.at).chain(self.timers.first());
        times
            .chain(lines)
            .chain(self.workers.iter().filter_map(Worker::ends_by))
            .chain(self.lifecycle.drains_until())
            .min()
    }

    /// Does what is due: alarms, timers, limiters, admission, and the end of draining.
    pub(super) fn run_timers(&mut self) {
        self.admit_called_jobs();
        if self.next_timer().is_none() {
            return;
        }
        let now = Instant::now();
        for index in 0..self.lanes.len() {
            if self.lanes[index]
                .alarm()
                .is_some_and(|alarm| alarm.at <= now)
            {
                self.go_off(index, now);
            }
        }
        self.run_due(now);
        self.recheck_admission(now);
        // They were asked to end and have not: they are stopped, or taken over by a job.
        for worker in &mut self.workers {
            if worker.is_overdue(now) {
                worker.kill();
            }
        }
        let is_drained = self.is_drained();
        if self.lifecycle.end_drain(now, is_drained) {
            self.monitor.look_again();
        }
    }

    /// Does what the timers say.
    pub(super) fn run_due(&mut self, now: Instant) {
        let due = self.timers.take_due(now);
        // First, because others may cancel such a job.
        self.begin_attempts(due.iter().filter_map(|(_, timer)| timer.attempt()));
        for (at, timer) in due {
            match timer {
                Timer::Attempt(_) => {}
                Timer::ActorStart(index) => {
                    self.actors
                        .resume(index, at, &mut self.timers, &mut self.queue);
                }
                Timer::Scope(group) => {
                    // Ends may be drained in between, but no record is removed: jobs of a scope are never detached, and
                    // only their scope takes them.
                    for id in self.records.open_of(|owner| owner.is_in(group)) {
                        self.kill(id);
                    }
                }
                Timer::Run { run, serial } => {
                    if self.runs.has(run, serial) {
                        let why = JobErrorKind::Cancelled;
                        self.cancel_run(run, why, CancelMode::Kill);
                    }
                }
            }
        }
    }

    /// Kills the worker of a lane's oldest job if its time is over.
    fn go_off(&mut self, index: usize, now: Instant) {
        // A job that has ended is done, however late. This may set another alarm, or none.
        self.drain(index);
        crate::sync::point!("deadline.drained");
        let Some(alarm) = self.lanes[index].alarm().filter(|alarm| alarm.at <= now) else {
            return;
        };
        crate::sync::point!("judge.due");
        let record = self.lanes[index].record_at(alarm.position);
        let record = self.records.look(record);
        let (job, policy) = (record.job, &record.policy);
        let options = policy.as_ref().map(|policy| &policy.options);
        let limit = options.and_then(|options| options.deadline);
        let limit = limit.unwrap_or_default();
        let loading = options.and_then(|options| options.loading);
        if let Some(at) = loading
            .and_then(|most| self.lanes[index].due_after_loading(alarm, job, limit, most, now))
        {
            self.lanes[index].set_alarm(Some(Alarm { at, ..alarm }));
            self.monitor.call_before(at);
            return;
        }
        self.end_worker_of(
            index,
            alarm.position,
            JobErrorKind::Limit(JobLimit::Deadline { limit }),
        );
    }

    /// Kills the worker that has this job, unless the job is over. The jobs behind it run elsewhere.
    pub(super) fn end_worker_of(&mut self, index: usize, position: u64, why: JobErrorKind) {
        for _ in 0..LOOKS {
            self.drain(index);
            let lane = &self.lanes[index];
            if lane.is_condemned() || !lane.holds(position) {
                // What was taken back at an earlier look is placed again.
                self.refill();
                return self.update_flags();
            }
            if self.take_back_behind(index, position) {
                break;
            }
        }
        let record = self.lanes[index].record_at(position);
        crate::sync::point!("judge.cleared");
        self.condemn(index, record, why);
        self.refill();
        crate::sync::point!("judge.refilled");
    }
}
