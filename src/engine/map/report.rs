//! Failures as data: which item, with which arguments, why.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::{KeepingArgs, Map, MapStream};
use crate::engine::{Death, JobError, JobErrorKind};

/// A job that failed, as data: its arguments, the error, and the attempts that were made. Arrays in it are handles, so it
/// can be looked at, written down, or sent again. A stage of a stream gives [one of its own](crate::stream::DeadLetter), which says
/// where the item was.
#[derive(Clone, PartialEq, Eq)]
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

/// As that of a [`JobError`]: `{:?}` is the text, `{:#?}` shows the parts.
impl<A: fmt::Debug> fmt::Debug for DeadLetter<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("DeadLetter")
            .field("index", &self.index)
            .field("args", &self.args)
            .field("error", &self.error)
            .finish()
    }
}

impl<A: fmt::Debug> std::error::Error for DeadLetter<A> {}

/// What came of all items of a map: [`Map::report`], [`Map::report_async`].
#[derive(Clone, PartialEq, Eq)]
pub struct Report<A, R> {
    values: Vec<Option<R>>,
    failures: Vec<DeadLetter<A>>,
}

impl<I: Iterator<Item: Clone>, R> Map<I, R> {
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
        let mut report = Report::new();
        self.keep_args().for_each(|result| report.add(result));
        report
    }

    /// As [`report`](Map::report), without holding up an event loop. Nothing runs before the future is polled, and dropping it
    /// cancels what is in flight.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn root(n: i64) -> Result<i64, String> {
    ///     if n < 0 { Err(format!("{n} is negative")) } else { Ok(n.isqrt()) }
    /// }
    ///
    /// smol::block_on(async {
    ///     let report = engine.map(root, [4, -9, 16].map(|n| (n,))).report_async().await;
    ///     assert_eq!(report.values(), [Some(2), None, Some(4)]);
    ///     assert_eq!(report.failures()[0].args(), &(-9,));
    /// });
    /// ```
    ///
    /// # Panics
    /// If results have been taken from the map already.
    pub fn report_async(self) -> Reporting<I, R> {
        Reporting {
            results: self.keep_args().stream(),
            report: Some(Report::new()),
        }
    }
}

/// The future of [`Map::report_async`].
///
/// Dropping it cancels what is in flight.
#[must_use = "a future does nothing before it is polled"]
pub struct Reporting<I: Iterator<Item: Clone>, R> {
    results: MapStream<KeepingArgs<I, R>>,
    /// As far as it has come, until it is given away.
    report: Option<Report<I::Item, R>>,
}

// As the stream; what has come is moved out.
impl<I: Iterator<Item: Clone>, R> Unpin for Reporting<I, R> {}

impl<I: Iterator<Item: Clone>, R> Future for Reporting<I, R> {
    type Output = Report<I::Item, R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let given = "this report was given before";
        while let Some(result) = ready!(Pin::new(&mut this.results).poll_next(context)) {
            this.report.as_mut().expect(given).add(result);
        }
        Poll::Ready(this.report.take().expect(given))
    }
}

impl<I: Iterator<Item: Clone>, R> fmt::Debug for Reporting<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporting")
            .field("results", &self.results)
            .field(
                "reported",
                &self.report.as_ref().map(|report| report.values.len()),
            )
            .finish()
    }
}

/// Failures that a report writes out.
const SHOWN: usize = 10;

impl<A, R> Report<A, R> {
    fn new() -> Self {
        Self {
            values: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// What came of the next item.
    fn add(&mut self, result: Result<R, DeadLetter<A>>) {
        match result {
            Ok(value) => self.values.push(Some(value)),
            Err(letter) => {
                self.values.push(None);
                self.failures.push(letter);
            }
        }
    }

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

/// As that of a [`JobError`]: `{:?}` is the text, `{:#?}` shows the parts.
impl<A: fmt::Debug, R: fmt::Debug> fmt::Debug for Report<A, R> {
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

impl<A: fmt::Debug, R: fmt::Debug> std::error::Error for Report<A, R> {}
