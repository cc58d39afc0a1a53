//! Processes ends, and cancels runs.

use std::time::Instant;

use super::ends::{CancelMode, EndNotice};
use super::limits::MAX_ENDS;
use crate::link::fence_after_queueing;
use crate::supervisor::error::{Because, JobErrorKind};
use crate::supervisor::owner::Owner;
use crate::supervisor::record::{JobId, Outcome, Stage};
use crate::supervisor::state::EngineState;
use crate::supervisor::timers::Timer;

impl EngineState {
    /// Stores the answer of a task in its record, and appends its end to the ends to process.
    pub(in crate::supervisor) fn task_ended(&mut self, index: u32, outcome: Outcome) {
        self.discharge(index);
        let record = self.records.at(index);
        let has_failed = matches!(outcome, Outcome::Failed(_));
        record.stage = Stage::Answered;
        record.outcome = Some(outcome);
        let notice = EndNotice::Task { record: index };
        match has_failed {
            true => self.runs.add_urgent_notice(notice),
            false => self.runs.add_notice(notice),
        }
        crate::sync::point!("tasks.answered");
    }

    /// Processes ends: enters jobs whose inputs have ended, and sends tasks. Leaves ends beyond [`MAX_ENDS`] to
    /// [`unlock`](crate::supervisor::shared::Supervisor::unlock), which releases the lock between batches.
    pub(in crate::supervisor) fn process_ends(&mut self) {
        if !self.runs.begin_processing() {
            return;
        }
        let mut left = MAX_ENDS;
        loop {
            while left > 0
                && let Some(notice) = self.runs.next_notice()
            {
                left = left.saturating_sub(self.handle_end(notice));
            }
            self.retry_held_back();
            if self.runs.take_queued() {
                // Jobs were queued. The lanes' flags have to show this, and lanes may have run out of jobs in the
                // meantime.
                self.monitor.watch_memory();
                self.lanes.update_flags(&self.queue, &self.config);
                fence_after_queueing();
                self.catch_up();
            }
            if !self.runs.has_notices() || left == 0 {
                break;
            }
        }
        self.runs.end_processing();
    }

    /// Processes ends until there are none.
    pub(in crate::supervisor) fn process_all_ends(&mut self) {
        self.process_ends();
        while self.runs.has_unhandled_ends() {
            self.process_ends();
        }
    }

    /// Advances the runs whose next task admission has refused, in the order of their tickets.
    fn retry_held_back(&mut self) {
        let first = self.runs.first_held_back();
        while let Some(held) = self.runs.take_held_back() {
            // A run that is still held back enters itself again. Then the loop ends: no later ticket is admitted before
            // it.
            self.advance(held.1);
            if self.runs.is_held_back(held) {
                break;
            }
        }
        if first != self.runs.first_held_back() {
            // Callers in the line may have waited for a run that is not held back any more.
            self.notify_admission_line();
        }
    }

    /// Processes ends and held-back runs. Called after an action that may have ended jobs.
    pub(in crate::supervisor) fn settle_dependents(&mut self) {
        if self.runs.has_pending_work() {
            self.refill();
        }
    }

    /// Handles an event. Returns the number of jobs that were examined.
    fn handle_end(&mut self, notice: EndNotice) -> usize {
        match notice {
            EndNotice::Input { job } => return self.input_ended(job),
            EndNotice::Unused { job } => self.input_unused(job),
            EndNotice::Call { actor } => self.look_at_calls(actor),
            EndNotice::Advance { run } => self.advance(run),
            EndNotice::Cancel { run, serial, how } if self.runs.has(run, serial) => {
                return self.cancel_tasks(run, how);
            }
            EndNotice::Cancel { .. } => {}
            EndNotice::Task { record } => match self.records.look(record).owner {
                Owner::Task { run, task } => self.handle_task_end(record, run, task),
                owner => unreachable!("the end of a job that no run waits for: {owner:?}"),
            },
        }
        1
    }

    fn handle_task_end(&mut self, index: u32, number: u32, task: u32) {
        self.runs.count_end(number, task);
        let run = self.runs.get(number);
        let record = self.records.at(index);
        record.owner = Owner::Handle;
        if let Some(Outcome::Failed(error)) = &record.outcome {
            let why = error.of_child();
            self.records.remove(index);
            if run.stopped.is_none() {
                self.cancel_run(number, why, CancelMode::AskThenKill);
            }
        } else if run.is_last(task) && run.stopped.is_none() {
            return self.finish_tasks(number, index);
        } else {
            run.done(task);
        }
        self.advance(number);
    }

    /// Stops a run, and discards tasks that were not sent. Tasks that were sent are cancelled as `how` says, when ends
    /// are processed.
    pub(in crate::supervisor) fn cancel_run(
        &mut self,
        number: u32,
        why: impl Into<Because>,
        how: CancelMode,
    ) {
        let run = self.runs.get(number);
        let serial = run.serial;
        if run.stopped >= Some(how) {
            // Its jobs were already cancelled in this way. Without this check, each run of a deep recursion would
            // cancel all runs below it again.
            return;
        }
        if run.stopped.replace(how).is_none() {
            run.failure = Some(why.into());
            self.runs.forget_unsent(number);
        }
        if how == CancelMode::AskThenKill
            && self.runs.get(number).sent > 0
            && let Some(due) = Instant::now().checked_add(self.config.grace)
        {
            let timer = Timer::Run {
                run: number,
                serial,
            };
            self.runs.get(number).kill = Some(self.timers.add(due, timer));
            self.monitor.call_for_end(due);
        }
        let run = number;
        let notice = EndNotice::Cancel { run, serial, how };
        self.runs.add_urgent_notice(notice);
        crate::sync::point!("tasks.cancelled");
    }

    /// Cancels the tasks of a run that was stopped. Returns the number of jobs that were examined.
    fn cancel_tasks(&mut self, number: u32, how: CancelMode) -> usize {
        let sent = self.runs.get(number).sent_jobs();
        for &id in &sent {
            let Some(record) = self.records.find(id) else {
                continue;
            };
            match record.stage {
                Stage::Answered => {}
                Stage::Spawned { run } => {
                    // When the grace period is over, the outer run kills its jobs, including those of inner runs.
                    let how = match how {
                        CancelMode::AskThenKill => CancelMode::Ask,
                        how => how,
                    };
                    self.cancel_run(run, JobErrorKind::Cancelled, how);
                }
                _ if how == CancelMode::Kill => self.kill(id),
                _ => self.cancel(id),
            }
        }
        self.advance(number);
        1 + sent.len()
    }

    /// Cancels the tasks that a job has spawned. Returns false if it has not spawned any.
    pub(in crate::supervisor) fn cancel_spawned(&mut self, id: JobId, how: CancelMode) -> bool {
        let Stage::Spawned { run } = self.records.get(id).stage else {
            return false;
        };
        self.cancel_run(run, JobErrorKind::Cancelled, how);
        true
    }
}
