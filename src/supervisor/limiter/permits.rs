//! The state of one limiter: given permits and waiting callers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

/// A rate limit, by the generic cell rate algorithm: cells lie `between` apart, and a job may take one up to `ahead`
/// before its time.
pub(super) struct Rate {
    between: Duration,
    ahead: Duration,
    /// The time of the next cell.
    next: Duration,
}

impl Rate {
    pub(super) fn new(between: Duration, burst: u32) -> Self {
        Self {
            between,
            ahead: between.saturating_mul(burst.saturating_sub(1)),
            next: Duration::ZERO,
        }
    }

    /// Takes one cell, or returns when the next cell is available.
    fn check(&mut self, now: Duration) -> Result<(), Duration> {
        let earliest = self.next.saturating_sub(self.ahead);
        if now < earliest {
            return Err(earliest);
        }
        // Cells whose time has passed without a job are lost.
        self.next = self.next.max(now).saturating_add(self.between);
        Ok(())
    }
}

thread_local! {
    static THREAD: Caller = Caller::new();
}

/// Identifies a caller, whose jobs take turns with those of other callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Caller(u64);

impl Caller {
    /// Returns a new caller.
    pub(super) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Relaxed: only uniqueness matters.
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the caller of this thread.
    pub(super) fn this_thread() -> Self {
        THREAD.with(|&thread| thread)
    }
}

/// Identifies one waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::supervisor) struct Ticket {
    /// The number of the waiter in this limiter, from 1.
    number: u64,
    caller: Caller,
}

/// The waiters of one caller.
struct CallerQueue {
    /// The round in which the first waiter has its turn.
    round: u64,
    /// Wakers of the waiters, oldest first.
    wakers: BTreeMap<Ticket, Waker>,
}

/// The waiters of all callers.
///
/// Each caller has one turn per round; within a round the oldest goes first. Only the first waiter of a caller has a
/// round; when it is called, the next waiter gets the following round. So a waiter that leaves does not use up a turn.
#[derive(Default)]
pub(super) struct TurnQueue {
    callers: HashMap<Caller, CallerQueue>,
    /// The first waiter of each caller, with its round.
    firsts: BTreeSet<(u64, Ticket)>,
    len: usize,
}

impl TurnQueue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    /// Returns the number of callers with waiters.
    #[cfg(test)]
    pub(super) fn callers(&self) -> usize {
        self.callers.len()
    }

    #[cfg(test)]
    pub(super) fn contains(&self, ticket: Ticket) -> bool {
        let waiting = self.callers.get(&ticket.caller);
        waiting.is_some_and(|waiting| waiting.wakers.contains_key(&ticket))
    }

    /// Returns the waiter whose turn is next.
    pub(super) fn first(&self) -> Option<Ticket> {
        self.firsts.first().map(|&(_, ticket)| ticket)
    }

    fn first_waker(&self) -> Option<&Waker> {
        let first = self.first()?;
        self.callers.get(&first.caller)?.wakers.get(&first)
    }

    /// Adds a waiter, in this round if it is the only waiter of its caller.
    fn add(&mut self, ticket: Ticket, round: u64, waker: Waker) {
        let firsts = &mut self.firsts;
        let waiting = self.callers.entry(ticket.caller).or_insert_with(|| {
            firsts.insert((round, ticket));
            CallerQueue {
                round,
                wakers: BTreeMap::new(),
            }
        });
        waiting.wakers.insert(ticket, waker);
        self.len += 1;
    }

    /// Removes a waiter. The next waiter of its caller gets the same round, or the following round if the turn was
    /// `used`.
    fn remove(&mut self, ticket: Ticket, used: bool) -> Option<Waker> {
        let waiting = self.callers.get_mut(&ticket.caller)?;
        let waker = waiting.wakers.remove(&ticket)?;
        self.len -= 1;
        if self.firsts.remove(&(waiting.round, ticket)) {
            waiting.round += u64::from(used);
            match waiting.wakers.first_key_value() {
                Some((&next, _)) => {
                    self.firsts.insert((waiting.round, next));
                }
                None => {
                    self.callers.remove(&ticket.caller);
                }
            }
        }
        Some(waker)
    }

    /// Removes the waiter whose turn is next, and returns its round.
    fn pop_first(&mut self) -> Option<(u64, Ticket, Waker)> {
        let &(round, ticket) = self.firsts.first()?;
        let waker = self.remove(ticket, true)?;
        Some((round, ticket, waker))
    }
}

/// Permits and waiters of a limiter. Times are relative to the creation of the limiter.
pub(super) struct PermitState {
    /// Number of permits that are given.
    pub(super) given: u32,
    max_given: u32,
    rate: Option<Rate>,
    pub(super) line: TurnQueue,
    /// Waiters that were called and have not collected their permit, with the number of the call. Their permits are
    /// included in `given`.
    pub(super) called: HashMap<Ticket, u64>,
    calls: u64,
    last_number: u64,
    /// The round of the last call.
    round: u64,
    /// The time before which the rate admits no job.
    rate_closed_until: Option<Duration>,
    /// Number of permits that are held by threads which block for another permit, and return none before they have that
    /// one.
    held_by_waiters: u32,
}

impl PermitState {
    pub(super) fn new(concurrency: Option<u32>, rate: Option<Rate>) -> Self {
        Self {
            given: 0,
            max_given: concurrency.unwrap_or(u32::MAX),
            rate,
            line: TurnQueue::default(),
            called: HashMap::new(),
            calls: 0,
            last_number: 0,
            round: 0,
            rate_closed_until: None,
            held_by_waiters: 0,
        }
    }

    /// Gives a permit, if concurrency and rate allow it now.
    fn give(&mut self, now: Duration) -> bool {
        if self.given == self.max_given || self.rate_closed_until.is_some_and(|until| now < until) {
            return false;
        }
        self.rate_closed_until = match self.rate.as_mut().map(|rate| rate.check(now)) {
            Some(Err(until)) => Some(until),
            Some(Ok(())) | None => None,
        };
        self.given += u32::from(self.rate_closed_until.is_none());
        self.rate_closed_until.is_none()
    }

    /// Requests a permit. Returns `None` if it was given, or the ticket of a new waiter.
    pub(super) fn request(
        &mut self,
        now: Duration,
        caller: Caller,
        waker: &Waker,
    ) -> Option<Ticket> {
        (!self.try_take(now)).then(|| self.join(caller, waker))
    }

    /// Takes a permit if one is available and no waiter is ahead. Otherwise the caller [`joins`](Self::join) the queue.
    pub(super) fn try_take(&mut self, now: Duration) -> bool {
        self.line.is_empty() && self.give(now)
    }

    pub(super) fn join(&mut self, caller: Caller, waker: &Waker) -> Ticket {
        self.last_number += 1;
        let ticket = Ticket {
            number: self.last_number,
            caller,
        };
        // The turn is in the next round, after all waiters that were called in this one. So an endless stream of new
        // callers does not delay the second turn of any caller.
        self.line.add(ticket, self.round + 1, waker.clone());
        ticket
    }

    /// Registers a thread that blocks while it holds `permits` permits. Returns false on deadlock: all permits would be
    /// held by blocked threads. Only the last thread to block completes a deadlock, so no other check is needed.
    pub(super) fn begin_blocking_wait(&mut self, permits: u32) -> bool {
        if permits > 0
            && self.given == self.max_given
            && self.held_by_waiters + permits == self.given
        {
            return false;
        }
        self.held_by_waiters += permits;
        true
    }

    /// Unregisters a thread that blocked.
    pub(super) fn end_blocking_wait(&mut self, permits: u32) {
        self.held_by_waiters -= permits;
    }

    /// Returns true if this waiter was called: then it holds a permit from now on.
    pub(super) fn take_call(&mut self, ticket: Ticket) -> bool {
        self.take_call_number(ticket).is_some()
    }

    /// Like `take_call`; returns the number of the call.
    pub(super) fn take_call_number(&mut self, ticket: Ticket) -> Option<u64> {
        self.called.remove(&ticket)
    }

    /// Removes a waiter, called or not. Returns the wakers to call.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Duration) -> Vec<Waker> {
        if self.take_call(ticket) {
            return self.give_back(now);
        }
        self.line.remove(ticket, false);
        self.call(now)
    }

    /// Takes back a permit that was given. Returns the wakers to call.
    pub(super) fn give_back(&mut self, now: Duration) -> Vec<Waker> {
        self.given -= 1;
        self.call(now)
    }

    /// Calls waiters while permits are available. Returns their wakers, and the waker of the first remaining waiter if
    /// that waiter has to watch the clock.
    pub(super) fn call(&mut self, now: Duration) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while !self.line.is_empty() && self.give(now) {
            if let Some((round, ticket, waker)) = self.line.pop_first() {
                self.round = round;
                self.calls += 1;
                self.called.insert(ticket, self.calls);
                wakers.push(waker);
            }
        }
        let first = self.line.first_waker();
        let waits_for_time =
            first.filter(|_| self.rate_closed_until.is_some() && self.given < self.max_given);
        wakers.extend(waits_for_time.cloned());
        wakers
    }

    /// Returns the waiter that has to watch the clock, and until when. `None` if the first waiter will be notified.
    pub(super) fn due(&self) -> Option<(Ticket, Duration)> {
        let until = self
            .rate_closed_until
            .filter(|_| self.given < self.max_given)?;
        Some((self.line.first()?, until))
    }
}
