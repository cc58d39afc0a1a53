#![doc = include_str!("README.md")]

mod arrows;
mod chrome;
pub(crate) mod escape;
mod report;
mod summary;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
mod text;
mod timeline;
mod writer;

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::sys::clock::monotonic_ns;
use crate::sys::fork::OwnerProcess;
pub(crate) use chrome::{quoted, short};
use writer::Writer;

/// Max number of events that wait for the writer's thread.
const INBOX_LIMIT: usize = 65_536;
/// Default limit of attempts in a file.
pub(crate) const DEFAULT_ATTEMPTS: u64 = 1_000_000;

/// The files of a trace.
#[derive(Clone, Debug)]
pub(crate) struct TraceConfig {
    /// The file of events.
    pub(crate) events: Option<PathBuf>,
    /// The report.
    pub(crate) report: Option<PathBuf>,
    /// Max attempts in the file of events.
    pub(crate) attempts: u64,
}

/// Identifies a lane by its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneId {
    pub(crate) worker: u32,
    /// Index of the lane in its worker.
    pub(crate) lane: u32,
}

/// Describes a crash. Called on the writer's thread, since it reads files.
pub(crate) trait Describe: Debug + Send + Sync {
    /// The signal, and the access that failed.
    fn what(&self) -> String;
    /// The functions on the stack, the innermost first.
    fn frames(&self) -> Vec<String>;
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(crate) enum AttemptEnd {
    Value,
    /// Cancelled before a worker began it.
    Cancelled,
    Failed {
        /// The message of the error.
        why: Box<str>,
        /// The crash that ended the worker, if that is the reason.
        crash: Option<Arc<dyn Describe>>,
        /// Whether the job is retried.
        is_retried: bool,
    },
}

/// An attempt of a job that has ended. Times are in nanoseconds of the monotonic clock.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) job: u64,
    /// The label that the program gave the job.
    pub(crate) label: Option<Arc<str>>,
    /// The name of the kernel's type. Its address would not identify it, because linkers merge equal functions.
    pub(crate) kernel: &'static str,
    pub(crate) attempt: u16,
    /// The time when the wait for this attempt began.
    pub(crate) since: u64,
    /// The run of the kernel; `None` if no worker began it.
    pub(crate) ran: Option<KernelRun>,
    /// The time when the supervisor recorded the end.
    pub(crate) over: u64,
    /// The number of bytes of the job's array arguments.
    pub(crate) bytes_in: u64,
    /// The number of bytes of the arrays that the job has made and returned.
    pub(crate) bytes_out: u64,
    pub(crate) end: AttemptEnd,
}

/// A run of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelRun {
    pub(crate) lane: LaneId,
    /// The time when the job was posted to the lane.
    pub(crate) placed: u64,
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// An event of a trace.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Attempt(Attempt),
    /// Job `to` needs the value of job `from`.
    Depends {
        from: u64,
        to: u64,
    },
    /// A worker that was started at `from` is ready.
    Started {
        worker: u32,
        pid: u32,
        from: u64,
        at: u64,
    },
    /// A worker has exited. `why` is `None` if it was recycled or stopped.
    Exited {
        worker: u32,
        at: u64,
        why: Option<Box<str>>,
    },
    /// A lane has waited for output memory.
    MemoryWait {
        lane: LaneId,
        from: u64,
        at: u64,
        bytes: u64,
        is_granted: bool,
    },
}

/// The numbers of events in a trace: see [`Engine::write_trace`](crate::Engine::write_trace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traced {
    /// The number of attempts in the file of events.
    pub attempts: u64,
    /// The number of events that are missing in the file: they were beyond the limit, or came faster than they could be
    /// written.
    pub dropped: u64,
}

/// Owns a tracer, and completes its files when dropped.
#[derive(Debug)]
pub(crate) struct TraceOwner(pub(crate) Arc<Tracer>);

impl Drop for TraceOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Collects events, and writes them on a separate thread.
#[derive(Debug)]
pub(crate) struct Tracer {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    writer: Mutex<Writer>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process that owns the files. A forked copy must not write them.
    process: OwnerProcess,
}

#[derive(Debug, Default)]
struct Inbox {
    events: Vec<Event>,
    dropped: u64,
    /// Whether the writer's thread waits for an event.
    is_writer_asleep: bool,
    is_closing: bool,
}

impl Tracer {
    /// Creates the files, valid and without events, and starts the thread.
    ///
    /// # Errors
    /// The path that cannot be written, and the reason.
    pub(crate) fn start(
        config: TraceConfig,
        label: &str,
    ) -> Result<TraceOwner, (PathBuf, io::Error)> {
        let a_path = config.events.clone().or_else(|| config.report.clone());
        let tracer = Arc::new(Self {
            inbox: Mutex::default(),
            changed: Condvar::new(),
            writer: Mutex::new(Writer::create(config, label, monotonic_ns())?),
            thread: Mutex::default(),
            process: OwnerProcess::current(),
        });
        let own = Arc::clone(&tracer);
        let thread = thread::Builder::new()
            .name("arenite-trace".into())
            .spawn(move || own.run())
            .map_err(|error| (a_path.unwrap_or_default(), error))?;
        *lock(&tracer.thread) = Some(thread);
        Ok(TraceOwner(tracer))
    }

    /// Adds an event. Never waits for a disk.
    pub(crate) fn send(&self, event: Event) {
        let mut inbox = lock(&self.inbox);
        if inbox.is_closing || inbox.events.len() >= INBOX_LIMIT {
            inbox.dropped += 1;
            return;
        }
        inbox.events.push(event);
        if inbox.is_writer_asleep && inbox.events.len() == 1
            || inbox.events.len() == INBOX_LIMIT / 2
        {
            self.changed.notify_one();
        }
    }

    /// Writes the events sent so far, and the report.
    ///
    /// # Errors
    /// The file that could not be written, now or earlier, and the reason.
    pub(crate) fn flush(&self) -> Result<Traced, (PathBuf, io::Error)> {
        let mut writer = lock(&self.writer);
        self.pass_on(&mut writer);
        writer.finish()
    }

    /// Writes all events and ends the thread. Later events are dropped.
    fn close(&self) {
        if !self.process.is_current() {
            return;
        }
        lock(&self.inbox).is_closing = true;
        self.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // Even if the thread has panicked, the rest is written below.
            let _ = thread.join();
            // Errors are ignored here: `flush` returns them to its callers.
            let _ = self.flush();
        }
    }

    fn run(&self) {
        loop {
            let mut inbox = lock(&self.inbox);
            while inbox.events.is_empty() && !inbox.is_closing {
                inbox.is_writer_asleep = true;
                inbox = wait(self.changed.wait(inbox));
            }
            inbox.is_writer_asleep = false;
            // Wait a little for more events, which usually follow soon.
            let few = |inbox: &mut Inbox| inbox.events.len() < INBOX_LIMIT / 2 && !inbox.is_closing;
            let (inbox, _) = wait(self.changed.wait_timeout_while(inbox, writer::PAUSE, few));
            let is_closing = inbox.is_closing;
            drop(inbox);
            if is_closing {
                return;
            }
            self.pass_on(&mut lock(&self.writer));
        }
    }

    fn pass_on(&self, writer: &mut Writer) {
        let mut events = writer.spare();
        let dropped = {
            let mut inbox = lock(&self.inbox);
            std::mem::swap(&mut inbox.events, &mut events);
            std::mem::take(&mut inbox.dropped)
        };
        writer.write(events, dropped);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    wait(mutex.lock())
}

/// Ignores poisoning: a panic of another thread loses at most an event.
fn wait<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
