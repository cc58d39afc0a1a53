//! Cancels jobs, and handles dropped handles.

use std::task::Waker;
use std::time::Instant;

use super::depend::CancelMode;
use super::error::JobErrorKind;
use super::owner::{Group, Owner};
use super::record::{Handle, JobId, Stage};
use super::shared::Supervisor;
use super::state::EngineState;
use super::timers::Timer;
use crate::link::{Ask, CANCEL, NOTICE};

impl EngineState {
    /// Abandons a job whose handle was dropped. If the job has not begun, it never will.
    ///
    /// Returns the waker that was stored for the job. The caller drops it outside the lock: it is foreign code.
    #[must_use]
    pub(super) fn abandon(&mut self, id: JobId) -> Option<Waker> {
        let record = self.records.get(id);
        let waker = record.waker.take();
        if record.leave_to_consumers(Handle::Dropped) {
            return waker;
        }
        record.give_up();
        match record.stage {
            Stage::Answered | Stage::Free => self.records.remove(id.index),
            #[cfg(feature = "sandbox")]
            Stage::Copying => record.owner = record.owner.without_handle(),
            Stage::Spawned { .. } => {
                record.owner = record.owner.without_handle();
                self.cancel_spawned(id, CancelMode::Ask);
            }
            Stage::Queued => {
                self.unqueue(id.index);
                self.remove_unrun(id.index);
            }
            Stage::Waiting => {
                self.timers.end_pause(self.records.at(id.index), id.index);
                self.remove_unrun(id.index);
            }
            Stage::Placed { lane, position } => {
                if self.take_back(lane as usize, position) {
                    self.remove_unrun(id.index);
                } else {
                    let lane = &mut self.lanes[lane as usize];
                    // The end of the job frees its memory, so the monitor has to be notified. If the job has ended
                    // already, the next drain finds it without a handle.
                    let _: Ask = lane.ask(position, CANCEL | NOTICE);
                    let record = self.records.at(id.index);
                    record.owner = record.owner.without_handle();
                    record.requests |= CANCEL;
                    crate::sync::point!("cancel.abandoned");
                }
            }
        }
        self.call_if_drained();
        waker
    }

    /// Removes an unbegun job whose handle was dropped, without an answer.
    pub(super) fn remove_unrun(&mut self, index: u32) {
        debug_assert!(self.records.look(index).stage != Stage::Answered);
        self.count_failed(index, &JobErrorKind::Cancelled, None);
        self.discharge(index);
        self.records.remove(index);
    }

    /// Removes a job from the queue without placing it. The caller changes its stage.
    fn unqueue(&mut self, index: u32) {
        self.queue.give_up(index, &self.records);
        if self.lanes.reserved().is_some() && !self.queue.has_exclusive() {
            self.lanes.unreserve();
            // Other jobs may have waited for the worker that was reserved for an exclusive job.
            self.monitor.call();
        }
        if self.queue.unbound() == 0 {
            self.lanes.update_flags(&self.queue, &self.config);
        }
    }

    /// Cancels a job that has not begun: it is answered with `Cancelled`. A job that runs gets the request `CANCEL`.
    pub(super) fn cancel(&mut self, id: JobId) {
        if self.cancel_spawned(id, CancelMode::Ask) {
            return;
        }
        if let Some((lane, position)) = self.cancel_unless_begun(id) {
            let _: Ask = self.lanes[lane].ask(position, CANCEL);
            crate::sync::point!("cancel.asked");
        }
    }

    /// Cancels a job. If the job runs, kills its worker: the job is answered after the worker's exit.
    pub(super) fn kill(&mut self, id: JobId) {
        if self.cancel_spawned(id, CancelMode::Kill) {
            return;
        }
        if let Some((lane, position)) = self.cancel_unless_begun(id) {
            self.end_worker_of(lane, position, JobErrorKind::Cancelled);
            crate::sync::point!("cancel.condemned");
        }
    }

    /// Cancels a job unless it has begun. Returns the lane and the position if the job runs.
    fn cancel_unless_begun(&mut self, id: JobId) -> Option<(usize, u64)> {
        let record = self.records.get(id);
        record.give_up();
        match record.stage {
            // Jobs that it has spawned are cancelled separately.
            Stage::Answered | Stage::Free | Stage::Spawned { .. } => return None,
            #[cfg(feature = "sandbox")]
            Stage::Copying => return None,
            Stage::Queued => self.unqueue(id.index),
            Stage::Waiting => self.timers.end_pause(self.records.at(id.index), id.index),
            Stage::Placed { lane, position } => {
                let lane = lane as usize;
                if !self.take_back(lane, position) {
                    // Recovery reads this request if the worker dies and the job had not begun.
                    self.records.at(id.index).requests |= CANCEL;
                    crate::sync::point!("cancel.retained");
                    return Some((lane, position));
                }
            }
        }
        crate::sync::point!("cancel.taken");
        self.fail(id.index, JobErrorKind::Cancelled, None, Vec::new());
        crate::sync::point!("cancel.answered");
        self.call_if_drained();
        None
    }

    /// Cancels the jobs of a group, including jobs that will be submitted later. Jobs that run get the request
    /// `CANCEL`; their workers are killed after the grace period. `culprit`: the job whose failure is the reason.
    pub(super) fn cancel_group(&mut self, group: Group, culprit: Option<u64>) {
        if !self.groups.cancel(group, culprit) {
            return;
        }
        // A thread of the scope may wait for admission.
        self.waiters.notify_admission();
        let open = self.records.open_of(|owner| owner.is_in(group));
        open.iter().for_each(|&id| self.cancel(id));
        // A grace period beyond the range of the clock never ends.
        if open.iter().any(|&id| self.records.is_open(id))
            && let Some(due) = Instant::now().checked_add(self.config.grace)
        {
            let entry = self.timers.add(due, Timer::Scope(group));
            self.groups.set_end(group, entry);
            self.monitor.call_for_end(due);
        }
    }
}

impl Supervisor {
    /// See [`EngineState::abandon`].
    pub(crate) fn abandon(&self, id: JobId) {
        if self.is_copy() {
            return;
        }
        let mut state = self.lock();
        let waker = state.abandon(id);
        state.settle_dependents();
        self.unlock(state);
        drop(waker);
    }

    /// Marks the value of a scope's job as unwanted: the scope will only wait for the end of the job, and the memory of
    /// the value is freed as soon as the value arrives.
    pub(crate) fn forget_value(&self, id: JobId) {
        if self.is_copy() {
            return;
        }
        let mut state = self.lock();
        let record = state.records.get(id);
        if let Owner::Scope { is_wanted, .. } = &mut record.owner {
            *is_wanted = false;
        }
        record.drop_value();
        self.unlock(state);
    }

    /// Detaches a job: it runs although it has no handle.
    pub(crate) fn detach(&self, id: JobId) {
        let mut state = self.lock();
        let record = state.records.get(id);
        let waker = record.waker.take();
        if record.leave_to_consumers(Handle::Detached) {
            // The last of them frees the record.
        } else if record.stage == Stage::Answered {
            state.records.remove(id.index);
        } else {
            record.owner = record.owner.without_handle();
            state.monitor.watch_memory();
        }
        self.unlock(state);
        drop(waker);
    }

    /// See [`EngineState::cancel`].
    pub(crate) fn cancel(&self, id: JobId) {
        let mut state = self.lock();
        state.cancel(id);
        state.settle_dependents();
        self.unlock(state);
    }

    /// See [`EngineState::kill`]. The answer of the job may have been taken.
    pub(crate) fn kill(&self, id: JobId) {
        let mut state = self.lock();
        if state.records.is_open(id) {
            state.kill(id);
            state.settle_dependents();
        }
        self.unlock(state);
    }

    /// Returns a number for jobs that are cancelled together: by [`Supervisor::cancel_group`], and when one of them
    /// fails unless the group `collects`.
    pub(crate) fn new_group(&self, collects: bool) -> Group {
        self.lock().groups.add(collects)
    }

    /// See [`EngineState::cancel_group`].
    pub(crate) fn cancel_group(&self, group: Group) {
        let mut state = self.lock();
        state.cancel_group(group, None);
        state.settle_dependents();
        self.unlock(state);
    }

    /// Returns true if the group was cancelled or one of its jobs has failed.
    pub(crate) fn is_group_cancelled(&self, group: Group) -> bool {
        self.lock().groups.is_cancelled(group)
    }

    /// Returns the number of the job whose failure cancelled the group.
    pub(crate) fn culprit_of(&self, group: Group) -> Option<u64> {
        self.lock().groups.culprit(group)
    }

    /// Removes a group whose jobs have all ended, and that will get no more jobs.
    pub(crate) fn end_group(&self, group: Group) {
        let mut state = self.lock();
        let entry = state.groups.remove(group);
        state.timers.remove_end(entry);
    }
}
