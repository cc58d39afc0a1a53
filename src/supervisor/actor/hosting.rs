//! Chooses the lane that hosts an actor, and posts the actor's jobs there.

use std::sync::Arc;

use super::state::{ActorStage, UnderWay};
use crate::arena::Offset;
use crate::kernel::KernelInfo;
use crate::kernel::actor;
use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::NOTICE;
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::owner::{Owner, Role};
use crate::supervisor::queue::Constraint;
use crate::supervisor::state::EngineState;

impl EngineState {
    /// Posts at most `most` jobs of actors to lanes that have room.
    #[cold]
    pub(in crate::supervisor) fn feed_actors(&mut self, most: usize) {
        let mut left = most;
        while left > 0 && self.queue.waits_for_host() {
            let Some(lane) = self.lanes.choose_for_actor(&self.records) else {
                if !self.monitor.ticks() && self.lanes.pass_an_actor_by(&self.records) {
                    self.monitor.start_ticking();
                }
                break;
            };
            if let Some(index) = self.queue.next_for(Constraint::Host, &self.records) {
                self.start_actor(index, lane);
            }
            left -= 1;
        }
        for lane in 0..self.lanes.len() {
            left -= self.feed_actor_lane(lane, left);
        }
        if !self.queue.has_actors() {
            self.lanes.update_flags(&self.queue, &self.config);
        }
    }

    /// Posts at most `most` jobs to one lane, whose actors take turns. Returns the number of posted jobs.
    pub(super) fn feed_actor_lane(&mut self, lane: usize, most: usize) -> usize {
        if !self.queue.has_turns(lane) {
            return 0;
        }
        let mut placed = 0;
        while placed < most
            && let Some(index) = self.queue.next_for(Constraint::Lane(lane), &self.records)
        {
            let fits = self.lanes[lane].fits(0);
            if fits
                && self
                    .actors
                    .wants(index, &self.queue, &self.records)
                    .is_some()
            {
                let actor = self.actors.get(index);
                if actor.save_is_due() {
                    self.save_actor(index, lane);
                } else if let Some(record) = self.queue.next_call(index, &self.records) {
                    self.post_call(index, record, lane);
                } else if actor.is_ending {
                    actor.stage = ActorStage::Ending { lane };
                    let end = actor.end;
                    self.post_engine_job(index, lane, Role::End, &end, [&[], &[]]);
                    crate::sync::point!("actor.ending");
                }
                placed += 1;
            }
            self.queue_actor(index);
            if !fits {
                break;
            }
        }
        self.lanes.flag(lane, &self.queue, &self.config);
        placed
    }

    pub(super) fn start_actor(&mut self, index: u32, lane: usize) {
        self.lanes.host(lane);
        let actor = self.actors.get(index);
        actor.stage = ActorStage::Starting { lane };
        actor.posted = 0;
        let words = Arc::clone(&actor.start_words);
        let mut saved = Vec::new();
        let last = actor.checkpoints.as_mut().and_then(|checkpoints| {
            checkpoints.begin_generation();
            let last = checkpoints.last.as_ref()?;
            let at = last.array.block.extent().at;
            let at = Offset::new(at.region(), at.offset() + last.array.skip);
            saved.push(bytemuck::cast(at));
            saved.extend_from_slice(&last.words);
            Some((checkpoints.plan.restore, &last.array.block))
        });
        let mut start = actor.start;
        if let Some((restore, block)) = last {
            start = restore;
            actor.restored = Some(Arc::clone(block));
        }
        self.post_engine_job(index, lane, Role::Start, &start, [&saved, &words]);
        crate::sync::point!("actor.started");
    }

    pub(super) fn save_actor(&mut self, index: u32, lane: usize) {
        let actor = self.actors.get(index);
        let call_count = actor.posted;
        let position = self.lanes[lane].producer.tail();
        let Some(checkpoints) = &mut self.actors.get(index).checkpoints else {
            return;
        };
        checkpoints.under_way.push_back(UnderWay {
            call_count,
            position,
        });
        let save = checkpoints.plan.save;
        self.post_engine_job(index, lane, Role::Save, &save, [&[], &[]]);
        crate::sync::point!("save.posted");
    }

    /// Posts a job that the engine runs for the actor: start, save or end.
    pub(super) fn post_engine_job(
        &mut self,
        index: u32,
        lane: usize,
        role: Role,
        info: &KernelInfo,
        words: [&[u64]; 2],
    ) {
        let actor = self.actors.get(index);
        let mut call = ArgWriter::new(self.arena.id());
        call.seed = actor.seed;
        call.word(actor::key(index, actor.generation));
        words.into_iter().for_each(|words| call.extend(words));
        let blocks = actor.restored.iter().chain(&actor.start_blocks).cloned();
        call.leases.extend(blocks.map(Lease::Shared));
        let kernel = self.kernels.index(info);
        let owner = Owner::Actor { actor: index, role };
        let (job, refusal) = self.enter_record(kernel, &mut call, owner, None);
        // When this job ends, the monitor drains the lane, and places the jobs that wait for the end.
        self.records.get(job).requests |= NOTICE;
        // While the engine drains, or cannot start workers any more, actors that have begun still run their jobs on a
        // live worker.
        let goes_on =
            |why: &JobErrorKind| matches!(why, JobErrorKind::ShutDown | JobErrorKind::NoWorkers(_));
        match refusal.filter(|why| !goes_on(why)) {
            Some(why) => self.fail(job.index, *why, None, Vec::new()),
            None => self.put(job.index, lane),
        }
    }
}
