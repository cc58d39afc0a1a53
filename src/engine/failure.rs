//! Failures as data: the item, its arguments, and the error.

use std::fmt;
use std::ops::Range;

use super::JobError;
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
        Self::of_item(index, args, error)
    }
}

/// A failed job as data: its arguments, its error, its attempts. Arrays in it are handles, so it can be inspected,
/// logged, or submitted again.
///
/// [`JobError::attempt`] of the error is the number of attempts, and [`JobError::deaths`] lists the earlier ones.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter<A> {
    /// The position of the failed item, from 0 on: of an item in its iterator or source, of a window in its stream, or
    /// of the first failed row in its array. 0 for a single job.
    pub index: usize,
    /// The stage of a stream at which the item failed, from 1 on. `None` for jobs that do not belong to a stream.
    pub stage: Option<usize>,
    /// The arguments as they were passed: a tuple for a job or a map, the item or window at the stage for a stream, the
    /// rows of the input for an array.
    pub args: A,
    /// The error of the last attempt.
    pub error: JobError,
    /// The number of failed rows of an array.
    rows: Option<usize>,
}

impl<A> DeadLetter<A> {
    pub(super) fn of_item(index: usize, args: A, error: JobError) -> Self {
        Self {
            index,
            stage: None,
            args,
            error,
            rows: None,
        }
    }

    pub(super) fn of_stage(stage: usize, index: usize, args: A, error: JobError) -> Self {
        Self {
            stage: Some(stage),
            ..Self::of_item(index, args, error)
        }
    }

    pub(super) fn of_rows(rows: Range<usize>, args: A, error: JobError) -> Self {
        Self {
            rows: Some(rows.len()),
            ..Self::of_item(rows.start, args, error)
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
        let index = self.index;
        match (self.stage, self.rows) {
            (Some(stage), _) => write!(f, "stage {stage}, item {index}")?,
            (None, None) => write!(f, "item {index}")?,
            (None, Some(1)) => write!(f, "row {index}")?,
            (None, Some(rows)) => write!(f, "rows {index}..{}", index + rows)?,
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
            .field("index", &self.index)
            .field("stage", &self.stage)
            .field("args", &self.args)
            .field("error", &self.error)
            .finish()
    }
}

impl<A: fmt::Debug> std::error::Error for DeadLetter<A> {}

/// The maximum number of failures in the text of a report.
const SHOWN: usize = 10;

/// The results of a map ([`Map::report`]) or of an array ([`Par::map_report`]), with each failure as a [`DeadLetter`].
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
///     assert_eq!(report.values, [Some(2), None, Some(4)]);
///     assert_eq!(report.failures[0].args, (-9,));
/// });
/// ```
///
/// For an array, `V` is the resulting `Array`, in which rows that failed are zero.
///
/// [`Map::report`]: super::Map::report
/// [`Par::map_report`]: super::Par::map_report
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report<A, V> {
    /// The results.
    pub values: V,
    /// The failures, in order.
    pub failures: Vec<DeadLetter<A>>,
    total: usize,
    /// The unit that `total` counts.
    unit: &'static str,
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
        let failed: usize = self
            .failures
            .iter()
            .map(|letter| letter.rows.unwrap_or(1))
            .sum();
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
