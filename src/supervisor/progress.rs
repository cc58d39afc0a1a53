//! How far an engine is.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::core::Core;
use super::lane::NOBODY;
use super::worker::Worker;
use super::{KernelStats, Shared};

/// How far back looks count for the rate.
const LOOK_BACK: Duration = Duration::from_secs(5);
/// Looks that are kept for it.
const LOOKS: usize = 64;

/// How far an engine is, at one moment: [`Engine::progress`](crate::Engine::progress).
///
/// Every job that was submitted is in one of `queued`, `waiting`, `limited`, `ahead`, `running`, `done`, `failed` and `cancelled`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Jobs since the engine was built.
    pub submitted: u64,
    /// Jobs that graphs which run will submit when what they wait for has ended, and it is their turn: in none of the other counts.
    pub planned: u64,
    /// Jobs that no worker has yet.
    pub queued: u64,
    /// Jobs whose last attempt failed, and that wait for the next; and those that wait for jobs that they have
    /// [spawned](crate::Spawn).
    pub waiting: u64,
    /// Jobs that wait for a permit of their [`Limiter`](crate::Limiter).
    pub limited: u64,
    /// Jobs that a worker holds behind the one that it runs.
    pub ahead: u64,
    /// Jobs that run, or are about to: one for each lane that has any.
    pub running: u64,
    /// Jobs that gave a value.
    pub done: u64,
    /// Jobs that gave none, for whatever reason but that they were cancelled.
    pub failed: u64,
    /// Jobs that were given up before they began, or ended by [`Job::cancel_now`](crate::Job::cancel_now).
    pub cancelled: u64,
    /// Bytes of fresh arrays in results so far.
    pub bytes: u64,
    /// Jobs that end in a second, since this was called some five seconds ago; or since the last call before that, or the engine was
    /// built, if it was not called then.
    pub rate: f64,
    /// Since the engine was built.
    pub elapsed: Duration,
    /// Each kernel that was ever submitted.
    pub kernels: Vec<KernelStats>,
}

impl Progress {
    /// Jobs that are over.
    pub fn ended(&self) -> u64 {
        self.done + self.failed + self.cancelled
    }

    /// Jobs that were submitted and are not over, and those that graphs will submit.
    pub fn left(&self) -> u64 {
        self.submitted - self.ended() + self.planned
    }

    /// How long those that are left will take at the present [`rate`](Progress::rate); `None` while that cannot be said.
    pub fn time_left(&self) -> Option<Duration> {
        match self.left() {
            0 => Some(Duration::ZERO),
            left => Duration::try_from_secs_f64(left as f64 / self.rate).ok(),
        }
    }
}

/// Earlier looks: when, and how many jobs had ended.
#[derive(Debug)]
pub(crate) struct Looks {
    born: Instant,
    looks: VecDeque<(Instant, u64)>,
}

impl Looks {
    pub(crate) fn new() -> Self {
        let born = Instant::now();
        Self {
            born,
            looks: VecDeque::from([(born, 0)]),
        }
    }

    /// Says how old everything is, and the rate.
    pub(crate) fn look(&mut self, progress: &mut Progress) {
        let now = Instant::now();
        progress.elapsed = now.saturating_duration_since(self.born);
        progress.rate = self.rate(now, progress.ended());
    }

    /// The rate, with this look.
    fn rate(&mut self, now: Instant, ended: u64) -> f64 {
        let old = |&(at, _): &(Instant, u64)| now.saturating_duration_since(at) > LOOK_BACK;
        // One that is older stays as long as there is no other.
        while self.looks.len() > 1 && self.looks.front().is_some_and(old) {
            self.looks.pop_front();
        }
        let (at, before) = self.looks.front().copied().unwrap_or((self.born, 0));
        let spacing = LOOK_BACK / LOOKS as u32;
        let last = self.looks.back().map_or(self.born, |&(at, _)| at);
        if now.saturating_duration_since(last) >= spacing {
            self.looks.push_back((now, ended));
        }
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        if seconds > 0.0 {
            ended.saturating_sub(before) as f64 / seconds
        } else {
            0.0
        }
    }
}

impl Core {
    /// Figures of all kernels, in the order in which they were first submitted, and how many jobs run.
    pub(super) fn kernel_stats(&self) -> (Vec<KernelStats>, usize) {
        let mut running = 0;
        let mut stats = self.kernels.stats();
        for lane in &self.lanes {
            let mut open = lane.producer.open_positions().map(|at| lane.record_at(at));
            if let Some(oldest) = open.find(|&record| record != NOBODY) {
                running += 1;
                let kernel = self.records.look(oldest).kernel;
                let node = self.node_that_runs(lane, oldest);
                stats[node.unwrap_or(kernel) as usize].running += 1;
            }
        }
        (self.kernels.merged(stats), running)
    }

    /// Jobs that have left their lanes, and are answered when the end of their worker is confirmed: what they answered cannot be.
    fn judged(&self) -> usize {
        let of = |worker: &Worker| {
            let verdicts = worker.verdicts.iter().map(|&(record, _)| record);
            let judged = verdicts.filter(|&record| record != NOBODY && !self.holds(record));
            judged.count()
        };
        self.workers.iter().map(of).sum()
    }

    /// Whether the job of this record is in a lane.
    fn holds(&self, record: u32) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| {
            lane.held()
                .any(|position| lane.record_at(position) == record)
        })
    }
}

impl Shared {
    /// See [`Progress`].
    pub(crate) fn progress(&self) -> Progress {
        let mut core = self.lock();
        core.drain_busy();
        core.refill();
        let (kernels, running) = core.kernel_stats();
        let queued = (core.queue.len() + core.actors.kept) as u64;
        let waiting = (core.waiting.len() + core.waiting_for_spawned()) as u64;
        let limited = core.lines.len() as u64;
        let open = core.open as u64;
        let judged = core.judged() as u64;
        let ended = core.next_job - queued - waiting - limited - open - judged;
        let (failed, cancelled) = (core.failed, core.cancelled);
        let mut progress = Progress {
            submitted: core.next_job,
            planned: core.graphs.planned() as u64,
            queued,
            waiting,
            limited,
            ahead: open - running as u64,
            running: running as u64 + judged,
            done: ended - failed - cancelled,
            failed,
            cancelled,
            bytes: kernels.iter().map(|kernel| kernel.bytes).sum(),
            rate: 0.0,
            elapsed: Duration::ZERO,
            kernels,
        };
        self.unlock(core);
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.look(&mut progress);
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut looks = Looks::new();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let near =
            |rate: f64, expected: f64| assert!((rate - expected).abs() < expected / 10.0, "{rate}");
        near(looks.rate(at(10), 1000), 100.0);
        near(looks.rate(at(20), 1000) + 1.0, 1.0);
        near(looks.rate(at(23), 1300), 100.0);
        near(looks.rate(at(100), 1300) + 1.0, 1.0);
    }

    #[test]
    fn what_is_left_takes_as_long_as_the_rate_says() {
        let progress = |submitted, rate| Progress {
            submitted,
            done: 40,
            rate,
            ..Progress::default()
        };
        assert_eq!(
            progress(100, 20.0).time_left(),
            Some(Duration::from_secs(3))
        );
        assert_eq!(progress(100, 0.0).time_left(), None);
        assert_eq!(progress(40, 0.0).time_left(), Some(Duration::ZERO));
    }
}
