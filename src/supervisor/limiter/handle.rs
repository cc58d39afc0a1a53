//! The public type of limiters: [`Limiter`].

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::permits::{Caller, PermitState, Rate, Ticket};
use crate::supervisor::error::{JobErrorKind, Rejection};
use crate::supervisor::waiting::thread_waker::ThreadWaker;
use crate::supervisor::waiting::wakers::wake_all;
use crate::sync::lock;

/// The maximum time that a burst may take to be available again: longer than any program runs.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Reason of `JobErrorKind::Rejected(Rejection::Deadlock)`.
const DEADLOCK: &str = "all permits of its limiter are held by jobs that wait for another one in the same threads; raise the limit, or submit this job outside of them";

thread_local! {
    /// Addresses of the limiters whose permits the inline jobs of this thread hold, once per permit.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Limits how many jobs run concurrently, how many start per unit of time, or both. Clones share one limit, across all
/// kernels, maps and engines of the program.
///
/// A job that needs a permit waits for it inside the engine; `submit` and polling do not wait. Callers take turns: a
/// thread that calls `.limit(…)` on its jobs or nodes has one turn per round, and so has a map or a stage of a stream,
/// however many of their jobs wait. All tasks of an event loop count as one thread; [`caller`](Limiter::caller) makes
/// each of them a caller of its own. Within a round, and among the jobs of one caller, the oldest goes first. A job
/// holds its permit until it is answered or removed. It returns the permit between two attempts, so each attempt
/// counts.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// use std::time::Duration;
/// use arenite::{JobOptions, Limiter};
///
/// fn fetch(page: u32) -> u32 {
///     page * 10
/// }
///
/// // What a server accepts: four requests at a time, and a hundred per second.
/// let polite = Limiter::new()
///     .concurrency(4)
///     .rate(100, Duration::from_secs(1))
///;
/// let first = engine.job(fetch, (1,)).limit(&polite).submit();
/// let others = engine.map(fetch, (2..5).map(|page| (page,)));
/// let others = others.options(&JobOptions::new().limit(&polite));
/// assert_eq!(others.collect::<Result<Vec<_>, _>>()?, [20, 30, 40]);
/// assert_eq!(first.wait()?, 10);
/// # Ok::<(), arenite::JobError>(())
/// ```
///
/// In an inline engine the job runs on the calling thread, which waits for the permit itself. A job that holds a permit
/// and submits another job that needs one can therefore deadlock. If the deadlock is certain, the inner job fails with
/// [`Rejection::Deadlock`](crate::Rejection::Deadlock).
///
/// A map has at most twice as many jobs waiting for permits as can run concurrently.
#[doc(alias("Semaphore", "CapacityLimiter", "RateLimiter"))]
#[derive(Clone)]
pub struct Limiter {
    inner: Arc<Inner>,
    /// The caller of this handle, if the handle was created by `caller`.
    caller: Option<Caller>,
}

struct Inner {
    limits: Limits,
    state: Mutex<PermitState>,
    /// The zero point of the times in `state`.
    start: Instant,
}

/// The limits of a [`Limiter`].
#[derive(Clone, Copy, Default)]
struct Limits {
    concurrency: Option<u32>,
    /// Jobs per time, and how many may start at once after a pause.
    rate: Option<(u32, Duration, u32)>,
}

impl Limiter {
    /// Returns a limiter that admits every job and only counts.
    #[doc(alias = "builder")]
    pub fn new() -> Self {
        Self::of(Limits::default())
    }

    fn of(limits: Limits) -> Self {
        let rate = limits.rate.map(|(jobs, per, burst)| {
            let between = per / jobs;
            let all = between.checked_mul(burst);
            assert!(
                all.is_some_and(|all| all < CENTURY),
                "a burst of {burst} at {jobs} jobs in {per:?} takes more than a century to be allowed again"
            );
            Rate::new(between, burst)
        });
        let inner = Inner {
            limits,
            state: Mutex::new(PermitState::new(limits.concurrency, rate)),
            start: Instant::now(),
        };
        Self {
            inner: Arc::new(inner),
            caller: None,
        }
    }

    /// Returns a new limiter that also allows at most `jobs` jobs at a time.
    ///
    /// # Panics
    ///
    /// If `jobs` is 0.
    #[must_use = "returns a new limiter"]
    pub fn concurrency(self, jobs: u32) -> Self {
        assert!(jobs > 0, "a limiter of 0 concurrent jobs admits none");
        Self::of(Limits {
            concurrency: Some(jobs),
            ..self.inner.limits
        })
    }

    /// Returns a new limiter that also allows at most `jobs` jobs per time `per`, evenly spaced. A job counts when it
    /// gets its permit. If all workers are busy then, the job starts later: after a long delay, all jobs that got
    /// permits meanwhile may start in a row. [`concurrency`](Self::concurrency) bounds their number.
    ///
    /// # Panics
    ///
    /// If either argument is zero, the time between two jobs is shorter than a nanosecond or longer than a century.
    #[must_use = "returns a new limiter"]
    pub fn rate(self, jobs: u32, per: Duration) -> Self {
        assert!(jobs > 0, "a rate of 0 jobs admits none");
        assert!(
            !(per / jobs).is_zero(),
            "a rate of {jobs} jobs in {per:?} is shorter than the clock can measure"
        );
        Self::of(Limits {
            rate: Some((jobs, per, 1)),
            ..self.inner.limits
        })
    }

    /// Returns a new limiter that also allows `jobs` jobs at once after a pause, instead of 1. Follows
    /// [`rate`](Self::rate).
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::{Duration, Instant};
    /// use arenite::{JobOptions, Limiter};
    ///
    /// // Ten per second; after a pause three at once, then ten per second again.
    /// let second = Duration::from_secs(1);
    /// let limit = JobOptions::new().limit(&Limiter::new().rate(10, second).burst(3));
    /// let began = Instant::now();
    /// let pages = engine.map(|page: u32| page, (0..5).map(|page| (page,))).options(&limit);
    /// assert_eq!(pages.count(), 5);
    /// assert!(began.elapsed() >= second / 5, "the fourth and the fifth waited, a tenth of a second each");
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// # Panics
    /// If `jobs` is 0, no [`rate`](Self::rate) was set, or the burst would take longer than a century to be available
    /// again.
    #[must_use = "returns a new limiter"]
    pub fn burst(self, jobs: u32) -> Self {
        assert!(jobs > 0, "a burst of 0 jobs admits none");
        let rate = self.inner.limits.rate;
        let (of, per, _) = rate.expect("a burst belongs to a rate, and this limiter has none");
        Self::of(Limits {
            rate: Some((of, per, jobs)),
            ..self.inner.limits
        })
    }

    /// Returns a handle of the same limit for a new caller: use one per task of an event loop, request or user. Jobs,
    /// maps and stages that use this handle or a clone of it, on any thread, share the turns of this one caller.
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
    /// /// Answers a request. A request of one page gets its turn during one of a thousand pages.
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
    /// let polite = Limiter::new().concurrency(4);
    /// let both = async {
    ///     let (large, small) = (answer(&engine, &polite, 1000), answer(&engine, &polite, 1));
    ///     smol::future::try_zip(large, small).await
    /// };
    /// assert_eq!(smol::block_on(both)?, (4_995_000, 0));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "returns a new handle; the original is unchanged"]
    #[doc(alias("acquire_on_behalf_of", "borrower", "tenant"))]
    pub fn caller(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            caller: Some(Caller::new()),
        }
    }

    /// Returns the number of permits that are given now, to jobs that run or are about to.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::Limiter;
    ///
    /// let limiter = Limiter::new().concurrency(2);
    /// let job = engine.job(|x: u32| x + 1, (1,)).limit(&limiter).submit();
    /// assert_eq!(job.wait()?, 2);
    /// assert_eq!((limiter.given(), limiter.waiting()), (0, 0));
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    #[doc(alias("borrowed_tokens", "statistics"))]
    pub fn given(&self) -> usize {
        self.lock().0.given as usize
    }

    /// Returns the number of jobs that wait for a permit.
    #[doc(alias("tasks_waiting"))]
    pub fn waiting(&self) -> usize {
        self.lock().0.line.len()
    }

    pub(super) fn lock(&self) -> (MutexGuard<'_, PermitState>, Duration) {
        #[cfg(test)]
        tests::LOCKS.set(tests::LOCKS.get() + 1);
        let state = lock(&self.inner.state);
        (state, self.inner.start.elapsed())
    }

    pub(super) fn call(&self) -> Vec<Waker> {
        let (mut state, now) = self.lock();
        state.call(now)
    }

    pub(super) fn give_back(&self) -> Vec<Waker> {
        let (mut state, now) = self.lock();
        state.give_back(now)
    }

    /// Returns the waiter that has to watch the clock, and until when. `None` if the first waiter will be notified.
    pub(super) fn due(&self) -> Option<(Ticket, Instant)> {
        let (state, _) = self.lock();
        state
            .due()
            .map(|(first, due)| (first, self.inner.start + due))
    }

    /// Blocks this thread until it has a permit.
    ///
    /// # Errors
    ///
    /// `JobErrorKind::Rejected(Rejection::Deadlock)` if all permits would be held by blocked threads, including this
    /// thread: no permit would ever be returned.
    fn acquire_inline(&self, caller: Caller) -> Result<Permit<'_>, JobErrorKind> {
        let thread = ThreadWaker::new();
        let waker = thread.waker();
        let held = self.permits_of_this_thread();
        let ticket = {
            let (mut state, now) = self.lock();
            let ticket = state.request(now, caller, waker);
            if let Some(ticket) = ticket
                && !state.begin_blocking_wait(held)
            {
                let wakers = state.leave(ticket, now);
                drop(state);
                wake_others(wakers, waker);
                return Err(JobErrorKind::Rejected(Rejection::Deadlock {
                    why: DEADLOCK,
                }));
            }
            ticket
        };
        while let Some(ticket) = ticket {
            wake_others(self.call(), waker);
            let (mut state, _) = self.lock();
            if state.take_call(ticket) {
                state.end_blocking_wait(held);
                break;
            }
            let due = state.due();
            drop(state);
            let until = due.filter(|&(first, _)| first == ticket);
            thread.sleep(until.map(|(_, due)| self.inner.start + due));
        }
        HELD.with_borrow_mut(|all| all.push(self.address()));
        Ok(Permit {
            limiter: self,
            thread: PhantomData,
        })
    }

    /// Returns the number of permits that nested inline jobs of this thread hold.
    fn permits_of_this_thread(&self) -> u32 {
        let mine = |&&limiter: &&usize| limiter == self.address();
        HELD.with_borrow(|all| all.iter().filter(mine).count() as u32)
    }

    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }
}

/// Where a job gets its permit: a limiter, and the caller whose turn it uses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PermitSource {
    pub(super) limiter: Limiter,
    pub(super) caller: Caller,
}

impl PermitSource {
    /// Uses the caller of the handle, or this thread as the caller.
    pub(crate) fn for_this_thread(limiter: &Limiter) -> Self {
        Self::of(limiter, Caller::this_thread)
    }

    /// Uses the caller of the handle, or a new caller: for a map or a stage, which takes turns with the thread that
    /// runs it.
    pub(crate) fn for_new_caller(limiter: &Limiter) -> Self {
        Self::of(limiter, Caller::new)
    }

    fn of(limiter: &Limiter, otherwise: fn() -> Caller) -> Self {
        Self {
            limiter: limiter.clone(),
            caller: limiter.caller.unwrap_or_else(otherwise),
        }
    }

    /// Returns the limiter.
    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Blocks this thread until it has a permit.
    ///
    /// # Errors
    /// As for [`Limiter::acquire_inline`].
    pub(crate) fn acquire_inline(&self) -> Result<Permit<'_>, JobErrorKind> {
        self.limiter.acquire_inline(self.caller)
    }
}

/// Wakes all waiters except the calling one.
fn wake_others(wakers: Vec<Waker>, own: &Waker) {
    let others = wakers.into_iter().filter(|waker| !waker.will_wake(own));
    wake_all(others);
}

/// A permit of a job that runs inline in this thread.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit<'a> {
    limiter: &'a Limiter,
    /// Makes the permit not `Send`, because the thread's `HELD` has an entry for it.
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

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Limiter {
    /// Returns true if both are handles of the same limit, for any caller.
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
