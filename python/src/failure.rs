//! Failures of tasks: the error of a job as a Python dictionary, and the exception that a task raised.

use std::fmt;

use arenite::{
    ArenaFull, FailedDependency, JobError, JobErrorKind, JobLimit, KernelError, WorkerExit,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

/// The exception that a task raised: how it reads, and its pickle.
pub struct TaskError {
    pub text: String,
    pub pickle: Vec<u8>,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl KernelError for TaskError {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(self.text.as_bytes());
        bytes.extend_from_slice(&self.pickle);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        let (text, pickle) = rest.split_at_checked(len)?;
        Some(Self {
            text: String::from_utf8(text.to_vec()).ok()?,
            pickle: pickle.to_vec(),
        })
    }
}

/// The error of a job as a dictionary: `kind` says which of the other keys there are.
pub fn describe<'py>(py: Python<'py>, error: &JobError) -> PyResult<Bound<'py, PyDict>> {
    let failure = PyDict::new(py);
    describe_kind(&failure, error.kind())?;
    failure.set_item("text", error.to_string())?;
    failure.set_item("job", error.job())?;
    failure.set_item("label", error.label())?;
    failure.set_item("worker", error.worker())?;
    failure.set_item("attempts", error.attempt())?;
    failure.set_item("last_words", error.last_words())?;
    let deaths = error.deaths().iter().map(ToString::to_string);
    failure.set_item("deaths", deaths.collect::<Vec<_>>())?;
    Ok(failure)
}

fn describe_kind(failure: &Bound<'_, PyDict>, kind: &JobErrorKind) -> PyResult<()> {
    let name = match kind {
        JobErrorKind::Returned(returned) => match returned.value::<TaskError>() {
            Some(raised) if !raised.pickle.is_empty() => {
                failure.set_item("pickle", PyBytes::new(failure.py(), &raised.pickle))?;
                "raised"
            }
            _ => "failed",
        },
        JobErrorKind::Lost(exit) => describe_exit(failure, exit)?,
        JobErrorKind::Limit(limit) => match limit {
            JobLimit::Deadline { limit } => {
                failure.set_item("limit", limit.as_secs_f64())?;
                "deadline"
            }
            JobLimit::Memory {
                limit, requested, ..
            } => {
                failure.set_item("limit", limit)?;
                failure.set_item("requested", requested)?;
                "memory"
            }
            JobLimit::Arena(full) => {
                describe_full(failure, full)?;
                "arena"
            }
            JobLimit::Quarantined { .. } => "quarantined",
            _ => "failed",
        },
        JobErrorKind::Rejected(_) => "rejected",
        JobErrorKind::Dependency(failed) => {
            if let FailedDependency::Actor {
                forgotten,
                restarted,
                ..
            } = failed
            {
                failure.set_item("forgotten", forgotten)?;
                failure.set_item("restarted", restarted)?;
                if matches!(failed.cause(), JobErrorKind::Cancelled) {
                    // Another call was ended with the actor's worker. This one was not cancelled: it is lost.
                    return failure.set_item("kind", "died");
                }
            }
            return describe_kind(failure, failed.cause());
        }
        JobErrorKind::Cancelled => "cancelled",
        JobErrorKind::ShutDown => "shutdown",
        JobErrorKind::NoWorkers(_) => "start",
        _ => "failed",
    };
    failure.set_item("kind", name)
}

fn describe_exit(failure: &Bound<'_, PyDict>, exit: &WorkerExit) -> PyResult<&'static str> {
    match exit {
        WorkerExit::Signal(signal) => failure.set_item("signal", signal)?,
        WorkerExit::OutOfMemoryKill => {
            failure.set_item("signal", 9)?;
            return Ok("oom");
        }
        WorkerExit::Code(code) => failure.set_item("exit_code", code)?,
        WorkerExit::OtherJob { job, cause } => {
            describe_kind(failure, cause)?;
            failure.set_item("culprit", job)?;
        }
        _ => {}
    }
    Ok("died")
}

/// Adds the numbers of a full arena.
pub fn describe_full(failure: &Bound<'_, PyDict>, full: &ArenaFull) -> PyResult<()> {
    failure.set_item("requested", full.requested)?;
    failure.set_item("free", full.free)?;
    failure.set_item("capacity", full.capacity)?;
    failure.set_item("largest_free", full.largest_free)
}
