//! Waiting for one job, by a thread or a future, and for the start of an engine.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::LOOK_AGAIN;
use super::wakers::drop_waker;
use crate::control::HandshakeError;
use crate::link::{Ask, SLOTS, WAITER, is_open, is_running};
use crate::supervisor::error::JobError;
use crate::supervisor::record::{JobId, Stage};
use crate::supervisor::reply::Read;
use crate::supervisor::shared::Supervisor;
use crate::supervisor::state::EngineState;
use crate::sys::{cores, futex};

/// A job with a longer expected duration is not worth spinning for.
pub(in crate::supervisor) const SPIN_BELOW_NS: u32 = 60_000;

impl Supervisor {
    /// Returns true if the job has ended.
    pub(crate) fn is_done(&self, id: JobId) -> bool {
        let mut state = self.lock();
        state.catch_up();
        let done = state.records.get(id).stage == Stage::Answered;
        self.unlock(state);
        done
    }

    /// Returns true if a worker runs the job now, as the worker reports.
    pub(crate) fn is_running(&self, id: JobId) -> bool {
        let stage = self.lock().records.get(id).stage;
        let Stage::Placed { lane, position } = stage else {
            return false;
        };
        is_running(
            self.cells[lane as usize].state(position).as_futex(),
            position,
            SLOTS,
        )
    }

    /// Returns the number of the job, for messages.
    pub(crate) fn number_of(&self, id: JobId) -> u64 {
        self.lock().records.get(id).job
    }

    /// Waits for the answer of a job, and takes it.
    pub(crate) fn wait<R>(&self, id: JobId, read: Read<R>) -> Result<R, JobError> {
        let taken = self.wait_for(id, None, |state| state.take(id, read));
        let taken = taken.expect("a wait without a limit ends with the answer");
        self.read(taken, read)
    }

    /// Like [`wait`](Self::wait); returns `None` if the time limit passes first.
    pub(crate) fn wait_timeout<R>(
        &self,
        id: JobId,
        read: Read<R>,
        limit: Duration,
    ) -> Option<Result<R, JobError>> {
        let taken = self.wait_for(id, Some(limit), |state| state.take(id, read))?;
        Some(self.read(taken, read))
    }

    /// Sleeps until a job has ended, without taking its answer. Returns false if the time limit passes first.
    pub(crate) fn wait_until_done(&self, id: JobId, limit: Option<Duration>) -> bool {
        let done = self.wait_for(id, limit, |state| {
            (state.records.get(id).stage == Stage::Answered).then_some(())
        });
        done.is_some()
    }

    fn wait_for<T>(
        &self,
        id: JobId,
        limit: Option<Duration>,
        mut try_take: impl FnMut(&mut EngineState) -> Option<T>,
    ) -> Option<T> {
        // A limit beyond the range of the clock counts as no limit.
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut has_spun = false;
        let mut spun_since = None;
        loop {
            let mut state = self.lock();
            if let Some(taken) = try_take(&mut state) {
                // A worker has woken this thread and not the monitor, so this thread refills the lanes.
                if state.queue.has_work() {
                    state.refill();
                }
                self.unlock(state);
                return Some(taken);
            }
            let stage = state.records.get(id).stage;
            match stage {
                Stage::Placed { lane, .. } => state.drain(lane as usize),
                _ => state.drain_busy(),
            }
            if state.queue.has_work() {
                state.refill();
            }
            if let Some(taken) = try_take(&mut state) {
                self.unlock(state);
                return Some(taken);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                self.unlock(state);
                return None;
            }
            self.assert_may_wait();
            let record = state.records.get(id);
            let (stage, kernel) = (record.stage, record.kernel);
            // The state word of a condemned lane may say that the job has ended, but the job is answered when its
            // worker has exited.
            if let Stage::Placed { lane, position } = stage
                && !state.lanes[lane as usize].is_condemned()
            {
                let expected = state.kernels.get(kernel).expected_ns;
                let short = expected < SPIN_BELOW_NS && state.lanes.busy() < self.cores();
                self.unlock(state);
                if !has_spun && short {
                    has_spun = true;
                    let start = Instant::now();
                    if self.spin(lane as usize, position, start) {
                        continue;
                    }
                    spun_since = Some(start);
                }
                self.sleep_on_slot(id, lane, position, left);
                if let Some(start) = spun_since.take() {
                    self.learn_from_wait(lane as usize, start);
                }
            } else {
                let EngineState { lanes, records, .. } = &mut *state;
                records.get(id).parked = true;
                lanes.want_notice(id, records);
                state.monitor.watch_memory();
                let spot = self.parking.of(id.index);
                let ticket = spot.ticket();
                let is_held_back = state.runs.first_held_back().is_some();
                self.unlock(state);
                let again = is_held_back.then_some(LOOK_AGAIN);
                spot.sleep(ticket, again.into_iter().chain(left).min());
            }
        }
    }

    /// Spins on a state word from `start` on, for as long as spinning has paid off lately. Returns true if the job has
    /// ended.
    pub(in crate::supervisor) fn spin(&self, lane: usize, position: u64, start: Instant) -> bool {
        if !self.may_spin() {
            return false;
        }
        let cells = &self.cells[lane];
        let word = cells.state(position).as_futex();
        // Tells the lane not to spin on this core.
        cells.hub().set_waiter_core(cores::current());
        let has_ended = || !is_open(word, position, SLOTS);
        let ended = self
            .spin_limit
            .poll(start, has_ended, || cells.awake_core());
        self.done_spinning();
        ended
    }

    /// Updates the spin limit after a wait for a job of this lane, begun at `start`, that [`spin`](Supervisor::spin)
    /// did not end.
    pub(in crate::supervisor) fn learn_from_wait(&self, lane: usize, start: Instant) {
        let peer_core = self.cells[lane].last_core();
        self.spin_limit.learn(start.elapsed(), peer_core);
    }

    /// Sleeps on the state word of a job in a slot. Returns when the job's state may have changed.
    fn sleep_on_slot(&self, id: JobId, lane: u32, position: u64, left: Option<Duration>) {
        let mut state = self.lock();
        // The job may have been moved or answered in the meantime.
        if state.records.get(id).stage != (Stage::Placed { lane, position }) {
            return self.unlock(state);
        }
        state.monitor.watch_memory();
        let asked = state.lanes[lane as usize].ask(position, WAITER);
        self.unlock(state);
        if let Ask::Set(value) = asked {
            let word = self.cells[lane as usize].state(position).as_futex();
            let limit = left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
            let _ = futex::wait(word, value, Some(limit));
        }
    }

    /// Moves this thread, which the monitor has woken, to a core where no kernel runs, if there is one. Linux wakes a
    /// thread on the core where it slept; by now a worker runs there, with a job that this thread had submitted.
    /// Returns true if it has moved.
    pub(crate) fn step_aside(&self) -> bool {
        let kernels = || self.cells.iter().filter_map(|cells| cells.kernel_core());
        let here = cores::current();
        kernels().any(|core| core == here) && cores::leave(kernels())
    }

    /// Returns the core of this thread, if a lane is awake on that core.
    pub(crate) fn core_beside_a_lane(&self) -> Option<u32> {
        let here = cores::current();
        let mut lanes = self.cells.iter().filter_map(|cells| cells.awake_core());
        lanes.any(|core| core == here).then_some(here)
    }

    /// Polls for the answer of a job, or stores the waker.
    pub(crate) fn poll<R>(
        &self,
        id: JobId,
        read: Read<R>,
        context: &mut Context<'_>,
    ) -> Poll<Result<R, JobError>> {
        // Wakers are foreign code: they are cloned and dropped outside the lock.
        let mut waker = Some(context.waker().clone());
        let mut state = self.lock();
        let mut taken = state.take(id, read);
        if taken.is_none() {
            let EngineState { lanes, records, .. } = &mut *state;
            std::mem::swap(&mut records.get(id).waker, &mut waker);
            lanes.want_notice(id, records);
            state.monitor.watch_memory();
            // Finds a job that ended before the request for notice.
            state.catch_up();
            taken = state.take(id, read);
        }
        self.unlock(state);
        drop_waker(waker);
        taken.map_or(Poll::Pending, |taken| Poll::Ready(self.read(taken, read)))
    }

    /// Sleeps until the engine has started, or a worker cannot start.
    pub(in crate::supervisor) fn wait_until_started(&self) -> Result<(), HandshakeError> {
        loop {
            let state = self.lock();
            if let Some(why) = state.lifecycle.broken() {
                return Err(HandshakeError::Failed(why.as_str().into()));
            }
            if state.lifecycle.has_started() {
                return Ok(());
            }
            let ticket = self.parking.start.ticket();
            drop(state);
            self.parking.start.sleep(ticket, None);
        }
    }
}
