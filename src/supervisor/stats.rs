//! Statistics of an engine at one moment, and its progress.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::arena::ArenaStats;

/// Statistics of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Process id, 0 while there is no process.
    pub pid: u32,
    /// Whether the worker accepts jobs.
    pub ready: bool,
    /// Whether the worker is ready but gets no jobs until another worker has ended: see
    /// [`Builder::spares`](crate::engine::Builder::spares).
    pub spare: bool,
    /// Number of jobs that all processes of this worker have finished since the engine was built.
    pub jobs: u64,
    /// Number of jobs in the worker's lanes now, both running and waiting.
    pub open: usize,
    /// The number of times that the worker's process died and was replaced.
    pub restarts: u64,
    /// The number of times that the worker's process was replaced because it had served long enough or had grown too
    /// large.
    pub recycled: u64,
    /// Bytes of the arena that are granted to the worker and not filled with results yet. They are part of the bytes
    /// [in use](crate::engine::ArenaStats::in_use), and are freed when the worker's process ends.
    pub granted: u64,
    /// Bytes of arrays whose handles in the worker outlive their job, if the engine
    /// [allows](crate::engine::Builder::retain_escaped) that. They stay in use until their last handle in the worker is
    /// dropped or the process ends. An array that was an argument of the job counts as a whole, even if the program has
    /// it too.
    pub retained: u64,
}

/// Statistics of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelStats {
    /// The kernel's name, as returned by [`std::any::type_name`], or the [name](crate::JobOptions::name) that the
    /// program has set.
    pub name: &'static str,
    /// Number of calls that ended in a worker, with a value or without, or with their worker. A chain of nodes that ran
    /// as one job counts once for each of its nodes that has ended, and not at all if its worker died.
    pub calls: u64,
    /// Number of calls that ended without a value.
    pub failures: u64,
    /// Time that all calls together spent in the kernel. If a chain of up to eight nodes ran as one job, each node is
    /// measured. A longer chain is measured in eighths, and a failed chain as a whole; the time is divided equally
    /// among the nodes.
    pub total: Duration,
    /// Expected duration of the next call that is a job of its own: a moving average, 250 µs before the first call has
    /// ended. Calls longer than 4.3 s count as 4.3 s. An inline engine returns the mean of all calls.
    pub expected: Duration,
    /// Bytes of fresh arrays in the results of all calls. Values passed between nodes of a chain do not count.
    pub bytes: u64,
    /// Number of lanes that run the kernel now, or are about to.
    pub running: usize,
}

/// Statistics of an engine at one moment: [`Engine::stats`](crate::Engine::stats).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The arena.
    pub arena: ArenaStats,
    /// The workers.
    pub workers: Vec<WorkerStats>,
    /// The kernels whose jobs were submitted so far.
    pub kernels: Vec<KernelStats>,
    /// Number of jobs that are on no worker's lane yet.
    pub queued: usize,
    /// Number of jobs that wait for their next attempt, for jobs that they have [spawned](crate::Spawn), or for jobs
    /// whose values they take.
    pub waiting: usize,
    /// Number of jobs that wait for a permit of their [`Limiter`](crate::Limiter).
    pub limited: usize,
    /// Number of jobs on workers' lanes.
    pub open: usize,
    /// Number of jobs whose answer was not taken, whether they have ended or not.
    pub untaken: usize,
    /// Why the last start of a worker failed, while the engine lacks that worker and tries again: a limit on open files
    /// or processes, for example. `None` if no start has failed since the last success.
    pub start_failure: Option<String>,
    /// Why workers are started separately although the program has a template (feature `template`).
    pub no_template: Option<String>,
    /// Whether so little memory is left on the machine or in the container that jobs run one at a time.
    pub memory_short: bool,
    /// Bytes of the jobs in flight, as [`Builder::max_in_flight_bytes`](crate::engine::Builder::max_in_flight_bytes)
    /// counts them; 0 without a ceiling.
    pub admitted: u64,
}

impl Stats {
    /// Returns the number of times that a worker died and was replaced: the sum over all [`workers`](Self::workers).
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

    /// Returns the number of bytes of arrays whose handles in workers outlive their job: the sum over all
    /// [`workers`](Self::workers).
    pub fn retained(&self) -> u64 {
        self.workers.iter().map(|worker| worker.retained).sum()
    }

    /// Returns the number of times that a worker was replaced because it had served long enough or had grown too large.
    pub fn recycled(&self) -> u64 {
        self.workers.iter().map(|worker| worker.recycled).sum()
    }
}

/// The age up to which earlier counts are used for the rate.
const LOOK_BACK: Duration = Duration::from_secs(5);

/// The number of earlier counts that are stored for the rate.
const LOOKS: usize = 64;

/// The progress of an engine at one moment: [`Engine::progress`](crate::Engine::progress).
///
/// Every submitted job is in exactly one of `queued`, `waiting`, `limited`, `ahead`, `running`, `done`, `failed` and
/// `cancelled`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Number of jobs submitted since the engine was built.
    pub submitted: u64,
    /// Number of jobs that are on no worker's lane yet.
    pub queued: u64,
    /// Number of jobs that wait for their next attempt, or for jobs that they have [spawned](crate::Spawn).
    pub waiting: u64,
    /// Number of jobs that wait for a permit of their [`Limiter`](crate::Limiter).
    pub limited: u64,
    /// Number of jobs on a lane that wait for the job that the lane runs.
    pub ahead: u64,
    /// Number of jobs that run, or are about to ([`Job::is_running`](crate::Job::is_running) says whether one has
    /// begun): one for each lane that has jobs, and jobs that wait for the exit of their
    /// worker or whose values are being copied.
    pub running: u64,
    /// Number of jobs that returned a value.
    pub done: u64,
    /// Number of jobs that ended without a value, except cancelled jobs.
    pub failed: u64,
    /// Number of jobs that were cancelled or dropped before they began, or ended by [`Job::kill`](crate::Job::kill).
    pub cancelled: u64,
    /// Bytes of fresh arrays in results so far.
    pub bytes: u64,
    /// Jobs per second that ended in about the last five seconds. More exactly: since the call of
    /// [`progress`](crate::Engine::progress) about five seconds ago, or else since the last earlier call, or since the
    /// engine was built.
    pub rate: f64,
    /// Time since the engine was built.
    pub elapsed: Duration,
    /// The kernels whose jobs were submitted so far.
    pub kernels: Vec<KernelStats>,
}

impl Progress {
    /// Returns the number of jobs that have ended.
    pub fn ended(&self) -> u64 {
        self.done + self.failed + self.cancelled
    }

    /// Returns the number of jobs that were submitted and have not ended.
    pub fn left(&self) -> u64 {
        self.submitted - self.ended()
    }

    /// Returns the time until the jobs that are [`left`](Progress::left) have ended, at the present
    /// [`rate`](Progress::rate). `None` while the rate is 0.
    pub fn time_left(&self) -> Option<Duration> {
        match self.left() {
            0 => Some(Duration::ZERO),
            left => Duration::try_from_secs_f64(left as f64 / self.rate).ok(),
        }
    }
}

/// Earlier counts: their time, and the number of jobs that had ended.
#[derive(Debug)]
pub(crate) struct RateMeter {
    born: Instant,
    looks: VecDeque<(Instant, u64)>,
}

impl RateMeter {
    pub(crate) fn new() -> Self {
        let born = Instant::now();
        Self {
            born,
            looks: VecDeque::from([(born, 0)]),
        }
    }

    pub(crate) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Adds the present count, and fills in the age and the rate.
    pub(crate) fn look(&mut self, progress: &mut Progress) {
        let now = Instant::now();
        progress.elapsed = now.saturating_duration_since(self.born);
        progress.rate = self.rate(now, progress.ended());
    }

    /// Returns the rate, including the present count.
    fn rate(&mut self, now: Instant, ended: u64) -> f64 {
        let old = |&(at, _): &(Instant, u64)| now.saturating_duration_since(at) > LOOK_BACK;
        // A count that is too old is used as long as there is no other.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut looks = RateMeter::new();
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
    fn time_left_follows_from_the_rate() {
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
