//! Exclusive jobs: those with a deadline, in an engine with several lanes per worker. At its deadline such a job costs
//! its worker, so nothing else runs there.
//!
//! An exclusive job is placed in a worker without open jobs, and nothing else is placed there until it ends. If no
//! worker is free the job waits, and one worker is reserved for it while the others continue. Since the job may cost
//! the states of actors in its worker, a worker without actors is preferred.

use super::state::EngineState;
use super::worker::Status;

impl EngineState {
    /// Chooses a lane of a worker without open jobs. The caller posts a job there.
    pub(super) fn choose_for_exclusive(&mut self) -> Option<usize> {
        let workers = 0..self.workers.len();
        let free = |&worker: &usize| {
            self.workers[worker].status() == Status::Ready
                && (!self.is_exclusive(worker) || self.scheduler.reserved() == Some(worker))
                && self
                    .lanes
                    .of_worker(worker)
                    .all(|lane| self.lanes[lane].is_idle())
        };
        let others = |&worker: &usize| self.scheduler.reserved() != Some(worker);
        // The worker's actors would be lost at the deadline.
        let actors = |&worker: &usize| self.workers[worker].actors() > 0;
        let worker = workers
            .filter(free)
            .min_by_key(|worker| (actors(worker), others(worker)))?;
        if self.scheduler.reserved() == Some(worker) {
            self.unreserve();
        }
        let mut lanes = self.lanes.of_worker(worker);
        lanes.find(|&lane| self.lanes[lane].room() > 0)
    }

    fn is_exclusive(&self, worker: usize) -> bool {
        // All lanes of a worker have the same value.
        self.lanes[worker].is_exclusive()
    }

    fn set_exclusive(&mut self, worker: usize, exclusive: bool) {
        for lane in self.lanes.of_worker(worker) {
            self.lanes[lane].set_exclusive(exclusive);
        }
    }

    /// An exclusive job was posted in this lane.
    pub(super) fn begin_exclusive(&mut self, lane: usize) {
        self.set_exclusive(self.lanes.worker_of(lane), true);
    }

    /// This lane has no job with a deadline any more: an exclusive job has ended.
    pub(super) fn end_exclusive(&mut self, lane: usize) {
        let worker = self.lanes.worker_of(lane);
        if self.is_exclusive(worker) && self.scheduler.reserved() != Some(worker) {
            self.set_exclusive(worker, false);
        }
    }

    /// The worker is gone, and with it its reservation.
    pub(super) fn forget_exclusive(&mut self, worker: usize) {
        self.set_exclusive(worker, false);
        if self.scheduler.reserved() == Some(worker) {
            self.scheduler.unreserve();
        }
    }

    /// Ends the reservation of a worker: no job waits for it any more.
    pub(super) fn unreserve(&mut self) {
        if let Some(worker) = self.scheduler.unreserve() {
            self.set_exclusive(worker, false);
        }
    }

    /// Places exclusive jobs that wait, as far as there are workers for them. If `keep`, reserves a worker for the
    /// first of the others.
    #[cold]
    pub(super) fn place_exclusive(&mut self, keep: bool) {
        while let Some(index) = self.queue.pop_exclusive(&self.records) {
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

    /// Places a job that was taken from the queue, exclusive or not.
    pub(super) fn place_popped(&mut self, index: u32) -> bool {
        if !self.records.at(index).is_exclusive() {
            return self.place(index);
        }
        let lane = self.choose_for_exclusive();
        if let Some(lane) = lane {
            self.put(index, lane);
        }
        lane.is_some()
    }

    /// Reserves a worker: keeps it free of new jobs, and takes back what it has not begun. Prefers a worker without
    /// actors, which could get no calls meanwhile, and then the one with the fewest jobs.
    fn reserve(&mut self) {
        if let Some(worker) = self.scheduler.reserved() {
            if self.workers[worker].status() == Status::Ready {
                return;
            }
            self.unreserve();
        }
        let workers = 0..self.workers.len();
        let may = |&worker: &usize| {
            self.workers[worker].status() == Status::Ready && !self.is_exclusive(worker)
        };
        let jobs = |&worker: &usize| -> usize {
            let lanes = self.lanes.of_worker(worker);
            lanes.map(|lane| self.lanes[lane].producer.open()).sum()
        };
        let key = |worker: &usize| (self.workers[*worker].actors() > 0, jobs(worker));
        if let Some(worker) = workers.filter(may).min_by_key(key) {
            self.scheduler.reserve(worker);
            self.set_exclusive(worker, true);
            self.reclaim(self.lanes.of_worker(worker));
        }
    }
}
