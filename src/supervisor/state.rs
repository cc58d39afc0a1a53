//! The state of an engine, protected by one lock.

use std::sync::Arc;

use super::actor::Actors;
use super::admission::Admission;
use super::config::Config;
use super::counts::JobCounts;
use super::depend::Runs;
use super::groups::Groups;
use super::job_table::JobTable;
use super::kernels::Kernels;
use super::lane::Lane;
use super::lanes::Lanes;
use super::lifecycle::{Closing, Lifecycle};
use super::limiter::WaitingJobs;
use super::pending_batch::PendingBatches;
use super::queue::Queue;
use super::scheduler::Scheduler;
use super::signals::MonitorSignals;
use super::suspicion::Suspicion;
use super::timers::Timers;
use super::trace::Trace;
use super::uncopied::Uncopieds;
use super::waiting::parking::Parking;
use super::waiting::waiters::Waiters;
use super::worker::Status;
use super::workers::Workers;
use crate::arena::Arena;
use crate::link::Reply;

/// The state of an engine. Each part owns its fields. An operation on several parts is a method of this type, in the
/// file of its topic.
///
/// All methods are called under the lock. None of them blocks, except for a system call that wakes a thread.
#[derive(Debug)]
pub(super) struct EngineState {
    pub(super) arena: Arc<Arena>,
    pub(super) config: Config,
    pub(super) lifecycle: Lifecycle,
    pub(super) monitor: MonitorSignals,
    pub(super) waiters: Waiters,
    /// The records of all jobs whose answers were not taken.
    pub(super) records: JobTable,
    pub(super) kernels: Kernels,
    pub(super) groups: Groups,
    pub(super) workers: Workers,
    pub(super) lanes: Lanes,
    pub(super) scheduler: Scheduler,
    /// The jobs and actors that wait for a lane.
    pub(super) queue: Queue,
    /// What is due at a certain time, such as the next attempts of jobs.
    pub(super) timers: Timers,
    /// The jobs that wait for a permit of their limiter.
    pub(super) permit_waiters: WaitingJobs,
    /// The actors, whose states stay in their workers.
    pub(super) actors: Actors,
    /// The runs of jobs that depend on other jobs.
    pub(super) runs: Runs,
    /// The ceiling on bytes in flight, if there is one.
    pub(super) admission: Option<Box<Admission>>,
    /// The calls of maps that the monitor submits while their iterators run.
    pub(super) pending_batches: PendingBatches,
    pub(super) suspicion: Suspicion,
    pub(super) counts: JobCounts,
    pub(super) trace: Trace,
    /// The values that the monitor has to copy.
    pub(super) uncopied: Uncopieds,
    /// The reply that was drained last.
    pub(super) reply: Reply,
}

impl EngineState {
    pub(super) fn new(
        arena: Arc<Arena>,
        parking: Arc<Parking>,
        lanes: Vec<Lane>,
        workers: usize,
        config: Config,
    ) -> Self {
        let queue = Queue::new(lanes.len());
        Self {
            arena,
            config,
            lifecycle: Lifecycle::default(),
            monitor: MonitorSignals::default(),
            waiters: Waiters::new(parking),
            records: JobTable::default(),
            kernels: Kernels::default(),
            groups: Groups::default(),
            workers: Workers::new(workers),
            lanes: Lanes::new(lanes, workers),
            scheduler: Scheduler::default(),
            queue,
            timers: Timers::default(),
            permit_waiters: WaitingJobs::default(),
            actors: Actors::default(),
            runs: Runs::default(),
            admission: None,
            pending_batches: PendingBatches::default(),
            suspicion: Suspicion::default(),
            counts: JobCounts::default(),
            trace: Trace::default(),
            uncopied: Uncopieds::default(),
            reply: Reply::default(),
        }
    }

    /// Returns true if the engine closes by [`Closing::Drain`] and all jobs are done.
    pub(super) fn is_drained(&self) -> bool {
        self.lifecycle.closing() == Closing::Drain
            && self.lanes.open() == 0
            && self.uncopied.is_empty()
            && !self.queue.has_work()
            && self.permit_waiters.is_empty()
            && !self.timers.has_actor_starts()
            && !self.runs.has_pending_work()
    }

    pub(super) fn call_if_drained(&mut self) {
        if self.is_drained() {
            self.monitor.call();
        }
    }

    /// Returns true if a worker has, or may get, something to do.
    pub(super) fn needs_workers(&self) -> bool {
        let asked_for = match self.lifecycle.closing() {
            Closing::No => true,
            Closing::Drain => {
                self.lanes.open() + self.permit_waiters.len() > 0 || self.queue.has_work()
            }
            Closing::Now => false,
        };
        asked_for && !self.lifecycle.is_stopping() && self.lifecycle.broken().is_none()
    }

    /// Sets the status of a worker, and whether its lanes accept jobs. Makes spares ready if fewer workers are active
    /// than may be.
    pub(super) fn set_status(&mut self, worker: usize, status: Status) {
        self.workers[worker].move_to(status);
        self.lanes.set_ready(worker, status == Status::Ready);
        while self.workers.missing(self.config.active_workers) > 0
            && let Some(spare) = { self.workers.with_status(Status::Spare).next() }
        {
            self.workers[spare].move_to(Status::Ready);
            self.lanes.set_ready(spare, true);
            crate::sync::point!("spawn.activated");
        }
    }

    /// Begins the next generation of a worker: reports about earlier processes are ignored from now on.
    pub(super) fn next_generation(&mut self, worker: usize) -> u32 {
        let generation = self.workers[worker].count_process();
        for lane in self.lanes.of_worker(worker) {
            self.lanes[lane].set_generation(generation);
        }
        generation
    }
}
