//! Making an actor, calling it, and its end.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{ACTOR, Actor, ActorId, ActorPlan, Checkpoints, LOOK_EVERY, Place};
use crate::kernel::KernelInfo;
use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::fence_after_queueing;
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::options::JobOptions;
use crate::supervisor::queue::Queue;
use crate::supervisor::record::JobId;
use crate::supervisor::state::EngineState;

impl EngineState {
    /// Makes an actor, as soon as a lane has room for it.
    pub(super) fn new_actor(&mut self, plan: ActorPlan) -> ActorId {
        let start = self.kernels.index(&plan.start);
        let refusal = if plan.args.foreign {
            Some(JobErrorKind::ForeignArray)
        } else {
            let refusal = plan.args.full.map(JobErrorKind::ArenaFull);
            refusal.or_else(|| self.refusal(start, 0))
        };
        let save = plan.checkpoints.map(|plan| self.kernels.index(&plan.save));
        let checkpoints = plan.checkpoints.zip(save).map(|(plan, save)| {
            Box::new(Checkpoints {
                plan,
                save,
                last: None,
                holds: 0,
                under_way: VecDeque::new(),
                failed_at: 0,
                made: 0,
                failed: 0,
            })
        });
        let given = plan.args.leases.iter().filter_map(|lease| match lease {
            Lease::Shared(block) => Some(Arc::clone(block)),
            // Initial arguments are only read, by type.
            Lease::Owned(_) | Lease::Lent(_) => None,
        });
        let seed = self.records.next_seed();
        let actor = Actor {
            generation: 0,
            place: Place::Nowhere,
            calls: Queue::default(),
            start: plan.start,
            end: plan.end,
            words: plan.args.words().to_vec(),
            seed,
            given: given.collect(),
            restored: None,
            checkpoints,
            posted: 0,
            listed: false,
            ending: false,
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
                u32::try_from(index)
                    .ok()
                    .filter(|index| index & ACTOR == 0)
                    .expect("fewer than 2^31 actors at once")
            }
        };
        match refusal {
            Some(why) => self.lose(index, why),
            None => {
                self.list(index);
                crate::sync::point!("actor.entered");
                self.refill();
            }
        }
        ActorId {
            index,
            generation: self.actor(index).generation,
        }
    }

    /// Takes a call: it is placed, kept, or refused with an answer.
    pub(super) fn call_actor(
        &mut self,
        id: ActorId,
        info: &KernelInfo,
        call: &mut ArgWriter,
        options: Option<&JobOptions>,
    ) -> JobId {
        let known = self.find_actor(id).is_some();
        if known {
            // What the state holds may come back in the reply.
            let given = &self.actors.table[id.index as usize].given;
            call.leases.extend(given.iter().cloned().map(Lease::Shared));
        }
        // The key of one that is gone says nothing about who is there now.
        let group = if known { ACTOR | id.index } else { 0 };
        let (job, refusal) = self.enter_record(info, call, group, options);
        if let Some(policy) = &mut self.records.get(job).policy {
            // It can only run where the state is, whatever runs beside that.
            policy.alone = false;
        }
        let refusal = refusal.or_else(|| match self.find_actor(id) {
            Some(actor) if !actor.ending => match &actor.place {
                Place::Lost(why) => Some(why.clone()),
                _ => None,
            },
            _ => Some(JobErrorKind::ActorEnded),
        });
        if let Some(why) = refusal {
            self.fail(job.index, why, None, Vec::new());
            return job;
        }
        if options.is_some_and(|options| self.is_too_late(job.index, options)) {
            return job;
        }
        let actor = &mut self.actors.table[id.index as usize];
        let record = self.records.look(job.index);
        let expected = self.kernels.get(record.kernel).expected_ns;
        match actor.place {
            Place::Here { lane }
                if actor.calls.is_empty() && !actor.listed && self.lanes[lane].fits(expected) =>
            {
                self.post_call(id.index, job.index, lane);
                if self.actor(id.index).save_is_due() {
                    self.list(id.index);
                    self.feed_lane(lane, 1);
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
        // Of this life, so not before: a call that was put back may meet another one.
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
        self.actors.kept += 1;
        self.list(index);
        crate::sync::point!("call.kept");
        // The lane knows already that something is kept, and rings before it runs dry.
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

    /// Nobody calls this actor any more: its state is dropped when it has answered what it was asked.
    pub(in crate::supervisor) fn end_actor(&mut self, id: ActorId) {
        let Some(actor) = self.find_actor(id) else {
            return;
        };
        actor.ending = true;
        match actor.place {
            Place::Lost(_) => self.remove_actor(id.index),
            Place::Nowhere if actor.calls.is_empty() => self.remove_actor(id.index),
            _ => {
                self.list(id.index);
                self.refill();
            }
        }
    }

    /// It waits for no lane any more, if it did.
    pub(super) fn unlist_homeless(&mut self, index: u32) {
        let actor = self.actor(index);
        if actor.listed && matches!(actor.place, Place::Nowhere) {
            actor.listed = false;
            self.actors.homeless.retain(|&other| other != index);
            self.actors.wanting -= 1;
        }
    }

    pub(super) fn remove_actor(&mut self, index: u32) {
        self.unlist_homeless(index);
        self.end_pause_of_actor(index);
        let actor = self.actor(index);
        actor.listed = false;
        actor.generation = actor.generation.wrapping_add(1);
        actor.place = Place::Free;
        actor.given.clear();
        actor.restored = None;
        actor.words = Vec::new();
        actor.checkpoints = None;
        self.actors.free.push(index);
        crate::sync::point!("actor.removed");
        self.call_if_drained();
    }
}
