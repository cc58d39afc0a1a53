//! What kind of process this is: the program, a child that it made by `fork()`, or a worker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// The number of `os.fork()` calls between the process that loaded this module and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Set before a worker takes its first job.
static WORKER: AtomicBool = AtomicBool::new(false);

/// Marks this process as a child made by `os.fork()`: engines of its parent are of no use here.
#[pyfunction]
pub fn after_fork() {
    // Relaxed: there is only one thread.
    FORKS.fetch_add(1, Ordering::Relaxed);
    crate::engine::forget_closing();
}

/// Whether this process is a worker of an executor.
#[pyfunction]
pub fn is_worker() -> bool {
    WORKER.load(Ordering::Relaxed)
}

pub fn set_worker() {
    WORKER.store(true, Ordering::Relaxed);
}

/// Names this process among those that come from each other by `os.fork()`.
pub fn generation() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// The error of using an executor of the parent.
pub fn forked() -> PyErr {
    PyRuntimeError::new_err(
        "this executor belongs to the process that made it, and this process is a child made by fork(): make an \
         executor after the fork",
    )
}
