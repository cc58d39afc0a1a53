#![doc = include_str!("README.md")]

mod arrows;
mod chrome;
mod report;
mod summary;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
mod text;
mod timeline;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::sys::clock::monotonic_ns;
use crate::sys::fork::OwnerProcess;
use writer::Writer;

/// Events that may wait for the writer.
const INBOX: usize = 65_536;
/// Attempts in a file, if nothing else is said.
pub(crate) const ATTEMPTS: u64 = 1_000_000;

/// What is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The file of events.
    pub(crate) events: Option<PathBuf>,
    /// The page.
    pub(crate) report: Option<PathBuf>,
    /// Most attempts in the file of events.
    pub(crate) attempts: u64,
}

/// Where a job ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) worker: u32,
    /// Thread of that worker.
    pub(crate) lane: u32,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Value,
    /// Given up before a worker began it.
    Cancelled,
    /// The sentence of its error; the job is tried again, or was that all?
    Failed {
        why: Box<str>,
        again: bool,
    },
}

/// One attempt of a job that is over. Times in nanoseconds of the monotonic clock.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) job: u64,
    /// What people call it.
    pub(crate) label: Option<Arc<str>>,
    /// By type, not by address: linkers fold equal functions.
    pub(crate) kernel: &'static str,
    pub(crate) attempt: u16,
    /// Since when it waited.
    pub(crate) since: u64,
    /// When a worker got it, where it ran and from when to when; `None`: it never did.
    pub(crate) ran: Option<Ran>,
    /// When it was over.
    pub(crate) over: u64,
    /// Bytes of arrays that went in, and of fresh ones that came back.
    pub(crate) bytes: (u64, u64),
    pub(crate) end: End,
}

/// A run of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pub(crate) place: Place,
    pub(crate) placed: u64,
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Attempt(Attempt),
    /// Job `to` needs what job `from` gives.
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
    /// A worker is gone; `None`: it was replaced without having failed, or told to stop.
    Gone {
        worker: u32,
        at: u64,
        why: Option<Box<str>>,
    },
    /// A lane had to wait for output memory.
    Granted {
        place: Place,
        from: u64,
        at: u64,
        bytes: u64,
        given: bool,
    },
}

/// How far a trace has come: [`Engine::write_trace`](crate::Engine::write_trace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traced {
    /// Attempts in the file of events.
    pub attempts: u64,
    /// Events that it lacks: there were too many of them, or they came too fast.
    pub dropped: u64,
}

/// The one owner of a tracer: completes the files when it goes.
#[derive(Debug)]
pub(crate) struct Owner(pub(crate) Arc<Tracer>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Takes events, and has them written.
#[derive(Debug)]
pub(crate) struct Tracer {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    writer: Mutex<Writer>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Whose files these are.
    process: OwnerProcess,
}

#[derive(Debug, Default)]
struct Inbox {
    events: Vec<Event>,
    dropped: u64,
    /// The writer's thread waits for the first event.
    asleep: bool,
    closing: bool,
}

impl Tracer {
    /// Makes the files, valid and empty, and starts the thread.
    ///
    /// # Errors
    /// The path that cannot be written, and why.
    pub(crate) fn start(plan: Plan, label: &str) -> Result<Owner, (PathBuf, io::Error)> {
        let somewhere = plan.events.clone().or_else(|| plan.report.clone());
        let tracer = Arc::new(Self {
            inbox: Mutex::default(),
            changed: Condvar::new(),
            writer: Mutex::new(Writer::create(plan, label, monotonic_ns())?),
            thread: Mutex::default(),
            process: OwnerProcess::current(),
        });
        let own = Arc::clone(&tracer);
        let thread = thread::Builder::new()
            .name("arenite-trace".into())
            .spawn(move || own.run())
            .map_err(|error| (somewhere.unwrap_or_default(), error))?;
        *lock(&tracer.thread) = Some(thread);
        Ok(Owner(tracer))
    }

    /// Takes an event. Never waits for a disk.
    pub(crate) fn send(&self, event: Event) {
        let mut inbox = lock(&self.inbox);
        if inbox.closing || inbox.events.len() >= INBOX {
            inbox.dropped += 1;
            return;
        }
        inbox.events.push(event);
        if inbox.asleep && inbox.events.len() == 1 || inbox.events.len() == INBOX / 2 {
            self.changed.notify_one();
        }
    }

    /// Writes what was sent so far, and the report.
    ///
    /// # Errors
    /// Why a file could not be written, now or before.
    pub(crate) fn flush(&self) -> Result<Traced, (PathBuf, io::Error)> {
        let mut writer = lock(&self.writer);
        self.pass_on(&mut writer);
        writer.finish()
    }

    /// Writes everything and ends the thread. What comes now is dropped.
    fn close(&self) {
        if !self.process.is_current() {
            return;
        }
        lock(&self.inbox).closing = true;
        self.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // It has no panic of its own; if there was one, the rest is written below all the same.
            let _ = thread.join();
            // Nobody is left to hear of it: `flush` has said so to whoever asked.
            let _ = self.flush();
        }
    }

    fn run(&self) {
        loop {
            let mut inbox = lock(&self.inbox);
            while inbox.events.is_empty() && !inbox.closing {
                inbox.asleep = true;
                inbox = wait(self.changed.wait(inbox));
            }
            inbox.asleep = false;
            // More comes, as a rule.
            let few = |inbox: &mut Inbox| inbox.events.len() < INBOX / 2 && !inbox.closing;
            let (inbox, _) = wait(self.changed.wait_timeout_while(inbox, writer::PAUSE, few));
            let closing = inbox.closing;
            drop(inbox);
            if closing {
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

/// A panic elsewhere leaves at worst an event out.
fn wait<T>(result: Result<T, PoisonError<T>>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
