//! Job options: deadline, retries, priority, limiter, label, name.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::limiter::{Limiter, PermitSource};
use crate::kernel::{RetrySafe, seed_of_task, stored};

/// The order in which waiting jobs start.
///
/// Jobs of equal priority start in the order of submission. A running job is never interrupted. In workers with several
/// [`lanes`](crate::engine::Builder::lanes), jobs with and without a deadline take turns, whatever their priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Starts after all jobs of higher priority.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Starts before all jobs of lower priority.
    High,
}

/// The pauses between the attempts of one job: exponential, with an upper bound.
///
/// ```
/// use std::time::Duration;
/// use arenite::Backoff;
///
/// # let engine = arenite::Engine::inline();
/// let patient = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// let job = engine.job(|x: u32| x + 1, (1,)).retries(3).backoff(patient).submit();
/// assert_eq!(job.wait().unwrap(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    has_jitter: bool,
}

impl Backoff {
    /// No pause: the next attempt follows at once.
    pub const NONE: Self = Self::new(Duration::ZERO, Duration::ZERO);

    /// Pauses for `first`, then twice as long each time, up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            has_jitter: false,
        }
    }

    /// Shortens each pause to a random value between half of it and the full pause, so that jobs that failed together
    /// do not all retry at the same time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use arenite::{Backoff, JobOptions};
    ///
    /// # let engine = arenite::Engine::inline();
    /// let polite = Backoff::new(Duration::from_millis(100), Duration::from_secs(10)).jitter();
    /// let options = JobOptions::new().retries(3).backoff(polite);
    /// let pages = engine.map(|page: u32| page + 1, (0..3).map(|page| (page,))).options(&options);
    /// assert_eq!(pages.collect::<Result<Vec<_>, _>>()?, [1, 2, 3]);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    #[must_use]
    pub const fn jitter(mut self) -> Self {
        self.has_jitter = true;
        self
    }

    /// Returns the pause of job number `job` after `failed` failed attempts.
    pub(super) fn pause(&self, failed: u32, job: u64) -> Duration {
        let times = 2u32.saturating_pow(failed.saturating_sub(1));
        let pause = self.first.saturating_mul(times).min(self.longest);
        if !self.has_jitter {
            return pause;
        }
        // Any hash that differs between jobs and attempts is random enough.
        let part = seed_of_task(job, failed.into()) as u32;
        let half = pause / 2;
        half + half.mul_f64(f64::from(part) / f64::from(u32::MAX))
    }
}

impl Default for Backoff {
    /// Pauses for 10 milliseconds, then twice as long each time, up to one second.
    fn default() -> Self {
        Self::new(Duration::from_millis(10), Duration::from_secs(1))
    }
}

/// How jobs run: deadline, retries, pauses, priority, limiter, label and name.
///
/// A [job](crate::Engine::job), a [map](crate::Engine::map), a [job of a scope](crate::Scope::submit_with) and a
/// [stage of a stream](crate::stream::Stream::stage) take the same options: a job also one by one with the methods of
/// these names, a job of a scope with [`submit_with`](crate::Scope::submit_with).
///
/// ```
/// # let engine = arenite::Engine::inline();
/// use std::time::Duration;
/// use arenite::{JobOptions, Priority};
///
/// let careful = JobOptions::new().deadline(Duration::from_secs(30)).retries(2).priority(Priority::High);
/// let half = engine.job(|n: u32| n / 2, (4,)).options(&careful).submit();
/// let squares = engine.map(|n: u64| n * n, (0..4).map(|n| (n,))).options(&careful);
/// assert_eq!(half.wait()?, 2);
/// assert_eq!(squares.collect::<Result<Vec<_>, _>>()?, [0, 1, 4, 9]);
/// # Ok::<(), arenite::JobError>(())
/// ```
///
/// `RETRIES` says whether [`retries`](Self::retries) was called: options without retries fit every job, others only
/// jobs whose arguments the kernel cannot change.
#[derive(PartialEq)]
pub struct JobOptions<const RETRIES: bool = false> {
    pub(crate) deadline: Option<Duration>,
    /// With `loading`: how long the kernel may take until it calls `begin_timed`, which starts the clock of the
    /// deadline.
    pub(crate) loading: Option<Duration>,
    /// Number of attempts after the first.
    pub(crate) retries: u32,
    /// Whether an `Err` of the kernel is retried, too.
    pub(crate) retry_errors: bool,
    pub(crate) backoff: Backoff,
    pub(crate) priority: Priority,
    /// The limiter that gives each attempt its permit.
    pub(crate) limit: Option<PermitSource>,
    pub(crate) label: Option<Arc<str>>,
    /// The name that replaces the kernel's name, stored for the life of the process.
    pub(crate) name: Option<&'static str>,
}

/// Arguments of jobs that may have [`JobOptions<RETRIES>`](JobOptions): all arguments for `false`, and for `true`
/// those that the kernel only reads.
pub trait Permits<const RETRIES: bool> {}

impl<A> Permits<false> for A {}

impl<A: RetrySafe> Permits<true> for A {}

impl JobOptions {
    /// Returns options without effect: no deadline, no retries, normal priority.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns `None` if the options do not affect how a job runs: a pause without retries does not, nor does a name,
    /// which is part of the kernel's identity.
    pub(crate) fn if_set(&self) -> Option<&Self> {
        let plain = Self {
            backoff: self.backoff,
            name: self.name,
            ..Self::default()
        };
        (*self != plain).then_some(self)
    }
}

impl<const RETRIES: bool> JobOptions<RETRIES> {
    /// Limits the run time of each attempt. An attempt that exceeds it is ended: its worker is killed and replaced, and
    /// the job fails with [`JobLimit::Deadline`](crate::JobLimit::Deadline) or is [retried](Self::retries).
    ///
    /// Waking a worker counts; waiting for a worker does not, nor does time in which the whole program is stopped. A
    /// job with a deadline of zero, which no job can meet, fails without being run. Programs that the kernel has
    /// started end with the worker, unless they have left its process group.
    ///
    /// If workers have several [`lanes`](crate::engine::Builder::lanes), a job with a deadline waits for a worker
    /// without other jobs, so that no other job is lost with it, unless
    /// [`co_schedule_deadlines`](crate::engine::Builder::co_schedule_deadlines) is set. The state of an
    /// [actor](crate::Engine::actor) is lost with its worker; with several lanes, a worker without actors is preferred.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// See [`raw::loading`](crate::raw::loading).
    pub(crate) fn loading(mut self, most: Duration) -> Self {
        self.loading = Some(most);
        self
    }

    /// Runs the job again, up to `retries` times, if it panics, exceeds its deadline, or ends its worker.
    ///
    /// - The value that the kernel returns is the result, including an `Err`, unless
    ///   [`retry_errors`](Self::retry_errors) is set.
    /// - Only arguments that the kernel cannot change allow retries; the compiler checks it.
    /// - A job whose arrays [escaped](crate::WorkerExit::Escaped) is not retried, nor a job that fails after the engine
    ///   began to [shut down](crate::Engine::shutdown).
    /// - A job lost to another job of its worker ([`WorkerExit::OtherJob`](crate::WorkerExit::OtherJob)) runs again as
    ///   well, without using up a retry, at most [`quarantine_after`](crate::engine::Builder::quarantine_after) times.
    /// - A job that has ended [`quarantine_after`](crate::engine::Builder::quarantine_after) workers fails even if it
    ///   has retries left.
    ///
    /// The error is the error of the last attempt; [`JobError::deaths`](crate::JobError::deaths) lists the errors of
    /// earlier attempts. An inline engine tries each job once.
    #[doc(alias = "max_retries")]
    pub fn retries(self, retries: u32) -> JobOptions<true> {
        let mut options = self.with_mode();
        options.retries = retries;
        options
    }

    /// Applies [`retries`](Self::retries) also to `Err`s that the kernel returns: for kernels that use a server or a
    /// disk, which may succeed the next time.
    ///
    /// The worker stays alive, so such attempts do not count towards quarantine.
    /// [`JobLimit::Arena`](crate::JobLimit::Arena) is not retried. Without retries this has no effect.
    ///
    /// ```standalone_crate
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use arenite::{Backoff, Engine, JobErrorKind};
    ///
    /// /// In the worker: a server that is busy at first.
    /// static ASKED: AtomicU32 = AtomicU32::new(0);
    ///
    /// fn fetch(patience: u32) -> Result<u32, String> {
    ///     match ASKED.fetch_add(1, Relaxed) {
    ///         n if n < patience => Err(format!("503, for the {n}th time")),
    ///         n => Ok(n),
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).build()?;
    /// let fetch = |patience| {
    ///     let job = engine.job(fetch, (patience,)).retries(3).retry_errors();
    ///     job.backoff(Backoff::NONE).submit()
    /// };
    /// assert_eq!(fetch(2).wait()?, 2);
    /// let error = fetch(100).wait().unwrap_err();
    /// assert_eq!((error.attempt(), error.deaths().len()), (4, 3));
    /// assert_eq!(*error.kind(), JobErrorKind::Returned("503, for the 6th time".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "autoretry_for")]
    pub fn retry_errors(mut self) -> Self {
        self.retry_errors = true;
        self
    }

    /// Sets the pauses between attempts. Default: 10 ms, doubling up to a second. Without retries this has no effect.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the order in which waiting jobs start.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Labels the job for people: for example with the file that it reads, or the customer that it serves. Errors,
    /// traces and reports show the label next to the kernel's name; in inline engines only errors do.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn decode(file: &str) -> Result<u32, String> {
    ///     Err(format!("{} bytes are no picture", file.len()))
    /// }
    ///
    /// let job = engine.job(decode, ("…",)).label("holiday/3.jpg").submit();
    /// let error = job.wait().unwrap_err();
    /// assert_eq!(error.label(), Some("holiday/3.jpg"));
    /// assert!(error.to_string().contains("\"holiday/3.jpg\""), "{error}");
    /// ```
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Names the function that the job runs, in place of the kernel's name: for programs in which one kernel runs many
    /// functions, such as functions of another language. Statistics, traces, errors, and the expected time and memory
    /// of a job are separate for each name.
    ///
    /// Only the first 512 bytes count. Names are stored for as long as the process lives: an engine distinguishes 4096
    /// names, and a process 65,536. Jobs with further names count under the name of their kernel. What distinguishes
    /// one job, such as a file, is its [label](Self::label). In inline engines only errors
    /// have the name.
    ///
    /// ```
    /// use arenite::JobOptions;
    ///
    /// /// Runs a function by its number.
    /// fn run(function: u32) -> Result<u32, String> {
    ///     Err(format!("there is no function {function}"))
    /// }
    ///
    /// # let engine = arenite::Engine::inline();
    /// let area = JobOptions::new().name("shapes.area");
    /// let error = engine.job(run, (7,)).options(&area).submit().wait().unwrap_err();
    /// assert_eq!(error.kernel(), "shapes.area");
    /// ```
    pub fn name(mut self, name: impl AsRef<str>) -> Self {
        self.name = stored(name.as_ref());
        self
    }

    /// Requires a permit of this limiter for each attempt: see [`Limiter`]. Submitting does not wait for the permit.
    /// Replaces a limiter that was set earlier.
    ///
    /// Jobs take turns as part of the thread that sets the option; each map and each stage takes turns of its own,
    /// unless the handle [names a caller](Limiter::caller).
    pub fn limit(mut self, limiter: &Limiter) -> Self {
        self.limit = Some(PermitSource::for_this_thread(limiter));
        self
    }

    /// Returns the same options, for jobs that may be retried. This is for code that takes options of either mode and
    /// passes arguments that its jobs only read.
    pub fn retriable(self) -> JobOptions<true> {
        self.with_mode()
    }

    /// Returns the same options for a map or a stage, which takes turns of its own at the limiter.
    pub(crate) fn for_new_caller(&self) -> JobOptions {
        let mut options: JobOptions = self.clone().with_mode();
        let limit = options.limit.take();
        options.limit = limit.map(|set| PermitSource::for_new_caller(set.limiter()));
        options
    }

    /// Returns the same options in another mode. Called only where the arguments are known to permit that mode.
    pub(crate) fn with_mode<const OTHER: bool>(self) -> JobOptions<OTHER> {
        JobOptions {
            deadline: self.deadline,
            loading: self.loading,
            retries: self.retries,
            retry_errors: self.retry_errors,
            backoff: self.backoff,
            priority: self.priority,
            limit: self.limit,
            label: self.label,
            name: self.name,
        }
    }
}

impl<const RETRIES: bool> Default for JobOptions<RETRIES> {
    fn default() -> Self {
        Self {
            deadline: None,
            loading: None,
            retries: 0,
            retry_errors: false,
            backoff: Backoff::default(),
            priority: Priority::default(),
            limit: None,
            label: None,
            name: None,
        }
    }
}

impl<const RETRIES: bool> Clone for JobOptions<RETRIES> {
    fn clone(&self) -> Self {
        Self {
            limit: self.limit.clone(),
            label: self.label.clone(),
            ..*self
        }
    }
}

impl<const RETRIES: bool> fmt::Debug for JobOptions<RETRIES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobOptions")
            .field("deadline", &self.deadline)
            .field("loading", &self.loading)
            .field("retries", &self.retries)
            .field("retry_errors", &self.retry_errors)
            .field("backoff", &self.backoff)
            .field("priority", &self.priority)
            .field("limit", &self.limit)
            .field("label", &self.label)
            .field("name", &self.name)
            .finish()
    }
}
