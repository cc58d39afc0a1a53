//! What an engine is started with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::output::Sink;
use crate::control::{HandshakeError, OnStart, ProgramId};
use crate::sys::process::Program;
#[cfg(feature = "sandbox")]
use crate::sys::sandbox::SandboxFeatures;

/// The default of [`Settings::quarantine_after`].
pub(crate) const QUARANTINE_AFTER: u32 = 5;

/// What an engine is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What workers run.
    pub(crate) program: ProgramSpec,
    /// All workers, including the spares.
    pub(crate) workers: u16,
    /// Workers that are ready beyond those that may be active.
    pub(crate) spares: u16,
    /// Lanes of each worker.
    pub(crate) lanes: u16,
    /// Jobs with a deadline share their worker with others.
    pub(crate) co_schedule_deadlines: bool,
    pub(crate) guard: bool,
    /// Bytes of private memory per worker, 0 for no ceiling.
    pub(crate) memory_limit: u64,
    /// Bytes of the arena that a worker may hold; `None`: as far as the shares of others allow.
    pub(crate) max_arena_per_worker: Option<u64>,
    /// Workers are sandboxed before their first job.
    pub(crate) sandboxed: bool,
    /// What sandboxes them: the parts that this Linux supports.
    #[cfg(feature = "sandbox")]
    pub(crate) kernel: SandboxFeatures,
    /// Entry to run in each worker before its first job.
    pub(crate) on_start: Option<OnStart>,
    /// Entry to run in a worker before it retains what a job has left behind; `None`: it retains nothing.
    pub(crate) retain: Option<u64>,
    pub(crate) label: String,
    /// Takes what workers print.
    pub(crate) log: Sink,
    /// Whether the engine is there before its workers are.
    pub(crate) in_background: bool,
    /// How long a worker may take to become ready.
    pub(crate) start_timeout: Duration,
    pub(crate) memory: MemorySettings,
    /// How long `shutdown` lets a worker run on, and a cancelled scope a job.
    pub(crate) grace: Duration,
    /// Workers that a job with retries may kill.
    pub(crate) quarantine_after: u32,
    /// Whether shared-memory names that dead programs left are removed.
    pub(crate) sweep: bool,
    /// Seed of the random numbers of this run.
    pub(crate) seed: u64,
}

impl Settings {
    /// Workers that may be active at the same time, at least one.
    pub(crate) fn active_workers(&self) -> u16 {
        self.workers - self.spares
    }
}

/// What workers run.
#[derive(Clone, Debug)]
pub(crate) struct ProgramSpec {
    /// The program, with the working directory and the environment that this process had when the engine was built.
    /// Code that does not use the lock of Rust's standard library may change the environment later.
    pub(crate) program: Program,
    /// What a process answers that runs it.
    pub(crate) id: ProgramId,
    /// How such a process becomes a worker.
    pub(crate) entry: WorkerEntry,
    /// What a process of it loads, of which workers are copies; `None`: each is started by itself.
    pub(crate) template: Option<Arc<[u8]>>,
}

impl ProgramSpec {
    /// A program that contains the same build of this crate, and that compares equal by `identity`.
    pub(crate) fn new(program: Program, identity: Vec<u8>, entry: WorkerEntry) -> Self {
        Self {
            program,
            id: ProgramId::of(identity),
            entry,
            template: None,
        }
    }
}

/// How a process becomes a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerEntry {
    /// A copy of this program calls [`init`](crate::init).
    Init,
    /// Another program calls [`run_worker`](crate::run_worker).
    RunWorker,
}

/// What an engine does about memory outside its arena.
#[derive(Clone, Debug)]
pub(crate) struct MemorySettings {
    /// Limits are read below this folder: `/`, except in tests.
    pub(crate) root: PathBuf,
    pub(crate) recycling: Recycling,
    /// Most bytes of jobs in flight, 0 for no ceiling.
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

/// When a worker is replaced although it works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recycling {
    /// After this many jobs; `u64::MAX`: never.
    pub(crate) jobs: u64,
    /// With more private memory than this many bytes; `u64::MAX`: never.
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

/// Descriptors that an engine has to find free: its own, and for each worker a pidfd, an eventfd, two pipes, and five more
/// while it starts; a template has six. Above all of these lie the numbers under which a worker receives those of the arena, with a region
/// for each worker.
pub(crate) const fn descriptors_for(workers: u64, has_template: bool) -> u64 {
    let template = if has_template { 6 } else { 0 };
    let own = workers.saturating_mul(9).saturating_add(7 + template);
    let arena = workers.saturating_add(2);
    own.saturating_add(arena).saturating_add(4)
}
