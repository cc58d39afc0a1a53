//! The account of admission: the bytes that each job in flight is charged, and the line of callers that wait.

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::task::Waker;
use std::time::Instant;

use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::INLINE_WORDS;
use crate::supervisor::waiting::LOOK_AGAIN;

/// What a job takes beside arrays: its record and its slot. So no job is free, and the end of each is noticed.
pub(super) const EACH: u64 = 512;

/// The books of admission. A job counts from the moment it is let in until it is answered.
#[derive(Debug)]
pub(in crate::supervisor) struct Admission {
    limit: u64,
    /// Bytes of all jobs in flight.
    bytes: u64,
    /// Those of each, by its record.
    charges: HashMap<u32, u64>,
    /// Jobs that were let in and have no record yet.
    entering: usize,
    /// Who waits, in the order in which they came.
    line: BTreeMap<u64, Place>,
    last_ticket: u64,
    /// When the first in the line, a future, looks again whatever it was told, or is passed over.
    look_at: Option<Instant>,
}

/// Who stands in the line.
#[derive(Debug)]
pub(super) enum Place {
    /// A thread, which sleeps in the parking and comes by itself; or a future that is looking.
    Here,
    /// A future that comes when it is woken.
    Asleep(Waker),
    /// A future that was woken then. It may be one that nobody polls any more.
    Told(Instant),
}

impl Admission {
    pub(in crate::supervisor) fn new(limit: u64) -> Self {
        Self {
            limit,
            bytes: 0,
            charges: HashMap::new(),
            entering: 0,
            line: BTreeMap::new(),
            last_ticket: 0,
            look_at: None,
        }
    }

    /// Bytes of the jobs in flight.
    pub(in crate::supervisor) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A place behind all who have come so far.
    pub(super) fn number(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// Joins the line.
    pub(super) fn join(&mut self) -> u64 {
        let ticket = self.number();
        self.come(ticket);
        ticket
    }

    /// Whoever has this ticket looks, also if it was passed over. A waker that it had left is given back.
    pub(super) fn come(&mut self, ticket: u64) -> Option<Place> {
        self.line.insert(ticket, Place::Here)
    }

    pub(super) fn leave(&mut self, ticket: u64) -> Option<Place> {
        self.line.remove(&ticket)
    }

    /// The waker of the first in the line, if that is a future. It comes again and leaves another, or is passed over.
    pub(super) fn first_waker(&mut self) -> Option<(Waker, Instant)> {
        let mut first = self.line.first_entry()?;
        let Place::Asleep(_) = first.get() else {
            return None;
        };
        let now = Instant::now();
        let Place::Asleep(waker) = first.insert(Place::Told(now)) else {
            unreachable!("it was just seen");
        };
        let look_at = now + LOOK_AGAIN;
        self.look_at = Some(look_at);
        Some((waker, look_at))
    }

    /// Whether it is time for the first in the line, a future, to look again. It is passed over if it was told long ago.
    pub(super) fn is_time_to_look(&mut self, now: Instant) -> bool {
        let is_due = self.look_at.take_if(|at| *at <= now).is_some();
        if is_due {
            self.pass_over(now);
        }
        is_due
    }

    /// When that is.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// The future with this ticket sleeps. Returns when it looks again at the latest: no later than it is time for those before,
    /// however often this one looks.
    pub(super) fn sleeps(
        &mut self,
        ticket: u64,
        waker: Option<Waker>,
        look_at: Instant,
    ) -> Instant {
        if let Some(waker) = waker {
            self.line.insert(ticket, Place::Asleep(waker));
        }
        *self.look_at.get_or_insert(look_at)
    }

    /// The wakers of all futures that sleep in the line.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for place in self.line.values_mut() {
            if matches!(place, Place::Asleep(_))
                && let Place::Asleep(waker) = std::mem::replace(place, Place::Here)
            {
                wakers.push(waker);
            }
        }
        wakers
    }

    /// The ceiling.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Those in front that were told long ago, and have not come, keep nobody waiting any more. They have their places again
    /// when they come.
    fn pass_over(&mut self, now: Instant) {
        while let Some(first) = self.line.first_entry()
            && matches!(first.get(), Place::Told(at) if now.duration_since(*at) >= LOOK_AGAIN)
        {
            first.remove();
        }
    }

    /// Whether a job of so many bytes may be let in now: it fits, or nothing else is in flight; and nobody came before, neither
    /// in the line nor, with ticket `begun`, with something that was begun already.
    pub(super) fn may_enter(&self, bytes: u64, ticket: Option<u64>, begun: Option<u64>) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= self.limit;
        let waits = self.line.first_key_value().map(|(&first, _)| first);
        let first = waits.into_iter().chain(begun).min();
        let is_first = first.is_none_or(|first| ticket.is_some_and(|ticket| ticket <= first));
        is_first && (fits || self.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.charges.is_empty() && self.entering == 0
    }

    /// A job is let in, and counts from now on.
    pub(super) fn enter(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.entering += 1;
    }

    /// The job that was let in has this record; `None`: it was answered at once. True if somebody waits for that.
    #[must_use]
    pub(super) fn entered(&mut self, record: Option<u32>, bytes: u64) -> bool {
        self.entering -= 1;
        match record {
            Some(record) => {
                let before = self.charges.insert(record, bytes);
                debug_assert_eq!(before, None, "a job is let in once");
            }
            None => self.give(bytes),
        }
        // Whoever comes next may fit beside it, or instead of it.
        !self.line.is_empty()
    }

    fn give(&mut self, bytes: u64) {
        self.bytes = match self.is_empty() {
            // A sum that was cut begins anew.
            true => 0,
            false => self.bytes.saturating_sub(bytes),
        };
    }

    /// The job of this record is no longer in flight. True if somebody waits for that.
    #[must_use]
    pub(super) fn discharge(&mut self, record: u32) -> bool {
        let Some(bytes) = self.charges.remove(&record) else {
            return false;
        };
        self.give(bytes);
        !self.line.is_empty()
    }
}

/// Why a job was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedBy {
    /// The bytes of the jobs in flight and those of this one are more than
    /// [`admission`](crate::engine::Builder::admission) allows, or others wait already.
    Admission {
        /// What the job would have counted for.
        bytes: u64,
        /// What the jobs in flight count for.
        in_flight: u64,
        /// The ceiling.
        limit: u64,
    },
    /// The machine or the container has next to no memory left.
    MemoryShort,
}

impl fmt::Display for RefusedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admission { bytes, in_flight, limit } => write!(
                f,
                "a job of {bytes} bytes is not let in beside {in_flight} bytes of jobs in flight, with a ceiling of {limit}: \
                 wait until some have ended, or raise the ceiling"
            ),
            Self::MemoryShort => f.write_str(
                "machine or container have next to no memory left: wait, stop other programs, or raise the limit",
            ),
        }
    }
}

/// What a call holds that would be free without it.
pub(crate) fn held_by(call: &ArgWriter) -> u64 {
    let words = call.words().len();
    let spilled = if words > INLINE_WORDS {
        words as u64 * 8
    } else {
        0
    };
    let alone = |lease: &Lease| match lease {
        Lease::Shared(block) if std::sync::Arc::strong_count(block) > 1 + call.kept => 0,
        lease => lease.bytes(),
    };
    call.leases
        .iter()
        .map(alone)
        .fold(spilled, u64::saturating_add)
}

/// A place in the line, as a future.
#[derive(Debug, Default)]
pub(crate) struct InLine(pub(super) Option<u64>);

impl InLine {
    pub(crate) fn is_in(&self) -> bool {
        self.0.is_some()
    }
}

/// A job of so many bytes was let in, and has not been submitted.
#[derive(Debug)]
#[must_use]
pub(crate) struct Entry(pub(super) u64);
