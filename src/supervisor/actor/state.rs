//! The state of an engine's actors: which lane hosts each, and which calls wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::arena::Block;
use crate::array::SealedFile;
use crate::kernel::wire::{ArgWriter, ReceivedArray};
use crate::kernel::{KernelInfo, Receiving, actor};
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::queue::Queue;

/// Number of waiting calls after which the lane is drained again.
pub(super) const LOOK_EVERY: usize = 32;

/// Identifies an actor for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActorId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl ActorId {
    /// The key that the actor's jobs carry as their first argument.
    pub(crate) fn key(self) -> u64 {
        actor::key(self.index, self.generation)
    }
}

/// The kernels and arguments an actor is created from.
#[derive(Debug)]
pub(crate) struct ActorPlan {
    /// Creates the state.
    pub(crate) start: KernelInfo,
    /// Arguments of `start`.
    pub(crate) args: ArgWriter,
    /// Drops the state.
    pub(crate) end: KernelInfo,
    pub(crate) checkpoints: Option<CheckpointPlan>,
}

/// How an actor survives the death of its worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckpointPlan {
    /// Number of calls between two checkpoints.
    pub(crate) every: u64,
    /// Creates a checkpoint.
    pub(crate) save: KernelInfo,
    /// Creates the state from a checkpoint and the arguments of `start`.
    pub(crate) restore: KernelInfo,
    /// Checks that a reply has the type that `save` returns.
    pub(crate) fits: fn(&mut Receiving<'_>) -> bool,
}

/// State of an actor: see [`Actor::status`](crate::Actor::status).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ActorStatus {
    /// The worker that hosts the state, counted from 0. `None` while the actor starts, after it was lost or has ended,
    /// and in an inline engine.
    pub worker: Option<u32>,
    /// Why no further call can be answered, if the actor is lost.
    pub lost: Option<JobErrorKind>,
    /// Number of calls that no worker has yet.
    pub waiting: usize,
    /// Number of restarts, from a checkpoint or from the beginning, after a worker died.
    pub restarts: u64,
    /// Number of answered calls that the state no longer contains: those after the last checkpoint, summed over all
    /// restarts.
    pub forgotten: u64,
    /// Number of checkpoints made.
    pub checkpoints: u64,
    /// Number of checkpoints that failed. The previous one stays, and the next is tried after the next call.
    pub failed_checkpoints: u64,
}

/// Where an actor is in its lifecycle.
#[derive(Debug)]
pub(super) enum ActorStage {
    /// No worker hosts the state; the actor waits for a lane.
    Unplaced,
    /// The start was posted to this lane.
    Starting {
        lane: usize,
    },
    Hosted {
        lane: usize,
    },
    /// The drop of the state was posted to this lane.
    Ending {
        lane: usize,
    },
    /// No worker hosts the state, and none will.
    Lost(JobErrorKind),
    /// The table entry is unused.
    Free,
}

/// A saved state.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) array: ReceivedArray,
    /// Shape of the array.
    pub(super) words: SmallVec<[u64; 4]>,
}

#[derive(Debug)]
pub(super) struct Checkpoints {
    pub(super) plan: CheckpointPlan,
    pub(super) last: Option<Checkpoint>,
    /// Calls of this generation that `last` contains.
    pub(super) call_count: u64,
    /// Saves that were posted and have not ended, oldest first.
    pub(super) under_way: VecDeque<UnderWay>,
    /// Number of posted calls at the last failed save. No save is due before the next call: a save that always fails
    /// would repeat without end.
    pub(super) failed_at: u64,
    pub(super) made: u64,
    pub(super) failed: u64,
}

/// A save that was posted and has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    /// Calls of this generation that it will contain: those posted before it, minus those retracted.
    pub(super) call_count: u64,
    /// Position of the save in its lane.
    pub(super) position: u64,
}

impl Checkpoints {
    /// Whether a save is due after `posted` calls of this generation.
    pub(super) fn are_due(&self, posted: u64) -> bool {
        let last = self
            .under_way
            .back()
            .map_or(self.call_count, |last| last.call_count);
        posted - last >= self.plan.every && posted > self.failed_at
    }

    pub(super) fn begin_generation(&mut self) {
        self.call_count = 0;
        self.failed_at = 0;
        self.under_way.clear();
    }
}

/// One actor.
#[derive(Debug)]
pub(super) struct Actor {
    pub(super) generation: u32,
    pub(super) stage: ActorStage,
    /// Calls that no lane has yet.
    pub(super) calls: Queue,
    pub(super) start: KernelInfo,
    pub(super) end: KernelInfo,
    /// Arguments of the start, without the key.
    pub(super) start_words: Arc<[u64]>,
    /// Seed for the random numbers of its start: the same for each restart.
    pub(super) seed: u64,
    /// Blocks that the arguments name. The state may keep them.
    pub(super) start_blocks: SmallVec<[Arc<Block>; 1]>,
    /// Files of stores that the arguments name: each start opens them.
    pub(super) start_files: Vec<Arc<SealedFile>>,
    /// The checkpoint that the present state was made from. The state may keep it even after a newer one was made.
    pub(super) restored: Option<Arc<Block>>,
    pub(super) checkpoints: Option<Box<Checkpoints>>,
    /// Calls posted in this generation, minus those retracted.
    pub(super) posted: u64,
    /// Listed in `Actors::unplaced` or in its lane's `turns`: there is work to post for it.
    pub(super) is_listed: bool,
    /// The handle was dropped: no further call will come.
    pub(super) is_ending: bool,
    pub(super) restarts: u64,
    /// Consecutive starts that died with their worker.
    pub(super) dead_starts: u32,
    /// Consecutive restarts that found the arena full.
    pub(super) full_starts: u32,
    /// When the restart that found the arena full is tried again.
    pub(super) due: Option<Instant>,
    /// Answered calls that the state no longer contains.
    pub(super) forgotten: u64,
}

impl Actor {
    /// Discards the state; another one is to be made.
    pub(super) fn unplace(&mut self) {
        self.stage = ActorStage::Unplaced;
        self.restored = None;
    }

    pub(super) fn save_is_due(&self) -> bool {
        let checkpoints = self.checkpoints.as_ref();
        checkpoints.is_some_and(|checkpoints| checkpoints.are_due(self.posted))
    }

    /// Whether there is work to post for the actor, now or once a lane hosts it.
    pub(super) fn has_work(&self) -> bool {
        match self.stage {
            ActorStage::Unplaced => self.due.is_none(),
            ActorStage::Hosted { .. } => {
                !self.calls.is_empty() || self.save_is_due() || self.is_ending
            }
            ActorStage::Starting { .. }
            | ActorStage::Ending { .. }
            | ActorStage::Lost(_)
            | ActorStage::Free => false,
        }
    }

    pub(super) fn lane(&self) -> Option<usize> {
        match self.stage {
            ActorStage::Starting { lane }
            | ActorStage::Hosted { lane }
            | ActorStage::Ending { lane } => Some(lane),
            ActorStage::Unplaced | ActorStage::Lost(_) | ActorStage::Free => None,
        }
    }
}

/// All actors of an engine.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Actors {
    pub(super) table: Vec<Actor>,
    pub(super) free: Vec<u32>,
    /// Actors that wait for a lane.
    pub(super) unplaced: VecDeque<u32>,
    /// Number of actors with `is_listed` set.
    pub(super) listed_count: usize,
    /// Calls that no lane has yet.
    pub(super) waiting_calls: usize,
    /// Whether actors were placed before ordinary jobs the last time; they take turns.
    pub(super) turn: bool,
}

impl Actors {
    /// Whether there is work to post for some actor, once there is room.
    pub(in crate::supervisor) fn has_listed(&self) -> bool {
        self.listed_count > 0
    }

    /// Number of calls that no lane has yet.
    pub(in crate::supervisor) fn waiting_calls(&self) -> usize {
        self.waiting_calls
    }

    /// Whether actors are placed before ordinary jobs this time. Alternates with each call.
    pub(in crate::supervisor) fn take_first_turn(&mut self) -> bool {
        self.turn = !self.turn;
        self.turn && self.listed_count > 0
    }
}

/// What a lane keeps about the actors that it hosts.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct HostedActors {
    /// Number of actors.
    pub(super) count: usize,
    /// Actors with work to post, served in turn.
    pub(super) turns: VecDeque<u32>,
}

impl HostedActors {
    /// Number of actors.
    pub(in crate::supervisor) fn count(&self) -> usize {
        self.count
    }

    /// Whether one of the actors has work to post.
    #[inline]
    pub(in crate::supervisor) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }
}
