//! The attempts of one job: what has failed, and what follows.

use std::time::{Duration, Instant};

use super::error::{Death, JobErrorKind};
use super::limiter::PermitStage;
use super::options::JobOptions;

/// Deaths that an error lists at most.
const DEATHS: usize = 16;

/// The options of one job and how they were used up. Only jobs that have options have one.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) options: JobOptions,
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
    pub(super) permit: PermitStage,
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
    pub(super) fn new(options: JobOptions) -> Self {
        Self {
            options,
            failed: 0,
            cost: 0,
            lost: 0,
            alone: false,
            given_up: false,
            due: None,
            deaths: Vec::new(),
            permit: PermitStage::default(),
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
        let again = may_be_tried_again(why) || returned && self.options.retry_errors;
        if self.options.retries == 0 || self.given_up || !again {
            return After::Answer;
        }
        let costs = costs_a_worker(why);
        self.failed += 1;
        self.cost += u32::from(costs);
        if costs && self.cost >= quarantine_after {
            self.remember(death);
            return After::Quarantine { deaths: self.cost };
        }
        if closing || self.failed > self.options.retries {
            return After::Answer;
        }
        self.remember(death);
        After::Again {
            pause: self.options.backoff.pause(self.failed, job),
        }
    }

    /// Its worker died of something else while it may have run. May it go back to the queue?
    pub(super) fn may_run_again_after_loss(&mut self, quarantine_after: u32) -> bool {
        self.lost += 1;
        self.options.retries > 0 && !self.given_up && self.lost <= quarantine_after
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
