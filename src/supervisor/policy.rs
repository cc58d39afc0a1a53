//! The attempts of one job: how many have failed, and whether there is another.

use std::time::{Duration, Instant};

use super::error::{Death, JobErrorKind, JobLimit, WorkerExit};
use super::limiter::PermitStage;
use super::options::JobOptions;

/// Maximum number of earlier attempts that an error lists.
const DEATHS: usize = 16;

/// The options of one job, and the state of its attempts. Jobs without options have no policy.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) options: JobOptions,
    /// Number of failed attempts.
    failed: u32,
    /// Number of workers that the job has ended.
    ended_workers: u32,
    /// Number of times that the job was lost because another job had ended its worker.
    lost_with_others: u32,
    /// Whether the job needs a worker without other jobs.
    pub(super) is_exclusive: bool,
    /// Whether the job was asked to stop: then it is not retried.
    pub(super) given_up: bool,
    /// The end of the pause before the job's next attempt.
    pub(super) due: Option<Instant>,
    /// How the last attempts ended, oldest first.
    pub(super) deaths: Vec<Death>,
    /// The job's permit, or its ticket at the limiter.
    pub(super) permit: PermitStage,
}

/// What happens after a failed attempt.
#[derive(Debug, PartialEq)]
#[must_use]
pub(super) enum After {
    /// The job is attempted again after a pause.
    Again { pause: Duration },
    /// The job fails with this error.
    Answer,
    /// The job fails, because it has ended too many workers.
    Quarantine { deaths: u32 },
}

impl Policy {
    pub(super) fn new(options: JobOptions) -> Self {
        Self {
            options,
            failed: 0,
            ended_workers: 0,
            lost_with_others: 0,
            is_exclusive: false,
            given_up: false,
            due: None,
            deaths: Vec::new(),
            permit: PermitStage::default(),
        }
    }

    /// Records an attempt that ended without a value. `closing`: the engine shuts down, so nothing is retried.
    pub(super) fn attempt_failed(
        &mut self,
        death: Death,
        job: u64,
        quarantine_after: u32,
        closing: bool,
    ) -> After {
        let why = &death.kind;
        let returned = matches!(why, JobErrorKind::Returned(_));
        let is_retryable = may_succeed_again(why) || returned && self.options.retry_errors;
        if self.options.retries == 0 || self.given_up || !is_retryable {
            return After::Answer;
        }
        let ends_worker = ends_worker(why);
        self.failed += 1;
        self.ended_workers += u32::from(ends_worker);
        if ends_worker && self.ended_workers >= quarantine_after {
            self.remember(death);
            return After::Quarantine {
                deaths: self.ended_workers,
            };
        }
        if closing || self.failed > self.options.retries {
            return After::Answer;
        }
        self.remember(death);
        After::Again {
            pause: self.options.backoff.pause(self.failed, job),
        }
    }

    /// Records that another job ended the worker while this job may have run. Returns whether this job may run again.
    pub(super) fn may_run_again_after_loss(&mut self, quarantine_after: u32) -> bool {
        self.lost_with_others += 1;
        self.options.retries > 0 && !self.given_up && self.lost_with_others <= quarantine_after
    }

    fn remember(&mut self, death: Death) {
        if self.deaths.len() == DEATHS {
            self.deaths.remove(0);
        }
        self.deaths.push(death);
    }
}

/// Returns true if another attempt may succeed.
pub(super) fn may_succeed_again(why: &JobErrorKind) -> bool {
    matches!(why, JobErrorKind::Panicked { .. }) || ends_worker(why)
}

/// Returns true if the job ended its worker.
pub(super) fn ends_worker(why: &JobErrorKind) -> bool {
    match why {
        JobErrorKind::Lost(exit) => match exit {
            WorkerExit::Signal(_)
            | WorkerExit::Code(_)
            | WorkerExit::OutOfMemoryKill
            | WorkerExit::Denied { .. }
            | WorkerExit::Protocol(_) => true,
            WorkerExit::Escaped { .. } | WorkerExit::OtherJob { .. } => false,
        },
        JobErrorKind::Limit(limit) => match limit {
            JobLimit::Deadline { .. } | JobLimit::Memory { .. } => true,
            JobLimit::Arena(_)
            | JobLimit::ArenaShare(_)
            | JobLimit::Spawned { .. }
            | JobLimit::Quarantined { .. } => false,
        },
        JobErrorKind::Panicked { .. }
        | JobErrorKind::Returned(_)
        | JobErrorKind::Rejected(_)
        | JobErrorKind::Dependency(_)
        | JobErrorKind::Cancelled
        | JobErrorKind::ShutDown
        | JobErrorKind::NoWorkers(_) => false,
    }
}
