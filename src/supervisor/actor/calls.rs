//! Creates actors, calls them and ends them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::state::{Actor, ActorId, ActorPlan, ActorStage, ActorStatus, Checkpoints, LOOK_EVERY};
use crate::kernel::KernelInfo;
use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::fence_after_queueing;
use crate::supervisor::error::{JobErrorKind, Rejection};
use crate::supervisor::options::JobOptions;
use crate::supervisor::owner::{Owner, Role};
use crate::supervisor::record::JobId;
use crate::supervisor::shared::Supervisor;
use crate::supervisor::state::EngineState;
use crate::supervisor::submit::{refuse, too_late};
use crate::sync::FIRST_COUNT;

impl EngineState {
    /// Submits a call to its actor. Posts it, queues it with the actor, or answers it with a refusal.
    pub(in crate::supervisor) fn call_actor(
        &mut self,
        id: ActorId,
        info: &KernelInfo,
        call: &mut ArgWriter,
        options: Option<&JobOptions>,
    ) -> JobId {
        let kernel = self.kernels.index(info);
        let owner = match self.actors.find(id) {
            Some(actor) => {
                // The reply may contain memory that the actor's state uses, so the blocks of the start count as
                // arguments.
                let given = actor.start_blocks.iter().cloned();
                call.leases.extend(given.map(Lease::Shared));
                Owner::Actor {
                    actor: id.index,
                    role: Role::Call { has_handle: true },
                }
            }
            // The actor has ended. Its index may belong to another actor by now.
            None => Owner::Handle,
        };
        let (job, refusal) = self.enter_record(kernel, call, owner, options);
        if let Some(policy) = &mut self.records.get(job).policy {
            // The call must run in the worker that hosts the state, even if other jobs run there.
            policy.is_exclusive = false;
        }
        let refusal = refusal.or_else(|| match self.actors.find(id) {
            Some(actor) if !actor.is_ending => match &actor.stage {
                ActorStage::Lost(why) => refuse(why.clone()),
                _ => None,
            },
            _ => refuse(JobErrorKind::Rejected(Rejection::ActorEnded)),
        });
        if call.inputs.is_some() {
            self.enter_with_inputs(job, call, refusal, options);
        } else if let Some(why) = refusal.or_else(|| options.and_then(too_late)) {
            self.fail(job.index, *why, None, Vec::new());
        } else {
            self.enter_call(id.index, job.index);
        }
        job
    }

    /// Posts a call whose record is filled, or queues it with its actor.
    #[inline]
    pub(in crate::supervisor) fn enter_call(&mut self, index: u32, job: u32) {
        let record = self.records.look(job);
        let expected = self.kernels.get(record.kernel).expected_ns;
        match self.actors.get(index).stage {
            ActorStage::Hosted { lane }
                if !self.queue.has_waiting(index) && self.lanes[lane].fits(expected) =>
            {
                self.post_call(index, job, lane);
                if self.actors.get(index).save_is_due() {
                    self.queue_actor(index);
                    self.feed_actor_lane(lane, 1);
                }
            }
            _ => self.queue_call(index, job),
        }
    }

    /// Gives an actor its turn if it has a job to post.
    pub(super) fn queue_actor(&mut self, index: u32) {
        self.actors
            .queue_actor(index, &mut self.queue, &self.records);
    }

    /// Called when the first waiting call of an actor may have got its last value, or has ended without one.
    pub(in crate::supervisor) fn look_at_calls(&mut self, index: u32) {
        self.queue_actor(index);
        if let Some(lane) = self.actors.get(index).lane() {
            self.lanes.flag(lane, &self.queue, &self.config);
            fence_after_queueing();
        }
        self.monitor.call();
    }

    #[inline]
    pub(super) fn post_call(&mut self, index: u32, record: u32, lane: usize) {
        let actor = self.actors.get(index);
        actor.posted += 1;
        // The checkpoint's block is leased when the call is posted, not when it was submitted: a requeued call may run
        // with a state that was restored from another checkpoint.
        if let Some(block) = &actor.restored {
            let leases = &mut self.records.at(record).leases;
            let has =
                |lease: &Lease| matches!(lease, Lease::Shared(other) if Arc::ptr_eq(other, block));
            if !leases.iter().any(has) {
                leases.push(Lease::Shared(Arc::clone(block)));
            }
        }
        self.put(record, lane);
        crate::sync::point!("call.posted");
    }

    /// Queues a call until the actor's lane has room.
    #[cold]
    pub(in crate::supervisor) fn queue_call(&mut self, index: u32, record: u32) {
        self.monitor.watch_memory();
        self.queue.push_back(record, self.records.look(record));
        let lane = self.actors.get(index).lane();
        let calls = self.queue.calls_of(index);
        self.queue_actor(index);
        crate::sync::point!("call.retained");
        // The lane's flags are set already: its worker rings the monitor before the lane has no more jobs.
        if calls > 1 && !calls.is_multiple_of(LOOK_EVERY) {
            return;
        }
        self.lanes.update_flags(&self.queue, &self.config);
        fence_after_queueing();
        if let Some(lane) = lane {
            self.drain(lane);
        }
        self.refill();
    }

    pub(super) fn remove_actor(&mut self, index: u32) {
        self.queue.unqueue_actor(index);
        self.actors.end_pause(index, &mut self.timers);
        self.actors.remove(index);
        crate::sync::point!("actor.removed");
        self.call_if_drained();
    }
}

impl Supervisor {
    /// Creates an actor. It starts once a lane has room.
    pub(crate) fn new_actor(&self, mut plan: ActorPlan) -> ActorId {
        self.copy_files(&mut plan.args);
        // The words may be long, so they are not copied under the lock.
        let start_words = plan.args.words().into();
        let mut locked = self.lock();
        let state = &mut *locked;
        let start = state.kernels.index(&plan.start);
        let refusal = if plan.args.foreign {
            Some(JobErrorKind::Rejected(Rejection::ForeignArray))
        } else if plan.args.inputs.is_some() {
            Some(JobErrorKind::Rejected(Rejection::JobForActor))
        } else if plan.args.exclusive {
            Some(JobErrorKind::Rejected(Rejection::Lending))
        } else {
            let refusal = plan.args.full.map(JobErrorKind::from);
            refusal.or_else(|| state.refusal(start, Owner::None).map(|why| *why))
        };
        let checkpoints = plan.checkpoints.map(|plan| {
            Box::new(Checkpoints {
                plan,
                last: None,
                call_count: 0,
                under_way: VecDeque::new(),
                failed_at: 0,
                made: 0,
                failed: 0,
            })
        });
        let given = plan.args.leases.iter().filter_map(|lease| match lease {
            Lease::Shared(block) => Some(Arc::clone(block)),
            // A start only reads its arguments. Most other leases are excluded by type; the remaining cases are
            // refused.
            Lease::Owned(_) | Lease::Lent(_) | Lease::Loan { .. } | Lease::File(_) => None,
        });
        let files = plan.args.leases.iter().filter_map(|lease| match lease {
            Lease::File(file) => Some(Arc::clone(file)),
            _ => None,
        });
        let seed = state.records.next_seed();
        let actor = Actor {
            generation: FIRST_COUNT,
            stage: ActorStage::Unplaced,
            start: plan.start,
            end: plan.end,
            start_words,
            seed,
            start_blocks: given.collect(),
            start_files: files.collect(),
            restored: None,
            checkpoints,
            posted: 0,
            is_ending: false,
            restarts: 0,
            dead_starts: 0,
            full_starts: 0,
            due: None,
            forgotten: 0,
        };
        let id = state.actors.add(actor);
        state.queue.add_actor(id.index);
        match refusal {
            Some(why) => state.lose_actor(id.index, why),
            None => {
                state.queue_actor(id.index);
                crate::sync::point!("actor.entered");
                state.refill();
            }
        }
        self.unlock(locked);
        id
    }

    /// Ends an actor whose handle was dropped: its state is dropped after all calls that were submitted.
    pub(crate) fn end_actor(&self, id: ActorId) {
        if self.is_copy() {
            return;
        }
        let mut locked = self.lock();
        let state = &mut *locked;
        let Some(actor) = state.actors.find(id) else {
            return self.unlock(locked);
        };
        actor.is_ending = true;
        match actor.stage {
            ActorStage::Lost(_) => state.remove_actor(id.index),
            ActorStage::Unplaced if state.queue.calls_of(id.index) == 0 => {
                state.remove_actor(id.index);
            }
            _ => {
                state.queue_actor(id.index);
                state.refill();
            }
        }
        self.unlock(locked);
    }

    /// Returns the status of an actor, or `None` if the actor has ended.
    pub(crate) fn status_of_actor(&self, id: ActorId) -> Option<ActorStatus> {
        let mut state = self.lock();
        state.catch_up();
        let workers = state.workers.len();
        let EngineState { actors, queue, .. } = &mut *state;
        let status = actors.find(id).map(|actor| {
            let checkpoints = actor.checkpoints.as_ref();
            ActorStatus {
                worker: match actor.stage {
                    ActorStage::Hosted { lane } => Some((lane % workers) as u32),
                    _ => None,
                },
                lost: match &actor.stage {
                    ActorStage::Lost(why) => Some(why.clone()),
                    _ => None,
                },
                waiting: queue.calls_of(id.index),
                restarts: actor.restarts,
                forgotten: actor.forgotten,
                checkpoints: checkpoints.map_or(0, |checkpoints| checkpoints.made),
                failed_checkpoints: checkpoints.map_or(0, |checkpoints| checkpoints.failed),
            }
        });
        self.unlock(state);
        status
    }
}
