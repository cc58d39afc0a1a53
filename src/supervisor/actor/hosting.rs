//! Chooses the lane that hosts an actor, and posts the actor's jobs there.

use std::sync::Arc;

use super::state::{Actor, ActorId, ActorStage, UnderWay};
use crate::arena::Offset;
use crate::kernel::KernelInfo;
use crate::kernel::actor;
use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::NOTICE;
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::lane::DEPTH_NS;
use crate::supervisor::lane::{Lane, NO_RECORD};
use crate::supervisor::owner::{Owner, Role};
use crate::supervisor::state::EngineState;

/// A lane with less backlog than this is expected to have room soon. An actor waits for such a lane, so that states
/// made at the same time are spread.
const SOON_NS: u64 = 40 * DEPTH_NS;

impl EngineState {
    /// Lists an actor for which there may be work to post.
    pub(super) fn list_actor(&mut self, index: u32) {
        let actor = &mut self.actors.table[index as usize];
        if actor.is_listed || !actor.has_work() {
            return;
        }
        actor.is_listed = true;
        self.actors.listed_count += 1;
        match actor.lane() {
            None => self.actors.unplaced.push_back(index),
            Some(lane) => {
                if let Some(hosted) = self.lanes[lane].hosted_mut() {
                    hosted.turns.push_back(index);
                }
            }
        }
    }

    /// Posts at most `most` jobs of actors, as far as lanes have room.
    #[cold]
    pub(in crate::supervisor) fn feed_actors(&mut self, most: usize) {
        let mut left = most;
        while left > 0
            && let Some(&index) = self.actors.unplaced.front()
        {
            let Some(lane) = self.choose_actor_lane() else {
                if !self.monitor.ticks() && self.actor_could_start_elsewhere() {
                    self.monitor.start_ticking();
                }
                break;
            };
            self.actors.unplaced.pop_front();
            self.actors.listed_count -= 1;
            self.actor(index).is_listed = false;
            self.start_actor(index, lane);
            left -= 1;
        }
        for lane in 0..self.lanes.len() {
            left -= self.feed_actor_lane(lane, left);
        }
        if self.actors.listed_count == 0 {
            self.update_flags();
        }
    }

    /// Posts at most `most` jobs to one lane, whose actors take turns. Returns how many it posted.
    pub(super) fn feed_actor_lane(&mut self, lane: usize, most: usize) -> usize {
        if !self.lanes[lane].is_wanted() {
            return 0;
        }
        let mut placed = 0;
        while placed < most {
            let hosted = self.lanes[lane].hosted_mut();
            let Some(index) = hosted.and_then(|hosted| hosted.turns.pop_front()) else {
                break;
            };
            let actor = &mut self.actors.table[index as usize];
            actor.is_listed = false;
            self.actors.listed_count -= 1;
            let fits = self.lanes[lane].fits(0);
            if fits && actor.has_work() {
                self.take_turn(index, lane);
                placed += 1;
            }
            self.list_actor(index);
            if !fits {
                break;
            }
        }
        self.flag(lane);
        placed
    }

    pub(super) fn take_turn(&mut self, index: u32, lane: usize) {
        let actor = &mut self.actors.table[index as usize];
        if actor.save_is_due() {
            self.save_actor(index, lane);
        } else if let Some(record) = actor.calls.pop(&self.records) {
            self.actors.waiting_calls -= 1;
            self.post_call(index, record, lane);
        } else if actor.is_ending {
            actor.stage = ActorStage::Ending { lane };
            let end = actor.end;
            self.post_engine_job(index, lane, Role::End, &end, [&[], &[]]);
            crate::sync::point!("actor.ending");
        }
    }

    /// Chooses the lane for one more actor: the one with the fewest actors, then the one whose worker has the fewest,
    /// then one without ordinary jobs. Only lanes that have room now or are expected to have it soon count; returns
    /// `None` if the best one has no room yet.
    pub(super) fn choose_actor_lane(&self) -> Option<usize> {
        let lanes = self.lanes.iter().enumerate();
        let soon = |lane: &Lane| lane.is_ready() && lane.room() > 0 && lane.backlog_ns() <= SOON_NS;
        let may = lanes.filter(|(_, lane)| lane.fits(0) || soon(lane));
        let best = may.min_by_key(|(index, lane)| {
            let beside = self.workers[self.lanes.worker_of(*index)].actors();
            (lane.actors(), beside, self.has_jobs(lane), *index)
        });
        let (index, lane) = best?;
        lane.fits(0).then_some(index)
    }

    /// Whether the lane has ordinary jobs, whose duration is unknown.
    fn has_jobs(&self, lane: &Lane) -> bool {
        let mut open = lane.producer.open_positions();
        open.any(|position| {
            let record = lane.record_at(position);
            record != NO_RECORD && self.records.look(record).owner.actor().is_none()
        })
    }

    /// Whether an actor waits for the lane with the fewest actors although another lane has room. The monitor then
    /// checks whether the wait takes longer than expected.
    pub(in crate::supervisor) fn actor_could_start_elsewhere(&self) -> bool {
        !self.actors.unplaced.is_empty()
            && self.choose_actor_lane().is_none()
            && self.lanes.iter().any(|lane| lane.fits(0))
    }

    pub(super) fn start_actor(&mut self, index: u32, lane: usize) {
        self.host_actor(lane);
        let actor = self.actor(index);
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
        let actor = self.actor(index);
        let call_count = actor.posted;
        let position = self.lanes[lane].producer.tail();
        let Some(checkpoints) = &mut self.actor(index).checkpoints else {
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
        let actor = &self.actors.table[index as usize];
        let mut call = ArgWriter::new(self.arena.id());
        call.seed = actor.seed;
        call.word(actor::key(index, actor.generation));
        words.into_iter().for_each(|words| call.extend(words));
        let blocks = actor.restored.iter().chain(&actor.start_blocks).cloned();
        call.leases.extend(blocks.map(Lease::Shared));
        let kernel = self.kernels.index(info);
        let owner = Owner::Actor { actor: index, role };
        let (job, refusal) = self.enter_record(kernel, &mut call, owner, None);
        // What waits for the end of this job is placed by the monitor.
        self.records.get(job).requests |= NOTICE;
        // An engine that drains, or has given up, finishes what was begun if a worker is left.
        let goes_on =
            |why: &JobErrorKind| matches!(why, JobErrorKind::ShutDown | JobErrorKind::NoWorkers(_));
        match refusal.filter(|why| !goes_on(why)) {
            Some(why) => self.fail(job.index, *why, None, Vec::new()),
            None => self.put(job.index, lane),
        }
    }
}

impl EngineState {
    /// Counts one more actor of this lane. Its worker is not recycled while it hosts any.
    pub(super) fn host_actor(&mut self, lane: usize) {
        self.lanes[lane].host().count += 1;
        let worker = self.lanes.worker_of(lane);
        if self.workers[worker].add_actor() {
            self.lanes
                .of_worker(worker)
                .for_each(|lane| self.lanes[lane].set_stays(true));
        }
    }

    /// Counts one actor less.
    pub(super) fn unhost_actor(&mut self, lane: usize) {
        let Some(hosted) = self.lanes[lane].hosted_mut() else {
            return;
        };
        hosted.count -= 1;
        if hosted.count == 0 {
            self.lanes[lane].drop_hosted();
        }
        let worker = self.lanes.worker_of(lane);
        if self.workers[worker].remove_actor() {
            self.lanes
                .of_worker(worker)
                .for_each(|lane| self.lanes[lane].set_stays(false));
        }
    }

    pub(super) fn actor(&mut self, index: u32) -> &mut Actor {
        &mut self.actors.table[index as usize]
    }

    pub(super) fn find_actor(&mut self, id: ActorId) -> Option<&mut Actor> {
        let actor = self.actors.table.get_mut(id.index as usize)?;
        let known = actor.generation == id.generation && !matches!(actor.stage, ActorStage::Free);
        known.then_some(actor)
    }

    /// If this job starts an actor: a number that identifies the actor among all actors and jobs.
    pub(in crate::supervisor) fn started_actor(&mut self, record: u32) -> Option<u64> {
        let Owner::Actor {
            actor: index,
            role: Role::Start,
        } = self.records.look(record).owner
        else {
            return None;
        };
        let generation = self.actor(index).generation;
        Some(u64::MAX - actor::key(index, generation))
    }
}
