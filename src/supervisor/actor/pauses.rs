//! Actors whose restart found the arena full: their checkpoint is kept, and they are tried again after a pause.

use std::time::{Duration, Instant};

use crate::supervisor::error::JobErrorKind;
use crate::supervisor::options::Backoff;
use crate::supervisor::state::EngineState;

/// Between two tries.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
/// Tries in a row before the actor is given up: those of about a quarter of a minute.
const MOST: u32 = 20;

impl EngineState {
    /// A start failed for this reason: may it be otherwise in a while? Then the actor is tried again.
    pub(super) fn starts_later(&mut self, index: u32, why: &JobErrorKind) -> bool {
        let closing = self.lifecycle.closes_now() || self.lifecycle.broken().is_some();
        let actor = self.actor(index);
        // The caller of the first start can make room and call `actor` again: nothing is lost then.
        if !matches!(why, JobErrorKind::ArenaFull(_))
            || actor.restarts == 0
            || actor.full_starts >= MOST
            || closing
        {
            return false;
        }
        actor.full_starts += 1;
        let due = Instant::now() + PAUSES.pause(actor.full_starts, index.into());
        actor.due = Some(due);
        self.actors.paused.insert((due, index));
        self.monitor.call_before(due);
        true
    }

    /// The actor does not wait for another try any more.
    pub(super) fn end_pause_of_actor(&mut self, index: u32) {
        if let Some(due) = self.actor(index).due.take() {
            self.actors.paused.remove(&(due, index));
        }
    }

    /// When the first of them is to be tried again.
    pub(in crate::supervisor) fn actors_due(&self) -> Option<Instant> {
        self.actors.paused.first().map(|&(due, _)| due)
    }

    /// Those whose pause is over wait for a lane again.
    pub(in crate::supervisor) fn end_pauses_of_actors(&mut self, now: Instant) {
        while let Some(&(due, index)) = self.actors.paused.first()
            && due <= now
        {
            self.end_pause_of_actor(index);
            self.list(index);
        }
    }
}
