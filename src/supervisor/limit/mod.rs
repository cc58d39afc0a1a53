//! Limits that callers share: how many jobs at a time, and how many in a time.
//!
//! `books.rs` decides who has a permit and whose turn it is, `lines.rs` has the jobs of an engine that wait for theirs.

mod books;
pub(super) mod lines;
#[cfg(test)]
mod tests;
mod turns;

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use self::books::{Books, Caller, Rate, Ticket};
pub(super) use self::lines::Turn;
use super::error::JobErrorKind;
use super::waiting::thread_waker::ThreadBell;
use super::waiting::wakers::wake_all;

/// Longer than any program runs.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Why somebody was not let in, nor into the line.
const NEVER: &str = "all permits of its limiter are with jobs that wait for another one, in the same threads; give the limiter more, or submit it outside of them";

thread_local! {
    /// The limiters of which jobs that run in this thread have a permit.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A limit on how many jobs run at a time, on how many are begun in a time, or on both. Its clones are one limit: whoever
/// has one shares it, whichever kernels, maps and engines of the program they use.
///
/// A job that needs a permit waits for it inside the engine: `submit` and polling do not. Callers take turns: a thread that
/// calls `.limit(…)` on its jobs or nodes has one turn in each round, and so has a map or a stage of a stream, however many jobs
/// they have in the line. The tasks of an event loop are one thread; [`caller`](Limiter::caller) makes each of them a caller of
/// its own. Within a round, and among the jobs of one caller, permits are given in the order in which jobs came. A
/// job has its permit until it is answered, or given up; between two attempts it gives it back, so that each attempt counts.
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
/// In an inline engine the job runs in the calling thread, which waits for the permit itself. So one that has a permit and
/// submits another that needs one may wait for ever; where that is certain, the inner job answers
/// [`WaitsForItself`](crate::JobErrorKind::WaitsForItself) instead.
///
/// A map keeps no more jobs in such a line than twice as many as run side by side.
#[doc(alias("Semaphore", "CapacityLimiter", "RateLimiter"))]
#[derive(Clone)]
pub struct Limiter {
    inner: Arc<Inner>,
    /// Who has this handle, if he said so.
    caller: Option<Caller>,
}

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
        assert!(jobs > 0, "a limiter of 0 jobs at a time lets nobody in");
        self.concurrency = Some(jobs);
        self
    }

    /// At most so many jobs in a time, evenly spread over it. A job counts when it gets its permit. Where all workers are busy
    /// then it begins later: after a long hold-up so many may begin one right after the other as got one meanwhile, and
    /// [`concurrency`](Self::concurrency) bounds that.
    ///
    /// # Panics
    /// If either is zero, or the time between two jobs shorter than a nanosecond.
    pub fn rate(mut self, jobs: u32, per: Duration) -> Self {
        assert!(jobs > 0, "a rate of 0 jobs lets nobody in");
        assert!(
            !(per / jobs).is_zero(),
            "a rate of {jobs} jobs in {per:?} is no limit"
        );
        self.rate = Some((jobs, per));
        self
    }

    /// With a rate: how many jobs may begin at once after a while without any; 1 if it is not said.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::{Duration, Instant};
    /// use arenite::Limiter;
    ///
    /// // Ten a second; after a pause three at once, and then ten a second again.
    /// let second = Duration::from_secs(1);
    /// let limiter = Limiter::builder().rate(10, second).burst(3).build();
    /// let began = Instant::now();
    /// let pages = engine.map(|page: u32| page, (0..5).map(|page| (page,))).limit(&limiter);
    /// assert_eq!(pages.count(), 5);
    /// assert!(began.elapsed() >= second / 5, "the fourth and the fifth waited, a tenth each");
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// # Panics
    /// If it is 0.
    pub fn burst(mut self, jobs: u32) -> Self {
        assert!(jobs > 0, "a burst of 0 jobs lets nobody in");
        self.burst = Some(jobs);
        self
    }

    /// The limiter. One that was given neither a number at a time nor a rate lets everybody in, and counts.
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
        let inner = Inner {
            books: Mutex::new(Books::new(self.concurrency, rate)),
            start: Instant::now(),
        };
        Limiter {
            inner: Arc::new(inner),
            caller: None,
        }
    }
}

impl Limiter {
    /// Sets the limits of a new one.
    pub fn builder() -> LimiterBuilder {
        LimiterBuilder::default()
    }

    /// The same limit, for a caller of its own: one for each task of an event loop, each request, each user. What is given a
    /// limit by this handle, or by a clone of it, takes turns with everything else, from whichever thread; jobs, maps and stages
    /// alike share the turns of this one caller.
    ///
    /// ```
    /// # fn main() -> Result<(), arenite::JobError> {
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{Engine, JobError, Limiter};
    ///
    /// fn fetch(page: u32) -> u32 {
    ///     page * 10
    /// }
    ///
    /// /// Answers a request: one of a thousand pages lets one of a single page go in between.
    /// async fn answer(engine: &Engine, polite: &Limiter, pages: u32) -> Result<u32, JobError> {
    ///     let mine = polite.caller();
    ///     let jobs = (0..pages).map(|page| engine.job(fetch, (page,)).limit(&mine).submit());
    ///     let mut sum = 0;
    ///     for job in jobs.collect::<Vec<_>>() {
    ///         sum += job.await?;
    ///     }
    ///     Ok(sum)
    /// }
    ///
    /// let polite = Limiter::builder().concurrency(4).build();
    /// let both = async {
    ///     let (large, small) = (answer(&engine, &polite, 1000), answer(&engine, &polite, 1));
    ///     smol::future::try_zip(large, small).await
    /// };
    /// assert_eq!(smol::block_on(both)?, (4_995_000, 0));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "the handle that it is called on stays as it was"]
    #[doc(alias("acquire_on_behalf_of", "borrower", "tenant"))]
    pub fn caller(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            caller: Some(Caller::new()),
        }
    }

    /// Permits that are given now: to jobs that run, or are about to.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::Limiter;
    ///
    /// let limiter = Limiter::builder().concurrency(2).build();
    /// let job = engine.job(|x: u32| x + 1, (1,)).limit(&limiter).submit();
    /// assert_eq!(job.wait()?, 2);
    /// assert_eq!((limiter.given(), limiter.waiting()), (0, 0));
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    #[doc(alias("borrowed_tokens", "statistics"))]
    pub fn given(&self) -> usize {
        self.lock().0.given as usize
    }

    /// Jobs in the line.
    #[doc(alias("tasks_waiting"))]
    pub fn waiting(&self) -> usize {
        self.lock().0.line.len()
    }

    fn lock(&self) -> (MutexGuard<'_, Books>, Duration) {
        #[cfg(test)]
        tests::LOCKS.set(tests::LOCKS.get() + 1);
        // A panic with the lock held is a defect; the books are still the best there are.
        let books = self
            .inner
            .books
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (books, self.inner.start.elapsed())
    }

    fn call(&self) -> Vec<Waker> {
        let (mut books, now) = self.lock();
        books.call(now)
    }

    fn give_back(&self) -> Vec<Waker> {
        let (mut books, now) = self.lock();
        books.give_back(now)
    }

    /// Who has to look at the clock, and when: nobody, if whoever is the first will be told.
    fn due(&self) -> Option<(Ticket, Instant)> {
        let (books, _) = self.lock();
        books
            .due()
            .map(|(first, due)| (first, self.inner.start + due))
    }

    /// Waits for a permit in this thread.
    ///
    /// # Errors
    /// All permits are with threads that wait for another one here, this one among them: nobody would ever give one back.
    fn enter_here(&self, caller: Caller) -> Result<Permit<'_>, JobErrorKind> {
        let thread = ThreadBell::new();
        let bell = thread.waker();
        let held = self.held_here();
        let ticket = {
            let (mut books, now) = self.lock();
            let ticket = books.come(now, caller, bell);
            if let Some(ticket) = ticket
                && !books.waits_with(held)
            {
                let bells = books.leave(ticket, now);
                drop(books);
                wake_others(bells, bell);
                return Err(JobErrorKind::WaitsForItself { why: NEVER });
            }
            ticket
        };
        while let Some(ticket) = ticket {
            wake_others(self.call(), bell);
            let (mut books, _) = self.lock();
            if books.is_called(ticket) {
                books.has_waited_with(held);
                break;
            }
            let due = books.due();
            drop(books);
            let until = due.filter(|&(first, _)| first == ticket);
            thread.sleep(until.map(|(_, due)| self.inner.start + due));
        }
        HELD.with_borrow_mut(|all| all.push(self.address()));
        Ok(Permit {
            limiter: self,
            thread: PhantomData,
        })
    }

    /// Permits that jobs have which run in this thread, one inside another.
    fn held_here(&self) -> u32 {
        let mine = |&&limiter: &&usize| limiter == self.address();
        HELD.with_borrow(|all| all.iter().filter(mine).count() as u32)
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }
}

/// A limiter, and who asks it for permits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    limiter: Limiter,
    caller: Caller,
}

impl Limit {
    /// This thread asks, unless the limiter's handle says who does.
    pub(crate) fn of_this_thread(limiter: &Limiter) -> Self {
        Self::of(limiter, Caller::this_thread)
    }

    /// Somebody asks who takes turns with the thread that he runs in, unless the limiter's handle says who does.
    pub(crate) fn of_its_own(limiter: &Limiter) -> Self {
        Self::of(limiter, Caller::new)
    }

    fn of(limiter: &Limiter, otherwise: fn() -> Caller) -> Self {
        Self {
            limiter: limiter.clone(),
            caller: limiter.caller.unwrap_or_else(otherwise),
        }
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Waits for a permit in this thread.
    ///
    /// # Errors
    /// As for [`Limiter::enter_here`].
    pub(crate) fn enter_here(&self) -> Result<Permit<'_>, JobErrorKind> {
        self.limiter.enter_here(self.caller)
    }
}

/// Wakes all but the one who asks.
fn wake_others(bells: Vec<Waker>, own: &Waker) {
    let others = bells.into_iter().filter(|bell| !bell.will_wake(own));
    wake_all(others);
}

/// A permit of a job that runs in this thread.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit<'a> {
    limiter: &'a Limiter,
    /// Of this thread.
    thread: PhantomData<*const ()>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let own = self.limiter.address();
        HELD.with_borrow_mut(|all| {
            let at = all.iter().rposition(|&limiter| limiter == own);
            at.map(|at| all.swap_remove(at))
        });
        wake_all(self.limiter.give_back());
    }
}

impl PartialEq for Limiter {
    /// Handles of one limit, of whichever caller.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter")
            .field("given", &self.given())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}
