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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::supervisor) struct Ticket {
    /// Of all who ever came, the how manieth.
    number: u64,
    caller: Caller,
}

/// Those of one caller who wait.
struct Waiting {
    /// The round in which the first of them has his turn.
    round: u64,
    /// How they are told that it is theirs.
    bells: BTreeMap<Ticket, Waker>,
}

/// Who waits. In each round every caller has one turn; within a round, who came first goes first. Only the first of each
/// caller has a round: the next gets the one after it when he moves up. So whoever leaves takes no turn with him.
#[derive(Default)]
pub(super) struct Line {
    callers: HashMap<Caller, Waiting>,
    /// The first of each caller, with his round.
    firsts: BTreeSet<(u64, Ticket)>,
    len: usize,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    /// Callers of whom somebody waits.
    #[cfg(test)]
    pub(super) fn callers(&self) -> usize {
        self.callers.len()
    }

    #[cfg(test)]
    pub(super) fn contains(&self, ticket: Ticket) -> bool {
        let waiting = self.callers.get(&ticket.caller);
        waiting.is_some_and(|waiting| waiting.bells.contains_key(&ticket))
    }

    /// Whose turn is next.
    pub(super) fn first(&self) -> Option<Ticket> {
        self.firsts.first().map(|&(_, ticket)| ticket)
    }

    fn first_bell(&self) -> Option<&Waker> {
        let first = self.first()?;
        self.callers.get(&first.caller)?.bells.get(&first)
    }

    /// Somebody joins; in this round, if he is the only one of his caller.
    fn add(&mut self, ticket: Ticket, round: u64, bell: Waker) {
        let firsts = &mut self.firsts;
        let waiting = self.callers.entry(ticket.caller).or_insert_with(|| {
            firsts.insert((round, ticket));
            Waiting {
                round,
                bells: BTreeMap::new(),
            }
        });
        waiting.bells.insert(ticket, bell);
        self.len += 1;
    }

    /// Somebody leaves. Who comes after him, of the same caller, has this turn instead, or the next one if it was used.
    fn remove(&mut self, ticket: Ticket, used: bool) -> Option<Waker> {
        let waiting = self.callers.get_mut(&ticket.caller)?;
        let bell = waiting.bells.remove(&ticket)?;
        self.len -= 1;
        if self.firsts.remove(&(waiting.round, ticket)) {
            waiting.round += u64::from(used);
            match waiting.bells.first_key_value() {
                Some((&next, _)) => {
                    self.firsts.insert((waiting.round, next));
                }
                None => {
                    self.callers.remove(&ticket.caller);
                }
            }
        }
        Some(bell)
    }

    /// Takes out whose turn is next: the round, and who it is.
    fn pop_first(&mut self) -> Option<(u64, Ticket, Waker)> {
        let &(round, ticket) = self.firsts.first()?;
        let bell = self.remove(ticket, true)?;
        Some((round, ticket, bell))
    }
}

/// Who has a permit, and who waits for one. Times are counted from the limiter's beginning.
pub(super) struct Books {
    /// Permits that are given.
    pub(super) given: u32,
    most: u32,
    rate: Option<Rate>,
    pub(super) line: Line,
    /// Whose turn it is, and who has not come yet: they have their permit. With the number of the call.
    pub(super) called: HashMap<Ticket, u64>,
    calls: u64,
    last_number: u64,
    /// The round of whoever was called last.
    round: u64,
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
            line: Line::default(),
            called: HashMap::new(),
            calls: 0,
            last_number: 0,
            round: 0,
            closed_until: None,
            stuck: 0,
        }
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
        (!self.enters(now)).then(|| self.joins(caller, bell))
    }

    /// Somebody comes: is it his turn? If not, he [`joins`](Books::joins) the line.
    pub(super) fn enters(&mut self, now: Duration) -> bool {
        self.line.is_empty() && self.give(now)
    }

    pub(super) fn joins(&mut self, caller: Caller, bell: &Waker) -> Ticket {
        self.last_number += 1;
        let ticket = Ticket {
            number: self.last_number,
            caller,
        };
        // In the round after the one that is under way. So whoever comes is behind all who have been called, and new callers
        // without end hold up nobody's second turn.
        self.line.add(ticket, self.round + 1, bell.clone());
        ticket
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
        self.has_call(ticket).is_some()
    }

    /// The same, and which call it was of all that there were.
    pub(super) fn has_call(&mut self, ticket: Ticket) -> Option<u64> {
        self.called.remove(&ticket)
    }

    /// Somebody does not want to wait any more. Whom to tell what follows.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Duration) -> Vec<Waker> {
        if self.is_called(ticket) {
            return self.give_back(now);
        }
        self.line.remove(ticket, false);
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
            if let Some((round, ticket, bell)) = self.line.pop_first() {
                self.round = round;
                self.calls += 1;
                self.called.insert(ticket, self.calls);
                bells.push(bell);
            }
        }
        let first = self.line.first_bell();
        let waits_for_time =
            first.filter(|_| self.closed_until.is_some() && self.given < self.most);
        bells.extend(waits_for_time.cloned());
        bells
    }

    /// Who has to look at the clock, and until when he need not: nobody, if whoever is the first will be told.
    pub(super) fn due(&self) -> Option<(Ticket, Duration)> {
        let until = self.closed_until.filter(|_| self.given < self.most)?;
        Some((self.line.first()?, until))
    }
}
