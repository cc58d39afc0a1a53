//! Memory that is lent for writing: [`Loans`].

use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::task::Pending;

/// The memory that is lent for writing: each range with the task that borrows it. The table does not keep the reply of
/// a task alive. Loans of ended tasks are removed whenever the table has twice as many entries as remained after the
/// last removal, so its length is limited by the number of open tasks.
#[derive(Default)]
pub struct Loans {
    all: Vec<(Range<usize>, Weak<Pending>)>,
    /// The number of loans at which loans of ended tasks are removed.
    look_at: usize,
}

/// The smallest number of loans at which a removal pays.
const FEW: usize = 64;

impl Loans {
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Refuses a new task if its memory overlaps a loan. `wanted`: the memory that the task borrows; `read`: the memory
    /// that it reads.
    ///
    /// # Errors
    ///
    /// Describes the overlap, and how to avoid it.
    pub fn check(
        &mut self,
        wanted: &[Range<usize>],
        read: &[Range<usize>],
    ) -> Result<(), &'static str> {
        let overlap = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        for (index, new) in wanted.iter().enumerate() {
            if wanted[..index].iter().any(|other| overlap(other, new)) {
                return Err("two arguments of this task are mut() of overlapping memory");
            }
            if read.iter().any(|other| overlap(other, new)) {
                return Err(
                    "an argument of this task is mut() of memory that overlaps what another argument reads: pass it once, \
                     or a copy for reading",
                );
            }
        }
        let is_wanted = |lent: &Range<usize>| wanted.iter().any(|new| overlap(lent, new));
        let looks_at_all = self.all.len() >= self.look_at.max(FEW);
        self.all.retain(|(lent, task)| {
            let is_open = || task.upgrade().is_some_and(|task| !task.is_done());
            !(looks_at_all || is_wanted(lent)) || is_open()
        });
        if looks_at_all {
            self.look_at = 2 * self.all.len();
        }
        if self.all.iter().any(|(lent, _)| is_wanted(lent)) {
            return Err(
                "a part of this memory is lent to another task that has not ended: wait for it, or pass slices that do \
                 not overlap",
            );
        }
        Ok(())
    }

    /// Enters memory that was lent to a task.
    pub fn add(&mut self, lent: Vec<Range<usize>>, task: &Arc<Pending>) {
        let entries = lent.into_iter().map(|range| (range, Arc::downgrade(task)));
        self.all.extend(entries);
    }
}
