//! What the monitor does at a certain time. The clocks of running jobs are in their lanes: see `deadline.rs`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::owner::Group;
use crate::sys::clock::postponed;

/// What is done when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The job with this record makes its next attempt.
    Attempt(u32),
    /// An actor that found the arena full tries to start again.
    ActorStart(u32),
    /// Workers that still run a job of this cancelled scope are killed.
    Scope(Group),
    /// The same for a task group. Another group with this index has another serial number.
    TaskGroup { task_group: u32, serial: u64 },
}

impl Timer {
    /// The record of the job that makes its next attempt.
    pub(super) fn attempt(self) -> Option<u32> {
        match self {
            Self::Attempt(index) => Some(index),
            _ => None,
        }
    }

    /// Whether jobs are lost at that time.
    fn is_end(self) -> bool {
        matches!(self, Self::Scope(_) | Self::TaskGroup { .. })
    }
}

/// All timers of an engine, by time.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(super) fn add(&mut self, due: Instant, timer: Timer) {
        self.0.insert((due, timer));
    }

    pub(super) fn remove(&mut self, due: Instant, timer: Timer) {
        self.0.remove(&(due, timer));
    }

    /// Removes a timer whose time is not known.
    pub(super) fn forget(&mut self, timer: Timer) {
        self.0.retain(|&(_, other)| other != timer);
    }

    /// When something is due next.
    pub(super) fn first(&self) -> Option<Instant> {
        self.0.first().map(|&(due, _)| due)
    }

    /// Whether jobs are lost at some time.
    pub(super) fn has_ends(&self) -> bool {
        self.0.iter().any(|(_, timer)| timer.is_end())
    }

    /// Delays everything by which jobs are lost.
    pub(super) fn postpone_ends(&mut self, by: Duration) {
        let later = |(due, timer): (Instant, Timer)| match timer.is_end() {
            true => (postponed(due, by), timer),
            false => (due, timer),
        };
        self.0 = std::mem::take(&mut self.0).into_iter().map(later).collect();
    }

    /// The records of jobs that wait for their next attempt, by its time.
    pub(super) fn attempts(&self) -> impl Iterator<Item = u32> {
        self.0.iter().filter_map(|(_, timer)| timer.attempt())
    }

    /// Whether an actor waits for its next start.
    pub(super) fn has_starts(&self) -> bool {
        let mut timers = self.0.iter();
        timers.any(|(_, timer)| matches!(timer, Timer::ActorStart(_)))
    }

    /// Takes what is due, in the order of time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Instant, Timer)> {
        let mut due = Vec::new();
        while let Some(&(at, timer)) = self.0.first().filter(|&&(at, _)| at <= now) {
            self.0.remove(&(at, timer));
            due.push((at, timer));
        }
        due
    }
}
