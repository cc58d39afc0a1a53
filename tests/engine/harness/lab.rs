//! An engine under observation.

use std::fmt::Write;
use std::ops::Deref;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use arenite::engine::Builder;
use arenite::{Engine, Job, JobError, Stats};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// All engines of the running test, for the dump of one that hangs.
static ENGINES: Mutex<Vec<Weak<Engine>>> = Mutex::new(Vec::new());

/// Output memory that a worker is given before its first job.
const FIRST_GRANT: u64 = 64 * 1024;

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
        let engine = change(builder).build().expect("an engine can be built");
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
        wait_until(&format!("worker {worker} has a process"), || {
            self.stats().workers[worker].pid != 0
        });
        match self.stats().workers[worker].pid {
            // It died between the two looks.
            0 => self.pid(worker),
            pid => pid as i32,
        }
    }

    /// Kills a worker and waits until the engine has put everything in order and has another one.
    pub fn replace(&self, worker: usize) {
        wait_until(&format!("worker {worker} is ready"), || {
            self.stats().workers[worker].ready
        });
        let restarts = self.stats().workers[worker].restarts;
        super::step(format!("worker {worker} to be replaced"));
        kill(Pid::from_raw(self.pid(worker)), Signal::SIGKILL).expect("the worker runs");
        self.await_restart(worker, restarts + 1);
    }

    /// Waits until a worker has been replaced this often and is ready.
    pub fn await_restart(&self, worker: usize, restarts: u64) {
        wait_until(&format!("worker {worker} is replaced"), || {
            let stats = &self.stats().workers[worker];
            stats.restarts >= restarts && stats.ready
        });
    }

    /// The books balance: with fresh workers, whose grants are known, nothing but what the test still holds (`kept`
    /// bytes) is in use.
    pub fn assert_in_use(&self, kept: u64) {
        self.assert_idle();
        let workers = self.stats().workers.len();
        (0..workers).for_each(|worker| self.replace(worker));
        let stats = self.stats();
        assert_eq!(
            stats.arena.in_use,
            kept + workers as u64 * FIRST_GRANT,
            "bytes in use, of which {kept} are the test's: {stats:#?}"
        );
    }

    /// Nothing runs, nothing waits, nobody's answer lies about.
    pub fn assert_idle(&self) {
        wait_until("the engine is idle", || {
            let stats = self.stats();
            stats.open + stats.queued + stats.untaken == 0
        });
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
        super::step(format!("{job:?} to fail"));
        job.wait().expect_err("this job cannot have a value")
    }
}

/// Waits for something that comes by itself. Looks again and again: the watchdog ends a wait in vain.
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    super::step(format!("until {what}"));
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
