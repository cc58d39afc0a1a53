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
    /// Whether it takes jobs.
    pub ready: bool,
    /// Whether it is ready but gets no jobs until another worker has ended: see
    /// [`Builder::spares`](crate::engine::Builder::spares).
    pub spare: bool,
    /// Jobs finished since the engine was built, by all processes of this worker.
    pub jobs: u64,
    /// Jobs it holds now, both running and queued in its lanes.
    pub open: usize,
    /// How often its process died and was replaced.
    pub restarts: u64,
    /// How often its process was replaced because it had served long enough or had grown too large.
    pub recycled: u64,
    /// Bytes of the arena granted to it and not yet filled with results: part of what is [in
    /// use](crate::engine::ArenaStats::in_use), and freed when its process ends.
    pub granted: u64,
    /// Bytes of arrays that its jobs have left behind and that it still refers to, if the engine
    /// [allows](crate::engine::Builder::retain_escaped) that. They stay in use until their last handle there is dropped
    /// or the process ends. An array that was passed to the job counts as a whole, also if the program holds it too.
    pub retained: u64,
}

/// Statistics of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelStats {
    /// Its name, as returned by [`std::any::type_name`], or the [name](crate::JobOptions::name) that the program has given
    /// it.
    pub name: &'static str,
    /// Calls that ended in a worker, with a value or without. A chain of nodes that ran as one job counts once for each
    /// of its nodes.
    pub calls: u64,
    /// Calls that gave no value.
    pub failures: u64,
    /// Time spent in the kernel by all calls together. In a chain of nodes that ran as one job, up to eight nodes are
    /// measured each. A longer chain is measured in eighths, and a failed one as a whole; their nodes get equal parts.
    pub total: Duration,
    /// Expected duration of the next call that is a job of its own: a moving average, 250 µs before the first has
    /// ended. Calls longer than 4.3 s count as 4.3 s. An inline engine returns the mean of all calls.
    pub expected: Duration,
    /// Bytes of fresh arrays in its results, all calls together. What passes between nodes of a chain does not count.
    pub bytes: u64,
    /// Lanes that run it now, or are about to.
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
    /// The kernels that were submitted so far.
    pub kernels: Vec<KernelStats>,
    /// Jobs that no worker has yet.
    pub queued: usize,
    /// Jobs that wait for their next attempt, and jobs that wait for jobs that they have [spawned](crate::Spawn).
    pub waiting: usize,
    /// Jobs that wait for a permit of their [`Limiter`](crate::Limiter).
    pub limited: usize,
    /// Jobs that workers hold.
    pub open: usize,
    /// Jobs whose answer has not been taken, whether they have ended or not.
    pub untaken: usize,
    /// Whether so little memory is left on the machine or in the container that jobs run one at a time.
    pub memory_short: bool,
    /// Bytes of the jobs in flight, as [`Builder::max_in_flight_bytes`](crate::engine::Builder::max_in_flight_bytes)
    /// counts them; 0 without a ceiling.
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

    /// Bytes of arrays that jobs have left behind in workers: the sum over all [`workers`](Self::workers).
    pub fn retained(&self) -> u64 {
        self.workers.iter().map(|worker| worker.retained).sum()
    }

    /// How often a worker was replaced because it had served long enough or had grown too large.
    pub fn recycled(&self) -> u64 {
        self.workers.iter().map(|worker| worker.recycled).sum()
    }
}

/// How far back looks count for the rate.
const LOOK_BACK: Duration = Duration::from_secs(5);

/// Looks that are remembered for it.
const LOOKS: usize = 64;

/// The progress of an engine at one moment: [`Engine::progress`](crate::Engine::progress).
///
/// Every submitted job is in one of `queued`, `waiting`, `limited`, `ahead`, `running`, `done`, `failed` and
/// `cancelled`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Jobs submitted since the engine was built.
    pub submitted: u64,
    /// Jobs that running graphs will submit when their inputs are there. They are in none of the other counts.
    pub planned: u64,
    /// Jobs that no worker has yet.
    pub queued: u64,
    /// Jobs that wait for their next attempt, and jobs that wait for jobs that they have [spawned](crate::Spawn).
    pub waiting: u64,
    /// Jobs that wait for a permit of their [`Limiter`](crate::Limiter).
    pub limited: u64,
    /// Jobs that a worker holds behind the one that it runs.
    pub ahead: u64,
    /// Jobs that run, or are about to: one for each lane that has jobs.
    pub running: u64,
    /// Jobs that gave a value.
    pub done: u64,
    /// Jobs that gave no value, except for cancelled ones.
    pub failed: u64,
    /// Jobs that were cancelled or dropped before they began, or ended by [`Job::kill`](crate::Job::kill).
    pub cancelled: u64,
    /// Bytes of fresh arrays in results so far.
    pub bytes: u64,
    /// Jobs per second that ended in the last five seconds or so. More exactly: since the call about five seconds ago,
    /// or else since the last call before that or since the engine was built.
    pub rate: f64,
    /// Time since the engine was built.
    pub elapsed: Duration,
    /// The kernels that were submitted so far.
    pub kernels: Vec<KernelStats>,
}

impl Progress {
    /// Jobs that have ended.
    pub fn ended(&self) -> u64 {
        self.done + self.failed + self.cancelled
    }

    /// Jobs that were submitted and have not ended, and those that graphs will submit.
    pub fn left(&self) -> u64 {
        self.submitted - self.ended() + self.planned
    }

    /// Time until those that are [`left`](Progress::left) have ended, at the present [`rate`](Progress::rate). `None`
    /// while the rate is 0.
    pub fn time_left(&self) -> Option<Duration> {
        match self.left() {
            0 => Some(Duration::ZERO),
            left => Duration::try_from_secs_f64(left as f64 / self.rate).ok(),
        }
    }
}

/// Earlier looks: their time, and how many jobs had ended.
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

    /// Looks: fills in the age and the rate.
    pub(crate) fn look(&mut self, progress: &mut Progress) {
        let now = Instant::now();
        progress.elapsed = now.saturating_duration_since(self.born);
        progress.rate = self.rate(now, progress.ended());
    }

    /// The rate, including this look.
    fn rate(&mut self, now: Instant, ended: u64) -> f64 {
        let old = |&(at, _): &(Instant, u64)| now.saturating_duration_since(at) > LOOK_BACK;
        // A look that is too old is kept as long as there is no other.
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
