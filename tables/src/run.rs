//! Kernels over parts: [`PartMap`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::error::{Origin, TableError, TableErrorKind};
use super::part::Part;
use super::table::{PartReport, Table};
use arenite::engine::Permits;
use arenite::engine::{Engine, Job, JobOptions, Priority};
use arenite::kernel::{Kernel, Reply};

/// The results of a kernel on the parts of a table, in order: an iterator.
///
/// A bounded number of parts is in flight, twice the number of workers. Results wait until they are requested. Dropping
/// the iterator cancels the parts in flight.
#[must_use = "a map of parts is lazy: nothing runs before it is iterated over"]
pub struct PartMap<'e, R> {
    engine: &'e Engine,
    start: Box<Start<'e, R>>,
    options: JobOptions<true>,
    flying: VecDeque<Result<Flying<R>, TableError>>,
    ahead: usize,
    is_over: bool,
}

/// Starts the next part.
pub(super) type Start<'e, R> =
    dyn FnMut(&JobOptions<true>) -> Option<Result<Flying<R>, TableError>> + Send + 'e;

/// A part in flight.
pub(super) struct Flying<R> {
    pub(super) origin: Option<Origin>,
    pub(super) job: Job<R>,
}

/// A part that has ended.
pub(super) struct Done<R> {
    pub(super) origin: Option<Origin>,
    pub(super) result: Result<R, TableError>,
}

impl<'e, R: Send + 'static> PartMap<'e, R> {
    pub(super) fn new(engine: &'e Engine, start: Box<Start<'e, R>>) -> Self {
        Self {
            engine,
            start,
            options: JobOptions::default(),
            flying: VecDeque::new(),
            ahead: parts_ahead(engine),
            is_over: false,
        }
    }

    /// Sets the options of the jobs that were not started yet, such as a deadline or retries. An error names a part by
    /// its file and bytes instead of a label.
    pub fn options<const RETRIES: bool>(mut self, options: &JobOptions<RETRIES>) -> Self
    where
        Part: Permits<RETRIES>,
    {
        self.options = options.clone().retriable();
        self
    }

    /// Runs the kernel on all parts. A failure affects only its part, and names its file and bytes.
    pub fn report(mut self) -> PartReport<Vec<Option<R>>> {
        let mut values = Vec::new();
        let mut failures = Vec::new();
        while let Some(done) = self.next_done() {
            match done.result {
                Ok(value) => values.push(Some(value)),
                Err(error) => {
                    values.push(None);
                    failures.push(error);
                }
            }
        }
        PartReport { values, failures }
    }

    /// Returns the results, each with the location that its rows come from.
    pub fn with_origins(mut self) -> impl Iterator<Item = (Option<Origin>, Result<R, TableError>)> {
        let next = move || self.next_done().map(|done| (done.origin, done.result));
        std::iter::from_fn(next)
    }

    pub(super) fn next_done(&mut self) -> Option<Done<R>> {
        while !self.is_over && self.flying.len() < self.ahead {
            match (self.start)(&self.options) {
                Some(started) => self.flying.push_back(started),
                None => self.is_over = true,
            }
        }
        Some(match self.flying.pop_front()? {
            Ok(Flying { origin, job }) => Done {
                result: job
                    .wait()
                    .map_err(|error| TableError::new(origin.clone(), TableErrorKind::Job(error))),
                origin,
            },
            Err(error) => Done {
                origin: error.origin().cloned(),
                result: Err(error),
            },
        })
    }
}

/// Returns the maximum number of parts in flight: for each worker, one that runs and one that waits.
pub(super) fn parts_ahead(engine: &Engine) -> usize {
    2 * engine.stats().workers.len().max(1)
}

impl<'e> PartMap<'e, Part> {
    /// Runs another kernel on each result.
    pub(super) fn then<F, R>(mut self, kernel: F) -> PartMap<'e, R::Out>
    where
        F: Kernel<(&'static Part,), R>,
        R: Reply + 'static,
    {
        let (engine, options) = (self.engine, self.options.clone());
        let start = move |options: &JobOptions<true>| {
            let Done { origin, result } = self.next_done()?;
            Some(result.map(|part| {
                let job = engine.job(kernel, (part,));
                let job = job.options(&labelled(options, origin.as_ref())).submit();
                Flying { origin, job }
            }))
        };
        PartMap::new(engine, Box::new(start)).options(&options)
    }

    /// Runs the kernel on all parts, and makes a table of the results, which must have the same schema.
    ///
    /// # Errors
    /// The first failure, which cancels the rest. [`report`](Self::report) returns the results that succeeded too.
    pub fn table(mut self) -> Result<Table, TableError> {
        let mut table = Table::empty(None);
        while let Some(done) = self.next_done() {
            table.push(done.result?, done.origin)?;
        }
        Ok(table)
    }
}

impl<R: Send + 'static> Iterator for PartMap<'_, R> {
    type Item = Result<R, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_done().map(|done| done.result)
    }
}

impl<R> fmt::Debug for PartMap<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartMap")
            .field("in_flight", &self.flying.len())
            .finish_non_exhaustive()
    }
}

/// Returns the options of jobs that other parts depend on. Such jobs run before others, and run again if their worker
/// dies, which is safe because they only read.
pub(super) fn essential() -> JobOptions<true> {
    JobOptions::new().priority(Priority::High).retries(2)
}

/// Returns the options of a part's job, which the location of the part labels in statistics and traces.
pub(super) fn labelled(options: &JobOptions<true>, origin: Option<&Origin>) -> JobOptions<true> {
    match origin {
        Some(origin) => options.clone().label(Arc::<str>::from(origin.to_string())),
        None => options.clone(),
    }
}
