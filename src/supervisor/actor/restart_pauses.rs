//! Pauses between restarts of an actor while the arena is full. The actor's checkpoint is retained.

use std::time::Instant;

use super::state::Actors;
use crate::supervisor::error::{JobErrorKind, JobLimit};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::queue::Queue;
use crate::supervisor::recover::START_PAUSES;
use crate::supervisor::state::EngineState;
use crate::supervisor::timers::{Timer, Timers};

/// The maximum number of consecutive restarts before the actor is lost, which takes about 15 seconds.
const MAX_TRIES: u32 = 20;

impl EngineState {
    /// Schedules another restart if the start failed because the arena was full. Returns true if one was scheduled.
    pub(super) fn pause_restart(&mut self, index: u32, why: &JobErrorKind) -> bool {
        let closing = self.lifecycle.closes_now() || self.lifecycle.broken().is_some();
        let actor = self.actors.get(index);
        // A first start is not repeated: its caller can free memory and create the actor again, and no state is lost.
        let is_full = matches!(
            why,
            JobErrorKind::Limit(JobLimit::Arena(_) | JobLimit::ArenaShare(_))
        );
        if !is_full || actor.restarts == 0 || actor.full_starts >= MAX_TRIES || closing {
            return false;
        }
        actor.full_starts += 1;
        let due = Instant::now() + START_PAUSES.pause(actor.full_starts, index.into());
        actor.due = Some(due);
        self.timers.add(due, Timer::ActorStart(index));
        self.monitor.call_before(due);
        true
    }
}

impl Actors {
    /// Gives an actor its turn again after its pause. Does nothing if the pause has been ended in the meantime.
    pub(in crate::supervisor) fn restart_after_pause(
        &mut self,
        index: u32,
        due: Instant,
        (timers, queue, records): (&mut Timers, &mut Queue, &JobTable),
    ) {
        if self.get(index).due == Some(due) {
            self.end_pause(index, timers);
            self.queue_actor(index, queue, records);
        }
    }
}
