//! Failures as data: which item, with which arguments, why.

use std::collections::VecDeque;
use std::fmt;

use super::{Feed, Map};
use crate::engine::{Death, JobError, JobErrorKind};

/// A job that failed, as data: its arguments, the error, and the attempts that were made. Arrays in it are handles, so it
/// can be looked at, written down, or sent again. A stage of a stream gives [one of its own](crate::stream::DeadLetter), which says
/// where the item was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter<A> {
    index: usize,
    args: A,
    error: JobError,
}

impl<A> DeadLetter<A> {
    pub(in crate::engine) fn new(index: usize, args: A, error: JobError) -> Self {
        Self { index, args, error }
    }

    /// The place of its item in the iterator, from 0; 0 for a job that is none of many.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The arguments, as they were passed.
    pub fn args(&self) -> &A {
        &self.args
    }

    /// The arguments, to send them again.
    pub fn into_args(self) -> A {
        self.args
    }

    /// Why it failed the last time.
    pub fn error(&self) -> &JobError {
        &self.error
    }

    /// How often it was tried.
    pub fn attempts(&self) -> u32 {
        self.error.attempt()
    }

    /// How the attempts before the last one ended: see [`JobError::deaths`].
    pub fn deaths(&self) -> &[Death] {
        self.error.deaths()
    }

    /// The stack at the panic that ended it, where it was a panic.
    pub fn backtrace(&self) -> Option<&str> {
        backtrace(&self.error)
    }
}

/// The stack at a panic, if it was one and its stack is known.
pub(in crate::engine) fn backtrace(error: &JobError) -> Option<&str> {
    match error.kind() {
        JobErrorKind::Panicked { backtrace, .. } if !backtrace.is_empty() => Some(backtrace),
        _ => None,
    }
}

impl<A> From<DeadLetter<A>> for JobError {
    fn from(letter: DeadLetter<A>) -> Self {
        letter.error
    }
}

impl<A> fmt::Display for DeadLetter<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "item {}: {}", self.index, self.error)
    }
}

impl<A: fmt::Debug> std::error::Error for DeadLetter<A> {}

/// Items, and copies of those whose answers have not been given.
struct Remembering<I: Iterator> {
    items: I,
    kept: VecDeque<I::Item>,
}

impl<I: Iterator<Item: Clone>> Iterator for Remembering<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let item = self.items.next()?;
        self.kept.push_back(item.clone());
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

/// The iterator of [`Map::keep_args`].
///
/// Dropping it cancels what is in flight.
#[must_use = "a map is lazy: nothing runs before it is iterated over"]
pub struct KeepingArgs<I: Iterator<Item: Clone>, R> {
    feed: Feed<Remembering<I>, R, ()>,
    given: usize,
}

/// What came of all items of a map: [`Map::report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report<A, R> {
    values: Vec<Option<R>>,
    failures: Vec<DeadLetter<A>>,
}

impl<I: Iterator<Item: Clone>, R> Map<I, R> {
    /// Gives a [`DeadLetter`] for each job that fails: with the arguments, of which a copy is kept until the job has
    /// ended. A copy of an array is another handle.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn positive(n: i32) -> Result<i32, &'static str> {
    ///     if n > 0 { Ok(n) } else { Err("not positive") }
    /// }
    ///
    /// let items = [3, -4, 5].map(|n| (n,));
    /// for result in engine.map(positive, items).keep_args() {
    ///     if let Err(letter) = result {
    ///         assert_eq!((letter.index(), letter.args()), (1, &(-4,)));
    ///     }
    /// }
    /// ```
    ///
    /// Arguments that a job changes in place are gone with it; there is no copy of them to keep:
    ///
    /// ```compile_fail,E0599
    /// # let engine = arenite::Engine::inline();
    /// use arenite::ArrayMut;
    ///
    /// fn fill(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.fill(1);
    ///     values
    /// }
    ///
    /// let items = (0..4).map(|n| (engine.zeros::<u32>(n).unwrap(),));
    /// let filled = engine.map(fill, items).keep_args();
    /// ```
    ///
    /// # Panics
    /// If results have been taken from the map already.
    pub fn keep_args(self) -> KeepingArgs<I, R> {
        let (plan, shared) = self.feed.into_parts("keep_args");
        let plan = plan.with(|items| Remembering {
            items,
            kept: VecDeque::new(),
        });
        KeepingArgs {
            feed: Feed::new(plan, shared),
            given: 0,
        }
    }

    /// Runs all items, and reports: the values of those that went well, and of each failure the index, the arguments and the
    /// error with its backtrace.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn root(n: i64) -> Result<i64, String> {
    ///     if n < 0 { Err(format!("{n} is negative")) } else { Ok(n.isqrt()) }
    /// }
    ///
    /// let report = engine.map(root, [4, -9, 16].map(|n| (n,))).report();
    /// assert_eq!(report.values(), [Some(2), None, Some(4)]);
    /// let [failure] = report.failures() else { panic!("{report}") };
    /// assert_eq!((failure.index(), failure.args()), (1, &(-9,)));
    ///
    /// // Dead letters are arguments again.
    /// let (_, failures) = report.into_parts();
    /// let again = failures.into_iter().map(|letter| (-letter.into_args().0,));
    /// assert_eq!(engine.map(root, again).report().into_values().unwrap(), [3]);
    /// ```
    ///
    /// # Panics
    /// If results have been taken from the map already.
    #[doc(alias("gather", "return_exceptions"))]
    pub fn report(self) -> Report<I::Item, R> {
        let (mut values, mut failures) = (Vec::new(), Vec::new());
        for result in self.keep_args() {
            match result {
                Ok(value) => values.push(Some(value)),
                Err(letter) => {
                    values.push(None);
                    failures.push(letter);
                }
            }
        }
        Report { values, failures }
    }
}

impl<I: Iterator<Item: Clone>, R> Iterator for KeepingArgs<I, R> {
    type Item = Result<R, DeadLetter<I::Item>>;

    fn next(&mut self) -> Option<Self::Item> {
        let ((), answer) = self.feed.next()?;
        let args = self.feed.plan.items.kept.pop_front();
        let index = self.given;
        self.given += 1;
        Some(answer.map_err(|error| {
            let args = args.expect("an answer is that of an item");
            DeadLetter::new(index, args, error)
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint()
    }
}

impl<I: Iterator<Item: Clone>, R> fmt::Debug for KeepingArgs<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepingArgs")
            .field("kernel", &self.feed.plan.calls.kernel.name)
            .field("in_flight", &self.feed.in_flight())
            .finish_non_exhaustive()
    }
}

/// Failures that a report writes out.
const SHOWN: usize = 10;

impl<A, R> Report<A, R> {
    /// The value of each item, in order; `None` where it failed. With [`OnFailure::Stop`](super::OnFailure::Stop) up to the
    /// first failure.
    pub fn values(&self) -> &[Option<R>] {
        &self.values
    }

    /// The items that failed, in order.
    pub fn failures(&self) -> &[DeadLetter<A>] {
        &self.failures
    }

    /// Values and failures.
    pub fn into_parts(self) -> (Vec<Option<R>>, Vec<DeadLetter<A>>) {
        (self.values, self.failures)
    }

    /// All values, in order.
    ///
    /// # Errors
    /// The report, if an item failed.
    pub fn into_values(self) -> Result<Vec<R>, Self> {
        if self.failures.is_empty() {
            Ok(self.values.into_iter().flatten().collect())
        } else {
            Err(self)
        }
    }
}

impl<A, R> fmt::Display for Report<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} items failed",
            self.failures.len(),
            self.values.len()
        )?;
        for letter in self.failures.iter().take(SHOWN) {
            write!(f, "\n  {letter}")?;
        }
        match self.failures.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl<A: fmt::Debug, R: fmt::Debug> std::error::Error for Report<A, R> {}
