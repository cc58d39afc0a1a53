//! Kernels over parts: [`PartMap`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::error::{Fault, Origin, TableError, TableErrorKind};
use super::kernels::{self, Spec};
use super::part::Part;
use super::table::{PartReport, Table};
use super::tasks::Task;
use arenite::engine::{Engine, Job, JobOptions, Priority};
use arenite::engine::{Permits, Retried};
use arenite::kernel::Bytes;

/// The results of a kernel on the parts of a table, in order: an iterator.
///
/// A bounded number of parts is in flight, twice the number of workers. Results wait until they are requested. Dropping
/// the iterator cancels the parts in flight.
#[must_use = "a map of parts is lazy: nothing runs before it is iterated over"]
pub struct PartMap<'e, R> {
    engine: &'e Engine,
    start: Box<Start<'e, R>>,
    options: JobOptions<Retried>,
    flying: VecDeque<Result<Flying<R>, TableError>>,
    ahead: usize,
    is_over: bool,
    /// The number of bytes of the parts that have ended.
    read: u64,
    /// The number of bytes of all parts.
    total: u64,
    pub(super) on_progress: Option<OnProgress<'e>>,
    /// The parts of the current file, up to the last one that has ended.
    before: Vec<(Bytes, Spec)>,
}

/// Starts the next part.
pub(super) type Start<'e, R> =
    dyn FnMut(&JobOptions<Retried>) -> Option<Result<Flying<R>, TableError>> + Send + 'e;

/// A callback that takes two numbers of bytes: of the parts that have ended, and of all parts.
pub(super) type OnProgress<'e> = Box<dyn FnMut(u64, u64) + Send + 'e>;

/// A part in flight.
pub(super) struct Flying<R> {
    pub(super) origin: Option<Origin>,
    /// The task, if the job reads the part.
    pub(super) task: Option<Task>,
    pub(super) job: Job<R>,
    /// The number of bytes of all parts up to this one.
    pub(super) read: u64,
}

/// A part that has ended.
pub(super) struct Done<R> {
    pub(super) origin: Option<Origin>,
    pub(super) task: Option<Task>,
    pub(super) result: Result<R, TableError>,
    /// Whether the part could be read with another schema.
    pub(super) is_of_type: bool,
}

impl<'e, R: Send + 'static> PartMap<'e, R> {
    /// Creates the iterator. `total` is the number of bytes of all parts.
    pub(super) fn new(engine: &'e Engine, start: Box<Start<'e, R>>, total: u64) -> Self {
        Self {
            engine,
            start,
            options: JobOptions::default(),
            flying: VecDeque::new(),
            ahead: parts_ahead(engine),
            is_over: false,
            read: 0,
            total,
            on_progress: None,
            before: Vec::new(),
        }
    }

    /// Sets the options of the jobs that were not started yet, such as a deadline or retries. An error names a part by
    /// its file and bytes instead of a label.
    pub fn options<M>(mut self, options: &JobOptions<M>) -> Self
    where
        Part: Permits<M>,
    {
        self.options = options.clone().retriable();
        self
    }

    /// Calls `report(done, total)` after each part, on the thread that takes the results: with the number of bytes of
    /// the parts that have ended, and of all parts. In a scan these are bytes of files, as for
    /// [`Reader::on_progress`](super::Reader::on_progress); for a table, bytes of its parts.
    pub fn on_progress(mut self, report: impl FnMut(u64, u64) + Send + 'e) -> Self {
        self.on_progress = Some(Box::new(report));
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
        let done = self.advance();
        if done.is_some() || self.read < self.total {
            // Files without parts have ended too.
            if done.is_none() {
                self.read = self.total;
            }
            if let Some(report) = &mut self.on_progress {
                report(self.read, self.total);
            }
        }
        done
    }

    fn advance(&mut self) -> Option<Done<R>> {
        while !self.is_over && self.flying.len() < self.ahead {
            match (self.start)(&self.options) {
                Some(started) => self.flying.push_back(started),
                None => self.is_over = true,
            }
        }
        let Flying {
            origin,
            task,
            job,
            read,
        } = match self.flying.pop_front()? {
            Ok(flying) => flying,
            Err(error) => {
                return Some(Done {
                    origin: error.origin().cloned(),
                    task: None,
                    result: Err(error),
                    is_of_type: false,
                });
            }
        };
        let mut is_of_type = false;
        let result = job
            .wait()
            .map_err(|error| match (error.returned::<Fault>(), &origin) {
                (Some(fault), Some(origin)) => {
                    is_of_type = fault.is_of_type;
                    let of_row = task.as_ref().filter(|_| fault.row > 0);
                    let before = of_row.and_then(|task| self.rows_before(task));
                    TableError::of_fault(origin.clone(), fault, before)
                }
                _ => TableError::new(origin.clone(), TableErrorKind::Job(error)),
            });
        self.read = read;
        if let Some(task) = &task {
            if self
                .before
                .last()
                .is_some_and(|(path, _)| path[..] != task.path[..])
            {
                self.before.clear();
            }
            self.before.push((task.path.clone(), task.spec));
        }
        Some(Done {
            origin,
            task,
            result,
            is_of_type,
        })
    }

    /// Returns the number of rows of a file before a part; `None` if they cannot be counted.
    fn rows_before(&self, task: &Task) -> Option<u64> {
        let before: Vec<_> = self
            .before
            .iter()
            .filter(|(path, _)| path[..] == task.path[..])
            .cloned()
            .collect();
        if !before.is_empty() && task.spec.is_passed {
            return None;
        }
        let counts = self.engine.map(kernels::count_rows, before);
        counts.options(&essential()).sum::<Result<u64, _>>().ok()
    }
}

/// Returns the maximum number of parts in flight: for each worker, one that runs and one that waits.
pub(super) fn parts_ahead(engine: &Engine) -> usize {
    2 * engine.stats().workers.len().max(1)
}

impl PartMap<'_, Part> {
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
pub(super) fn essential() -> JobOptions<Retried> {
    JobOptions::new().priority(Priority::High).retries(2)
}

/// Returns the label of a part's job in statistics and traces.
pub(super) fn label(origin: &Origin) -> Arc<str> {
    origin.to_string().into()
}
