//! Why a job gave no value: [`JobErrorKind`] and its groups.

use std::any::Any;
use std::time::Duration;

use super::Backtrace;
use crate::arena::ArenaFull;
use crate::kernel::{KernelError, Returned};

/// Why a job gave no value.
///
/// The variants are what callers branch on; each says more in its fields. [`is_retryable`](Self::is_retryable) says
/// whether submitting the same call again may help.
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
    /// The kernel panicked. Its worker lives on.
    ///
    /// A worker sends at most 8 KiB of the message and 16 KiB of all three texts. An inline engine leaves the report to
    /// the program's own panic hook: there `location` says so and `backtrace` is empty.
    Panicked {
        /// The panic's message.
        message: String,
        /// Where it started: `file:line:column`.
        location: String,
        /// The stack at that moment.
        backtrace: Backtrace,
    },
    /// The kernel returned this error; or what it returned cannot be sent, and the text says why.
    Returned(Returned),
    /// The worker process ended while it had the job, or had to be replaced because of what it did.
    Lost(WorkerExit),
    /// The job reached a limit.
    Limit(JobLimit),
    /// The job cannot run as it was submitted. Nothing ran, except for [`Rejection::Spawning`].
    Rejected(Rejection),
    /// Another job that this one needs gave no value.
    Dependency(FailedDependency),
    /// The job was cancelled before it began: on request, because its handle was dropped, or because another job of its
    /// scope or graph failed. Or it was ended while it ran, by [`Job::kill`](crate::Job::kill).
    Cancelled,
    /// The engine was shut down before the job ended.
    ShutDown,
    /// No worker can be started any more; the text says why the last one could not.
    NoWorkers(String),
}

/// How a job lost its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerExit {
    /// This signal ended it: 11 is an invalid memory access, 6 an abort, 9 a kill.
    Signal(i32),
    /// It exited with this code; `None` if something else in the program reaped the process first.
    Code(Option<i32>),
    /// Linux's out-of-memory killer ended it: the machine or the container was out of memory.
    OutOfMemoryKill,
    /// The sandbox denied a system call that the worker cannot do without, and ended it.
    Denied {
        /// The name of the call, or its number.
        call: String,
    },
    /// Array handles of the job outlived it: in a `static`, on another thread, or leaked. The worker was replaced
    /// before their memory could be reused. Where the engine [allows](crate::engine::Builder::retain_escaped) such
    /// handles, there were more than a worker can retain, or the arena had no room to name them.
    Escaped {
        /// The number of handles.
        count: u64,
    },
    /// The worker wrote into the shared link what no correct worker writes, and was replaced.
    Protocol(String),
    /// The worker was ended because of another job; how far this one had come is not known.
    OtherJob {
        /// The number of the job that ended the worker; `None` if the worker was at fault outside of any job.
        job: Option<u64>,
        /// What that job did.
        cause: Box<JobErrorKind>,
    },
}

/// A limit that a job reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobLimit {
    /// It ran longer than its deadline, and its worker was killed.
    Deadline {
        /// How long it was allowed to run. With zero it was not run, and no worker was killed.
        limit: Duration,
    },
    /// It asked for more private memory than [`memory_limit`](crate::engine::Builder::memory_limit) leaves a worker,
    /// and its worker aborted.
    ///
    /// With `requested` this is certain. Without it, the last system call or library function that failed in the
    /// aborting thread had found no memory, as when a C library gives up. A job that survives a failed allocation and
    /// later aborts for another reason is reported in the same way. So is an exit after OpenBLAS has reported that it got
    /// no memory.
    Memory {
        /// The limit, in bytes.
        limit: u64,
        /// The allocation that failed, in bytes, if known.
        requested: Option<u64>,
        /// What to do about it, where more is known than that the limit can be raised: which environment variable makes
        /// a library take less, say.
        hint: Option<&'static str>,
    },
    /// The arena had no room for what the kernel, or the call itself, needed.
    Arena(ArenaFull),
    /// Its worker would have held more of the arena than
    /// [`max_arena_per_worker`](crate::engine::Builder::max_arena_per_worker) allows. The arena has room for others.
    ArenaShare(ArenaFull),
    /// It [spawned](crate::Spawn) more jobs than any job needs: most likely a recursion without an end.
    Spawned {
        /// The number of jobs that would wait for each other, each for one that it spawned.
        depth: u32,
        /// The number of spawned jobs that would be open.
        open: u64,
    },
    /// It cost as many workers as [`quarantine_after`](crate::engine::Builder::quarantine_after) allows, and is not
    /// tried again. [`JobError::deaths`](crate::JobError::deaths) lists how each attempt ended.
    Quarantined {
        /// Workers that it cost.
        deaths: u32,
    },
}

/// Why a job cannot run as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// An argument is in private memory, in a mapped file that may change, or in another engine; arrays of a store are
    /// accepted. Copy it in with
    /// [`Engine::import`](crate::Engine::import).
    ForeignArray,
    /// The kernel is code of another library than the one that contains arenite. A worker may have it at another address
    /// or not at all.
    ForeignKernel,
    /// An argument would be changed in place (an [`ArrayMut`](crate::ArrayMut), a tile, a
    /// [buffer](crate::raw::Buffer::write)), which a strict sandbox does not allow: no worker can write to what others
    /// see. The start of an actor refuses buffers that it would change. Return a fresh array instead.
    Lending,
    /// The job spawned others, which workers in a strict sandbox may not: a compromised one could run any kernel on any
    /// arguments.
    Spawning,
    /// The job would wait for something that ends only after the job itself.
    ///
    /// Only in an inline engine, where kernels run on the thread that submits them and can call back into actors and
    /// engines: a method calls its own actor, or a job that holds the last permit of a [`Limiter`](crate::Limiter)
    /// submits another one that needs a permit.
    Deadlock {
        /// What it would wait for, and what to do about it.
        why: &'static str,
    },
    /// The call was made after the end of its actor.
    ActorEnded,
}

/// A job that another one needed, and that gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailedDependency {
    /// A node of a [`Graph`](crate::Graph) that this one depends on failed, so this one never ran.
    Node {
        /// The node that failed: the name it was given, or its number.
        node: String,
        /// The number of its job; `None` in an inline engine.
        job: Option<u64>,
        /// Its kernel.
        kernel: &'static str,
        /// Why it failed.
        cause: Box<JobErrorKind>,
    },
    /// A job that this one [spawned](crate::Spawn) failed, or the one that continues with their values.
    Child {
        /// The number of that job; `None` in an inline engine.
        job: Option<u64>,
        /// Its kernel.
        kernel: &'static str,
        /// Why it failed.
        cause: Box<JobErrorKind>,
    },
    /// The call's actor lost its state together with its worker, or never had one.
    Actor {
        /// What ended the worker, or why there was no state. [`WorkerExit::OtherJob`] if this actor was not at fault.
        cause: Box<JobErrorKind>,
        /// Calls that were answered before and whose effect on the state is lost.
        forgotten: u64,
        /// The actor continues from its last checkpoint: later calls are answered again.
        restarted: bool,
    },
}

impl FailedDependency {
    /// Why it failed.
    pub fn cause(&self) -> &JobErrorKind {
        match self {
            Self::Node { cause, .. } | Self::Child { cause, .. } | Self::Actor { cause, .. } => {
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
    /// Whether the same call may succeed when it is submitted again without any change.
    ///
    /// True for everything that [`retries`](crate::engine::JobBuilder::retries) tries again (panics, deaths of the
    /// worker, deadlines and memory limits), for jobs that were lost because of another one, and for a full arena,
    /// which may have room once other arrays are dropped. False where the same call ends in the same way, or where
    /// something was decided: errors that a kernel returned, escaped handles, quarantine, rejections, cancellation, and
    /// the end of the engine. A failed dependency is as retryable as its cause.
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

    /// The error that a kernel returned, of this job or of the one that it failed because of: see
    /// [`JobError::returned`](crate::JobError::returned).
    pub fn returned<E: KernelError>(&self) -> Option<E> {
        match self {
            Self::Returned(returned) => returned.value(),
            Self::Dependency(failed) => failed.cause().returned(),
            _ => None,
        }
    }

    /// Whether the kernel ended by itself: it returned an error, panicked, or found no room.
    pub(crate) fn ended_in_worker(&self) -> bool {
        matches!(
            self,
            Self::Returned(_)
                | Self::Panicked { .. }
                | Self::Limit(JobLimit::Arena(_) | JobLimit::ArenaShare(_))
        )
    }

    /// A panic that was caught on this thread. A payload that is not text is passed to `dispose`: its drop is foreign
    /// code.
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

    /// One of each kind, and whether it is retryable.
    fn all() -> Vec<(JobErrorKind, bool)> {
        use FailedDependency::{Actor, Child, Node};
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
                Node {
                    node: "a".into(),
                    job: None,
                    kernel,
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
