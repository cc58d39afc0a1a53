#![doc = include_str!("README.md")]

mod actor;
mod admission;
mod alone;
mod bell;
mod cancel;
mod causes;
#[cfg(feature = "sandbox")]
mod copy_out;
mod core;
mod deadline;
mod depend;
mod drain;
mod error;
mod events;
mod exchange;
#[cfg(any(test, feature = "points"))]
mod fixture;
mod group;
#[cfg(any(test, feature = "points"))]
#[path = "../../tests/support/hostile_links/mod.rs"]
pub(crate) mod hostile;
mod kernels;
mod lane;
mod limit;
mod lock;
mod log;
mod memory;
mod monitor;
mod options;
mod output;
mod parking;
mod place;
mod plain;
mod policy;
mod progress;
mod queue;
mod record;
mod recover;
mod recycle;
mod retry;
mod spawn;
mod stats;
#[cfg(test)]
#[allow(
    unsafe_code,
    reason = "`test_workers!` places a function in a link section"
)]
mod tests;
mod trace;
mod unsent;
mod wait;
mod words;
mod worker;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::core::Core;
pub(crate) use self::core::{Closing, QUARANTINE_AFTER, Read};
pub use actor::ActorStatus;
pub(crate) use actor::{ActorId, ActorPlan, CheckpointPlan};
use admission::Admission;
pub use admission::RefusedBy;
pub(crate) use admission::{InLine, held_by};
pub(crate) use bell::park_until;
pub use depend::GraphProgress;
pub(crate) use depend::{Calls, GraphPlan, MOST_DEEP, NodeFate, Unit};
pub(crate) use error::Because;
pub(crate) use error::Failed;
pub use error::{Death, JobError, JobErrorKind};
pub use exchange::ResultKey;
pub(crate) use exchange::{Flight, Outlook};
pub(crate) use kernels::bytes_to_expect;
use lane::Lane;
pub(crate) use limit::{Limit, Permit};
pub use limit::{Limiter, LimiterBuilder};
use lock::Locked;
use log::Logger;
pub(crate) use log::Sink;
pub use log::{LogLevel, LogLine, LogSource};
pub use options::{AtMostOnce, Backoff, JobOptions, Permits, Priority, Retried};
use parking::Parking;
pub(crate) use progress::Looks;
pub use progress::Progress;
pub(crate) use record::JobId;
pub(crate) use recycle::Recycling;
use spawn::Refusal;
pub use stats::{KernelStats, Stats, WorkerStats};
pub(crate) use trace::sentence;
pub(crate) use unsent::{Unsent, Written};

use crate::arena::{Arena, ArenaFull};
use crate::control::HandshakeError;
use crate::kernel::KernelInfo;
use crate::kernel::wire::ArgWriter;
use crate::link::{LinkCells, SLOTS};
use crate::sys::clock;
use crate::sys::event::EventFd;
use crate::sys::fork::Original;
#[cfg(feature = "sandbox")]
use crate::sys::sandbox::Kernel;
use crate::trace::{Owner, Tracer};

/// What an engine is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) workers: u16,
    /// Lanes of each worker.
    pub(crate) lanes: u16,
    /// Jobs with a deadline run beside others.
    pub(crate) share_deadlines: bool,
    pub(crate) guard: bool,
    /// Bytes of private memory per worker, 0 for no ceiling.
    pub(crate) memory_limit: u64,
    /// Workers lock themselves down before their first job.
    pub(crate) strict: bool,
    /// By what: what of it this kernel has.
    #[cfg(feature = "sandbox")]
    pub(crate) kernel: Kernel,
    /// Entry to run in each worker before its first job.
    pub(crate) on_start: Option<u64>,
    pub(crate) label: String,
    /// Takes what workers print.
    pub(crate) log: Sink,
    /// How long a worker may take to become ready.
    pub(crate) start_timeout: Duration,
    pub(crate) memory: MemorySettings,
    /// How long `shutdown` lets a worker run on, and a cancelled scope a job.
    pub(crate) grace: Duration,
    /// Workers that a job with retries may cost.
    pub(crate) quarantine_after: u32,
    /// Whether names that dead programs left are removed.
    pub(crate) sweep: bool,
    /// Of the random numbers of this run.
    pub(crate) seed: u64,
}

/// What an engine does about memory beside its arena.
#[derive(Clone, Debug)]
pub(crate) struct MemorySettings {
    /// Below this folder limits are read: `/`, but for tests.
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

/// What user threads, the monitor and the handshake threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) arena: Arc<Arena>,
    core: Mutex<Core>,
    /// For sleepers, who do not hold the lock.
    cells: Vec<Arc<LinkCells>>,
    parking: Arc<Parking>,
    /// Wakes the monitor.
    bell: EventFd,
    /// Handshakes that failed, for the monitor.
    refusals: Mutex<Vec<Refusal>>,
    /// Takes what workers print.
    pub(crate) log: Logger,
    /// Threads of this process that spin.
    spinners: AtomicUsize,
    cores: OnceLock<usize>,
    settings: Settings,
    /// Earlier looks at how far everything is.
    looks: Mutex<progress::Looks>,
    tracer: Mutex<Option<Owner>>,
    /// Whose engine it is.
    original: Original,
    /// Whoever ended the engine without waiting for its monitor, or the monitor, is through: the other one finishes.
    one_came: AtomicBool,
}

/// An engine's supervisor could not be started.
#[derive(Debug)]
pub(crate) enum StartError {
    System(crate::sys::Error),
    Worker(HandshakeError),
}

/// Descriptors that an engine has to find free: its own, and for each worker its pidfd, its bell, two pipes, and five
/// while it starts; and behind all of these the numbers under which a worker is given those of the arena, a region for each
/// worker.
pub(crate) const fn descriptors_for(workers: u64) -> u64 {
    let own = workers.saturating_mul(9).saturating_add(6);
    let arena = workers.saturating_add(2);
    own.saturating_add(arena).saturating_add(4)
}

/// Jobs per lane that may be in flight because of those that wait for an earlier answer; how long those of a lane may take
/// together, by expectation; what all of them may hold, in bytes; and which part of the arena, one in so many.
const IN_ORDER_PER_LANE: u64 = 8;
const IN_ORDER_NS: u64 = 50_000_000;
const HELD_IN_ORDER: u64 = 64 << 20;
const PART_IN_ORDER: u64 = 16;

/// What a map may have in flight beyond two jobs per lane: one part of the arena in so many.
const PART_IN_FLIGHT: u64 = 4;

/// Starts the workers; returns when all are ready.
pub(crate) fn start(
    arena: Arc<Arena>,
    settings: Settings,
    tracer: Option<Owner>,
) -> Result<(Arc<Shared>, JoinHandle<()>), StartError> {
    let workers = settings.workers;
    crate::sys::limits::room_for_descriptors(descriptors_for(workers.into()))
        .map_err(StartError::System)?;
    let cells: Vec<_> = (0..usize::from(workers) * usize::from(settings.lanes))
        .map(|lane| Arc::new(LinkCells::in_arena(&arena, lane)))
        .collect();
    let parking = Arc::new(Parking::new());
    arena.set_ready();
    let (of_arena, of_parking) = (Arc::clone(&arena), Arc::clone(&parking));
    let mut core = core_of(of_arena, of_parking, &cells, &settings);
    if let Some(tracer) = &tracer {
        core.begin_trace(Arc::clone(&tracer.0));
    }
    let shared = Arc::new(Shared {
        core: Mutex::new(core),
        arena,
        cells,
        parking,
        bell: EventFd::new().map_err(StartError::System)?,
        refusals: Mutex::default(),
        log: Logger::new(settings.log.clone()),
        spinners: AtomicUsize::new(0),
        cores: OnceLock::new(),
        settings,
        looks: Mutex::new(progress::Looks::new()),
        tracer: Mutex::new(tracer),
        original: Original::here(),
        one_came: AtomicBool::new(false),
    });
    shared.hang_up_bell();
    let monitor = monitor::spawn(Arc::clone(&shared)).map_err(StartError::System)?;
    // While workers are loaded.
    let cores = shared.cores();
    shared.lock().has_cores(cores);
    if shared.settings.sweep {
        crate::control::sweep_once();
    }
    if let Err(why) = shared.wait_until_started() {
        shared.end(monitor, Closing::Now);
        return Err(StartError::Worker(why));
    }
    Ok((shared, monitor))
}

/// The state of an engine whose workers are about to start.
fn core_of(
    arena: Arc<Arena>,
    parking: Arc<Parking>,
    cells: &[Arc<LinkCells>],
    settings: &Settings,
) -> Core {
    // Region 0 is this process's; all lanes of a worker have one together.
    let regions = (1..=settings.workers).cycle();
    let lanes = cells
        .iter()
        .zip(regions)
        .map(|(cells, region)| Lane::new(region, Arc::clone(cells)))
        .collect();
    let MemorySettings {
        recycling,
        admission,
        ..
    } = &settings.memory;
    let workers = settings.workers.into();
    let mut core = Core::new(arena, parking, lanes, workers);
    for worker in 0..workers {
        core.begin_life(worker, recycling);
    }
    core.strict = settings.strict;
    core.quarantine_after = settings.quarantine_after;
    core.deadlines_alone = settings.lanes > 1 && !settings.share_deadlines;
    core.groups.grace = settings.grace;
    core.weighs = recycling.above != u64::MAX;
    core.admission = (*admission > 0).then(|| Box::new(Admission::new(*admission)));
    core
}

impl Shared {
    /// Cores that this process may run on, container limits counted: as they were when somebody asked first.
    fn cores(&self) -> usize {
        *self.cores.get_or_init(crate::sys::limits::cores)
    }

    /// Wakes the monitor.
    fn ring(&self) {
        // Only a bad descriptor fails, and ours lives as long as we.
        let _ = self.bell.ring();
    }

    /// Whether jobs may have to wait until they are let in.
    pub(crate) fn has_ceiling(&self) -> bool {
        self.settings.memory.admission > 0
    }

    /// Takes a job.
    #[inline]
    pub(crate) fn submit(
        &self,
        kernel: &KernelInfo,
        call: &mut ArgWriter,
        group: u32,
        options: Option<&JobOptions>,
    ) -> JobId {
        let mut core = self.lock();
        let id = if core.admission.is_none() {
            core = self.spilled(core, call);
            core.submit(kernel, call, group, options)
        } else {
            let submit = |core: &mut Core, call: &mut _| core.submit(kernel, call, group, options);
            let (admitted, id) = self.submit_admitted(core, kernel, call, submit);
            core = admitted;
            id
        };
        self.unlock(core);
        id
    }

    /// Puts a call that is too long for a slot where workers can read it: not under the lock, since it may have to wait for
    /// memory that somebody else is committing.
    fn spill(&self, call: &mut ArgWriter) {
        if call.must_spill() {
            let words = call.words();
            call.spilled = Some(self.with_room(|arena| arena.alloc_words(words)));
            crate::sync::point!("submit.spilled");
        }
    }

    /// The same for who has the lock.
    #[inline]
    fn spilled<'a>(&'a self, mut core: Locked<'a>, call: &mut ArgWriter) -> Locked<'a> {
        if call.must_spill() {
            self.unlock(core);
            self.spill(call);
            core = self.lock();
        }
        core
    }

    /// Memory for an array. If there is none, first takes what jobs have ended with and nobody has
    /// looked at yet: their inputs are free then.
    pub(crate) fn with_room<T>(
        &self,
        alloc: impl Fn(&Arc<Arena>) -> Result<T, ArenaFull>,
    ) -> Result<T, ArenaFull> {
        alloc(&self.arena).or_else(|_| {
            let mut core = self.lock();
            core.drain_busy();
            core.refill();
            self.unlock(core);
            alloc(&self.arena)
        })
    }

    /// Nothing happens any more: the trace is completed.
    pub(crate) fn end_trace(&self) {
        drop(self.owner().take());
    }

    fn owner(&self) -> MutexGuard<'_, Option<Owner>> {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trace, while there is one.
    pub(crate) fn tracer(&self) -> Option<Arc<Tracer>> {
        self.owner().as_ref().map(|owner| Arc::clone(&owner.0))
    }

    /// Whether workers lock themselves down.
    pub(crate) fn is_strict(&self) -> bool {
        self.settings.strict
    }

    /// By what, if they do.
    #[cfg(feature = "sandbox")]
    pub(crate) fn locked_by(&self) -> Option<Kernel> {
        self.is_strict().then_some(self.settings.kernel)
    }

    /// Jobs that run side by side.
    pub(crate) fn lanes(&self) -> usize {
        self.cells.len()
    }

    /// Number of workers.
    pub(crate) fn workers(&self) -> usize {
        self.settings.workers.into()
    }

    /// Whether this process is a copy of the one that has the engine. What is dropped here is not dropped there.
    pub(crate) fn is_copy(&self) -> bool {
        !self.original.is_here()
    }

    /// See [`Core::abandon`].
    pub(crate) fn abandon(&self, id: JobId) {
        if self.is_copy() {
            return;
        }
        let mut core = self.lock();
        let waker = core.abandon(id);
        core.go_on();
        self.unlock(core);
        drop(waker);
    }

    /// From now on only the end of the job is asked for: what its value holds is given back as soon as it is there.
    pub(crate) fn forget_value(&self, id: JobId) {
        if self.is_copy() {
            return;
        }
        let mut core = self.lock();
        let record = core.records.get(id);
        record.unwanted = true;
        record.drop_value();
        self.unlock(core);
    }

    /// See [`Core::detach`].
    pub(crate) fn detach(&self, id: JobId) {
        let mut core = self.lock();
        let waker = core.detach(id);
        self.unlock(core);
        drop(waker);
    }

    /// See [`Core::cancel`].
    pub(crate) fn cancel(&self, id: JobId) {
        let mut core = self.lock();
        core.cancel(id);
        core.go_on();
        self.unlock(core);
    }

    /// See [`Core::cancel_now`].
    pub(crate) fn cancel_now(&self, id: JobId) {
        let mut core = self.lock();
        core.cancel_now(id);
        core.go_on();
        self.unlock(core);
    }

    /// Ends the engine, and waits for it.
    pub(crate) fn end(&self, monitor: JoinHandle<()>, how: Closing) {
        self.end_by(monitor, how, None);
    }

    fn end_by(&self, monitor: JoinHandle<()>, how: Closing, drains_until: Option<Instant>) {
        if self.is_copy() {
            return;
        }
        if monitor::is_here() {
            // Here is a waker that a monitor has called, and the engine was its last. Nobody waits for himself, and two that
            // are called by each other's do not wait for each other.
            self.close(how, drains_until);
            if self.comes_second() {
                self.finish();
            }
            return;
        }
        self.close(how, drains_until);
        // A monitor that panicked has closed its pipe and its workers are gone with it.
        let _ = monitor.join();
        self.finish();
    }

    /// As [`end`](Shared::end) with [`Closing::Drain`], but only `limit` long, and then with [`Closing::Now`]. Whether that was long
    /// enough.
    pub(crate) fn end_within(&self, monitor: JoinHandle<()>, limit: Duration) -> bool {
        if self.is_copy() {
            return true;
        }
        let until = clock::later(Instant::now(), limit);
        self.end_by(monitor, Closing::Drain, Some(until));
        let mut core = self.lock();
        core.drain_busy();
        let drained = core.is_drained();
        self.unlock(core);
        drained
    }

    /// Whoever ends the engine without waiting for its monitor, and the monitor at its end: the second of them finishes.
    fn comes_second(&self) -> bool {
        // Each sees what the other did before it came.
        self.one_came.swap(true, Ordering::AcqRel)
    }

    /// What is left to do when the monitor is gone.
    fn finish(&self) {
        self.log.close();
        self.arena.retire();
        self.end_trace();
        crate::sync::point!("stop.unnamed");
    }

    /// Ends the engine; the monitor does it.
    fn close(&self, how: Closing, drains_until: Option<Instant>) {
        let mut core = self.lock();
        core.drains_until = drains_until;
        if core.closing != Closing::Now {
            core.closing = how;
        }
        // Nothing is tried again from here on.
        core.fail_waiting(&JobErrorKind::ShutDown);
        core.lose_idle_actors();
        core.let_all_in();
        // What waited behind them may be let in.
        core.go_on();
        self.unlock(core);
        self.ring();
    }

    /// Jobs worth keeping in flight for a kernel whose job takes this long: enough that no worker
    /// runs dry, and not more.
    fn window(&self, expected_ns: u32) -> usize {
        let lanes = self.cells.len();
        // Twice a lane's depth in time, since results may have to wait for an earlier one; two jobs per lane at least.
        let depth_ns = 2 * place::DEPTH_NS / u64::from(expected_ns.max(1));
        let per_lane = (depth_ns as usize).clamp(2, SLOTS);
        // More tiny jobs than one lane holds would only wait in the queue.
        (per_lane * lanes).clamp(2 * lanes, SLOTS.max(2 * lanes))
    }

    /// Jobs of a map that may be in flight where each takes so many bytes: its source, and others, need room as well.
    pub(crate) fn window_in_memory(&self, each: u64) -> usize {
        let bytes = self.arena.capacity() / PART_IN_FLIGHT;
        usize::try_from(bytes / each.max(1))
            .unwrap_or(usize::MAX)
            .max(2 * self.cells.len())
    }

    /// Jobs that may be in flight where answers are taken in order and each job holds so many bytes. A long one keeps those
    /// behind it from being answered, and workers are to go on meanwhile.
    pub(crate) fn window_in_order(&self, expected_ns: u32, each: u64) -> usize {
        let bytes = (self.arena.capacity() / PART_IN_ORDER).min(HELD_IN_ORDER);
        // What others submit waits behind it.
        let per_lane = (IN_ORDER_NS / u64::from(expected_ns.max(1))).min(IN_ORDER_PER_LANE);
        (bytes / each.max(1)).min(per_lane * self.cells.len() as u64) as usize
    }

    /// A permit to spin, while there are fewer spinners than cores to spare.
    fn may_spin(&self) -> bool {
        let spare = self.cores() - 1;
        // Relaxed: a count of permits that guards nothing.
        let taken = self.spinners.fetch_add(1, Ordering::Relaxed);
        if taken < spare {
            return true;
        }
        self.spinners.fetch_sub(1, Ordering::Relaxed);
        false
    }

    fn done_spinning(&self) {
        self.spinners.fetch_sub(1, Ordering::Relaxed);
    }
}
