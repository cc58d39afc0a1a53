//! Jobs of an engine that request permits, wait for them and return them.

use super::handle::PermitSource;
use super::waiting_jobs::{PermitStage, WaitingJobs};
use crate::link::NOTICE;
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::job_table::JobTable;
use crate::supervisor::record::Stage;
use crate::supervisor::signals::MonitorSignals;
use crate::supervisor::state::EngineState;

impl WaitingJobs {
    /// Takes a permit for the job of this record if the job needs one, or queues the job at the limiter. Returns true
    /// if the job has to wait.
    #[cold]
    pub(in crate::supervisor) fn wait_for_permit(
        &mut self,
        index: u32,
        (records, monitor): (&mut JobTable, &mut MonitorSignals),
    ) -> bool {
        let record = records.at(index);
        let Some(policy) = &mut record.policy else {
            return false;
        };
        let Some(PermitSource { limiter, caller }) = policy.options.limit.clone() else {
            return false;
        };
        // `parked`: the drain uses the slower path, which returns the permit. `NOTICE`: the monitor drains the end, for
        // which another engine may wait.
        record.parked = true;
        record.requests |= NOTICE;
        let come = {
            let (mut state, now) = limiter.lock();
            if state.try_take(now) {
                None
            } else {
                let waker = self.waker(&limiter);
                Some((state.join(caller, &waker), waker))
            }
        };
        crate::sync::point!("limit.came");
        let Some((ticket, waker)) = come else {
            policy.permit = PermitStage::Held;
            return false;
        };
        policy.permit = PermitStage::Waiting(ticket);
        record.stage = Stage::Waiting;
        let address = limiter.address();
        self.add(limiter, waker, ticket, index);
        self.look_at_clock(address);
        crate::sync::point!("limit.waits");
        monitor.watch_memory();
        monitor.call_at(self.due());
        true
    }
}

impl EngineState {
    /// Returns the permit of this job, or removes the job from the limiter's queue.
    pub(in crate::supervisor) fn give_back(&mut self, index: u32) {
        let Some(policy) = &mut self.records.at(index).policy else {
            return;
        };
        let Some(PermitSource { limiter, .. }) = policy.options.limit.clone() else {
            return;
        };
        let address = limiter.address();
        let wakers = match std::mem::take(&mut policy.permit) {
            PermitStage::None => return,
            PermitStage::Held => limiter.give_back(),
            PermitStage::Waiting(ticket) => {
                self.permit_waiters.remove(&limiter, ticket);
                let (mut state, now) = limiter.lock();
                state.leave(ticket, now)
            }
        };
        crate::sync::point!("limit.given_back");
        let others = self.permit_waiters.others(address, wakers);
        self.waiters.call(others);
        self.queue_called_jobs(address);
        // The new first waiter may have to watch the clock.
        self.monitor.call_at(self.permit_waiters.due());
    }

    /// Admits called jobs of the limiters that woke this engine, or whose time has come.
    pub(in crate::supervisor) fn admit_called_jobs(&mut self) {
        for address in self.permit_waiters.limiters_to_check() {
            let Some(limiter) = self.permit_waiters.limiter(address) else {
                continue;
            };
            let wakers = limiter.call();
            let others = self.permit_waiters.others(address, wakers);
            self.waiters.call(others);
            self.queue_called_jobs(address);
        }
    }

    /// Queues the jobs that this limiter has called.
    fn queue_called_jobs(&mut self, address: usize) {
        let called = self.permit_waiters.called(address);
        if called.is_empty() {
            return;
        }
        for index in called {
            let record = self.records.at(index);
            record.stage = Stage::Queued;
            if let Some(policy) = &mut record.policy {
                policy.permit = PermitStage::Held;
            }
            self.queue.push_back(index, self.records.at(index));
        }
        crate::sync::point!("limit.called");
        // This thread, which holds the lock, may refill the lanes; otherwise the monitor does.
        self.monitor.call();
        self.lanes.update_flags(&self.queue, &self.config);
    }

    /// Answers all jobs that wait for a permit.
    pub(in crate::supervisor) fn fail_permit_waiters(&mut self, why: &JobErrorKind) {
        // One at a time: a failure may cancel other jobs of its group.
        while let Some(index) = self.permit_waiters.any_waiting() {
            self.fail(index, why.clone(), None, Vec::new());
        }
    }
}
