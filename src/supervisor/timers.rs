//! Timers of the monitor. The clocks of running jobs are in their lanes: see `deadline.rs`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::owner::Group;
use super::record::Record;
use crate::sys::clock::postponed;

/// What to do at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Begin the next attempt of the job with this record.
    Attempt(u32),
    /// Start an actor again whose restart found the arena full.
    ActorStart(u32),
    /// Kill workers that still run a job of this cancelled scope.
    Scope(Group),
    /// Kill workers that still run a job of this cancelled run. Another run with this index has another serial number.
    Run { run: u32, serial: u64 },
}

impl Timer {
    /// Returns the record of the job whose next attempt begins.
    pub(super) fn attempt(self) -> Option<u32> {
        match self {
            Self::Attempt(index) => Some(index),
            _ => None,
        }
    }

    /// Returns true if jobs may be lost at that time.
    fn is_end(self) -> bool {
        matches!(self, Self::Scope(_) | Self::Run { .. })
    }
}

/// A timer, with its time or, for one at which jobs may be lost, an earlier time: see [`Timers`].
pub(super) type Entry = (Instant, Timer);

/// All timers of an engine, by time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Starts of attempts and of actors.
    starts: BTreeSet<Entry>,
    /// Timers at which jobs may be lost. Each stored time is earlier than the real one by `delay`.
    ends: BTreeSet<Entry>,
    /// The sum of all delays by [`postpone_ends`](Self::postpone_ends). Adding them up is faster than changing the
    /// stored time of very many timers.
    delay: Duration,
}

impl Timers {
    /// Adds a timer. Returns its entry.
    pub(super) fn add(&mut self, due: Instant, timer: Timer) -> Entry {
        if timer.is_end() {
            let entry = (self.without_delay(due), timer);
            self.ends.insert(entry);
            entry
        } else {
            self.starts.insert((due, timer));
            (due, timer)
        }
    }

    fn without_delay(&self, due: Instant) -> Instant {
        // The timer is added after the earlier delays, so they do not apply to it.
        due.checked_sub(self.delay).unwrap_or(due)
    }

    /// Removes the timer of an attempt or of an actor's start.
    pub(super) fn remove_start(&mut self, due: Instant, timer: Timer) {
        self.starts.remove(&(due, timer));
    }

    /// Removes the timer of a job's next attempt.
    pub(super) fn end_pause(&mut self, record: &mut Record, index: u32) {
        let policy = record.policy.as_mut();
        if let Some(due) = policy.and_then(|policy| policy.due.take()) {
            self.remove_start(due, Timer::Attempt(index));
        }
    }

    /// Removes the entry of a timer at which jobs may be lost.
    pub(super) fn remove_end(&mut self, entry: Option<Entry>) {
        entry.map(|entry| self.ends.remove(&entry));
    }

    fn first_end(&self) -> Option<Instant> {
        let &(due, _) = self.ends.first()?;
        Some(postponed(due, self.delay))
    }

    /// Returns the time when something is due next.
    pub(super) fn first(&self) -> Option<Instant> {
        let start = self.starts.first().map(|&(due, _)| due);
        start.into_iter().chain(self.first_end()).min()
    }

    /// Returns true if there are timers at which jobs may be lost.
    pub(super) fn has_ends(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Postpones all timers at which jobs may be lost.
    pub(super) fn postpone_ends(&mut self, by: Duration) {
        self.delay = self.delay.saturating_add(by);
    }

    /// Returns the records of jobs that wait for their next attempt, in the order of time.
    pub(super) fn attempts(&self) -> impl Iterator<Item = u32> {
        self.starts.iter().filter_map(|(_, timer)| timer.attempt())
    }

    /// Returns true if an actor waits for its next start.
    pub(super) fn has_actor_starts(&self) -> bool {
        let mut timers = self.starts.iter();
        timers.any(|(_, timer)| matches!(timer, Timer::ActorStart(_)))
    }

    /// Removes and returns what is due: ends, then starts, each in the order of time. The time of a start is exact; the
    /// time of an end lacks the delay.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Entry> {
        let ended = self.without_delay(now);
        let ends = take_until(&mut self.ends, ended);
        ends.chain(take_until(&mut self.starts, now)).collect()
    }
}

fn take_until(timers: &mut BTreeSet<Entry>, now: Instant) -> impl Iterator<Item = Entry> {
    std::iter::from_fn(move || {
        timers.first().filter(|&&(due, _)| due <= now)?;
        timers.pop_first()
    })
}
