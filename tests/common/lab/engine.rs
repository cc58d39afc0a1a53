//! An engine under observation.

use std::cell::Cell;
use std::fmt::Write;
use std::ops::{Deref, Range};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use arenite::engine::Builder;
use arenite::{Engine, Job, JobError, Stats};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{expect_idle, expect_in_use, step};

/// All engines of the running test, for the dump of one that hangs.
static ENGINES: Mutex<Vec<Weak<Engine>>> = Mutex::new(Vec::new());

/// An engine that the watchdog knows of.
#[derive(Debug)]
pub struct Lab {
    engine: Arc<Engine>,
}

impl Deref for Lab {
    type Target = Engine;
    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Lab {
    /// An engine with this many workers and a small arena.
    pub fn new(workers: usize) -> Self {
        Self::with(workers, |builder| builder)
    }

    pub fn with(workers: usize, change: impl FnOnce(Builder) -> Builder) -> Self {
        let builder = Engine::builder().workers(workers).capacity(256 << 20);
        Self::of(change(builder).build().expect("an engine can be built"))
    }

    /// An engine that somebody has built.
    pub fn of(engine: Engine) -> Self {
        let engine = Arc::new(engine);
        ENGINES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::downgrade(&engine));
        Self { engine }
    }

    /// The engine itself.
    pub fn into_inner(self) -> Engine {
        Arc::into_inner(self.engine).expect("nobody else holds the engine")
    }

    /// The process of a worker, as soon as there is one. Never 0, which `kill` takes for the whole group.
    pub fn pid(&self, worker: usize) -> i32 {
        pid(self, worker)
    }

    /// The first worker that has exactly one job.
    pub fn busy_worker(&self) -> usize {
        let workers = self.stats().workers;
        let mut workers = workers.iter();
        let busy = workers.position(|worker| worker.open == 1);
        busy.expect("a worker has a job")
    }

    /// Kills a worker and waits until the engine has put everything in order and has another one.
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

    /// The failures of kernels whose name contains this.
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

    /// Waits for a job that must fail.
    pub fn failure_of<R: Send + std::fmt::Debug + 'static>(&self, job: Job<R>) -> JobError {
        step(format!("{job:?} to fail"));
        job.wait().expect_err("this job cannot have a value")
    }
}

/// The process of a worker, as soon as there is one.
fn pid(engine: &Engine, worker: usize) -> i32 {
    wait_until(&format!("worker {worker} has a process"), || {
        engine.stats().workers[worker].pid != 0
    });
    match engine.stats().workers[worker].pid {
        // It died between the two looks.
        0 => pid(engine, worker),
        pid => pid as i32,
    }
}

/// Kills workers, all at once, and waits until the engine has put everything in order and has others.
pub(super) fn replace(engine: &Engine, workers: Range<usize>) {
    // By one look: a process that is only starting when it is killed is no restart.
    let look = |worker: usize| {
        let worker = &engine.stats().workers[worker];
        let pid = Pid::from_raw(worker.pid as i32);
        // One that has had enough jobs may be gone before the signal comes.
        let ends = worker.restarts + worker.recycled;
        worker.ready.then_some((pid, ends))
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
        // One that has just been killed by somebody else is replaced as well.
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

/// Waits for something that comes by itself. Looks again and again: the watchdog ends a wait in vain.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    step(format!("until {what}"));
    while !is_so() {
        // A pause between two looks, on a machine that others need too.
        thread::park_timeout(Duration::from_micros(500));
    }
}

/// The engines of the last test.
pub(super) fn forget_all() {
    ENGINES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

/// Figures of all engines. An engine whose lock is held for good cannot tell, and that is told.
pub(super) fn describe_all() -> String {
    let engines: Vec<_> = ENGINES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let mut text = String::new();
    for engine in engines.iter().filter_map(Weak::upgrade) {
        let (tell, told) = channel();
        thread::spawn(move || tell.send(Box::new(engine.stats())).is_ok());
        let _ = match told.recv_timeout(Duration::from_secs(5)) {
            Ok(stats) => writeln!(text, "  {stats:#?}"),
            Err(_) => writeln!(text, "  an engine that does not answer"),
        };
    }
    text
}
