//! The bytes of jobs in flight, and the line of callers that wait for admission.

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

/// Bytes that each job is charged in addition to its arrays, for its record and slot. This is not 0, so that the end of
/// each job is noticed.
const JOB_OVERHEAD: u64 = 512;

/// State of admission by bytes. A job counts from its admission until it is answered or removed.
#[derive(Debug)]
pub(in crate::supervisor) struct Admission {
    limit: u64,
    /// Bytes of all jobs in flight.
    bytes: u64,
    /// The charge of each job in flight in bytes, by the index of its record.
    charges: HashMap<u32, u64>,
    /// Number of jobs that were admitted and have no record yet.
    entering: usize,
    /// Waiting callers by ticket, oldest first.
    line: BTreeMap<u64, LineEntry>,
    last_ticket: u64,
    /// When the first caller in the line is woken again or removed, if it is a future.
    recheck_at: Option<Instant>,
}

/// A waiting caller.
#[derive(Debug)]
pub(super) enum LineEntry {
    /// A thread that sleeps on the parking word, or a future that is being polled.
    Present,
    /// A future that has stored its waker.
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

    /// Returns the number of bytes of the jobs in flight.
    pub(in crate::supervisor) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the charge in bytes of a job of this kernel, with `held` bytes of arguments that only it uses.
    ///
    /// Before a kernel has ended its first job, the size of its values is unknown. Until then each job is charged a
    /// lane's share of the ceiling, so that each lane can run one, or twice `held` if that is more.
    pub(super) fn weight(&self, kernel: &KernelStats, held: u64, lanes: usize) -> u64 {
        let own = held.saturating_add(JOB_OVERHEAD);
        match kernel.calls {
            0 => (self.limit / lanes as u64).max(own.saturating_mul(2)),
            _ => own.saturating_add(kernel.expected_bytes),
        }
    }

    /// Draws a ticket: a number larger than all earlier tickets.
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

    /// Puts the caller with this ticket into the line again, even if it was removed. Returns the previous entry: the
    /// caller drops its waker outside the lock.
    pub(super) fn look_again(&mut self, ticket: u64) -> Option<LineEntry> {
        self.line.insert(ticket, LineEntry::Present)
    }

    pub(super) fn leave(&mut self, ticket: u64) -> Option<LineEntry> {
        self.line.remove(&ticket)
    }

    /// Takes the waker of the first caller in the line, if that is a future, and records the time. If the future does
    /// not store another waker in time, it is removed from the line.
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

    /// Returns true if the first caller in the line has to be woken now. Removes futures that were woken long ago.
    pub(super) fn take_due_recheck(&mut self, now: Instant) -> bool {
        let is_due = self.recheck_at.take_if(|at| *at <= now).is_some();
        if is_due {
            self.drop_unresponsive(now);
        }
        is_due
    }

    /// Returns the time when [`take_due_recheck`](Self::take_due_recheck) is due.
    pub(in crate::supervisor) fn recheck_at(&self) -> Option<Instant> {
        self.recheck_at
    }

    /// Stores the waker of the future with this ticket. Returns when the line is checked again: polling a future
    /// repeatedly does not postpone the check.
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

    /// Returns the ceiling in bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Removes futures at the front of the line that were woken long ago and not polled since: they would block all
    /// others. They get their place again when they are polled.
    fn drop_unresponsive(&mut self, now: Instant) {
        while let Some(first) = self.line.first_entry()
            && matches!(first.get(), LineEntry::Woken(at) if now.duration_since(*at) >= LOOK_AGAIN)
        {
            first.remove();
        }
    }

    /// Returns true if a job of `bytes` may be admitted: it fits, or no other job is in flight; and neither the line
    /// nor `begun`, the first ticket of runs that are held back, has an earlier ticket.
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

    /// Counts an admitted job that has no record yet.
    pub(super) fn reserve(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.entering += 1;
    }

    /// Charges the admitted job to `record`, which is `None` if the job was answered at once. Returns whether the line
    /// has to be notified.
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
        // The next caller may fit in addition to this job, or instead of it if it was answered.
        !self.line.is_empty()
    }

    fn subtract(&mut self, bytes: u64) {
        self.bytes = match self.is_empty() {
            // The sum may have saturated; from here on it is exact again.
            true => 0,
            false => self.bytes.saturating_sub(bytes),
        };
    }

    /// Subtracts the charge of this record's job. Returns whether the line has to be notified.
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
    /// The job does not fit below the ceiling of [`max_in_flight_bytes`](crate::engine::Builder::max_in_flight_bytes),
    /// or other jobs already wait.
    Admission {
        /// The charge of the job in bytes.
        bytes: u64,
        /// The charges of all jobs in flight in bytes.
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

/// Returns the number of bytes of the call's arguments that no other handle refers to.
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
/// The ticket of a call that is submitted without blocking. `None` until the call joins the line.
#[derive(Debug, Default)]
pub(crate) struct LineTicket(pub(super) Option<u64>);

impl LineTicket {
    pub(crate) fn is_in(&self) -> bool {
        self.0.is_some()
    }
}

/// Proof that a job with a charge of this number of bytes was admitted and is not submitted yet.
#[derive(Debug)]
#[must_use]
pub(crate) struct Admitted(pub(super) u64);
