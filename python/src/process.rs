//! The role of this process: the program, a child made by `fork()`, or a worker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The number of calls of `os.fork()` between the process that loaded this module and this process.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Whether this process is a worker. Set before its first job.
static WORKER: AtomicBool = AtomicBool::new(false);
/// Whether a task has forked this process.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Marks this process as a child made by `os.fork()`, which cannot use its parent's engines.
#[pyfunction]
pub fn after_fork() {
    // Relaxed: there is only one thread.
    FORKS.fetch_add(1, Ordering::Relaxed);
    crate::engine::forget_closing();
}

/// Returns whether this process is a worker of an executor.
#[pyfunction]
pub fn is_worker() -> bool {
    WORKER.load(Ordering::Relaxed)
}

pub fn set_worker() {
    WORKER.store(true, Ordering::Relaxed);
}

/// Marks this process as one that a task has forked from its worker.
#[pyfunction]
pub fn after_fork_in_task() {
    // Relaxed, here and below: there is only one thread.
    FORKED.store(true, Ordering::Relaxed);
}

/// Returns whether a task has forked this process: then it must not return to the engine, whose memory it lacks.
#[pyfunction]
pub fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Returns a number that identifies this process among its ancestors by `os.fork()`.
pub fn generation() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Returns the error for using an executor of the parent.
pub fn forked() -> PyErr {
    PyRuntimeError::new_err(
        "this executor belongs to the process that made it, and this process is a child made by fork(): make an \
         executor after the fork",
    )
}
