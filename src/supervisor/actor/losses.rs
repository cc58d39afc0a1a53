//! Handles ends of an actor's jobs, retracted jobs, and the loss of states.

use smallvec::SmallVec;

use super::state::{ActorStage, Checkpoint};
use crate::kernel::Receiving;
use crate::kernel::wire::{ReplyReader, WordReader};
use crate::supervisor::error::{FailedDependency, JobErrorKind, WorkerExit};
use crate::supervisor::lifecycle::Closing;
use crate::supervisor::owner::{Owner, Role};
use crate::supervisor::policy::ends_worker;
use crate::supervisor::queue::Constraint;
use crate::supervisor::record::Outcome;
use crate::supervisor::state::EngineState;

impl EngineState {
    /// Handles the end of a job that the engine has posted for an actor: a start, a save or an end.
    #[cold]
    pub(in crate::supervisor) fn actor_job_ended(
        &mut self,
        record: u32,
        index: u32,
        role: Role,
        outcome: Outcome,
    ) {
        self.discharge(record);
        let ended = self.records.at(record);
        ended.outcome = Some(outcome);
        let words = SmallVec::from_slice(ended.value());
        let array = ended.arrays.pop();
        let outcome = ended.outcome.take();
        self.records.remove(record);
        match (role, outcome) {
            (Role::Call { .. }, _) => {}
            (Role::Start, Some(Outcome::Failed(error))) => {
                self.start_of_actor_failed(index, error.kind())
            }
            (Role::Start, _) => {
                let actor = self.actors.get(index);
                actor.dead_starts = 0;
                actor.full_starts = 0;
                if let ActorStage::Starting { lane } = actor.stage {
                    actor.stage = ActorStage::Hosted { lane };
                    crate::sync::point!("actor.ready");
                    self.queue_actor(index);
                    self.lanes.flag(lane, &self.queue, &self.config);
                }
            }
            (Role::Save, outcome) => {
                let actor = self.actors.get(index);
                let posted = actor.posted;
                let Some(checkpoints) = &mut actor.checkpoints else {
                    return;
                };
                let call_count = checkpoints
                    .under_way
                    .pop_front()
                    .map(|made| made.call_count);
                // The array becomes an argument that another worker trusts, so its shape is checked now.
                let fits = checkpoints.plan.fits;
                let array = array.filter(|array| {
                    let words = WordReader::new(&words);
                    let arrays = SmallVec::from([array.share()]).into_iter();
                    fits(&mut Receiving(ReplyReader { words, arrays }))
                });
                match (outcome, array, call_count) {
                    (
                        Some(Outcome::Inline { .. } | Outcome::Long(_)),
                        Some(array),
                        Some(call_count),
                    ) => {
                        checkpoints.last = Some(Checkpoint { array, words });
                        checkpoints.call_count = call_count;
                        checkpoints.made += 1;
                        crate::sync::point!("save.taken");
                    }
                    // The previous checkpoint stays valid. The next save follows the next call, which may have been
                    // posted already.
                    (.., call_count) => {
                        checkpoints.failed += 1;
                        checkpoints.failed_at = call_count.unwrap_or(posted);
                        if call_count.is_some_and(|call_count| call_count < posted) {
                            self.queue_actor(index);
                        }
                    }
                }
            }
            (Role::End, _) => {
                if let ActorStage::Ending { lane } = self.actors.get(index).stage {
                    self.lanes.unhost(lane);
                    self.remove_actor(index);
                }
            }
        }
        // Jobs that waited for this end can be placed now.
        self.monitor.call();
    }

    /// Handles a start that returned no state.
    pub(super) fn start_of_actor_failed(&mut self, index: u32, why: &JobErrorKind) {
        if let Some(lane) = self.actors.get(index).lane() {
            self.lanes.unhost(lane);
        }
        let most = self.config.quarantine_after;
        let actor = self.actors.get(index);
        // An actor with checkpoints may end as many workers as a job with retries, so starts that ended their worker
        // are counted.
        let dead = ends_worker(why) && actor.checkpoints.is_some();
        actor.dead_starts += u32::from(dead);
        // Another job killed the worker.
        let innocent = matches!(why, JobErrorKind::Lost(WorkerExit::OtherJob { .. }));
        if innocent || dead && actor.dead_starts < most {
            actor.unplace();
            return self.queue_actor(index);
        }
        if self.pause_restart(index, why) {
            self.actors.get(index).stage = ActorStage::Unplaced;
            return;
        }
        self.lose_actor(index, lost(why.clone(), 0, false));
    }

    /// Marks an actor as lost, and answers all its waiting calls.
    pub(super) fn lose_actor(&mut self, index: u32, why: JobErrorKind) {
        self.actors.end_pause(index, &mut self.timers);
        let actor = self.actors.get(index);
        actor.stage = ActorStage::Lost(why.clone());
        actor.forget_start();
        if let Some(checkpoints) = &mut actor.checkpoints {
            checkpoints.last = None;
        }
        self.fail_calls(index, &why);
        crate::sync::point!("actor.lost");
        if self.actors.get(index).is_ending {
            self.remove_actor(index);
        }
        self.call_if_drained();
    }

    /// Marks actors without a state and without waiting calls as lost: a closing engine accepts no more calls.
    pub(in crate::supervisor) fn lose_idle_actors(&mut self) {
        for index in self.actors.indices() {
            let is_idle = self.queue.calls_of(index) == 0;
            if is_idle && matches!(self.actors.get(index).stage, ActorStage::Unplaced) {
                self.queue.unqueue_actor(index);
                self.lose_actor(index, JobErrorKind::ShutDown);
            }
        }
    }

    /// Puts a retracted call at the front of its actor's queue. The caller passes the newest call first.
    #[cold]
    pub(in crate::supervisor) fn requeue_call(&mut self, record: u32) {
        let Owner::Actor { actor: index, role } = self.records.look(record).owner else {
            return;
        };
        if matches!(role, Role::Call { .. }) {
            self.queue.push_front(record, self.records.look(record));
            return self.queue_actor(index);
        }
        // The engine posts starts, saves and ends again when they are due.
        self.remove_unrun(record);
        let actor = self.actors.get(index);
        match (role, actor.lane()) {
            (Role::Start, Some(lane)) => {
                actor.unplace();
                self.lanes.unhost(lane);
            }
            (Role::End, Some(lane)) => actor.stage = ActorStage::Hosted { lane },
            _ => {}
        }
        self.queue_actor(index);
    }

    /// Marks all actors as lost for this reason.
    pub(in crate::supervisor) fn lose_all_actors(&mut self, why: &JobErrorKind) {
        self.queue.unqueue_actors(Constraint::Host);
        for index in self.actors.indices() {
            match self.actors.get(index).stage {
                // Jobs that were posted to a lane are answered when its worker has exited.
                ActorStage::Unplaced => self.lose_actor(index, why.clone()),
                ActorStage::Hosted { .. } | ActorStage::Starting { .. } => {
                    self.fail_calls(index, why);
                }
                ActorStage::Ending { .. } | ActorStage::Lost(_) | ActorStage::Free => {}
            }
        }
    }

    fn fail_calls(&mut self, index: u32, why: &JobErrorKind) {
        while let Some(record) = self.queue.next_call(index, &self.records) {
            self.fail(record, why.clone(), None, Vec::new());
        }
    }

    /// Restarts the actors that an exited worker hosted, or marks them as lost. Called after its unbegun jobs were
    /// requeued.
    ///
    /// `ran` contains the actor jobs that may have begun, with the reason why each has no value. `fault` is why the
    /// worker exited; it applies to actors that have no job in `ran`.
    pub(in crate::supervisor) fn lose_actor_states(
        &mut self,
        worker: usize,
        ran: Vec<(u32, JobErrorKind)>,
        fault: &JobErrorKind,
    ) {
        let mut calls = Vec::new();
        for (record, why) in ran {
            match self.records.look(record).owner {
                Owner::Actor {
                    actor,
                    role: Role::Call { .. },
                } => calls.push((actor, record, why)),
                // The actor is handled when the end of this job is answered.
                _ => self.fail_running(worker, record, why),
            }
        }
        for lane in self.lanes.of_worker(worker) {
            self.queue.unqueue_actors(Constraint::Lane(lane));
        }
        for index in self.actors.indices() {
            let workers = self.workers.len();
            match self.actors.get(index).stage {
                ActorStage::Hosted { lane } if lane % workers == worker => {
                    let own: Vec<_> = calls.extract_if(.., |(of, _, _)| *of == index).collect();
                    self.restart_or_lose_actor(index, lane, own, fault);
                }
                // The state was lost with its process, so there is nothing left to end.
                ActorStage::Ending { lane } if lane % workers == worker => {
                    self.lanes.unhost(lane);
                    self.remove_actor(index);
                }
                _ => {}
            }
        }
        // These calls are of actors that were ending. They were posted before the end, so the end may have begun as
        // well.
        for (_, record, why) in calls {
            self.fail_running(worker, record, lost(why, 0, false));
        }
    }

    pub(super) fn restart_or_lose_actor(
        &mut self,
        index: u32,
        lane: usize,
        calls: Vec<(u32, u32, JobErrorKind)>,
        fault: &JobErrorKind,
    ) {
        self.lanes.unhost(lane);
        let worker = self.lanes.worker_of(lane);
        let cause = calls.first().map_or(fault, |(_, _, why)| why).clone();
        // A closing engine does not restart actors.
        let closing = self.lifecycle.is_stopping()
            || self.lifecycle.closes_now()
            || self.lifecycle.broken().is_some();
        // A draining engine accepts no calls, so an actor without waiting calls is not needed any more.
        let has_calls = self.queue.calls_of(index) > 0;
        let closing = closing || self.lifecycle.closing() == Closing::Drain && !has_calls;
        let actor = self.actors.get(index);
        let held = actor
            .checkpoints
            .as_ref()
            .map(|checkpoints| checkpoints.call_count);
        let restarts = held.is_some() && !closing;
        let answered = actor.posted - calls.len() as u64;
        let forgotten = answered - held.unwrap_or(0).min(answered);
        actor.forgotten += forgotten;
        let why = lost(cause, forgotten, restarts);
        for (_, record, _) in calls {
            self.fail_running(worker, record, why.clone());
        }
        let actor = self.actors.get(index);
        if !restarts {
            let why = if closing { JobErrorKind::ShutDown } else { why };
            return self.lose_actor(index, why);
        }
        actor.unplace();
        actor.restarts += 1;
        crate::sync::point!("actor.gone");
        if actor.is_ending && self.queue.calls_of(index) == 0 {
            return self.remove_actor(index);
        }
        self.queue_actor(index);
    }
}

/// Returns the error of calls that are lost with the state of their actor.
fn lost(cause: JobErrorKind, forgotten: u64, restarted: bool) -> JobErrorKind {
    if matches!(cause, JobErrorKind::ShutDown | JobErrorKind::NoWorkers(_)) {
        return cause;
    }
    JobErrorKind::Dependency(FailedDependency::Actor {
        cause: Box::new(cause),
        forgotten,
        restarted,
    })
}
