//! The supervisor: the state that threads of the program, the monitor and the handshake threads share, and its lock.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

#[cfg(feature = "points")]
use super::hold_time::HoldTime;
use super::output::Logger;
use super::output::flush::FlushRequests;
use super::reply::assert_not_reading;
use super::settings::Settings;
use super::state::EngineState;
use super::stats::{Progress, RateMeter};
#[cfg(feature = "template")]
use super::template::ForkSlot;
use super::waiting::parking::Parking;
use super::waiting::wakers::wake_all;
use super::worker::Refusal;
use crate::arena::Arena;
use crate::link::{LinkCells, SpinLimit};
use crate::sync::lock;
use crate::sys::event::EventFd;
use crate::sys::fork::OwnerProcess;
#[cfg(feature = "sandbox")]
use crate::sys::sandbox::SandboxFeatures;
use crate::trace::{TraceOwner, Tracer};

/// The supervisor of one engine.
/// The engine's state is protected by one lock. The other fields do not change after the start, or have their own
/// synchronization.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) arena: Arc<Arena>,
    /// The cells of each lane's link, for threads that wait without the lock.
    pub(super) cells: Vec<Arc<LinkCells>>,
    pub(super) parking: Arc<Parking>,
    /// What receives the lines that workers print.
    pub(crate) log: Logger,
    /// Requests to read what workers have printed.
    pub(super) flushes: FlushRequests,
    pub(super) settings: Settings,
    state: Mutex<EngineState>,
    /// The eventfd that wakes the monitor.
    monitor_event: Arc<EventFd>,
    /// Why workers are started separately although the engine has a template.
    pub(super) no_template: OnceLock<String>,
    /// The fork of the program from which workers are copied.
    #[cfg(feature = "template")]
    pub(super) fork: ForkSlot,
    /// Failed handshakes, which the monitor handles.
    refusals: Mutex<Vec<Refusal>>,
    /// Number of threads of this process that spin.
    spinners: AtomicUsize,
    /// How long threads spin.
    pub(super) spin_limit: SpinLimit,
    /// Number of cores that this process may run on, determined at the first call of [`cores`](Supervisor::cores).
    cores: OnceLock<usize>,
    /// Earlier counts of ended jobs, from which the rate is computed.
    looks: Mutex<RateMeter>,
    tracer: Mutex<Option<TraceOwner>>,
    /// The process that owns the engine.
    process: OwnerProcess,
    /// Set when [`finish`](Supervisor::finish) has run.
    pub(super) end: OnceLock<()>,
    /// Set by the first of two threads: the caller of [`end`](Supervisor::end) that did not join the monitor, and the
    /// monitor. The thread that finds it set runs [`finish`](Supervisor::finish).
    one_has_ended: AtomicBool,
}

/// The locked state. Lanes that got jobs are rung right before the lock is released, so whether a lane sleeps is
/// checked only once for all jobs that were posted under one lock.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    state: MutexGuard<'a, EngineState>,
    #[cfg(feature = "points")]
    hold_time: HoldTime,
}

impl Deref for Locked<'_> {
    type Target = EngineState;

    #[inline]
    fn deref(&self) -> &EngineState {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut EngineState {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.state.lanes.ring_posted();
        #[cfg(feature = "points")]
        self.hold_time.end();
    }
}

impl Supervisor {
    pub(super) fn new(
        arena: Arc<Arena>,
        cells: Vec<Arc<LinkCells>>,
        parking: Arc<Parking>,
        monitor_event: Arc<EventFd>,
        mut state: EngineState,
        settings: Settings,
        tracer: Option<TraceOwner>,
    ) -> Self {
        // Limiters ring it when they call a job of this engine.
        state.permit_waiters.set_monitor(&monitor_event);
        arena.signal_unused(&monitor_event);
        #[cfg(feature = "template")]
        let fork = ForkSlot::new(settings.program.start.is_forked());
        Self {
            arena,
            cells,
            parking,
            log: Logger::new(settings.log.clone()),
            flushes: FlushRequests::default(),
            settings,
            state: Mutex::new(state),
            monitor_event,
            no_template: OnceLock::new(),
            #[cfg(feature = "template")]
            fork,
            refusals: Mutex::default(),
            spinners: AtomicUsize::new(0),
            spin_limit: SpinLimit::new(),
            cores: OnceLock::new(),
            looks: Mutex::new(RateMeter::new()),
            tracer: Mutex::new(tracer),
            process: OwnerProcess::current(),
            end: OnceLock::new(),
            one_has_ended: AtomicBool::new(false),
        }
    }

    /// Takes the engine's lock.
    ///
    /// # Panics
    ///
    /// In a forked process: its locks and links are those of the original process. And in code of the program that is
    /// called while the lock is held: it would deadlock.
    #[cfg_attr(feature = "points", track_caller)]
    pub(super) fn lock(&self) -> Locked<'_> {
        self.process.assert_current();
        assert_not_reading();
        Locked {
            state: lock(&self.state),
            #[cfg(feature = "points")]
            hold_time: HoldTime::begin(),
        }
    }

    /// Releases the lock, and rings the monitor and calls wakers if that is due. First processes the ends of jobs that
    /// runs have not processed, because other threads might not take the lock for long. If there are very many,
    /// releases the lock between batches for other threads.
    #[inline]
    pub(super) fn unlock<'a>(&'a self, mut state: Locked<'a>) {
        while state.runs.has_unhandled_ends() {
            state.refill();
            if state.runs.has_unhandled_ends() {
                drop(state);
                state = self.lock();
            }
        }
        let call = state.monitor.take_call();
        if !call && !state.waiters.has_wakers() {
            return;
        }
        let wakers = state.waiters.take_wakers();
        drop(state);
        if call {
            self.ring();
        }
        wake_all(wakers);
    }

    /// Returns the number of cores that this process may run on, with container limits, determined at the first call.
    pub(super) fn cores(&self) -> usize {
        *self.cores.get_or_init(crate::sys::limits::cores)
    }

    /// Wakes the monitor.
    pub(super) fn ring(&self) {
        // Fails only for a bad descriptor; this descriptor is open as long as `self`.
        let _ = self.monitor_event.ring();
    }

    /// Returns the eventfd on which the monitor sleeps.
    pub(super) fn monitor_event(&self) -> &Arc<EventFd> {
        &self.monitor_event
    }

    /// Reports a failed handshake to the monitor.
    pub(super) fn refused(&self, refusal: Refusal) {
        lock(&self.refusals).push(refusal);
        self.ring();
    }

    /// Takes the handshakes that have failed since the last call.
    pub(super) fn take_refusals(&self) -> Vec<Refusal> {
        std::mem::take(&mut lock(&self.refusals))
    }

    /// Fills in the engine's age and rate.
    pub(super) fn rate(&self, progress: &mut Progress) {
        lock(&self.looks).look(progress);
    }

    /// Returns the time since the engine was built.
    pub(super) fn age(&self) -> Duration {
        lock(&self.looks).age()
    }

    /// Returns true if this is the second call, so the caller has to finish the engine: see `one_has_ended`.
    pub(super) fn ends_last(&self) -> bool {
        // AcqRel: the second caller sees everything that the first did before its call.
        self.one_has_ended.swap(true, Ordering::AcqRel)
    }

    /// Completes the trace. No event follows.
    pub(crate) fn end_trace(&self) {
        drop(lock(&self.tracer).take());
    }

    /// Returns true if there is a ceiling on bytes in flight, so that jobs may have to wait for admission.
    pub(crate) fn has_ceiling(&self) -> bool {
        self.settings.memory.admission > 0
    }

    /// Returns the trace of the engine, if it has one now.
    pub(crate) fn tracer(&self) -> Option<Arc<Tracer>> {
        let owner = lock(&self.tracer);
        owner.as_ref().map(|owner| Arc::clone(&owner.0))
    }

    /// Returns true if workers are sandboxed.
    pub(crate) fn is_sandboxed(&self) -> bool {
        self.settings.sandboxed
    }

    /// Returns the sandbox features of the workers, if they are sandboxed.
    #[cfg(feature = "sandbox")]
    pub(crate) fn sandbox_features(&self) -> Option<SandboxFeatures> {
        self.is_sandboxed().then_some(self.settings.kernel)
    }

    /// Returns the number of jobs that may run at the same time: the lanes of active workers.
    pub(crate) fn active_lanes(&self) -> usize {
        self.active_workers() * usize::from(self.settings.lanes)
    }

    /// Returns the number of workers that may be active at the same time.
    pub(crate) fn active_workers(&self) -> usize {
        self.settings.active_workers().into()
    }

    /// Returns the number of workers, including the spares.
    pub(super) fn workers(&self) -> usize {
        self.settings.workers.into()
    }

    /// Returns true in a forked copy of the process that owns the engine. Dropping handles there has no effect on the
    /// engine.
    pub(crate) fn is_copy(&self) -> bool {
        !self.process.is_current()
    }

    /// Takes a permit to spin, if there are fewer spinning threads than spare cores. Then
    /// [`done_spinning`](Supervisor::done_spinning) must be called.
    pub(super) fn may_spin(&self) -> bool {
        let spare = self.cores() - 1;
        // Relaxed: a count of permits, which guards no memory.
        let taken = self.spinners.fetch_add(1, Ordering::Relaxed);
        if taken < spare {
            return true;
        }
        self.spinners.fetch_sub(1, Ordering::Relaxed);
        false
    }

    pub(super) fn done_spinning(&self) {
        self.spinners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(any(test, feature = "points"))]
impl Supervisor {
    /// Overrides the number of cores: with one core, no thread spins.
    pub(super) fn assume_cores(&self, cores: usize) {
        self.cores.get_or_init(|| cores);
    }
}
