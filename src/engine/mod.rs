//! The public API: [`Engine`] and the types that it returns.

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
mod limits;
mod map;
mod numbers;
mod observe;
pub mod par;
pub(crate) mod raw;
#[cfg(feature = "sandbox")]
mod sandbox;
mod scope;
mod seeds;
mod shard;
mod spawn;
pub mod stream;
mod submitting;
mod worker_program;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub use crate::arena::{ArenaError, ArenaStats, SystemError, SystemLimit};
pub use crate::supervisor::{
    ActorStatus, Backoff, Backtrace, Crash, CrashClass, CrashFrame, CrashedAccess, Death,
    FailedDependency, FailedInput, JobError, JobErrorKind, JobLimit, JobOptions, KernelStats,
    Limiter, LogLevel, LogLine, LogSource, Permits, Priority, Progress, RefusedBy, Rejection,
    ResultKey, Stats, WorkerExit, WorkerStats,
};
pub use crate::trace::Traced;
pub use actor::{Actor, ActorBuilder, ActorNameError};
pub use builder::{Builder, Guard};
pub use canceller::Canceller;
pub use completed::{AsCompleted, as_completed, wait_all, wait_any};
pub use error::{BuildError, Error};
pub use failure::{DeadLetter, JobFailure, Report};
pub use graph::Graph;
pub use input::InputError;
pub use job::{Job, JobBuilder, Killer, Refused};
pub use map::{Map, OnFailure};
pub use observe::{Trace, TraceError};
pub use par::{Par, ParMut};
#[cfg(feature = "sandbox")]
pub use sandbox::{Sandbox, SandboxReport};
pub use scope::{Scope, ScopedJob};
pub use shard::shard;
pub use spawn::{Call, Spawn, SpawnInput, SpawnInputs, call};
pub use submitting::Submitting;
pub use worker_program::WorkerProgram;

use crate::kernel::{Args, Bind, Kernel, Params, Reply, Single, captures_nothing, kernel_name};
use crate::supervisor::{Closing, Supervisor};
use crate::sync::lock;
#[cfg(feature = "template")]
use crate::worker::ForkedTemplate;
use job::{held, run_kernel};
use seeds::Seeds;

/// Worker processes and the arena that they share.
///
/// An engine can be used from any number of threads at once. A clone is another handle of the same engine. Dropping the
/// last handle ends the workers: queued jobs fail with [`ShutDown`](JobErrorKind::ShutDown), running jobs are killed.
/// [`shutdown`](Engine::shutdown) finishes all jobs first, without further attempts after failures. Arrays may outlive
/// their engine.
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
/// This crate installs one signal handler in your program, for SIGBUS, so that the error names the process that
/// truncated a segment of an arena. Other SIGBUS signals go to the handler that was installed before.
///
/// Workers ignore SIGINT, SIGTERM, SIGHUP and SIGPIPE from their first instruction: a terminal or a service manager
/// sends them to the whole process group, and your program decides what they mean. By default these signals end your
/// program and the workers at once, and no file or process is left behind. To finish jobs first, set a flag in a signal
/// handler of your own, stop submitting when it is set, and call [`shutdown`](Engine::shutdown), as `arenite resize`
/// does. To end one worker, send it SIGKILL: its job fails with that cause, and the worker is replaced. A program
/// started by a kernel inherits the ignored signals.
///
/// # Privileges
///
/// Build an engine after the program has dropped its privileges (`setuid`). A process may not kill workers of another
/// user, nor can it start others: if that is refused, the engine ends its workers, and every job fails with
/// [`NoWorkers`](JobErrorKind::NoWorkers) or as lost.
///
/// # Forking
///
/// An engine belongs to the process that built it. In a child made by `fork()`, dropping a handle has no effect, and
/// any other use of the engine panics: build an engine after forking. Arrays are shared with the parent, not copied,
/// and their memory may be reused once the parent drops them, so do not use arrays in the child. Programs started with
/// [`Command`](std::process::Command) are not affected.
#[derive(Clone)]
pub struct Engine {
    pub(crate) backend: Backend,
    /// The actors that have names.
    names: actor::Names,
    pub(crate) seeds: Arc<Seeds>,
}

/// Where an engine runs its kernels.
#[derive(Clone)]
pub(crate) enum Backend {
    /// In worker processes.
    Workers(Arc<Workers>),
    /// On the calling thread.
    Inline,
}

/// Shared by all clones of an engine: dropping the last clone ends the engine.
pub(crate) struct Workers {
    pub(crate) shared: Arc<Supervisor>,
    /// The monitor thread, until a caller takes the handle to end the engine.
    monitor: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backend {
            Backend::Workers(workers) => f
                .debug_struct("Engine")
                .field("arena", workers.shared.arena.as_ref())
                .finish_non_exhaustive(),
            Backend::Inline => f.write_str("Engine::inline()"),
        }
    }
}

impl Engine {
    /// Returns a builder, to set the number of workers, the size of the arena and so on.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Builds an engine without processes: kernels run on the calling thread when they are submitted, on private
    /// memory.
    ///
    /// Use it to debug, and on systems where processes cannot be started. Calls and results are the same, without
    /// isolation: each job is tried once and has no deadline, and every array is accepted.
    ///
    /// ```
    /// let engine = arenite::Engine::inline();
    /// assert_eq!(engine.submit(|x: u32, y: u32| x + y, (40, 2)).wait().unwrap(), 42);
    /// ```
    pub fn inline() -> Self {
        Self::builder().inline()
    }

    /// Submits a job: runs a kernel on these arguments in a worker. Never fails; errors are returned by [`Job::wait`].
    ///
    /// With a limit on bytes in flight ([`max_in_flight_bytes`](Builder::max_in_flight_bytes)), this blocks until the
    /// job is admitted; in `async` code use [`job(…).submit_async()`](JobBuilder::submit_async).
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
    /// A job that was submitted earlier may be an argument, too, and in lists (`&[Array<T>]`). The job starts when that
    /// one has ended, and takes its value: the value stays in the arena and does not visit the program. Passed by
    /// reference, the other job keeps its handle; passed by value, its value is freed after the last use.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{Array, FailedDependency, JobErrorKind};
    ///
    /// fn ramp(n: u64) -> Array<u64> {
    ///     Array::from_fn(n as usize, |i| i as u64)
    /// }
    /// fn total(values: &[u64]) -> Result<u64, String> {
    ///     Some(values.iter().sum()).filter(|&sum| sum > 0).ok_or_else(|| "no values".to_owned())
    /// }
    /// fn lengths(parts: &[Array<u64>]) -> Vec<u64> {
    ///     parts.iter().map(|part| part.len() as u64).collect()
    /// }
    ///
    /// let (long, empty) = (engine.submit(ramp, (100,)), engine.submit(ramp, (0,)));
    /// let sum = engine.submit(total, (&long,));
    /// let twice = engine.submit(|a: u64, b: u64| a + b, (&sum, &sum));
    /// let both = engine.submit(lengths, (vec![&long, &empty],));
    /// assert_eq!((twice.wait()?, both.wait()?), (9900, vec![100, 0]));
    ///
    /// // If a job has no value, those that take it have none either, and say why.
    /// let failed = engine.submit(total, (&empty,));
    /// let error = engine.submit(|a: u64| a + 1, (failed,)).wait().unwrap_err();
    /// assert!(matches!(error.kind(), JobErrorKind::Dependency(FailedDependency::Input { .. })));
    /// assert!(error.to_string().ends_with("no values"));
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// Cancelling a job cancels the jobs that take its value. A job without a handle that no job takes any more is
    /// cancelled. Calls of [actors](Actor) take no jobs: wait for the value, and pass that.
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
    ///
    /// Only a [scope](Engine::scope) lends an array to a job, because it waits until the job has ended:
    ///
    /// ```compile_fail,E0597
    /// # let engine = arenite::Engine::inline();
    /// fn fill(values: &mut [u32]) {
    ///     values.fill(7);
    /// }
    ///
    /// let mut values = engine.zeros::<u32>(10).unwrap();
    /// engine.submit(fill, (&mut values,));
    /// ```
    #[doc(alias("apply_async", "run_in_executor", "remote"))]
    #[inline]
    pub fn submit<F, A, P, R>(&self, kernel: F, args: A) -> Job<R::Out>
    where
        F: Bind<A>,
        F::Kernel: Kernel<P, R>,
        F::Args: Args<'static, P>, // To lend an array (`&mut`) or a tile, submit in a scope: `engine.scope(|s| …)`.
        P: Params,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        // Only the type of the kernel is used: its value has no bytes.
        let (_, args) = kernel.bind(args);
        match &self.backend {
            Backend::Workers(workers) => {
                Job::send::<Single<F::Kernel, P, R>>(&workers.shared, |call| args.send(call))
            }
            Backend::Inline => {
                let _job = self.seeds.begin_inline(0);
                let held = held::<P>(kernel_name::<F::Kernel>(), args);
                Job::ready(held.and_then(run_kernel::<F::Kernel, P, R>))
            }
        }
    }

    /// Builds a job with options: a deadline, retries, a priority. [`JobBuilder::then`] runs another kernel on the
    /// result in the same worker.
    pub fn job<F, A, P, R>(
        &self,
        kernel: F,
        args: A,
    ) -> JobBuilder<'_, Single<F::Kernel, P, R>, F::Args>
    where
        F: Bind<A>,
        F::Kernel: Kernel<P, R>,
        F::Args: Args<'static, P>, // To lend an array (`&mut`) or a tile, submit in a scope: `engine.scope(|s| …)`.
        P: Params,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        // Only the type of the kernel is used: its value has no bytes.
        let (_, args) = kernel.bind(args);
        JobBuilder::first(self, args)
    }

    /// Returns the seed of the random numbers that this engine's jobs draw: the seed set by [`Builder::seed`], or a
    /// random one. With the seed, a run can be repeated.
    ///
    /// ```
    /// use arenite::Engine;
    /// use rand::RngExt;
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

    /// Returns statistics of the arena, each worker and each kernel. [`progress`](Engine::progress) counts jobs.
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
        self.supervisor()
            .map_or_else(Stats::default, |shared| shared.stats())
    }

    /// Returns the reason why no worker can be started any more, or `None` if there is none. If there is a reason,
    /// every job fails with [`NoWorkers`](JobErrorKind::NoWorkers). See [`revive`](Engine::revive).
    ///
    /// A start that fails because something is short (open files, processes, memory) is no such reason:
    /// [`Stats::start_failure`] names it, and the engine tries again.
    pub fn broken(&self) -> Option<String> {
        self.supervisor()?.broken()
    }

    /// Starts workers again after the engine has given up, for example when a drive that
    /// [`on_worker_start`](Builder::on_worker_start) needs is back. Jobs that have failed stay so, and actors are lost;
    /// new jobs run, or fail with [`NoWorkers`](JobErrorKind::NoWorkers) once the engine gives up again.
    ///
    /// Returns true if the engine was [`broken`](Engine::broken) and tries again. Returns false if it was not, and
    /// where another attempt is useless: the shared memory was damaged, workers cannot be killed, or the engine was
    /// shut down.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// fn start(path: &str) -> Result<(), String> {
    ///     std::fs::read(path).map(drop).map_err(|error| format!("{path}: {error}"))
    /// }
    ///
    /// arenite::init();
    /// let folder = std::env::temp_dir().join(format!("revive-{}", std::process::id()));
    /// let builder = Engine::builder().workers(1).start_in_background();
    /// let path = folder.to_string_lossy().into_owned();
    /// let engine = builder.on_worker_start_with(start, (path.as_str(),)).build()?;
    /// assert!(engine.submit(|| 1, ()).wait().is_err());
    /// std::fs::write(&folder, "here it is")?;
    /// assert!(engine.revive());
    /// assert_eq!(engine.submit(|| 1, ()).wait()?, 1);
    /// assert!(!engine.revive());
    /// std::fs::remove_file(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn revive(&self) -> bool {
        self.supervisor().is_some_and(|shared| shared.revive())
    }

    /// Returns whether workers wait for [`fork`](Engine::fork): at first, and after the fork was killed.
    #[cfg(feature = "template")]
    pub fn needs_fork(&self) -> bool {
        self.supervisor().is_some_and(|shared| shared.needs_fork())
    }

    /// Forks this process for workers that are copies of it: see
    /// [`WorkerProgram::forked`](crate::engine::WorkerProgram::forked). Calls `in_copy` in the fork, which has only the
    /// calling thread, and in which locks that other threads held stay locked. `in_copy` calls [`ForkedTemplate::run`].
    ///
    /// Does nothing unless workers wait for it.
    ///
    /// # Errors
    /// If Linux makes no fork.
    #[cfg(feature = "template")]
    pub fn fork(&self, in_copy: impl FnOnce(ForkedTemplate)) -> std::io::Result<()> {
        let Some(shared) = self.supervisor() else {
            return Ok(());
        };
        Ok(shared.fork_template(in_copy)?)
    }

    /// Gives unused committed memory of the arena back to Linux at once, not only after some seconds. Returns the
    /// number of bytes.
    pub fn trim(&self) -> u64 {
        self.supervisor().map_or(0, |shared| shared.arena.trim())
    }

    /// Finishes all jobs, including detached ones, and ends the workers. Dropping the engine ends jobs instead. See
    /// [`Job::detach`] for an example.
    ///
    /// From this call on, no job is retried: a job that waits for another attempt fails with
    /// [`ShutDown`](JobErrorKind::ShutDown), and a job whose attempt fails ends with the error of that attempt. Only
    /// jobs that are lost because of another job ([`WorkerExit::OtherJob`]) still run again. Jobs that are submitted
    /// after this call fail with `ShutDown`.
    ///
    /// A job that hangs blocks this forever: give jobs a [deadline](JobBuilder::deadline), or use
    /// [`shutdown_timeout`](Engine::shutdown_timeout). If another thread is shutting the engine down, this waits for
    /// that thread.
    ///
    /// The engine ends for all clones of this handle. So a handle in a `static`, which is never dropped, can be shut
    /// down too:
    ///
    /// ```standalone_crate
    /// use std::sync::LazyLock;
    ///
    /// use arenite::{Engine, JobErrorKind};
    ///
    /// static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    ///     Engine::builder().workers(1).build().expect("an engine can be built")
    /// });
    ///
    /// arenite::init();
    /// ENGINE.submit(|| println!("written before the program ends"), ()).detach();
    /// ENGINE.clone().shutdown();
    /// let late = ENGINE.submit(|| (), ()).wait().unwrap_err();
    /// assert_eq!(*late.kind(), JobErrorKind::ShutDown);
    /// ```
    pub fn shutdown(self) {
        if let Backend::Workers(workers) = &self.backend {
            workers.shared.end(workers.take_monitor(), Closing::Drain);
        }
    }

    /// Like [`shutdown`](Engine::shutdown), but waits at most `limit` for jobs. Jobs that have not ended by then fail
    /// with [`ShutDown`](JobErrorKind::ShutDown), as when the engine is dropped. Returns true if no job had to be
    /// ended; a job that only waited for a retry does not count. Always returns true for an inline engine.
    ///
    /// Afterwards, idle workers that do not exit get the additional time of [`Builder::grace`]. If called from a waker
    /// that the engine calls, this does not wait, and returns true if all jobs had ended.
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
        match &self.backend {
            Backend::Workers(workers) => workers.shared.end_within(workers.take_monitor(), limit),
            Backend::Inline => true,
        }
    }

    /// Passes all lines that workers have printed so far to [`Builder::on_log`], or to stderr. This includes everything
    /// printed by jobs whose end was awaited.
    ///
    /// The end of the program (the end of `main`, [`std::process::exit`]) does this too, and so do dropping the engine
    /// and [`shutdown`](Engine::shutdown). This waits as long as the receiver takes lines, but at most two seconds for
    /// a single line. Text without a newline may still be in a buffer of a worker with several threads or lanes.
    ///
    /// ```standalone_crate
    /// use std::sync::mpsc::channel;
    ///
    /// use arenite::Engine;
    /// use arenite::engine::LogLine;
    ///
    /// arenite::init();
    /// let (sender, lines) = channel();
    /// let take = move |line: &LogLine| sender.send(line.text.clone()).expect("it is received");
    /// let engine = Engine::builder().workers(1).on_log(take).build()?;
    /// engine.submit(|| println!("hello"), ()).wait()?;
    /// engine.flush_logs();
    /// assert_eq!(lines.try_iter().collect::<Vec<_>>(), ["hello"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush_logs(&self) {
        if let Some(shared) = self.supervisor() {
            shared.flush_logs();
        }
    }

    /// Returns true if workers are [sandboxed](Builder::sandbox), and can open no files.
    pub fn is_sandboxed(&self) -> bool {
        self.supervisor()
            .is_some_and(|shared| shared.is_sandboxed())
    }

    /// Returns the maximum number of jobs that run in workers at the same time: one on each lane of each worker that is
    /// not a [spare](Builder::spares). 0 for an [inline](Engine::inline) engine, which runs jobs on the threads that
    /// submit them.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(2).lanes(3).build()?;
    /// assert_eq!(engine.max_running(), 6);
    /// assert_eq!(Engine::inline().max_running(), 0);
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn max_running(&self) -> usize {
        self.supervisor().map_or(0, |shared| shared.active_lanes())
    }

    pub(crate) fn supervisor(&self) -> Option<&Arc<Supervisor>> {
        match &self.backend {
            Backend::Workers(workers) => Some(&workers.shared),
            Backend::Inline => None,
        }
    }
}

impl Workers {
    /// Takes the handle of the monitor thread; `None` if another caller has taken it.
    fn take_monitor(&self) -> Option<JoinHandle<()>> {
        lock(&self.monitor).take()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(monitor) = self.take_monitor() {
            self.shared.end(Some(monitor), Closing::Now);
        }
    }
}
