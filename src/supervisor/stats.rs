//! Figures of an engine at one moment.

use std::time::Duration;

use super::Shared;
use super::worker::Status;
use crate::arena::ArenaStats;

/// One worker in the statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Process number, 0 while there is none.
    pub pid: u32,
    /// Takes jobs.
    pub ready: bool,
    /// Jobs finished since the engine was built, by all processes of this worker.
    pub jobs: u64,
    /// Jobs it holds now, running and ahead.
    pub open: usize,
    /// How often its process died and was replaced.
    pub restarts: u64,
    /// How often its process was replaced because it had served long enough or had grown too large.
    pub recycled: u64,
    /// Bytes of the arena that it may fill with results and has not: part of what is
    /// [in use](crate::arena::ArenaStats::in_use), and free again when its process ends.
    pub granted: u64,
}

/// One kernel in the statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelStats {
    /// Its name, as [`std::any::type_name`] has it.
    pub name: &'static str,
    /// Calls that ended in a worker, well or badly: a job is one, and a chain of nodes that was one job is one of each of
    /// its nodes.
    pub calls: u64,
    /// Those that gave no value.
    pub failures: u64,
    /// Time in the kernel, all calls together. In a chain of nodes that ran as one job each of up to eight is measured; of longer
    /// chains each eighth, and of one that failed the whole, and the nodes of that count equal parts of it.
    pub total: Duration,
    /// What the next call is expected to take that is a job of its own: a moving average, 250 µs until one has ended. A call of more than
    /// 4.3 s counts as one of 4.3 s. An inline engine expects nothing: it tells the mean of all calls.
    pub expected: Duration,
    /// Bytes of fresh arrays in its results, all calls together. What passes between nodes of a chain is none.
    pub bytes: u64,
    /// Lanes that run it now, or are about to.
    pub running: usize,
}

/// Figures of an engine at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The arena.
    pub arena: ArenaStats,
    /// The workers.
    pub workers: Vec<WorkerStats>,
    /// The kernels that were ever submitted.
    pub kernels: Vec<KernelStats>,
    /// Jobs that no worker has yet.
    pub queued: usize,
    /// Jobs whose last attempt failed, and that wait for the next; and those that wait for jobs that they have
    /// [spawned](crate::Spawn).
    pub waiting: usize,
    /// Jobs that wait for a permit of their [`Limiter`](crate::Limiter).
    pub limited: usize,
    /// Jobs that workers have.
    pub open: usize,
    /// Jobs whose answer has not been taken, whether they have ended or not.
    pub untaken: usize,
    /// The machine or the container has so little memory left that jobs run one at a time.
    pub memory_short: bool,
    /// Bytes of the jobs in flight, as [`Builder::admission`](crate::engine::Builder::admission) counts them; 0 without a
    /// ceiling.
    pub admitted: u64,
}

impl Stats {
    /// How often a worker died and was replaced: the sum over all [`workers`](Self::workers).
    ///
    /// ```standalone_crate
    /// fn crash() {
    ///     std::process::abort();
    /// }
    ///
    /// arenite::init();
    /// let engine = arenite::Engine::builder().workers(1).build()?;
    /// engine.submit(crash, ()).wait().unwrap_err();
    /// // The next job runs in the next process, so the death has been counted by then.
    /// engine.submit(std::process::id, ()).wait()?;
    /// assert_eq!(engine.stats().restarts(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restarts(&self) -> u64 {
        self.workers.iter().map(|worker| worker.restarts).sum()
    }

    /// How often a worker was replaced because it had served long enough or had grown too large.
    pub fn recycled(&self) -> u64 {
        self.workers.iter().map(|worker| worker.recycled).sum()
    }
}

impl Shared {
    /// The figures of this moment.
    pub(crate) fn stats(&self) -> Stats {
        let arena = self.arena.stats();
        let mut core = self.lock();
        core.drain_busy();
        let workers = core.workers.iter().enumerate();
        let workers = workers.map(|(index, worker)| WorkerStats {
            pid: worker
                .process
                .as_ref()
                .map_or(0, |process| process.pidfd.pid().as_raw() as u32),
            ready: worker.status() == Status::Ready,
            jobs: core.jobs_of(index),
            open: core
                .lanes_of(index)
                .map(|lane| core.lanes[lane].live())
                .sum(),
            restarts: worker.restarts,
            recycled: worker.recycled,
            granted: core
                .lanes_of(index)
                .map(|lane| core.lanes[lane].granted())
                .sum(),
        });
        let stats = Stats {
            arena,
            workers: workers.collect(),
            kernels: core.kernel_stats().0,
            queued: core.queue.len() + core.actors.kept,
            waiting: core.waiting.len() + core.waiting_for_spawned(),
            limited: core.lines.len(),
            open: core.open,
            untaken: core.records.live(),
            memory_short: core.tight,
            admitted: core
                .admission
                .as_ref()
                .map_or(0, |admission| admission.bytes()),
        };
        self.unlock(core);
        stats
    }
}
