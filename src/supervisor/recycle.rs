//! Recycling: replacing workers that have not failed, after a number of jobs or when they have grown too large.

use std::time::Instant;

use super::settings::Recycling;
use super::state::EngineState;
use super::worker::{Status, Worker};
use crate::link::STOP;

impl EngineState {
    /// Begins the next generation of a worker, which may have a number of jobs, in equal shares for its lanes.
    pub(super) fn begin_generation(&mut self, worker: usize, recycling: &Recycling) {
        let lanes = self.lanes.per_worker() as u64;
        for (number, lane) in (0..).zip(self.lanes.of_worker(worker)) {
            let more = u64::from(number < recycling.jobs % lanes);
            let share = match recycling.jobs {
                u64::MAX => u64::MAX,
                jobs => jobs / lanes + more,
            };
            self.lanes[lane].begin_generation(share);
        }
        self.workers[worker].begin_generation();
        self.lanes.forget_exclusive(worker);
    }

    /// Jobs that the present generation of this worker has finished.
    pub(super) fn jobs_of_generation(&self, worker: usize) -> u64 {
        let jobs = |lane: usize| self.lanes[lane].jobs_of_generation();
        self.lanes.of_worker(worker).map(jobs).sum()
    }

    /// Retires the worker of a lane that has served, if all of its lanes have.
    #[cold]
    pub(super) fn retire_if_served(&mut self, lane: usize) {
        let worker = self.lanes.worker_of(lane);
        if self
            .lanes
            .of_worker(worker)
            .all(|lane| self.lanes[lane].has_served())
        {
            self.retire(worker);
        }
    }

    /// Retires a worker: it ends what it runs and is replaced then. What it holds ahead goes back to the queue.
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
        // Other workers may run what came back.
        self.monitor.call();
    }

    /// Starts the grace period of a worker that was asked to end, once it has nothing left to do.
    #[cold]
    pub(super) fn expect_end(&mut self, worker: usize) {
        let has_job = |lane: usize| {
            let lane = &self.lanes[lane];
            let mut open = lane.producer.open_positions();
            open.any(|position| lane.holds(position))
        };
        let own = &self.workers[worker];
        let is_told = own.is_retiring() && own.status() == Status::Leaving;
        if !is_told || own.ends_by().is_some() || self.lanes.of_worker(worker).any(has_job) {
            return;
        }
        // A period beyond the range of the clock never ends.
        let ends_by = Instant::now().checked_add(self.config.grace());
        self.workers[worker].set_ends_by(ends_by);
        if let Some(at) = ends_by {
            self.monitor.call_before(at);
        }
    }

    /// When the next grace period of a retiring worker ends.
    pub(super) fn leavers_due(&self) -> Option<Instant> {
        self.workers.iter().filter_map(Worker::ends_by).min()
    }

    /// Kills workers that were asked to end and have not: they are stopped, or taken over by a job.
    pub(super) fn end_leavers(&mut self, now: Instant) {
        for worker in &mut self.workers {
            if worker.is_overdue(now) {
                worker.kill();
            }
        }
    }
}
