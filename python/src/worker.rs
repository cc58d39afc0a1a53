//! The kernel that runs tasks in a worker.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use arenite::{Array, ArrayMut, Bytes, Typed, raw};
use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyIterator, PyList, PyTuple};
use rand::Rng;

use crate::buffer::{Buffer, Memory, TASK, live, publish};
use crate::engine::{LONGEST_INLINE, arena_full};
use crate::failure::TaskError;
use crate::process::{is_forked, is_worker, set_worker};
use crate::task::{PICKLE_IN_ARRAY, Reply, unpack};

/// The module of the Python package that runs in workers.
pub const WORKER: &str = "arenite._core.worker";

/// `arenite._core.worker.run`.
static RUN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The first bytes of a call: flags, the length of the function's pickle, the function's pickle, and the arguments'
/// pickle.
pub struct Head<'a> {
    pub kind: u16,
    /// The number of the series to which the calls of the task belong, and the index of the first call.
    pub element: Option<(u64, u64)>,
    pub function: &'a [u8],
    pub arguments: &'a [u8],
}

impl<'a> Head<'a> {
    /// The flag that is set if the arguments' pickle is the first of the buffers.
    pub const ARGUMENTS_IN_BUFFER: u16 = 1 << 15;
    /// The flag that is set if the numbers of an element follow.
    const IN_SERIES: u16 = 1 << 14;
    const LEN: usize = 6 + 16;

    pub fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN + self.function.len() + self.arguments.len());
        let in_series = u16::from(self.element.is_some()) * Self::IN_SERIES;
        bytes.extend_from_slice(&(self.kind | in_series).to_le_bytes());
        if let Some((series, first)) = self.element {
            bytes.extend_from_slice(&series.to_le_bytes());
            bytes.extend_from_slice(&first.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.function.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.function);
        bytes.extend_from_slice(self.arguments);
        bytes
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, mut rest) = bytes.split_first_chunk()?;
        let kind = u16::from_le_bytes(kind);
        let mut element = None;
        if kind & Self::IN_SERIES != 0 {
            let (&series, after) = rest.split_first_chunk()?;
            let (&first, after) = after.split_first_chunk()?;
            element = Some((u64::from_le_bytes(series), u64::from_le_bytes(first)));
            rest = after;
        }
        let (len, rest) = rest.split_first_chunk()?;
        let (function, arguments) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        Some(Self {
            kind: kind & !Self::IN_SERIES,
            element,
            function,
            arguments,
        })
    }
}

thread_local! {
    /// The element of the running task: see [`Head`].
    static ELEMENT: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// Runs `f`, which makes several calls, and calls `at` with the number of each before it begins: so that it draws the
/// random numbers of its index.
pub fn for_each_call<T>(f: impl FnOnce(&dyn Fn(u64)) -> T) -> T {
    let Some((series, first)) = ELEMENT.get() else {
        return f(&|_| {});
    };
    let mut made = None;
    arenite::raw::for_each_element(series, |at| {
        made = Some(f(&|number| at.set(first + number)))
    });
    made.expect("`for_each_element` calls its argument")
}

/// Runs in each worker before the worker's first task. An error describes why the worker cannot start.
pub fn start_worker(setup: &Bytes) -> Result<(), String> {
    arenite::at_worker_end(end_worker);
    keep_thread_state();
    let failed = Python::attach(|py| {
        let start = py.import(WORKER)?.getattr("start")?;
        start
            .call1((PyBytes::new(py, setup),))?
            .extract::<Option<String>>()
    });
    match failed {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(why),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs after the last task of this worker: calls `arenite._core.worker.end`.
fn end_worker() {
    Python::attach(|py| {
        let end = py
            .import(WORKER)
            .and_then(|worker| worker.call_method0("end"));
        if let Err(error) = end {
            error.print(py);
        }
    });
}

/// Runs one task: calls `arenite._core.worker.run`.
pub fn run_task(head: &Bytes, buffers: raw::Buffers<'_>) -> Result<Reply, Typed<TaskError>> {
    guarded(|py| {
        let call = Received::new(py, head, buffers)?;
        ELEMENT.set(call.element);
        let run = RUN.import(py, WORKER, "run")?;
        answer(run.call1((call.function, call.arguments, call.kind, call.buffers))?)
    })
}

/// Calls `f`, which calls Python code. An exception from outside the task's own code becomes the failure of the task.
pub fn guarded<T>(
    call: impl FnOnce(Python<'_>) -> PyResult<Result<T, Typed<TaskError>>>,
) -> Result<T, Typed<TaskError>> {
    keep_thread_state();
    Python::attach(|py| {
        // The handler of a signal that arrived since the last task: its exception is no failure of this one.
        if let Err(error) = py.check_signals() {
            error.write_unraisable(py, None);
        }
        call(py).unwrap_or_else(|error| {
            Err(Typed(TaskError {
                text: format!("the worker could not run the task: {error}"),
                pickle: Vec::new(),
            }))
        })
    })
}

/// A received call, as Python objects. The kernel drops all these objects before it returns.
pub struct Received<'py> {
    pub function: Bound<'py, PyBytes>,
    pub arguments: Bound<'py, PyAny>,
    pub kind: u16,
    /// See [`Head`].
    pub element: Option<(u64, u64)>,
    pub buffers: Bound<'py, PyList>,
}

impl<'py> Received<'py> {
    pub fn new(py: Python<'py>, head: &Bytes, buffers: raw::Buffers<'_>) -> PyResult<Self> {
        let head = Head::read(head)
            .ok_or_else(|| PyRuntimeError::new_err("the call of the task is damaged"))?;
        let received = buffers.map(|received| {
            let memory = match received {
                raw::Received::Read(array) => Memory::new(array, TASK, false),
                raw::Received::Write(array) => Memory::unlisted(array.seal(), TASK, true),
                raw::Received::Value(reply) => return unpack(py, reply, TASK),
            };
            Ok(Bound::new(py, Buffer::whole(memory))?.into_any())
        });
        let mut received: Vec<_> = received.collect::<PyResult<_>>()?;
        let arguments = if head.kind & Head::ARGUMENTS_IN_BUFFER != 0 && !received.is_empty() {
            received.remove(0)
        } else {
            PyBytes::new(py, head.arguments).into_any()
        };
        Ok(Self {
            function: PyBytes::new(py, head.function),
            arguments,
            kind: head.kind & !Head::ARGUMENTS_IN_BUFFER,
            element: head.element,
            buffers: PyList::new(py, received)?,
        })
    }
}

/// Makes the reply of a task from the return value of a function of `arenite._core.worker`.
pub fn answer(answer: Bound<'_, PyAny>) -> PyResult<Result<Reply, Typed<TaskError>>> {
    let answer = answer.cast_into::<PyTuple>()?;
    if answer.len() == 2 {
        let (text, pickle): (String, Vec<u8>) = answer.extract()?;
        return Ok(Err(Typed(TaskError { text, pickle })));
    }
    let (pickle, buffers, copied): (Bound<'_, PyBytes>, Option<Vec<PyRef<'_, Buffer>>>, u64) =
        answer.extract()?;
    let buffers = buffers.unwrap_or_default();
    let returned = buffers.iter().map(|buffer| buffer.returned()).collect();
    // Python has dropped the task's value. Drop the last objects of the reply, which the task's code cannot have.
    drop((answer, buffers));
    let (mut arrays, copied_here) = publish(returned);
    let copied = copied + copied_here;
    let pickle = pickle.as_bytes();
    Ok(Ok(if pickle.len() > LONGEST_INLINE {
        // If the arena is full, this panics with `ArenaFull`, which the program gets as the failure of the task.
        arrays.insert(0, Array::from_slice(pickle));
        (copied | PICKLE_IN_ARRAY, Bytes::from(Vec::new()), arrays)
    } else {
        (copied, Bytes::from(pickle), arrays)
    }))
}

/// Collects garbage after a task that leaves handles to memory. Handles in reference cycles are freed; handles that the
/// task's code has stored, in a cache for example, remain. After collections that have freed nothing, the next calls do
/// nothing.
pub fn collect() {
    static SKIP: AtomicUsize = AtomicUsize::new(0);
    static IN_VAIN: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: with several lanes, one collection more or less does not matter.
    if let Some(skip) = SKIP.load(Ordering::Relaxed).checked_sub(1) {
        SKIP.store(skip, Ordering::Relaxed);
        return;
    }
    keep_thread_state();
    let before = live();
    let collected = Python::attach(|py| py.import("gc")?.call_method0("collect").map(drop));
    if collected.is_ok() && live() < before {
        IN_VAIN.store(0, Ordering::Relaxed);
    } else {
        let vain = IN_VAIN.fetch_add(1, Ordering::Relaxed).min(10);
        SKIP.store((1 << vain) - 1, Ordering::Relaxed);
    }
}

/// Preserves the interpreter's thread state between tasks. Creating a state takes microseconds, and a new state would
/// have an empty `threading.local`.
fn keep_thread_state() {
    thread_local! {
        static KEPT: Cell<bool> = const { Cell::new(false) };
    }
    if !KEPT.replace(true) {
        // SAFETY: the interpreter is initialised: it has imported this module. The state that is created or found here
        // is never released: it lives as long as the lane's thread, which ends with the process.
        unsafe {
            ffi::PyGILState_Ensure();
            ffi::PyEval_SaveThread();
        }
        // Python does this in its own threads, for `threading.settrace`. If it fails, only tracing is missing.
        let _ = Python::attach(|py| py.import(WORKER)?.call_method0("enter_thread").map(drop));
    }
}

/// Runs this process as a worker of the executor that started it, or as the template of its workers. Never returns.
#[pyfunction]
pub fn run_worker(py: Python<'_>, identity: Vec<u8>) {
    set_worker();
    py.detach(|| arenite::run_worker_from_template(&identity, &Interpreter::default()));
}

/// Forks this process into the template of this engine's workers if they wait for it, with the steps of `os.fork`.
pub fn fork(py: Python<'_>, engine: &arenite::Engine) -> PyResult<()> {
    if !engine.needs_fork() {
        return Ok(());
    }
    let start = py.import("arenite._core.start")?;
    let identity: Vec<u8> = start.call_method0("identity")?.extract()?;
    py.import("arenite._core.template")?
        .call_method0("begin_fork")?;
    // SAFETY: this thread has the interpreter.
    unsafe { ffi::PyOS_BeforeFork() };
    let forked = engine.fork(|template| {
        // SAFETY: `PyOS_BeforeFork` was called, and this process is the copy.
        unsafe { ffi::PyOS_AfterFork_Child() };
        set_worker();
        py.detach(|| template.run(&identity, &Interpreter::default()));
    });
    // SAFETY: as above, and this is the process that was copied.
    unsafe { ffi::PyOS_AfterFork_Parent() };
    Ok(forked?)
}

/// The interpreter of a template. The template is copied with the GIL locked, between the steps of `os.fork`.
#[derive(Default)]
struct Interpreter {
    held: Cell<Option<ffi::PyGILState_STATE>>,
}

impl Interpreter {
    fn release(&self) {
        if let Some(held) = self.held.take() {
            // SAFETY: this ends the call in `before_copy` on the same thread.
            unsafe { ffi::PyGILState_Release(held) };
        }
    }
}

impl arenite::Template for Interpreter {
    fn load(&self, setup: &[u8]) -> Result<(), String> {
        keep_thread_state();
        let failed = Python::attach(|py| {
            let load = py.import(WORKER)?.getattr("load")?;
            load.call1((PyBytes::new(py, setup),))?
                .extract::<Option<String>>()
        });
        match failed {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
    }

    fn before_copy(&self) {
        // SAFETY: the interpreter is initialised. This is its main thread, which takes the lock until `release`.
        unsafe {
            self.held.set(Some(ffi::PyGILState_Ensure()));
            ffi::PyOS_BeforeFork();
        }
    }

    fn after_copy(&self) {
        // SAFETY: `before_copy` was called, and this is the process that was copied.
        unsafe { ffi::PyOS_AfterFork_Parent() };
        self.release();
    }

    fn at_end(&self) {
        end_worker();
    }

    fn in_copy(&self) {
        // SAFETY: `before_copy` was called, and this process is the copy.
        unsafe { ffi::PyOS_AfterFork_Child() };
        self.release();
        // If this fails, exit handlers and random number generators stay as they were in the template.
        let _ = Python::attach(|py| {
            let renewed = py.import(WORKER)?.call_method0("renew");
            renewed.map(drop)
        });
    }
}

/// Returns whether the running task was cancelled and should end soon.
#[pyfunction]
pub fn is_cancelled() -> bool {
    arenite::cancelled()
}

/// Returns the number of this worker, the number of its earlier processes, and the label of its executor; `None` in the
/// program.
#[pyfunction]
pub fn worker_identity() -> Option<(u32, u32, &'static str)> {
    let identity = arenite::worker_identity()?;
    Some((
        identity.number,
        identity.generation,
        identity.label.as_str(),
    ))
}

/// Calls a function with each item, and appends the values to a list. Raises the first exception of a call.
#[pyfunction]
pub fn call_each(
    function: &Bound<'_, PyAny>,
    items: &Bound<'_, PyIterator>,
    is_star: bool,
    values: &Bound<'_, PyList>,
) -> PyResult<()> {
    for_each_call(|begin| {
        for item in items {
            begin(values.len() as u64);
            let item = item?;
            let arguments = match is_star {
                true => item.cast_into::<PyTuple>()?,
                false => PyTuple::new(function.py(), [item])?,
            };
            values.append(call_task(function, arguments)?)?;
        }
        Ok(())
    })
}

/// Calls a function of the task. In a process that the function has forked, raises SystemExit instead of returning.
pub fn call_task<'py>(
    function: &Bound<'py, PyAny>,
    arguments: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let value = function.call1(arguments)?;
    match is_forked() {
        true => Err(PySystemExit::new_err(())),
        false => Ok(value),
    }
}

/// Returns 128 random bits of the running job.
#[pyfunction]
pub fn random_bits() -> u128 {
    let mut rng = arenite::rng();
    u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())
}

/// Starts the clock of the running task's deadline. Called when everything that the task's function needs was loaded.
#[pyfunction]
pub fn begin_timed() {
    arenite::raw::begin_timed();
}

/// The arena of the running task.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct TaskArena;

#[pymethods]
impl TaskArena {
    #[new]
    fn new() -> PyResult<Self> {
        if is_worker() {
            Ok(Self)
        } else {
            Err(PyRuntimeError::new_err("this process is no worker"))
        }
    }

    /// Allocates memory in the arena, for the running task.
    #[pyo3(signature = (nbytes, zeroed=false))]
    fn alloc(&self, py: Python<'_>, nbytes: usize, zeroed: bool) -> PyResult<Buffer> {
        let array = if zeroed {
            ArrayMut::<u8>::try_zeros(nbytes)
        } else {
            ArrayMut::<u8>::try_uninit(nbytes)
        };
        let array = array.map_err(|full| arena_full(py, &full))?.seal();
        Ok(Buffer::whole(Memory::new(array, TASK, true)))
    }

    /// Returns the `nbytes` bytes at an address as a buffer, if the task has this memory. With `writable`, finds only
    /// memory that the task has allocated.
    #[pyo3(signature = (address, nbytes, writable=false))]
    fn find(&self, address: usize, nbytes: usize, writable: bool) -> Option<Buffer> {
        Buffer::find(address, nbytes, TASK, false, writable)
    }

    /// Like `find`, for the bytes of an object with a buffer.
    fn find_object(&self, object: &Bound<'_, PyAny>) -> Option<Buffer> {
        Buffer::find_object(object, TASK, false)
    }
}
