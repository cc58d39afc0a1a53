//! Groups of jobs that are cancelled together: each scope has one.

use std::collections::HashMap;

use super::owner::{Group, Owner};
use super::timers::Entry;

/// The groups of an engine.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The largest number used so far.
    last: u32,
    /// Numbers up to `last` of groups that have ended. Only these are reused: a cancellation of one scope must not
    /// affect another open scope.
    free: Vec<u32>,
    /// Open groups that were cancelled.
    cancelled: HashMap<Group, Cancelled>,
}

#[derive(Debug)]
struct Cancelled {
    /// The number of the job whose failure cancelled the group, if one did.
    culprit: Option<u64>,
    /// The timer that kills the jobs that still run.
    end: Option<Entry>,
}

impl Groups {
    /// Returns the number of a new group. Unless it `collects`, a failure of one job cancels the others.
    pub(super) fn add(&mut self, collects: bool) -> Group {
        let number = self.free.pop().unwrap_or_else(|| {
            let next = self.last.checked_add(1);
            self.last = next.expect("fewer than 2^32 scopes at once");
            self.last
        });
        Group { number, collects }
    }

    /// Returns true if a new job of this owner is cancelled at once.
    #[inline]
    pub(super) fn refuses(&self, owner: Owner) -> bool {
        match owner {
            Owner::Scope { group, .. } => self.is_cancelled(group),
            _ => false,
        }
    }

    /// Returns true if a group was cancelled or one of its jobs has failed.
    pub(super) fn is_cancelled(&self, group: Group) -> bool {
        self.cancelled.contains_key(&group)
    }

    /// Returns the number of the job whose failure cancelled the group.
    pub(super) fn culprit(&self, group: Group) -> Option<u64> {
        self.cancelled.get(&group)?.culprit
    }

    /// Marks a group as cancelled, by the failure of the job with this number or by a call. Returns false if it was
    /// already.
    pub(super) fn cancel(&mut self, group: Group, culprit: Option<u64>) -> bool {
        let is_first = !self.is_cancelled(group);
        if is_first {
            let cancelled = Cancelled { culprit, end: None };
            self.cancelled.insert(group, cancelled);
        }
        is_first
    }

    /// Records the timer that kills the jobs of a cancelled group that still run.
    pub(super) fn set_end(&mut self, group: Group, entry: Entry) {
        if let Some(cancelled) = self.cancelled.get_mut(&group) {
            cancelled.end = Some(entry);
        }
    }

    /// Removes a group whose jobs have all ended, and that will get no more jobs. Another group may get its number.
    /// Returns its timer.
    pub(super) fn remove(&mut self, group: Group) -> Option<Entry> {
        self.free.push(group.number);
        self.cancelled.remove(&group)?.end
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::sys::asked;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(asked::cases(10_000)))]

        /// For any sequence of scopes, even when numbers run out: no two open scopes share a number, and only cancelled
        /// scopes are reported as cancelled, by the first culprit. The model is the set of open scopes.
        #[test]
        fn open_groups_have_different_numbers(
            before in 0..8_u32,
            steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<bool>()), 0..64),
        ) {
            // With at most this number of open scopes, the numbers never run out.
            const MAX: usize = 8;
            let mut groups = Groups { last: u32::MAX - MAX as u32 - before, ..Groups::default() };
            // The open scopes, and the culprit of each that is cancelled.
            let mut open = BTreeMap::new();
            for (job, (step, which, collects)) in (0..).zip(steps) {
                let picked = (!open.is_empty()).then(|| *which.get(&open.keys().copied().collect::<Vec<Group>>()));
                match (step, picked) {
                    (0 | 1, _) if open.len() < MAX => {
                        let group = groups.add(collects);
                        prop_assert_eq!(group.collects, collects);
                        prop_assert_eq!(open.insert(group, None), None, "{:?} is open", group);
                        let numbers: BTreeSet<_> = open.keys().map(|group| group.number).collect();
                        prop_assert_eq!(numbers.len(), open.len());
                    }
                    (2, Some(group)) => {
                        let culprit = collects.then_some(job);
                        let known = open.get_mut(&group).expect("picked");
                        prop_assert_eq!(groups.cancel(group, culprit), known.is_none());
                        known.get_or_insert(culprit);
                    }
                    (3, Some(group)) => {
                        open.remove(&group);
                        groups.remove(group);
                    }
                    _ => {}
                }
                for (&group, &cancelled) in &open {
                    prop_assert_eq!(groups.is_cancelled(group), cancelled.is_some());
                    prop_assert_eq!(groups.culprit(group), cancelled.flatten());
                }
            }
        }
    }
}
