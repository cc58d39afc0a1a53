//! Replacing workers that have done nothing wrong: after so many jobs, or when they have grown too large.

use std::ops::Range;

use super::core::Core;
use super::lane::{Lane, NOBODY, Status};
use crate::link::STOP;

/// When a worker is replaced although it works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recycling {
    /// After so many jobs; `u64::MAX`: never.
    pub(crate) jobs: u64,
    /// When it has more private memory than so many bytes; `u64::MAX`: never.
    pub(crate) above: u64,
}

impl Default for Recycling {
    fn default() -> Self {
        Self {
            jobs: u64::MAX,
            above: u64::MAX,
        }
    }
}

impl Lane {
    /// Jobs that may be posted now: none beyond the last one that this worker may have.
    #[inline]
    pub(super) fn room(&self) -> usize {
        if self.poster.tail() >= self.until {
            return 0;
        }
        self.poster.room()
    }

    /// Nothing is posted, or it goes on.
    pub(super) fn hold(&mut self, held: bool) {
        self.until = if held { 0 } else { self.last };
    }

    /// The next worker may have so many jobs.
    pub(super) fn begin_life(&mut self, recycling: &Recycling) {
        let held = self.until == 0;
        self.last = self.poster.tail().saturating_add(recycling.jobs);
        self.hold(held);
        self.retiring = false;
        self.jobs_before = self.jobs;
    }

    /// Jobs that the present worker has finished.
    pub(super) fn jobs_of_life(&self) -> u64 {
        self.jobs - self.jobs_before
    }

    /// The present worker has had all jobs that it may have, and ended them.
    pub(super) fn has_served(&self) -> bool {
        self.poster.tail() >= self.last && self.is_idle()
    }
}

impl Core {
    /// The worker of this lane ends what it runs and is replaced then; what it holds ahead goes back to the queue.
    #[cold]
    pub(super) fn retire(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.status != Status::Ready {
            return;
        }
        lane.status = Status::Leaving;
        lane.retiring = true;
        self.ready -= 1;
        crate::sync::point!("recycle.retired");
        self.reclaim(index..index + 1);
        crate::sync::point!("recycle.reclaimed");
        let lane = &mut self.lanes[index];
        lane.poster.set_flags(STOP);
        crate::sync::point!("recycle.told");
        lane.poster.ring();
        crate::sync::point!("recycle.rung");
        // The others may have what came back.
        self.call_monitor = true;
    }

    /// Takes back what these lanes have not begun, to the front of the queue, in order.
    pub(super) fn reclaim(&mut self, lanes: Range<usize>) {
        let mut back = Vec::new();
        for index in lanes {
            for position in self.lanes[index].poster.open_positions().rev() {
                let record = self.lanes[index].record_at(position);
                if record == NOBODY {
                    continue;
                }
                if !self.take_back(index, position) {
                    break;
                }
                back.push(record);
            }
        }
        back.sort_unstable_by_key(|&record| self.records.at(record).job);
        for record in back.into_iter().rev() {
            self.requeue(record);
            self.tell_moved(record);
        }
        self.update_flags();
    }
}
