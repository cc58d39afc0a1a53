//! Replaces workers that have not failed, after a number of jobs or when they have grown too large.

use std::time::Instant;

use super::state::EngineState;
use super::worker::Status;
use crate::link::STOP;

impl EngineState {
    /// Retires a worker: it ends the jobs that it runs, and is then replaced. Its unbegun jobs go back to the queue.
    #[cold]
    pub(super) fn retire(&mut self, worker: usize) {
        if self.workers[worker].status() != Status::Ready {
            return;
        }
        self.set_status(worker, Status::Leaving);
        self.workers[worker].retire();
        crate::sync::point!("recycle.retired");
        self.reclaim(self.lanes.of_worker(worker));
        crate::sync::point!("recycle.reclaimed");
        for lane in self.lanes.of_worker(worker) {
            self.lanes[lane].producer.set_flags(STOP);
        }
        crate::sync::point!("recycle.requested");
        for lane in self.lanes.of_worker(worker) {
            self.lanes[lane].producer.ring();
        }
        crate::sync::point!("recycle.rung");
        self.expect_end(worker);
        // Other workers may run the requeued jobs.
        self.monitor.call();
    }

    /// Starts the grace period of a worker that was asked to end, if it has no jobs left.
    #[cold]
    pub(super) fn expect_end(&mut self, worker: usize) {
        let has_job = |lane: usize| self.lanes[lane].held().next().is_some();
        let own = &self.workers[worker];
        let is_told = own.is_retiring() && own.status() == Status::Leaving;
        if !is_told || own.ends_by().is_some() || self.lanes.of_worker(worker).any(has_job) {
            return;
        }
        // A grace period beyond the range of the clock never ends.
        let ends_by = Instant::now().checked_add(self.config.grace);
        self.workers[worker].set_ends_by(ends_by);
        if let Some(at) = ends_by {
            self.monitor.call_for_end(at);
        }
    }
}
