//! Who has a permit, and who waits for one.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// The time as the books are told it, so that they decide by one reading of the clock.
#[derive(Debug, Default)]
struct Told(Cell<Duration>);

impl Clock for Told {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.get()
    }
}

/// A rate: the generic cell rate algorithm.
pub(super) struct Rate(RateLimiter<NotKeyed, InMemoryState, Told, NoOpMiddleware<Duration>>);

impl Rate {
    pub(super) fn new(between: Duration, burst: u32) -> Self {
        let quota = Quota::with_period(between).expect("some time lies between two jobs");
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        Self(RateLimiter::direct_with_clock(
            quota.allow_burst(burst),
            Told::default(),
        ))
    }

    /// Lets one begin, or says when it may.
    fn check(&self, now: Duration) -> Result<(), Duration> {
        self.0.clock().0.set(now);
        self.0.check().map_err(|until| until.earliest_possible())
    }
}

thread_local! {
    static THREAD: Caller = Caller::new();
}

/// Whose jobs take turns with those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Caller(u64);

impl Caller {
    /// Somebody who was not there before.
    pub(super) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Relaxed: only that no two are the same.
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }

    /// This thread.
    pub(super) fn this_thread() -> Self {
        THREAD.with(|&thread| thread)
    }
}

/// A place in the line. In each round everybody who waits has one turn; within a round, who came first goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::supervisor) struct Ticket {
    round: u64,
    number: u64,
}

/// Who has a permit, and who waits for one. Times are counted from the limiter's beginning.
pub(super) struct Books {
    /// Permits that are given.
    pub(super) given: u32,
    most: u32,
    rate: Option<Rate>,
    /// Who waits, in the order of their turns, and how they are told that it is theirs.
    pub(super) line: BTreeMap<Ticket, Waker>,
    /// Whose turn it is, and who has not come yet: they have their permit.
    pub(super) called: BTreeSet<Ticket>,
    last_number: u64,
    /// The round of whoever was called last.
    round: u64,
    /// The last round in which a caller has a turn, if that is not over.
    last_turns: HashMap<Caller, u64>,
    /// Until then the rate lets nobody in.
    closed_until: Option<Duration>,
    /// Permits of threads that wait for another one, and give none back before they have it.
    stuck: u32,
}

impl Books {
    pub(super) fn new(concurrency: Option<u32>, rate: Option<Rate>) -> Self {
        Self {
            given: 0,
            most: concurrency.unwrap_or(u32::MAX),
            rate,
            line: BTreeMap::new(),
            called: BTreeSet::new(),
            last_number: 0,
            round: 0,
            last_turns: HashMap::new(),
            closed_until: None,
            stuck: 0,
        }
    }

    /// Callers whose turns are remembered.
    #[cfg(test)]
    pub(super) fn callers_known(&self) -> usize {
        self.last_turns.len()
    }

    /// Gives a permit, if one may be given now.
    fn give(&mut self, now: Duration) -> bool {
        if self.given == self.most || self.closed_until.is_some_and(|until| now < until) {
            return false;
        }
        self.closed_until = match self.rate.as_ref().map(|rate| rate.check(now)) {
            Some(Err(until)) => Some(until),
            Some(Ok(())) | None => None,
        };
        self.given += u32::from(self.closed_until.is_none());
        self.closed_until.is_none()
    }

    /// Somebody comes. `None`: it is his turn.
    pub(super) fn come(&mut self, now: Duration, caller: Caller, bell: &Waker) -> Option<Ticket> {
        if self.line.is_empty() && self.give(now) {
            return None;
        }
        self.last_number += 1;
        let ticket = Ticket {
            round: self.next_round_of(caller),
            number: self.last_number,
        };
        self.line.insert(ticket, bell.clone());
        Some(ticket)
    }

    /// The round in which a caller has his next turn: the one after his last, and after the one that is under way. So
    /// whoever comes is behind all who have been called, and new callers without end hold up nobody's second turn.
    fn next_round_of(&mut self, caller: Caller) -> u64 {
        // Each of those kept has, or had, a place in the line; who has had all his turns is as good as new.
        if self.last_turns.len() > 2 * self.line.len() + 16 {
            self.last_turns.retain(|_, &mut last| last > self.round);
        }
        let last = self.last_turns.entry(caller).or_default();
        *last = self.round.max(*last) + 1;
        *last
    }

    /// Somebody who has come begins to wait, and keeps so many permits meanwhile. False: he would wait for ever, because all
    /// permits that there are would be with those who wait like him. Whoever waits and closes that circle is the last to
    /// come here, so there is no other place to look.
    pub(super) fn waits_with(&mut self, permits: u32) -> bool {
        if permits > 0 && self.given == self.most && self.stuck + permits == self.given {
            return false;
        }
        self.stuck += permits;
        true
    }

    /// He waits no longer.
    pub(super) fn has_waited_with(&mut self, permits: u32) {
        self.stuck -= permits;
    }

    /// Is it the turn of whoever has this ticket? Then he has his permit from here on.
    pub(super) fn is_called(&mut self, ticket: Ticket) -> bool {
        self.called.remove(&ticket)
    }

    /// Somebody does not want to wait any more. Whom to tell what follows.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Duration) -> Vec<Waker> {
        if self.called.remove(&ticket) {
            return self.give_back(now);
        }
        self.line.remove(&ticket);
        self.call(now)
    }

    /// A permit comes back. Whom to tell what follows.
    pub(super) fn give_back(&mut self, now: Duration) -> Vec<Waker> {
        self.given -= 1;
        self.call(now)
    }

    /// Calls whoever may come in. Whom to tell: those, and whoever is the first now if he has to look at the clock.
    pub(super) fn call(&mut self, now: Duration) -> Vec<Waker> {
        let mut bells = Vec::new();
        while !self.line.is_empty() && self.give(now) {
            if let Some((ticket, bell)) = self.line.pop_first() {
                self.round = ticket.round;
                self.called.insert(ticket);
                bells.push(bell);
            }
        }
        let first = self.line.first_key_value();
        let waits_for_time =
            first.filter(|_| self.closed_until.is_some() && self.given < self.most);
        bells.extend(waits_for_time.map(|(_, bell)| bell.clone()));
        bells
    }

    /// Until when whoever has this ticket need not look: `None` if others come first, or he will be told.
    pub(super) fn due(&self, ticket: Ticket) -> Option<Duration> {
        let first = self.line.first_key_value().map(|(&first, _)| first);
        self.closed_until
            .filter(|_| first == Some(ticket) && self.given < self.most)
    }
}
