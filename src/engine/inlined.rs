//! What an inline engine knows of its jobs, which run in whichever thread calls.
//!
//! A call that runs jobs enters its engine for each of them ([`enter`]), and the fence around the kernel ([`observed`]) looks
//! which engine its thread is in. Engines are named by a number, since whoever keeps one may outlive the engine.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::{JobError, JobErrorKind, KernelStats, TraceError};
use crate::supervisor::{Looks, Progress};
use crate::sys::clock::monotonic_ns;
use crate::trace::{Attempt, End, Event, Owner, Place, Plan, Ran, Tracer};

static ENGINES: Mutex<Engines> = Mutex::new(Engines {
    last: 0,
    all: BTreeMap::new(),
});

struct Engines {
    last: u64,
    all: BTreeMap<u64, Arc<Inlined>>,
}

thread_local! {
    /// The engine whose job this thread is about to run.
    static HERE: RefCell<Option<Arc<Inlined>>> = const { RefCell::new(None) };
}

/// An inline engine's books.
#[derive(Debug)]
pub(super) struct Inlined {
    counts: Mutex<Counts>,
    looks: Mutex<Looks>,
    /// An error is kept until somebody asks for the trace.
    tracer: Option<Result<Owner, TraceError>>,
}

#[derive(Debug, Default)]
struct Counts {
    submitted: u64,
    running: u64,
    done: u64,
    failed: u64,
    kernels: Vec<KernelStats>,
    /// Rows of the trace, by thread.
    threads: HashMap<ThreadId, u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The place of an inline engine among all; it goes with the engine.
#[derive(Debug)]
pub(super) struct Enrolled(u64);

impl Enrolled {
    pub(super) fn new(trace: Option<Plan>, label: &str) -> Self {
        let tracer = trace.map(|plan| {
            Tracer::start(plan, label).map_err(|(path, error)| TraceError { path, error })
        });
        let engine = Arc::new(Inlined {
            counts: Mutex::default(),
            looks: Mutex::new(Looks::new()),
            tracer,
        });
        let mut engines = lock(&ENGINES);
        engines.last += 1;
        let number = engines.last;
        engines.all.insert(number, engine);
        Self(number)
    }

    pub(super) fn number(&self) -> u64 {
        self.0
    }

    pub(super) fn books(&self) -> Option<Arc<Inlined>> {
        lock(&ENGINES).all.get(&self.0).cloned()
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        let engine = lock(&ENGINES).all.remove(&self.0);
        // Its trace is completed here, without the lock, unless a job of it runs.
        drop(engine);
    }
}

/// This thread runs a job of an inline engine, as long as this lives.
#[must_use]
#[derive(Debug)]
pub(super) struct Inside {
    before: Option<Arc<Inlined>>,
    /// Of this thread.
    thread: PhantomData<*const ()>,
}

/// Enters the engine of this number, if there is one.
pub(super) fn enter(number: u64) -> Inside {
    let engine = lock(&ENGINES).all.get(&number).cloned();
    Inside {
        before: HERE.replace(engine),
        thread: PhantomData,
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        HERE.set(self.before.take());
    }
}

/// Runs a kernel of this name, in the books of the engine that this thread is in.
pub(super) fn observed<R>(
    name: &'static str,
    run: impl FnOnce() -> Result<R, JobError>,
) -> Result<R, JobError> {
    let Some(engine) = HERE.with_borrow(Clone::clone) else {
        return run();
    };
    let (began, start) = (monotonic_ns(), Instant::now());
    let (job, lane) = engine.begin(name);
    let result = run();
    engine.end(name, start.elapsed(), result.is_err());
    if let Some(Ok(tracer)) = &engine.tracer {
        let ended = monotonic_ns();
        let place = Place { worker: 0, lane };
        let why = result.as_ref().err().map(JobError::kind);
        tracer.0.send(Event::Attempt(Attempt {
            job,
            kernel: name,
            attempt: 1,
            since: began,
            ran: Some(Ran {
                place,
                placed: began,
                began,
                ended,
            }),
            over: ended,
            bytes: (0, 0),
            end: why.map_or(End::Value, failed),
        }));
    }
    result
}

fn failed(why: &JobErrorKind) -> End {
    End::Failed {
        why: why.to_string().into(),
        again: false,
    }
}

impl Inlined {
    /// The number of the job, and the row of this thread.
    fn begin(&self, name: &'static str) -> (u64, u32) {
        let mut counts = lock(&self.counts);
        counts.submitted += 1;
        counts.running += 1;
        counts.kernel(name).running += 1;
        let next = counts.threads.len() as u32;
        let thread = thread::current().id();
        let lane = *counts.threads.entry(thread).or_insert(next);
        (counts.submitted, lane)
    }

    fn end(&self, name: &'static str, took: Duration, failed: bool) {
        let mut counts = lock(&self.counts);
        counts.running -= 1;
        if failed {
            counts.failed += 1;
        } else {
            counts.done += 1;
        }
        let kernel = counts.kernel(name);
        kernel.running -= 1;
        kernel.calls += 1;
        kernel.failures += u64::from(failed);
        kernel.total += took;
        kernel.expected = kernel.total / u32::try_from(kernel.calls).unwrap_or(u32::MAX);
    }

    pub(super) fn progress(&self) -> Progress {
        let mut progress = {
            let counts = lock(&self.counts);
            Progress {
                submitted: counts.submitted,
                running: counts.running,
                done: counts.done,
                failed: counts.failed,
                kernels: counts.kernels.clone(),
                ..Progress::default()
            }
        };
        lock(&self.looks).look(&mut progress);
        progress
    }

    /// The trace, if there is one.
    pub(super) fn tracer(&self) -> Option<Result<&Tracer, TraceError>> {
        let again = |error: &TraceError| TraceError {
            path: error.path.clone(),
            error: std::io::Error::new(error.error.kind(), error.error.to_string()),
        };
        let tracer = self.tracer.as_ref()?.as_ref();
        Some(tracer.map(|owner| &*owner.0).map_err(again))
    }
}

impl Counts {
    fn kernel(&mut self, name: &'static str) -> &mut KernelStats {
        let known = self.kernels.iter().position(|kernel| kernel.name == name);
        let index = known.unwrap_or_else(|| {
            self.kernels.push(KernelStats {
                name,
                calls: 0,
                failures: 0,
                total: Duration::ZERO,
                expected: Duration::ZERO,
                bytes: 0,
                running: 0,
            });
            self.kernels.len() - 1
        });
        &mut self.kernels[index]
    }
}
