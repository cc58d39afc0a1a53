//! Failures of tasks: the error of a job as a Python dictionary, and the exception that a task has raised.

use std::fmt;

use arenite::engine::{Crash, CrashClass, CrashedAccess};
use arenite::{
    ArenaFull, FailedDependency, JobError, JobErrorKind, JobLimit, KernelError, WorkerExit,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

/// The exception that a task has raised: its text, and its pickle.
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

/// Escapes lone surrogates, and control characters, so that the text cannot control a terminal.
#[pyfunction]
pub fn escape(text: &Bound<'_, PyString>) -> PyResult<String> {
    let text = match text.to_str() {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
            bytes.call_method0("decode")?.extract()?
        }
    };
    Ok(arenite::escape_text(&text).to_string())
}

/// Describes the error of a job as a dictionary. The value of `kind` determines its other keys.
pub fn describe<'py>(py: Python<'py>, error: &JobError) -> PyResult<Bound<'py, PyDict>> {
    let failure = PyDict::new(py);
    describe_kind(&failure, error.kind())?;
    failure.set_item("text", error.to_string())?;
    failure.set_item("job", error.job())?;
    failure.set_item("label", error.label())?;
    // A task that never ran is described by the task whose value it was to take.
    let of_input = matches!(
        error.kind(),
        JobErrorKind::Dependency(FailedDependency::Input { .. })
    );
    failure.set_item("of_input", of_input)?;
    let error = error.origin().filter(|_| of_input).unwrap_or(error);
    failure.set_item("worker", error.worker())?;
    failure.set_item("attempts", error.attempt())?;
    failure.set_item("last_words", error.last_words())?;
    let deaths = error.deaths().iter().map(ToString::to_string);
    failure.set_item("deaths", deaths.collect::<Vec<_>>())?;
    let crash = match error.kind() {
        // A quarantined job is described by the cause of its last attempt.
        JobErrorKind::Limit(JobLimit::Quarantined { .. }) => {
            error.deaths().last().and_then(|death| death.crash.as_ref())
        }
        _ => error.crash(),
    };
    let crash = crash.map(|crash| describe_crash(py, crash)).transpose()?;
    failure.set_item("crash", crash)?;
    Ok(failure)
}

/// Describes a crash as the arguments of the Python class `Crash`.
fn describe_crash<'py>(py: Python<'py>, crash: &Crash) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let (array, offset) = match crash.class {
        CrashClass::Input { array, offset, .. } => (Some(array), Some(offset)),
        CrashClass::Published { offset, .. } | CrashClass::Unused { offset, .. } => {
            (None, Some(offset))
        }
        _ => (None, None),
    };
    dict.set_item("kind", crash.class.name())?;
    // The worker, which is not trusted, has written the names of functions and files.
    let shown = |text: &str| arenite::escape_text(text).to_string();
    dict.set_item("text", shown(&crash.what()))?;
    dict.set_item("signal", crash.signal)?;
    dict.set_item("address", crash.address)?;
    dict.set_item("access", crash.access.map(CrashedAccess::name))?;
    dict.set_item("array", array)?;
    dict.set_item("offset", offset)?;
    let frames = crash.frames().iter().map(|frame| {
        let dict = PyDict::new(py);
        dict.set_item("function", frame.function.as_deref().map(shown))?;
        dict.set_item("file", frame.file.as_deref().map(shown))?;
        dict.set_item("line", frame.line)?;
        let module = frame
            .module
            .as_deref()
            .map(|path| shown(&path.to_string_lossy()));
        dict.set_item("module", module)?;
        dict.set_item("address", frame.address)?;
        Ok(dict)
    });
    dict.set_item("frames", frames.collect::<PyResult<Vec<_>>>()?)?;
    dict.set_item("omitted", crash.omitted())?;
    Ok(dict)
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
            JobLimit::Arena(full) | JobLimit::ArenaShare(full) => {
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
                    // The actor's worker was killed to end another call. This call was not cancelled, but lost.
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

/// Adds the numbers of an [`ArenaFull`].
pub fn describe_full(failure: &Bound<'_, PyDict>, full: &ArenaFull) -> PyResult<()> {
    failure.set_item("requested", full.requested)?;
    failure.set_item("free", full.free)?;
    failure.set_item("capacity", full.capacity)?;
    failure.set_item("largest_free", full.largest_free)?;
    failure.set_item("worker_share", full.worker_share())
}
