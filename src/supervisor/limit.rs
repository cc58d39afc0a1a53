//! Limits that callers share: how many jobs at a time, and how many in a time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::Shared;
use super::core::Core;
use super::error::JobErrorKind;
use super::exchange::thread_bell;
use super::record::Stage;
use crate::link::NOTICE;

/// Longer than any program runs.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// A limit on how many jobs run at a time, on how many are begun in a time, or on both. Its clones are one limit: whoever
/// has one shares it, whichever kernels, maps and engines of the program they use.
///
/// A job that needs a permit waits for it inside the engine: `submit` and polling do not. Permits are given in the order in
/// which jobs came. A job has its permit until it is answered, or given up; between two attempts it gives it back, so that
/// each attempt counts.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// use std::time::Duration;
/// use arenite::Limiter;
///
/// fn fetch(page: u32) -> u32 {
///     page * 10
/// }
///
/// // What a server puts up with: four requests at a time, and a hundred a second.
/// let polite = Limiter::builder()
///     .concurrency(4)
///     .rate(100, Duration::from_secs(1))
///     .build();
/// let first = engine.job(fetch, (1,)).limit(&polite).submit();
/// let others = engine.map(fetch, (2..5).map(|page| (page,))).limit(&polite);
/// assert_eq!(others.collect::<Result<Vec<_>, _>>()?, [20, 30, 40]);
/// assert_eq!(first.wait()?, 10);
/// # Ok::<(), arenite::JobError>(())
/// ```
///
/// A map keeps no more jobs in such a line than twice as many as run side by side, so that others come in between.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    books: Mutex<Books>,
    /// Times are told from here on.
    start: Instant,
}

/// The limits of a [`Limiter`].
#[derive(Clone, Debug, Default)]
#[must_use = "limits are those of a limiter when it is built"]
pub struct LimiterBuilder {
    concurrency: Option<u32>,
    rate: Option<(u32, Duration)>,
    burst: Option<u32>,
}

impl LimiterBuilder {
    /// At most so many jobs at a time.
    ///
    /// # Panics
    /// If it is 0, which would let nobody in.
    pub fn concurrency(mut self, jobs: u32) -> Self {
        assert_ne!(jobs, 0, "a limiter of 0 jobs at a time lets nobody in");
        self.concurrency = Some(jobs);
        self
    }

    /// At most so many jobs in a time, evenly spread over it.
    ///
    /// # Panics
    /// If either is zero, or the time between two jobs shorter than a nanosecond.
    pub fn rate(mut self, jobs: u32, per: Duration) -> Self {
        assert_ne!(jobs, 0, "a rate of 0 jobs lets nobody in");
        assert!(
            !(per / jobs).is_zero(),
            "a rate of {jobs} jobs in {per:?} is no limit"
        );
        self.rate = Some((jobs, per));
        self
    }

    /// With a rate: how many jobs may begin at once after a while without any; 1 if it is not said.
    ///
    /// # Panics
    /// If it is 0.
    pub fn burst(mut self, jobs: u32) -> Self {
        assert_ne!(jobs, 0, "a burst of 0 jobs lets nobody in");
        self.burst = Some(jobs);
        self
    }

    /// The limiter.
    ///
    /// # Panics
    /// With a [`burst`](LimiterBuilder::burst) and no [`rate`](LimiterBuilder::rate) that it would belong to, or with one
    /// that takes longer than a century to be allowed again.
    pub fn build(self) -> Limiter {
        assert!(
            self.burst.is_none() || self.rate.is_some(),
            "a burst belongs to a rate, and this limiter has none"
        );
        let rate = self.rate.map(|(jobs, per)| {
            let (between, burst) = (per / jobs, self.burst.unwrap_or(1));
            let all = between.checked_mul(burst);
            assert!(
                all.is_some_and(|all| all < CENTURY),
                "a burst of {burst} at {jobs} jobs in {per:?} is never allowed again"
            );
            Rate::new(between, burst)
        });
        Limiter(Arc::new(Inner {
            books: Mutex::new(Books::new(self.concurrency, rate)),
            start: Instant::now(),
        }))
    }
}

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
struct Rate(RateLimiter<NotKeyed, InMemoryState, Told, NoOpMiddleware<Duration>>);

impl Rate {
    fn new(between: Duration, burst: u32) -> Self {
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

/// Who has a permit, and who waits for one. Times are counted from the limiter's beginning.
struct Books {
    /// Permits that are given.
    given: u32,
    most: u32,
    rate: Option<Rate>,
    /// Who waits, in the order in which they came, and how they are told that it is their turn.
    line: BTreeMap<u64, Waker>,
    /// Whose turn it is, and who has not come yet: they have their permit.
    called: BTreeSet<u64>,
    last_ticket: u64,
    /// Until then the rate lets nobody in.
    closed_until: Option<Duration>,
}

impl Books {
    fn new(concurrency: Option<u32>, rate: Option<Rate>) -> Self {
        Self {
            given: 0,
            most: concurrency.unwrap_or(u32::MAX),
            rate,
            line: BTreeMap::new(),
            called: BTreeSet::new(),
            last_ticket: 0,
            closed_until: None,
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
    fn come(&mut self, now: Duration, bell: &Waker) -> Option<u64> {
        if self.line.is_empty() && self.give(now) {
            return None;
        }
        self.last_ticket += 1;
        self.line.insert(self.last_ticket, bell.clone());
        Some(self.last_ticket)
    }

    /// Is it the turn of whoever has this ticket? Then he has his permit from here on.
    fn is_called(&mut self, ticket: u64) -> bool {
        self.called.remove(&ticket)
    }

    /// Somebody does not want to wait any more. Whom to tell what follows.
    fn leave(&mut self, ticket: u64, now: Duration) -> Vec<Waker> {
        if self.called.remove(&ticket) {
            return self.give_back(now);
        }
        self.line.remove(&ticket);
        self.call(now)
    }

    /// A permit comes back. Whom to tell what follows.
    fn give_back(&mut self, now: Duration) -> Vec<Waker> {
        self.given -= 1;
        self.call(now)
    }

    /// Calls whoever may come in. Whom to tell: those, and whoever is the first now if he has to look at the clock.
    fn call(&mut self, now: Duration) -> Vec<Waker> {
        let mut bells = Vec::new();
        while !self.line.is_empty() && self.give(now) {
            if let Some((ticket, bell)) = self.line.pop_first() {
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
    fn due(&self, ticket: u64) -> Option<Duration> {
        let first = self.line.first_key_value().map(|(&first, _)| first);
        self.closed_until
            .filter(|_| first == Some(ticket) && self.given < self.most)
    }
}

impl Limiter {
    /// Sets the limits of a new one.
    pub fn builder() -> LimiterBuilder {
        LimiterBuilder::default()
    }

    fn lock(&self) -> (MutexGuard<'_, Books>, Duration) {
        // A panic with the lock held is a defect; the books are still the best there are.
        let books = self.0.books.lock().unwrap_or_else(PoisonError::into_inner);
        (books, self.0.start.elapsed())
    }

    fn call(&self) -> Vec<Waker> {
        let (mut books, now) = self.lock();
        books.call(now)
    }

    fn give_back(&self) -> Vec<Waker> {
        let (mut books, now) = self.lock();
        books.give_back(now)
    }

    /// When whoever has this ticket has to look, if nobody will tell him.
    fn due(&self, ticket: u64) -> Option<Instant> {
        let (books, _) = self.lock();
        books.due(ticket).map(|due| self.0.start + due)
    }

    /// Waits for a permit in this thread.
    pub(crate) fn enter_here(&self) -> Permit<'_> {
        let bell = thread_bell();
        let ticket = {
            let (mut books, now) = self.lock();
            books.come(now, &bell)
        };
        while let Some(ticket) = ticket {
            wake_others(self.call(), &bell);
            let (mut books, now) = self.lock();
            if books.is_called(ticket) {
                break;
            }
            let due = books.due(ticket);
            drop(books);
            match due {
                Some(due) => std::thread::park_timeout(due.saturating_sub(now)),
                None => std::thread::park(),
            }
        }
        Permit(self)
    }
}

/// Wakes all but the one who asks.
fn wake_others(bells: Vec<Waker>, own: &Waker) {
    let others = bells.into_iter().filter(|bell| !bell.will_wake(own));
    others.for_each(Waker::wake);
}

/// A permit of a job that runs in this thread.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit<'a>(&'a Limiter);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.give_back().into_iter().for_each(Waker::wake);
    }
}

impl PartialEq for Limiter {
    /// Clones of one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (books, _) = self.lock();
        f.debug_struct("Limiter")
            .field("given", &books.given)
            .field("waiting", &books.line.len())
            .finish_non_exhaustive()
    }
}

/// What a job has of its limiter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Turn {
    #[default]
    Nothing,
    /// A place in the line.
    Waits(u64),
    /// A permit.
    Permit,
}

/// The jobs of an engine that wait for their turn.
#[derive(Debug)]
pub(super) struct Lines {
    /// Rings the monitor.
    bell: Waker,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    limiter: Limiter,
    /// Records by ticket.
    waiting: BTreeMap<u64, u32>,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            bell: Waker::noop().clone(),
            lines: Vec::new(),
        }
    }
}

impl Lines {
    /// Jobs that wait for their turn.
    pub(super) fn len(&self) -> usize {
        self.lines.iter().map(|line| line.waiting.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn add(&mut self, limiter: Limiter, ticket: u64, record: u32) {
        let known = self.lines.iter_mut().find(|line| line.limiter == limiter);
        match known {
            Some(line) => {
                line.waiting.insert(ticket, record);
            }
            None => self.lines.push(Line {
                limiter,
                waiting: BTreeMap::from([(ticket, record)]),
            }),
        }
    }

    fn remove(&mut self, limiter: &Limiter, ticket: u64) {
        for line in &mut self.lines {
            if line.limiter == *limiter {
                line.waiting.remove(&ticket);
            }
        }
        self.lines.retain(|line| !line.waiting.is_empty());
    }

    /// Takes out the jobs whose turn it is, in the order of each line.
    fn called(&mut self) -> Vec<u32> {
        let mut called = Vec::new();
        for line in &mut self.lines {
            let (mut books, _) = line.limiter.lock();
            // They are called in order, so the first who is not ends it.
            while let Some(first) = line.waiting.first_entry()
                && books.is_called(*first.key())
            {
                called.push(first.remove());
            }
        }
        self.lines.retain(|line| !line.waiting.is_empty());
        called
    }

    /// The next time at which somebody's turn may have come.
    fn due(&self) -> Option<Instant> {
        let first = |line: &Line| Some((line.limiter.clone(), *line.waiting.keys().next()?));
        let firsts = self.lines.iter().filter_map(first);
        firsts
            .filter_map(|(limiter, ticket)| limiter.due(ticket))
            .min()
    }
}

impl Core {
    /// If the job of this record needs a permit: takes one, or joins the line. True if it has to wait.
    #[cold]
    pub(super) fn joins_a_line(&mut self, index: u32) -> bool {
        let record = self.records.at(index);
        let Some(policy) = &mut record.policy else {
            return false;
        };
        let Some(limiter) = policy.terms.limiter.clone() else {
            return false;
        };
        // So that its answer is not told on the short way, which gives nothing back; and its end is heard by the monitor,
        // because somebody else may wait for it, in another engine too.
        record.parked = true;
        record.requests |= NOTICE;
        let come = {
            let (mut books, now) = limiter.lock();
            books.come(now, &self.lines.bell)
        };
        crate::sync::point!("limit.came");
        let Some(ticket) = come else {
            policy.turn = Turn::Permit;
            return false;
        };
        policy.turn = Turn::Waits(ticket);
        record.stage = Stage::Waiting;
        let due = limiter.due(ticket);
        self.lines.add(limiter, ticket, index);
        crate::sync::point!("limit.waits");
        self.be_watched();
        if let Some(due) = due {
            self.wake_monitor_by(due);
        }
        true
    }

    /// The job of this record needs its permit, or its place in the line, no longer.
    pub(super) fn give_back(&mut self, index: u32) {
        let Some(policy) = &mut self.records.at(index).policy else {
            return;
        };
        let Some(limiter) = policy.terms.limiter.clone() else {
            return;
        };
        let bells = match std::mem::take(&mut policy.turn) {
            Turn::Nothing => return,
            Turn::Permit => limiter.give_back(),
            Turn::Waits(ticket) => {
                self.lines.remove(&limiter, ticket);
                let (mut books, now) = limiter.lock();
                books.leave(ticket, now)
            }
        };
        crate::sync::point!("limit.given_back");
        self.tell(bells);
        self.let_in();
    }

    /// Rings for the first in each line whose time has come.
    pub(super) fn look_at_lines(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let limiters: Vec<_> = self
            .lines
            .lines
            .iter()
            .map(|line| line.limiter.clone())
            .collect();
        for limiter in limiters {
            let bells = limiter.call();
            self.tell(bells);
        }
        self.let_in();
    }

    fn tell(&mut self, bells: Vec<Waker>) {
        let own = &self.lines.bell;
        let others = bells.into_iter().filter(|bell| !bell.will_wake(own));
        self.wakers.extend(others);
    }

    /// Queues the jobs whose turn it is.
    fn let_in(&mut self) {
        let called = self.lines.called();
        if called.is_empty() {
            return;
        }
        for index in called {
            let record = self.records.at(index);
            record.stage = Stage::Queued;
            if let Some(policy) = &mut record.policy {
                policy.turn = Turn::Permit;
            }
            self.queue.push_back(index, self.records.at(index));
        }
        crate::sync::point!("limit.called");
        // Whoever has the lock may refill; if not, the monitor does.
        self.call_monitor = true;
        self.update_flags();
    }

    /// When the monitor has to look at a clock for somebody in a line.
    pub(super) fn line_due(&self) -> Option<Instant> {
        self.lines.due()
    }

    /// Answers all jobs that wait for their turn.
    pub(super) fn fail_lines(&mut self, why: &JobErrorKind) {
        // One by one: the failure of one may cancel others of its group.
        while let Some(&index) = self
            .lines
            .lines
            .first()
            .and_then(|line| line.waiting.values().next())
        {
            self.fail(index, why.clone(), None, Vec::new());
        }
    }
}

/// Rings the monitor of an engine, if it still is.
struct Bell(Weak<Shared>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.ring();
        }
    }
}

impl Shared {
    /// From here on jobs in lines are called by the monitor's bell.
    pub(super) fn hang_up_bell(self: &Arc<Self>) {
        let bell = Waker::from(Arc::new(Bell(Arc::downgrade(self))));
        self.lock().lines.bell = bell;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn bell() -> Waker {
        thread_bell()
    }

    #[test]
    fn permits_go_to_whoever_came_first() {
        let mut books = Books::new(Some(2), None);
        assert_eq!(books.come(MS(0), &bell()), None);
        assert_eq!(books.come(MS(0), &bell()), None);
        let tickets: Vec<_> = (0..3)
            .map(|_| books.come(MS(0), &bell()).unwrap())
            .collect();
        assert!(books.call(MS(9)).is_empty(), "both permits are given");
        assert_eq!(books.give_back(MS(9)).len(), 1);
        assert!(!books.is_called(tickets[1]) && books.is_called(tickets[0]));
        assert!(!books.is_called(tickets[0]), "once");
        // Who leaves before he has come passes his permit on.
        assert_eq!(books.give_back(MS(9)).len(), 1);
        assert_eq!(books.leave(tickets[1], MS(9)).len(), 1);
        assert!(books.is_called(tickets[2]));
        assert_eq!(books.given, 2);
        assert!(books.give_back(MS(9)).is_empty() && books.give_back(MS(9)).is_empty());
        assert_eq!(books.given, 0);
    }

    #[test]
    fn a_rate_is_kept_and_the_first_in_the_line_looks_at_the_clock() {
        let mut books = Books::new(None, Some(Rate::new(MS(100), 1)));
        assert_eq!(books.come(MS(0), &bell()), None);
        let first = books.come(MS(10), &bell()).unwrap();
        let second = books.come(MS(20), &bell()).unwrap();
        assert_eq!((books.due(first), books.due(second)), (Some(MS(100)), None));
        let told = books.call(MS(99));
        assert_eq!(
            (told.len(), books.is_called(first)),
            (1, false),
            "only to look again"
        );
        // One is let in, and the next is told that he is the first now.
        assert_eq!(books.call(MS(100)).len(), 2);
        assert!(books.is_called(first) && !books.is_called(second));
        assert_eq!(books.due(second), Some(MS(200)));
        // After a while without any there is no more than a burst.
        assert_eq!(books.call(MS(1000)).len(), 1);
        assert!(books.is_called(second));
        assert!(books.come(MS(1000), &bell()).is_some());
    }

    #[test]
    fn a_burst_may_begin_at_once() {
        let mut books = Books::new(None, Some(Rate::new(MS(100), 3)));
        let begun = (0..5).filter(|_| books.come(MS(50), &bell()).is_none());
        assert_eq!(begun.count(), 3);
    }

    #[test]
    fn whoever_comes_first_after_one_has_left_is_told() {
        let mut books = Books::new(Some(1), Some(Rate::new(MS(100), 1)));
        assert_eq!(books.come(MS(0), &bell()), None);
        let first = books.come(MS(0), &bell()).unwrap();
        let second = books.come(MS(0), &bell()).unwrap();
        assert_eq!(books.due(first), None, "he waits for the permit");
        // The permit is there, the time is not: the first has to look at the clock from now on.
        assert_eq!(books.give_back(MS(10)).len(), 1);
        assert_eq!(books.due(first), Some(MS(100)));
        assert_eq!(books.leave(first, MS(20)).len(), 1);
        assert_eq!(books.due(second), Some(MS(100)));
    }

    #[test]
    fn limits_that_are_none_are_refused() {
        let refused =
            |make: fn() -> LimiterBuilder| std::panic::catch_unwind(|| make().build()).is_err();
        assert!(refused(|| Limiter::builder().concurrency(0)));
        assert!(refused(|| Limiter::builder().rate(0, MS(1))));
        assert!(refused(|| Limiter::builder().rate(1, Duration::ZERO)));
        assert!(refused(|| Limiter::builder().rate(2_000_000_000, MS(1))));
        assert!(refused(|| Limiter::builder().burst(2)));
        assert!(refused(|| Limiter::builder().rate(1, MS(1)).burst(0)));
        assert!(refused(|| Limiter::builder().rate(1, Duration::MAX)));
        assert!(!refused(|| Limiter::builder()
            .rate(1, MS(1))
            .burst(u32::MAX)));
        assert!(!refused(Limiter::builder));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Come,
        /// One of those that wait looks whether he is called.
        Look(prop::sample::Index),
        Leave(prop::sample::Index),
        GiveBack,
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let index = any::<prop::sample::Index>;
        let step = prop_oneof![
            4 => Just(Step::Come),
            3 => index().prop_map(Step::Look),
            1 => index().prop_map(Step::Leave),
            3 => Just(Step::GiveBack),
            2 => (0..150_u64).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        /// Never more than the limits say, everybody in order, and nobody is forgotten who may come in.
        #[test]
        fn the_books_keep_both_limits(steps in steps(), most in 1..4_u32, burst in 1..4_u32) {
            let mut books = Books::new(Some(most), Some(Rate::new(MS(100), burst)));
            let (mut now, mut inside, mut line) = (MS(0), 0_u32, Vec::<u64>::new());
            let mut begun = Vec::<Duration>::new();
            for step in steps {
                let given = books.given;
                match step {
                    Step::Come => match books.come(now, &bell()) {
                        None => {
                            // Those who are left have been called.
                            prop_assert!(books.line.is_empty(), "past the line");
                            inside += 1;
                        }
                        Some(ticket) => line.push(ticket),
                    },
                    Step::Look(which) if !line.is_empty() => {
                        let ticket = line[which.index(line.len())];
                        if books.is_called(ticket) {
                            line.retain(|&other| other != ticket);
                            inside += 1;
                        }
                    }
                    Step::Leave(which) if !line.is_empty() => {
                        let ticket = line.swap_remove(which.index(line.len()));
                        line.sort_unstable();
                        // It may pass its permit on, or others may be called because it was in their way.
                        let _ = books.leave(ticket, now);
                    }
                    Step::GiveBack if inside > 0 => {
                        inside -= 1;
                        let _ = books.give_back(now);
                    }
                    Step::Pass(ms) => {
                        now += MS(ms);
                        let _ = books.call(now);
                    }
                    Step::Look(_) | Step::Leave(_) | Step::GiveBack => {}
                }
                prop_assert!(books.given <= most);
                prop_assert_eq!(books.given, inside + books.called.len() as u32);
                // Who is called came before all who are not.
                let first = books.line.first_key_value().map(|(&first, _)| first);
                prop_assert!(books.called.last().is_none_or(|&called| first.is_none_or(|first| called < first)));
                begun.extend((given..books.given).map(|_| now));
                // Nobody stands in front of an open door.
                if !books.line.is_empty() && books.given < most {
                    let first = first.unwrap();
                    prop_assert!(books.due(first).is_some_and(|due| due > now));
                }
            }
            for (index, &at) in begun.iter().enumerate() {
                let within = begun[index..].iter().filter(|&&other| other < at + MS(100)).count();
                prop_assert!(within <= burst as usize + 1, "{} within one time", within);
            }
        }
    }
}
