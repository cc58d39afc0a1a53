//! Errors of jobs: [`JobError`] and its [kinds](JobErrorKind).

mod backtrace;
mod crash;
mod display;
mod frames;
mod kind;

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use backtrace::Backtrace;
pub(crate) use crash::fatal_signal;
pub use crash::{Crash, CrashClass, CrashedAccess};
pub use frames::CrashFrame;
pub(crate) use frames::Stack;
pub use kind::{FailedDependency, FailedInput, JobErrorKind, JobLimit, Rejection, WorkerExit};

/// The maximum number of jobs that an error names between a job that never ran and the one that failed.
const MAX_PATH: usize = 8;

use super::options::JobOptions;
use crate::kernel::{AnyValue, KernelError};
use display::{write_end, write_last_words};

/// Why a job ended without a value, with the job, its kernel and its worker.
///
/// [`kind`](Self::kind) returns the reason, [`returned`](Self::returned) the kernel's own error.
///
/// ```standalone_crate
/// use arenite::{Backoff, Engine, JobErrorKind, WorkerExit};
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
/// // Which job, where, and how often it was tried.
/// assert!(error.kernel().ends_with("decode"));
/// assert_eq!((error.worker(), error.attempt()), (Some(0), 2));
/// // Why, this time and the time before.
/// let aborted = JobErrorKind::Lost(WorkerExit::Signal(6));
/// assert_eq!(*error.kind(), aborted);
/// assert_eq!(error.deaths(), [aborted]);
/// // What its worker printed last; and all of it as a sentence.
/// assert_eq!(error.last_words(), ["holiday.jpg: the header is fine"]);
/// assert_eq!(error.telling_words(), Some("holiday.jpg: the header is fine"));
/// assert!(error.to_string().ends_with("its worker's last words: holiday.jpg: the header is fine"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JobError(Box<Failed>);

/// The parts of a [`JobError`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) kind: JobErrorKind,
    pub(crate) kernel: &'static str,
    /// The number of the job, from 1; 0 if there was no job.
    pub(crate) job: u64,
    pub(crate) label: Option<Arc<str>>,
    pub(crate) attempt: u32,
    pub(crate) worker: Option<u32>,
    /// The ranges of rows that the job could write in place.
    pub(crate) lent: Vec<Range<usize>>,
    /// What the worker printed last, and the end of its flight recorder.
    pub(crate) last_words: Vec<String>,
    /// How the worker crashed.
    pub(crate) crash: Option<Crash>,
    /// How earlier attempts ended.
    pub(crate) deaths: Vec<Death>,
    pub(crate) lost_jobs: LostJobs,
    /// The failure of another job that caused this one.
    pub(crate) origin: Option<JobError>,
}

/// How an attempt of a job ended, before the job was tried again: see [`JobError::deaths`].
///
/// A death is equal to a [kind](Death::kind) if its own kind is, so that lists of both can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Death {
    /// Why the attempt ended without a value.
    pub kind: JobErrorKind,
    /// The number of the worker that ran the attempt, from 0; `None` if no worker did.
    pub worker: Option<u32>,
    /// What the worker printed last during this job before it died: see [`JobError::last_words`].
    pub last_words: Vec<String>,
    /// How the worker crashed: see [`JobError::crash`].
    pub crash: Option<Crash>,
}

impl PartialEq<JobErrorKind> for Death {
    fn eq(&self, kind: &JobErrorKind) -> bool {
        self.kind == *kind
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_end(f, &self.kind, self.crash.as_ref())?;
        if let Some(worker) = self.worker {
            write!(f, " (worker {worker})")?;
        }
        write_last_words(f, &self.last_words)
    }
}

/// Why a job ends without a value, and the failure of another job that caused this, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct Because {
    pub(crate) kind: JobErrorKind,
    pub(crate) origin: Option<JobError>,
}

impl Because {
    /// Returns why an argument of a call has no value, as the engine has noted it in the call.
    pub(crate) fn of_no_value(why: AnyValue) -> Self {
        let why: Box<dyn Any> = why;
        *why.downcast()
            .expect("the engine says why a job has no value")
    }
}

impl From<JobErrorKind> for Because {
    fn from(kind: JobErrorKind) -> Self {
        Self { kind, origin: None }
    }
}

/// Jobs that ran in the same worker when it died.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostJobs {
    pub(crate) jobs: Vec<u64>,
    /// Whether none of these jobs is at fault.
    pub(crate) are_innocent: bool,
}

impl Failed {
    /// Returns a job that failed at its first attempt, without a worker.
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
            crash: None,
            deaths: Vec::new(),
            lost_jobs: LostJobs::default(),
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
    /// Returns the same error with another kind.
    pub(crate) fn with_kind(mut self, kind: JobErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Returns why the job that spawned the failed job ends without a value.
    pub(crate) fn of_child(&self) -> Because {
        match self.kind() {
            // The child is not the cause, or `kind` already names a cause.
            kind @ (JobErrorKind::Dependency(FailedDependency::Child { .. })
            | JobErrorKind::Cancelled
            | JobErrorKind::ShutDown
            | JobErrorKind::NoWorkers(_)) => Because {
                kind: kind.clone(),
                origin: self.0.origin.clone(),
            },
            kind => Because {
                kind: FailedDependency::Child {
                    job: self.job(),
                    kernel: self.kernel(),
                    cause: Box::new(kind.clone()),
                }
                .into(),
                origin: Some(self.clone()),
            },
        }
    }

    /// Returns why a job that takes the value of the failed job never ran.
    pub(crate) fn of_input(&self) -> Because {
        let own = FailedInput {
            job: self.job(),
            kernel: self.kernel(),
        };
        let (path, omitted, cause) = match self.kind() {
            JobErrorKind::Dependency(FailedDependency::Input {
                path,
                omitted,
                cause,
            }) => {
                let mut longer = vec![own];
                longer.extend(path);
                let left_out = longer.len() > MAX_PATH;
                if left_out {
                    longer.remove(MAX_PATH - 1);
                }
                (longer, omitted + u64::from(left_out), cause.clone())
            }
            kind => (vec![own], 0, Box::new(kind.clone())),
        };
        Because {
            kind: FailedDependency::Input {
                path,
                omitted,
                cause,
            }
            .into(),
            origin: Some(self.origin().unwrap_or(self).clone()),
        }
    }

    /// Returns why the job ended without a value.
    pub fn kind(&self) -> &JobErrorKind {
        &self.0.kind
    }

    /// Returns the failure of another job that caused this failure: of a job whose value this one takes, directly or
    /// [through others](FailedDependency::Input), or of a job that this one [spawned](FailedDependency::Child). It has
    /// its own worker, attempts, deaths and last words.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// fn decode(name: &str) -> u32 {
    ///     eprintln!("{name}: the header is fine");
    ///     std::process::abort();
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).on_log(|_| ()).build()?;
    /// let photo = engine.job(decode, ("holiday.jpg",)).retries(1).submit();
    /// let double = engine.submit(|pixels: u32| pixels * 2, (&photo,));
    /// let error = double.wait().unwrap_err();
    /// let origin = error.origin().expect("the job that was tried");
    /// assert_eq!(origin.attempt(), 2);
    /// for words in [&origin.deaths()[0].last_words, origin.last_words()] {
    ///     assert_eq!(words, ["holiday.jpg: the header is fine"]);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn origin(&self) -> Option<&JobError> {
        self.0.origin.as_ref()
    }

    /// Returns the error that the kernel returned, if it is a [`Typed<E>`](crate::Typed).
    ///
    /// If this job failed because of another job (one whose value it takes, one that it spawned, the start of its
    /// actor), this is the error of that job.
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

    /// Returns the kernel's name, as returned by [`std::any::type_name`], or the [name](crate::JobOptions::name) that
    /// the program has set.
    pub fn kernel(&self) -> &'static str {
        self.0.kernel
    }

    /// Returns the job's number in its engine, from 1. `None` if there was no job: in an inline engine.
    pub fn job(&self) -> Option<u64> {
        (self.0.job > 0).then_some(self.0.job)
    }

    /// Returns true if the same call may succeed when it is submitted again: see [`JobErrorKind::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        self.kind().is_retryable()
    }

    /// Returns the job's [label](crate::engine::JobBuilder::label), if it has one.
    pub fn label(&self) -> Option<&str> {
        self.0.label.as_deref()
    }

    /// Returns the same error for a job with this label.
    pub(crate) fn with_label(mut self, label: &Option<Arc<str>>) -> Self {
        self.0.label.clone_from(label);
        self
    }

    /// Returns the same error for a job with these options, which may contain a label and a name for the kernel.
    pub(crate) fn named_by(mut self, options: &JobOptions) -> Self {
        self = self.with_label(&options.label);
        self.0.kernel = options.name.unwrap_or(self.0.kernel);
        self
    }

    /// Returns the number of the attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Returns the number of the worker that ran the job, from 0; `None` if no worker did.
    pub fn worker(&self) -> Option<u32> {
        self.0.worker
    }

    /// Returns the lines that the worker printed last (stdout, stderr, events) before it died, oldest first: at most 16
    /// lines and 2 KiB, and the beginning of a printed stack. Empty if the worker survived.
    pub fn last_words(&self) -> &[String] {
        &self.0.last_words
    }

    /// Returns the most informative of the [`last_words`](Self::last_words), which the text of the error contains: the
    /// last line, or, if a stack was printed, its innermost frame or the message above it.
    pub fn telling_words(&self) -> Option<&str> {
        display::telling(&self.0.last_words)
    }

    /// Returns how the worker of this job crashed: the signal, the address and what lies there. `None` if the worker
    /// did not crash or could not record the crash: a signal from another process, a signal handler of the kernel's
    /// own, or a stack overflow on a thread that a kernel has started and that has no separate stack for signals. Also
    /// `None` for a job that was [lost because of another one](WorkerExit::OtherJob).
    ///
    /// With [`JobLimit::Quarantined`], this is the crash of the last attempt.
    pub fn crash(&self) -> Option<&Crash> {
        let last = || match self.kind() {
            JobErrorKind::Limit(JobLimit::Quarantined { .. }) => {
                self.deaths().last()?.crash.as_ref()
            }
            _ => None,
        };
        self.0.crash.as_ref().or_else(last)
    }

    /// Returns how the earlier attempts ended, oldest first, at most the last 16, each with its worker and that
    /// worker's last words. Empty for a job that was tried once. With [`JobLimit::Quarantined`], the last attempt is
    /// included.
    pub fn deaths(&self) -> &[Death] {
        &self.0.deaths
    }

    /// Returns the numbers of the other jobs that ran in the same worker when it died, on its other
    /// [lanes](crate::engine::Builder::lanes). Empty if the worker survived, and for a job that was itself
    /// [lost because of another one](WorkerExit::OtherJob).
    ///
    /// If this job is known to have ended the worker, then the other jobs were lost because of it. Otherwise each of
    /// them has the same error, and any of them may be at fault.
    ///
    /// See [`Job::id`](crate::Job::id), which returns the number of a job, for another example. In the
    /// [`Report`](crate::engine::Report) of a map, each failure has its own number:
    ///
    /// ```standalone_crate
    /// use std::sync::Barrier;
    /// use arenite::{Engine, JobErrorKind, WorkerExit};
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
    /// let [lost, culprit] = &report.failures[..] else { panic!("{report}") };
    /// assert_eq!(*culprit.error.kind(), JobErrorKind::Lost(WorkerExit::Signal(6)));
    /// assert_eq!(culprit.error.lost_jobs(), [lost.error.job().unwrap()]);
    /// assert_eq!(lost.args, (7,));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lost_jobs(&self) -> &[u64] {
        &self.0.lost_jobs.jobs
    }

    /// Returns the ranges of rows of lent arrays (tiles, `&mut` arrays) whose content is unspecified, though
    /// initialised, because the worker died while it could write to them.
    pub fn unspecified_rows(&self) -> &[Range<usize>] {
        &self.0.lent
    }

    /// Returns the same error after these rows were discarded or overwritten.
    pub(crate) fn with_no_unspecified_rows(mut self) -> Self {
        self.0.lent.clear();
        self
    }
}

/// `{:?}` prints the text, because `unwrap` and a `main` that returns the error print it; `{:#?}` prints the parts.
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
            .field("crash", &failed.crash)
            .field("deaths", &failed.deaths)
            .field("lost_jobs", &failed.lost_jobs.jobs)
            .field("origin", &failed.origin)
            .finish()
    }
}

impl std::error::Error for JobError {}
