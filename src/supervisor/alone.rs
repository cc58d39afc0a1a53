//! Jobs that nothing runs beside: those that may cost their worker by a deadline, in an engine with several lanes.
//!
//! Such a job is placed in a worker in which nothing is open, and nothing else is placed there until it is over. Where no
//! worker is free it waits, and one is kept for it; the others go on. What it costs at its deadline are the states of actors
//! that its worker has: one without any is taken first.

use super::lane::Lane;
use super::state::EngineState;
use super::worker::Status;

impl Lane {
    /// Nothing is posted here, because of a job that runs alone or is going to; or that is over.
    fn set_alone(&mut self, alone: bool) {
        self.alone = alone;
        self.set_until();
    }
}

impl EngineState {
    /// A lane of a worker in which nothing is open. The caller posts a job there.
    pub(super) fn choose_alone(&mut self) -> Option<usize> {
        let workers = 0..self.workers.len();
        let free = |&worker: &usize| {
            self.workers[worker].status() == Status::Ready
                && (!self.is_alone(worker) || self.scheduler.reserved() == Some(worker))
                && self
                    .lanes
                    .of_worker(worker)
                    .all(|lane| self.lanes[lane].is_idle())
        };
        let others = |&worker: &usize| self.scheduler.reserved() != Some(worker);
        // At its deadline it would take them along.
        let actors = |&worker: &usize| self.workers[worker].actors > 0;
        let worker = workers
            .filter(free)
            .min_by_key(|worker| (actors(worker), others(worker)))?;
        if self.scheduler.reserved() == Some(worker) {
            self.unreserve();
        }
        let mut lanes = self.lanes.of_worker(worker);
        lanes.find(|&lane| self.lanes[lane].room() > 0)
    }

    fn is_alone(&self, worker: usize) -> bool {
        // All lanes of a worker agree.
        self.lanes[worker].alone
    }

    fn set_alone(&mut self, worker: usize, alone: bool) {
        for lane in self.lanes.of_worker(worker) {
            self.lanes[lane].set_alone(alone);
        }
    }

    /// A job that nothing may run beside was posted in this lane.
    pub(super) fn begin_alone(&mut self, lane: usize) {
        self.set_alone(self.lanes.worker_of(lane), true);
    }

    /// A lane has no job with a deadline any more: if one ran alone it is over.
    pub(super) fn end_alone(&mut self, lane: usize) {
        let worker = self.lanes.worker_of(lane);
        if self.is_alone(worker) && self.scheduler.reserved() != Some(worker) {
            self.set_alone(worker, false);
        }
    }

    /// The worker is gone, and what was kept for it as well.
    pub(super) fn forget_alone(&mut self, worker: usize) {
        self.set_alone(worker, false);
        if self.scheduler.reserved() == Some(worker) {
            self.scheduler.unreserve();
        }
    }

    /// Nobody waits for the worker any more that was kept.
    pub(super) fn unreserve(&mut self) {
        if let Some(worker) = self.scheduler.unreserve() {
            self.set_alone(worker, false);
        }
    }

    /// Places the jobs that wait for a worker of their own, as far as there are any; otherwise one is kept for the first, if `keep`.
    #[cold]
    pub(super) fn place_alone(&mut self, keep: bool) {
        while let Some(index) = self.queue.pop_alone(&self.records) {
            if !self.place_popped(index) {
                self.queue.push_front(index, self.records.at(index));
                if keep {
                    self.reserve();
                }
                return;
            }
            self.scheduler.set_placed_exclusive(true);
        }
        self.unreserve();
    }

    /// Places the first of those that wait, of whatever kind.
    pub(super) fn place_popped(&mut self, index: u32) -> bool {
        if !self.records.at(index).is_alone() {
            return self.place(index);
        }
        let lane = self.choose_alone();
        if let Some(lane) = lane {
            self.put(index, lane);
        }
        lane.is_some()
    }

    /// Keeps a worker free of new jobs, and takes back what it has not begun: one without actors, which could get no calls
    /// meanwhile, and among those the one with the fewest jobs.
    fn reserve(&mut self) {
        if let Some(worker) = self.scheduler.reserved() {
            if self.workers[worker].status() == Status::Ready {
                return;
            }
            self.unreserve();
        }
        let workers = 0..self.workers.len();
        let may = |&worker: &usize| {
            self.workers[worker].status() == Status::Ready && !self.is_alone(worker)
        };
        let jobs = |&worker: &usize| -> usize {
            let lanes = self.lanes.of_worker(worker);
            lanes.map(|lane| self.lanes[lane].producer.open()).sum()
        };
        let key = |worker: &usize| (self.workers[*worker].actors > 0, jobs(worker));
        if let Some(worker) = workers.filter(may).min_by_key(key) {
            self.scheduler.reserve(worker);
            self.set_alone(worker, true);
            self.reclaim(self.lanes.of_worker(worker));
        }
    }
}
