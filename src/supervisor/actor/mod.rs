//! Actors: calls that have to run where a state lies, in order. The README of this floor has the rules.

mod calls;
mod handle;
mod losses;
mod pauses;
mod places;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::error::JobErrorKind;
use super::queue::Queue;
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

impl Hosted {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Does an actor wait for room in the lane?
    #[inline]
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }
}
