//! Waiting for jobs.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Shared;
use super::core::{Core, Read};
use super::error::JobError;
use super::lock::drop_waker;
use super::record::{JobId, Stage};
use crate::control::HandshakeError;
use crate::link::{Ask, SLOTS, WAITER, is_open};
use crate::sync::spin_until;
use crate::sys::{cores, futex};

/// How long a thread spins for an answer before it sleeps.
const SPIN_FOR: Duration = Duration::from_micros(50);
/// A job that is expected to take longer is not worth spinning for.
pub(super) const SPIN_BELOW_NS: u32 = 60_000;
/// Whoever waits looks again after this long, whatever it was told: at a word that a worker may write, and while admission holds
/// something back.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Shared {
    /// Has the job ended?
    pub(crate) fn is_done(&self, id: JobId) -> bool {
        let mut core = self.lock();
        core.drain_busy();
        core.refill();
        let done = core.records.get(id).stage == Stage::Answered;
        self.unlock(core);
        done
    }

    /// What messages call the job.
    pub(crate) fn number_of(&self, id: JobId) -> u64 {
        self.lock().records.get(id).job
    }

    /// The answer of a job.
    pub(crate) fn wait<R>(&self, id: JobId, read: Read<R>) -> Result<R, JobError> {
        let answer = self.wait_for(id, None, |core| core.try_take(id, read));
        answer.expect("a wait without a limit ends with the answer")
    }

    /// The answer of a job; `None` if the time runs out before.
    pub(crate) fn wait_timeout<R>(
        &self,
        id: JobId,
        read: Read<R>,
        limit: Duration,
    ) -> Option<Result<R, JobError>> {
        self.wait_for(id, Some(limit), |core| core.try_take(id, read))
    }

    /// Sleeps until a job has its answer, and leaves it there. False if the time runs out before.
    pub(crate) fn wait_until_done(&self, id: JobId, limit: Option<Duration>) -> bool {
        let done = self.wait_for(id, limit, |core| {
            (core.records.get(id).stage == Stage::Answered).then_some(())
        });
        done.is_some()
    }

    fn wait_for<T>(
        &self,
        id: JobId,
        limit: Option<Duration>,
        mut try_take: impl FnMut(&mut Core) -> Option<T>,
    ) -> Option<T> {
        // A limit beyond all clocks is none.
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut has_spun = false;
        loop {
            let mut core = self.lock();
            if let Some(taken) = try_take(&mut core) {
                // Whoever was woken by a lane gives out what waits: the monitor was not told.
                if core.keeps_any() {
                    core.refill();
                }
                self.unlock(core);
                return Some(taken);
            }
            if let Stage::Placed { link, .. } = core.records.get(id).stage {
                core.drain(link as usize);
            } else {
                core.drain_busy();
            }
            if core.keeps_any() {
                core.refill();
            }
            if let Some(taken) = try_take(&mut core) {
                self.unlock(core);
                return Some(taken);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                self.unlock(core);
                return None;
            }
            let record = core.records.get(id);
            let (stage, kernel) = (record.stage, record.kernel);
            // A condemned lane's word may have ended, but the answer waits for the exit.
            if let Stage::Placed { link, position } = stage
                && !core.lanes[link as usize].condemned
            {
                let expected = core.kernels.get(kernel).expected_ns;
                let short = expected < SPIN_BELOW_NS && core.busy_lanes() < self.cores();
                self.unlock(core);
                if !has_spun && short {
                    has_spun = true;
                    if self.spin(link as usize, position) {
                        continue;
                    }
                }
                self.sleep_on_slot(id, link, position, left);
            } else {
                core.records.get(id).parked = true;
                core.want_notice(id);
                core.be_watched();
                let spot = self.parking.of(id.index);
                let ticket = spot.ticket();
                self.unlock(core);
                spot.sleep(ticket, left);
            }
        }
    }

    /// Looks at a state word for a moment. True if the job has ended.
    pub(super) fn spin(&self, link: usize, position: u64) -> bool {
        if !self.may_spin() {
            return false;
        }
        let word = self.cells[link].state(position).as_futex();
        // So that the worker can keep away from this core.
        let (hub, core) = (self.cells[link].hub(), cores::current());
        if hub.waiter_core.load(Ordering::Relaxed) != core {
            hub.waiter_core.store(core, Ordering::Relaxed);
        }
        let ended = spin_until(SPIN_FOR, || !is_open(word, position, SLOTS));
        self.done_spinning();
        ended
    }

    /// Sleeps on the state word of a job that is in a slot. Returns when there may be news.
    fn sleep_on_slot(&self, id: JobId, link: u32, position: u64, left: Option<Duration>) {
        let mut core = self.lock();
        // It may have been moved or answered meanwhile.
        if core.records.get(id).stage != (Stage::Placed { link, position }) {
            return self.unlock(core);
        }
        core.be_watched();
        let asked = core.lanes[link as usize].ask(position, WAITER);
        self.unlock(core);
        if let Ask::Set(value) = asked {
            let word = self.cells[link as usize].state(position).as_futex();
            let limit = left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
            let _ = futex::wait(word, value, Some(limit));
        }
    }

    /// A thread of the program that the monitor has woken goes on where no kernel runs, if there is such a core. The kernel of
    /// the system wakes it where it slept; and there runs by now what it gave a worker before it went to sleep.
    /// True if it has gone.
    pub(crate) fn step_aside(&self) -> bool {
        let kernels = || self.cells.iter().filter_map(|cells| cells.kernel_core());
        let here = cores::current();
        kernels().any(|core| core == here) && cores::leave(kernels())
    }

    /// As a future: the answer, or the waker is kept.
    pub(crate) fn poll<R>(
        &self,
        id: JobId,
        read: Read<R>,
        context: &mut Context<'_>,
    ) -> Poll<Result<R, JobError>> {
        // Wakers are foreign code: they are cloned and dropped outside the lock.
        let mut waker = Some(context.waker().clone());
        let mut core = self.lock();
        let mut taken = core.try_take(id, read);
        if taken.is_none() {
            std::mem::swap(&mut core.records.get(id).waker, &mut waker);
            core.want_notice(id);
            core.be_watched();
            // What ended before it was asked for notice is found here.
            core.drain_busy();
            core.refill();
            taken = core.try_take(id, read);
        }
        self.unlock(core);
        drop_waker(waker);
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    /// Sleeps until all workers have been ready once, or one cannot start.
    pub(super) fn wait_until_started(&self) -> Result<(), HandshakeError> {
        loop {
            let mut core = self.lock();
            if let Some(why) = &core.broken {
                return Err(HandshakeError::Failed(why.clone()));
            }
            if core.ready == core.lanes.len() {
                core.started = true;
                return Ok(());
            }
            let ticket = self.parking.engine.ticket();
            drop(core);
            self.parking.engine.sleep(ticket, None);
        }
    }
}
