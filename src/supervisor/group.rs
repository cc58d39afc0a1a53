//! Jobs that belong together: those of one scope.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::Shared;
use super::actor::actor_of;
use super::core::Core;
use crate::sys::clock::postponed;

/// Set in the number of a group of which one failure does not cancel the others.
const COLLECTS: u32 = 1 << 30;
/// Numbers of groups below the marks.
const NUMBERS: u32 = COLLECTS - 1;

/// Does the failure of one job of this group cancel the others?
pub(super) fn fails_together(group: u32) -> bool {
    group != 0 && group & COLLECTS == 0 && actor_of(group).is_none()
}

/// The groups of an engine: see [`Record::group`](super::record::Record::group).
#[derive(Debug, Default)]
pub(super) struct Groups {
    last: u32,
    /// Those that were cancelled, or of which a job has failed, while their scope goes on.
    cancelled: HashSet<u32>,
    /// When the workers are ended that still run a job of a cancelled group.
    due: BTreeSet<(Instant, u32)>,
    /// How long a job of a cancelled group may run on.
    pub(super) grace: Duration,
}

impl Groups {
    /// Is a new job of this group cancelled at once?
    #[inline]
    pub(super) fn refuses(&self, group: u32) -> bool {
        group != 0 && self.cancelled.contains(&group)
    }

    /// The next time at which patience with a group ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.due.first().map(|&(due, _)| due)
    }

    /// All ends of patience are so much later.
    pub(super) fn postpone(&mut self, by: Duration) {
        let due = std::mem::take(&mut self.due).into_iter();
        self.due = due
            .map(|(due, group)| (postponed(due, by), group))
            .collect();
    }
}

impl Core {
    /// Cancels the jobs of a group, those that are still to come included. What runs is asked to end, and ended with its
    /// worker when the grace period is over.
    pub(super) fn cancel_group(&mut self, group: u32) {
        if !self.groups.cancelled.insert(group) {
            return;
        }
        let open = self.records.of_group(group);
        open.iter().for_each(|&id| self.cancel(id));
        // A period beyond all clocks never ends.
        if open.iter().any(|&id| self.records.is_open(id))
            && let Some(due) = Instant::now().checked_add(self.groups.grace)
        {
            self.groups.due.insert((due, group));
            self.wake_monitor_by(due);
        }
    }

    /// Ends the workers that run a job of a group whose grace period is over.
    pub(super) fn end_groups(&mut self, now: Instant) {
        while let Some(&(due, group)) = self.groups.due.first()
            && due <= now
        {
            self.groups.due.remove(&(due, group));
            // Ends may be seen in between, but no record is gone: jobs of a scope are never detached, and only their scope takes them.
            for id in self.records.of_group(group) {
                self.cancel_now(id);
            }
        }
    }
}

impl Shared {
    /// A number for jobs that are cancelled together: by [`Shared::cancel_group`], and unless it `collects` also when one
    /// of them fails.
    pub(crate) fn new_group(&self, collects: bool) -> u32 {
        let mut core = self.lock();
        core.groups.last = (core.groups.last + 1) % NUMBERS;
        (core.groups.last + 1) | if collects { COLLECTS } else { 0 }
    }

    /// See [`Core::cancel_group`].
    pub(crate) fn cancel_group(&self, group: u32) {
        let mut core = self.lock();
        core.cancel_group(group);
        core.go_on();
        self.unlock(core);
    }

    /// Was it cancelled, or has one of its jobs failed?
    pub(crate) fn is_group_cancelled(&self, group: u32) -> bool {
        self.lock().groups.refuses(group)
    }

    /// All jobs of the group have ended, and no more will come.
    pub(crate) fn end_group(&self, group: u32) {
        let mut core = self.lock();
        if core.groups.cancelled.remove(&group) {
            core.groups.due.retain(|&(_, ending)| ending != group);
        }
    }
}
