//! Groups of jobs that are cancelled together: the jobs of one scope.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::actor::actor_of;
use crate::sys::clock::postponed;

/// Set in the number of a group in which one failure does not cancel the other jobs.
const COLLECTS: u32 = 1 << 30;
/// Group numbers lie below the marks.
const NUMBERS: u32 = COLLECTS - 1;

/// Whether the failure of one job of this group cancels the others.
pub(super) fn fails_together(group: u32) -> bool {
    group != 0 && group & COLLECTS == 0 && actor_of(group).is_none()
}

/// The groups of an engine: see [`Record::group`](super::record::Record::group).
#[derive(Debug, Default)]
pub(super) struct Groups {
    last: u32,
    /// Groups that were cancelled, or in which a job failed, while their scope continues.
    cancelled: HashSet<u32>,
    /// When the grace period of a cancelled group ends: workers that still run one of its jobs are killed then.
    due: BTreeSet<(Instant, u32)>,
}

impl Groups {
    /// A number for a new group. Unless it `collects`, a failure of one job cancels the others.
    pub(super) fn add(&mut self, collects: bool) -> u32 {
        self.last = (self.last + 1) % NUMBERS;
        (self.last + 1) | if collects { COLLECTS } else { 0 }
    }

    /// Whether a new job of this group is cancelled at once.
    #[inline]
    pub(super) fn refuses(&self, group: u32) -> bool {
        group != 0 && self.cancelled.contains(&group)
    }

    /// Marks a group cancelled. False if it was already.
    pub(super) fn cancel(&mut self, group: u32) -> bool {
        self.cancelled.insert(group)
    }

    /// Sets the end of a cancelled group's grace period.
    pub(super) fn set_due(&mut self, group: u32, due: Instant) {
        self.due.insert((due, group));
    }

    /// Takes a group whose grace period has ended.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u32> {
        let &(due, group) = self.due.first().filter(|&&(due, _)| due <= now)?;
        self.due.remove(&(due, group));
        Some(group)
    }

    /// When the next grace period ends.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Moves the ends of all grace periods back by this much.
    pub(super) fn postpone(&mut self, by: Duration) {
        let due = std::mem::take(&mut self.due).into_iter();
        self.due = due
            .map(|(due, group)| (postponed(due, by), group))
            .collect();
    }

    /// Forgets a group: all of its jobs have ended, and no more will come.
    pub(super) fn remove(&mut self, group: u32) {
        if self.cancelled.remove(&group) {
            self.due.retain(|&(_, ending)| ending != group);
        }
    }
}
