//! The public face: [`Engine`] and what it gives.

mod actor;
mod answers;
mod builder;
mod canceller;
mod completed;
mod error;
mod failure;
mod graph;
#[cfg(test)]
mod handles;
mod inlined;
mod input;
mod job;
mod map;
mod numbers;
mod observe;
pub mod par;
#[cfg(feature = "sandbox")]
mod sandbox;
mod scope;
mod seeds;
mod spawn;
pub mod stream;
mod submitting;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use crate::arena::{ArenaError, SystemError, SystemLimit};
pub use crate::supervisor::{
    ActorStatus, AtMostOnce, Backoff, Death, GraphProgress, JobError, JobErrorKind, JobOptions,
    KernelStats, Limiter, LimiterBuilder, LogLevel, LogLine, LogSource, Permits, Priority,
    Progress, RefusedBy, ResultKey, Retried, Stats, WorkerStats,
};
pub use crate::trace::Traced;
pub use actor::{Actor, ActorBuilder, ActorNameError, Calling};
pub use builder::{Builder, Guard};
pub use canceller::Canceller;
pub use completed::{AsCompleted, CompletedStream, as_completed, wait_all, wait_any};
pub use error::BuildError;
pub use failure::{DeadLetter, JobFailure, Report};
pub use graph::{
    Graph, GraphError, GraphReport, Input, Inputs, Node, NodeBuilder, Plan, Running, Targets,
    Wanted,
};
pub use input::InputError;
pub use job::{Job, JobBuilder, Refused};
pub use map::{Map, MapStream, OnFailure};
pub use observe::{Trace, TraceError};
pub use par::{Par, ParMut};
#[cfg(feature = "sandbox")]
pub use sandbox::{Sandbox, SandboxReport};
pub use scope::{Scope, ScopedJob, ScopedJobBuilder};
pub use spawn::{Call, Spawn, SpawnInput, SpawnInputs, call};
pub use submitting::Submitting;

use crate::kernel::{Args, Kernel, Params, Reply, Single};
use crate::supervisor::{Closing, Supervisor};
use seeds::Seeds;

/// Worker processes and the arena that they share.
///
/// An engine is used from any number of threads at once. Dropping it ends its workers: queued jobs
/// answer [`ShutDown`](JobErrorKind::ShutDown), running ones are killed. [`shutdown`](Engine::shutdown)
/// finishes everything first, without further attempts at what fails. Arrays may outlive their engine.
///
/// ```standalone_crate
/// use arenite::{Array, Engine};
///
/// fn total(values: &Array<u32>) -> u64 {
///     values.iter().map(|&value| u64::from(value)).sum()
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     arenite::init();
///     let engine = Engine::builder().workers(2).capacity(64 << 20).build()?;
///     let values = engine.from_slice(&[1u32, 2, 3])?;
///     assert_eq!(engine.submit(total, (&values,)).wait()?, 6);
///     Ok(())
/// }
/// ```
///
/// # Signals
///
/// This crate installs one signal handler in your program: for SIGBUS, so that somebody who cuts a segment of an arena is named.
/// Whatever else that signal means goes to the handler that was there before. Workers ignore SIGINT, SIGTERM, SIGHUP and SIGPIPE from their
/// first instruction on: a terminal or a service manager sends them to the whole group, and your program decides what
/// they mean. Left alone they end your program, and the workers with it, at once and without anything left behind. To
/// finish first, set a flag in a handler of your own, stop submitting when it is set, and call
/// [`shutdown`](Engine::shutdown); `arenite resize` does so. To end one worker, send it SIGKILL: its job fails with that
/// cause, and it is replaced. Programs that a kernel starts inherit the ignored signals.
///
/// # Forking
///
/// An engine belongs to the process that built it. In a copy that `fork()` has made of that, handles do nothing when they are
/// dropped, and whatever else would use the engine panics and says so: build one after forking. Arrays are not copied with the
/// rest of the memory: the copy reads and writes what everybody has, which is somebody else's once the original has dropped the
/// array, so leave arrays alone there. Programs that are started with [`Command`](std::process::Command) are no copies.
pub struct Engine {
    pub(crate) place: Place,
    /// Actors that have a name.
    names: actor::Names,
    pub(crate) seeds: Arc<Seeds>,
}

/// Where an engine runs its kernels.
pub(crate) enum Place {
    /// In worker processes.
    Workers(Workers),
    /// In the calling thread.
    Inline,
}

pub(crate) struct Workers {
    pub(crate) shared: Arc<Supervisor>,
    monitor: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Workers(workers) => f
                .debug_struct("Engine")
                .field("arena", workers.shared.arena.as_ref())
                .finish_non_exhaustive(),
            Place::Inline => f.write_str("Engine::inline()"),
        }
    }
}

impl Engine {
    /// An engine with settings of one's own.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// An engine without processes: kernels run in the calling thread when they are submitted, on
    /// private memory. For debugging, and where processes are not to be had. The same calls and the
    /// same results; no isolation, each job is tried once and without a deadline, and every array is accepted.
    ///
    /// ```
    /// let engine = arenite::Engine::inline();
    /// assert_eq!(engine.submit(|x: u32, y: u32| x + y, (40, 2)).wait().unwrap(), 42);
    /// ```
    pub fn inline() -> Self {
        Self::builder().inline()
    }

    /// Runs a kernel on these arguments in a worker. Never fails: what goes wrong arrives at
    /// [`Job::wait`]. Where there is a ceiling ([`admission`](Builder::admission)) it waits in this thread until the job is let
    /// in; in `async` code say [`job(…).submit_async()`](JobBuilder::submit_async) there.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::Array;
    ///
    /// fn scale(values: &Array<f32>, by: f32) -> Array<f32> {
    ///     Array::from_fn(values.shape(), |i| values[i] * by)
    /// }
    ///
    /// let values = engine.from_slice(&[1.0f32, 2.0])?;
    /// let scaled = engine.submit(scale, (&values, 10.0)).wait()?;
    /// assert_eq!(scaled[..], [10.0, 20.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// An exclusive array moves into the job that changes it, and comes back as part of its value:
    ///
    /// ```compile_fail,E0382
    /// # let engine = arenite::Engine::inline();
    /// use arenite::ArrayMut;
    ///
    /// fn sort(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.sort_unstable();
    ///     values
    /// }
    ///
    /// let values = engine.zeros::<u32>(10).unwrap();
    /// let job = engine.submit(sort, (values,));
    /// let first = values[0];
    /// ```
    #[doc(alias("apply_async", "run_in_executor", "remote"))]
    #[inline]
    pub fn submit<F, A, P, R>(&self, kernel: F, args: A) -> Job<R::Out>
    where
        F: Kernel<P, R>,
        A: Args<'static, P>,
        P: Params,
        R: Reply,
    {
        // `kernel` is a name for its type: it has no bytes.
        let _ = kernel;
        match &self.place {
            Place::Workers(workers) => {
                Job::send::<Single<F, P, R>>(&workers.shared, |call| args.send(call))
            }
            Place::Inline => {
                let _job = self.seeds.here(0);
                Job::run_here(kernel, args.hold())
            }
        }
    }

    /// A job under construction: with a deadline, retries, a priority; and [`JobBuilder::then`] runs
    /// another kernel on its result, in the same worker.
    pub fn job<F, A, P, R>(&self, kernel: F, args: A) -> JobBuilder<'_, Single<F, P, R>, A>
    where
        F: Kernel<P, R>,
        A: Args<'static, P>,
        P: Params,
        R: Reply,
    {
        // A name for its type: it has no bytes.
        let _ = kernel;
        JobBuilder::first(self, args)
    }

    /// The seed of the random numbers of this engine's jobs: what [`Builder::seed`] said, or what chance gave. With it a run
    /// can be repeated.
    ///
    /// ```
    /// use arenite::Engine;
    /// use arenite::rand::RngExt;
    ///
    /// let dice = || arenite::rng().random_range(1..=6u8);
    /// let (first, engine) = (Engine::inline(), Engine::inline());
    /// let again = Engine::builder().seed(first.seed()).inline();
    /// assert_eq!(first.submit(dice, ()).wait()?, again.submit(dice, ()).wait()?);
    /// assert_ne!(first.seed(), engine.seed());
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    pub fn seed(&self) -> u64 {
        self.seeds.run()
    }

    /// Figures at this moment: of the arena, of each worker, of each kernel. [`progress`](Engine::progress) is about jobs.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(2).build()?;
    /// let megabyte = engine.zeros::<u8>(1 << 20)?;
    /// let stats = engine.stats();
    /// assert!(stats.arena.in_use >= 1 << 20 && stats.arena.committed >= stats.arena.in_use);
    /// assert_eq!((stats.workers.len(), stats.restarts()), (2, 0));
    /// # drop(megabyte);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        match &self.place {
            Place::Workers(workers) => workers.shared.stats(),
            Place::Inline => Stats::default(),
        }
    }

    /// Gives committed memory that nobody uses back to the system. Returns the bytes.
    pub fn trim(&self) -> u64 {
        match &self.place {
            Place::Workers(workers) => workers.shared.arena.trim(),
            Place::Inline => 0,
        }
    }

    /// Finishes all jobs, those that are detached included, and ends the workers. What fails from here on is not tried again: a job
    /// that pauses before another attempt answers [`ShutDown`](JobErrorKind::ShutDown), and one that fails its failure, whatever
    /// retries it has. Only what is lost to another job of its worker ([`LostWith`](JobErrorKind::LostWith)) still runs again.
    /// Dropping the engine ends jobs instead. See [`Job::detach`] for an example.
    ///
    /// A job that hangs holds this up for ever: give jobs a [deadline](JobBuilder::deadline), or the engine a limit
    /// ([`shutdown_timeout`](Engine::shutdown_timeout)).
    pub fn shutdown(self) {
        if let Some((shared, monitor)) = self.take_monitor() {
            shared.end(monitor, Closing::Drain);
        }
    }

    /// As [`shutdown`](Engine::shutdown), but waits for jobs no longer than `limit`. What has not ended by then is ended as by a drop
    /// of the engine, and answers [`ShutDown`](JobErrorKind::ShutDown). True if nothing had to be ended; what `shutdown` would not
    /// have tried again does not count.
    ///
    /// Workers that have no job, and do not exit when they are told to, have the time of [`Builder::grace`] beside that. In a waker that
    /// the engine itself calls nothing is waited for; it is true there if all jobs had ended. Always true of an inline engine.
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    ///
    /// use arenite::{Engine, JobErrorKind};
    ///
    /// fn hang() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).build()?;
    /// let job = engine.submit(hang, ());
    /// let finished = engine.shutdown_timeout(Duration::from_millis(100));
    /// assert!(!finished);
    /// assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::ShutDown);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_timeout(self, limit: Duration) -> bool {
        self.take_monitor()
            .is_none_or(|(shared, monitor)| shared.end_within(monitor, limit))
    }

    /// The thread that ends the engine, unless there is none or somebody else has it.
    fn take_monitor(&self) -> Option<(&Supervisor, JoinHandle<()>)> {
        let Place::Workers(workers) = &self.place else {
            return None;
        };
        let mut monitor = workers
            .monitor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some((&*workers.shared, monitor.take()?))
    }

    pub(crate) fn shared(&self) -> Option<&Arc<Supervisor>> {
        match &self.place {
            Place::Workers(workers) => Some(&workers.shared),
            Place::Inline => None,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some((shared, monitor)) = self.take_monitor() {
            shared.end(monitor, Closing::Now);
        }
    }
}
