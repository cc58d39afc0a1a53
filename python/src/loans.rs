//! Memory that is lent for writing: [`Loans`].

use std::sync::{Arc, Weak};

use crate::layout::Layout;
use crate::task::Pending;

/// The memory that is lent for writing: each array with the task that borrows it. The table does not keep the reply of
/// a task alive. Loans of ended tasks are removed whenever the table has twice as many entries as remained after the
/// last removal, so its length is limited by the number of open tasks.
#[derive(Default)]
pub struct Loans {
    all: Vec<(Layout, Weak<Pending>)>,
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
    pub fn check(&mut self, wanted: &[Layout], read: &[Layout]) -> Result<(), &'static str> {
        for (index, new) in wanted.iter().enumerate() {
            if wanted[..index].iter().any(|other| other.overlaps(new)) {
                return Err("two arguments of this task are mut() of overlapping memory");
            }
            if read.iter().any(|other| other.overlaps(new)) {
                return Err(
                    "an argument of this task is mut() of memory that overlaps what another argument reads: pass it once, \
                     or a copy for reading",
                );
            }
        }
        let looks_at_all = self.all.len() >= self.look_at.max(FEW);
        let mut is_lent = false;
        self.all.retain(|(lent, task)| {
            let is_wanted = wanted.iter().any(|new| lent.overlaps(new));
            if !(looks_at_all || is_wanted) {
                return true;
            }
            let is_open = task.upgrade().is_some_and(|task| !task.is_done());
            is_lent |= is_wanted && is_open;
            is_open
        });
        if looks_at_all {
            self.look_at = 2 * self.all.len();
        }
        if is_lent {
            return Err(
                "a part of this memory is lent to another task that has not ended: wait for it, or pass slices that do \
                 not overlap",
            );
        }
        Ok(())
    }

    /// Enters memory that was lent to a task.
    pub fn add(&mut self, lent: Vec<Layout>, task: &Arc<Pending>) {
        let entries = lent.into_iter().map(|lent| (lent, Arc::downgrade(task)));
        self.all.extend(entries);
    }
}
