//! The extension module of the Python package `arenite`.
//!
//! The module gives Python the engine and nothing else: jobs as `Task`s, memory of the arena as `Buffer`s and, in a
//! worker, the one kernel that calls into Python. The encoding of calls, futures, and the end of workers are Python
//! code.
//!
//! Threads of the engine never wait for the interpreter: wakers and log lines go through the queue of `events`, which
//! one Python thread empties.

#![allow(
    missing_debug_implementations,
    reason = "Python objects are shown by their `__repr__`"
)]

mod actor;
mod buffer;
mod engine;
mod events;
mod failure;
mod inline;
mod layout;
mod loans;
mod numpy_memory;
mod options;
mod packet;
mod plain;
mod process;
mod snapshot;
mod task;
mod worker;

use pyo3::prelude::*;

/// The engine of the package `arenite`. Not part of its public API.
// A free-threaded Python enables the GIL when it imports this module: the package was not tested without the GIL.
#[pymodule(gil_used = true)]
mod _arenite {
    #[pymodule_export]
    use crate::actor::Actor;
    #[pymodule_export]
    use crate::buffer::{Buffer, PrivateBuffer, map_file};
    #[pymodule_export]
    use crate::engine::{Closing, Engine, Series, join_all};
    #[pymodule_export]
    use crate::events::next_events;
    #[pymodule_export]
    use crate::failure::escape;
    #[pymodule_export]
    use crate::inline::Inline;
    #[pymodule_export]
    use crate::numpy_memory::{install, numpy_memory};
    #[pymodule_export]
    use crate::options::{Limiter, Options};
    #[pymodule_export]
    use crate::packet::{Journal, Packet, Stock, run_packet};
    #[pymodule_export]
    use crate::plain::load_plain;
    #[pymodule_export]
    use crate::process::{after_fork, after_fork_in_task, is_forked, is_worker};
    #[pymodule_export]
    use crate::snapshot::{Snapshot, Watch};
    #[pymodule_export]
    use crate::task::{Task, report};
    #[pymodule_export]
    use crate::worker::{
        TaskArena, begin_timed, call_each, is_cancelled, random_bits, run_worker, worker_identity,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    use super::*;
}
