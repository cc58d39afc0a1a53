//! An engine under test.

use std::cell::Cell;
use std::fmt::Write;
use std::fs::File;
use std::ops::{Deref, Range};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use arenite::engine::{BuildError, Builder};
use arenite::kernel::{Args, Kernel, Params, Reply};
use arenite::{Engine, Job, JobError, Stats};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Gate, children, expect_idle, expect_in_use, pass, step};

/// All engines of the running test, for the dump of a hang.
static ENGINES: Mutex<Vec<Weak<Engine>>> = Mutex::new(Vec::new());

/// Settings of an engine with this number of workers, and of bytes in its arena.
pub fn builder(workers: usize, capacity: u64) -> Builder {
    Engine::builder().workers(workers).capacity(capacity)
}

/// Runs a job and waits for its end.
pub trait Calls {
    fn on(&self) -> &Engine;

    /// Returns the value of a job that has to succeed.
    #[track_caller]
    fn value_of<F, A, P, R>(&self, kernel: F, args: A) -> R::Out
    where
        F: Kernel<P, R>,
        A: Args<'static, P>,
        P: Params,
        R: Reply,
    {
        let result = self.on().submit(kernel, args).wait();
        result.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns the error of a job that has to fail.
    #[track_caller]
    fn error_of<F, A, P, R>(&self, kernel: F, args: A) -> JobError
    where
        F: Kernel<P, R>,
        A: Args<'static, P>,
        P: Params,
        R: Reply,
    {
        let job = self.on().submit(kernel, args);
        step(format!("{job:?} to fail"));
        job.wait().err().expect("this job has to fail")
    }
}

impl Calls for Engine {
    fn on(&self) -> &Engine {
        self
    }
}

/// Returns why an engine cannot be built, of which no process is left.
#[track_caller]
pub fn refused(builder: Builder) -> BuildError {
    step("an engine that cannot be built");
    let error = builder.build().expect_err("it cannot be built");
    assert_eq!(children(), [0_i32; 0], "{error}");
    error
}

/// An engine that the watchdog includes in its dump.
#[derive(Debug)]
pub struct Lab {
    /// `None` once it is taken out.
    engine: Option<Arc<Engine>>,
    /// Whether [`expect_in_use`] has to hold when it is dropped, of an engine of which the test holds nothing.
    is_balanced: bool,
}

impl Deref for Lab {
    type Target = Engine;
    fn deref(&self) -> &Engine {
        self.engine.as_ref().expect("the engine is not taken out")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.is_balanced && self.engine.is_some() && !thread::panicking() {
            self.assert_in_use(0);
        }
    }
}

impl Lab {
    /// Starts an engine with this number of workers and a small arena.
    pub fn new(workers: usize) -> Self {
        Self::with(workers, |builder| builder)
    }

    pub fn with(workers: usize, change: impl FnOnce(Builder) -> Builder) -> Self {
        let builder = change(builder(workers, 256 << 20));
        Self::of(builder.build().expect("an engine can be built"))
    }

    /// As [`new`](Self::new); when it is dropped, no memory may be in use but that of workers.
    pub fn balanced(workers: usize) -> Self {
        Self::balanced_with(workers, |builder| builder)
    }

    pub fn balanced_with(workers: usize, change: impl FnOnce(Builder) -> Builder) -> Self {
        let mut lab = Self::with(workers, change);
        lab.is_balanced = true;
        lab
    }

    /// Wraps an engine.
    pub fn of(engine: Engine) -> Self {
        let engine = Arc::new(engine);
        ENGINES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::downgrade(&engine));
        Self {
            engine: Some(engine),
            is_balanced: false,
        }
    }

    /// Returns the engine.
    pub fn into_inner(mut self) -> Engine {
        let engine = self.engine.take().and_then(Arc::into_inner);
        engine.expect("the engine is held once")
    }

    /// Waits until a worker has a process, and returns its id. Never 0, which means the whole group to `kill`.
    pub fn pid(&self, worker: usize) -> i32 {
        pid(self, worker)
    }

    /// Starts a job that holds its worker until the file is dropped.
    pub fn hold(&self) -> (Job<()>, File) {
        let gate = Gate::new();
        let job = self.submit(pass, (gate.path(),));
        (job, gate.meet())
    }

    /// Returns the first worker that has exactly one job.
    pub fn busy_worker(&self) -> usize {
        let workers = self.stats().workers;
        let mut workers = workers.iter();
        let busy = workers.position(|worker| worker.open == 1);
        busy.expect("a worker has a job")
    }

    /// Kills a worker and waits until the engine has replaced it.
    pub fn replace(&self, worker: usize) {
        replace(self, worker..worker + 1);
    }

    /// Waits until a worker has been replaced this often and is ready.
    pub fn await_restart(&self, worker: usize, restarts: u64) {
        await_restart(self, worker, restarts);
    }

    /// See [`expect_in_use`].
    pub fn assert_in_use(&self, kept: u64) {
        expect_in_use(self, kept).unwrap_or_else(|why| panic!("{why}"));
    }

    /// See [`expect_idle`].
    pub fn assert_idle(&self) {
        expect_idle(self);
    }

    /// Returns the number of failures of kernels whose name contains `name`.
    pub fn failures(&self, name: &str) -> u64 {
        let of = |stats: Stats| {
            stats
                .kernels
                .into_iter()
                .filter(|kernel| kernel.name.contains(name))
                .collect::<Vec<_>>()
        };
        of(self.stats()).iter().map(|kernel| kernel.failures).sum()
    }

    /// Waits for a job that has to fail.
    pub fn failure_of<R: Send + std::fmt::Debug + 'static>(&self, job: Job<R>) -> JobError {
        step(format!("{job:?} to fail"));
        job.wait().expect_err("this job has to fail")
    }
}

/// Waits until a worker has a process, and returns its id.
fn pid(engine: &Engine, worker: usize) -> i32 {
    wait_until(&format!("worker {worker} has a process"), || {
        engine.stats().workers[worker].pid != 0
    });
    match engine.stats().workers[worker].pid {
        // It has died since.
        0 => pid(engine, worker),
        pid => pid as i32,
    }
}

/// Kills workers, all at once, and waits until the engine has replaced them.
pub(super) fn replace(engine: &Engine, workers: Range<usize>) {
    // Read together: the death of a process that is still starting does not count as a restart.
    let look = |worker: usize| {
        let worker = &engine.stats().workers[worker];
        let pid = Pid::from_raw(worker.pid as i32);
        // A worker may be recycled before the signal arrives.
        let ends = worker.restarts + worker.recycled;
        (worker.ready || worker.spare).then_some((pid, ends))
    };
    let ready = |worker| {
        let seen = Cell::new(None);
        wait_until(&format!("worker {worker} is ready"), || {
            seen.set(look(worker));
            seen.get().is_some()
        });
        seen.get()
    };
    let seen: Vec<_> = workers
        .filter_map(|worker| Some((worker, ready(worker)?)))
        .collect();
    for &(_, (pid, _)) in &seen {
        // Fails if it has just ended for another reason; it is replaced all the same.
        #[allow(clippy::disallowed_methods, reason = "the kill of an outsider")]
        let _ = kill(pid, Signal::SIGKILL);
    }
    for (worker, (_, ends)) in seen {
        wait_until(&format!("worker {worker} is replaced"), || {
            look(worker).is_some_and(|(_, now)| now > ends)
        });
    }
}

fn await_restart(engine: &Engine, worker: usize, restarts: u64) {
    wait_until(&format!("worker {worker} is replaced"), || {
        let stats = &engine.stats().workers[worker];
        stats.restarts >= restarts && stats.ready
    });
}

/// Sends a signal to a process that exists.
pub fn send_signal(pid: i32, signal: Signal) {
    #[allow(
        clippy::disallowed_methods,
        reason = "its parent has not waited for it"
    )]
    kill(Pid::from_raw(pid), signal).expect("the process exists");
}

/// Polls until a condition holds. The watchdog ends a wait in vain.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    step(format!("until {what}"));
    while !is_so() {
        // A pause, because other processes need the core too.
        thread::park_timeout(Duration::from_micros(500));
    }
}

/// Forgets the engines of the last test.
pub(super) fn forget_all() {
    ENGINES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

/// Describes all engines. An engine whose lock is never released does not answer, which the description says.
pub(super) fn describe_all() -> String {
    let engines: Vec<_> = ENGINES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let mut text = String::new();
    for engine in engines.iter().filter_map(Weak::upgrade) {
        let (sender, stats) = channel();
        thread::spawn(move || sender.send(Box::new(engine.stats())).is_ok());
        let _ = match stats.recv_timeout(Duration::from_secs(5)) {
            Ok(stats) => writeln!(text, "  {stats:#?}"),
            Err(_) => writeln!(text, "  an engine that does not answer"),
        };
    }
    text
}
