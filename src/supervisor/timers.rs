//! What the monitor does at a certain time. The clocks of running jobs are in their lanes: see `deadline.rs`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::owner::Group;
use super::record::Record;
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
    /// The same for a cancelled run. Another run with this index has another serial number.
    Run { run: u32, serial: u64 },
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
        matches!(self, Self::Scope(_) | Self::Run { .. })
    }
}

/// All timers of an engine, by time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Starts of attempts and actors.
    starts: BTreeSet<(Instant, Timer)>,
    /// Times at which jobs are lost, each less than it is by `delay`.
    ends: BTreeSet<(Instant, Timer)>,
    /// The sum of what [`postpone_ends`](Self::postpone_ends) was called with: there may be very many ends.
    delay: Duration,
}

impl Timers {
    pub(super) fn add(&mut self, due: Instant, timer: Timer) {
        if timer.is_end() {
            self.ends.insert((self.without_delay(due), timer));
        } else {
            self.starts.insert((due, timer));
        }
    }

    fn without_delay(&self, due: Instant) -> Instant {
        // What is due was added later than the first delay began.
        due.checked_sub(self.delay).unwrap_or(due)
    }

    /// Removes the start of an attempt or an actor.
    pub(super) fn remove_start(&mut self, due: Instant, timer: Timer) {
        self.starts.remove(&(due, timer));
    }

    /// Ends the wait of a job for its next attempt.
    pub(super) fn end_pause(&mut self, record: &mut Record, index: u32) {
        let policy = record.policy.as_mut();
        if let Some(due) = policy.and_then(|policy| policy.due.take()) {
            self.remove_start(due, Timer::Attempt(index));
        }
    }

    /// Removes an end, whose time is not known.
    pub(super) fn forget_end(&mut self, timer: Timer) {
        self.ends.retain(|&(_, other)| other != timer);
    }

    fn first_end(&self) -> Option<Instant> {
        let &(due, _) = self.ends.first()?;
        Some(postponed(due, self.delay))
    }

    /// When something is due next.
    pub(super) fn first(&self) -> Option<Instant> {
        let start = self.starts.first().map(|&(due, _)| due);
        start.into_iter().chain(self.first_end()).min()
    }

    /// Whether jobs are lost at some time.
    pub(super) fn has_ends(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Delays everything by which jobs are lost.
    pub(super) fn postpone_ends(&mut self, by: Duration) {
        self.delay = self.delay.saturating_add(by);
    }

    /// The records of jobs that wait for their next attempt, by its time.
    pub(super) fn attempts(&self) -> impl Iterator<Item = u32> {
        self.starts.iter().filter_map(|(_, timer)| timer.attempt())
    }

    /// Whether an actor waits for its next start.
    pub(super) fn has_actor_starts(&self) -> bool {
        let mut timers = self.starts.iter();
        timers.any(|(_, timer)| matches!(timer, Timer::ActorStart(_)))
    }

    /// Takes what is due: ends, then starts, each in the order of time. With a start comes its time; ends come with
    /// theirs less the delay.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Instant, Timer)> {
        let ended = self.without_delay(now);
        let ends = take_until(&mut self.ends, ended);
        ends.chain(take_until(&mut self.starts, now)).collect()
    }
}

fn take_until(
    timers: &mut BTreeSet<(Instant, Timer)>,
    now: Instant,
) -> impl Iterator<Item = (Instant, Timer)> {
    std::iter::from_fn(move || {
        timers.first().filter(|&&(due, _)| due <= now)?;
        timers.pop_first()
    })
}
