//! The supervisor: what user threads, the monitor and the handshake threads share, and the lock of the engine's state.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

#[cfg(feature = "points")]
use super::hold_time::HoldTime;
use super::lifecycle::EngineEnd;
use super::output::Logger;
use super::output::flush::FlushRequests;
use super::reply::assert_not_reading;
use super::settings::Settings;
use super::state::EngineState;
use super::stats::{Progress, RateMeter};
use super::waiting::parking::Parking;
use super::waiting::wakers::wake_all;
use super::worker::Refusal;
use crate::arena::Arena;
use crate::link::{LinkCells, SpinLimit};
use crate::sys::event::EventFd;
use crate::sys::fork::OwnerProcess;
#[cfg(feature = "sandbox")]
use crate::sys::sandbox::SandboxFeatures;
use crate::trace::{TraceOwner, Tracer};

/// The supervisor of one engine.
///
/// The state is behind one lock. What lies beside it is set when the engine starts and never changes, or has its own
/// synchronization.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) arena: Arc<Arena>,
    /// The cells of each lane's link, for threads that wait without the lock.
    pub(super) cells: Vec<Arc<LinkCells>>,
    pub(super) parking: Arc<Parking>,
    /// Takes what workers print.
    pub(crate) log: Logger,
    /// Requests to read what workers have printed.
    pub(super) flushes: FlushRequests,
    pub(super) settings: Settings,
    state: Mutex<EngineState>,
    /// Wakes the monitor.
    monitor_event: Arc<EventFd>,
    /// Handshakes that failed, for the monitor.
    refusals: Mutex<Vec<Refusal>>,
    /// Threads of this process that spin.
    spinners: AtomicUsize,
    /// How long they do.
    pub(super) spin_limit: SpinLimit,
    /// Cores that this process may run on, as they were when this was asked first.
    cores: OnceLock<usize>,
    /// Earlier looks at the engine's progress, for its rate.
    looks: Mutex<RateMeter>,
    tracer: Mutex<Option<TraceOwner>>,
    /// The process that owns the engine.
    process: OwnerProcess,
    /// What [`finish`](Supervisor::finish) ends.
    pub(super) end: EngineEnd,
    /// Set by the first of the caller of [`end`](Supervisor::end) that did not join the monitor, and the monitor
    /// thread. The one that finds it set runs [`finish`](Supervisor::finish).
    one_has_ended: AtomicBool,
}

/// The state, locked. Lanes that got jobs are rung right before the lock is released, so all jobs that were posted
/// under one lock cost one look at whether their lane sleeps.
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
        // Limiters ring it for jobs that wait for a permit.
        state.permit_waiters.set_monitor(&monitor_event);
        arena.signal_unused(&monitor_event);
        Self {
            arena,
            cells,
            parking,
            log: Logger::new(settings.log.clone()),
            flushes: FlushRequests::default(),
            settings,
            state: Mutex::new(state),
            monitor_event,
            refusals: Mutex::default(),
            spinners: AtomicUsize::new(0),
            spin_limit: SpinLimit::new(),
            cores: OnceLock::new(),
            looks: Mutex::new(RateMeter::new()),
            tracer: Mutex::new(tracer),
            process: OwnerProcess::current(),
            end: EngineEnd::default(),
            one_has_ended: AtomicBool::new(false),
        }
    }

    /// # Panics
    ///
    /// In a copy of the process: its locks and links are those of the original, which does not know of the copy. And
    /// where code of the program is called with the lock held: it would deadlock.
    #[cfg_attr(feature = "points", track_caller)]
    pub(super) fn lock(&self) -> Locked<'_> {
        self.process.assert_current();
        assert_not_reading();
        // A panic with the lock held is a defect of this crate; the state is still the best there is.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked {
            state,
            #[cfg(feature = "points")]
            hold_time: HoldTime::begin(),
        }
    }

    /// Releases the lock, and rings the monitor and calls wakers where that is due. First handles ends of jobs that
    /// graphs have not processed, whatever caused them: no other thread might take the lock for long. Of very many, some
    /// at a time, so that other threads need not wait for all.
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

    /// Cores that this process may run on, with container limits, as they were at the first call.
    pub(super) fn cores(&self) -> usize {
        *self.cores.get_or_init(crate::sys::limits::cores)
    }

    /// Wakes the monitor.
    pub(super) fn ring(&self) {
        // Fails only for a bad descriptor, and this one is open as long as `self`.
        let _ = self.monitor_event.ring();
    }

    /// What the monitor sleeps on.
    pub(super) fn monitor_event(&self) -> &EventFd {
        &self.monitor_event
    }

    /// Reports a handshake that failed to the monitor.
    pub(super) fn refused(&self, refusal: Refusal) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.push(refusal);
        drop(refusals);
        self.ring();
    }

    /// Takes the handshakes that failed since the last call.
    pub(super) fn take_refusals(&self) -> Vec<Refusal> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut refusals)
    }

    /// Fills in the engine's age and rate.
    pub(super) fn rate(&self, progress: &mut Progress) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.look(progress);
    }

    /// Whether the other one of those that may end last has ended before: see `one_has_ended`.
    pub(super) fn ends_last(&self) -> bool {
        // AcqRel: each of the two sees what the other did before its own call.
        self.one_has_ended.swap(true, Ordering::AcqRel)
    }

    /// Completes the trace: nothing happens any more.
    pub(crate) fn end_trace(&self) {
        drop(self.owner().take());
    }

    /// Whether there is a ceiling on bytes in flight, so that jobs may have to wait for admission.
    pub(crate) fn has_ceiling(&self) -> bool {
        self.settings.memory.admission > 0
    }

    fn owner(&self) -> MutexGuard<'_, Option<TraceOwner>> {
        self.tracer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trace, while there is one.
    pub(crate) fn tracer(&self) -> Option<Arc<Tracer>> {
        self.owner().as_ref().map(|owner| Arc::clone(&owner.0))
    }

    /// Whether workers are sandboxed.
    pub(crate) fn is_sandboxed(&self) -> bool {
        self.settings.sandboxed
    }

    /// What sandboxes the workers, if they are.
    #[cfg(feature = "sandbox")]
    pub(crate) fn sandbox_features(&self) -> Option<SandboxFeatures> {
        self.is_sandboxed().then_some(self.settings.kernel)
    }

    /// Jobs that may run at the same time: lanes of active workers.
    pub(crate) fn active_lanes(&self) -> usize {
        self.active_workers() * usize::from(self.settings.lanes)
    }

    /// Workers that may be active at the same time.
    pub(crate) fn active_workers(&self) -> usize {
        self.settings.active_workers().into()
    }

    /// Number of workers, including the spares.
    pub(super) fn workers(&self) -> usize {
        self.settings.workers.into()
    }

    /// Whether this process is a copy (by `fork`) of the one that owns the engine. What is dropped here is not dropped
    /// there.
    pub(crate) fn is_copy(&self) -> bool {
        !self.process.is_current()
    }

    /// Takes a permit to spin, if there are fewer spinning threads than spare cores. To be followed by
    /// [`done_spinning`](Supervisor::done_spinning).
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
    /// Takes the machine for one with this many cores: with one, no thread spins.
    pub(super) fn assume_cores(&self, cores: usize) {
        self.cores.get_or_init(|| cores);
    }
}
