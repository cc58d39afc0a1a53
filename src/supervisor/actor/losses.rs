//! What has ended, was taken back, or is lost.

use smallvec::SmallVec;

use super::{Checkpoint, Place, Role, actor_of};
use crate::kernel::Receiving;
use crate::kernel::wire::{ReplyReader, WordReader};
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::lifecycle::Closing;
use crate::supervisor::policy::costs_a_worker;
use crate::supervisor::record::Outcome;
use crate::supervisor::state::EngineState;

impl EngineState {
    /// A job of an actor has ended that nobody asks for.
    #[cold]
    pub(in crate::supervisor) fn actor_job_ended(&mut self, record: u32, outcome: Outcome) {
        let role = self.role(record);
        let array = self.records.at(record).arrays.pop();
        let words = match (&outcome, self.records.look(record)) {
            (Outcome::Inline { len }, record) => record.payload[..*len as usize].into(),
            (Outcome::Long(words), _) => words.as_slice().into(),
            (Outcome::Bare | Outcome::Failed(_), _) => SmallVec::new(),
        };
        self.discharge(record);
        self.records.remove(record);
        let Some((index, role)) = role else { return };
        match (role, outcome) {
            (Role::Call, _) => {}
            (Role::Start, Outcome::Failed(error)) => {
                self.start_of_actor_failed(index, error.kind())
            }
            (Role::Start, _) => {
                let actor = self.actor(index);
                actor.dead_starts = 0;
                actor.full_starts = 0;
                if let Place::Starting { lane } = actor.place {
                    actor.place = Place::Here { lane };
                    crate::sync::point!("actor.here");
                    self.list(index);
                    self.flag(lane);
                }
            }
            (Role::Save, outcome) => {
                let actor = self.actor(index);
                let posted = actor.posted;
                let Some(checkpoints) = &mut actor.checkpoints else {
                    return;
                };
                let holds = checkpoints.under_way.pop_front().map(|made| made.holds);
                // It becomes an argument, which the next worker believes: another one, perhaps.
                let fits = checkpoints.plan.fits;
                let array = array.filter(|array| {
                    let words = WordReader::new(&words);
                    let arrays = SmallVec::from([array.share()]).into_iter();
                    fits(&mut Receiving(ReplyReader { words, arrays }))
                });
                match (outcome, array, holds) {
                    (Outcome::Inline { .. } | Outcome::Long(_), Some(array), Some(holds)) => {
                        checkpoints.last = Some(Checkpoint { array, words });
                        checkpoints.holds = holds;
                        checkpoints.made += 1;
                        crate::sync::point!("save.taken");
                    }
                    // The one before still holds, and the next is made after the next call. That may have come already.
                    (.., holds) => {
                        checkpoints.failed += 1;
                        checkpoints.failed_at = holds.unwrap_or(posted);
                        if holds.is_some_and(|holds| holds < posted) {
                            self.list(index);
                        }
                    }
                }
            }
            (Role::End, _) => {
                if let Place::Ending { lane } = self.actor(index).place {
                    self.let_out(lane);
                    self.remove_actor(index);
                }
            }
        }
        // What waited for this can be placed.
        self.monitor.call();
    }

    /// The initial kernel gave no state.
    pub(super) fn start_of_actor_failed(&mut self, index: u32, why: &JobErrorKind) {
        if let Some(lane) = self.actor(index).lane() {
            self.let_out(lane);
        }
        let most = self.config.quarantine_after();
        let actor = self.actor(index);
        // Whose worker died may have done it, or not. A state that can be had again may cost as many as a job.
        let dead = costs_a_worker(why) && actor.checkpoints.is_some();
        actor.dead_starts += u32::from(dead);
        // It has nothing to do with what its worker died of.
        let innocent = matches!(why, JobErrorKind::LostWith { .. });
        if innocent || dead && actor.dead_starts < most {
            actor.is_nowhere();
            return self.list(index);
        }
        if self.starts_later(index, why) {
            self.actor(index).place = Place::Nowhere;
            return;
        }
        self.lose(index, lost(why.clone(), 0, false));
    }

    /// The actor is gone for good: whatever waits for it is answered.
    pub(super) fn lose(&mut self, index: u32, why: JobErrorKind) {
        self.end_pause_of_actor(index);
        let actor = &mut self.actors.table[index as usize];
        actor.place = Place::Lost(why.clone());
        actor.given.clear();
        actor.restored = None;
        actor.words = Vec::new();
        if let Some(checkpoints) = &mut actor.checkpoints {
            checkpoints.last = None;
        }
        while let Some(record) = self.actors.table[index as usize].calls.pop(&self.records) {
            self.actors.kept -= 1;
            self.fail(record, why.clone(), None, Vec::new());
        }
        crate::sync::point!("actor.lost");
        if self.actor(index).ending {
            self.remove_actor(index);
        }
        self.call_if_drained();
    }

    /// The engine ends, and takes no calls: what has no state, and nothing to do with one, needs none.
    pub(in crate::supervisor) fn lose_idle_actors(&mut self) {
        for index in 0..self.actors.table.len() as u32 {
            let actor = self.actor(index);
            if matches!(actor.place, Place::Nowhere) && actor.calls.is_empty() {
                self.unlist_homeless(index);
                self.lose(index, JobErrorKind::ShutDown);
            }
        }
    }

    /// A job was taken out of its slot, at this position of its lane, before it began.
    #[inline]
    pub(in crate::supervisor) fn never_begun(&mut self, record: u32, position: u64) {
        if actor_of(self.records.look(record).group).is_some() {
            self.call_never_begun(record, position);
        }
    }

    #[cold]
    pub(super) fn call_never_begun(&mut self, record: u32, position: u64) {
        match self.role(record) {
            Some((index, Role::Call)) => {
                let actor = self.actor(index);
                actor.posted -= 1;
                // A checkpoint behind it holds one call less.
                let under_way = actor
                    .checkpoints
                    .iter_mut()
                    .flat_map(|all| &mut all.under_way);
                for made in under_way.filter(|made| made.position > position) {
                    made.holds -= 1;
                }
            }
            Some((index, Role::Save)) => {
                if let Some(checkpoints) = &mut self.actor(index).checkpoints {
                    checkpoints.under_way.pop_back();
                }
            }
            Some((_, Role::Start | Role::End)) | None => {}
        }
    }

    /// A job that was taken back goes to the front of its actor's own line. Newest first, as ever.
    #[cold]
    pub(in crate::supervisor) fn requeue_call(&mut self, record: u32) {
        let Some((index, role)) = self.role(record) else {
            return;
        };
        if role == Role::Call {
            let actor = &mut self.actors.table[index as usize];
            actor.calls.push_front(record, self.records.look(record));
            self.actors.kept += 1;
            return self.list(index);
        }
        // The engine's own are made again.
        self.leave_unrun(record);
        let actor = self.actor(index);
        match (role, actor.lane()) {
            (Role::Start, Some(lane)) => {
                actor.is_nowhere();
                self.let_out(lane);
            }
            (Role::End, Some(lane)) => actor.place = Place::Here { lane },
            _ => {}
        }
        self.list(index);
    }

    /// A call that no lane has is given up; its record is about to say so.
    pub(in crate::supervisor) fn unqueue_call(&mut self, index: u32, record: u32) {
        let actor = &mut self.actors.table[index as usize];
        actor.calls.give_up(record, &self.records);
        self.actors.kept -= 1;
    }

    /// All actors are lost for this reason.
    pub(in crate::supervisor) fn lose_all_actors(&mut self, why: &JobErrorKind) {
        for index in std::mem::take(&mut self.actors.homeless) {
            self.actor(index).listed = false;
            self.actors.wanting -= 1;
        }
        for index in 0..self.actors.table.len() as u32 {
            match self.actor(index).place {
                // What a lane has is answered when its worker is gone.
                Place::Nowhere => self.lose(index, why.clone()),
                Place::Here { .. } | Place::Starting { .. } => self.fail_kept_calls(index, why),
                Place::Ending { .. } | Place::Lost(_) | Place::Free => {}
            }
        }
    }

    pub(super) fn fail_kept_calls(&mut self, index: u32, why: &JobErrorKind) {
        while let Some(record) = self.actors.table[index as usize].calls.pop(&self.records) {
            self.actors.kept -= 1;
            self.fail(record, why.clone(), None, Vec::new());
        }
    }

    /// After the exit of a worker, when what it had not begun was put back: its actors start again somewhere, or are
    /// lost. `ran`: what may have begun of theirs, and why each of these has no value; `fault`: why the worker is gone,
    /// for those that had nothing to do with it.
    pub(in crate::supervisor) fn lose_states(
        &mut self,
        worker: usize,
        ran: Vec<(u32, JobErrorKind)>,
        fault: &JobErrorKind,
    ) {
        let mut calls = Vec::new();
        for (record, why) in ran {
            match self.role(record) {
                Some((index, Role::Call)) => calls.push((index, record, why)),
                // Its end says what follows.
                _ => self.fail_running(worker, record, why),
            }
        }
        for lane in self.lanes.of_worker(worker) {
            let hosted = self.lanes[lane].hosted.as_mut();
            let turns = hosted.map(|hosted| std::mem::take(&mut hosted.turns));
            for index in turns.unwrap_or_default() {
                self.actor(index).listed = false;
                self.actors.wanting -= 1;
            }
        }
        for index in 0..self.actors.table.len() as u32 {
            let workers = self.workers.len();
            match self.actor(index).place {
                Place::Here { lane } if lane % workers == worker => {
                    let own: Vec<_> = calls.extract_if(.., |(of, _, _)| *of == index).collect();
                    self.state_is_gone(index, lane, own, fault);
                }
                // Dropped with its process.
                Place::Ending { lane } if lane % workers == worker => {
                    self.let_out(lane);
                    self.remove_actor(index);
                }
                _ => {}
            }
        }
        // Those of an actor that was ending, the end of which may have begun as well.
        for (_, record, why) in calls {
            self.fail_running(worker, record, lost(why, 0, false));
        }
    }

    pub(super) fn state_is_gone(
        &mut self,
        index: u32,
        lane: usize,
        calls: Vec<(u32, u32, JobErrorKind)>,
        fault: &JobErrorKind,
    ) {
        self.let_out(lane);
        let worker = self.lanes.worker_of(lane);
        let cause = calls.first().map_or(fault, |(_, _, why)| why).clone();
        // When workers stop, their states go with them.
        let closing = self.lifecycle.is_stopping()
            || self.lifecycle.closes_now()
            || self.lifecycle.broken().is_some();
        // Nobody can call it any more.
        let idle = self.lifecycle.closing() == Closing::Drain && self.actor(index).calls.is_empty();
        let closing = closing || idle;
        let actor = self.actor(index);
        let held = actor
            .checkpoints
            .as_ref()
            .map(|checkpoints| checkpoints.holds);
        let restarts = held.is_some() && !closing;
        let answered = actor.posted - calls.len() as u64;
        let forgotten = answered - held.unwrap_or(0).min(answered);
        actor.forgotten += forgotten;
        let why = lost(cause, forgotten, restarts);
        for (_, record, _) in calls {
            self.fail_running(worker, record, why.clone());
        }
        let actor = self.actor(index);
        if !restarts {
            let why = if closing { JobErrorKind::ShutDown } else { why };
            return self.lose(index, why);
        }
        actor.is_nowhere();
        actor.restarts += 1;
        crate::sync::point!("actor.gone");
        if actor.ending && actor.calls.is_empty() {
            return self.remove_actor(index);
        }
        self.list(index);
    }
}

/// What calls answer that are lost with their actor.
fn lost(cause: JobErrorKind, forgotten: u64, restarted: bool) -> JobErrorKind {
    if matches!(cause, JobErrorKind::ShutDown | JobErrorKind::NoWorkers(_)) {
        return cause;
    }
    JobErrorKind::ActorLost {
        cause: Box::new(cause),
        forgotten,
        restarted,
    }
}
