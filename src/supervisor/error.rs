//! What a job answers when it gives no value.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::depend::limits::{MAX_OPEN_TASKS, MAX_SPAWN_DEPTH};
use super::output::escape;
use crate::arena::ArenaFull;
use crate::kernel::{KernelError, Returned};

/// Why a job gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobErrorKind {
    /// The kernel panicked. Its worker lives on. Of the message a worker sends the first 8 KiB, of the three texts 16. An inline engine
    /// leaves the panic's message to the program's own hook: there `location` says so, and `backtrace` is empty.
    Panicked {
        /// What the panic said.
        message: String,
        /// Where: `file:line:column`.
        location: String,
        /// The stack at that moment, as text.
        backtrace: String,
    },
    /// The worker was ended by this signal while the job ran: 11 is a wild access, 6 an abort, 9 a
    /// kill.
    Signal(i32),
    /// The worker ended with this code while the job ran; `None` where somebody else took the code.
    Exited(Option<i32>),
    /// It ran longer than its deadline allows, and its worker was killed.
    DeadlineExceeded {
        /// How long it was allowed to run.
        limit: Duration,
    },
    /// It asked for more private memory than [`memory_limit`](crate::engine::Builder::memory_limit) leaves a
    /// worker, and its worker aborted. With `requested` that is certain. Without, the last system call or library function
    /// that had failed in the aborting thread had found no memory, which is what a C library leaves behind that gives up
    /// then: a job that outlives a failed allocation and aborts for another reason is told as the same.
    MemoryLimit {
        /// The ceiling, in bytes.
        limit: u64,
        /// The allocation that failed, in bytes, where it is known.
        requested: Option<u64>,
    },
    /// The kernel's out-of-memory killer ended the worker: the machine or the container had no memory left.
    OutOfMemoryKill,
    /// Its worker was killed because of another job, and nobody knows how far this one had come.
    LostWith {
        /// The number of the job that is to blame; 0 where the worker did something that no job had to do with.
        job: u64,
        /// What that job did.
        culprit: Box<JobErrorKind>,
    },
    /// The call's actor lost its state with its worker, or has never had one.
    ActorLost {
        /// What ended the worker, or why there was no state. [`LostWith`](JobErrorKind::LostWith) if it was not this actor.
        cause: Box<JobErrorKind>,
        /// Calls that had been answered before, and that no state has seen any more.
        forgotten: u64,
        /// It goes on from its last checkpoint: later calls have answers again.
        restarted: bool,
    },
    /// The call came after the end of its actor.
    ActorEnded,
    /// It would have waited for something that ends only when it has ended itself, and so for ever. It was not run.
    ///
    /// Only in an inline engine, where kernels run in the thread that submits them and can come back to actors and engines: a
    /// method calls its own actor, or a job that has the last permit of a [`Limiter`](crate::Limiter) submits another that
    /// needs one.
    WaitsForItself {
        /// For what it would have waited, and what to do about it.
        why: &'static str,
    },
    /// The sandbox denied a system call that the worker cannot do without, and ended it.
    Denied {
        /// The call's name, or its number.
        call: String,
    },
    /// So many of its attempts ended their worker that it is not tried again; [`JobError::deaths`] lists how.
    Quarantined {
        /// Workers that it cost.
        deaths: u32,
    },
    /// A node of a [`Graph`](crate::Graph) that this one depends on gave no value, so this one never ran.
    DependencyFailed {
        /// The node that failed: the name it was given, or its number.
        node: String,
        /// The number of its job; 0 in an inline engine, which has none.
        job: u64,
        /// Its kernel.
        kernel: &'static str,
        /// Why it failed.
        cause: Box<JobErrorKind>,
    },
    /// A job that this one [spawned](crate::Spawn) gave no value, or the one that was to go on with the values of the others.
    ChildFailed {
        /// The number of that job.
        job: u64,
        /// Its kernel.
        kernel: &'static str,
        /// Why it failed.
        cause: Box<JobErrorKind>,
    },
    /// The job spawned others, which workers under a strict sandbox may not: one that was taken over could have any kernel
    /// run, on any arguments.
    NoSpawning,
    /// The job [spawned](crate::Spawn) others beyond what any job needs: a recursion without an end, most likely.
    SpawnLimit {
        /// How many jobs would wait for each other, each for one that it spawned.
        depth: u32,
        /// How many jobs that were spawned would be open.
        open: u64,
    },
    /// The kernel returned this error; or what it returned cannot be sent, and the text says why.
    Returned(Returned),
    /// The arena had no room for what the kernel, or the call itself, needed.
    ArenaFull(ArenaFull),
    /// Array handles of the job were alive after its end: in a `static`, on another thread, or
    /// forgotten. The worker was replaced before their memory could be used again.
    Escaped {
        /// How many.
        count: u64,
    },
    /// An argument lies in private memory, in a mapped file or in another engine. Copy it in with
    /// [`Engine::copy_in`](crate::Engine::copy_in).
    ForeignArray,
    /// An argument would be changed in place (an [`ArrayMut`](crate::ArrayMut), a tile), which a strict
    /// sandbox does not allow: no worker can write to what others see. Return a fresh array instead.
    NoLending,
    /// The kernel is code of a shared library, which a worker may have elsewhere or not at all.
    ForeignKernel,
    /// The worker wrote into the link what it cannot have meant, and was replaced.
    Protocol(String),
    /// The job was cancelled before it began: on request, because its handle was dropped, or because another
    /// job of its scope, or of its graph, failed. Or it was ended while it ran, by [`cancel_now`](crate::Job::cancel_now).
    Cancelled,
    /// The engine was shut down before the job ended.
    ShutDown,
    /// No worker can be started any more; the text says why the last one could not.
    NoWorkers(String),
}

/// A job without a value: why, and which job of which kernel on which worker.
///
/// ```standalone_crate
/// use arenite::{Backoff, Engine, JobErrorKind};
///
/// fn decode(name: &str) -> u32 {
///     eprintln!("{name}: the header is fine");
///     std::process::abort();
/// }
///
/// arenite::init();
/// let engine = Engine::builder().workers(1).on_log(|_| ()).build()?;
/// let job = engine.job(decode, ("holiday.jpg",)).retries(1).backoff(Backoff::NONE);
/// let error = job.submit().wait().unwrap_err();
/// // Who, and how often.
/// assert!(error.kernel().ends_with("decode"));
/// assert_eq!((error.worker(), error.attempt()), (Some(0), 2));
/// // Why, this time and the time before.
/// assert_eq!(*error.kind(), JobErrorKind::Signal(6));
/// assert_eq!(error.deaths(), [JobErrorKind::Signal(6)]);
/// // What it was at; and all of it as a sentence.
/// assert_eq!(error.last_words(), ["holiday.jpg: the header is fine"]);
/// assert!(error.to_string().ends_with("its worker's last words: holiday.jpg: the header is fine"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JobError(Box<Failed>);

/// What is known of a job that gave no value.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) kind: JobErrorKind,
    pub(crate) kernel: &'static str,
    pub(crate) job: u64,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) attempt: u32,
    pub(crate) worker: Option<u32>,
    pub(crate) lent: Vec<Range<usize>>,
    /// What the worker said last, in its streams and in its flight recorder.
    pub(crate) last_words: Vec<String>,
    /// How earlier attempts ended.
    pub(crate) deaths: Vec<Death>,
    pub(crate) beside: Beside,
    /// The failure of another job that this one follows from.
    pub(crate) origin: Option<JobError>,
}

/// How one attempt of a job ended that was tried again: see [`JobError::deaths`].
///
/// It equals its [`kind`](Death::kind), so that lists of both can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    kind: JobErrorKind,
    worker: Option<u32>,
    last_words: Vec<String>,
}

impl Death {
    pub(crate) fn new(kind: JobErrorKind, worker: Option<u32>, last_words: Vec<String>) -> Self {
        Self {
            kind,
            worker,
            last_words,
        }
    }

    /// Why.
    pub fn kind(&self) -> &JobErrorKind {
        &self.kind
    }

    /// The worker that ran it, from 0; `None` if none did.
    pub fn worker(&self) -> Option<u32> {
        self.worker
    }

    /// What the worker wrote last in this job before it died: see [`JobError::last_words`].
    pub fn last_words(&self) -> &[String] {
        &self.last_words
    }
}

impl PartialEq<JobErrorKind> for Death {
    fn eq(&self, kind: &JobErrorKind) -> bool {
        self.kind == *kind
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if let Some(worker) = self.worker {
            write!(f, " (worker {worker})")?;
        }
        said_last(f, &self.last_words)
    }
}

/// Why a job gives no value, and the failure of another one that this follows from.
#[derive(Clone, Debug)]
pub(crate) struct Because {
    pub(crate) kind: JobErrorKind,
    pub(crate) origin: Option<JobError>,
}

impl From<JobErrorKind> for Because {
    fn from(kind: JobErrorKind) -> Self {
        Self { kind, origin: None }
    }
}

/// Jobs that ran in the same worker when it died.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    pub(crate) jobs: Vec<u64>,
    /// It is known that none of them did it.
    pub(crate) known: bool,
}

impl Failed {
    /// A job that failed on its first attempt, without a worker.
    pub(crate) fn new(why: impl Into<Because>, kernel: &'static str, job: u64) -> Self {
        let Because { kind, origin } = why.into();
        Self {
            kind,
            kernel,
            job,
            label: None,
            attempt: 1,
            worker: None,
            lent: Vec::new(),
            last_words: Vec::new(),
            deaths: Vec::new(),
            beside: Beside::default(),
            origin,
        }
    }
}

impl From<Failed> for JobError {
    fn from(failed: Failed) -> Self {
        Self(Box::new(failed))
    }
}

impl JobError {
    /// The same, of another kernel: that of a node in a chain.
    pub(crate) fn of_kernel(&self, kernel: &'static str) -> Self {
        let failed = Failed {
            kernel,
            ..(*self.0).clone()
        };
        failed.into()
    }

    /// Why a job gives no value that has spawned this one.
    pub(crate) fn of_child(&self) -> Because {
        match self.kind() {
            // Not the child's business, or told already.
            kind @ (JobErrorKind::ChildFailed { .. }
            | JobErrorKind::Cancelled
            | JobErrorKind::ShutDown
            | JobErrorKind::NoWorkers(_)) => Because {
                kind: kind.clone(),
                origin: self.0.origin.clone(),
            },
            kind => Because {
                kind: JobErrorKind::ChildFailed {
                    job: self.job(),
                    kernel: self.kernel(),
                    cause: Box::new(kind.clone()),
                },
                origin: Some(self.clone()),
            },
        }
    }

    /// Why a node never ran that depends on this one, which is called `node`.
    pub(crate) fn of_dependency(&self, node: String) -> Because {
        Because {
            kind: JobErrorKind::DependencyFailed {
                node,
                job: self.job(),
                kernel: self.kernel(),
                cause: Box::new(self.kind().clone()),
            },
            origin: Some(self.clone()),
        }
    }

    /// Why a node never ran whose graph stops at this failure.
    pub(crate) fn of_stop(&self) -> Because {
        Because {
            kind: JobErrorKind::Cancelled,
            origin: Some(self.clone()),
        }
    }

    /// Why.
    pub fn kind(&self) -> &JobErrorKind {
        &self.0.kind
    }

    /// The failure of another job that this one follows from: of the node that a node [depends
    /// on](JobErrorKind::DependencyFailed), of the one at which a graph [stopped](crate::Graph::on_failure), or of a job that this
    /// one [spawned](JobErrorKind::ChildFailed). With all that is known of it: worker, attempts, deaths, last words.
    ///
    /// ```standalone_crate
    /// use arenite::{Engine, Graph};
    ///
    /// fn decode(name: &str) -> u32 {
    ///     eprintln!("{name}: the header is fine");
    ///     std::process::abort();
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).on_log(|_| ()).build()?;
    /// let mut graph = Graph::new();
    /// let photo = graph.job(decode, ("holiday.jpg",)).retries(1).add();
    /// let double = graph.add(|pixels: u32| pixels * 2, (&photo,));
    /// let error = graph.run(&engine, &double)?.wait().unwrap_err();
    /// let origin = error.origin().expect("the node that was tried");
    /// assert_eq!(origin.attempt(), 2);
    /// for words in [origin.deaths()[0].last_words(), origin.last_words()] {
    ///     assert_eq!(words, ["holiday.jpg: the header is fine"]);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn origin(&self) -> Option<&JobError> {
        self.0.origin.as_ref()
    }

    /// The error that the kernel returned, if that is [`Typed`](crate::Typed) and an `E`.
    ///
    /// Where this job failed because of another one (a node that it depends on, a job that it spawned, the start of its actor),
    /// the error of that one.
    ///
    /// ```
    /// use arenite::{Engine, JobError, Typed};
    ///
    /// fn fetch(page: u32) -> Result<u32, Typed<u16>> {
    ///     match page {
    ///         13 => Err(Typed(404)),
    ///         page => Ok(page),
    ///     }
    /// }
    ///
    /// let engine = Engine::inline();
    /// let status = |error: &JobError| error.returned::<u16>();
    /// let error = engine.submit(fetch, (13,)).wait().unwrap_err();
    /// assert_eq!(status(&error), Some(404));
    /// ```
    pub fn returned<E: KernelError>(&self) -> Option<E> {
        self.kind().returned()
    }

    /// The kernel's name, as [`std::any::type_name`] has it.
    pub fn kernel(&self) -> &'static str {
        self.0.kernel
    }

    /// The job's number in its engine, from 1; 0 where there was no job, as in an inline engine, or for a node of a graph
    /// that never ran.
    pub fn job(&self) -> u64 {
        self.0.job
    }

    /// What the job is [called](crate::engine::JobBuilder::label), if it has a label.
    pub fn label(&self) -> Option<&str> {
        self.0.label.as_deref()
    }

    /// The same of a job with this label.
    pub(crate) fn with_label(mut self, label: Option<&Arc<str>>) -> Self {
        self.0.label = label.cloned();
        self
    }

    /// Which attempt this was, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// The worker that ran it, from 0; `None` if none did.
    pub fn worker(&self) -> Option<u32> {
        self.0.worker
    }

    /// What the worker wrote last (stdout, stderr, events) before it died, oldest first: at most 16 lines and 2 KiB. Empty when it
    /// lived on.
    pub fn last_words(&self) -> &[String] {
        &self.0.last_words
    }

    /// How the attempts before this one ended, oldest first, the last 16 of them, each with its worker and that one's last
    /// words; empty for a job that is tried once. After [`Quarantined`](JobErrorKind::Quarantined) this one is among them.
    pub fn deaths(&self) -> &[Death] {
        &self.0.deaths
    }

    /// The other jobs that ran in the same worker when it died, on its other [lanes](crate::engine::Builder::lanes); empty
    /// when it lived on, and for a job that was itself [lost with](JobErrorKind::LostWith) another. If it is known that
    /// this job ended the worker, those are the jobs that it took along; otherwise each of them has this error, and any of
    /// them may have done it.
    ///
    /// [`Job::id`](crate::Job::id) has the number of a job in hand, with an example. In the [`Report`](crate::engine::Report) of a
    /// map each failure says its own:
    ///
    /// ```standalone_crate
    /// use std::sync::Barrier;
    /// use arenite::{Engine, JobErrorKind};
    ///
    /// static BOTH_RUN: Barrier = Barrier::new(2);
    ///
    /// fn fetch(page: u32) -> u32 {
    ///     BOTH_RUN.wait();
    ///     match page {
    ///         13 => std::process::abort(),
    ///         _ => loop {
    ///             std::thread::park();
    ///         },
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).lanes(2).build()?;
    /// let report = engine.map(fetch, [7, 13].map(|page| (page,))).report();
    /// let [lost, culprit] = report.failures() else { panic!("{report}") };
    /// assert_eq!(*culprit.error().kind(), JobErrorKind::Signal(6));
    /// assert_eq!(culprit.error().beside(), [lost.error().job()]);
    /// assert_eq!(lost.args(), &(7,));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn beside(&self) -> &[u64] {
        &self.0.beside.jobs
    }

    /// Rows of lent arrays (tiles, `&mut` arrays) whose content is unspecified now, because the
    /// worker died while it could write them. They are initialised all the same.
    pub fn unspecified_rows(&self) -> &[Range<usize>] {
        &self.0.lent
    }

    /// The same where nobody sees those rows, or something definite was put into them.
    pub(crate) fn with_no_unspecified_rows(mut self) -> Self {
        self.0.lent.clear();
        self
    }
}

/// `{:?}` is the text, which is what `unwrap` shows, and a `main` that returns the error; `{:#?}` shows the parts.
impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        let failed = &*self.0;
        f.debug_struct("JobError")
            .field("kind", &failed.kind)
            .field("kernel", &failed.kernel)
            .field("job", &failed.job)
            .field("label", &failed.label)
            .field("attempt", &failed.attempt)
            .field("worker", &failed.worker)
            .field("unspecified_rows", &failed.lent)
            .field("last_words", &failed.last_words)
            .field("deaths", &failed.deaths)
            .field("beside", &failed.beside.jobs)
            .field("origin", &failed.origin)
            .finish()
    }
}

impl JobErrorKind {
    /// The error that a kernel returned, of this job or of the one that it failed because of: see [`JobError::returned`].
    pub fn returned<E: KernelError>(&self) -> Option<E> {
        match self {
            Self::Returned(returned) => returned.value(),
            Self::DependencyFailed { cause, .. }
            | Self::ChildFailed { cause, .. }
            | Self::ActorLost { cause, .. } => cause.returned(),
            _ => None,
        }
    }

    /// A panic that was caught in this thread. What it has thrown, if that is no text, is disposed of: its drop is foreign code.
    pub(crate) fn caught_panic(
        payload: Box<dyn Any + Send>,
        dispose: fn(Box<dyn Any + Send>),
    ) -> Self {
        let text = |payload: Box<dyn Any + Send>| {
            let payload = match payload.downcast::<String>() {
                Ok(text) => return *text,
                Err(payload) => payload,
            };
            match payload.downcast::<&str>() {
                Ok(text) => (*text).to_owned(),
                Err(payload) => {
                    dispose(payload);
                    "a panic without a text".to_owned()
                }
            }
        };
        match payload.downcast::<ArenaFull>() {
            Ok(full) => Self::ArenaFull(*full),
            Err(payload) => Self::Panicked {
                message: text(payload),
                location: "this thread".to_owned(),
                backtrace: String::new(),
            },
        }
    }
}

impl fmt::Display for JobErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Raised again by hand: nobody knows where it began.
            Self::Panicked { message, location, .. } if location.is_empty() => {
                write!(f, "panicked: {}", escape::escape_text(message))
            }
            Self::Panicked { message, location, .. } => write!(
                f,
                "panicked at {}: {}",
                escape::escape_text(location),
                escape::escape_text(message)
            ),
            Self::Signal(signal) => {
                write!(f, "its worker was ended by {}", signal_name(*signal))
            }
            Self::Exited(Some(code)) => write!(f, "its worker exited with code {code}"),
            Self::Exited(None) => f.write_str("its worker exited, with a code that somebody else took"),
            Self::DeadlineExceeded { limit } => write!(
                f,
                "ran longer than its deadline of {limit:?}, so its worker was killed"
            ),
            Self::MemoryLimit { limit, requested } => {
                f.write_str("its worker could not allocate ")?;
                if let Some(requested) = requested {
                    write!(f, "{requested} bytes ")?;
                }
                write!(
                    f,
                    "within its memory limit of {limit} bytes; raise the limit, or do less at once"
                )
            }
            Self::OutOfMemoryKill => f.write_str(
                "its worker was ended by the system's out-of-memory killer; use fewer workers, or set a memory limit",
            ),
            Self::LostWith { job: 0, culprit } => write!(f, "lost with its worker: {culprit}"),
            Self::LostWith { job, culprit } => {
                write!(f, "lost with its worker, because of job {job}: {culprit}")
            }
            Self::ActorLost { cause, forgotten, restarted } => {
                write!(f, "its actor was lost: {cause}")?;
                match forgotten {
                    0 => {}
                    1 => f.write_str("; 1 call that it had answered is forgotten")?,
                    more => write!(f, "; {more} calls that it had answered are forgotten")?,
                }
                if *restarted {
                    f.write_str("; it goes on from its last checkpoint")?;
                }
                Ok(())
            }
            Self::ActorEnded => f.write_str("its actor has ended; start another one"),
            Self::WaitsForItself { why } => write!(f, "it would wait for itself for ever: {why}"),
            Self::Denied { call } => write!(f, "the sandbox denied {call}, which ended its worker"),
            Self::Quarantined { deaths } => write!(
                f,
                "it cost {deaths} workers, one at each attempt, and is not tried again"
            ),
            Self::DependencyFailed { node, job, kernel, cause } => {
                write!(f, "not run, because it depends on {node} (")?;
                if *job != 0 {
                    write!(f, "job {job}, ")?;
                }
                write!(f, "{kernel}), which failed: {cause}")
            }
            Self::ChildFailed { job, kernel, cause } => {
                f.write_str("a job that it spawned failed: ")?;
                if *job > 0 {
                    write!(f, "job {job} ")?;
                }
                write!(f, "({kernel}): {cause}")
            }
            Self::NoSpawning => f.write_str(
                "it spawned jobs, which a strict sandbox does not allow; submit them from the program instead",
            ),
            Self::SpawnLimit { depth, open } => write!(
                f,
                "it spawned jobs {depth} deep, with {open} of them open at once, and {MAX_SPAWN_DEPTH} and {MAX_OPEN_TASKS} are the most: \
                 does its recursion end?"
            ),
            Self::Returned(returned) => escape::escape_text(returned.text()).fmt(f),
            Self::ArenaFull(full) => full.fmt(f),
            Self::Escaped { count } => write!(
                f,
                "{count} array handle{} outlived the job (in a static, on a thread, or forgotten); drop them before the kernel returns",
                if *count == 1 { "" } else { "s" }
            ),
            Self::ForeignArray => f.write_str(
                "an argument does not lie in this engine's arena; copy it in with engine.copy_in(&array)",
            ),
            Self::NoLending => f.write_str(
                "an argument would be changed in place, which a strict sandbox does not allow; return a fresh array instead",
            ),
            Self::ForeignKernel => f.write_str(
                "the kernel is code of a shared library; kernels must be part of the executable",
            ),
            Self::Protocol(what) => write!(
                f,
                "its worker broke the protocol ({}) and was replaced",
                escape::escape_text(what)
            ),
            Self::Cancelled => f.write_str("cancelled"),
            Self::ShutDown => f.write_str("the engine was shut down before it ended"),
            Self::NoWorkers(why) => write!(f, "no worker can be started any more: {why}"),
        }
    }
}

/// "SIGSEGV (a wild memory access)" and the like.
fn signal_name(signal: i32) -> String {
    let name = nix::sys::signal::Signal::try_from(signal).map_or("signal", |known| known.as_str());
    let hint = match signal {
        libc::SIGSEGV => " (a wild memory access, a write to an input, or a stack overflow)",
        libc::SIGBUS => " (an access beyond the end of a mapping)",
        libc::SIGABRT => " (an abort: a failed allocation, or a library's own check)",
        libc::SIGKILL => " (killed from outside)",
        libc::SIGILL => " (an illegal instruction)",
        libc::SIGFPE => " (a division by zero)",
        _ => "",
    };
    if name == "signal" {
        format!("signal {signal}")
    } else {
        format!("{name}{hint}")
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed {
            kind,
            kernel,
            job,
            label,
            attempt,
            worker,
            lent,
            last_words,
            deaths,
            beside,
            origin,
        } = &*self.0;
        match job {
            0 => write!(f, "{kernel}")?,
            job => write!(f, "job {job}")?,
        }
        if let Some(label) = label {
            // As a literal, whatever is in it.
            write!(f, " {label:?}")?;
        }
        if *job > 0 {
            write!(f, " ({kernel}")?;
            if let Some(worker) = worker {
                write!(f, " on worker {worker}")?;
            }
            if *attempt > 1 {
                write!(f, ", attempt {attempt}")?;
            }
            f.write_str(")")?;
        }
        write!(f, ": {kind}")?;
        if let (JobErrorKind::Cancelled, Some(origin)) = (kind, origin) {
            return write!(f, ", because the graph stops at a failure: {origin}");
        }
        if let (JobErrorKind::Quarantined { .. }, Some(last)) = (kind, deaths.last()) {
            write!(f, "; the last time: {}", last.kind)?;
        }
        if !beside.jobs.is_empty() {
            let s = if beside.jobs.len() == 1 { "" } else { "s" };
            let jobs = Numbers(&beside.jobs);
            match beside.known {
                true => write!(f, "; it took job{s} {jobs} along")?,
                false => write!(
                    f,
                    "; job{s} {jobs} ran beside it, and any of them may have done it"
                )?,
            }
        }
        for rows in lent {
            write!(
                f,
                "; rows {}..{} of the array lent to it are unspecified",
                rows.start, rows.end
            )?;
        }
        let words = origin
            .as_ref()
            .map_or(last_words, |error| &error.0.last_words);
        said_last(f, words)
    }
}

fn said_last(f: &mut fmt::Formatter<'_>, last_words: &[String]) -> fmt::Result {
    match last_words.last() {
        Some(last) => write!(f, "; its worker's last words: {last}"),
        None => Ok(()),
    }
}

/// The first of some numbers, and how many more there are.
struct Numbers<'a>(&'a [u64]);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (at, number) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{number}", if at > 0 { ", " } else { "" })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl std::error::Error for JobError {}
