//! Replacing workers that have done nothing wrong: after so many jobs, or when they have grown too large.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::lane::Lane;
use super::settings::Recycling;
use super::state::EngineState;
use super::worker::Status;
use crate::link::STOP;

impl Lane {
    /// Jobs that may be posted now: none beyond the last one that this worker may have.
    #[inline]
    pub(super) fn room(&self) -> usize {
        if self.producer.tail() >= self.until {
            return 0;
        }
        self.producer.free_slots()
    }

    /// Nothing is posted, or it goes on.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
        self.set_until();
    }

    /// What holds posting up may have changed.
    pub(super) fn set_until(&mut self) {
        self.until = if self.held || self.alone {
            0
        } else {
            self.last
        };
    }

    /// The next worker may have so many jobs here.
    fn begin_life(&mut self, jobs: u64) {
        self.share = self.producer.tail().saturating_add(jobs);
        self.last = self.share;
        self.set_until();
        self.jobs_before = self.jobs;
    }

    /// Its worker is replaced when it has had its share, or stays as long as it is needed.
    pub(super) fn spare(&mut self, spared: bool) {
        self.last = if spared { u64::MAX } else { self.share };
        self.set_until();
    }

    /// The present worker has had all jobs that it may have here, and ended them.
    pub(super) fn has_served(&self) -> bool {
        self.producer.tail() >= self.last && self.is_idle()
    }
}

impl EngineState {
    /// The next process of this worker may have so many jobs, in equal shares for its lanes.
    pub(super) fn begin_life(&mut self, worker: usize, recycling: &Recycling) {
        let lanes = self.lanes.per_worker() as u64;
        for (number, lane) in (0..).zip(self.lanes.of_worker(worker)) {
            let more = u64::from(number < recycling.jobs % lanes);
            let share = match recycling.jobs {
                u64::MAX => u64::MAX,
                jobs => jobs / lanes + more,
            };
            self.lanes[lane].begin_life(share);
        }
        self.workers[worker].retiring = false;
        self.workers[worker].ends_by = None;
        self.forget_alone(worker);
    }

    /// Jobs that the present process of this worker has finished.
    pub(super) fn jobs_of_life(&self, worker: usize) -> u64 {
        let of_life = |lane: usize| self.lanes[lane].jobs - self.lanes[lane].jobs_before;
        self.lanes.of_worker(worker).map(of_life).sum()
    }

    /// A lane has served: if all lanes of its worker have, that is replaced.
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

    /// This worker ends what it runs and is replaced then; what it holds ahead goes back to the queue.
    #[cold]
    pub(super) fn retire(&mut self, worker: usize) {
        if self.workers[worker].status() != Status::Ready {
            return;
        }
        self.set_status(worker, Status::Leaving);
        self.workers[worker].retiring = true;
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
        // The others may have what came back.
        self.monitor.call();
    }

    /// A worker that was told to go, and may have nothing left to do: from then on it has the grace period to end.
    #[cold]
    pub(super) fn expect_end(&mut self, worker: usize) {
        let has_job = |lane: usize| {
            let lane = &self.lanes[lane];
            let mut open = lane.producer.open_positions();
            open.any(|position| lane.holds(position))
        };
        let own = &self.workers[worker];
        let is_told = own.retiring && own.status() == Status::Leaving;
        if !is_told || own.ends_by.is_some() || self.lanes.of_worker(worker).any(has_job) {
            return;
        }
        // A grace beyond all clocks has no end.
        let ends_by = Instant::now().checked_add(self.config.grace());
        self.workers[worker].ends_by = ends_by;
        if let Some(at) = ends_by {
            self.monitor.call_before(at);
        }
    }

    /// When the next of those has to have ended.
    pub(super) fn leavers_due(&self) -> Option<Instant> {
        self.workers
            .iter()
            .filter_map(|worker| worker.ends_by)
            .min()
    }

    /// Kills those that were told to go and did not: stopped, or taken over.
    pub(super) fn end_leavers(&mut self, now: Instant) {
        for worker in &mut self.workers {
            if worker.ends_by.take_if(|at| *at <= now).is_some()
                && let Some(process) = &worker.process
            {
                // It may have gone already; the pidfd tells.
                let _ = process.pidfd.kill(Signal::SIGKILL);
            }
        }
    }
}
