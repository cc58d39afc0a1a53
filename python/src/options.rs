//! Options of tasks: [`Options`].

use std::time::Duration;

use arenite::engine::Backoff;
use arenite::{JobOptions, Priority, raw};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The time that a task's imports may take; the task's deadline begins after them.
const LOADING: Duration = Duration::from_secs(60);

/// The options of a task. Immutable, so that any number of tasks can share them.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Options {
    pub job: JobOptions<true>,
    /// The number of further attempts.
    pub retries: u32,
}

#[pymethods]
impl Options {
    /// `priority`: below 0 low, 0 normal, above 0 high. `backoff`: the first and the longest pause between attempts, in
    /// seconds.
    #[new]
    #[pyo3(signature = (*, name=None, deadline=None, retries=0, retry_errors=false, backoff=None, priority=0, label=None, limit=None))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        name: Option<&str>,
        deadline: Option<f64>,
        retries: u32,
        retry_errors: bool,
        backoff: Option<(f64, f64)>,
        priority: i32,
        label: Option<&str>,
        limit: Option<&Limiter>,
    ) -> PyResult<Self> {
        let mut job = JobOptions::new().priority(match priority {
            ..0 => Priority::Low,
            0 => Priority::Normal,
            1.. => Priority::High,
        });
        if let Some(name) = name {
            job = job.name(name);
        }
        if let Some(label) = label {
            job = job.label(label);
        }
        if let Some(limit) = limit {
            job = job.limit(&limit.limiter);
        }
        if let Some(seconds) = deadline {
            job = raw::loading(job.deadline(duration("deadline", seconds)?), LOADING);
        }
        if let Some((first, longest)) = backoff {
            let first = duration("backoff", first)?;
            job = job.backoff(Backoff::new(first, duration("backoff", longest)?).jitter());
        }
        if retry_errors {
            job = job.retry_errors();
        }
        Ok(Self {
            job: job.retries(retries),
            retries,
        })
    }
}

/// Limits how many tasks run at a time, and how many start per second, for all executors of this process.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Limiter {
    limiter: arenite::Limiter,
}

#[pymethods]
impl Limiter {
    /// `at_once`: the number of tasks that may run at a time, at least 1. `between`: the seconds between the starts of
    /// two tasks, at least a nanosecond.
    #[new]
    #[pyo3(signature = (at_once=None, between=None))]
    fn new(at_once: Option<u32>, between: Option<f64>) -> PyResult<Self> {
        let mut limiter = arenite::Limiter::new();
        if let Some(tasks) = at_once {
            limiter = limiter.concurrency(tasks.max(1));
        }
        if let Some(seconds) = between {
            let between = duration("per_second", seconds)?;
            limiter = limiter.rate(1, between.max(Duration::from_nanos(1)));
        }
        Ok(Self { limiter })
    }

    /// The number of tasks with a permit: running, or about to run.
    #[getter]
    fn running(&self) -> usize {
        self.limiter.given()
    }

    /// The number of tasks that wait for a permit.
    #[getter]
    fn waiting(&self) -> usize {
        self.limiter.waiting()
    }
}

/// Converts seconds to a duration.
pub fn duration(what: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!(
            "{what} must be a number of seconds from 0 on, not {seconds}"
        ))
    })
}
