//! The actors of an engine: the lane that hosts each, and the number of its calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::arena::Block;
use crate::array::SealedFile;
use crate::kernel::wire::{ArgWriter, ReceivedArray};
use crate::kernel::{KernelInfo, Receiving, actor};
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::job_table::JobTable;
use crate::supervisor::owner::{Owner, Role};
use crate::supervisor::queue::{Constraint, Queue};
use crate::supervisor::timers::{Timer, Timers};

/// Each time the number of waiting calls is a multiple of this, the lane is drained again.
pub(super) const LOOK_EVERY: usize = 32;

/// Identifies an actor for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActorId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl ActorId {
    /// Returns the key that the actor's jobs carry as their first argument.
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
    /// Number of submitted calls that were not posted to a worker yet.
    pub waiting: usize,
    /// Number of restarts, from a checkpoint or from the beginning, after a worker died.
    pub restarts: u64,
    /// Number of answered calls that the state no longer contains: those after the last checkpoint, summed over all
    /// restarts.
    pub forgotten: u64,
    /// Number of checkpoints made.
    pub checkpoints: u64,
    /// Number of checkpoints that failed. After a failure, the previous checkpoint is retained and the next save
    /// follows the next call.
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
    /// The actor is lost: no worker hosts its state, and it is not restarted.
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
    /// Number of calls of this generation whose effects `last` contains.
    pub(super) call_count: u64,
    /// Saves that were posted and have not ended, oldest first.
    pub(super) under_way: VecDeque<UnderWay>,
    /// Number of posted calls when a save failed last. No save is due before the next call: otherwise a save that
    /// always fails would be repeated endlessly.
    pub(super) failed_at: u64,
    pub(super) made: u64,
    pub(super) failed: u64,
}

/// A save that was posted and has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderWay {
    /// Number of calls of this generation whose effects the save will contain: posted before it and not retracted.
    pub(super) call_count: u64,
    /// Position of the save in its lane.
    pub(super) position: u64,
}

impl Checkpoints {
    /// Returns whether a save is due after `posted` calls of this generation.
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
    pub(super) start: KernelInfo,
    pub(super) end: KernelInfo,
    /// Arguments of the start, without the key.
    pub(super) start_words: Arc<[u64]>,
    /// The seed of the random numbers that the start draws: the same for each restart.
    pub(super) seed: u64,
    /// Blocks of the start's arguments. The state may use them.
    pub(super) start_blocks: SmallVec<[Arc<Block>; 1]>,
    /// Files of stores among the start's arguments. Each start opens them.
    pub(super) start_files: Vec<Arc<SealedFile>>,
    /// The checkpoint from which the present state was restored. The state may use its block even after a newer save.
    pub(super) restored: Option<Arc<Block>>,
    pub(super) checkpoints: Option<Box<Checkpoints>>,
    /// Number of calls posted in this generation and not retracted.
    pub(super) posted: u64,
    /// Whether the handle was dropped: then no further call will come.
    pub(super) is_ending: bool,
    pub(super) restarts: u64,
    /// Number of consecutive starts that ended with the death of their worker.
    pub(super) dead_starts: u32,
    /// Number of consecutive restarts that found the arena full.
    pub(super) full_starts: u32,
    /// The time of the next restart after a restart found the arena full.
    pub(super) due: Option<Instant>,
    /// Answered calls that the state no longer contains.
    pub(super) forgotten: u64,
}

impl Actor {
    /// Frees the arguments and blocks that only another start needs.
    pub(super) fn forget_start(&mut self) {
        self.start_blocks.clear();
        self.start_files.clear();
        self.restored = None;
        self.start_words = [].into();
    }

    #[cold]
    fn retracted(&mut self, role: Role, position: u64) {
        match (role, &mut self.checkpoints) {
            (Role::Call { .. }, checkpoints) => {
                self.posted -= 1;
                // Saves that were posted after the call contain one call less.
                let under_way = checkpoints.iter_mut().flat_map(|all| &mut all.under_way);
                for made in under_way.filter(|made| made.position > position) {
                    made.call_count -= 1;
                }
            }
            (Role::Save, Some(checkpoints)) => _ = checkpoints.under_way.pop_back(),
            (Role::Save | Role::Start | Role::End, _) => {}
        }
    }

    /// Records that no worker hosts the state. The actor will be placed again.
    pub(super) fn unplace(&mut self) {
        self.stage = ActorStage::Unplaced;
        self.restored = None;
    }

    pub(super) fn save_is_due(&self) -> bool {
        let checkpoints = self.checkpoints.as_ref();
        checkpoints.is_some_and(|checkpoints| checkpoints.are_due(self.posted))
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
    table: Vec<Actor>,
    free: Vec<u32>,
}

impl Actors {
    /// Adds an actor under a free index.
    pub(super) fn add(&mut self, actor: Actor) -> ActorId {
        let index = self.free.pop().unwrap_or(self.table.len() as u32);
        match self.table.get_mut(index as usize) {
            Some(free) => {
                let generation = free.generation;
                *free = Actor {
                    generation,
                    ..actor
                };
            }
            None => self.table.push(actor),
        }
        let generation = self.get(index).generation;
        ActorId { index, generation }
    }

    /// Frees the index of an actor.
    pub(super) fn remove(&mut self, index: u32) {
        let actor = self.get(index);
        actor.generation = actor.generation.wrapping_add(1);
        actor.stage = ActorStage::Free;
        actor.forget_start();
        actor.checkpoints = None;
        self.free.push(index);
    }

    pub(super) fn get(&mut self, index: u32) -> &mut Actor {
        &mut self.table[index as usize]
    }

    pub(super) fn find(&mut self, id: ActorId) -> Option<&mut Actor> {
        let actor = self.table.get_mut(id.index as usize)?;
        let known = actor.generation == id.generation && !matches!(actor.stage, ActorStage::Free);
        known.then_some(actor)
    }

    /// Returns the indices of all actors, present or past.
    pub(super) fn indices(&self) -> std::ops::Range<u32> {
        0..self.table.len() as u32
    }

    /// Returns where a job of the actor may be posted now. `None` if the actor has no job to post.
    pub(super) fn wants(
        &self,
        index: u32,
        queue: &Queue,
        records: &JobTable,
    ) -> Option<Constraint> {
        let actor = &self.table[index as usize];
        match actor.stage {
            ActorStage::Unplaced if actor.due.is_none() => Some(Constraint::Host),
            ActorStage::Hosted { lane }
                if queue.has_whole_call(index, records)
                    || actor.save_is_due()
                    || actor.is_ending && queue.calls_of(index) == 0 =>
            {
                Some(Constraint::Lane(lane))
            }
            _ => None,
        }
    }

    /// Gives an actor its turn in the queue if it has a job to post.
    pub(super) fn queue_actor(&self, index: u32, queue: &mut Queue, records: &JobTable) {
        if let Some(constraint) = self.wants(index, queue, records) {
            queue.queue_actor(index, constraint);
        }
    }

    /// Cancels the scheduled restart.
    pub(super) fn end_pause(&mut self, index: u32, timers: &mut Timers) {
        if let Some(due) = self.get(index).due.take() {
            timers.remove_start(due, Timer::ActorStart(index));
        }
    }

    /// If this job starts an actor, returns a number for the start that is unique among all actors and jobs.
    pub(in crate::supervisor) fn started_by(&self, owner: Owner) -> Option<u64> {
        let Owner::Actor {
            actor: index,
            role: Role::Start,
        } = owner
        else {
            return None;
        };
        let generation = self.table[index as usize].generation;
        Some(u64::MAX - actor::key(index, generation))
    }

    /// Updates the accounting of an actor whose job was retracted from this position before it began.
    #[inline]
    pub(in crate::supervisor) fn retracted(&mut self, owner: Owner, position: u64) {
        if let Owner::Actor { actor, role } = owner {
            self.get(actor).retracted(role, position);
        }
    }
}
