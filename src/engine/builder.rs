//! Settings of an engine: [`Builder`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::inlined::Inlined;
use super::limits::{
    ArenaShare, MAX_LANES, MAX_WORKERS, MIN_DEFAULT, check_capacity, check_label, check_least,
    check_memory,
};
use super::seeds::Seeds;
use super::{Backend, BuildError, Engine, TraceError, WorkerProgram, Workers};
#[cfg(feature = "sandbox")]
use super::{Sandbox, SandboxReport};
use crate::arena::{Arena, ArenaError, Backing, Spec, SystemInfo};
use crate::control::{HandshakeError, OnStart};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Args, CallWriter, Kernel, KernelInfo, Params, Reply, Single, captures_nothing, to_offset,
};
use crate::link::control_bytes;
use crate::supervisor::{
    self, LogLine, MemorySettings, QUARANTINE_AFTER, Settings, Sink, StartError,
};
#[cfg(feature = "sandbox")]
use crate::sys::sandbox;
use crate::trace::{TraceConfig, Tracer};

/// Whether a worker write-protects pages that do not belong to its running job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guard {
    /// Arrays that a worker has published, or that were lent to it earlier, are write-protected: a stray write ends the
    /// worker and changes nothing. Costs microseconds per published or lent array. Results below 64 KiB share memory
    /// with results that the worker still fills, and are protected together with these.
    #[default]
    On,
    /// A worker can still write to arrays that it has published or that were lent to it earlier. It can never write to
    /// inputs or to other workers' memory.
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
#[must_use = "settings have no effect until the engine is built"]
pub struct Builder {
    program: Option<WorkerProgram>,
    workers: Option<usize>,
    spares: usize,
    lanes: usize,
    co_schedule_deadlines: bool,
    capacity: Option<u64>,
    backing: Backing,
    guard: Guard,
    name: Option<String>,
    sweep: bool,
    in_core_dumps: bool,
    label: String,
    memory_limit: u64,
    max_arena_per_worker: ArenaShare,
    #[cfg(feature = "sandbox")]
    sandbox: Sandbox,
    on_start: Option<StartCall>,
    retain: Option<KernelInfo>,
    log: Sink,
    in_background: bool,
    start_timeout: Option<Duration>,
    memory: MemorySettings,
    grace: Duration,
    quarantine_after: u32,
    seed: Option<u64>,
    pub(super) trace: Option<TraceConfig>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            program: None,
            workers: None,
            spares: 0,
            lanes: 1,
            co_schedule_deadlines: false,
            capacity: None,
            backing: Backing::Auto,
            guard: Guard::On,
            name: None,
            sweep: true,
            in_core_dumps: false,
            label: "arenite".into(),
            memory_limit: 0,
            max_arena_per_worker: ArenaShare::LeavesOthers,
            #[cfg(feature = "sandbox")]
            sandbox: Sandbox::Off,
            on_start: None,
            retain: None,
            log: Sink::Stderr,
            in_background: false,
            start_timeout: None,
            memory: MemorySettings::default(),
            grace: Duration::from_secs(5),
            quarantine_after: QUARANTINE_AFTER,
            seed: None,
            trace: None,
        }
    }

    /// Sets the number of worker processes, from 1 to 1024. The default is one per core. Each has one
    /// [lane](Builder::lanes).
    #[doc(alias("ProcessPoolExecutor", "max_workers", "n_jobs"))]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets the number of spare workers: processes that are ready and get no job until another worker has ended,
    /// whether by a crash, by a deadline, by [`kill`](super::Job::kill), at its memory limit, or to be
    /// [recycled](Builder::recycle_after_jobs). Then a spare takes its place, and a new spare is started. So the next
    /// job does not wait for a process to start and to run [`on_worker_start`](Builder::on_worker_start). The default
    /// is 0; the maximum of workers and spares together is 1024.
    ///
    /// At most [`workers`](Builder::workers) processes have jobs at the same time, as without spares. Spares are
    /// started when all active workers are ready; [`build`](Builder::build) does not wait for spares. Each costs the
    /// memory of an idle process, and 64 KiB of the arena. [`Stats::workers`](super::Stats::workers) includes them.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// fn crash() {
    ///     std::process::abort();
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).spares(1).build()?;
    /// let spare = loop {
    ///     let stats = engine.stats();
    ///     if let Some(spare) = stats.workers.iter().find(|worker| worker.spare) {
    ///         break spare.pid;
    ///     }
    ///     std::thread::yield_now();
    /// };
    /// engine.submit(crash, ()).wait().unwrap_err();
    /// assert_eq!(engine.submit(std::process::id, ()).wait()?, spare);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spares(mut self, spares: usize) -> Self {
        self.spares = spares;
        self
    }

    /// Sets the program that workers run. The default is this program, without arguments. A different program has to
    /// call [`run_worker`](crate::run_worker); then this program need not call [`init`](crate::init).
    ///
    /// Use it for kernels in a shared object, such as an extension module of an interpreter: each worker runs the
    /// interpreter, which loads the same file. Both programs must contain arenite in the same file (the executable or
    /// the shared object); kernels are functions of that file.
    pub fn worker_program(mut self, program: WorkerProgram) -> Self {
        self.program = Some(program);
        self
    }

    /// Sets the number of lanes of each worker: threads of one process that run jobs concurrently. The default is 1;
    /// all workers together may have 4096 lanes.
    ///
    /// Use more lanes for jobs that wait for a server, a disk or a lock: two workers with 50 lanes each run a hundred
    /// calls at a time in two processes. Jobs that compute gain nothing from more lanes than cores.
    ///
    /// Lanes share what the threads of a process share: `static`s, files, the heap, the [memory
    /// limit](Builder::memory_limit) (2 MiB of stack count for each lane), and the end of the process. When a job ends
    /// its process, the jobs on its other lanes fail with [`WorkerExit::OtherJob`](crate::WorkerExit::OtherJob), or run
    /// again if they have [retries](super::JobBuilder::retries); the error of the job at fault
    /// [lists](super::JobError::lost_jobs) them. The worker of a job with a [deadline](super::JobBuilder::deadline) may
    /// be killed, so no other job runs in that worker unless [`co_schedule_deadlines`](Builder::co_schedule_deadlines)
    /// is set. With more than one lane, output cannot be attributed to a job.
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
        self.lanes = lanes;
        self
    }

    /// Allows jobs with a [deadline](super::JobBuilder::deadline) to share a worker with several
    /// [`lanes`](Builder::lanes). By default such a job has its worker to itself. When a job exceeds its deadline, the
    /// jobs on the other lanes are lost with it.
    ///
    /// Use it for many calls that each have a deadline and are rarely late, together with retries:
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    ///
    /// use arenite::{Engine, JobErrorKind, JobLimit};
    ///
    /// fn call(n: u64) -> u64 {
    ///     // One server never answers.
    ///     std::thread::sleep(if n == 3 { Duration::MAX } else { Duration::from_millis(5) });
    ///     n
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).lanes(4).co_schedule_deadlines(true).build()?;
    /// let limit = Duration::from_millis(500);
    /// let submit = |n| engine.job(call, (n,)).deadline(limit).retries(1).submit();
    /// let calls: Vec<_> = (0..20u64).map(submit).collect();
    /// for (n, call) in (0..).zip(calls) {
    ///     match call.wait() {
    ///         Ok(answer) => assert_eq!(answer, n),
    ///         Err(error) => assert_eq!((n, error.kind()), (3, &JobErrorKind::Limit(JobLimit::Deadline { limit }))),
    ///     }
    /// }
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn co_schedule_deadlines(mut self, share: bool) -> Self {
        self.co_schedule_deadlines = share;
        self
    }

    /// Sets the size of the arena: the bytes that all arrays and results together may take.
    ///
    /// The default is half of the memory that is available to this process, or less if its limits (RLIMIT_AS,
    /// RLIMIT_FSIZE) or `/dev/shm` require it. The capacity is at least 1 MiB, rounded up to a multiple of 64 KiB.
    /// Memory is committed as it is needed, 64 KiB or 2 MiB at a time. Memory that is unused for five to ten seconds
    /// goes back to Linux, or at once when the system is low on memory or [`trim`](Engine::trim) is called.
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

    /// Sets the kind of memory of the arena. The default is the best kind that the system offers.
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// Sets whether workers write-protect pages that do not belong to their running job. The default is [`Guard::On`].
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Gives the arena a name in `/dev/shm` as long as the engine lives, so that tools find it. By default the name is
    /// removed before `build` returns.
    ///
    /// A name has 1 to 100 ASCII letters, digits, `-` and `_`. [`build`](Builder::build) rejects other names, a name
    /// that a running program uses for an arena, and any name with [`Backing::Sealed`].
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

    /// Sets whether core dumps of this program contain the arena. The default is `false`: the arena may be large and
    /// may contain secrets. Workers leave no core dumps.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).include_in_core_dumps(true).build()?;
    /// assert_eq!(engine.submit(|| 1u8, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn include_in_core_dumps(mut self, included: bool) -> Self {
        self.in_core_dumps = included;
        self
    }

    /// Names this engine's workers in process lists: `label:0`, `label:1`, … (the first 15 bytes).
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Limits the private memory (heap, stacks) of each worker, in bytes; arrays in the arena do not count. 0, the
    /// default, means no limit.
    ///
    /// If a kernel requests more, its process aborts, its job fails with [`JobLimit::Memory`](crate::JobLimit::Memory),
    /// and its worker is replaced. A program started by a kernel inherits the limit for itself (`RLIMIT_DATA`). The
    /// stack of a worker's first thread may take the same amount in addition. Linux counts private, writable memory:
    /// without a sandbox, a kernel could get more by shared or growing memory, by page tables, or by making memory
    /// read-only. In a [sandbox](Builder::sandbox) with a limit, pages of published results are not [guarded](Guard).
    ///
    /// A worker with one lane keeps freed memory for its next jobs: at most about 64 MiB, or a quarter of the limit.
    /// [`build`](Builder::build) rejects a limit below 8 MiB, because few workers could start with it.
    ///
    /// ```standalone_crate
    /// use arenite::{Engine, JobErrorKind, JobLimit};
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).memory_limit(256 << 20).build()?;
    /// let hoard = || (0..1024).map(|_| vec![1u8; 1 << 20]).collect::<Vec<_>>().len() as u64;
    /// let error = engine.submit(hoard, ()).wait().unwrap_err();
    /// assert!(matches!(error.kind(), JobErrorKind::Limit(JobLimit::Memory { limit: 0x1000_0000, .. })));
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Limits the bytes of the arena that one worker may occupy: results that its jobs are computing, and arrays that
    /// it [retains](Builder::retain_escaped). Returned results belong to the program and do not count, nor do the
    /// arguments of jobs.
    ///
    /// By default each worker can get its share, whatever the others do: a quarter of the memory that is free or that
    /// workers occupy, divided by the number of workers. A single worker may take everything; each of several may take
    /// all except the shares of the others. A job that needs more fails with
    /// [`JobLimit::ArenaShare`](crate::JobLimit::ArenaShare), and the jobs of other workers continue. If the limit is
    /// the capacity, one job may take everything. Up to an eighth of a limit may be memory that was granted to the
    /// worker but is not used.
    ///
    /// ```standalone_crate
    /// use arenite::{Array, Engine, JobErrorKind, JobLimit};
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(2).capacity(64 << 20).max_arena_per_worker(16 << 20).build()?;
    /// let zeros = |len: u64| Array::<u8>::zeros(len as usize);
    /// let error = engine.submit(zeros, (20 << 20,)).wait().unwrap_err();
    /// let JobErrorKind::Limit(JobLimit::ArenaShare(full)) = error.kind() else { panic!("{error}") };
    /// assert_eq!((full.requested, full.worker_share()), (20 << 20, Some(16 << 20)));
    /// assert_eq!(engine.submit(zeros, (10 << 20,)).wait()?.len(), 10 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_arena_per_worker(mut self, bytes: u64) -> Self {
        self.max_arena_per_worker = ArenaShare::Bytes(bytes);
        self
    }

    /// Sets [`max_arena_per_worker`](Builder::max_arena_per_worker) as a fraction of the capacity, above 0, at most 1.
    pub fn max_arena_fraction_per_worker(mut self, fraction: f64) -> Self {
        self.max_arena_per_worker = ArenaShare::Fraction(fraction);
        self
    }

    /// Restricts the system calls of workers. By default workers have all rights of the user that runs this program.
    #[cfg(feature = "sandbox")]
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Runs a function in each worker before its first job, including replacements of ended workers. If it panics, the
    /// worker has failed to start.
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
    pub fn on_worker_start<F>(self, start: F) -> Self
    where
        F: Kernel<(), ()>,
    {
        const { captures_nothing::<F>() };
        self.on_worker_start_with(start, ())
    }

    /// Like [`on_worker_start`](Builder::on_worker_start), with arguments: numbers, text and [`Bytes`](crate::Bytes).
    /// Arrays cannot be passed, because there is no arena yet. If `start` returns `Err`, the start has failed.
    ///
    /// ```standalone_crate
    /// use std::sync::OnceLock;
    /// use arenite::Engine;
    ///
    /// static NAME: OnceLock<String> = OnceLock::new();
    ///
    /// fn start(name: &str, least: u64) -> Result<(), String> {
    ///     if (name.len() as u64) < least {
    ///         return Err(format!("{name:?} is too short"));
    ///     }
    ///     NAME.set(name.to_owned()).map_err(|_| "called twice".to_owned())
    /// }
    ///
    /// arenite::init();
    /// let builder = Engine::builder().workers(1);
    /// let engine = builder.clone().on_worker_start_with(start, ("photos", 2u64)).build()?;
    /// assert_eq!(engine.submit(|| NAME.get().cloned(), ()).wait()?.as_deref(), Some("photos"));
    ///
    /// let error = builder.on_worker_start_with(start, ("x", 2u64)).build().unwrap_err();
    /// assert!(error.to_string().contains("\"x\" is too short"), "{error}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_worker_start_with<F, A, P, R>(mut self, start: F, args: A) -> Self
    where
        F: Kernel<P, R>,
        A: Args<'static, P>,
        P: Params,
        R: Reply<Out = ()>,
    {
        const { captures_nothing::<F>() };
        const { assert!(!R::SPAWNS, "on_worker_start cannot spawn jobs") };
        // Only the type of `start` is used: its value has no bytes.
        let _ = start;
        // No arena has this number, so each array is rejected as foreign.
        let mut call = CallWriter(ArgWriter::new(u64::MAX));
        args.send(&mut call);
        self.on_start = Some(StartCall {
            kernel: KernelInfo::of::<Single<F, P, R>>(),
            words: call.0.words().into(),
            has_arrays: call.0.foreign || call.0.exclusive || !call.0.leases.is_empty(),
        });
        self
    }

    /// Allows array handles to outlive their job in the worker: in a `static`, in a cache, on a thread, in the state of
    /// an actor. Without this option such a job fails with [`WorkerExit::Escaped`](crate::WorkerExit::Escaped).
    ///
    /// The worker retains each of these arrays until its last handle in the worker is dropped or the process ends, for
    /// example because it is [recycled](Builder::recycle_after_jobs). Until then its memory stays in use:
    /// [`Stats::retained`](super::Stats::retained) counts it, and so does
    /// [`ArenaFull::retained`](crate::ArenaFull::retained). An input is retained as a whole, and the program's own
    /// handle cannot be made writable again meanwhile.
    ///
    /// An `ArrayMut` that the job created or received as an argument stays writable. If any part of an array was
    /// returned, the array can no longer be changed: [`Array::try_into_mut`](crate::Array::try_into_mut) fails in the
    /// worker from then on, so a cache or an actor that changes such an array has to [copy](crate::Array::copy) it
    /// first. A retained `ArrayMut` that a later job returns is copied.
    ///
    /// The worker notices a drop between two jobs, and when it runs out of jobs or wakes up; if a thread drops a handle
    /// while the worker sleeps, the memory is freed when the worker next wakes up.
    ///
    /// The worker calls `before` after a job whose array handles outlive it. `before` may drop handles that are no
    /// longer needed, such as the contents of a cache. Pass `|| {}` if there is nothing to do.
    ///
    /// ```standalone_crate
    /// use std::sync::Mutex;
    ///
    /// use arenite::{Array, Engine};
    ///
    /// static TABLE: Mutex<Option<Array<u32>>> = Mutex::new(None);
    ///
    /// fn load(table: &Array<u32>) {
    ///     *TABLE.lock().unwrap() = Some(table.clone());
    /// }
    ///
    /// fn look_up(index: usize) -> u32 {
    ///     TABLE.lock().unwrap().as_ref().map_or(0, |table| table[index])
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).retain_escaped(|| {}).build()?;
    /// let table = engine.from_slice(&[10, 20, 30])?;
    /// engine.submit(load, (&table,)).wait()?;
    /// assert_eq!(engine.submit(look_up, (2,)).wait()?, 30);
    /// assert!(engine.stats().retained() > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retain_escaped<F>(mut self, before: F) -> Self
    where
        F: Kernel<(), ()>,
    {
        const { captures_nothing::<F>() };
        // Only the type of `before` is used: its value has no bytes.
        let _ = before;
        self.retain = Some(KernelInfo::of::<Single<F, (), ()>>());
        self
    }

    /// Receives the lines that workers print to stdout and stderr, with the worker and the job that printed each line.
    /// By default each line goes to this program's stderr, as [`LogLine`] displays it.
    ///
    /// Text without a newline becomes a line at the end of its job. In a worker with several threads or lanes it may
    /// stay in the buffer of `print!` until the next line: end it with a newline, or flush.
    ///
    /// With the feature `tracing`, events of kernels arrive as well: those that the program's subscriber accepts when
    /// the worker starts, or `INFO` and above if there is no subscriber.
    ///
    /// `take` is called on a thread of its own, one call at a time, in the order of the lines. Lines that arrive during
    /// a call wait. They are dropped and counted when there are too many, or when one worker prints more than 1 MiB per
    /// second (each line counts 64 bytes more than its length). If `take` panics, its line is lost. When the engine has
    /// ended, all lines have been delivered, unless a call does not return for two seconds.
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

    /// Limits the time from a worker's start until it is ready, including
    /// [`on_worker_start`](Builder::on_worker_start) and `Template::load`. A worker that takes
    /// longer is killed and has failed to start: `build` returns an error that names the step that the worker had
    /// reached; after `build`, the engine starts another worker, as after any failed start.
    ///
    /// By default, code of the program may take any time: it may load a model. Only steps of the engine are limited, to
    /// 60 seconds each; such a step includes what the program does before [`init`](crate::init).
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
        self.start_timeout = Some(limit);
        self
    }

    /// Lets [`build`](Builder::build) return while the workers start. Jobs wait until the first worker is ready. If the
    /// first start that finishes has failed, no further start is tried, and each job fails with
    /// [`JobErrorKind::NoWorkers`](crate::JobErrorKind::NoWorkers), which contains the error of `build`. A start that
    /// failed because descriptors, processes or memory are short is tried again.
    ///
    /// ```standalone_crate
    /// use arenite::{Engine, JobErrorKind};
    ///
    /// arenite::init();
    /// let builder = Engine::builder().workers(1).start_in_background();
    /// let engine = builder.clone().build()?;
    /// assert_eq!(engine.submit(|x: u32| x + 1, (41,)).wait()?, 42);
    ///
    /// let engine = builder.on_worker_start(|| panic!("no configuration")).build()?;
    /// let error = engine.submit(|x: u32| x + 1, (41,)).wait().unwrap_err();
    /// assert!(matches!(error.kind(), JobErrorKind::NoWorkers(why) if why.contains("no configuration")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_in_background(mut self) -> Self {
        self.in_background = true;
        self
    }

    /// Limits the bytes of the jobs in flight, from submission to their end. 0, the default, means no limit.
    ///
    /// A job counts as the memory that only its arguments refer to (arrays that were moved into them, text) plus the
    /// size of its result, as expected from earlier calls of its kernel. A job whose kernel has not run yet counts as
    /// one lane's share of the limit, or twice its arguments if that is more. Results that were not dropped yet do not
    /// count, nor do arrays in [kept](super::JobBuilder::keep_args) arguments, because they have other handles.
    ///
    /// While a job does not fit, [`submit`](Engine::submit) and similar calls wait until other jobs have ended, in the
    /// order of submission; [`try_submit`](super::JobBuilder::try_submit) returns the arguments instead. In `async`
    /// code use [`submit_async`](super::JobBuilder::submit_async), [`call_async`](super::Actor::call_async) and
    /// [`stream`](super::Map::stream), which block no thread. A job that is larger than the limit runs when no other
    /// job is in flight, so every job runs eventually.
    ///
    /// ```standalone_crate
    /// use arenite::{Array, Engine};
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(2).max_in_flight_bytes(8 << 20).build()?;
    /// let noise = |seed: u32| Array::from_fn(1 << 20, |i| (i as u32 ^ seed) as u8);
    /// // At most eight of them wait or run at any time.
    /// let jobs: Vec<_> = (0..100).map(|seed| engine.submit(noise, (seed,))).collect();
    /// assert!(engine.stats().admitted <= 8 << 20);
    /// # drop(jobs);
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn max_in_flight_bytes(mut self, bytes: u64) -> Self {
        self.memory.admission = bytes;
        self
    }

    /// Replaces each worker after this number of jobs, which frees what its kernels have leaked. 0, the default, means
    /// never. No job is lost; [`recycled`](super::WorkerStats::recycled) counts these replacements.
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

    /// Replaces a worker that has more private memory (heap, stacks) than this number of bytes after a job. The worker
    /// finishes the jobs that it runs; its jobs that have not begun go to other workers. 0, the default, means never.
    ///
    /// The engine checks a few times per second, so a worker may grow further in between;
    /// [`memory_limit`](Builder::memory_limit) is enforced at every moment, but fails the job. A worker keeps freed
    /// memory for its next jobs: at most about a quarter of this number of bytes.
    pub fn recycle_above_bytes(mut self, bytes: u64) -> Self {
        self.memory.recycling.above = match bytes {
            0 => u64::MAX,
            bytes => bytes,
        };
        self
    }

    /// Sets whether names that dead programs left in `/dev/shm` are removed when the engine is built. A program that
    /// only inspects the machine sets `false`.
    #[doc(hidden)]
    pub fn sweep(mut self, sweep: bool) -> Self {
        self.sweep = sweep;
        self
    }

    /// Reads the memory limits of the machine and the container below this folder, for tests.
    #[doc(hidden)]
    pub fn memory_root(mut self, root: impl Into<std::path::PathBuf>) -> Self {
        self.memory.root = root.into();
        self
    }

    /// Sets the grace period: how long [`Engine::shutdown`] waits for workers to exit after the last job, and how long
    /// a job of a cancelled [`scope`](Engine::scope) may continue before its worker is killed. The default is 5
    /// seconds.
    ///
    /// `shutdown` waits without a limit for the last job; see [`shutdown_timeout`](Engine::shutdown_timeout).
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Limits how many workers a job with [`retries`](crate::engine::JobBuilder::retries) may end. At the limit the job
    /// fails with [`JobLimit::Quarantined`](crate::JobLimit::Quarantined), even if it has retries left. The default is
    /// 5, the minimum 1.
    pub fn quarantine_after(mut self, workers: u32) -> Self {
        self.quarantine_after = workers.max(1);
        self
    }

    /// Seeds the random numbers that kernels draw from [`arenite::rng`](crate::rng), so that each run draws the same
    /// numbers. By default the seed is random, and [`Engine::seed`] returns it.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    /// use rand::RngExt;
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

    /// Builds an engine without processes, like [`Engine::inline`], with this [`seed`](Builder::seed) and this
    /// [`trace`](Builder::trace). The other settings concern workers and have no effect.
    pub fn inline(self) -> Engine {
        Engine {
            backend: Backend::Inline,
            names: super::actor::Names::default(),
            seeds: Arc::new(Seeds::new(self.seed).inlined(Inlined::new(self.trace, &self.label))),
        }
    }

    /// Creates the arena and starts the workers. Returns when all of them are ready. These and later workers have the
    /// environment, the root and working directories and the umask that this process has during this call. So the
    /// program may call `chroot` afterwards, unless a container forbids threads with a root of their own (`unshare`).
    ///
    /// # Errors
    /// [`BuildError`]: `init()` was not called, this process is a worker itself, there are no or too many workers or
    /// lanes, a limit is too low, the arena does not fit or its name is taken, a worker cannot start,
    /// a function given to this builder is code of another library, a file of the trace cannot be written, Linux lacks
    /// a part of a required sandbox, or a system call fails. Nothing is left behind.
    ///
    /// # Panics
    /// Aborts in a process that an engine has started as a worker and that has called neither `init()` nor
    /// `run_worker()`: it would start workers endlessly.
    pub fn build(self) -> Result<Engine, BuildError> {
        if crate::worker::is_worker() {
            return Err(BuildError::InWorker);
        }
        if crate::worker::is_unadopted() {
            eprintln!(
                "arenite: this process was started as a worker, and has not become one: `arenite::init()` is missing \
                 at the beginning of `main`, or `arenite::run_worker()` in a worker program."
            );
            std::process::abort();
        }
        if self.program.is_none() && !crate::worker::is_initialised() {
            return Err(BuildError::NotInitialised);
        }
        crate::sys::process::check_proc().map_err(BuildError::System)?;
        let sandboxed = self.is_sandboxed();
        let program = match self.program {
            Some(program) => program.resolve(sandboxed)?,
            None => super::worker_program::this(sandboxed)?,
        };
        let is_forked = program.start.is_forked();
        crate::control::pin_socket_folder_of_object();
        let active = self.workers.unwrap_or_else(crate::sys::limits::cores);
        check_least("workers", active as u64, 1, "")?;
        check_least("lanes", self.lanes as u64, 1, "")?;
        check_capacity(self.capacity)?;
        check_label(&self.label)?;
        check_memory(self.memory_limit)?;
        let workers = active.saturating_add(self.spares);
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
            Some(call) if call.has_arrays => return Err(BuildError::StartWithArrays),
            Some(call) => Some(OnStart {
                entry: to_offset(call.kernel.entry).ok_or(BuildError::ForeignKernel)?,
                words: call.words.to_vec(),
            }),
        };
        let retain = match self.retain {
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
            in_core_dumps: self.in_core_dumps,
            root: self.memory.root.clone(),
        };
        let arena = loop {
            match Arena::create_in(&around, &spec) {
                // The default size follows the machine; the limits of this process may allow less.
                Err(ArenaError::TooLarge { largest, .. })
                    if self.capacity.is_none()
                        && (MIN_DEFAULT..spec.capacity).contains(&largest) =>
                {
                    spec.capacity = largest;
                }
                created => break created.map_err(BuildError::Arena)?,
            }
        };
        let seeds = Arc::new(Seeds::new(self.seed));
        let settings = Settings {
            program,
            workers,
            // Fits, because it is less than `workers`, which is a `u16`.
            spares: self.spares as u16,
            lanes,
            co_schedule_deadlines: self.co_schedule_deadlines,
            guard: self.guard == Guard::On,
            memory_limit: self.memory_limit,
            max_arena_per_worker: self.max_arena_per_worker.bytes(arena.capacity())?,
            sandboxed,
            #[cfg(feature = "sandbox")]
            kernel,
            on_start,
            retain,
            label: self.label,
            log: self.log,
            in_background: self.in_background || is_forked,
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
                StartError::Worker(HandshakeError::Failed(why)) => BuildError::Worker(why.why),
                StartError::Worker(why) => BuildError::Worker(why.to_string()),
            })?;
        let monitor = Mutex::new(Some(monitor));
        Ok(Engine {
            backend: Backend::Workers(Arc::new(Workers { shared, monitor })),
            names: super::actor::Names::default(),
            seeds,
        })
    }
}

/// The arguments of [`Builder::on_worker_start_with`].
#[derive(Clone, Debug)]
struct StartCall {
    kernel: KernelInfo,
    /// The encoded arguments.
    words: Arc<[u64]>,
    has_arrays: bool,
}

impl Builder {
    fn is_sandboxed(&self) -> bool {
        #[cfg(feature = "sandbox")]
        return self.sandbox != Sandbox::Off;
        #[cfg(not(feature = "sandbox"))]
        false
    }
}
