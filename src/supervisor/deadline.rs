//! Clocks of running jobs, and ending a worker because of one of them. The steps are numbered in the
//! README of this floor.

use std::time::{Duration, Instant};

use super::error::JobErrorKind;
use super::lane::Alarm;
use super::state::EngineState;
use crate::link::{Ask, NOTICE, SLOTS};
use crate::sys::clock;

/// How often a lane is drained again because a job behind the one in question says that it runs. With
/// an honest worker the second look finds the end of the first job.
const LOOKS: usize = 3;

impl EngineState {
    /// Starts the clock of the lane's oldest job, if it has a deadline, and asks to hear of the end of
    /// the job before the next that has one. Called when either may have changed.
    pub(super) fn watch(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.condemned {
            return;
        }
        while let Some(&position) = lane.timed.front()
            && !lane.holds(position)
        {
            lane.timed.pop_front();
        }
        if lane.timed.len() > 2 * SLOTS {
            // Behind a long one, others may come and be taken back for ever.
            let mut timed = std::mem::take(&mut lane.timed);
            timed.retain(|&position| lane.holds(position));
            lane.timed = timed;
        }
        let Some(&first) = lane.timed.front() else {
            lane.alarm = None;
            return self.end_alone(index);
        };
        let open = lane.producer.open_positions();
        let oldest = open.clone().find(|&position| lane.holds(position));
        let runs = oldest == Some(first);
        let next = if runs {
            let later = lane.timed.iter().skip(1);
            later.copied().find(|&position| lane.holds(position))
        } else {
            Some(first)
        };
        if let Some(next) = next {
            let before = (open.start..next).rev().find(|&p| lane.holds(p));
            if let Some(before) = before
                && lane.noticed != before
            {
                lane.noticed = before;
                if lane.ask(before, NOTICE) == Ask::Over {
                    self.monitor.look_again();
                }
            }
        }
        if !runs {
            self.lanes[index].alarm = None;
        } else if self.lanes[index]
            .alarm
            .is_none_or(|alarm| alarm.position != first)
        {
            self.start_clock(index, first);
        }
    }

    fn start_clock(&mut self, index: usize, position: u64) {
        let record = self.lanes[index].record_at(position);
        let policy = &self.records.at(record).policy;
        let limit = policy.as_ref().and_then(|policy| policy.options.deadline);
        // A limit beyond all clocks is none.
        let at = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.lanes[index].alarm = at.map(|at| Alarm { position, at });
        if let Some(at) = at {
            crate::sync::point!("deadline.set");
            self.monitor.call_before(at);
            crate::sync::point!("deadline.started");
        }
    }

    /// Does somebody lose something at a certain time?
    pub(super) fn has_clocks(&self) -> bool {
        self.lanes.iter().any(|lane| lane.alarm.is_some())
            || self.groups.next_due().is_some()
            || self.next_task_group_kill().is_some()
            || self.leavers_due().is_some()
            || self.lifecycle.drains_until().is_some()
    }

    /// For so long nothing was done here: that counts against no job.
    pub(super) fn postpone(&mut self, by: Duration) {
        for alarm in self.lanes.iter_mut().filter_map(|lane| lane.alarm.as_mut()) {
            alarm.at = clock::postponed(alarm.at, by);
        }
        self.groups.postpone(by);
        self.postpone_task_groups(by);
        self.lifecycle.postpone(by);
        for ends_by in self
            .workers
            .iter_mut()
            .filter_map(|worker| worker.ends_by.as_mut())
        {
            *ends_by = clock::postponed(*ends_by, by);
        }
    }

    /// The next time at which an alarm or a pause ends, a line may move, or the end of the engine waits no longer.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        let alarms = self.lanes.iter().filter_map(|lane| lane.alarm);
        let pauses = self.pauses.first().map(|(due, _)| due);
        let lines = self
            .permit_due()
            .into_iter()
            .chain(self.next_admission_check());
        let pauses = pauses.into_iter().chain(self.next_actor_restart());
        let times = alarms.map(|alarm| alarm.at).chain(pauses).chain(lines);
        let patience = self
            .groups
            .next_due()
            .into_iter()
            .chain(self.next_task_group_kill());
        let patience = patience.chain(self.leavers_due());
        times
            .chain(patience)
            .chain(self.lifecycle.drains_until())
            .min()
    }

    /// Alarms that are due, pauses that are over, and groups, families and an end of the engine with which patience is over.
    pub(super) fn run_timers(&mut self) {
        self.admit_called_jobs();
        if self.next_timer().is_none() {
            return;
        }
        let now = Instant::now();
        for index in 0..self.lanes.len() {
            if self.lanes[index].alarm.is_some_and(|alarm| alarm.at <= now) {
                self.go_off(index, now);
            }
        }
        self.end_pauses(now);
        self.end_actor_pauses(now);
        self.recheck_admission(now);
        self.end_groups(now);
        self.kill_overdue_task_groups(now);
        self.end_leavers(now);
        self.end_drain(now);
    }

    /// Ends what was to be finished first, if it has had its time.
    fn end_drain(&mut self, now: Instant) {
        let is_drained = self.is_drained();
        if self.lifecycle.end_drain(now, is_drained) {
            self.monitor.look_again();
        }
    }

    /// The time of a lane's oldest job may be over.
    fn go_off(&mut self, index: usize, now: Instant) {
        // Done is done: this may set another alarm, or none.
        self.drain(index);
        crate::sync::point!("deadline.drained");
        let Some(alarm) = self.lanes[index].alarm.filter(|alarm| alarm.at <= now) else {
            return;
        };
        crate::sync::point!("judge.due");
        let record = self.lanes[index].record_at(alarm.position);
        let policy = &self.records.at(record).policy;
        let limit = policy.as_ref().and_then(|policy| policy.options.deadline);
        let limit = limit.unwrap_or_default();
        self.end_worker_of(
            index,
            alarm.position,
            JobErrorKind::DeadlineExceeded { limit },
        );
    }

    /// Ends the worker that has this job, unless the job is over. What lies behind it runs elsewhere.
    pub(super) fn end_worker_of(&mut self, index: usize, position: u64, why: JobErrorKind) {
        for _ in 0..LOOKS {
            self.drain(index);
            let lane = &self.lanes[index];
            if lane.condemned || !lane.holds(position) {
                // What was taken back at an earlier look goes on.
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
