//! Creates actors, calls them and ends them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::state::{Actor, ActorId, ActorPlan, ActorStage, ActorStatus, Checkpoints, LOOK_EVERY};
use crate::kernel::KernelInfo;
use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::fence_after_queueing;
use crate::supervisor::admission::LineTicket;
use crate::supervisor::error::{JobErrorKind, Rejection};
use crate::supervisor::options::JobOptions;
use crate::supervisor::owner::{Owner, Role};
use crate::supervisor::queue::Queue;
use crate::supervisor::record::JobId;
use crate::supervisor::shared::Supervisor;
use crate::supervisor::state::EngineState;
use crate::supervisor::submit::refuse;
use crate::sync::FIRST_COUNT;

impl EngineState {
    /// Creates an actor, which starts once a lane has room. `start_words`: the words of its arguments.
    pub(super) fn new_actor(&mut self, plan: ActorPlan, start_words: Arc<[u64]>) -> ActorId {
        let start = self.kernels.index(&plan.start);
        let refusal = if plan.args.foreign {
            Some(JobErrorKind::Rejected(Rejection::ForeignArray))
        } else if plan.args.exclusive {
            Some(JobErrorKind::Rejected(Rejection::Lending))
        } else {
            let refusal = plan.args.full.map(JobErrorKind::from);
            refusal.or_else(|| self.refusal(start, Owner::None).map(|why| *why))
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
            // Only what a start reads: others are refused, if not by type.
            Lease::Owned(_) | Lease::Lent(_) | Lease::Loan { .. } | Lease::File(_) => None,
        });
        let files = plan.args.leases.iter().filter_map(|lease| match lease {
            Lease::File(file) => Some(Arc::clone(file)),
            _ => None,
        });
        let seed = self.records.next_seed();
        let actor = Actor {
            generation: FIRST_COUNT,
            stage: ActorStage::Unplaced,
            calls: Queue::default(),
            start: plan.start,
            end: plan.end,
            start_words,
            seed,
            start_blocks: given.collect(),
            start_files: files.collect(),
            restored: None,
            checkpoints,
            posted: 0,
            is_listed: false,
            is_ending: false,
            restarts: 0,
            dead_starts: 0,
            full_starts: 0,
            due: None,
            forgotten: 0,
        };
        let index = match self.actors.free.pop() {
            Some(index) => {
                let generation = self.actor(index).generation;
                *self.actor(index) = Actor {
                    generation,
                    ..actor
                };
                index
            }
            None => {
                self.actors.table.push(actor);
                let index = self.actors.table.len() - 1;
                u32::try_from(index).expect("fewer than 2^32 actors at once")
            }
        };
        match refusal {
            Some(why) => self.lose_actor(index, why),
            None => {
                self.list_actor(index);
                crate::sync::point!("actor.entered");
                self.refill();
            }
        }
        ActorId {
            index,
            generation: self.actor(index).generation,
        }
    }

    /// Takes a call. It is posted, held in the actor's queue, or refused with an answer.
    pub(super) fn call_actor(
        &mut self,
        id: ActorId,
        info: &KernelInfo,
        call: &mut ArgWriter,
        options: Option<&JobOptions>,
    ) -> JobId {
        let known = self.find_actor(id).is_some();
        if known {
            // The reply may return memory that the state holds.
            let given = &self.actors.table[id.index as usize].start_blocks;
            call.leases.extend(given.iter().cloned().map(Lease::Shared));
        }
        // The index of an actor that has ended may belong to another one by now.
        let kernel = self.kernels.index(info);
        let owner = match known {
            true => Owner::Actor {
                actor: id.index,
                role: Role::Call { has_handle: true },
            },
            false => Owner::Handle,
        };
        let (job, refusal) = self.enter_record(kernel, call, owner, options);
        if let Some(policy) = &mut self.records.get(job).policy {
            // The call can only run where the state is, even beside other jobs.
            policy.is_exclusive = false;
        }
        let refusal = refusal.or_else(|| match self.find_actor(id) {
            Some(actor) if !actor.is_ending => match &actor.stage {
                ActorStage::Lost(why) => refuse(why.clone()),
                _ => None,
            },
            _ => refuse(JobErrorKind::Rejected(Rejection::ActorEnded)),
        });
        if let Some(why) = refusal {
            self.fail(job.index, *why, None, Vec::new());
            return job;
        }
        if options.is_some_and(|options| self.is_too_late(job.index, options)) {
            return job;
        }
        let actor = &mut self.actors.table[id.index as usize];
        let record = self.records.look(job.index);
        let expected = self.kernels.get(record.kernel).expected_ns;
        match actor.stage {
            ActorStage::Hosted { lane }
                if actor.calls.is_empty()
                    && !actor.is_listed
                    && self.lanes[lane].fits(expected) =>
            {
                self.post_call(id.index, job.index, lane);
                if self.actor(id.index).save_is_due() {
                    self.list_actor(id.index);
                    self.feed_actor_lane(lane, 1);
                }
            }
            _ => self.keep_call(id.index, job.index),
        }
        job
    }

    #[inline]
    pub(super) fn post_call(&mut self, index: u32, record: u32, lane: usize) {
        let actor = &mut self.actors.table[index as usize];
        actor.posted += 1;
        // Leased here, not when the call was submitted: a requeued call may meet another generation of the state.
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

    /// Keeps a call until the lane has room.
    #[cold]
    pub(super) fn keep_call(&mut self, index: u32, record: u32) {
        self.monitor.watch_memory();
        let actor = &mut self.actors.table[index as usize];
        actor.calls.push_back(record, self.records.look(record));
        let (lane, calls) = (actor.lane(), actor.calls.len());
        self.actors.waiting_calls += 1;
        self.list_actor(index);
        crate::sync::point!("call.retained");
        // Flags are set: the lane rings before it runs dry.
        if calls > 1 && !calls.is_multiple_of(LOOK_EVERY) {
            return;
        }
        self.update_flags();
        fence_after_queueing();
        if let Some(lane) = lane {
            self.drain(lane);
        }
        self.refill();
    }

    /// Ends an actor whose handle was dropped: its state is dropped after the calls submitted so far.
    pub(in crate::supervisor) fn end_actor(&mut self, id: ActorId) {
        let Some(actor) = self.find_actor(id) else {
            return;
        };
        actor.is_ending = true;
        match actor.stage {
            ActorStage::Lost(_) => self.remove_actor(id.index),
            ActorStage::Unplaced if actor.calls.is_empty() => self.remove_actor(id.index),
            _ => {
                self.list_actor(id.index);
                self.refill();
            }
        }
    }

    /// Removes the actor from the list of those that wait for a lane.
    pub(super) fn unlist_unplaced(&mut self, index: u32) {
        let actor = self.actor(index);
        if actor.is_listed && matches!(actor.stage, ActorStage::Unplaced) {
            actor.is_listed = false;
            self.actors.unplaced.retain(|&other| other != index);
            self.actors.listed_count -= 1;
        }
    }

    pub(super) fn remove_actor(&mut self, index: u32) {
        self.unlist_unplaced(index);
        self.end_pause_of_actor(index);
        let actor = self.actor(index);
        actor.is_listed = false;
        actor.generation = actor.generation.wrapping_add(1);
        actor.stage = ActorStage::Free;
        actor.start_blocks.clear();
        actor.start_files.clear();
        actor.restored = None;
        actor.start_words = [].into();
        actor.checkpoints = None;
        self.actors.free.push(index);
        crate::sync::point!("actor.removed");
        self.call_if_drained();
    }
}

impl EngineState {
    fn status_of_actor(&mut self, id: ActorId) -> Option<ActorStatus> {
        self.drain_busy();
        self.refill();
        let workers = self.workers.len();
        let actor = self.find_actor(id)?;
        let checkpoints = actor.checkpoints.as_ref();
        Some(ActorStatus {
            worker: match actor.stage {
                ActorStage::Hosted { lane } => Some((lane % workers) as u32),
                _ => None,
            },
            lost: match &actor.stage {
                ActorStage::Lost(why) => Some(why.clone()),
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
    pub(crate) fn new_actor(&self, mut plan: ActorPlan) -> ActorId {
        self.copy_files(&mut plan.args);
        // They may be long, so they are not copied under the lock.
        let start_words = plan.args.words().into();
        let mut state = self.lock();
        let id = state.new_actor(plan, start_words);
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

    /// Like `call_actor`, in a future. The call is made under the same hold of the lock as the admission, so calls keep
    /// the order in which they were admitted.
    pub(crate) fn poll_call_actor(
        &self,
        actor: ActorId,
        kernel: &KernelInfo,
        call: &mut ArgWriter,
        options: Option<&JobOptions>,
        line: &mut LineTicket,
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

    /// Returns the state of an actor; `None` if it has ended.
    pub(crate) fn status_of_actor(&self, actor: ActorId) -> Option<ActorStatus> {
        let mut state = self.lock();
        let status = state.status_of_actor(actor);
        self.unlock(state);
        status
    }
}
