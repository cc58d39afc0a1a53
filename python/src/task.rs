//! A submitted task: [`Task`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use arenite::{JobError, raw};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;

use crate::buffer::{Buffer, Memory};
use crate::engine::{Engine, Shared};
use crate::events::{TokenWaker, push_token};
use crate::failure::describe;
use crate::options::duration;
use crate::process::forked;

/// The reply of a task: a word with [`PICKLE_IN_ARRAY`] and the number of copied bytes; the pickle, if it is short; and
/// the memory that the pickle refers to.
pub type Reply = raw::Value;
type Job = arenite::Job<Reply>;

/// The bit of a reply's first word that is set if the pickle is the first of the arrays. The other bits count copied
/// bytes.
pub const PICKLE_IN_ARRAY: u64 = 1 << 63;

/// The interval at which a waiting thread handles signals.
const SLICE: Duration = Duration::from_millis(50);

/// The places of replies that a new task takes, locked, by [`Task::key`].
pub type Values<'a> = HashMap<usize, RwLockReadGuard<'a, Slot>>;

/// The place of a task's reply.
pub enum Slot {
    /// The reply is in the engine, or will be there when the job has ended.
    Sent(Job),
    /// The reply was moved out of the engine: it was taken, or the engine has ended. Another task may still take it.
    Ended(Box<Result<Reply, JobError>>),
    /// The engine has ended, and the reply will not be taken.
    Discarded,
}

impl Slot {
    /// Returns the reply if the job has ended.
    fn take(&mut self) -> Option<Result<Reply, JobError>> {
        if let Self::Sent(job) = self {
            let result = job.wait_timeout(Duration::ZERO)?;
            *self = Self::Ended(Box::new(result));
        }
        match self {
            Self::Ended(result) => Some((**result).clone()),
            _ => None,
        }
    }

    /// Returns the reply as an argument of another task.
    pub fn value(&self) -> Option<raw::Buffer<'_>> {
        match self {
            Self::Sent(job) => Some(raw::Buffer::value(job)),
            Self::Ended(result) => Some(raw::Buffer::result(result)),
            Self::Discarded => None,
        }
    }
}

/// Returns a reply as Python objects: a pickle, and the memory that it refers to, which belongs to this arena.
pub fn unpack<'py>(py: Python<'py>, reply: Reply, arena: u64) -> PyResult<Bound<'py, PyAny>> {
    let (flags, pickle, arrays) = reply;
    let buffers = arrays
        .into_iter()
        .map(|array| Bound::new(py, Buffer::whole(Memory::new(array, arena, false))));
    let mut buffers: Vec<_> = buffers.collect::<PyResult<_>>()?;
    let pickle = if flags & PICKLE_IN_ARRAY != 0 && !buffers.is_empty() {
        buffers.remove(0).into_any()
    } else {
        PyBytes::new(py, &pickle).into_any()
    };
    Ok((pickle, buffers).into_pyobject(py)?.into_any())
}

/// Gives up the reply of a task whose handle was dropped, when the task has ended.
struct Forget {
    shared: Weak<Shared>,
    number: u64,
}

impl Wake for Forget {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.forget(self.number);
        }
    }
}

/// The job of a task, until the reply is taken.
pub struct Pending {
    /// Threads that wait for the job share the lock. A writer takes the lock only after the job has ended, when the
    /// waiting threads release it at once.
    slot: RwLock<Slot>,
    /// Whether the reply was taken or discarded.
    taken: AtomicBool,
    /// Whether the reply will not be taken. The task may still run.
    forgotten: AtomicBool,
}

impl Pending {
    pub fn new(job: Job) -> Arc<Self> {
        Arc::new(Self {
            slot: RwLock::new(Slot::Sent(job)),
            taken: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Slot> {
        self.slot.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the reply if the job has ended.
    fn take(&self) -> Option<Result<Reply, JobError>> {
        self.write().take()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slot> {
        self.slot.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the reply out of an engine that has ended, so that an unread reply does not keep the engine's memory in
    /// use.
    pub fn settle(&self) {
        // One lock for both steps, so that a thread that takes the reply finds it in the engine or in the slot.
        let mut slot = self.write();
        // Relaxed: a reply that is stored nevertheless is dropped with the handle.
        let is_forgotten = self.forgotten.load(Ordering::Relaxed);
        if slot.take().is_some() && is_forgotten {
            *slot = Slot::Discarded;
        }
    }

    /// Returns whether the job has ended.
    pub fn is_done(&self) -> bool {
        match &*self.read() {
            Slot::Sent(job) => job.is_done(),
            Slot::Ended(_) | Slot::Discarded => true,
        }
    }

    fn wait(&self, limit: Duration) -> bool {
        match &*self.read() {
            Slot::Sent(job) => arenite::wait_all([job], Some(limit)),
            Slot::Ended(_) | Slot::Discarded => true,
        }
    }

    /// Ends the job unless it has ended. Without `kill`, lets a running job go on.
    pub fn end(&self, kill: bool) {
        if let Slot::Sent(job) = &*self.read() {
            if kill {
                job.kill();
            } else {
                job.cancel();
            }
        }
    }
}

/// A submitted task.
///
/// Dropping the handle lets the task run; the result is dropped when the task ends.
#[pyclass(frozen, module = "arenite._arenite")]
pub struct Task {
    number: u64,
    pending: Arc<Pending>,
    shared: Arc<Shared>,
    /// The reply, once taken or discarded. It stays stored here, so that an interrupt right after `take` loses nothing.
    reply: PyOnceLock<Py<PyAny>>,
}

impl Task {
    pub fn new(number: u64, pending: Arc<Pending>, shared: Arc<Shared>) -> Self {
        Self {
            number,
            pending,
            shared,
            reply: PyOnceLock::new(),
        }
    }

    /// Returns the job; fails in a child made by `fork()`, which cannot use the parent's engine.
    fn pending(&self) -> PyResult<&Pending> {
        if self.shared.is_foreign() {
            Err(forked())
        } else {
            Ok(&self.pending)
        }
    }

    /// Takes the reply of an ended task, in the form that `take` returns.
    fn take_once<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let pending = self.pending()?;
        if !pending.is_done() || pending.taken.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        let result = pending.take();
        self.shared.forget(self.number);
        let Some(result) = result else {
            return Ok(None);
        };
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => return Ok(Some(describe(py, &error)?.into_any())),
        };
        let (flags, _, arrays) = &reply;
        // The copied bytes are part of the arrays. The worker is not trusted to report a number within this limit.
        let bytes: usize = arrays.iter().map(|array| array.len()).sum();
        let copied = (flags & !PICKLE_IN_ARRAY).min(bytes as u64);
        self.shared.count_copied(copied);
        unpack(py, reply, self.shared.id()).map(Some)
    }

    /// Identifies the place of the reply.
    pub fn key(&self) -> usize {
        Arc::as_ptr(&self.pending) as usize
    }

    /// Locks the place of the reply, for other readers too.
    pub fn slot(&self) -> RwLockReadGuard<'_, Slot> {
        self.pending.read()
    }
}

#[pymethods]
impl Task {
    /// Waits until the task has ended, at most `timeout` seconds. Returns whether it has ended. Other threads run
    /// meanwhile, and signals are handled.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let pending = self.pending()?;
        let limit = timeout.map(|seconds| duration("timeout", seconds.max(0.0)));
        // A time beyond the range of the clock means no limit.
        let until = limit
            .transpose()?
            .and_then(|limit| Instant::now().checked_add(limit));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            if py.detach(|| pending.wait(slice)) {
                return Ok(true);
            }
            py.check_signals()?;
            if left.is_some_and(|left| left <= slice) {
                return Ok(false);
            }
        }
    }

    /// Returns whether a task of this engine can take the value of this task, once it has ended.
    fn is_of(&self, engine: &Engine) -> bool {
        Arc::ptr_eq(&self.shared, engine.shared())
    }

    /// Returns whether the task has ended.
    fn done(&self) -> PyResult<bool> {
        Ok(self.pending()?.is_done())
    }

    /// Arranges that `next_events` returns `token` when the task has ended. Returns true if the task has ended already;
    /// then `token` is not reported.
    fn arm(&self, token: u64) -> PyResult<bool> {
        let waker = Waker::from(Arc::new(TokenWaker(token)));
        Ok(match &*self.pending()?.read() {
            Slot::Sent(job) => raw::wake_when_done(job, &waker),
            Slot::Ended(_) | Slot::Discarded => true,
        })
    }

    /// Returns the reply of the task: the pickle and the buffers of its value, or a dictionary that describes its
    /// failure. Further calls return the same object. Returns `None` if the task has not ended, or while another thread
    /// takes the reply.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(reply) = self.reply.get(py) {
            return Ok(Some(reply.bind(py).clone()));
        }
        let reply = self.take_once(py)?;
        if let Some(reply) = &reply {
            let _ = self.reply.set(py, reply.clone().unbind());
        }
        Ok(reply)
    }

    /// Discards the reply: the task may go on, and later calls of `take` return `reply`. Returns false if the reply was
    /// taken or discarded earlier.
    fn discard(&self, py: Python<'_>, reply: Py<PyAny>) -> bool {
        let first = !self.pending.taken.swap(true, Ordering::AcqRel);
        if first {
            let _ = self.reply.set(py, reply);
            // Relaxed: `settle` drops a reply that it stores nevertheless with the handle.
            self.pending.forgotten.store(true, Ordering::Relaxed);
        }
        first
    }

    /// Returns whether a worker runs the task at this moment.
    fn running(&self) -> PyResult<bool> {
        Ok(matches!(&*self.pending()?.read(), Slot::Sent(job) if job.is_running()))
    }

    /// Ends the task unless it has begun. Does nothing in a child made by `fork()`.
    fn cancel(&self) {
        if let Ok(pending) = self.pending() {
            pending.end(false);
        }
    }

    /// Ends the task. If the task runs, kills its worker. Does nothing in a child made by `fork()`.
    fn kill(&self) {
        if let Ok(pending) = self.pending() {
            pending.end(true);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.shared.is_foreign() {
            // The parent owns the job and its engine.
            std::mem::forget((Arc::clone(&self.pending), Arc::clone(&self.shared)));
            return;
        }
        if self.pending.is_done() {
            return self.shared.forget(self.number);
        }
        self.pending.forgotten.store(true, Ordering::Relaxed);
        // Until its end, the job stays in the engine's table, so that it can still be cancelled.
        let waker = Waker::from(Arc::new(Forget {
            shared: Arc::downgrade(&self.shared),
            number: self.number,
        }));
        let has_ended = match &*self.pending.read() {
            Slot::Sent(job) => raw::wake_when_done(job, &waker),
            Slot::Ended(_) | Slot::Discarded => true,
        };
        if has_ended {
            self.shared.forget(self.number);
        }
    }
}

/// Reports a token that belongs to no task.
#[pyfunction]
pub fn report(token: u64) {
    push_token(token);
}
