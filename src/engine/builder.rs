//! Building an engine.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::inlined::Enrolled;
use super::seeds::Seeds;
use super::{BuildError, Engine, Place, TraceError, Workers};
#[cfg(feature = "sandbox")]
use super::{Sandbox, SandboxReport};
use crate::arena::{Arena, ArenaError, Backing, Spec, SystemInfo};
use crate::control::HandshakeError;
use crate::kernel::{Kernel, KernelInfo, Single, to_offset};
use crate::link::control_bytes;
use crate::supervisor::{
    self, LogLine, MemorySettings, QUARANTINE_AFTER, Settings, Sink, StartError,
};
#[cfg(feature = "sandbox")]
use crate::sys::sandbox;
use crate::trace::{Plan, Tracer};

/// Whether pages that do not belong to the running job are closed for writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guard {
    /// What a worker has published, and what was lent to it before, is closed: a wild write ends the
    /// worker that makes it, and changes nothing. Costs microseconds per published or lent array. Results below 64 KiB
    /// share the memory that the worker fills at the time, and are closed with it.
    #[default]
    On,
    /// A worker may still write what it has published or was lent once. Inputs and other workers'
    /// memory are out of its reach all the same.
    Off,
}

/// Settings of an engine; see [`Engine::builder`].
///
/// ```standalone_crate
/// use arenite::{Backing, Engine};
///
/// arenite::init();
/// let engine = Engine::builder()
///     .workers(2)
///     .capacity(256 << 20)
///     .backing(Backing::Memfd)
///     .label("example")
///     .build()?;
/// assert_eq!(engine.stats().workers.len(), 2);
/// # Ok::<(), arenite::BuildError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "settings do nothing before the engine is built"]
pub struct Builder {
    workers: Option<usize>,
    lanes: usize,
    share_deadlines: bool,
    capacity: Option<u64>,
    backing: Backing,
    guard: Guard,
    name: Option<String>,
    sweep: bool,
    label: String,
    memory_limit: u64,
    #[cfg(feature = "sandbox")]
    sandbox: Sandbox,
    on_start: Option<KernelInfo>,
    log: Sink,
    start_timeout: Duration,
    memory: MemorySettings,
    grace: Duration,
    quarantine_after: u32,
    seed: Option<u64>,
    pub(super) trace: Option<Plan>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            workers: None,
            lanes: 1,
            share_deadlines: false,
            capacity: None,
            backing: Backing::Auto,
            guard: Guard::On,
            name: None,
            sweep: true,
            label: "arenite".into(),
            memory_limit: 0,
            #[cfg(feature = "sandbox")]
            sandbox: Sandbox::Off,
            on_start: None,
            log: Sink::Stderr,
            start_timeout: Duration::from_secs(60),
            memory: MemorySettings::default(),
            grace: Duration::from_secs(5),
            quarantine_after: QUARANTINE_AFTER,
            seed: None,
            trace: None,
        }
    }

    /// Number of worker processes; by default one per core. At least 1, at most 1024. Each has one [lane](Builder::lanes).
    #[doc(alias("ProcessPoolExecutor", "max_workers", "n_jobs"))]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers.max(1));
        self
    }

    /// Lanes of each worker: threads of one process that take jobs side by side. 1 by default, at most 4096 in all workers together.
    ///
    /// For jobs that wait: for a server, a disk, a lock. While one waits the others of its worker go on, so two workers
    /// with 50 lanes each make a hundred calls at a time in two processes. Jobs that compute gain nothing from more
    /// lanes than cores.
    ///
    /// What lanes share is what the threads of a process share: `static`s, files, the heap, the
    /// [memory limit](Builder::memory_limit) (2 MiB of stack for each lane count), and the end of the process. A job that
    /// ends it takes along what runs beside it: those jobs answer
    /// [`LostWith`](super::JobErrorKind::LostWith) it, or run again if they have
    /// [retries](super::JobBuilder::retries), and its own error [names](super::JobError::beside) them. A job with a
    /// [deadline](super::JobBuilder::deadline) may be ended by force; therefore nothing runs beside it, unless
    /// [`share_deadlines`](Builder::share_deadlines) says so. Of a line that a worker prints nobody knows which of its jobs
    /// it comes from.
    ///
    /// ```standalone_crate
    /// use std::time::{Duration, Instant};
    ///
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(2).lanes(20).build()?;
    /// let start = Instant::now();
    /// let ask = |n: u64| {
    ///     std::thread::sleep(Duration::from_millis(50));
    ///     2 * n
    /// };
    /// let answers: Vec<u64> = engine.map(ask, (0..40u64).map(|n| (n,))).collect::<Result<_, _>>()?;
    /// assert_eq!(answers[39], 78);
    /// // One after the other it would have been two seconds.
    /// println!("{:?}", start.elapsed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "ThreadPoolExecutor")]
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes.max(1);
        self
    }

    /// Whether jobs with a [deadline](super::JobBuilder::deadline) run beside others in workers with several
    /// [`lanes`](Builder::lanes); by default they have a worker to themselves as long as they run. Whoever exceeds its
    /// deadline then takes along what runs beside it.
    ///
    /// For many calls that each have a deadline and are seldom late, best with retries:
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    ///
    /// use arenite::{Engine, JobErrorKind};
    ///
    /// fn call(n: u64) -> u64 {
    ///     // One server never answers.
    ///     std::thread::sleep(if n == 3 { Duration::MAX } else { Duration::from_millis(5) });
    ///     n
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).lanes(4).share_deadlines(true).build()?;
    /// let limit = Duration::from_millis(500);
    /// let submit = |n| engine.job(call, (n,)).deadline(limit).retries(1).submit();
    /// let calls: Vec<_> = (0..20u64).map(submit).collect();
    /// for (n, call) in (0..).zip(calls) {
    ///     match call.wait() {
    ///         Ok(answer) => assert_eq!(answer, n),
    ///         Err(error) => assert_eq!((n, error.kind()), (3, &JobErrorKind::DeadlineExceeded { limit })),
    ///     }
    /// }
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn share_deadlines(mut self, share: bool) -> Self {
        self.share_deadlines = share;
        self
    }

    /// Most bytes that arrays and results may take together; by default half of the memory that is
    /// available to this process, or less where its limits (RLIMIT_AS, RLIMIT_FSIZE) or `/dev/shm` do not allow that. Memory is committed as it is needed, 64 KiB or 2 MiB at a time (the capacity is rounded up to
    /// the former, and is no less), and stays so until [`trim`](Engine::trim), or until memory is short.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).capacity(64 << 20).build()?;
    /// let full = engine.zeros::<u8>(1 << 30).unwrap_err();
    /// assert_eq!((full.requested, full.capacity), (1 << 30, 64 << 20));
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// What the memory is made of; by default whatever fits.
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// Whether pages of others are closed for writing; by default they are.
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Keeps the arena's name as long as the engine lives, for tools to find it. By default names are
    /// gone before `build` returns.
    ///
    /// A name has 1 to 100 letters of ASCII, digits, `-` and `_`. [`build`](Builder::build) refuses others, a name that a running
    /// program uses for an arena, and any name with [`Backing::Sealed`].
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let name = format!("frames-{}", std::process::id());
    /// let engine = Engine::builder().workers(1).name(&name).build()?;
    /// let listed = || std::fs::read_dir("/dev/shm").unwrap().any(|file| {
    ///     file.unwrap().file_name().to_string_lossy().contains(&name)
    /// });
    /// assert!(listed());
    /// engine.shutdown();
    /// assert!(!listed());
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What process lists call this engine's workers: `label:0`, `label:1`, … (the first 15 bytes).
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Ceiling on the private memory (heap, stacks) of each worker, in bytes; arrays in the arena do
    /// not count. A kernel that asks for more aborts, its job fails with
    /// [`MemoryLimit`](super::JobErrorKind::MemoryLimit), and its worker is replaced. By default none, and none with 0.
    /// A program that a kernel starts has the same ceiling, for itself (`RLIMIT_DATA`), unless it is started without. The stack of
    /// a worker's first thread may be as large again at most.
    ///
    /// What kernels free stays with a worker for its next jobs, if it has one lane: about 64 MiB at most, or a quarter of the
    /// ceiling.
    ///
    /// ```standalone_crate
    /// use arenite::{Engine, JobErrorKind};
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).memory_limit(256 << 20).build()?;
    /// let hoard = || (0..1024).map(|_| vec![1u8; 1 << 20]).collect::<Vec<_>>().len() as u64;
    /// let error = engine.submit(hoard, ()).wait().unwrap_err();
    /// assert!(matches!(error.kind(), JobErrorKind::MemoryLimit { limit: 0x1000_0000, .. }));
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// What workers may do beside computing; by default whatever this user may.
    #[cfg(feature = "sandbox")]
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Runs in each worker before its first job, and again in each that replaces one. If it panics
    /// the worker counts as not started.
    ///
    /// ```standalone_crate
    /// use std::sync::OnceLock;
    /// use arenite::Engine;
    ///
    /// static TABLE: OnceLock<Vec<u32>> = OnceLock::new();
    ///
    /// fn square(x: u32) -> u32 {
    ///     TABLE.get().expect("filled at the start")[x as usize]
    /// }
    ///
    /// arenite::init();
    /// let start = || TABLE.set((0..100).map(|x| x * x).collect()).expect("filled once");
    /// let engine = Engine::builder().workers(1).on_worker_start(start).build()?;
    /// assert_eq!(engine.submit(square, (12,)).wait()?, 144);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_worker_start<F>(mut self, start: F) -> Self
    where
        F: Kernel<(), ()>,
    {
        // A name for its type: it has no bytes.
        let _ = start;
        self.on_start = Some(KernelInfo::of::<Single<F, (), ()>>());
        self
    }

    /// Takes what workers print to stdout and stderr, line by line, with the worker and the job that it comes
    /// from; by default each line goes to this program's stderr, as [`LogLine`] displays itself.
    ///
    /// What a kernel prints to stdout without a newline waits in its worker, as `print!` does anywhere, and comes with the next
    /// line that the worker prints: end with a newline, or flush.
    ///
    /// With the feature `tracing`, events of kernels come this way too: those that the program's subscriber would take at
    /// the time when the worker is started, or `INFO` and above where there is none.
    ///
    /// It is called on a thread of its own, one call at a time, in the order of the lines. While it does not come back
    /// lines wait, and are dropped and counted when they are too many; so are those of a worker that prints more than a
    /// mebibyte in a second, where each line counts 64 bytes more than it has. A panic in it costs the line. When the engine has ended, all lines have been taken,
    /// unless a call does not come back for two seconds.
    ///
    /// ```standalone_crate
    /// use std::sync::mpsc::channel;
    ///
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let (sender, lines) = channel();
    /// let engine = Engine::builder()
    ///     .workers(1)
    ///     .on_log(move |line| sender.send(line.to_string()).unwrap())
    ///     .build()?;
    /// engine.submit(|| println!("hello"), ()).wait()?;
    /// engine.shutdown();
    /// assert_eq!(lines.recv()?, "arenite:0 job 1: hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_log(mut self, take: impl Fn(&LogLine) + Send + Sync + 'static) -> Self {
        self.log = Sink::Call(Arc::new(take));
        self
    }

    /// How long a worker may take from its start until it is ready, [`on_worker_start`](Builder::on_worker_start)
    /// included; 60 seconds by default. One that takes longer is killed, and its start counts as failed: `build` answers
    /// with what it was at, and later on the engine tries again as after any failed start.
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    ///
    /// arenite::init();
    /// let error = arenite::Engine::builder()
    ///     .workers(1)
    ///     .on_worker_start(|| loop { std::thread::park() })
    ///     .start_timeout(Duration::from_millis(200))
    ///     .build()
    ///     .unwrap_err();
    /// assert!(error.to_string().contains("on_worker_start has not returned"), "{error}");
    /// ```
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = limit;
        self
    }

    /// Ceiling on the bytes of the jobs in flight, from submitting until they have ended: what their arguments hold that
    /// nobody else has (arrays that were moved into them, texts), and what they are expected to return by what their kernel
    /// returned before. By default none, and none with 0.
    ///
    /// Where a job does not fit, [`submit`](Engine::submit) and its like wait until others have ended, first come, first
    /// served; [`try_submit`](super::JobBuilder::try_submit) gives the arguments back instead. In `async` code, where no thread should
    /// wait, say [`submit_async`](super::JobBuilder::submit_async),
    /// [`call_async`](super::Actor::call_async) and [`stream`](super::Map::stream). A job that is larger than the
    /// ceiling is let in when nothing else is in flight, so nobody waits for ever. A kernel that has never run counts for as
    /// much as each lane's share, or twice its arguments if that is more. Results that nobody has dropped yet do not count, nor do arrays of arguments that are
    /// [kept](super::JobBuilder::keep_args): somebody else has them too.
    ///
    /// ```standalone_crate
    /// use arenite::{Array, Engine};
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(2).admission(8 << 20).build()?;
    /// let noise = |seed: u32| Array::from_fn(1 << 20, |i| (i as u32 ^ seed) as u8);
    /// // However many there are: not more than eight wait or run at any time.
    /// let jobs: Vec<_> = (0..100).map(|seed| engine.submit(noise, (seed,))).collect();
    /// assert!(engine.stats().admitted <= 8 << 20);
    /// # drop(jobs);
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn admission(mut self, bytes: u64) -> Self {
        self.memory.admission = bytes;
        self
    }

    /// Replaces each worker after it has run so many jobs: what its kernels have leaked goes with it. By default
    /// workers stay, and so they do with 0. Jobs never run on a worker that has had its number, and none is lost:
    /// [`recycled`](super::WorkerStats::recycled) counts these replacements.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).recycle_after_jobs(1).build()?;
    /// let first = engine.submit(std::process::id, ()).wait().unwrap();
    /// let second = engine.submit(std::process::id, ()).wait().unwrap();
    /// assert_ne!(first, second);
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn recycle_after_jobs(mut self, jobs: u64) -> Self {
        self.memory.recycling.jobs = match jobs {
            0 => u64::MAX,
            jobs => jobs,
        };
        self
    }

    /// Replaces a worker that has more private memory (heap, stacks) than so many bytes after a job: it ends what it runs,
    /// and what it was to run next goes to others. By default workers stay, and so they do with 0.
    ///
    /// The engine looks a few times a second, so a worker may grow further until then;
    /// [`memory_limit`](Builder::memory_limit) is the ceiling that holds at every moment, at the price of the job. What a
    /// worker keeps of freed memory for its next jobs is about a quarter of the mark at most.
    pub fn recycle_above(mut self, bytes: u64) -> Self {
        self.memory.recycling.above = match bytes {
            0 => u64::MAX,
            bytes => bytes,
        };
        self
    }

    /// Whether names that dead programs left in `/dev/shm` are removed first: not by one that only looks at the machine.
    #[doc(hidden)]
    pub fn sweep(mut self, sweep: bool) -> Self {
        self.sweep = sweep;
        self
    }

    /// Reads the memory limits of machine and container below this folder, for tests.
    #[doc(hidden)]
    pub fn memory_root(mut self, root: impl Into<std::path::PathBuf>) -> Self {
        self.memory.root = root.into();
        self
    }

    /// How long [`Engine::shutdown`] lets workers run on after the last job (which it waits for as long as it takes, unless
    /// [given a limit](Engine::shutdown_timeout)), and how long a job of a cancelled
    /// [`scope`](Engine::scope) may run on before its worker is ended; 5 seconds by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How many workers a job with [`retries`](crate::engine::JobBuilder::retries) may cost before it is not
    /// tried again, whatever retries it has left: it then answers
    /// [`Quarantined`](crate::JobErrorKind::Quarantined). 5 by default, at least 1.
    pub fn quarantine_after(mut self, workers: u32) -> Self {
        self.quarantine_after = workers.max(1);
        self
    }

    /// Seeds the random numbers that kernels draw by [`arenite::rng`](crate::rng), so that each run draws the same. By
    /// default chance does, and [`Engine::seed`] tells what it gave.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    /// use arenite::rand::RngExt;
    ///
    /// fn draw() -> f64 {
    ///     arenite::rng().random()
    /// }
    ///
    /// arenite::init();
    /// let run = |workers| -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    ///     let engine = Engine::builder().workers(workers).seed(7).build()?;
    ///     Ok(engine.map(draw, (0..100).map(|_| ())).collect::<Result<_, _>>()?)
    /// };
    /// assert_eq!(run(1)?, run(3)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// An engine without processes, as [`Engine::inline`] makes it, with this [`seed`](Builder::seed) and this
    /// [`trace`](Builder::trace). The other settings are those of workers, and mean nothing to it.
    pub fn inline(self) -> Engine {
        Engine {
            place: Place::Inline,
            names: super::actor::Names::default(),
            seeds: Arc::new(Seeds::new(self.seed).inlined(Enrolled::new(self.trace, &self.label))),
        }
    }

    /// Makes the arena and starts the workers. Returns when all of them are ready.
    ///
    /// # Errors
    /// [`BuildError`]: `init()` was not called, there would be too many workers or lanes, the arena does not fit or its name is
    /// taken, a worker cannot start, [`on_worker_start`](Builder::on_worker_start) is code of a shared library, a file of the trace
    /// cannot be written, the kernel lacks a part of a required sandbox, or a system call fails. Nothing is left behind then.
    ///
    /// # Panics
    /// Aborts when it is called in a worker: a kernel cannot have workers of its own.
    pub fn build(self) -> Result<Engine, BuildError> {
        if crate::worker::is_worker() {
            eprintln!(
                "arenite: a worker cannot build an engine of its own. If this is not a kernel, `arenite::init()` is missing at the beginning of `main`."
            );
            std::process::abort();
        }
        if !crate::worker::is_initialised() {
            return Err(BuildError::NotInitialised);
        }
        let workers = self.workers.unwrap_or_else(crate::sys::limits::cores);
        let workers = u16::try_from(workers)
            .ok()
            .filter(|&workers| workers <= MAX_WORKERS)
            .ok_or(BuildError::TooManyWorkers { asked: workers })?;
        let lanes = u16::try_from(self.lanes)
            .ok()
            .filter(|&lanes| usize::from(lanes) * usize::from(workers) <= MAX_LANES)
            .ok_or(BuildError::TooManyLanes { asked: self.lanes })?;
        #[cfg(feature = "sandbox")]
        let kernel = match self.sandbox {
            Sandbox::Off => sandbox::SandboxFeatures::default(),
            Sandbox::Strict | Sandbox::Required => {
                sandbox::features().map_err(BuildError::System)?
            }
        };
        #[cfg(feature = "sandbox")]
        if self.sandbox == Sandbox::Required {
            let report = SandboxReport { kernel };
            if !report.is_complete() {
                return Err(BuildError::SandboxLacks(report));
            }
        }
        let on_start = match self.on_start {
            None => None,
            Some(info) => Some(to_offset(info.entry).ok_or(BuildError::ForeignKernel)?),
        };
        let around = SystemInfo::read(&self.memory.root);
        let mut spec = Spec {
            name: self.name,
            capacity: self.capacity.unwrap_or_else(|| around.default_capacity()),
            writers: workers,
            backing: self.backing,
            control_len: control_bytes(usize::from(workers) * usize::from(lanes)) as u64,
            sweep: self.sweep,
            root: self.memory.root.clone(),
        };
        let arena = loop {
            match Arena::create_in(&around, &spec) {
                // Nobody has asked for it, and a process may have less than its machine.
                Err(ArenaError::TooLarge { largest, .. })
                    if self.capacity.is_none()
                        && (LEAST_DEFAULT..spec.capacity).contains(&largest) =>
                {
                    spec.capacity = largest;
                }
                created => break created.map_err(BuildError::Arena)?,
            }
        };
        let seeds = Arc::new(Seeds::new(self.seed));
        let settings = Settings {
            workers,
            lanes,
            share_deadlines: self.share_deadlines,
            guard: self.guard == Guard::On,
            memory_limit: self.memory_limit,
            #[cfg(feature = "sandbox")]
            strict: self.sandbox != Sandbox::Off,
            #[cfg(not(feature = "sandbox"))]
            strict: false,
            #[cfg(feature = "sandbox")]
            kernel,
            on_start,
            label: self.label,
            log: self.log,
            start_timeout: self.start_timeout,
            memory: self.memory,
            grace: self.grace,
            quarantine_after: self.quarantine_after,
            sweep: self.sweep,
            seed: seeds.run(),
        };
        let tracer = self.trace.map(|plan| Tracer::start(plan, &settings.label));
        let tracer = tracer
            .transpose()
            .map_err(|(path, error)| BuildError::Trace(TraceError { path, error }))?;
        let (shared, monitor) =
            supervisor::start(arena, settings, tracer).map_err(|error| match error {
                StartError::System(error) => BuildError::System(error),
                StartError::Worker(HandshakeError::Failed(why)) => BuildError::Worker(why),
                StartError::Worker(why) => BuildError::Worker(why.to_string()),
            })?;
        let monitor = Mutex::new(Some(monitor));
        Ok(Engine {
            place: Place::Workers(Workers { shared, monitor }),
            names: super::actor::Names::default(),
            seeds,
        })
    }
}

/// The most workers that an engine may have.
pub(super) const MAX_WORKERS: u16 = 1024;
/// A limit that leaves less than this is to be told, and not to be lived with.
const LEAST_DEFAULT: u64 = 16 << 20;
/// The most lanes that they may have together.
pub(super) const MAX_LANES: usize = 4096;
