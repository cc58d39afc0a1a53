//! What a job may demand, and what has come of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{Death, JobErrorKind};
use super::limit::{Limit, Turn};
use crate::kernel::seed_of_task;

/// Which of the jobs that wait goes first.
///
/// Jobs of one priority run in the order in which they were submitted. A job that runs is never
/// interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// After all others.
    Low,
    /// What jobs have that say nothing.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// The pauses between the attempts of one job: the first, then twice as long each time, up to the
/// longest.
///
/// ```
/// use std::time::Duration;
/// use arenite::Backoff;
///
/// # let engine = arenite::Engine::inline();
/// let patient = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// let job = engine.job(|x: u32| x + 1, (1,)).retries(3).backoff(patient).submit();
/// assert_eq!(job.wait().unwrap(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    jitter: bool,
}

impl Backoff {
    /// The next attempt follows at once.
    pub const NONE: Self = Self::new(Duration::ZERO, Duration::ZERO);

    /// Pauses of `first`, twice that, four times that, and so on; none longer than `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            jitter: false,
        }
    }

    /// The same, but each pause is a random part of what it would be, between half of it and all: so jobs that failed together,
    /// of a server that was too busy for instance, do not all come again at one time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use arenite::Backoff;
    ///
    /// # let engine = arenite::Engine::inline();
    /// let polite = Backoff::new(Duration::from_millis(100), Duration::from_secs(10)).jitter();
    /// let pages = engine.map(|page: u32| page + 1, (0..3).map(|page| (page,))).retries(3).backoff(polite);
    /// assert_eq!(pages.collect::<Result<Vec<_>, _>>()?, [1, 2, 3]);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    #[must_use]
    pub const fn jitter(mut self) -> Self {
        self.jitter = true;
        self
    }

    /// The pause after so many attempts that failed, of the job with this number.
    pub(super) fn pause(&self, failed: u32, job: u64) -> Duration {
        let times = 2u32.saturating_pow(failed.saturating_sub(1));
        let pause = self.first.saturating_mul(times).min(self.longest);
        if !self.jitter {
            return pause;
        }
        // Any number that differs between jobs and attempts is random enough.
        let part = seed_of_task(job, failed.into()) as u32;
        let half = pause / 2;
        half + half.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

impl Default for Backoff {
    /// From 10 milliseconds to a second.
    fn default() -> Self {
        Self::new(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// What the caller demands for a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    /// How long one attempt may run.
    pub(crate) deadline: Option<Duration>,
    /// Attempts after the first.
    pub(crate) retries: u32,
    /// They are also for errors that the kernel returns.
    pub(crate) retry_errors: bool,
    pub(crate) backoff: Backoff,
    pub(crate) priority: Priority,
    /// Whose permit each attempt needs.
    pub(crate) limit: Option<Limit>,
    /// What people call it.
    pub(crate) label: Option<Arc<str>>,
}

impl Terms {
    /// `None` if they ask for nothing.
    pub(crate) fn asked(&self) -> Option<&Self> {
        let plain = Self {
            backoff: self.backoff,
            ..Self::default()
        };
        (*self != plain).then_some(self)
    }
}

/// Deaths that an error lists at most.
const DEATHS: usize = 16;

/// The terms of one job and how they were used up. Only jobs that have terms have one.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) terms: Terms,
    /// Attempts that failed.
    failed: u32,
    /// Workers that died of this job.
    cost: u32,
    /// How often it was lost with a worker that died of something else.
    lost: u32,
    /// Nothing may run beside it.
    pub(super) alone: bool,
    /// Somebody asked it to stop.
    pub(super) given_up: bool,
    /// When its pause is over, while it waits for its next attempt.
    pub(super) due: Option<Instant>,
    /// How the last attempts ended, oldest first.
    pub(super) deaths: Vec<Death>,
    /// What it has of its limiter.
    pub(super) turn: Turn,
}

/// What follows when an attempt has failed.
#[derive(Debug, PartialEq)]
#[must_use]
pub(super) enum After {
    /// Another one, after a pause.
    Again { pause: Duration },
    /// None: that is the answer.
    Answer,
    /// None, because it has cost so many workers.
    Quarantine { deaths: u32 },
}

impl Policy {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            failed: 0,
            cost: 0,
            lost: 0,
            alone: false,
            given_up: false,
            due: None,
            deaths: Vec::new(),
            turn: Turn::default(),
        }
    }

    /// An attempt ended without a value. `closing`: there is no time for another.
    pub(super) fn attempt_failed(
        &mut self,
        death: Death,
        job: u64,
        quarantine_after: u32,
        closing: bool,
    ) -> After {
        let why = death.kind();
        let returned = matches!(why, JobErrorKind::Returned(_));
        let again = may_be_tried_again(why) || returned && self.terms.retry_errors;
        if self.terms.retries == 0 || self.given_up || !again {
            return After::Answer;
        }
        let costs = costs_a_worker(why);
        self.failed += 1;
        self.cost += u32::from(costs);
        if costs && self.cost >= quarantine_after {
            self.remember(death);
            return After::Quarantine { deaths: self.cost };
        }
        if closing || self.failed > self.terms.retries {
            return After::Answer;
        }
        self.remember(death);
        After::Again {
            pause: self.terms.backoff.pause(self.failed, job),
        }
    }

    /// Its worker died of something else while it may have run. May it go back to the queue?
    pub(super) fn may_run_again_after_loss(&mut self, quarantine_after: u32) -> bool {
        self.lost += 1;
        self.terms.retries > 0 && !self.given_up && self.lost <= quarantine_after
    }

    fn remember(&mut self, death: Death) {
        if self.deaths.len() == DEATHS {
            self.deaths.remove(0);
        }
        self.deaths.push(death);
    }
}

/// Could another attempt end otherwise?
fn may_be_tried_again(why: &JobErrorKind) -> bool {
    matches!(why, JobErrorKind::Panicked { .. }) || costs_a_worker(why)
}

/// Did the worker die of the job?
pub(super) fn costs_a_worker(why: &JobErrorKind) -> bool {
    match why {
        JobErrorKind::Signal(_)
        | JobErrorKind::Exited(_)
        | JobErrorKind::DeadlineExceeded { .. }
        | JobErrorKind::MemoryLimit { .. }
        | JobErrorKind::OutOfMemoryKill
        | JobErrorKind::Denied { .. }
        | JobErrorKind::Protocol(_) => true,
        JobErrorKind::Panicked { .. }
        | JobErrorKind::LostWith { .. }
        | JobErrorKind::ActorLost { .. }
        | JobErrorKind::ActorEnded
        | JobErrorKind::WaitsForItself { .. }
        | JobErrorKind::Quarantined { .. }
        | JobErrorKind::DependencyFailed { .. }
        | JobErrorKind::ChildFailed { .. }
        | JobErrorKind::NoSpawning
        | JobErrorKind::SpawnLimit { .. }
        | JobErrorKind::Returned(_)
        | JobErrorKind::ArenaFull(_)
        | JobErrorKind::Escaped { .. }
        | JobErrorKind::NoLending
        | JobErrorKind::ForeignArray
        | JobErrorKind::ForeignKernel
        | JobErrorKind::Cancelled
        | JobErrorKind::ShutDown
        | JobErrorKind::NoWorkers(_) => false,
    }
}
