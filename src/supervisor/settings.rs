//! The settings of an engine at its start.

use std::path::PathBuf;
#[cfg(feature = "template")]
use std::sync::Arc;
use std::time::Duration;

use super::output::Sink;
use crate::control::{HandshakeError, OnStart, ProgramId, StartFailure};
use crate::sys::process::Program;
#[cfg(feature = "sandbox")]
use crate::sys::sandbox::SandboxFeatures;

/// The default of [`Settings::quarantine_after`].
pub(crate) const QUARANTINE_AFTER: u32 = 5;

/// The settings of an engine at its start.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The program that workers run.
    pub(crate) program: ProgramSpec,
    /// Number of workers, including the spares.
    pub(crate) workers: u16,
    /// Number of workers that are started in addition to those that may be active.
    pub(crate) spares: u16,
    /// Number of lanes of each worker.
    pub(crate) lanes: u16,
    /// Whether jobs with a deadline share their worker with others.
    pub(crate) co_schedule_deadlines: bool,
    pub(crate) guard: bool,
    /// The ceiling on the private memory of each worker in bytes, 0 for no ceiling.
    pub(crate) memory_limit: u64,
    /// The maximum number of bytes of the arena that a worker may occupy. `None`: limited by the shares of the others.
    pub(crate) max_arena_per_worker: Option<u64>,
    /// Whether workers are sandboxed before their first job.
    pub(crate) sandboxed: bool,
    /// The parts of the sandbox that this Linux supports.
    #[cfg(feature = "sandbox")]
    pub(crate) kernel: SandboxFeatures,
    /// The entry that each worker runs before its first job.
    pub(crate) on_start: Option<OnStart>,
    /// The entry that a worker runs before it retains arrays whose handles outlive their job. `None`: it retains
    /// nothing.
    pub(crate) retain: Option<u64>,
    pub(crate) label: String,
    /// What receives the lines that workers print.
    pub(crate) log: Sink,
    /// Whether the engine can be used before its workers are ready.
    pub(crate) in_background: bool,
    /// The time that a worker gets to become ready. `None`: only its own steps are limited, not what the program's code
    /// does at the start.
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) memory: MemorySettings,
    /// The time that running jobs get when the engine shuts down or their scope is cancelled.
    pub(crate) grace: Duration,
    /// Number of workers that a job with retries may kill.
    pub(crate) quarantine_after: u32,
    /// Whether shared-memory names that dead programs left behind are removed.
    pub(crate) sweep: bool,
    /// The seed of the random numbers of this engine.
    pub(crate) seed: u64,
}

impl Settings {
    /// Returns the number of workers that may be active at the same time, at least one.
    pub(crate) fn active_workers(&self) -> u16 {
        self.workers - self.spares
    }
}

/// The program that workers run.
#[derive(Clone, Debug)]
pub(crate) struct ProgramSpec {
    /// The program, with the working directory and the environment of this process at the time when the engine was
    /// built. Later changes of the environment have no effect, even by code that does not take the lock of Rust's
    /// standard library.
    pub(crate) program: Program,
    /// The identity that a process of this program must report.
    pub(crate) id: ProgramId,
    /// How a process of this program becomes a worker.
    pub(crate) entry: WorkerEntry,
    pub(crate) start: StartMethod,
}

/// How the workers of an engine are started.
#[derive(Clone, Debug)]
pub(crate) enum StartMethod {
    /// Each is a new process of the program.
    Separate,
    /// Each is forked from a template, a process of the program that has loaded `setup`.
    #[cfg(feature = "template")]
    Template {
        setup: Arc<[u8]>,
        /// How long the template is kept for other engines of this process when no engine uses it. Zero: other engines
        /// do not use it.
        kept: Duration,
        /// Whether no notice says why workers are started separately.
        is_optional: bool,
    },
    /// Each is forked from a template that is a fork of this process, and has loaded `setup`.
    #[cfg(feature = "template")]
    Fork { setup: Arc<[u8]>, is_optional: bool },
}

impl StartMethod {
    /// Returns true if workers are forked from a template.
    pub(crate) fn has_template(&self) -> bool {
        !matches!(self, Self::Separate)
    }

    /// Returns true if the template is a fork of this process.
    pub(crate) fn is_forked(&self) -> bool {
        match self {
            #[cfg(feature = "template")]
            Self::Fork { .. } => true,
            _ => false,
        }
    }
}

impl ProgramSpec {
    /// Returns a program that contains the same build of this crate, with this `identity`.
    pub(crate) fn new(program: Program, identity: Vec<u8>, entry: WorkerEntry) -> Self {
        Self {
            program,
            id: ProgramId::of(identity),
            entry,
            start: StartMethod::Separate,
        }
    }
}

/// How a process becomes a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerEntry {
    /// The process runs this program again, which calls [`init`](crate::init).
    Init,
    /// The process runs another program, which calls [`run_worker`](crate::run_worker).
    RunWorker,
}

/// Settings for memory outside the arena.
#[derive(Clone, Debug)]
pub(crate) struct MemorySettings {
    /// The folder below which limits are read: `/`, except in tests.
    pub(crate) root: PathBuf,
    pub(crate) recycling: Recycling,
    /// The ceiling on the bytes of jobs in flight, 0 for no ceiling.
    pub(crate) admission: u64,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            root: "/".into(),
            recycling: Recycling::default(),
            admission: 0,
        }
    }
}

/// When a worker that has not failed is replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recycling {
    /// The number of jobs after which the worker is replaced; `u64::MAX`: never.
    pub(crate) jobs: u64,
    /// The number of bytes of its private memory above which the worker is replaced; `u64::MAX`: never.
    pub(crate) above: u64,
}

impl Default for Recycling {
    fn default() -> Self {
        Self {
            jobs: u64::MAX,
            above: u64::MAX,
        }
    }
}

/// Why an engine's supervisor could not be started.
#[derive(Debug)]
pub(crate) enum StartError {
    System(crate::sys::Error),
    Worker(HandshakeError),
}

impl From<StartError> for StartFailure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::System(error) => error.into(),
            StartError::Worker(error) => error.into(),
        }
    }
}

/// Returns the number of descriptors that must be free for an engine: its own, and for each worker a pidfd, an eventfd,
/// two pipes, and five more while it starts; for a template, nine. A worker receives the descriptors of the arena, one
/// region for each worker, under higher numbers than all of these.
pub(crate) const fn descriptors_for(workers: u64, has_template: bool) -> u64 {
    let template = if has_template { 9 } else { 0 };
    let own = workers.saturating_mul(9).saturating_add(11 + template);
    let arena = workers.saturating_add(2);
    own.saturating_add(arena).saturating_add(4)
}
