//! Settings of a stage. The methods that set them must be called directly after the method that adds the stage.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use super::Stream;
use super::stage::{Letters, StageOptions};
use crate::engine::DeadLetter;
use crate::supervisor::{JobOptions, Permits};

/// Marks a [`Stream`] whose last step is a stage with inputs `I` and jobs with arguments `A`.
pub struct AfterStage<'a, I, A> {
    pub(super) options: Rc<RefCell<StageOptions<'a, I>>>,
    pub(super) args: PhantomData<fn(A)>,
}

impl<I, A> fmt::Debug for AfterStage<'_, I, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterStage").finish_non_exhaustive()
    }
}

/// Settings of the stage that was added last. If a later stage has a higher priority than an earlier one, fewer items
/// are in flight.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// use std::time::Duration;
/// use arenite::{JobOptions, Limiter, stream::Stream};
///
/// fn fetch(page: u32) -> u32 {
///     page * 10
/// }
///
/// let polite = JobOptions::new().limit(&Limiter::new().rate(1_000, Duration::from_secs(1)));
/// let pages = Stream::new(0..3).stage(fetch, ()).options(&polite);
/// assert_eq!(pages.run(&engine).collect::<Result<Vec<_>, _>>()?, [0, 10, 20]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<'a, T, I, A> Stream<'a, T, AfterStage<'a, I, A>> {
    /// Sets the maximum number of submitted jobs of this stage. By default it is limited only by the items in flight.
    ///
    /// # Panics
    /// If `most` is 0.
    #[track_caller]
    pub fn jobs(self, most: usize) -> Self {
        assert!(most > 0, "a stage without jobs holds up everything");
        self.last.options.borrow_mut().jobs = most;
        self
    }

    /// Sets the maximum number of results of this stage that wait for the next step; at this number the stage starts no
    /// more jobs. By default it is limited only by the items in flight.
    ///
    /// # Panics
    /// If `most` is 0.
    #[track_caller]
    pub fn queue(self, most: usize) -> Self {
        assert!(most > 0, "a stage whose results may not wait does nothing");
        self.last.options.borrow_mut().results = most;
        self
    }

    /// Sets the [options](JobOptions) of the jobs of this stage, and replaces all that were set earlier. Retries
    /// require arguments that the kernel cannot change:
    ///
    /// ```compile_fail,E0308
    /// use arenite::{ArrayMut, JobOptions, stream::Stream};
    ///
    /// fn sort(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.sort_unstable();
    ///     values
    /// }
    ///
    /// let engine = arenite::Engine::inline();
    /// let items = (0..4).map(|n| engine.zeros::<u32>(n).unwrap());
    /// let sorted = Stream::new(items).stage(sort, ()).options(&JobOptions::new().retries(1));
    /// ```
    pub fn options<const RETRIES: bool>(self, options: &JobOptions<RETRIES>) -> Self
    where
        A: Permits<RETRIES>,
    {
        self.last.options.borrow_mut().options = options.for_new_caller();
        self
    }

    /// Passes each item that fails at this stage, after all retries, to `to`, whether the stream stops or continues:
    /// see [`DeadLetter`]. A copy of each input is kept while its job runs; the copy of an array is a handle.
    pub fn dead_letters(self, to: impl FnMut(DeadLetter<I>) + 'a) -> Self
    where
        I: Clone,
    {
        self.last.options.borrow_mut().letters = Some(Letters {
            copy: I::clone,
            to: Rc::new(RefCell::new(to)),
        });
        self
    }
}
