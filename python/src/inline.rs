//! Calls in the process of the program: [`Inline`].

use std::cell::Cell;

use arenite::raw;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::engine::Series;

/// Runs calls in this process, each as a job: it draws the random numbers that it would draw in a worker.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Inline {
    engine: arenite::Engine,
}

/// A call in this process, with room for its outcome.
struct Call {
    function: Py<PyAny>,
    arguments: Py<PyTuple>,
    named: Option<Py<PyDict>>,
    outcome: Option<PyResult<Py<PyAny>>>,
}

thread_local! {
    /// The call that the next job of `Inline` on this thread runs.
    static CALL: Cell<Option<Call>> = const { Cell::new(None) };
}

/// Runs the call of this thread.
fn run_inline() {
    let Some(mut call) = CALL.take() else { return };
    call.outcome = Some(Python::attach(|py| {
        let named = call.named.as_ref().map(|named| named.bind(py));
        call.function.call(py, call.arguments.bind(py), named)
    }));
    CALL.set(Some(call));
}

#[pymethods]
impl Inline {
    #[new]
    #[pyo3(signature = (seed=None))]
    fn new(seed: Option<u64>) -> Self {
        let mut builder = arenite::Engine::builder();
        if let Some(seed) = seed {
            builder = builder.seed(seed);
        }
        Self {
            engine: builder.inline(),
        }
    }

    /// See `Engine.series`.
    fn series(&self) -> Series {
        Series(raw::series(&self.engine))
    }

    /// Calls a function. `element`: see `Engine.submit`.
    #[pyo3(signature = (function, arguments, named=None, element=None))]
    fn call(
        &self,
        function: Py<PyAny>,
        arguments: Py<PyTuple>,
        named: Option<Py<PyDict>>,
        element: Option<(PyRef<'_, Series>, u64)>,
    ) -> PyResult<Py<PyAny>> {
        CALL.set(Some(Call {
            function,
            arguments,
            named,
            outcome: None,
        }));
        let mut job = self.engine.job(run_inline, ());
        if let Some((series, index)) = &element {
            job = raw::in_series(job, &series.0, *index);
        }
        let ran = job.submit().wait();
        CALL.take()
            .and_then(|call| call.outcome)
            .unwrap_or_else(|| {
                Err(PyRuntimeError::new_err(format!(
                    "the call did not run: {ran:?}"
                )))
            })
    }
}
