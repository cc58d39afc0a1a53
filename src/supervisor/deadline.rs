//! Deadlines of running jobs, and killing the workers of jobs that exceed them.
//!
//! The clock of a job runs while it is the oldest open job of its lane: then its worker runs it, or is about to. When
//! the deadline has passed, the lane is drained first, so a job that has ended, even late, keeps its value. Then the
//! later jobs of the lane are taken back, and the worker is killed. The job is answered after the worker's exit.
//!
//! A job whose options have `loading` is timed from the moment its kernel calls `begin_timed`. The worker records that
//! moment and the position of the job in the stamps of its slot. When the deadline has passed, that moment is read. If
//! less than the limit has passed since, or no moment is recorded for this job yet, then the deadline is set again. A
//! worker cannot postpone its end beyond `loading` plus the limit, whatever it records.

use std::time::{Duration, Instant};

use super::depend::CancelMode;
use super::error::{JobErrorKind, JobLimit};
use super::job_table::JobTable;
use super::lane::{Alarm, Clock, Lane};
use super::lanes::Lanes;
use super::signals::MonitorSignals;
use super::state::EngineState;
use super::timers::Timer;
use super::worker::Worker;
use crate::sys::clock;

/// How often a lane is drained again because a job after the overdue job claims to run. With an honest worker, the
/// second drain finds the end of the overdue job.
const LOOKS: usize = 3;
/// The interval at which it is checked whether a job with `loading` has called `begin_timed`.
const LOOK_FOR_BEGIN: Duration = Duration::from_millis(10);

impl Lane {
    /// Returns the next time to check a job with `loading`, or `None` if its time is over. If the job has called
    /// [`begin_timed`](crate::raw::begin_timed), this is `limit` after that moment; otherwise the next poll. The worker
    /// reports that moment, so there is a fixed end, `most` plus `limit` after the start of the clock, which no report
    /// postpones.
    fn due_after_loading(
        &self,
        alarm: Alarm,
        limit: Duration,
        most: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let due = match self.producer.timed_since(alarm.position) {
            Some(began) => {
                let ago = Duration::from_nanos(clock::monotonic_ns().saturating_sub(began));
                let began = now.checked_sub(ago)?;
                let stopped = alarm.stopped.filter(|&(noticed, _)| began < noticed);
                let stopped = stopped.map_or(Duration::ZERO, |(_, all)| all);
                began.checked_add(limit)?.checked_add(stopped)?
            }
            None => now + LOOK_FOR_BEGIN,
        };
        // An end beyond the range of the clock counts as none.
        let loaded = alarm.since.checked_add(most);
        let last = loaded.and_then(|loaded| loaded.checked_add(limit));
        let due = last.map_or(due, |last| due.min(last));
        (due > now).then_some(due)
    }
}

impl Lanes {
    /// Starts the clock of the lane's oldest job if the job has a deadline. Otherwise requests notice of the end of the
    /// last job ahead of the next job with a deadline. Called whenever one of these jobs may have changed.
    pub(super) fn watch(&mut self, index: usize, records: &JobTable, monitor: &mut MonitorSignals) {
        let lane = &mut self[index];
        if lane.is_condemned() {
            return;
        }
        let (clock, was_over) = lane.update_alarm();
        if was_over {
            monitor.look_again();
        }
        match clock {
            Clock::NotNeeded => self.end_exclusive(index),
            Clock::Unchanged => {}
            Clock::Starts(position) => {
                let record = lane.record_at(position);
                let policy = &records.look(record).policy;
                let limit = policy.as_ref().and_then(|policy| policy.options.deadline);
                // A limit beyond the range of the clock counts as no limit.
                let since = Instant::now();
                let at = limit.and_then(|limit| since.checked_add(limit));
                lane.set_alarm(at.map(|at| Alarm {
                    position,
                    at,
                    since,
                    stopped: None,
                }));
                if let Some(at) = at {
                    crate::sync::point!("deadline.set");
                    monitor.call_for_end(at);
                    crate::sync::point!("deadline.started");
                }
            }
        }
    }

    /// Starts the clock of a placed job with a deadline if it is the oldest of its lane.
    #[cold]
    pub(super) fn watch_if_timed(
        &mut self,
        (index, lane, position): (u32, usize, u64),
        records: &JobTable,
        monitor: &mut MonitorSignals,
    ) {
        let policy = &records.look(index).policy;
        let limit = policy.as_ref().and_then(|policy| policy.options.deadline);
        if limit.is_some() {
            self[lane].add_timed(position);
            self.watch(lane, records, monitor);
            if records.look(index).is_exclusive() {
                self.begin_exclusive(lane);
            }
        }
    }
}

impl EngineState {
    /// Returns true if a job, a worker or a drain is to be ended at a certain time.
    pub(super) fn has_clocks(&self) -> bool {
        self.lanes.iter().any(|lane| lane.alarm().is_some())
            || self.timers.has_ends()
            || self.workers.iter().any(|worker| worker.ends_by().is_some())
            || self.lifecycle.drains_until().is_some()
    }

    /// Adds `by`, the time for which the monitor did not run, to all times at which jobs, workers or a drain are ended.
    pub(super) fn postpone(&mut self, by: Duration) {
        for lane in self.lanes.iter_mut() {
            lane.postpone_alarm(by);
        }
        self.timers.postpone_ends(by);
        self.lifecycle.postpone(by);
        for worker in self.workers.iter_mut() {
            worker.postpone_end(by);
        }
    }

    /// Returns the time at which the monitor has to act next.
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

    /// Handles everything that is due: deadlines, timers, limiters, admission, and the end of draining.
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
        // These workers were asked to end and have not: they were stopped by a signal, or a job has taken them over.
        for worker in self.workers.iter_mut() {
            if worker.is_overdue(now) {
                worker.kill();
            }
        }
        let is_drained = self.is_drained();
        if self.lifecycle.end_drain(now, is_drained) {
            self.monitor.look_again();
        }
    }

    /// Handles the timers that are due.
    pub(super) fn run_due(&mut self, now: Instant) {
        let due = self.timers.take_due(now);
        // Attempts begin first, because other timers may cancel these jobs.
        self.begin_attempts(due.iter().filter_map(|(_, timer)| timer.attempt()));
        for (at, timer) in due {
            match timer {
                Timer::Attempt(_) => {}
                Timer::ActorStart(index) => {
                    let parts = (&mut self.timers, &mut self.queue, &self.records);
                    self.actors.restart_after_pause(index, at, parts);
                }
                Timer::Scope(group) => {
                    // Killing may drain ends, but no record is removed meanwhile: jobs of a scope are never detached,
                    // and only their scope takes their answers.
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

    /// Kills the worker of a lane's oldest job if the job's time is over.
    fn go_off(&mut self, index: usize, now: Instant) {
        // A job that has ended keeps its value, however late. Draining may set another alarm, or none.
        self.drain(index);
        crate::sync::point!("deadline.drained");
        let Some(alarm) = self.lanes[index].alarm().filter(|alarm| alarm.at <= now) else {
            return;
        };
        crate::sync::point!("condemn.due");
        let record = self.lanes[index].record_at(alarm.position);
        let record = self.records.look(record);
        let options = record.policy.as_ref().map(|policy| &policy.options);
        let limit = options.and_then(|options| options.deadline);
        let limit = limit.unwrap_or_default();
        let loading = options.and_then(|options| options.loading);
        if let Some(at) =
            loading.and_then(|most| self.lanes[index].due_after_loading(alarm, limit, most, now))
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

    /// Kills the worker that has this job, unless the job has ended. The later jobs of the lane run on other workers.
    pub(super) fn end_worker_of(&mut self, index: usize, position: u64, why: JobErrorKind) {
        for _ in 0..LOOKS {
            self.drain(index);
            let lane = &self.lanes[index];
            if lane.is_condemned() || !lane.holds(position) {
                // Jobs that were taken back in an earlier iteration are placed again.
                self.refill();
                return self.lanes.update_flags(&self.queue, &self.config);
            }
            if self.take_back_behind(index, position) {
                break;
            }
        }
        let record = self.lanes[index].record_at(position);
        crate::sync::point!("condemn.cleared");
        self.condemn(index, record, why);
        self.refill();
        crate::sync::point!("condemn.refilled");
    }
}
