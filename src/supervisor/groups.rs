//! Groups of jobs that are cancelled together: the jobs of one scope.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::actor::actor_of;
use crate::sys::clock::postponed;

/// Set in the number of a group in which one failure does not cancel the other jobs.
const COLLECTS: u32 = 1 << 30;
/// The bits of a group's number, below the marks. Numbers begin at 1.
const NUMBERS: u32 = COLLECTS - 1;

/// Whether the failure of one job of this group cancels the others.
pub(super) fn fails_together(group: u32) -> bool {
    group != 0 && group & COLLECTS == 0 && actor_of(group).is_none()
}

/// The groups of an engine: see [`Record::group`](super::record::Record::group).
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The largest number in use so far.
    last: u32,
    /// Numbers up to there of groups that have ended. Only these are reused: a cancel of one scope must not reach another
    /// that is still open.
    free: Vec<u32>,
    /// Groups that were cancelled, or in which a job failed, while their scope continues.
    cancelled: HashSet<u32>,
    /// When the grace period of a cancelled group ends: workers that still run one of its jobs are killed then.
    due: BTreeSet<(Instant, u32)>,
}

impl Groups {
    /// A number for a new group. Unless it `collects`, a failure of one job cancels the others.
    pub(super) fn add(&mut self, collects: bool) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            assert!(self.last < NUMBERS, "fewer than 2^30 scopes at once");
            self.last += 1;
            self.last
        });
        number | if collects { COLLECTS } else { 0 }
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

    /// Forgets a group: all of its jobs have ended, and no more will come. Its number may be given to another.
    pub(super) fn remove(&mut self, group: u32) {
        if self.cancelled.remove(&group) {
            self.due.retain(|&(_, ending)| ending != group);
        }
        self.free.push(group & NUMBERS);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::sys::asked;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(asked::cases(10_000)))]

        /// Whatever scopes begin and end, at the end of the numbers as well, no two open ones share a number, and only
        /// the one that was cancelled is. The model is the set of open scopes.
        #[test]
        fn open_groups_have_different_numbers(
            before in 0..8_u32,
            steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<bool>()), 0..64),
        ) {
            // With at most this many at once, the numbers suffice for any sequence of scopes.
            const MOST: usize = 8;
            let mut groups = Groups { last: NUMBERS - MOST as u32 - before, ..Groups::default() };
            // Open scopes, and whether each is cancelled.
            let mut open = BTreeMap::new();
            for (step, which, collects) in steps {
                let picked = (!open.is_empty()).then(|| *which.get(&open.keys().copied().collect::<Vec<u32>>()));
                match (step, picked) {
                    (0 | 1, _) if open.len() < MOST => {
                        let group = groups.add(collects);
                        prop_assert_eq!(fails_together(group), !collects);
                        prop_assert_eq!(actor_of(group), None);
                        prop_assert_eq!(open.insert(group, false), None, "{} is open", group);
                        let number = |group: &u32| *group & NUMBERS;
                        let numbers: std::collections::BTreeSet<_> = open.keys().map(number).collect();
                        prop_assert_eq!(numbers.len(), open.len());
                    }
                    (2, Some(group)) => {
                        let is_first = !std::mem::replace(open.get_mut(&group).expect("picked"), true);
                        prop_assert_eq!(groups.cancel(group), is_first);
                    }
                    (3, Some(group)) => {
                        open.remove(&group);
                        groups.remove(group);
                    }
                    _ => {}
                }
                for (&group, &is_cancelled) in &open {
                    prop_assert_eq!(groups.refuses(group), is_cancelled);
                }
            }
        }
    }
}
