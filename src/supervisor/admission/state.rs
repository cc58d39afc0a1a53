//! Accounting of the bytes of jobs in flight, and the line of callers that wait.

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::task::Waker;
use std::time::Instant;

use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::INLINE_WORDS;
use crate::supervisor::kernels::KernelStats;
use crate::supervisor::waiting::LOOK_AGAIN;

/// Bytes that each job counts for beside its arrays: record and slot. Not 0, so that the end of each job is noticed.
const JOB_OVERHEAD: u64 = 512;

/// State of admission by bytes. A job counts from its admission until it is answered or given up.
#[derive(Debug)]
pub(in crate::supervisor) struct Admission {
    limit: u64,
    /// Bytes of all jobs in flight.
    bytes: u64,
    /// Bytes of each job in flight, by its record.
    charges: HashMap<u32, u64>,
    /// Number of jobs that were admitted and have no record yet.
    entering: usize,
    /// Waiting callers by ticket, oldest first.
    line: BTreeMap<u64, LineEntry>,
    last_ticket: u64,
    /// When the first in the line, a future, is woken again without a cause, or is passed over.
    recheck_at: Option<Instant>,
}

/// A waiting caller.
#[derive(Debug)]
pub(super) enum LineEntry {
    /// A thread, which sleeps on the parking word; or a future that is being polled.
    Present,
    /// A future that left its waker.
    Asleep(Waker),
    /// A future that was woken at this time. It may never be polled again.
    Woken(Instant),
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
            recheck_at: None,
        }
    }

    /// Bytes of the jobs in flight.
    pub(in crate::supervisor) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that a job of this kernel counts for, with `held` bytes of arguments of its own.
    ///
    /// A kernel that has never ended a job may return any amount. Until then each job counts for a lane's share of the
    /// ceiling, so that each lane gets one; or for twice its own bytes, if that is more.
    pub(super) fn weight(&self, kernel: &KernelStats, held: u64, lanes: usize) -> u64 {
        let own = held.saturating_add(JOB_OVERHEAD);
        match kernel.calls {
            0 => (self.limit / lanes as u64).max(own.saturating_mul(2)),
            _ => own.saturating_add(kernel.expected_bytes),
        }
    }

    /// Draws a ticket behind all earlier ones.
    pub(in crate::supervisor) fn draw_ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// Joins the line.
    pub(super) fn join(&mut self) -> u64 {
        let ticket = self.draw_ticket();
        self.look_again(ticket);
        ticket
    }

    /// Enters the caller with this ticket into the line again, even if it was passed over. Returns the entry that it
    /// replaces, whose waker is dropped outside the lock.
    pub(super) fn look_again(&mut self, ticket: u64) -> Option<LineEntry> {
        self.line.insert(ticket, LineEntry::Present)
    }

    pub(super) fn leave(&mut self, ticket: u64) -> Option<LineEntry> {
        self.line.remove(&ticket)
    }

    /// Takes the waker of the first in the line, if that is a future, and notes the time. The future leaves another
    /// waker, or is passed over.
    pub(super) fn first_waker(&mut self) -> Option<(Waker, Instant)> {
        let mut first = self.line.first_entry()?;
        let LineEntry::Asleep(_) = first.get() else {
            return None;
        };
        let now = Instant::now();
        let LineEntry::Asleep(waker) = first.insert(LineEntry::Woken(now)) else {
            unreachable!("the entry was just matched");
        };
        let recheck_at = now + LOOK_AGAIN;
        self.recheck_at = Some(recheck_at);
        Some((waker, recheck_at))
    }

    /// Whether the first in the line, a future, has to be woken again now. Passes it over if it was woken long ago.
    pub(super) fn take_due_recheck(&mut self, now: Instant) -> bool {
        let is_due = self.recheck_at.take_if(|at| *at <= now).is_some();
        if is_due {
            self.drop_unresponsive(now);
        }
        is_due
    }

    /// When [`take_due_recheck`](Self::take_due_recheck) has something to do.
    pub(in crate::supervisor) fn recheck_at(&self) -> Option<Instant> {
        self.recheck_at
    }

    /// Leaves the waker of a future with this ticket. Returns when the line is checked again at the latest: not later than
    /// the check that earlier waiters set, however often this future is polled.
    pub(super) fn leave_waker(
        &mut self,
        ticket: u64,
        waker: Option<Waker>,
        recheck_at: Instant,
    ) -> Instant {
        if let Some(waker) = waker {
            self.line.insert(ticket, LineEntry::Asleep(waker));
        }
        *self.recheck_at.get_or_insert(recheck_at)
    }

    /// Takes the wakers of all futures in the line.
    pub(in crate::supervisor) fn take_wakers(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for entry in self.line.values_mut() {
            if matches!(entry, LineEntry::Asleep(_))
                && let LineEntry::Asleep(waker) = std::mem::replace(entry, LineEntry::Present)
            {
                wakers.push(waker);
            }
        }
        wakers
    }

    /// The ceiling in bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Removes futures at the front that were woken long ago and have not been polled, so that they block no one. They
    /// regain their place when they are polled.
    fn drop_unresponsive(&mut self, now: Instant) {
        while let Some(first) = self.line.first_entry()
            && matches!(first.get(), LineEntry::Woken(at) if now.duration_since(*at) >= LOOK_AGAIN)
        {
            first.remove();
        }
    }

    /// Whether a job of `bytes` may be admitted: it fits, or nothing else is in flight; and no earlier ticket waits,
    /// neither in the line nor, with ticket `begun`, as a job of a graph that has begun.
    pub(super) fn may_admit(&self, bytes: u64, ticket: Option<u64>, begun: Option<u64>) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= self.limit;
        let waits = self.line.first_key_value().map(|(&first, _)| first);
        let first = waits.into_iter().chain(begun).min();
        let is_first = first.is_none_or(|first| ticket.is_some_and(|ticket| ticket <= first));
        is_first && (fits || self.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.charges.is_empty() && self.entering == 0
    }

    /// Counts an admitted job, which has no record yet.
    pub(super) fn reserve(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.entering += 1;
    }

    /// Charges the admitted job to this record; `None` if it was answered at once. Returns whether the line has to be
    /// notified.
    #[must_use]
    pub(super) fn charge(&mut self, record: Option<u32>, bytes: u64) -> bool {
        self.entering -= 1;
        match record {
            Some(record) => {
                let before = self.charges.insert(record, bytes);
                debug_assert_eq!(before, None, "a job is admitted once");
            }
            None => self.subtract(bytes),
        }
        // The next one in the line may fit beside it, or in its place.
        !self.line.is_empty()
    }

    fn subtract(&mut self, bytes: u64) {
        self.bytes = match self.is_empty() {
            // The sum may have saturated.
            true => 0,
            false => self.bytes.saturating_sub(bytes),
        };
    }

    /// Subtracts the job of this record. Returns whether the line has to be notified.
    #[must_use]
    pub(super) fn discharge(&mut self, record: u32) -> bool {
        let Some(bytes) = self.charges.remove(&record) else {
            return false;
        };
        self.subtract(bytes);
        !self.line.is_empty()
    }
}

/// Why a job was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedBy {
    /// The job does not fit below the ceiling of [`max_in_flight_bytes`](crate::engine::Builder::max_in_flight_bytes), or other jobs wait
    /// already.
    Admission {
        /// Bytes that the job would count for.
        bytes: u64,
        /// Bytes that the jobs in flight count for.
        in_flight: u64,
        /// The ceiling in bytes.
        limit: u64,
    },
    /// The machine or the container has almost no memory left.
    MemoryShort,
}

impl fmt::Display for RefusedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admission { bytes, in_flight, limit } => write!(
                f,
                "a job of {bytes} bytes does not fit: jobs in flight take {in_flight} of {limit} bytes; wait until some have \
                 ended, or raise the ceiling"
            ),
            Self::MemoryShort => f.write_str(
                "the machine or container has almost no memory left: wait, stop other programs, or raise the limit",
            ),
        }
    }
}

/// Bytes that a call holds and that would be free without it.
pub(crate) fn exclusive_bytes(call: &ArgWriter) -> u64 {
    let words = call.words().len();
    let spilled = if words > INLINE_WORDS {
        words as u64 * 8
    } else {
        0
    };
    let alone = |lease: &Lease| match lease {
        Lease::Shared(block) | Lease::Loan { block, .. }
            if std::sync::Arc::strong_count(block) > 1 + call.kept =>
        {
            0
        }
        lease => lease.bytes(),
    };
    call.leases
        .iter()
        .map(alone)
        .fold(spilled, u64::saturating_add)
}
/// The place in the line of a call that is submitted without blocking; `None` inside while it has not joined.
#[derive(Debug, Default)]
pub(crate) struct LineTicket(pub(super) Option<u64>);

impl LineTicket {
    pub(crate) fn is_in(&self) -> bool {
        self.0.is_some()
    }
}

/// Proof that a job of this number of bytes was admitted and not yet submitted.
#[derive(Debug)]
#[must_use]
pub(crate) struct Admitted(pub(super) u64);
