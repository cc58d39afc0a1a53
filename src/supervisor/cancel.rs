//! Giving up on jobs.

use std::task::Waker;
use std::time::Instant;

use super::actor::actor_of;
use super::depend::CancelMode;
use super::error::JobErrorKind;
use super::record::{JobId, Stage};
use super::shared::Supervisor;
use super::state::EngineState;
use crate::link::{Ask, CANCEL, NOTICE};

impl EngineState {
    /// Nobody waits for the job any more. Unless it runs, it will not.
    ///
    /// The waker that was kept for it is for the caller to drop, outside the lock: it is foreign code.
    #[must_use]
    pub(super) fn abandon(&mut self, id: JobId) -> Option<Waker> {
        let record = self.records.get(id);
        let waker = record.waker.take();
        record.give_up();
        match record.stage {
            Stage::Answered | Stage::Free => self.records.remove(id.index),
            Stage::Spawned { .. } => {
                record.detached = true;
                self.cancel_spawned(id, CancelMode::Ask);
            }
            Stage::Queued => {
                self.unqueue(id.index);
                self.remove_unrun(id.index);
            }
            Stage::Waiting => {
                self.end_pause(id.index);
                self.remove_unrun(id.index);
            }
            Stage::Placed { link, position } => {
                if self.take_back(link as usize, position) {
                    self.remove_unrun(id.index);
                } else {
                    let lane = &mut self.lanes[link as usize];
                    // Its end frees what it holds, so the monitor wants to hear of it. If it is over
                    // already, the next drain finds nobody who asks.
                    let _: Ask = lane.ask(position, CANCEL | NOTICE);
                    let record = self.records.at(id.index);
                    record.detached = true;
                    record.requests |= CANCEL;
                    crate::sync::point!("cancel.abandoned");
                }
            }
        }
        self.call_if_drained();
        waker
    }

    /// A job leaves the queue without a lane; its record is about to say so.
    fn unqueue(&mut self, index: u32) {
        if let Some(actor) = actor_of(self.records.look(index).group) {
            return self.unqueue_call(actor, index);
        }
        self.queue.give_up(index, &self.records);
        if self.scheduler.reserved().is_some() && !self.queue.has_alone() {
            self.unreserve();
            // Others may have waited for that worker.
            self.monitor.call();
        }
        if self.queue.is_empty() {
            self.update_flags();
        }
    }

    /// Lets the job run without anybody who asks for its answer. The waker is for the caller to drop.
    #[must_use]
    pub(super) fn detach(&mut self, id: JobId) -> Option<Waker> {
        let record = self.records.get(id);
        let waker = record.waker.take();
        if record.stage == Stage::Answered {
            self.records.remove(id.index);
        } else {
            record.detached = true;
            self.monitor.watch_memory();
        }
        waker
    }

    /// Cancels a job that has not begun: it answers `Cancelled`. One that runs gets the flag.
    pub(super) fn cancel(&mut self, id: JobId) {
        if self.cancel_spawned(id, CancelMode::Ask) {
            return;
        }
        if let Some((link, position)) = self.cancel_unless_begun(id) {
            let _: Ask = self.lanes[link].ask(position, CANCEL);
            crate::sync::point!("cancel.asked");
        }
    }

    /// Cancels a job. If it runs its worker is ended for it, and the answer comes with the exit.
    pub(super) fn cancel_now(&mut self, id: JobId) {
        if self.cancel_spawned(id, CancelMode::Kill) {
            return;
        }
        if let Some((link, position)) = self.cancel_unless_begun(id) {
            self.end_worker_of(link, position, JobErrorKind::Cancelled);
            crate::sync::point!("cancel.condemned");
        }
    }

    /// Where the job runs, if it does.
    fn cancel_unless_begun(&mut self, id: JobId) -> Option<(usize, u64)> {
        let record = self.records.get(id);
        record.give_up();
        match record.stage {
            // What it has spawned is given up otherwise.
            Stage::Answered | Stage::Free | Stage::Spawned { .. } => return None,
            Stage::Queued => self.unqueue(id.index),
            Stage::Waiting => self.end_pause(id.index),
            Stage::Placed { link, position } => {
                let link = link as usize;
                if !self.take_back(link, position) {
                    // In case its worker is gone before it began.
                    self.records.at(id.index).requests |= CANCEL;
                    crate::sync::point!("cancel.retained");
                    return Some((link, position));
                }
            }
        }
        crate::sync::point!("cancel.taken");
        self.fail(id.index, JobErrorKind::Cancelled, None, Vec::new());
        crate::sync::point!("cancel.answered");
        self.call_if_drained();
        None
    }

    /// Cancels the jobs of a group, those that are still to come included. What runs is asked to end, and ended with its
    /// worker when the grace period is over.
    pub(super) fn cancel_group(&mut self, group: u32) {
        if !self.groups.cancel(group) {
            return;
        }
        let open = self.records.of_group(group);
        open.iter().for_each(|&id| self.cancel(id));
        // A period beyond all clocks never ends.
        if open.iter().any(|&id| self.records.is_open(id))
            && let Some(due) = Instant::now().checked_add(self.config.grace())
        {
            self.groups.set_due(group, due);
            self.monitor.call_before(due);
        }
    }

    /// Ends the workers that run a job of a group whose grace period is over.
    pub(super) fn end_groups(&mut self, now: Instant) {
        while let Some(group) = self.groups.take_due(now) {
            // Ends may be seen in between, but no record is gone: jobs of a scope are never detached, and only their scope takes them.
            for id in self.records.of_group(group) {
                self.cancel_now(id);
            }
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
        state.go_on();
        self.unlock(state);
        drop(waker);
    }

    /// From now on only the end of the job is asked for: what its value holds is given back as soon as it is there.
    pub(crate) fn forget_value(&self, id: JobId) {
        if self.is_copy() {
            return;
        }
        let mut state = self.lock();
        let record = state.records.get(id);
        record.unwanted = true;
        record.drop_value();
        self.unlock(state);
    }

    /// See [`EngineState::detach`].
    pub(crate) fn detach(&self, id: JobId) {
        let mut state = self.lock();
        let waker = state.detach(id);
        self.unlock(state);
        drop(waker);
    }

    /// See [`EngineState::cancel`].
    pub(crate) fn cancel(&self, id: JobId) {
        let mut state = self.lock();
        state.cancel(id);
        state.go_on();
        self.unlock(state);
    }

    /// See [`EngineState::cancel_now`].
    pub(crate) fn cancel_now(&self, id: JobId) {
        let mut state = self.lock();
        state.cancel_now(id);
        state.go_on();
        self.unlock(state);
    }

    /// A number for jobs that are cancelled together: by [`Supervisor::cancel_group`], and unless it `collects` also when one
    /// of them fails.
    pub(crate) fn new_group(&self, collects: bool) -> u32 {
        self.lock().groups.add(collects)
    }

    /// See [`EngineState::cancel_group`].
    pub(crate) fn cancel_group(&self, group: u32) {
        let mut state = self.lock();
        state.cancel_group(group);
        state.go_on();
        self.unlock(state);
    }

    /// Was it cancelled, or has one of its jobs failed?
    pub(crate) fn is_group_cancelled(&self, group: u32) -> bool {
        self.lock().groups.refuses(group)
    }

    /// All jobs of the group have ended, and no more will come.
    pub(crate) fn end_group(&self, group: u32) {
        self.lock().groups.remove(group);
    }
}
