//! Statistics and trace of an inline engine's jobs, which run on the calling threads.
//!
//! A call that runs jobs enters its engine for each job ([`enter`]), which stores the engine in a thread-local
//! variable. The `catch_unwind` guard of the kernel finds the engine there ([`Observed`]). Handles, except
//! those of actors, refer to their engine weakly: they may outlive it, and its trace is complete when the engine and its
//! actors have been dropped.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::{JobErrorKind, KernelStats, TraceError};
use crate::supervisor::{Progress, RateMeter, sentence};
use crate::sync::lock;
use crate::sys::clock::monotonic_ns;
use crate::trace::{
    Attempt, AttemptEnd, Event, KernelRun, LaneId, TraceConfig, TraceOwner, Tracer,
};

thread_local! {
    /// The engine whose job this thread is about to run.
    static CURRENT: RefCell<Option<Arc<Inlined>>> = const { RefCell::new(None) };
    /// Shows whether this thread lives: while it does, weak references to this value can be upgraded.
    static THREAD_LIVES: Arc<()> = Arc::default();
}

/// The statistics and the trace of an inline engine.
#[derive(Debug)]
pub(super) struct Inlined {
    counts: Mutex<Counts>,
    looks: Mutex<RateMeter>,
    /// The trace, or the error that `write_trace` will return.
    tracer: Option<Result<TraceOwner, TraceError>>,
}

#[derive(Debug, Default)]
struct Counts {
    submitted: u64,
    running: u64,
    done: u64,
    failed: u64,
    kernels: Vec<KernelStats>,
    /// The threads to which the rows of the trace belong, until they end. Empty without a trace.
    threads: Vec<Weak<()>>,
}

/// Marks, from creation to drop, that this thread runs a job of an inline engine.
#[must_use]
#[derive(Debug)]
pub(super) struct Inside {
    before: Option<Arc<Inlined>>,
    /// Makes this type `!Send`.
    thread: PhantomData<*const ()>,
}

/// Enters an engine, if it still exists.
pub(super) fn enter(engine: Option<Arc<Inlined>>) -> Inside {
    Inside {
        before: CURRENT.replace(engine),
        thread: PhantomData,
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// A job that runs on this thread and is recorded by its engine.
#[must_use]
#[derive(Debug)]
pub(super) struct Observed {
    engine: Arc<Inlined>,
    name: &'static str,
    job: u64,
    lane: u32,
    began: u64,
    start: Instant,
}

impl Observed {
    /// Records that a kernel of this name is about to run. Returns `None` outside of an engine.
    pub(super) fn begin(name: &'static str) -> Option<Self> {
        let engine = CURRENT.with_borrow(Clone::clone)?;
        let (began, start) = (monotonic_ns(), Instant::now());
        let (job, lane) = engine.begin(name);
        Some(Self {
            engine,
            name,
            job,
            lane,
            began,
            start,
        })
    }

    /// Records that the kernel has run, and, if it returned no value, `why`.
    pub(super) fn end(self, why: Option<&JobErrorKind>) {
        let Self { engine, name, .. } = &self;
        engine.end(name, self.start.elapsed(), why.is_some());
        if let Some(Ok(tracer)) = &engine.tracer {
            let ended = monotonic_ns();
            let lane = LaneId {
                worker: 0,
                lane: self.lane,
            };
            tracer.0.send(Event::Attempt(Attempt {
                job: self.job,
                label: None,
                kernel: name,
                attempt: 1,
                since: self.began,
                ran: Some(KernelRun {
                    lane,
                    placed: self.began,
                    began: self.began,
                    ended,
                }),
                over: ended,
                bytes_in: 0,
                bytes_out: 0,
                end: why.map_or(AttemptEnd::Value, failed),
            }));
        }
    }
}

fn failed(why: &JobErrorKind) -> AttemptEnd {
    AttemptEnd::Failed {
        why: sentence(why),
        crash: None,
        is_retried: false,
    }
}

impl Inlined {
    pub(super) fn new(trace: Option<TraceConfig>, label: &str) -> Self {
        let tracer = trace.map(|plan| {
            Tracer::start(plan, label).map_err(|(path, error)| TraceError { path, error })
        });
        Self {
            counts: Mutex::default(),
            looks: Mutex::new(RateMeter::new()),
            tracer,
        }
    }

    /// Counts a job. Returns the number of the job, and the row of this thread.
    fn begin(&self, name: &'static str) -> (u64, u32) {
        let mut counts = lock(&self.counts);
        counts.submitted += 1;
        counts.running += 1;
        counts.kernel(name).running += 1;
        let row = match self.tracer {
            Some(Ok(_)) => counts.row(),
            _ => 0,
        };
        (counts.submitted, row)
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

    /// Returns the trace, if there is one, or the error of creating it.
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
    /// Returns the row of this thread. A new thread gets the row of a thread that has ended, so that a program that
    /// keeps starting threads does not fill the trace with rows.
    fn row(&mut self) -> u32 {
        let thread = THREAD_LIVES.try_with(Arc::downgrade).unwrap_or_default();
        let mut rows = self.threads.iter();
        let own = rows.position(|row| row.ptr_eq(&thread));
        let free = || {
            let mut rows = self.threads.iter();
            rows.position(|row| row.strong_count() == 0)
        };
        let row = own.or_else(free).unwrap_or(self.threads.len());
        if row == self.threads.len() {
            self.threads.push(thread);
        } else {
            self.threads[row] = thread;
        }
        row as u32
    }

    fn kernel(&mut self, name: &'static str) -> &mut KernelStats {
        let known = self.kernels.iter().position(|kernel| kernel.name == name);
        let index = known.unwrap_or_else(|| {
            self.kernels.push(KernelStats {
                name,
                ..KernelStats::default()
            });
            self.kernels.len() - 1
        });
        &mut self.kernels[index]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use crate::Engine;
    use crate::engine::Trace;

    fn rows(engine: &Engine) -> usize {
        let inlined = engine.seeds.inlined.as_ref().unwrap();
        super::lock(&inlined.counts).threads.len()
    }

    /// Behaves like a server that starts a thread for each request.
    #[test]
    fn threads_that_have_ended_leave_no_rows() {
        static BOTH: Barrier = Barrier::new(2);
        let folder = tempfile::tempdir().unwrap();
        let trace = Trace::to(folder.path().join("run.json"));
        let plain = Engine::inline();
        let traced = Engine::builder().trace(trace).inline();
        for engine in [&plain, &traced] {
            for n in 0..50_u64 {
                let job = || engine.submit(|n: u64| n, (n,)).wait().unwrap();
                let value = thread::scope(|threads| threads.spawn(job).join());
                assert_eq!(value.unwrap(), n);
            }
        }
        assert_eq!((rows(&plain), rows(&traced)), (0, 1));
        // Threads that run at the same time have separate rows, which later threads take over.
        for _ in 0..3 {
            thread::scope(|threads| {
                let run = || {
                    traced
                        .submit(|| BOTH.wait().is_leader(), ())
                        .wait()
                        .unwrap()
                };
                let both = [threads.spawn(run), threads.spawn(run)];
                for thread in both {
                    thread.join().unwrap();
                }
            });
        }
        assert_eq!(rows(&traced), 2);
    }
}
