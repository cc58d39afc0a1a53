//! Pauses of actors whose restart found the arena full. Their checkpoint is retained.

use std::time::{Duration, Instant};

use crate::supervisor::error::{JobErrorKind, JobLimit};
use crate::supervisor::options::Backoff;
use crate::supervisor::state::EngineState;
use crate::supervisor::timers::Timer;

/// Pause between two tries.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
/// Consecutive tries before the actor is given up: about a quarter of a minute.
const MAX_TRIES: u32 = 20;

impl EngineState {
    /// Schedules another try if the start failed for a reason that may pass. Returns whether it did.
    pub(super) fn pause_restart(&mut self, index: u32, why: &JobErrorKind) -> bool {
        let closing = self.lifecycle.closes_now() || self.lifecycle.broken().is_some();
        let actor = self.actors.get(index);
        // The caller of a first start can free memory and call `actor` again; nothing is lost.
        let is_full = matches!(
            why,
            JobErrorKind::Limit(JobLimit::Arena(_) | JobLimit::ArenaShare(_))
        );
        if !is_full || actor.restarts == 0 || actor.full_starts >= MAX_TRIES || closing {
            return false;
        }
        actor.full_starts += 1;
        let due = Instant::now() + PAUSES.pause(actor.full_starts, index.into());
        actor.due = Some(due);
        self.timers.add(due, Timer::ActorStart(index));
        self.monitor.call_before(due);
        true
    }
}
