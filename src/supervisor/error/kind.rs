//! Why a job gave no value: [`JobErrorKind`] and its groups.

use std::any::Any;
use std::time::Duration;

use super::Backtrace;
use crate::arena::ArenaFull;
use crate::kernel::{KernelError, Returned};

/// Why a job gave no value.
///
/// Callers branch on the variants; the fields give details. [`is_retryable`](Self::is_retryable) returns whether
/// submitting the same call again may succeed.
///
/// ```standalone_crate
/// use arenite::{Engine, JobErrorKind, JobLimit, WorkerExit};
///
/// fn crash() {
///     std::process::abort();
/// }
///
/// arenite::init();
/// let engine = Engine::builder().workers(1).build()?;
/// let error = engine.submit(crash, ()).wait().unwrap_err();
/// match error.kind() {
///     JobErrorKind::Lost(WorkerExit::Signal(signal)) => assert_eq!(*signal, 6),
///     JobErrorKind::Limit(JobLimit::Deadline { limit }) => eprintln!("allow more than {limit:?}"),
///     kind if kind.is_retryable() => eprintln!("try again: {kind}"),
///     kind => eprintln!("give up: {kind}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobErrorKind {
    /// The kernel panicked. Its worker continues.
    ///
    /// A worker sends at most 8 KiB of the message and 16 KiB of all three texts. An inline engine leaves the report to
    /// the program's own panic hook: there `location` says so and `backtrace` is empty.
    Panicked {
        /// The panic's message.
        message: String,
        /// Where the panic started: `file:line:column`.
        location: String,
        /// The stack at that moment.
        backtrace: Backtrace,
    },
    /// The kernel returned this error; or its result cannot be sent, and the text says why.
    Returned(Returned),
    /// The worker process ended while it had the job, or was replaced because of the job.
    Lost(WorkerExit),
    /// The job reached a limit.
    Limit(JobLimit),
    /// The job cannot run as it was submitted. Nothing ran, except for [`Rejection::Spawning`].
    Rejected(Rejection),
    /// Another job that this job needs ended without a value.
    Dependency(FailedDependency),
    /// The job was cancelled before it began: on request, because its handle was dropped, or because another job of its
    /// scope failed. Or it was ended by [`Job::kill`](crate::Job::kill) while it ran.
    Cancelled,
    /// The engine was shut down before the job ended.
    ShutDown,
    /// No more workers can be started, for a reason that does not pass by waiting: the program's own start code fails,
    /// its file was replaced, the shared memory was damaged. The text says why the last one could not.
    ///
    /// While descriptors, processes or memory are short, jobs wait instead, and the engine tries again:
    /// [`Stats::start_failure`](crate::engine::Stats::start_failure). [`Engine::revive`](crate::Engine::revive) tries
    /// again after this error.
    NoWorkers(String),
}

/// How a job lost its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerExit {
    /// This signal ended the worker: 11 is an invalid memory access, 6 an abort, 9 a kill.
    Signal(i32),
    /// The worker exited with this code. `None` if other code of the program has reaped the process.
    Code(Option<i32>),
    /// Linux's out-of-memory killer ended the worker: the machine or the container was out of memory.
    OutOfMemoryKill,
    /// The sandbox denied a system call that the worker needs, and ended the worker.
    Denied {
        /// The name of the call, or its number.
        call: String,
    },
    /// Array handles of the job outlived it: in a `static`, on another thread, or leaked. The worker was replaced
    /// before their memory could be reused. If the engine [allows](crate::engine::Builder::retain_escaped) such
    /// handles, then there were more than a worker can retain, or the arena had no room for the list of them.
    Escaped {
        /// The number of handles.
        count: u64,
    },
    /// The worker broke the protocol of the shared link, as no correct worker does, and was replaced.
    Protocol(String),
    /// The worker was ended because of another job. It is not known how far this job had come.
    OtherJob {
        /// The number of the job that ended the worker; `None` if the worker was at fault outside of any job.
        job: Option<u64>,
        /// The error of that job.
        cause: Box<JobErrorKind>,
    },
}

/// A limit that a job reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobLimit {
    /// The job ran longer than its deadline, and its worker was killed.
    Deadline {
        /// The deadline. If it is zero, the job did not run, and no worker was killed.
        limit: Duration,
    },
    /// The job requested more private memory than [`memory_limit`](crate::engine::Builder::memory_limit) allows a
    /// worker, and its worker aborted.
    ///
    /// With `requested` this is certain. Without it, the last failed system call or library function of the aborting
    /// thread had found no memory, as when a C library ends the process. A job that survives a failed allocation and
    /// later aborts for another reason is reported in the same way, and so is an exit after OpenBLAS has reported that
    /// it got no memory.
    Memory {
        /// The limit, in bytes.
        limit: u64,
        /// The size of the failed allocation in bytes, if known.
        requested: Option<u64>,
        /// What to do, other than raising the limit: for example, which environment variable makes a library use less
        /// memory.
        hint: Option<&'static str>,
    },
    /// The arena had no room for memory that the kernel or the call needed.
    Arena(ArenaFull),
    /// The job's worker would have occupied more of the arena than
    /// [`max_arena_per_worker`](crate::engine::Builder::max_arena_per_worker) allows. The arena has room for other
    /// workers.
    ArenaShare(ArenaFull),
    /// The job [spawned](crate::Spawn) too many jobs: most likely an endless recursion.
    Spawned {
        /// The number of jobs in a chain where each waits for a job that it has spawned.
        depth: u32,
        /// The number of spawned jobs that would be unanswered at the same time.
        open: u64,
    },
    /// Attempts of the job ended as many workers as [`quarantine_after`](crate::engine::Builder::quarantine_after)
    /// allows, and the job is not tried again. [`JobError::deaths`](crate::JobError::deaths) lists how each attempt
    /// ended.
    Quarantined {
        /// The number of workers that ended.
        deaths: u32,
    },
}

/// Why a job cannot run as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// An argument is in private memory, in a mapped file that may change, or in another engine; arrays of a store are
    /// accepted. Copy it into the engine with [`Engine::import`](crate::Engine::import).
    ForeignArray,
    /// An argument is a job of another engine. Wait for its value, and pass that.
    ForeignJob,
    /// An argument of an actor's start is a job. Wait for its value, and pass that.
    JobForActor,
    /// The kernel is code of another library than the one that contains arenite. In a worker, the code may be at
    /// another address or missing.
    ForeignKernel,
    /// The job would change an argument in place (an [`ArrayMut`](crate::ArrayMut), a tile, a
    /// [buffer](crate::raw::Buffer::write)), which a strict sandbox forbids: no worker can write to memory that other
    /// processes read. The start of an actor refuses buffers that it would change. Return a fresh array instead.
    Lending,
    /// The job spawned others, which a strict sandbox forbids: a compromised worker could run any kernel on any
    /// arguments.
    Spawning,
    /// The job would wait for something that ends only after the job itself.
    ///
    /// This happens only in an inline engine, where kernels run on the thread that submits them and can call actors and
    /// engines: a method calls its own actor, or a job that has the last permit of a [`Limiter`](crate::Limiter)
    /// submits another job that needs a permit.
    Deadlock {
        /// What the job would wait for, and how to avoid it.
        why: &'static str,
    },
    /// The call was submitted after the end of its actor.
    ActorEnded,
}

/// A failed job that another job needed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailedDependency {
    /// A [job](crate::Job) whose value this job takes has no value, so this job never ran.
    Input {
        /// The jobs from the one whose value this job takes to the one that failed, each of which takes the value of
        /// the next. At most eight: the nearest ones and the one that failed.
        path: Vec<FailedInput>,
        /// The number of jobs left out before the last one of `path`.
        omitted: u64,
        /// Why the last one failed.
        cause: Box<JobErrorKind>,
    },
    /// A job that this job [spawned](crate::Spawn) has failed, or the last one, which takes the values of the others.
    Child {
        /// The number of the failed job; `None` in an inline engine.
        job: Option<u64>,
        /// The kernel of the failed job.
        kernel: &'static str,
        /// Why the job failed.
        cause: Box<JobErrorKind>,
    },
    /// The state of the call's actor was lost with its worker, or was never created.
    Actor {
        /// What ended the worker, or why the state was not created. [`WorkerExit::OtherJob`] if this actor was not at
        /// fault.
        cause: Box<JobErrorKind>,
        /// The number of answered calls whose effect on the state is lost.
        forgotten: u64,
        /// Whether the actor continues from its last checkpoint. Then later calls are answered normally.
        restarted: bool,
    },
}

/// A job without a value that another job needed: see [`FailedDependency::Input`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedInput {
    /// The number of the job; `None` in an inline engine.
    pub job: Option<u64>,
    /// The kernel of the job.
    pub kernel: &'static str,
}

impl FailedDependency {
    /// Returns why the needed job failed.
    pub fn cause(&self) -> &JobErrorKind {
        match self {
            Self::Input { cause, .. } | Self::Child { cause, .. } | Self::Actor { cause, .. } => {
                cause
            }
        }
    }
}

impl From<WorkerExit> for JobErrorKind {
    fn from(exit: WorkerExit) -> Self {
        Self::Lost(exit)
    }
}

impl From<JobLimit> for JobErrorKind {
    fn from(limit: JobLimit) -> Self {
        Self::Limit(limit)
    }
}

impl From<ArenaFull> for JobErrorKind {
    fn from(full: ArenaFull) -> Self {
        Self::Limit(match full.worker_share() {
            None => JobLimit::Arena(full),
            Some(_) => JobLimit::ArenaShare(full),
        })
    }
}

impl From<Rejection> for JobErrorKind {
    fn from(why: Rejection) -> Self {
        Self::Rejected(why)
    }
}

impl From<FailedDependency> for JobErrorKind {
    fn from(failed: FailedDependency) -> Self {
        Self::Dependency(failed)
    }
}

impl JobErrorKind {
    /// Returns true if the same call may succeed when it is submitted again without any change.
    ///
    /// True for everything that [`retries`](crate::engine::JobBuilder::retries) tries again (panics, deaths of the
    /// worker, deadlines and memory limits), for jobs that were lost because of another job, and for a full arena,
    /// which may have room once arrays are dropped. False if the same call would end in the same way, or if the end was
    /// a decision: errors that a kernel returned, escaped handles, quarantine, rejections, cancellation, and the end of
    /// the engine. A failed dependency is as retryable as its cause.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use arenite::{JobErrorKind, JobLimit, Rejection, WorkerExit};
    ///
    /// let limit = Duration::from_secs(1);
    /// assert!(JobErrorKind::Limit(JobLimit::Deadline { limit }).is_retryable());
    /// assert!(JobErrorKind::Lost(WorkerExit::Signal(9)).is_retryable());
    /// assert!(!JobErrorKind::Returned("no such file".into()).is_retryable());
    /// assert!(!JobErrorKind::Rejected(Rejection::ForeignArray).is_retryable());
    /// ```
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Panicked { .. } => true,
            Self::Lost(exit) => !matches!(exit, WorkerExit::Escaped { .. }),
            Self::Limit(limit) => match limit {
                JobLimit::Deadline { .. }
                | JobLimit::Memory { .. }
                | JobLimit::Arena(_)
                | JobLimit::ArenaShare(_) => true,
                JobLimit::Spawned { .. } | JobLimit::Quarantined { .. } => false,
            },
            Self::Dependency(failed) => failed.cause().is_retryable(),
            Self::Returned(_)
            | Self::Rejected(_)
            | Self::Cancelled
            | Self::ShutDown
            | Self::NoWorkers(_) => false,
        }
    }

    /// Returns the error that the kernel of this job returned, or the kernel of the job that made this job fail: see
    /// [`JobError::returned`](crate::JobError::returned).
    pub fn returned<E: KernelError>(&self) -> Option<E> {
        match self {
            Self::Returned(returned) => returned.value(),
            Self::Dependency(failed) => failed.cause().returned(),
            _ => None,
        }
    }

    /// Returns true if the kernel ended on its own: it returned an error, panicked, or found no room.
    pub(crate) fn ended_in_worker(&self) -> bool {
        matches!(
            self,
            Self::Returned(_)
                | Self::Panicked { .. }
                | Self::Limit(JobLimit::Arena(_) | JobLimit::ArenaShare(_))
        )
    }

    /// Describes a panic that was caught on this thread. A payload that is not text is passed to `dispose`, because its
    /// drop is foreign code.
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
            Ok(full) => (*full).into(),
            Err(payload) => Self::Panicked {
                message: text(payload),
                location: "this thread".to_owned(),
                backtrace: Backtrace::default(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::policy::may_succeed_again;

    fn full() -> ArenaFull {
        crate::worker::full_from_words(Default::default())
    }

    /// Returns one error of each kind, and whether it is retryable.
    fn all() -> Vec<(JobErrorKind, bool)> {
        use FailedDependency::{Actor, Child, Input};
        let cause = Box::new(JobErrorKind::Cancelled);
        let kernel = "kernel";
        vec![
            (
                JobErrorKind::Panicked {
                    message: String::new(),
                    location: String::new(),
                    backtrace: Backtrace::default(),
                },
                true,
            ),
            (JobErrorKind::Returned("no such file".into()), false),
            (WorkerExit::Signal(9).into(), true),
            (WorkerExit::Code(Some(1)).into(), true),
            (WorkerExit::OutOfMemoryKill.into(), true),
            (
                WorkerExit::Denied {
                    call: "open".into(),
                }
                .into(),
                true,
            ),
            (WorkerExit::Escaped { count: 1 }.into(), false),
            (WorkerExit::Protocol("nonsense".into()).into(), true),
            (
                WorkerExit::OtherJob {
                    job: Some(1),
                    cause: cause.clone(),
                }
                .into(),
                true,
            ),
            (
                JobLimit::Deadline {
                    limit: Duration::ZERO,
                }
                .into(),
                true,
            ),
            (
                JobLimit::Memory {
                    limit: 1,
                    requested: None,
                    hint: None,
                }
                .into(),
                true,
            ),
            (full().into(), true),
            (JobLimit::Spawned { depth: 1, open: 1 }.into(), false),
            (JobLimit::Quarantined { deaths: 5 }.into(), false),
            (Rejection::ForeignArray.into(), false),
            (Rejection::ForeignKernel.into(), false),
            (Rejection::Lending.into(), false),
            (Rejection::Spawning.into(), false),
            (Rejection::Deadlock { why: "itself" }.into(), false),
            (Rejection::ActorEnded.into(), false),
            (
                Input {
                    path: vec![FailedInput { job: None, kernel }],
                    omitted: 0,
                    cause: cause.clone(),
                }
                .into(),
                false,
            ),
            (
                Child {
                    job: None,
                    kernel,
                    cause: Box::new(WorkerExit::Signal(9).into()),
                }
                .into(),
                true,
            ),
            (
                Actor {
                    cause,
                    forgotten: 0,
                    restarted: false,
                }
                .into(),
                false,
            ),
            (JobErrorKind::Cancelled, false),
            (JobErrorKind::ShutDown, false),
            (JobErrorKind::NoWorkers("none".into()), false),
        ]
    }

    #[test]
    fn retryable_kinds_are_as_documented() {
        for (kind, expected) in all() {
            assert_eq!(kind.is_retryable(), expected, "{kind}");
        }
    }

    #[test]
    fn what_the_engine_retries_is_retryable() {
        for (kind, _) in all() {
            assert!(kind.is_retryable() || !may_succeed_again(&kind), "{kind}");
        }
    }

    #[test]
    fn each_kind_is_a_sentence() {
        for (kind, _) in all() {
            let text = kind.to_string();
            assert!(text.len() > 3 && !text.contains("JobErrorKind"), "{text}");
        }
    }
}
