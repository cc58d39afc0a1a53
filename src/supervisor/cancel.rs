//! Giving up on jobs.

use std::task::Waker;

use super::actor::actor_of;
use super::core::Core;
use super::depend::Breaking;
use super::error::JobErrorKind;
use super::record::{JobId, Stage};
use crate::link::{Ask, CANCEL, NOTICE};

impl Core {
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
                self.cancel_spawned(id, Breaking::Asked);
            }
            Stage::Queued => {
                self.unqueue(id.index);
                self.leave_unrun(id.index);
            }
            Stage::Waiting => {
                self.end_pause(id.index);
                self.leave_unrun(id.index);
            }
            Stage::Placed { link, position } => {
                if self.take_back(link as usize, position) {
                    self.leave_unrun(id.index);
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
        if self.reserved.is_some() && !self.queue.has_alone() {
            self.unreserve();
            // Others may have waited for that worker.
            self.call_monitor = true;
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
            self.be_watched();
        }
        waker
    }

    /// Cancels a job that has not begun: it answers `Cancelled`. One that runs gets the flag.
    pub(super) fn cancel(&mut self, id: JobId) {
        if self.cancel_spawned(id, Breaking::Asked) {
            return;
        }
        if let Some((link, position)) = self.cancel_unless_begun(id) {
            let _: Ask = self.lanes[link].ask(position, CANCEL);
            crate::sync::point!("cancel.asked");
        }
    }

    /// Cancels a job. If it runs its worker is ended for it, and the answer comes with the exit.
    pub(super) fn cancel_now(&mut self, id: JobId) {
        if self.cancel_spawned(id, Breaking::Now) {
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
                    crate::sync::point!("cancel.kept");
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
}
