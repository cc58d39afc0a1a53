//! Starting, calling and ending actors, as a program asks for it, and where their states are.

use std::task::{Context, Poll};

use super::{Actor, ActorId, ActorPlan, ActorStatus, Place, Role, actor_of};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{KernelInfo, actor};
use crate::supervisor::admission::account::InLine;
use crate::supervisor::options::JobOptions;
use crate::supervisor::record::JobId;
use crate::supervisor::shared::Supervisor;
use crate::supervisor::state::EngineState;

impl EngineState {
    /// A lane has one actor more, and its worker is not replaced before that has ended.
    pub(super) fn take_in(&mut self, lane: usize) {
        let hosted = self.lanes[lane].hosted.get_or_insert_default();
        hosted.count += 1;
        let worker = self.lanes.worker_of(lane);
        self.workers[worker].actors += 1;
        if self.workers[worker].actors == 1 {
            self.lanes
                .of_worker(worker)
                .for_each(|lane| self.lanes[lane].spare(true));
        }
    }

    /// One of them has ended.
    pub(super) fn let_out(&mut self, lane: usize) {
        let Some(hosted) = &mut self.lanes[lane].hosted else {
            return;
        };
        hosted.count -= 1;
        if hosted.count == 0 {
            self.lanes[lane].hosted = None;
        }
        let worker = self.lanes.worker_of(lane);
        self.workers[worker].actors -= 1;
        if self.workers[worker].actors == 0 {
            self.lanes
                .of_worker(worker)
                .for_each(|lane| self.lanes[lane].spare(false));
        }
    }

    pub(super) fn actor(&mut self, index: u32) -> &mut Actor {
        &mut self.actors.table[index as usize]
    }

    pub(super) fn find_actor(&mut self, id: ActorId) -> Option<&mut Actor> {
        let actor = self.actors.table.get_mut(id.index as usize)?;
        let known = actor.generation == id.generation && !matches!(actor.place, Place::Free);
        known.then_some(actor)
    }

    /// A number for the actor that this job starts, which no other actor has, and no job.
    pub(in crate::supervisor) fn starts(&mut self, record: u32) -> Option<u64> {
        let (index, role) = self.role(record)?;
        let generation = self.actor(index).generation;
        (role == Role::Start).then_some(u64::MAX - actor::key(index, generation))
    }

    /// The actor of a job, and what the job does for it.
    pub(super) fn role(&mut self, record: u32) -> Option<(u32, Role)> {
        let record = self.records.look(record);
        let (index, kernel) = (actor_of(record.group)?, record.kernel);
        let id = self.kernels.get(kernel).id?;
        let actor = self.actor(index);
        let checkpoints = actor.checkpoints.as_ref();
        let role = if id == actor.start.id
            || checkpoints.is_some_and(|checkpoints| id == checkpoints.plan.restore.id)
        {
            Role::Start
        } else if id == actor.end.id {
            Role::End
        } else if checkpoints.is_some_and(|checkpoints| kernel == checkpoints.save) {
            Role::Save
        } else {
            Role::Call
        };
        Some((index, role))
    }

    pub(super) fn status_of_actor(&mut self, id: ActorId) -> Option<ActorStatus> {
        self.drain_busy();
        self.refill();
        let workers = self.workers.len();
        let actor = self.find_actor(id)?;
        let checkpoints = actor.checkpoints.as_ref();
        Some(ActorStatus {
            worker: match actor.place {
                Place::Here { lane } => Some((lane % workers) as u32),
                _ => None,
            },
            lost: match &actor.place {
                Place::Lost(why) => Some(why.clone()),
                _ => None,
            },
            waiting: actor.calls.len(),
            restarts: actor.restarts,
            forgotten: actor.forgotten,
            checkpoints: checkpoints.map_or(0, |checkpoints| checkpoints.made),
            failed_checkpoints: checkpoints.map_or(0, |checkpoints| checkpoints.failed),
        })
    }
}

impl Supervisor {
    /// See [`EngineState::new_actor`].
    pub(crate) fn new_actor(&self, plan: ActorPlan) -> ActorId {
        let mut state = self.lock();
        let id = state.new_actor(plan);
        self.unlock(state);
        id
    }

    /// See [`EngineState::call_actor`].
    #[inline]
    pub(crate) fn call_actor(
        &self,
        actor: ActorId,
        kernel: &KernelInfo,
        call: &mut ArgWriter,
        options: Option<&JobOptions>,
    ) -> JobId {
        let mut state = self.lock();
        let id = if state.admission.is_none() {
            state = self.spilled(state, call);
            state.call_actor(actor, kernel, call, options)
        } else {
            let submit = |state: &mut EngineState, call: &mut _| {
                state.call_actor(actor, kernel, call, options)
            };
            let (admitted, id) = self.submit_admitted(state, kernel, call, submit);
            state = admitted;
            id
        };
        self.unlock(state);
        id
    }

    /// The same in a future: when the call is let in, so that calls run in the order in which they were.
    pub(crate) fn poll_call_actor(
        &self,
        actor: ActorId,
        kernel: &KernelInfo,
        call: &mut ArgWriter,
        options: Option<&JobOptions>,
        line: &mut InLine,
        context: &Context<'_>,
    ) -> Poll<JobId> {
        let submit =
            |state: &mut EngineState, call: &mut _| state.call_actor(actor, kernel, call, options);
        self.poll_submit(kernel, call, line, context, submit)
    }

    /// See [`EngineState::end_actor`].
    pub(crate) fn end_actor(&self, actor: ActorId) {
        if self.is_copy() {
            return;
        }
        let mut state = self.lock();
        state.end_actor(actor);
        self.unlock(state);
    }

    /// How an actor fares; `None` if it has ended.
    pub(crate) fn status_of_actor(&self, actor: ActorId) -> Option<ActorStatus> {
        let mut state = self.lock();
        let status = state.status_of_actor(actor);
        self.unlock(state);
        status
    }
}
