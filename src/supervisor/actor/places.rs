//! Which lane has an actor, and what it gets for it.

use std::sync::Arc;

use super::{ACTOR, Place, UnderWay, actor_of};
use crate::arena::Offset;
use crate::kernel::KernelInfo;
use crate::kernel::actor;
use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::NOTICE;
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::lane::{Lane, NOBODY};
use crate::supervisor::place::DEPTH_NS;
use crate::supervisor::state::EngineState;

/// A lane that has no more to do than this is worth waiting for, so that states that are made at the same time are spread.
const SOON_NS: u64 = 40 * DEPTH_NS;

impl EngineState {
    /// Somebody may have something to do for this actor.
    pub(super) fn list(&mut self, index: u32) {
        let actor = &mut self.actors.table[index as usize];
        if actor.listed || !actor.wants() {
            return;
        }
        actor.listed = true;
        self.actors.wanting += 1;
        match actor.lane() {
            None => self.actors.homeless.push_back(index),
            Some(lane) => {
                if let Some(hosted) = &mut self.lanes[lane].hosted {
                    hosted.turns.push_back(index);
                }
            }
        }
    }

    /// Places what actors wait for, as far as it fits; not more than so much.
    #[cold]
    pub(in crate::supervisor) fn feed_actors(&mut self, most: usize) {
        let mut left = most;
        while left > 0
            && let Some(&index) = self.actors.homeless.front()
        {
            let Some(lane) = self.home() else {
                if !self.monitor.ticks() && self.passes_room_by() {
                    self.monitor.start_ticking();
                }
                break;
            };
            self.actors.homeless.pop_front();
            self.actors.wanting -= 1;
            self.actor(index).listed = false;
            self.start(index, lane);
            left -= 1;
        }
        for lane in 0..self.lanes.len() {
            left -= self.feed_lane(lane, left);
        }
        if self.actors.wanting == 0 {
            self.update_flags();
        }
    }

    /// The same for one lane: actors take turns. Returns how much was placed.
    pub(super) fn feed_lane(&mut self, lane: usize, most: usize) -> usize {
        if !self.lanes[lane].is_wanted() {
            return 0;
        }
        let mut placed = 0;
        while placed < most {
            let hosted = self.lanes[lane].hosted.as_mut();
            let Some(index) = hosted.and_then(|hosted| hosted.turns.pop_front()) else {
                break;
            };
            let actor = &mut self.actors.table[index as usize];
            actor.listed = false;
            self.actors.wanting -= 1;
            let fits = self.lanes[lane].fits(0);
            if fits && actor.wants() {
                self.take_turn(index, lane);
                placed += 1;
            }
            self.list(index);
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
            self.save(index, lane);
        } else if let Some(record) = actor.calls.pop(&self.records) {
            self.actors.kept -= 1;
            self.post_call(index, record, lane);
        } else if actor.ending {
            actor.place = Place::Ending { lane };
            let end = actor.end;
            self.post_for(index, lane, &end, &[]);
            crate::sync::point!("actor.ending");
        }
    }

    /// The lane for one more actor: the one with the fewest, of those the one whose worker has the fewest, and rather one
    /// without jobs of other kinds. Only those count that have room, or are thought to have it soon.
    pub(super) fn home(&self) -> Option<usize> {
        let lanes = self.lanes.iter().enumerate();
        let soon = |lane: &Lane| lane.ready && lane.room() > 0 && lane.backlog_ns <= SOON_NS;
        let may = lanes.filter(|(_, lane)| lane.fits(0) || soon(lane));
        let best = may.min_by_key(|(index, lane)| {
            let beside = self.workers[self.lanes.worker_of(*index)].actors;
            (lane.actors(), beside, self.has_jobs(lane), *index)
        });
        let (index, lane) = best?;
        lane.fits(0).then_some(index)
    }

    /// Has this lane a job that is no actor's? Nobody knows how long it runs.
    fn has_jobs(&self, lane: &Lane) -> bool {
        let mut open = lane.producer.open_positions();
        open.any(|position| {
            let record = lane.record_at(position);
            record != NOBODY && actor_of(self.records.look(record).group).is_none()
        })
    }

    /// Does an actor wait for the lane with the fewest although another one has room? Then somebody has to look whether
    /// that takes longer than was thought.
    pub(in crate::supervisor) fn passes_room_by(&self) -> bool {
        !self.actors.homeless.is_empty()
            && self.home().is_none()
            && self.lanes.iter().any(|lane| lane.fits(0))
    }

    pub(super) fn start(&mut self, index: u32, lane: usize) {
        self.take_in(lane);
        let actor = self.actor(index);
        actor.place = Place::Starting { lane };
        actor.posted = 0;
        let mut words = actor.words.clone();
        let last = actor.checkpoints.as_mut().and_then(|checkpoints| {
            checkpoints.begin_life();
            let last = checkpoints.last.as_ref()?;
            let at = last.array.block.extent().at;
            let at = Offset::new(at.region(), at.offset() + last.array.skip);
            let words: Vec<u64> = [bytemuck::cast(at)]
                .into_iter()
                .chain(last.words.iter().copied())
                .collect();
            Some((checkpoints.plan.restore, words, &last.array.block))
        });
        let mut start = actor.start;
        if let Some((restore, saved, block)) = last {
            start = restore;
            words.splice(0..0, saved);
            actor.restored = Some(Arc::clone(block));
        }
        self.post_for(index, lane, &start, &words);
        crate::sync::point!("actor.started");
    }

    pub(super) fn save(&mut self, index: u32, lane: usize) {
        let actor = self.actor(index);
        let holds = actor.posted;
        let position = self.lanes[lane].producer.tail();
        let Some(checkpoints) = &mut self.actor(index).checkpoints else {
            return;
        };
        checkpoints
            .under_way
            .push_back(UnderWay { holds, position });
        let save = checkpoints.plan.save;
        self.post_for(index, lane, &save, &[]);
        crate::sync::point!("save.posted");
    }

    /// Posts a job that is the engine's own.
    pub(super) fn post_for(&mut self, index: u32, lane: usize, info: &KernelInfo, words: &[u64]) {
        let actor = &self.actors.table[index as usize];
        let mut call = ArgWriter::new(self.arena.id());
        call.seed = actor.seed;
        call.word(actor::key(index, actor.generation));
        words.iter().for_each(|&word| call.word(word));
        let blocks = actor.restored.iter().chain(&actor.given).cloned();
        call.leases.extend(blocks.map(Lease::Shared));
        let (job, refusal) = self.enter_record(info, &mut call, ACTOR | index, None);
        let record = self.records.get(job);
        record.detached = true;
        // The monitor places what waits for its end.
        record.requests |= NOTICE;
        // An engine that drains, or is broken, finishes what was begun where there is a worker.
        let goes_on =
            |why: &JobErrorKind| matches!(why, JobErrorKind::ShutDown | JobErrorKind::NoWorkers(_));
        match refusal.filter(|why| !goes_on(why)) {
            Some(why) => self.fail(job.index, why, None, Vec::new()),
            None => self.put(job.index, lane),
        }
    }
}
