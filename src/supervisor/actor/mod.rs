//! Actors: calls that have to run where a state lies, in order. The README of this floor has the rules.

mod calls;
mod losses;
mod pauses;
mod places;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use smallvec::SmallVec;

use super::Shared;
use super::admission::InLine;
use super::core::Core;
use super::error::JobErrorKind;
use super::lane::Lane;
use super::options::JobOptions;
use super::queue::Queue;
use super::record::JobId;
use crate::arena::Block;
use crate::kernel::wire::{ArgWriter, ReceivedArray};
use crate::kernel::{KernelInfo, Receiving, actor};

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
    /// Does this reply say what a `save` returns?
    pub(crate) fits: fn(&mut Receiving<'_>) -> bool,
}

/// How an actor fares: see [`Actor::status`](crate::Actor::status).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ActorStatus {
    /// The worker that has its state now, from 0; `None` while it starts, when it is lost or has ended, and in an inline
    /// engine.
    pub worker: Option<u32>,
    /// Why its calls cannot be answered any more, if they cannot.
    pub lost: Option<JobErrorKind>,
    /// Calls that no worker has yet.
    pub waiting: usize,
    /// How often it went on from a checkpoint, or from its beginning, after its worker had died.
    pub restarts: u64,
    /// Calls that were answered, and that its state has not seen any more since: those after the last checkpoint at each
    /// restart.
    pub forgotten: u64,
    /// Checkpoints that were made.
    pub checkpoints: u64,
    /// Checkpoints that could not be made. The one before stays, and the next is tried after the next call.
    pub failed_checkpoints: u64,
}

/// Where the state of an actor is.
#[derive(Debug)]
enum Place {
    /// In no worker: it waits for a lane.
    Nowhere,
    /// A lane was told to make it.
    Starting {
        lane: usize,
    },
    Here {
        lane: usize,
    },
    /// A lane was told to drop it.
    Ending {
        lane: usize,
    },
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
    array: ReceivedArray,
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
    /// Those that are under way, oldest first.
    under_way: VecDeque<UnderWay>,
    /// The same of the last one that failed. There is no other before the next call, which could wait for ever otherwise.
    failed_at: u64,
    made: u64,
    failed: u64,
}

/// A checkpoint that is being made.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    /// Calls of this life that it will hold: those posted in front of it, without those that were taken back.
    holds: u64,
    /// Where it lies in its lane.
    position: u64,
}

impl Checkpoints {
    /// Is one to be made, after so many calls of this life?
    fn are_due(&self, posted: u64) -> bool {
        let last = self.under_way.back().map_or(self.holds, |last| last.holds);
        posted - last >= self.plan.every && posted > self.failed_at
    }

    fn begin_life(&mut self) {
        self.holds = 0;
        self.failed_at = 0;
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
    /// The seed of what it does by itself: the same each time that it starts.
    seed: u64,
    /// What those arguments name, which the state may keep.
    given: SmallVec<[Arc<Block>; 1]>,
    /// The checkpoint that the present state was made from, which it may keep as well: also when there is a newer one.
    restored: Option<Arc<Block>>,
    checkpoints: Option<Box<Checkpoints>>,
    /// Calls posted in this life, without those that were taken back.
    posted: u64,
    /// It is in the list of those that a lane, or nobody yet, has something to do for.
    listed: bool,
    /// Nobody will call it any more.
    ending: bool,
    restarts: u64,
    /// Starts that died with their worker, one after the other.
    dead_starts: u32,
    /// Restarts that found no room in the arena, one after the other.
    full_starts: u32,
    /// When the next of those is tried.
    due: Option<Instant>,
    /// Calls that were answered, and are not in the state any more.
    forgotten: u64,
}

impl Actor {
    /// There is no state, and another one is to be made.
    fn is_nowhere(&mut self) {
        self.place = Place::Nowhere;
        self.restored = None;
    }

    fn save_is_due(&self) -> bool {
        let checkpoints = self.checkpoints.as_ref();
        checkpoints.is_some_and(|checkpoints| checkpoints.are_due(self.posted))
    }

    /// Has the lane where it is something to get?
    fn wants(&self) -> bool {
        match self.place {
            Place::Nowhere => self.due.is_none(),
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
    /// Those that are tried again at this time.
    paused: BTreeSet<(Instant, u32)>,
    /// Actors that somebody has something to do for, once there is room.
    pub(super) wanting: usize,
    /// Calls that no lane has.
    pub(super) kept: usize,
    /// Whose turn it is: that of the actors, or of the jobs that may run anywhere.
    turn: bool,
}

impl Actors {
    /// Does no actor wait for another try at its start?
    pub(super) fn none_pauses(&self) -> bool {
        self.paused.is_empty()
    }

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
            self.lanes_of(worker)
                .for_each(|lane| self.lanes[lane].spare(true));
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
            self.lanes_of(worker)
                .for_each(|lane| self.lanes[lane].spare(false));
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

    /// A number for the actor that this job starts, which no other actor has, and no job.
    pub(super) fn starts(&mut self, record: u32) -> Option<u64> {
        let (index, role) = self.role(record)?;
        let generation = self.actor(index).generation;
        (role == Role::Start).then_some(u64::MAX - actor::key(index, generation))
    }

    /// The actor of a job, and what the job does for it.
    fn role(&mut self, record: u32) -> Option<(u32, Role)> {
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
}

impl Core {
    fn status_of_actor(&mut self, id: ActorId) -> Option<ActorStatus> {
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
        options: Option<&JobOptions>,
    ) -> JobId {
        let mut core = self.lock();
        let id = if core.admission.is_none() {
            core = self.spilled(core, call);
            core.call_actor(actor, kernel, call, options)
        } else {
            let submit =
                |core: &mut Core, call: &mut _| core.call_actor(actor, kernel, call, options);
            let (admitted, id) = self.submit_admitted(core, kernel, call, submit);
            core = admitted;
            id
        };
        self.unlock(core);
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
        let submit = |core: &mut Core, call: &mut _| core.call_actor(actor, kernel, call, options);
        self.poll_submit(kernel, call, line, context, submit)
    }

    /// See [`Core::end_actor`].
    pub(crate) fn end_actor(&self, actor: ActorId) {
        if self.is_copy() {
            return;
        }
        let mut core = self.lock();
        core.end_actor(actor);
        self.unlock(core);
    }

    /// How an actor fares; `None` if it has ended.
    pub(crate) fn status_of_actor(&self, actor: ActorId) -> Option<ActorStatus> {
        let mut core = self.lock();
        let status = core.status_of_actor(actor);
        self.unlock(core);
        status
    }
}
