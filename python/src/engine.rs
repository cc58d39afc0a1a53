//! The engine of an executor: [`Engine`].

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use arenite::engine::WorkerProgram;
use arenite::{ArenaFull, BuildError, Sandbox, Trace, raw};
use arenite_memory::PrivateCopy;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::actor::{Actor, State, start_actor};
use crate::buffer::{Buffer, FILE, Memory};
use crate::events::push_line;
use crate::failure::describe_full;
use crate::loans::Loans;
use crate::options::Options;
use crate::process::{forked, generation, is_worker};
use crate::task::{Pending, Reply, Task, Values};
use crate::worker::{Head, collect, run_task, start_worker};

/// How long a template is kept for other executors.
const KEPT: Duration = Duration::from_secs(10);
/// The length of the longest pickle that is sent in a message. A longer pickle is copied into the arena.
pub const LONGEST_INLINE: usize = 64 << 10;
/// The id of the next executor's arena.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
/// Engines that were closed and are finishing their tasks.
static CLOSING: Mutex<Vec<Arc<Closed>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call from Python: the pickles of a function and of its arguments, and the memory that the arguments refer to.
pub struct Sent<'a, 'py> {
    pub function: &'a [u8],
    pub arguments: &'a [u8],
    pub kind: u16,
    /// The number of the series to which the calls belong, and the index of the first call.
    pub element: Option<(u64, u64)>,
    pub parts: Vec<Part<'py>>,
}

/// What the pickle of the arguments refers to.
#[derive(FromPyObject)]
pub enum Part<'py> {
    Memory(PyRef<'py, Buffer>),
    /// The value of a task.
    Value(PyRef<'py, Task>),
}

impl<'py> Sent<'_, 'py> {
    fn memory(&self) -> impl Iterator<Item = &PyRef<'py, Buffer>> {
        self.parts.iter().filter_map(|part| match part {
            Part::Memory(buffer) => Some(buffer),
            Part::Value(_) => None,
        })
    }

    fn is_lent(&self) -> bool {
        self.memory().any(|buffer| buffer.is_lent())
    }
}

/// A call in the form that a kernel takes.
pub type Packed<'a> = (Vec<u8>, Vec<raw::Buffer<'a>>);

/// Why a call was refused. The conversion to an exception runs Python code, so the caller must release the engine
/// first.
pub enum Refusal {
    IsShutDown,
    Full(ArenaFull),
    Overlap(&'static str),
}

impl From<Refusal> for PyErr {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::IsShutDown => {
                PyRuntimeError::new_err("cannot use an executor after its shutdown")
            }
            Refusal::Full(full) => Python::attach(|py| arena_full(py, &full)),
            Refusal::Overlap(why) => PyValueError::new_err(why),
        }
    }
}

/// The state that an engine shares with its tasks.
pub struct Shared {
    id: u64,
    /// The [`generation`] of the process that created the engine.
    process: u64,
    /// Whether workers map sealed memory files. Sandboxed workers do not.
    maps_files: bool,
    /// Whether workers are copies of this process.
    forks: bool,
    engine: RwLock<Option<arenite::Engine>>,
    tasks: Mutex<Tasks>,
    loans: Mutex<Loans>,
    copied: AtomicU64,
}

/// The tasks whose replies have not been taken.
#[derive(Default)]
struct Tasks {
    next: u64,
    open: HashMap<u64, Arc<Pending>>,
}

impl Tasks {
    fn add(&mut self, pending: &Arc<Pending>) -> u64 {
        self.next += 1;
        self.open.insert(self.next, Arc::clone(pending));
        self.next
    }
}

impl Shared {
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns whether the engine belongs to a process from which this process was forked.
    pub fn is_foreign(&self) -> bool {
        self.process != generation()
    }

    /// Removes a task whose reply has been taken or will not be taken.
    pub fn forget(&self, number: u64) {
        let removed = lock(&self.tasks).open.remove(&number);
        drop(removed);
    }

    pub fn count_copied(&self, bytes: u64) {
        // Relaxed: a count.
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Passes the engine to `with`; fails if the engine was shut down.
    fn with<T>(
        &self,
        with: impl FnOnce(&arenite::Engine) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        // Frees private copies that have ended: the call may need their memory of the arena.
        PrivateCopy::free_ended();
        let engine = loop {
            match self.engine.try_read() {
                Ok(engine) => break engine,
                Err(TryLockError::Poisoned(engine)) => break engine.into_inner(),
                // Another thread waits for the write lock. Detach the interpreter meanwhile, because threads with a
                // read lock may need it.
                Err(TryLockError::WouldBlock) => {
                    Python::attach(|py| py.detach(std::thread::yield_now));
                }
            }
        };
        match &*engine {
            Some(engine) => with(engine),
            None => Err(Refusal::IsShutDown),
        }
    }

    /// Ends all tasks that have not begun and, with `kill`, also the running ones.
    fn end_all(&self, kill: bool) {
        let open: Vec<_> = lock(&self.tasks).open.values().map(Arc::clone).collect();
        // Ends waiting tasks first: otherwise a worker could start a waiting task when its running task is killed.
        for pending in &open {
            pending.end(false);
        }
        if kill {
            for pending in &open {
                pending.end(true);
            }
        }
    }

    /// Frees what the ended engine needed: moves unread replies out of the engine.
    fn settle(&self) {
        *lock(&self.loans) = Loans::default();
        let open: Vec<_> = lock(&self.tasks).open.values().map(Arc::clone).collect();
        open.iter().for_each(|pending| pending.settle());
    }

    /// Copies the arguments of a call into the arena if they are longer than [`LONGEST_INLINE`].
    fn copy_long(
        &self,
        py: Python<'_>,
        engine: &arenite::Engine,
        sent: &Sent<'_, '_>,
    ) -> Result<Option<arenite::Array<u8>>, Refusal> {
        if sent.arguments.len() <= LONGEST_INLINE {
            return Ok(None);
        }
        self.copy_in(py, engine, sent.arguments).map(Some)
    }

    /// Encodes a call for a kernel. `long`: the pickle of the arguments, if it was copied into the arena. `values`: the
    /// tasks whose values it takes.
    fn pack<'a>(
        sent: &Sent<'_, '_>,
        long: Option<arenite::Array<u8>>,
        values: &'a Values<'_>,
    ) -> Result<Packed<'a>, Refusal> {
        let mut head = Head {
            kind: sent.kind,
            element: sent.element,
            function: sent.function,
            arguments: sent.arguments,
        };
        if long.is_some() {
            head.arguments = &[];
            head.kind |= Head::ARGUMENTS_IN_BUFFER;
        }
        let long = long.map(raw::Buffer::read);
        let parts = sent.parts.iter().map(|part| {
            let buffer = match part {
                Part::Memory(buffer) => buffer,
                Part::Value(task) => {
                    // Only the end of the engine discards a reply.
                    return values[&task.key()].value().ok_or(Refusal::IsShutDown);
                }
            };
            Ok(if buffer.is_lent() {
                // SAFETY: no Rust reference to these bytes exists (see `Memory`). Of these bytes, the task changes
                // those of its array, which no other task has borrowed, and which are in no other array of this task:
                // `send` has called `Loans::check`, and keeps the lock until it has entered this loan.
                unsafe { raw::Buffer::write_parts(buffer.array()) }
            } else {
                raw::Buffer::read(buffer.array())
            })
        });
        let buffers: Result<_, _> = long.map(Ok).into_iter().chain(parts).collect();
        Ok((head.write(), buffers?))
    }

    /// Makes the copy of this process that workers need, if they are copies of it.
    fn fork(&self, py: Python<'_>) -> PyResult<()> {
        match self.forks {
            true => self.with(|engine| Ok(crate::worker::fork(py, engine)))?,
            false => Ok(()),
        }
    }

    /// Sends a call as a task, by the function `submit`.
    pub fn send(
        self: &Arc<Self>,
        py: Python<'_>,
        sent: &Sent<'_, '_>,
        submit: impl FnOnce(&arenite::Engine, Packed<'_>) -> arenite::Job<Reply>,
    ) -> PyResult<Task> {
        self.fork(py)?;
        self.with(|engine| {
            // Copies without the lock: other threads run Python meanwhile.
            let long = self.copy_long(py, engine, sent)?;
            // From here on, this thread keeps the interpreter: others wait for these locks with it.
            let values = sent.parts.iter().filter_map(|part| match part {
                Part::Memory(_) => None,
                Part::Value(task) => Some(&**task),
            });
            let values: Values<'_> = values.map(|task| (task.key(), task.slot())).collect();
            let (lent, read): (Vec<_>, Vec<_>) = sent.memory().partition(|buffer| buffer.is_lent());
            let layouts = |buffers: Vec<&PyRef<'_, Buffer>>| -> Vec<_> {
                buffers.iter().map(|buffer| buffer.layout()).collect()
            };
            let lent = layouts(lent);
            let mut loans = lock(&self.loans);
            if !lent.is_empty() {
                loans
                    .check(&lent, &layouts(read))
                    .map_err(Refusal::Overlap)?;
            }
            let pending = Pending::new(submit(engine, Self::pack(sent, long, &values)?));
            loans.add(lent, &pending);
            drop(loans);
            let number = lock(&self.tasks).add(&pending);
            Ok(Task::new(number, pending, Arc::clone(self)))
        })
        .map_err(PyErr::from)
    }

    /// Starts an actor. The call creates its object, and must not borrow memory.
    pub fn start(&self, py: Python<'_>, sent: &Sent<'_, '_>) -> PyResult<arenite::Actor<State>> {
        if sent.is_lent() {
            return Err(PyValueError::new_err(
                "an actor cannot be started with mut(): lend the memory to calls of its methods",
            ));
        }
        self.fork(py)?;
        self.with(|engine| {
            let long = self.copy_long(py, engine, sent)?;
            let none = Values::new();
            let call = Self::pack(sent, long, &none)?;
            Ok(engine.actor(start_actor, call).start())
        })
        .map_err(PyErr::from)
    }

    fn copy_in(
        &self,
        py: Python<'_>,
        engine: &arenite::Engine,
        bytes: &[u8],
    ) -> Result<arenite::Array<u8>, Refusal> {
        self.count_copied(bytes.len() as u64);
        py.detach(|| engine.from_slice(bytes))
            .map_err(Refusal::Full)
    }

    /// Waits until no thread uses the engine, and takes the engine. Detaches the interpreter, which another thread may
    /// need before it releases the engine.
    fn take_engine(&self) -> Option<arenite::Engine> {
        let take = || {
            let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
            engine.take()
        };
        Python::try_attach(|py| py.detach(take)).unwrap_or_else(take)
    }
}

/// Workers and their shared arena.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn check_process(&self) -> PyResult<()> {
        if self.shared.is_foreign() {
            Err(forked())
        } else {
            Ok(())
        }
    }
}

#[pymethods]
impl Engine {
    /// Builds an engine. Returns without waiting for its workers.
    ///
    /// `program`: the interpreter; `identity`: bytes that must be equal in a worker and in this process; `setup` and
    /// `template`: the pickles for `start` and `load` of `arenite._core.worker`, the latter with whether no line says why
    /// there is no template; `output`: the number that `next_events` returns with each printed line.
    #[new]
    #[pyo3(signature = (
        *, workers, spares, lanes, capacity, memory_limit, max_arena, max_arena_fraction, recycle_after, recycle_above,
        sandbox, label, program, arguments, environment, identity, setup, template, forks, output, trace, report, seed,
        start_timeout,
    ))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        workers: usize,
        spares: usize,
        lanes: usize,
        capacity: Option<u64>,
        memory_limit: u64,
        max_arena: Option<u64>,
        max_arena_fraction: Option<f64>,
        recycle_after: u64,
        recycle_above: u64,
        sandbox: Option<&str>,
        label: String,
        program: PathBuf,
        arguments: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
        identity: Vec<u8>,
        setup: Vec<u8>,
        template: Option<(Vec<u8>, bool)>,
        forks: bool,
        output: u64,
        trace: Option<PathBuf>,
        report: Option<PathBuf>,
        seed: Option<u64>,
        start_timeout: Option<f64>,
    ) -> PyResult<Self> {
        if is_worker() {
            return Err(PyRuntimeError::new_err(
                "a task cannot have an executor with workers of its own: use Executor(max_workers=0), which runs in \
                 the task, or submit from the program",
            ));
        }
        let mut program = WorkerProgram::new(program)
            .args(arguments)
            .env(environment)
            .identity(identity);
        if let Some((setup, is_optional)) = template {
            program = match forks {
                true => program.forked(setup),
                false => program.template(setup).keep_template(KEPT),
            };
            if is_optional {
                program = program.optional_template();
            }
        }
        let mut builder = arenite::Engine::builder()
            .workers(workers)
            .spares(spares)
            .lanes(lanes)
            .co_schedule_deadlines(false)
            .memory_limit(memory_limit)
            .recycle_after_jobs(recycle_after)
            .recycle_above_bytes(recycle_above)
            .label(label)
            .worker_program(program)
            .on_worker_start_with(start_worker, (setup,))
            .start_in_background()
            .retain_escaped(collect)
            // This is the time for exit handlers and threads of tasks.
            .grace(Duration::from_secs(10))
            .on_log(move |line| push_line(output, line));
        builder = builder.sandbox(match sandbox {
            None => Sandbox::Off,
            Some("required") => Sandbox::Required,
            Some(_) => Sandbox::Strict,
        });
        if let Some(capacity) = capacity {
            builder = builder.capacity(capacity);
        }
        if let Some(bytes) = max_arena {
            builder = builder.max_arena_per_worker(bytes);
        }
        if let Some(fraction) = max_arena_fraction {
            builder = builder.max_arena_fraction_per_worker(fraction);
        }
        if let Some(seed) = seed {
            builder = builder.seed(seed);
        }
        if let Some(seconds) = start_timeout {
            builder = builder.start_timeout(crate::options::duration("start_timeout", seconds)?);
        }
        builder = match (trace, report) {
            (Some(events), Some(page)) => builder.trace(Trace::to(events).report(page)),
            (Some(events), None) => builder.trace(Trace::to(events)),
            (None, Some(page)) => builder.trace(Trace::only_report(page)),
            (None, None) => builder,
        };
        let engine = py.detach(|| builder.build()).map_err(|error| match error {
            BuildError::BadLimit { .. } => PyValueError::new_err(error.to_string()),
            error => PyOSError::new_err(error.to_string()),
        })?;
        // Relaxed: only uniqueness counts.
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            shared: Arc::new(Shared {
                id,
                process: generation(),
                maps_files: sandbox.is_none(),
                forks,
                engine: RwLock::new(Some(engine)),
                tasks: Mutex::default(),
                loans: Mutex::default(),
                copied: AtomicU64::new(0),
            }),
        })
    }

    /// Submits a task: `function` and `arguments` are pickles; `parts` is the memory that `arguments` refers to, and
    /// the tasks whose values it contains, in the order of the references. `kind`: see `arenite._core.pickling`.
    /// `element`: the series to which the calls of the task belong, and the index of the first call; without it, a task
    /// draws random numbers by its own number.
    #[pyo3(signature = (function, arguments, kind, parts=None, options=None, element=None))]
    #[allow(clippy::too_many_arguments, reason = "arguments of Python")]
    fn submit(
        &self,
        py: Python<'_>,
        function: &[u8],
        arguments: &[u8],
        kind: u16,
        parts: Option<Vec<Part<'_>>>,
        options: Option<&Options>,
        element: Option<(PyRef<'_, Series>, u64)>,
    ) -> PyResult<Task> {
        self.check_process()?;
        let sent = Sent {
            function,
            arguments,
            kind,
            element: element
                .as_ref()
                .map(|(series, first)| (series.0.number(), *first)),
            parts: parts.unwrap_or_default(),
        };
        if options.is_some_and(|options| options.retries > 0) && sent.is_lent() {
            return Err(PyValueError::new_err(
                "a task with mut() arguments cannot be retried: it may have changed them",
            ));
        }
        self.shared.send(py, &sent, |engine, call| {
            let mut job = engine.job(run_task, call);
            if let Some((series, first)) = &element {
                job = raw::in_series(job, &series.0, *first);
            }
            match options {
                Some(options) => job.options(&options.job).submit(),
                None => job.submit(),
            }
        })
    }

    /// Begins a series of calls, which draw random numbers by their index.
    fn series(&self) -> PyResult<Series> {
        self.check_process()?;
        Ok(self.shared.with(|engine| Ok(Series(raw::series(engine))))?)
    }

    /// Starts an actor: `function` creates its object. The other parameters are as for `submit`.
    #[pyo3(signature = (function, arguments, kind, parts=None))]
    fn actor(
        &self,
        py: Python<'_>,
        function: &[u8],
        arguments: &[u8],
        kind: u16,
        parts: Option<Vec<Part<'_>>>,
    ) -> PyResult<Actor> {
        self.check_process()?;
        let sent = Sent {
            function,
            arguments,
            kind,
            element: None,
            parts: parts.unwrap_or_default(),
        };
        let handle = self.shared.start(py, &sent)?;
        Ok(Actor::new(handle, Arc::clone(&self.shared)))
    }

    /// Allocates memory in the arena that this process can write and tasks can read.
    #[pyo3(signature = (nbytes, zeroed=false))]
    fn alloc(&self, py: Python<'_>, nbytes: usize, zeroed: bool) -> PyResult<Buffer> {
        self.check_process()?;
        let array = self.shared.with(|engine| {
            let array = py.detach(|| {
                if zeroed {
                    engine.zeros::<u8>(nbytes)
                } else {
                    engine.uninit::<u8>(nbytes)
                }
            });
            array.map_err(Refusal::Full)
        })?;
        Ok(Buffer::whole(Memory::new(
            array.seal(),
            self.shared.id,
            true,
        )))
    }

    /// Copies bytes into the arena.
    fn copy(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<Buffer> {
        self.check_process()?;
        let array = self
            .shared
            .with(|engine| self.shared.copy_in(py, engine, bytes))?;
        Ok(Buffer::whole(Memory::new(array, self.shared.id, false)))
    }

    /// Returns a read-only buffer of the same memory.
    fn read_only(&self, buffer: &Buffer) -> Buffer {
        Buffer::whole(Memory::new(buffer.array(), self.shared.id, false))
    }

    /// Returns the `nbytes` bytes at an address as a buffer, if they belong to this engine's arena or to a memory file
    /// that its workers can map.
    #[pyo3(signature = (address, nbytes, writable=false))]
    fn find(&self, address: usize, nbytes: usize, writable: bool) -> Option<Buffer> {
        Buffer::find(
            address,
            nbytes,
            self.shared.id,
            self.shared.maps_files,
            writable,
        )
    }

    /// Returns a snapshot of the `nbytes` bytes at this address, if they lie in a private copy of a result, or in
    /// memory that [`numpy_memory`](crate::numpy_memory) has allocated and workers can map. Returns `None` if they do
    /// not, or if a copy made by the caller costs less. Counts the bytes that had to be copied.
    fn snapshot(&self, py: Python<'_>, address: usize, nbytes: usize) -> Option<Buffer> {
        let arena = self.shared.id;
        if let Some((buffer, copied)) = py.detach(|| Buffer::snapshot(address, nbytes, arena)) {
            self.shared.count_copied(copied as u64);
            return Some(buffer);
        }
        if !self.shared.maps_files {
            return None;
        }
        let (array, copied) = py.detach(|| crate::numpy_memory::snapshot(address, nbytes))?;
        self.shared.count_copied(copied as u64);
        Some(Buffer::whole(Memory::new(array, FILE, false)))
    }

    /// Like `find`, for the bytes of an object with a buffer.
    fn find_object(&self, object: &Bound<'_, PyAny>) -> Option<Buffer> {
        Buffer::find_object(object, self.shared.id, self.shared.maps_files)
    }

    /// Counts bytes that Python code has copied into the arena.
    fn count_copied(&self, bytes: u64) {
        self.shared.count_copied(bytes);
    }

    /// Returns the statistics as nested dictionaries.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.check_process()?;
        let (stats, progress) = self
            .shared
            .with(|engine| Ok((engine.stats(), engine.progress())))?;
        let all = PyDict::new(py);
        all.set_item("capacity", stats.arena.capacity)?;
        all.set_item("committed_bytes", stats.arena.committed)?;
        all.set_item("used_bytes", stats.arena.in_use)?;
        all.set_item("kept_bytes", stats.retained())?;
        // Relaxed: a count.
        all.set_item("bytes_copied", self.shared.copied.load(Ordering::Relaxed))?;
        all.set_item("submitted", progress.submitted)?;
        all.set_item("queued", progress.queued)?;
        all.set_item("running", progress.running)?;
        all.set_item("done", progress.done)?;
        all.set_item("failed", progress.failed)?;
        all.set_item("cancelled", progress.cancelled)?;
        all.set_item("restarts", stats.restarts())?;
        all.set_item("recycled", stats.recycled())?;
        all.set_item("start_failure", stats.start_failure.as_deref())?;
        all.set_item("no_template", stats.no_template)?;
        let workers = stats.workers.iter().map(|worker| {
            let one = PyDict::new(py);
            one.set_item("pid", worker.pid)?;
            one.set_item("ready", worker.ready)?;
            one.set_item("spare", worker.spare)?;
            one.set_item("tasks", worker.jobs)?;
            one.set_item("restarts", worker.restarts)?;
            one.set_item("recycled", worker.recycled)?;
            one.set_item("kept_bytes", worker.retained)?;
            Ok(one)
        });
        all.set_item("workers", workers.collect::<PyResult<Vec<_>>>()?)?;
        let functions = stats
            .kernels
            .iter()
            .filter(|kernel| kernel.calls > 0)
            .map(|kernel| {
                let one = PyDict::new(py);
                one.set_item("name", kernel.name)?;
                one.set_item("calls", kernel.calls)?;
                one.set_item("failures", kernel.failures)?;
                one.set_item("seconds", kernel.total.as_secs_f64())?;
                one.set_item("result_bytes", kernel.bytes)?;
                Ok(one)
            });
        all.set_item("functions", functions.collect::<PyResult<Vec<_>>>()?)?;
        Ok(all)
    }

    /// Returns the number of tasks that have not ended, also after `close`.
    fn open_tasks(&self) -> usize {
        let open: Vec<_> = lock(&self.shared.tasks)
            .open
            .values()
            .map(Arc::clone)
            .collect();
        open.iter().filter(|pending| !pending.is_done()).count()
    }

    /// Ends all tasks that have not begun and, with `kill`, also the running ones.
    fn cancel_all(&self, py: Python<'_>, kill: bool) {
        if !self.shared.is_foreign() {
            py.detach(|| self.shared.end_all(kill));
        }
    }

    /// Gives committed memory that is unused back to the system.
    fn trim(&self, py: Python<'_>) -> PyResult<u64> {
        self.check_process()?;
        Ok(self.shared.with(|engine| Ok(py.detach(|| engine.trim())))?)
    }

    /// Waits until the output of tasks so far was reported.
    fn flush_logs(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process()?;
        let flush = |engine: &arenite::Engine| {
            py.detach(|| engine.flush_logs());
            Ok(())
        };
        Ok(self.shared.with(flush)?)
    }

    /// Returns the reason why the engine can start no worker any more; `None` if it can.
    #[getter]
    fn broken(&self) -> Option<String> {
        // The fork may have copied a lock in its locked state, and the lock's owner does not exist in this process.
        if self.shared.is_foreign() {
            return None;
        }
        self.shared
            .with(|engine| Ok(engine.broken()))
            .ok()
            .flatten()
    }

    /// Whether the engine belongs to a process from which this process was forked.
    #[getter]
    fn is_foreign(&self) -> bool {
        self.shared.is_foreign()
    }

    /// The maximum number of bytes in all arrays and results together.
    #[getter]
    fn capacity(&self) -> PyResult<u64> {
        Ok(self
            .shared
            .with(|engine| Ok(engine.stats().arena.capacity))?)
    }

    /// The number of loans that have not been removed.
    #[getter]
    fn loans(&self) -> usize {
        lock(&self.shared.loans).len()
    }

    /// Finishes all tasks in the background, then ends the workers. Returns `None` if the engine was closed earlier.
    /// `grace`: the number of seconds after which tasks that still run are killed.
    #[pyo3(signature = (grace=None))]
    fn close(&self, grace: Option<f64>) -> PyResult<Option<Closing>> {
        self.check_process()?;
        let grace = grace
            .map(|seconds| crate::options::duration("grace", seconds))
            .transpose()?;
        let Some(engine) = self.shared.take_engine() else {
            return Ok(None);
        };
        let closing = close(engine, Arc::clone(&self.shared))?;
        if let Some(grace) = grace {
            let (shared, closed) = (Arc::clone(&self.shared), Arc::clone(&closing.closed));
            let thread = std::thread::Builder::new().name("arenite-shutdown".into());
            thread.spawn(move || {
                if !closed.wait(grace) {
                    shared.end_all(true);
                }
            })?;
        }
        Ok(Some(closing))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.shared.is_foreign() {
            // The parent owns the engine. At the fork, a thread of the parent may have held any of the engine's locks.
            std::mem::forget(Arc::clone(&self.shared));
        } else if let Some(engine) = self.shared.take_engine() {
            // No call uses the engine, because a call has a reference to this object. Submitted tasks are finished, as
            // by executors of the standard library.
            let _ = close(engine, Arc::clone(&self.shared));
        }
    }
}

/// Calls that draw random numbers by their index.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Series(pub raw::Series);

/// The progress of closing an engine.
struct Closed {
    is_done: Mutex<bool>,
    done: Condvar,
}

impl Closed {
    fn wait(&self, limit: Duration) -> bool {
        let waited = self
            .done
            .wait_timeout_while(lock(&self.is_done), limit, |done| !*done);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Reports the end of an engine when dropped, also if the thread that ends the engine could not start or has panicked:
/// the interpreter waits for this report before it ends.
struct ReportEnd(Arc<Closed>);

impl Drop for ReportEnd {
    fn drop(&mut self) {
        *lock(&self.0.is_done) = true;
        self.0.done.notify_all();
    }
}

/// Shuts an engine down on a new thread.
fn close(engine: arenite::Engine, shared: Arc<Shared>) -> PyResult<Closing> {
    let closed = Arc::new(Closed {
        is_done: Mutex::new(false),
        done: Condvar::new(),
    });
    let mut closing = lock(&CLOSING);
    closing.retain(|closed| !*lock(&closed.is_done));
    closing.push(Arc::clone(&closed));
    drop(closing);
    let report = ReportEnd(Arc::clone(&closed));
    let thread = std::thread::Builder::new().name("arenite-shutdown".into());
    thread.spawn(move || {
        let _report = report;
        engine.shutdown();
        shared.settle();
    })?;
    Ok(Closing { closed })
}

/// A handle that waits for the end of an engine.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Closing {
    closed: Arc<Closed>,
}

#[pymethods]
impl Closing {
    /// Waits until the engine has ended, at most `timeout` seconds. Returns whether it has ended. Handles signals.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        wait_closed(py, &self.closed, timeout)
    }
}

fn wait_closed(py: Python<'_>, closed: &Closed, timeout: Option<f64>) -> PyResult<bool> {
    const SLICE: f64 = 0.05;
    let begin = std::time::Instant::now();
    loop {
        let left = timeout.map(|timeout| timeout - begin.elapsed().as_secs_f64());
        let slice = left.map_or(SLICE, |left| left.clamp(0.0, SLICE));
        if py.detach(|| closed.wait(Duration::from_secs_f64(slice))) {
            return Ok(true);
        }
        py.check_signals()?;
        if left.is_some_and(|left| left <= SLICE) {
            return Ok(false);
        }
    }
}

/// Waits for the end of all engines that were closed, and of the templates that they have shared.
#[pyfunction]
pub fn join_all(py: Python<'_>) -> PyResult<()> {
    let closing: Vec<_> = lock(&CLOSING).iter().map(Arc::clone).collect();
    for closed in closing {
        wait_closed(py, &closed, None)?;
    }
    py.detach(WorkerProgram::end_unused_templates);
    Ok(())
}

/// Forgets the engines of the parent, in a child made by `fork()`.
pub fn forget_closing() {
    // A thread of the parent, which does not exist in this process, may have held the lock at the fork.
    if let Ok(mut closing) = CLOSING.try_lock() {
        std::mem::forget(std::mem::take(&mut *closing));
    }
}

/// Returns an `arenite.ArenaFull`, the exception for an allocation that did not fit into the arena.
pub fn arena_full(py: Python<'_>, full: &ArenaFull) -> PyErr {
    let raise = || {
        let numbers = PyDict::new(py);
        describe_full(&numbers, full)?;
        let class = py.import("arenite._errors")?.getattr("ArenaFull")?;
        let made = class.call((full.to_string(),), Some(&numbers))?;
        Ok::<_, PyErr>(PyErr::from_value(made))
    };
    raise().unwrap_or_else(|_| PyMemoryError::new_err(full.to_string()))
}
