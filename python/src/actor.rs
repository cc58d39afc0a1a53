//! Python objects that live in one worker: [`Actor`].

use std::mem::ManuallyDrop;
use std::sync::{Arc, PoisonError, RwLock};

use arenite::{Bytes, Typed, raw};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::engine::{Part, Sent, Shared};
use crate::failure::TaskError;
use crate::options::duration;
use crate::process::forked;
use crate::task::{Reply, Task};
use crate::worker::{Received, WORKER, answer, guarded};

/// `arenite._core.worker.start_actor`.
static START: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
/// `arenite._core.worker.call_actor`.
static CALL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The object of an actor, in the worker.
pub struct State(Option<Py<PyAny>>);

impl Drop for State {
    /// Drops the object with the interpreter attached, so that its `__del__` runs and its memory is freed at once.
    fn drop(&mut self) {
        Python::attach(|_| drop(self.0.take()));
    }
}

/// Makes the object of an actor, by `arenite._core.worker.start_actor`.
pub fn start_actor(head: &Bytes, buffers: raw::Buffers<'_>) -> Result<State, Typed<TaskError>> {
    guarded(|py| {
        let call = Received::new(py, head, buffers)?;
        let start = START.import(py, WORKER, "start_actor")?;
        let made = start.call1((call.function, call.arguments, call.kind, call.buffers))?;
        let made = made.cast_into::<PyTuple>()?;
        if made.len() == 2 {
            let (text, pickle) = made.extract()?;
            return Ok(Err(Typed(TaskError { text, pickle })));
        }
        Ok(Ok(State(Some(made.get_item(0)?.unbind()))))
    })
}

/// Calls a method of the object, by `arenite._core.worker.call_actor`.
fn call_actor(
    state: &mut State,
    head: &Bytes,
    buffers: raw::Buffers<'_>,
) -> Result<Reply, Typed<TaskError>> {
    guarded(|py| {
        let call = Received::new(py, head, buffers)?;
        let method = CALL.import(py, WORKER, "call_actor")?;
        let object = state.0.as_ref().map(|object| object.clone_ref(py));
        let arguments = (
            object,
            call.function,
            call.arguments,
            call.kind,
            call.buffers,
        );
        answer(method.call1(arguments)?)
    })
}

/// An object in a worker, whose methods are called one after the other.
///
/// Dropping the handle ends the actor after the calls that were submitted earlier.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Actor {
    /// `None` after `stop`.
    handle: RwLock<Option<ManuallyDrop<arenite::Actor<State>>>>,
    shared: Arc<Shared>,
}

impl Actor {
    pub fn new(handle: arenite::Actor<State>, shared: Arc<Shared>) -> Self {
        Self {
            handle: RwLock::new(Some(ManuallyDrop::new(handle))),
            shared,
        }
    }
}

#[pymethods]
impl Actor {
    /// Submits a call of a method, which runs after all earlier calls. `deadline`: the number of seconds that the call
    /// may run.
    #[pyo3(signature = (method, arguments, kind, parts=None, deadline=None))]
    fn call(
        &self,
        py: Python<'_>,
        method: &[u8],
        arguments: &[u8],
        kind: u16,
        parts: Option<Vec<Part<'_>>>,
        deadline: Option<f64>,
    ) -> PyResult<Task> {
        if self.shared.is_foreign() {
            return Err(forked());
        }
        let limit = deadline
            .map(|seconds| duration("deadline", seconds))
            .transpose()?;
        let sent = Sent {
            function: method,
            arguments,
            kind,
            element: None,
            parts: parts.unwrap_or_default(),
        };
        // Submits without the lock: other threads run Python meanwhile, and may stop the actor.
        let handle = {
            let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
            handle.as_deref().cloned()
        };
        let Some(handle) = handle else {
            return Err(PyRuntimeError::new_err("the actor has ended"));
        };
        self.shared.send(py, &sent, |_, call| match limit {
            Some(limit) => handle.call_within(limit, call_actor, call),
            None => handle.call(call_actor, call),
        })
    }

    /// Ends the actor after the calls made so far. Then the worker drops the object.
    fn stop(&self) {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handle.take()
            && !self.shared.is_foreign()
        {
            // This process is a child made by `fork()`, whose parent owns the actor.
            drop(ManuallyDrop::into_inner(handle));
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.stop();
    }
}
