//! What can be said of a stage, directly behind it.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use super::stage::{Letters, StageTerms};
use super::{DeadLetter, Stream};
use crate::engine::{Backoff, Limiter, Priority};
use crate::kernel::RetrySafe;
use crate::supervisor::Limit;

/// The last step of a stream is a stage with the input `I`, whose jobs take `A`.
pub struct AfterStage<'a, I, A> {
    pub(super) terms: Rc<RefCell<StageTerms<'a, I>>>,
    pub(super) args: PhantomData<fn(A)>,
}

impl<I, A> fmt::Debug for AfterStage<'_, I, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterStage").finish_non_exhaustive()
    }
}

/// What can be said of the stage that was added last.
impl<'a, T, I, A> Stream<'a, T, AfterStage<'a, I, A>> {
    /// How many jobs of this stage may be with the engine at one time; by default as many as are in flight.
    ///
    /// # Panics
    /// If it is 0.
    #[track_caller]
    pub fn jobs(self, most: usize) -> Self {
        assert!(most > 0, "a stage without jobs holds up everything");
        self.last.terms.borrow_mut().jobs = most;
        self
    }

    /// How many results of this stage may wait for the next step before it begins no more jobs; by default as many as are in
    /// flight.
    ///
    /// # Panics
    /// If it is 0.
    #[track_caller]
    pub fn queue(self, most: usize) -> Self {
        assert!(most > 0, "a stage whose results may not wait does nothing");
        self.last.terms.borrow_mut().results = most;
        self
    }

    /// How long each of its jobs may run: see [`JobBuilder::deadline`](crate::engine::JobBuilder::deadline).
    pub fn deadline(self, limit: Duration) -> Self {
        self.last.terms.borrow_mut().terms.deadline = Some(limit);
        self
    }

    /// Runs a job of this stage again, up to this many times, if it panics, exceeds its deadline or takes its worker with it: see
    /// [`JobBuilder::retries`](crate::engine::JobBuilder::retries). Only where the kernel cannot change the item:
    ///
    /// ```compile_fail,E0277
    /// use arenite::{ArrayMut, stream::Stream};
    ///
    /// fn sort(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.sort_unstable();
    ///     values
    /// }
    ///
    /// let engine = arenite::Engine::inline();
    /// let items = (0..4).map(|n| engine.zeros::<u32>(n).unwrap());
    /// let sorted = Stream::new(items).stage(sort, ()).retries(1);
    /// ```
    pub fn retries(self, retries: u32) -> Self
    where
        A: RetrySafe,
    {
        self.last.terms.borrow_mut().terms.retries = retries;
        self
    }

    /// With retries: they are also for the `Err`s that the kernel returns, where what it asks for may be there the next
    /// time: see [`JobBuilder::retry_errors`](crate::engine::JobBuilder::retry_errors). Without them it changes nothing.
    pub fn retry_errors(self) -> Self {
        self.last.terms.borrow_mut().terms.retry_errors = true;
        self
    }

    /// The pauses between attempts; by default 10 ms, doubling up to a second. Without retries there are none.
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.last.terms.borrow_mut().terms.backoff = backoff;
        self
    }

    /// Which of the jobs that wait goes first. A later stage before an earlier one keeps less in flight.
    pub fn priority(self, priority: Priority) -> Self {
        self.last.terms.borrow_mut().terms.priority = priority;
        self
    }

    /// Each of its jobs needs a permit of this limiter: see [`Limiter`]. Whoever has the limiter shares it; a stage has its
    /// turns beside other callers, as a map has. Said again, the last one counts.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::Duration;
    /// use arenite::{Limiter, stream::Stream};
    ///
    /// fn fetch(page: u32) -> u32 {
    ///     page * 10
    /// }
    ///
    /// let polite = Limiter::builder().rate(1_000, Duration::from_secs(1)).build();
    /// let pages = Stream::new(0..3).stage(fetch, ()).limit(&polite);
    /// assert_eq!(pages.run(&engine).collect::<Result<Vec<_>, _>>()?, [0, 10, 20]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit(self, limiter: &Limiter) -> Self {
        self.last.terms.borrow_mut().terms.limit = Some(Limit::of_its_own(limiter));
        self
    }

    /// Hands out each item that fails at this stage, after all retries, whatever becomes of the stream: see [`DeadLetter`]. A copy of each
    /// input is kept while its job runs; that of an array is a handle.
    pub fn dead_letters(self, to: impl FnMut(DeadLetter<I>) + 'a) -> Self
    where
        I: Clone,
    {
        self.last.terms.borrow_mut().letters = Some(Letters {
            copy: I::clone,
            to: Rc::new(RefCell::new(to)),
        });
        self
    }
}
