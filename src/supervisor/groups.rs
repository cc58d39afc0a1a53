//! Groups of jobs that are cancelled together: the jobs of one scope.

use std::collections::HashSet;

use super::owner::{Group, Owner};

/// The groups of an engine.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The largest number in use so far.
    last: u32,
    /// Numbers up to there of groups that have ended. Only these are reused: a cancel of one scope must not reach another
    /// that is still open.
    free: Vec<u32>,
    /// Groups that were cancelled, or in which a job failed, while their scope continues.
    cancelled: HashSet<Group>,
}

impl Groups {
    /// A number for a new group. Unless it `collects`, a failure of one job cancels the others.
    pub(super) fn add(&mut self, collects: bool) -> Group {
        let number = self.free.pop().unwrap_or_else(|| {
            let next = self.last.checked_add(1);
            self.last = next.expect("fewer than 2^32 scopes at once");
            self.last
        });
        Group { number, collects }
    }

    /// Whether a new job of this owner is cancelled at once.
    #[inline]
    pub(super) fn refuses(&self, owner: Owner) -> bool {
        match owner {
            Owner::Scope { group, .. } => self.is_cancelled(group),
            _ => false,
        }
    }

    /// Whether a group was cancelled, or one of its jobs has failed.
    pub(super) fn is_cancelled(&self, group: Group) -> bool {
        self.cancelled.contains(&group)
    }

    /// Marks a group cancelled. False if it was already.
    pub(super) fn cancel(&mut self, group: Group) -> bool {
        self.cancelled.insert(group)
    }

    /// Forgets a group: all of its jobs have ended, and no more will come. Its number may be given to another. Returns
    /// whether it was cancelled.
    pub(super) fn remove(&mut self, group: Group) -> bool {
        self.free.push(group.number);
        self.cancelled.remove(&group)
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

        /// Whatever scopes begin and end, at the end of the numbers as well, no two open ones share a number, and only
        /// the one that was cancelled is. The model is the set of open scopes.
        #[test]
        fn open_groups_have_different_numbers(
            before in 0..8_u32,
            steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<bool>()), 0..64),
        ) {
            // With at most this many at once, the numbers suffice for any sequence of scopes.
            const MOST: usize = 8;
            let mut groups = Groups { last: u32::MAX - MOST as u32 - before, ..Groups::default() };
            // Open scopes, and whether each is cancelled.
            let mut open = BTreeMap::new();
            for (step, which, collects) in steps {
                let picked = (!open.is_empty()).then(|| *which.get(&open.keys().copied().collect::<Vec<Group>>()));
                match (step, picked) {
                    (0 | 1, _) if open.len() < MOST => {
                        let group = groups.add(collects);
                        prop_assert_eq!(group.collects, collects);
                        prop_assert_eq!(open.insert(group, false), None, "{:?} is open", group);
                        let numbers: BTreeSet<_> = open.keys().map(|group| group.number).collect();
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
                    prop_assert_eq!(groups.is_cancelled(group), is_cancelled);
                }
            }
        }
    }
}
