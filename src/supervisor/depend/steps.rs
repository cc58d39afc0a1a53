//! Advances runs: sends ready units, processes ends, and cancels.

use std::sync::Arc;
use std::time::Instant;

use super::ends::{EndNotice, JobEnd, ended_in_worker};
use super::limits::MAX_ENDS;
use super::run::{CancelMode, NoCall};
use crate::link::{NOTICE, fence_after_queueing};
use crate::supervisor::error::{Because, JobErrorKind};
use crate::supervisor::owner::Owner;
use crate::supervisor::record::{JobId, Outcome, Stage};
use crate::supervisor::state::EngineState;
use crate::supervisor::submit::refuse;
use crate::supervisor::timers::Timer;

impl EngineState {
    /// Stores the answer of a unit's job in its record, and appends its end to the ends to process.
    pub(in crate::supervisor) fn unit_ended(&mut self, index: u32, outcome: Outcome) {
        self.discharge(index);
        let stage = self.records.at(index).stage;
        let step = match &outcome {
            Outcome::Failed(error) => self.runs.step_of(error, stage, &self.lanes),
            _ => 0,
        };
        let end = JobEnd {
            step,
            ..self.runs.drained()
        };
        let record = self.records.at(index);
        let fails_task = matches!((record.owner, &outcome), (Owner::Unit { run, .. }, Outcome::Failed(_))
            if self.runs.is_spawned(run));
        record.stage = Stage::Answered;
        record.outcome = Some(outcome);
        let notice = EndNotice::Job { record: index, end };
        match fails_task {
            true => self.runs.add_urgent_notice(notice),
            false => self.runs.add_notice(notice),
        }
        crate::sync::point!("unit.answered");
    }

    /// Processes ends: marks dependents ready and sends them. Leaves ends beyond [`MAX_ENDS`] to
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

    /// Advances the runs whose next job admission has refused, in the order of their tickets.
    pub(super) fn retry_held_back(&mut self) {
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

    /// Handles an event of a run. Returns the number of jobs that were examined.
    fn handle_end(&mut self, notice: EndNotice) -> usize {
        match notice {
            EndNotice::Input { job } => return self.input_ended(job),
            EndNotice::Unused { job } => self.input_unused(job),
            EndNotice::Advance { run } => self.advance(run),
            EndNotice::Cancel { run, serial, how } if self.runs.has(run, serial) => {
                return self.cancel_units(run, how);
            }
            EndNotice::Cancel { .. } => {}
            EndNotice::Job { record, end } => match self.records.look(record).owner {
                Owner::Unit { run, unit } => self.handle_unit_end(record, run, unit, end),
                owner => unreachable!("the end of a job that no run waits for: {owner:?}"),
            },
        }
        1
    }

    fn handle_unit_end(&mut self, index: u32, number: u32, unit: u32, end: JobEnd) {
        self.runs.count_end(number);
        let run = self.runs.get(number);
        let record = self.records.at(index);
        record.owner = Owner::Handle;
        if let Some(Outcome::Failed(error)) = &record.outcome {
            if ended_in_worker(error) {
                run.count_nodes(unit, &end, true, &mut self.kernels);
            }
            let stops = run.plan.stops && run.stopped.is_none();
            let is_stopped = run.stopped.is_some() && *error.kind() == JobErrorKind::Cancelled;
            let why = error.of_child();
            let error = run.blame(unit, error, end.step);
            self.records.remove(index);
            if is_stopped {
                run.stop(unit);
            } else {
                run.fail(unit, error, &mut self.records);
            }
            if stops {
                run.stopped_at = Some(unit);
                let how = match run.spawned {
                    Some(_) => CancelMode::AskThenKill,
                    None => CancelMode::Ask,
                };
                self.cancel_run(number, why, how);
            }
        } else {
            run.count_nodes(unit, &end, false, &mut self.kernels);
            let worker = self.lanes.worker_of(end.lane as usize);
            run.done(unit, &end, worker as u32, &mut self.records);
            if run.is_last(unit) && run.stopped.is_none() {
                return self.finish_tasks(number, index, end);
            }
        }
        self.advance(number);
    }

    /// Sends ready units. If the run is over, answers its parent.
    pub(super) fn advance(&mut self, number: u32) {
        self.send_ready(number);
        let Some(run) = self.runs.find(number) else {
            return;
        };
        let (parent, sent) = (run.parent, run.sent);
        if let Some(spawned) = &mut run.spawned {
            if let Some(why) = spawned.failure.take_if(|_| sent == 0) {
                let run = self.runs.remove_with_values(number, &mut self.records);
                self.timers.remove_end(run.and_then(|run| run.kill));
                self.fail(parent, why, None, Vec::new());
            }
        } else if run.undecided == 0 && self.records.at(parent).is_open() {
            // The values are taken from the records of the units.
            self.answer(parent, Outcome::Bare);
            crate::sync::point!("graph.over");
        }
    }

    /// Sends ready units, up to the limits of window, ceiling and admission.
    fn send_ready(&mut self, number: u32) {
        while let Some(run) = self.runs.find(number)
            && let Some(unit) = run.next_ready()
        {
            let (kernel, ticket) = (run.kernel(unit), run.ticket);
            let Ok(admitted) = self.admit(kernel, 0, Some(ticket)) else {
                // The run tries again when a job ends.
                self.runs.hold_back((ticket, number));
                self.monitor.watch_memory();
                if !self.lanes.request_next_ends() {
                    // A job has ended without a notice, before the request.
                    self.monitor.look_again();
                }
                return;
            };
            let id = self.send_unit(number, unit, kernel);
            self.charge_admitted(id, admitted);
        }
    }

    /// Writes the call of a unit into a record, and places it.
    fn send_unit(&mut self, number: u32, unit: u32, kernel: u32) -> JobId {
        let mut writers = self.runs.take_writers(self.arena.id());
        let run = self.runs.get(number);
        run.mark_sent(unit);
        let options = run.plan.options_of(unit).map(Arc::clone);
        let options = options.as_deref();
        let loaded = run.load(unit, &mut self.records, &mut writers);
        crate::sync::point!("unit.forwarded");
        let owner = Owner::Unit { run: number, unit };
        let (id, refusal) = self.enter_record(kernel, &mut writers.call.0, owner, options);
        self.runs.put_back_writers(writers);
        let run = self.runs.get(number);
        let record = self.records.get(id);
        if run.driving_threads == 0 {
            record.requests |= NOTICE;
        }
        run.sent_as(unit, id, record.job);
        crate::sync::point!("unit.recorded");
        if self.trace.is_on() {
            let (records, trace) = (&self.records, &self.trace);
            self.runs.trace_sources(number, unit, records, trace);
        }
        match loaded {
            Ok(()) => self.enter(id.index, refusal, options),
            Err(NoCall::Refused(why)) => self.enter(id.index, refuse(why), options),
            Err(NoCall::Unreadable { unit, why }) => {
                let source = self.runs.get(number).states[unit as usize].record.index;
                let error = self.not_read(source, why);
                self.count_failed(id.index, error.kind(), None);
                self.answer(id.index, Outcome::Failed(error));
            }
        }
        crate::sync::point!("unit.placed");
        id
    }

    /// Stops a run, and discards units that were not sent. Units that were sent are cancelled as `how` says, when ends
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
            if let Some(spawned) = &mut run.spawned {
                spawned.failure = Some(why.into());
            }
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

    /// Cancels the units of a run that was stopped. Returns the number of jobs that were examined.
    fn cancel_units(&mut self, number: u32, how: CancelMode) -> usize {
        let run = self.runs.get(number);
        run.stop_unsent(&mut self.records);
        let sent: Vec<_> = run.sent_jobs().collect();
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
