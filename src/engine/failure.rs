//! Failures as data: the item, its arguments, and the error.

use std::fmt;
use std::ops::Range;

use super::{Death, JobError, JobErrorKind};
use crate::array::{Array, Element};
use crate::kernel::Key;

/// The error type of a job: a [`JobError`], or a [`DeadLetter`] if its arguments are kept ([`JobBuilder::keep_args`],
/// [`Map::keep_args`]). This trait is sealed.
///
/// [`JobBuilder::keep_args`]: super::JobBuilder::keep_args
/// [`Map::keep_args`]: super::Map::keep_args
pub trait JobFailure: Sized {
    /// The copy of the arguments that is kept until the job has ended.
    #[doc(hidden)]
    type Retained;
    /// The value in place of a copy, if nothing has to be kept.
    #[doc(hidden)]
    const NOTHING: Option<Self::Retained>;
    #[doc(hidden)]
    fn from_error(index: usize, retained: Self::Retained, error: JobError, key: Key) -> Self;
}

impl JobFailure for JobError {
    type Retained = ();
    const NOTHING: Option<()> = Some(());
    #[inline]
    fn from_error(_: usize, (): (), error: JobError, _: Key) -> Self {
        error
    }
}

impl<A> JobFailure for DeadLetter<A> {
    type Retained = A;
    const NOTHING: Option<A> = None;
    fn from_error(index: usize, args: A, error: JobError, _: Key) -> Self {
        Self::new(Origin::Item(index), args, error)
    }
}

/// A failed job as data: its arguments, its error, its attempts. Arrays in it are handles, so it can be inspected,
/// logged, or submitted again.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter<A> {
    origin: Origin,
    args: A,
    error: JobError,
}

/// Where the arguments of a failed job come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The index of an item of an iterator; 0 for a single job.
    Item(usize),
    /// A range of rows of an array.
    Rows(Range<usize>),
    /// An item or window of a stream, at a stage counted from 1.
    Stage { stage: usize, item: u64 },
}

impl<A> DeadLetter<A> {
    pub(super) fn new(origin: Origin, args: A, error: JobError) -> Self {
        Self {
            origin,
            args,
            error,
        }
    }

    /// Returns the position of the failed item, from 0 on: of an item in its iterator or source, of a window in its
    /// stream, or of the first failed row in its array. 0 for a single job.
    pub fn index(&self) -> usize {
        match &self.origin {
            Origin::Item(index) => *index,
            Origin::Rows(rows) => rows.start,
            Origin::Stage { item, .. } => *item as usize,
        }
    }

    /// Returns the stage of a stream at which the item failed, from 1 on. `None` for jobs that do not belong to a
    /// stream.
    pub fn stage(&self) -> Option<usize> {
        match self.origin {
            Origin::Stage { stage, .. } => Some(stage),
            Origin::Item(_) | Origin::Rows(_) => None,
        }
    }

    /// Returns the arguments as they were passed: a tuple for a job or a map, the item or window at the stage for a
    /// stream, the rows of the input for an array.
    pub fn args(&self) -> &A {
        &self.args
    }

    /// Returns the arguments, to submit them again.
    pub fn into_args(self) -> A {
        self.args
    }

    /// Returns the error of the last attempt.
    pub fn error(&self) -> &JobError {
        &self.error
    }

    /// Returns the number of attempts.
    pub fn attempts(&self) -> u32 {
        self.error.attempt()
    }

    /// Returns how the earlier attempts ended: see [`JobError::deaths`].
    pub fn deaths(&self) -> &[Death] {
        self.error.deaths()
    }

    /// Returns the stack of the panic, if the job panicked.
    pub fn backtrace(&self) -> Option<&str> {
        match self.error.kind() {
            JobErrorKind::Panicked { backtrace, .. } if !backtrace.is_empty() => Some(backtrace),
            _ => None,
        }
    }
}

impl<A> From<DeadLetter<A>> for JobError {
    fn from(letter: DeadLetter<A>) -> Self {
        letter.error
    }
}

impl<A> fmt::Display for DeadLetter<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Item(index) => write!(f, "item {index}")?,
            Origin::Rows(rows) if rows.len() == 1 => write!(f, "row {}", rows.start)?,
            Origin::Rows(rows) => write!(f, "rows {}..{}", rows.start, rows.end)?,
            Origin::Stage { stage, item } => write!(f, "stage {stage}, item {item}")?,
        }
        write!(f, ": {}", self.error)
    }
}

/// Like [`JobError`]: `{:?}` prints the text, `{:#?}` the parts.
impl<A: fmt::Debug> fmt::Debug for DeadLetter<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("DeadLetter")
            .field("origin", &self.origin)
            .field("args", &self.args)
            .field("error", &self.error)
            .finish()
    }
}

impl<A: fmt::Debug> std::error::Error for DeadLetter<A> {}

/// The maximum number of failures in the text of a report.
const SHOWN: usize = 10;

/// The results of a map ([`Map::report`]) or of an array ([`Par::report`]), with each failure as a [`DeadLetter`].
///
/// For a map, `V` is `Vec<Option<R>>`: one entry for each item, in order, and `None` if it failed. With
/// [`OnFailure::Stop`](crate::OnFailure::Stop) the vector ends at the first failure. Such a report can be collected
/// from the results of a map that keeps its arguments, also in `async` code:
///
/// ```
/// # let engine = arenite::Engine::inline();
/// use arenite::Report;
/// use smol::stream::StreamExt;
///
/// fn root(n: i64) -> Result<i64, String> {
///     if n < 0 { Err(format!("{n} is negative")) } else { Ok(n.isqrt()) }
/// }
///
/// smol::block_on(async {
///     let roots = engine.map(root, [4, -9, 16].map(|n| (n,))).keep_args().stream();
///     let report: Report<_, _> = roots.collect().await;
///     assert_eq!(report.values(), &[Some(2), None, Some(4)]);
///     assert_eq!(report.failures()[0].args(), &(-9,));
/// });
/// ```
///
/// For an array, `V` is the resulting `Array`, in which rows that failed are zero.
///
/// [`Map::report`]: super::Map::report
/// [`Par::report`]: super::Par::report
#[derive(Clone, PartialEq, Eq)]
pub struct Report<A, V> {
    values: V,
    total: usize,
    /// The unit that `total` counts.
    unit: &'static str,
    failures: Vec<DeadLetter<A>>,
}

impl<A, V> Report<A, V> {
    /// Returns the results.
    pub fn values(&self) -> &V {
        &self.values
    }

    /// Returns the failures, in order.
    pub fn failures(&self) -> &[DeadLetter<A>] {
        &self.failures
    }

    /// Returns the results and the failures.
    pub fn into_parts(self) -> (V, Vec<DeadLetter<A>>) {
        (self.values, self.failures)
    }
}

impl<A, R> Report<A, Vec<Option<R>>> {
    /// Returns all values, in order.
    ///
    /// # Errors
    /// The report itself, if an item failed.
    pub fn into_values(self) -> Result<Vec<R>, Self> {
        if self.failures.is_empty() {
            Ok(self.values.into_iter().flatten().collect())
        } else {
            Err(self)
        }
    }
}

impl<T: Element, U: Element> Report<Array<T>, Array<U>> {
    pub(super) fn of_rows(values: Array<U>, failures: Vec<DeadLetter<Array<T>>>) -> Self {
        Self {
            total: values.shape().rows(),
            unit: "rows",
            values,
            failures,
        }
    }
}

impl<A, R> Default for Report<A, Vec<Option<R>>> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            total: 0,
            unit: "items",
            failures: Vec::new(),
        }
    }
}

impl<A, R> Extend<Result<R, DeadLetter<A>>> for Report<A, Vec<Option<R>>> {
    fn extend<I: IntoIterator<Item = Result<R, DeadLetter<A>>>>(&mut self, results: I) {
        for result in results {
            match result {
                Ok(value) => self.values.push(Some(value)),
                Err(letter) => {
                    self.values.push(None);
                    self.failures.push(letter);
                }
            }
        }
        self.total = self.values.len();
    }
}

impl<A, R> FromIterator<Result<R, DeadLetter<A>>> for Report<A, Vec<Option<R>>> {
    fn from_iter<I: IntoIterator<Item = Result<R, DeadLetter<A>>>>(results: I) -> Self {
        let mut report = Self::default();
        report.extend(results);
        report
    }
}

impl<A, V> fmt::Display for Report<A, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |letter: &DeadLetter<A>| match &letter.origin {
            Origin::Rows(rows) => rows.len(),
            Origin::Item(_) | Origin::Stage { .. } => 1,
        };
        let failed: usize = self.failures.iter().map(count).sum();
        write!(f, "{failed} of {} {} failed", self.total, self.unit)?;
        for letter in self.failures.iter().take(SHOWN) {
            write!(f, "\n  {letter}")?;
        }
        match self.failures.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Like [`JobError`]: `{:?}` prints the text, `{:#?}` the parts.
impl<A: fmt::Debug, V: fmt::Debug> fmt::Debug for Report<A, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("Report")
            .field("values", &self.values)
            .field("failures", &self.failures)
            .finish()
    }
}

impl<A: fmt::Debug, V: fmt::Debug> std::error::Error for Report<A, V> {}
