//! Statistics and progress of an engine, taken under the lock.

use std::time::Duration;

use super::lane::{Lane, NO_RECORD};
use super::shared::Supervisor;
use super::state::EngineState;
use super::stats::{KernelStats, Progress, Stats, WorkerStats};
use super::worker::{Status, Worker};

/// Returns the statistics of all kernels, in the order of their first jobs, and the number of jobs that run.
fn kernel_stats(state: &EngineState) -> (Vec<KernelStats>, usize) {
    let mut running = 0;
    let mut stats = state.kernels.stats();
    for lane in state.lanes.iter() {
        let mut open = lane.producer.open_positions().map(|at| lane.record_at(at));
        if let Some(oldest) = open.find(|&record| record != NO_RECORD) {
            running += 1;
            let kernel = state.records.look(oldest).kernel;
            stats[kernel as usize].running += 1;
        }
    }
    (state.kernels.merged(stats), running)
}

impl Supervisor {
    /// Returns why no job can run any more, if the engine is broken.
    pub(crate) fn broken(&self) -> Option<String> {
        self.lock().lifecycle.broken().cloned()
    }

    /// Returns the statistics at this moment.
    pub(crate) fn stats(&self) -> Stats {
        let arena = self.arena.stats();
        let mut state = self.lock();
        state.drain_busy();
        let lanes = &state.lanes;
        let of_worker = |worker| lanes.of_worker(worker).map(move |lane| &lanes[lane]);
        let workers = state.workers.iter().enumerate();
        let workers = workers.map(|(index, worker)| WorkerStats {
            pid: worker.pid(),
            ready: worker.status() == Status::Ready,
            spare: worker.status() == Status::Spare,
            jobs: lanes.jobs_of(index),
            open: of_worker(index).map(Lane::live).sum(),
            restarts: worker.restarts(),
            recycled: worker.recycled(),
            granted: of_worker(index).map(|lane| lane.grants().ahead()).sum(),
            retained: of_worker(index).map(|lane| lane.retained().bytes()).sum(),
        });
        let stats = Stats {
            arena,
            workers: workers.collect(),
            kernels: kernel_stats(&state).0,
            queued: state.queue.len(),
            waiting: state.timers.attempts().count() + state.runs.waiting_parents(),
            limited: state.permit_waiters.len(),
            open: state.lanes.open(),
            untaken: state.records.live(),
            start_failure: state
                .workers
                .iter()
                .find_map(|worker| worker.failed_starts().last())
                .map(|failure| failure.why.clone()),
            no_template: self.no_template.get().cloned(),
            memory_short: state.scheduler.is_low_on_memory(),
            admitted: state
                .admission
                .as_ref()
                .map_or(0, |admission| admission.bytes()),
        };
        self.unlock(state);
        stats
    }

    /// See [`Progress`].
    pub(crate) fn progress(&self) -> Progress {
        let mut progress = self.counts();
        self.rate(&mut progress);
        progress
    }

    /// Returns the progress without the rate and the age. This is not a look from which later rates are computed.
    pub(super) fn counts(&self) -> Progress {
        let mut state = self.lock();
        state.catch_up();
        let (kernels, running) = kernel_stats(&state);
        let queued = state.queue.len() as u64;
        let waiting = (state.timers.attempts().count() + state.runs.waiting_parents()) as u64;
        let limited = state.permit_waiters.len() as u64;
        let open = state.lanes.open() as u64;
        // Jobs that have left their lanes, and are answered when the exit of their worker is confirmed or their value
        // is copied, also count as running.
        let reasons = state.workers.iter().flat_map(Worker::kill_reasons);
        let awaiting_exit = reasons
            .filter(|&&(record, _)| record != NO_RECORD && !state.lanes.hold(record))
            .count() as u64;
        let unanswered = awaiting_exit + state.uncopied.len() as u64;
        let ended = state.records.submitted() - queued - waiting - limited - open - unanswered;
        let (failed, cancelled) = (state.counts.failed(), state.counts.cancelled());
        let progress = Progress {
            submitted: state.records.submitted(),
            queued,
            waiting,
            limited,
            ahead: open - running as u64,
            running: running as u64 + unanswered,
            done: ended - failed - cancelled,
            failed,
            cancelled,
            bytes: kernels.iter().map(|kernel| kernel.bytes).sum(),
            rate: 0.0,
            elapsed: Duration::ZERO,
            kernels,
        };
        self.unlock(state);
        progress
    }
}
