//! Actors: calls that have to run where a state lies, in order. The README of this floor has the rules.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Shared;
use super::core::{Closing, Core};
use super::error::JobErrorKind;
use super::lane::Lane;
use super::policy::Terms;
use super::queue::Queue;
use super::record::{JobId, Outcome};
use crate::arena::{Block, Offset};
use crate::kernel::wire::{ArgWriter, Lease, Received};
use crate::kernel::{KernelInfo, actor};
use crate::link::{NOTICE, after_keeping};

/// Set in the group of a job that belongs to an actor; the rest is the actor's index.
const ACTOR: u32 = 1 << 31;
/// Calls that are kept between two looks at what the lane has finished.
const LOOK_EVERY: usize = 32;

/// The index of the actor to which a job of this group belongs.
#[inline]
pub(super) fn actor_of(group: u32) -> Option<u32> {
    (group & ACTOR != 0).then_some(group & !ACTOR)
}

/// Names an actor as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActorId {
    index: u32,
    generation: u32,
}

impl ActorId {
    /// What its jobs are told.
    pub(crate) fn key(self) -> u64 {
        actor::key(self.index, self.generation)
    }
}

/// What an actor is made of.
#[derive(Debug)]
pub(crate) struct ActorPlan {
    /// Makes the state.
    pub(crate) start: KernelInfo,
    /// The arguments of that.
    pub(crate) args: ArgWriter,
    /// Drops the state.
    pub(crate) end: KernelInfo,
    pub(crate) checkpoints: Option<CheckpointPlan>,
}

/// How an actor survives its worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckpointPlan {
    /// Calls between two checkpoints.
    pub(crate) every: u64,
    /// Makes one.
    pub(crate) save: KernelInfo,
    /// Makes the state from one, and the arguments.
    pub(crate) restore: KernelInfo,
}

/// Where an actor is, as far as its handle may know.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActorFigures {
    /// The worker that has its state.
    pub(crate) worker: Option<u32>,
    /// Why it is gone.
    pub(crate) lost: Option<JobErrorKind>,
    /// Calls that no worker has yet.
    pub(crate) waiting: usize,
    pub(crate) restarts: u64,
    pub(crate) forgotten: u64,
    pub(crate) checkpoints: u64,
    pub(crate) failed_checkpoints: u64,
}

/// Where the state of an actor is.
#[derive(Debug)]
enum Place {
    /// In no worker: it waits for a lane.
    Nowhere,
    /// A lane was told to make it.
    Starting { lane: usize },
    Here {
        lane: usize,
    },
    /// A lane was told to drop it.
    Ending { lane: usize },
    /// In no worker any more.
    Lost(JobErrorKind),
    /// There is no actor of this index.
    Free,
}

/// What a job does for its actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Start,
    Call,
    Save,
    End,
}

/// A state as its kernel saved it.
#[derive(Debug)]
struct Checkpoint {
    array: Received,
    /// The array's shape.
    words: SmallVec<[u64; 4]>,
}

#[derive(Debug)]
struct Checkpoints {
    plan: CheckpointPlan,
    /// Indices of the kernels.
    save: u32,
    last: Option<Checkpoint>,
    /// Calls of this life that the last one holds.
    holds: u64,
    /// The same of those that are under way, oldest first.
    under_way: VecDeque<u64>,
    made: u64,
    failed: u64,
}

impl Checkpoints {
    /// Is one to be made, after so many calls of this life?
    fn are_due(&self, posted: u64) -> bool {
        let last = self.under_way.back().unwrap_or(&self.holds);
        posted - last >= self.plan.every
    }

    fn begin_life(&mut self) {
        self.holds = 0;
        self.under_way.clear();
    }
}

/// One actor.
#[derive(Debug)]
struct Actor {
    generation: u32,
    place: Place,
    /// Calls that the lane does not have yet.
    calls: Queue,
    start: KernelInfo,
    end: KernelInfo,
    /// Arguments for a start, the key left out.
    words: Vec<u64>,
    /// What those arguments name, which the state may keep.
    given: SmallVec<[Arc<Block>; 1]>,
    checkpoints: Option<Box<Checkpoints>>,
    /// Calls posted in this life, without those that were taken back.
    posted: u64,
    /// It is in the list of those that a lane, or nobody yet, has something to do for.
    listed: bool,
    /// Nobody will call it any more.
    ending: bool,
    restarts: u64,
    /// Calls that were answered, and are not in the state any more.
    forgotten: u64,
}

impl Actor {
    fn save_is_due(&self) -> bool {
        let checkpoints = self.checkpoints.as_ref();
        checkpoints.is_some_and(|checkpoints| checkpoints.are_due(self.posted))
    }

    /// Has the lane where it is something to get?
    fn wants(&self) -> bool {
        match self.place {
            Place::Nowhere => true,
            Place::Here { .. } => !self.calls.is_empty() || self.save_is_due() || self.ending,
            Place::Starting { .. } | Place::Ending { .. } | Place::Lost(_) | Place::Free => false,
        }
    }

    fn lane(&self) -> Option<usize> {
        match self.place {
            Place::Starting { lane } | Place::Here { lane } | Place::Ending { lane } => Some(lane),
            Place::Nowhere | Place::Lost(_) | Place::Free => None,
        }
    }
}

/// All actors of an engine.
#[derive(Debug, Default)]
pub(super) struct Actors {
    table: Vec<Actor>,
    free: Vec<u32>,
    /// Those that wait for a lane.
    homeless: VecDeque<u32>,
    /// Actors that somebody has something to do for, once there is room.
    pub(super) wanting: usize,
    /// Calls that no lane has.
    pub(super) kept: usize,
    /// Whose turn it is: that of the actors, or of the jobs that may run anywhere.
    turn: bool,
}

impl Actors {
    /// Whether actors go first this time: they and what may run anywhere take turns.
    pub(super) fn go_first(&mut self) -> bool {
        self.turn = !self.turn;
        self.turn && self.wanting > 0
    }
}

/// What a lane keeps for the actors whose states it has.
#[derive(Debug, Default)]
pub(super) struct Hosted {
    /// How many.
    count: usize,
    /// Those for which it is to get something, in turn.
    turns: VecDeque<u32>,
}

impl Lane {
    /// How many actors have their state here.
    pub(super) fn actors(&self) -> usize {
        self.hosted.as_ref().map_or(0, |hosted| hosted.count)
    }

    /// Does an actor wait for room in this lane?
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        let hosted = self.hosted.as_ref();
        hosted.is_some_and(|hosted| !hosted.turns.is_empty())
    }
}

impl Core {
    /// A lane has one actor more, and its worker is not replaced before that has ended.
    fn take_in(&mut self, lane: usize) {
        let hosted = self.lanes[lane].hosted.get_or_insert_default();
        hosted.count += 1;
        let worker = self.worker_of(lane);
        self.workers[worker].actors += 1;
        if self.workers[worker].actors == 1 {
            self.lanes_of(worker).for_each(|lane| self.lanes[lane].spare(true));
        }
    }

    /// One of them has ended.
    fn let_out(&mut self, lane: usize) {
        let Some(hosted) = &mut self.lanes[lane].hosted else {
            return;
        };
        hosted.count -= 1;
        if hosted.count == 0 {
            self.lanes[lane].hosted = None;
        }
        let worker = self.worker_of(lane);
        self.workers[worker].actors -= 1;
        if self.workers[worker].actors == 0 {
            self.lanes_of(worker).for_each(|lane| self.lanes[lane].spare(false));
        }
    }

    fn actor(&mut self, index: u32) -> &mut Actor {
        &mut self.actors.table[index as usize]
    }

    fn find_actor(&mut self, id: ActorId) -> Option<&mut Actor> {
        let actor = self.actors.table.get_mut(id.index as usize)?;
        let known = actor.generation == id.generation && !matches!(actor.place, Place::Free);
        known.then_some(actor)
    }

    /// The actor of a job, and what the job does for it.
    fn role(&mut self, record: u32) -> Option<(u32, Role)> {
        let record = self.records.look(record);
        let (index, kernel) = (actor_of(record.group)?, record.kernel);
        let id = self.kernels.get(kernel).info.id;
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

    // ---- making and calling -----------------------------------------------------------------

    /// Makes an actor, as soon as a lane has room for it.
    fn new_actor(&mut self, plan: ActorPlan) -> ActorId {
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
                made: 0,
                failed: 0,
            })
        });
        let given = plan.args.leases.iter().filter_map(|lease| match lease {
            Lease::Shared(block) => Some(Arc::clone(block)),
            // Initial arguments are only read, by type.
            Lease::Owned(_) | Lease::Lent(_) => None,
        });
        let actor = Actor {
            generation: 0,
            place: Place::Nowhere,
            calls: Queue::default(),
            start: plan.start,
            end: plan.end,
            words: plan.args.words().to_vec(),
            given: given.collect(),
            checkpoints,
            posted: 0,
            listed: false,
            ending: false,
            restarts: 0,
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
                u32::try_from(index).ok().filter(|index| index & ACTOR == 0).expect("fewer than 2^31 actors at once")
            }
        };
        match refusal {
            Some(why) => self.lose(index, why),
            None => {
                self.list(index);
                self.refill();
            }
        }
        ActorId {
            index,
            generation: self.actor(index).generation,
        }
    }

    /// Takes a call: it is placed, kept, or refused with an answer.
    fn call_actor(
        &mut self,
        id: ActorId,
        info: &KernelInfo,
        call: &mut ArgWriter,
        terms: Option<&Terms>,
    ) -> JobId {
        let known = self.find_actor(id).is_some();
        if known {
            // What the state holds may come back in the reply.
            let given = &self.actors.table[id.index as usize].given;
            call.leases.extend(given.iter().cloned().map(Lease::Shared));
        }
        // The key of one that is gone says nothing about who is there now.
        let group = if known { ACTOR | id.index } else { 0 };
        let (job, refusal) = self.enter_record(info, call, group, terms);
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
    fn post_call(&mut self, index: u32, record: u32, lane: usize) {
        self.actor(index).posted += 1;
        self.put(record, lane);
    }

    /// Keeps a call until the lane has room.
    #[cold]
    fn keep_call(&mut self, index: u32, record: u32) {
        self.be_watched();
        let actor = &mut self.actors.table[index as usize];
        actor.calls.push_back(record, self.records.look(record));
        let (lane, calls) = (actor.lane(), actor.calls.len());
        self.actors.kept += 1;
        self.list(index);
        // The lane knows already that something is kept, and rings before it runs dry.
        if calls > 1 && !calls.is_multiple_of(LOOK_EVERY) {
            return;
        }
        if let Some(lane) = lane {
            self.flag(lane);
            after_keeping();
            self.drain(lane);
        }
        self.refill();
    }

    /// Nobody calls this actor any more: its state is dropped when it has answered what it was asked.
    pub(super) fn end_actor(&mut self, id: ActorId) {
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

    fn remove_actor(&mut self, index: u32) {
        if self.actor(index).listed && matches!(self.actor(index).place, Place::Nowhere) {
            self.actors.homeless.retain(|&other| other != index);
            self.actors.wanting -= 1;
        }
        let actor = self.actor(index);
        actor.listed = false;
        actor.generation = actor.generation.wrapping_add(1);
        actor.place = Place::Free;
        actor.given.clear();
        actor.words = Vec::new();
        actor.checkpoints = None;
        self.actors.free.push(index);
        self.call_if_drained();
    }

    // ---- feeding lanes ----------------------------------------------------------------------

    /// Somebody may have something to do for this actor.
    fn list(&mut self, index: u32) {
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
    pub(super) fn feed(&mut self, most: usize) {
        let mut left = most;
        while left > 0
            && let Some(&index) = self.actors.homeless.front()
        {
            let Some(lane) = self.home() else { break };
            self.actors.homeless.pop_front();
            self.actors.wanting -= 1;
            self.actor(index).listed = false;
            self.start(index, lane);
            left -= 1;
        }
        for lane in 0..self.lanes.len() {
            left -= self.feed_lane(lane, left);
        }
    }

    /// The same for one lane: actors take turns. Returns how much was placed.
    fn feed_lane(&mut self, lane: usize, most: usize) -> usize {
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

    fn take_turn(&mut self, index: u32, lane: usize) {
        let actor = &mut self.actors.table[index as usize];
        if actor.save_is_due() {
            self.save(index, lane);
        } else if let Some(record) = actor.calls.pop(&self.records) {
            self.actors.kept -= 1;
            self.post_call(index, record, lane);
        } else if actor.ending {
            actor.place = Place::Ending { lane };
            let end = actor.end;
            self.post_for(index, lane, &end, &[], &[]);
        }
    }

    /// The lane for one more actor: that with the fewest.
    fn home(&self) -> Option<usize> {
        let lanes = self.lanes.iter().enumerate();
        let ready = lanes.filter(|(_, lane)| {
            lane.ready && lane.poster.tail() < lane.last
        });
        let (index, lane) =
            ready.min_by_key(|(index, lane)| (lane.actors(), *index))?;
        lane.fits(0).then_some(index)
    }

    fn start(&mut self, index: u32, lane: usize) {
        self.take_in(lane);
        let actor = self.actor(index);
        actor.place = Place::Starting { lane };
        actor.posted = 0;
        let words = actor.words.clone();
        let last = actor.checkpoints.as_mut().and_then(|checkpoints| {
            checkpoints.begin_life();
            let last = checkpoints.last.as_ref()?;
            let at = last.array.block.extent().at;
            let at = Offset::new(at.region(), at.offset() + last.array.skip);
            let words: Vec<u64> = [bytemuck::cast(at)].into_iter().chain(last.words.iter().copied()).collect();
            Some((checkpoints.plan.restore, words, Arc::clone(&last.array.block)))
        });
        match last {
            None => {
                let start = actor.start;
                self.post_for(index, lane, &start, &words, &[]);
            }
            Some((restore, mut all, block)) => {
                all.extend(words);
                self.post_for(index, lane, &restore, &all, &[block]);
            }
        }
    }

    fn save(&mut self, index: u32, lane: usize) {
        let actor = self.actor(index);
        let posted = actor.posted;
        let Some(checkpoints) = &mut actor.checkpoints else {
            return;
        };
        checkpoints.under_way.push_back(posted);
        let save = checkpoints.plan.save;
        self.post_for(index, lane, &save, &[], &[]);
    }

    /// Posts a job that is the engine's own.
    fn post_for(&mut self, index: u32, lane: usize, info: &KernelInfo, words: &[u64], held: &[Arc<Block>]) {
        let actor = &self.actors.table[index as usize];
        let mut call = ArgWriter::new(self.arena.id());
        call.word(actor::key(index, actor.generation));
        words.iter().for_each(|&word| call.word(word));
        let blocks = held.iter().chain(&actor.given).cloned();
        call.leases.extend(blocks.map(Lease::Shared));
        let (job, refusal) = self.enter_record(info, &mut call, ACTOR | index, None);
        let record = self.records.get(job);
        record.detached = true;
        // The monitor places what waits for its end.
        record.requests |= NOTICE;
        // An engine that drains finishes what was begun.
        match refusal.filter(|why| *why != JobErrorKind::ShutDown) {
            Some(why) => self.fail(job.index, why, None, Vec::new()),
            None => self.put(job.index, lane),
        }
    }

    // ---- what has ended ---------------------------------------------------------------------

    /// A job of an actor has ended that nobody asks for.
    #[cold]
    pub(super) fn actor_job_ended(&mut self, record: u32, outcome: Outcome) {
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
            (Role::Start, Outcome::Failed(error)) => self.start_of_actor_failed(index, error.kind()),
            (Role::Start, _) => {
                let actor = self.actor(index);
                if let Place::Starting { lane } = actor.place {
                    actor.place = Place::Here { lane };
                    self.list(index);
                    self.flag(lane);
                }
            }
            (Role::Save, outcome) => {
                let Some(checkpoints) = &mut self.actor(index).checkpoints else {
                    return;
                };
                let holds = checkpoints.under_way.pop_front();
                match (outcome, array, holds) {
                    (Outcome::Inline { .. } | Outcome::Long(_), Some(array), Some(holds)) => {
                        checkpoints.last = Some(Checkpoint { array, words });
                        checkpoints.holds = holds;
                        checkpoints.made += 1;
                    }
                    // The one before still holds, and the next is made after the next call.
                    _ => checkpoints.failed += 1,
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
        self.call_monitor = true;
    }

    /// The initial kernel gave no state.
    fn start_of_actor_failed(&mut self, index: u32, why: &JobErrorKind) {
        if let Some(lane) = self.actor(index).lane() {
            self.let_out(lane);
        }
        // It has nothing to do with what its worker died of.
        if matches!(why, JobErrorKind::LostWith { .. }) {
            self.actor(index).place = Place::Nowhere;
            return self.list(index);
        }
        self.lose(index, lost(why.clone(), 0, false));
    }

    /// The actor is gone for good: whatever waits for it is answered.
    fn lose(&mut self, index: u32, why: JobErrorKind) {
        let actor = &mut self.actors.table[index as usize];
        actor.place = Place::Lost(why.clone());
        actor.given.clear();
        actor.words = Vec::new();
        if let Some(checkpoints) = &mut actor.checkpoints {
            checkpoints.last = None;
        }
        while let Some(record) = self.actors.table[index as usize].calls.pop(&self.records) {
            self.actors.kept -= 1;
            self.fail(record, why.clone(), None, Vec::new());
        }
        if self.actor(index).ending {
            self.remove_actor(index);
        }
        self.call_if_drained();
    }

    /// A job was taken out of its slot before it began.
    #[inline]
    pub(super) fn never_begun(&mut self, record: u32) {
        if actor_of(self.records.look(record).group).is_some() {
            self.call_never_begun(record);
        }
    }

    #[cold]
    fn call_never_begun(&mut self, record: u32) {
        match self.role(record) {
            Some((index, Role::Call)) => self.actor(index).posted -= 1,
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
    pub(super) fn requeue_call(&mut self, record: u32) {
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
        self.records.remove(record);
        let actor = self.actor(index);
        match (role, actor.lane()) {
            (Role::Start, Some(lane)) => {
                actor.place = Place::Nowhere;
                self.let_out(lane);
            }
            (Role::End, Some(lane)) => actor.place = Place::Here { lane },
            _ => {}
        }
        self.list(index);
    }

    /// A call that no lane has is given up; its record is about to say so.
    pub(super) fn unqueue_call(&mut self, index: u32) {
        let actor = &mut self.actors.table[index as usize];
        actor.calls.give_up(&self.records);
        self.actors.kept -= 1;
    }

    /// All actors are lost for this reason.
    pub(super) fn lose_all_actors(&mut self, why: &JobErrorKind) {
        for index in 0..self.actors.table.len() as u32 {
            match self.actor(index).place {
                // What a lane has is answered when its worker is gone.
                Place::Nowhere => {
                    if self.actor(index).listed {
                        self.actor(index).listed = false;
                        self.actors.homeless.retain(|&other| other != index);
                        self.actors.wanting -= 1;
                    }
                    self.lose(index, why.clone());
                }
                Place::Here { .. } | Place::Starting { .. } => self.fail_kept_calls(index, why),
                Place::Ending { .. } | Place::Lost(_) | Place::Free => {}
            }
        }
    }

    fn fail_kept_calls(&mut self, index: u32, why: &JobErrorKind) {
        while let Some(record) = self.actors.table[index as usize].calls.pop(&self.records) {
            self.actors.kept -= 1;
            self.fail(record, why.clone(), None, Vec::new());
        }
    }

    /// After the exit of a worker, when what it had not begun was put back: its actors start again somewhere, or are
    /// lost. `ran`: what may have begun of theirs, and why each of these has no value; `fault`: why the worker is gone,
    /// for those that had nothing to do with it.
    pub(super) fn lose_states(
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
        if self.workers[worker].actors == 0 {
            return;
        }
        for lane in self.lanes_of(worker) {
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
    }

    fn state_is_gone(
        &mut self,
        index: u32,
        lane: usize,
        calls: Vec<(u32, u32, JobErrorKind)>,
        fault: &JobErrorKind,
    ) {
        self.let_out(lane);
        let worker = self.worker_of(lane);
        let cause = calls.first().map_or(fault, |(_, _, why)| why).clone();
        let closing = self.closing == Closing::Now || self.broken.is_some();
        let actor = self.actor(index);
        let held = actor.checkpoints.as_ref().map(|checkpoints| checkpoints.holds);
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
        actor.place = Place::Nowhere;
        actor.restarts += 1;
        if actor.ending && actor.calls.is_empty() {
            return self.remove_actor(index);
        }
        self.list(index);
    }

    fn figures_of_actor(&mut self, id: ActorId) -> Option<ActorFigures> {
        self.drain_busy();
        self.refill();
        let workers = self.workers.len();
        let actor = self.find_actor(id)?;
        let checkpoints = actor.checkpoints.as_ref();
        Some(ActorFigures {
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

impl Shared {
    /// See [`Core::new_actor`].
    pub(crate) fn new_actor(&self, plan: ActorPlan) -> ActorId {
        let mut core = self.lock();
        let id = core.new_actor(plan);
        self.unlock(core);
        id
    }

    /// See [`Core::call_actor`].
    #[inline]
    pub(crate) fn call_actor(
        &self,
        actor: ActorId,
        kernel: &KernelInfo,
        call: &mut ArgWriter,
        terms: Option<&Terms>,
    ) -> JobId {
        let mut core = self.lock();
        let id = if core.admission.is_none() {
            core.call_actor(actor, kernel, call, terms)
        } else {
            let submit =
                |core: &mut Core, call: &mut _| core.call_actor(actor, kernel, call, terms);
            let (admitted, id) = self.submit_admitted(core, kernel, call, submit);
            core = admitted;
            id
        };
        self.unlock(core);
        id
    }

    /// See [`Core::end_actor`].
    pub(crate) fn end_actor(&self, actor: ActorId) {
        let mut core = self.lock();
        core.end_actor(actor);
        self.unlock(core);
    }

    /// Figures of an actor; `None` if it has ended.
    pub(crate) fn figures_of_actor(&self, actor: ActorId) -> Option<ActorFigures> {
        let mut core = self.lock();
        let figures = core.figures_of_actor(actor);
        self.unlock(core);
        figures
    }
}
