//! Admits jobs below the ceiling on bytes in flight, or makes their callers wait in a line.

use std::task::{Context, Poll};
use std::time::Instant;

use super::state::{Admitted, LineTicket, RefusedBy, exclusive_bytes};
use crate::kernel::KernelInfo;
use crate::kernel::wire::ArgWriter;
use crate::supervisor::options::JobOptions;
use crate::supervisor::owner::Owner;
use crate::supervisor::record::{JobId, Stage};
use crate::supervisor::shared::{Locked, Supervisor};
use crate::supervisor::state::EngineState;
use crate::supervisor::submit::Target;
use crate::supervisor::waiting::LOOK_AGAIN;

impl EngineState {
    /// Admits a job of this kernel with `held` bytes of arguments that only it uses, unless it has to wait.
    ///
    /// A spawned job goes before all callers whose tickets were drawn after the job that spawned it: work that has
    /// begun ends before more is begun.
    pub(in crate::supervisor) fn admit(
        &mut self,
        kernel: u32,
        held: u64,
        ticket: Option<u64>,
    ) -> Result<Admitted, RefusedBy> {
        let lanes = self.config.active_workers * self.lanes.per_worker();
        let Some(admission) = &mut self.admission else {
            return Ok(Admitted(0));
        };
        let bytes = admission.weight(self.kernels.get(kernel), held, lanes);
        let begun = self.runs.first_held_back();
        if !self.lifecycle.is_over() && !admission.may_admit(bytes, ticket, begun) {
            return Err(RefusedBy::Admission {
                bytes,
                in_flight: admission.bytes(),
                limit: admission.limit(),
            });
        }
        if let Some(ticket) = ticket {
            // The entry contains no waker, because the caller is running.
            admission.leave(ticket);
        }
        admission.reserve(bytes);
        crate::sync::point!("admit.entered");
        Ok(Admitted(bytes))
    }

    /// Like `admit`, but if the job has to wait, drains the lanes and tries again.
    fn admit_or_drain(
        &mut self,
        kernel: u32,
        held: u64,
        ticket: Option<u64>,
    ) -> Result<Admitted, RefusedBy> {
        self.admit(kernel, held, ticket).or_else(|_| {
            self.catch_up();
            self.admit(kernel, held, ticket)
        })
    }

    /// Like `admit`, but joins the line if the job has to wait. Then the caller must try again or leave the line,
    /// because other callers wait behind it.
    pub(in crate::supervisor) fn admit_or_join(
        &mut self,
        info: &KernelInfo,
        call: &ArgWriter,
        line: &mut LineTicket,
    ) -> Option<Admitted> {
        let kernel = self.kernels.index(info);
        match self.admit_or_drain(kernel, exclusive_bytes(call), line.0) {
            Ok(admitted) => {
                line.0 = None;
                Some(admitted)
            }
            Err(_) => {
                if let Some(admission) = &mut self.admission {
                    line.0.get_or_insert_with(|| admission.join());
                }
                None
            }
        }
    }

    /// Charges an admitted job to its record.
    pub(in crate::supervisor) fn charge_admitted(&mut self, id: JobId, Admitted(bytes): Admitted) {
        let Some(admission) = &mut self.admission else {
            return;
        };
        // The job may have ended while it was posted. Then it is answered, or waits for jobs that it spawned, or its
        // record was freed because another run replaced it.
        let record = self.records.find(id);
        let record = record
            .filter(|record| !matches!(record.stage, Stage::Answered | Stage::Spawned { .. }));
        let open = record.is_some();
        if let Some(record) = record {
            // Makes the drain use the slower path, which discharges the job when it is answered.
            record.parked = true;
        }
        let notify_line = admission.charge(open.then_some(id.index), bytes);
        crate::sync::point!("admit.charged");
        if notify_line {
            self.notify_admission_line();
        }
    }

    /// Subtracts the charge of this record's job, and returns its permit and its claims on values of other jobs. Called
    /// when the job is answered or removed.
    pub(in crate::supervisor) fn discharge(&mut self, record: u32) {
        let job = self.records.look(record);
        let (has_policy, is_linked) = (job.policy.is_some(), job.link.is_some());
        if has_policy {
            self.give_back(record);
        }
        if is_linked {
            self.release_inputs(record);
        }
        let Some(admission) = &mut self.admission else {
            return;
        };
        let notify_line = admission.discharge(record);
        crate::sync::point!("admit.left");
        if notify_line {
            self.notify_admission_line();
        }
    }

    /// Wakes the first caller in the line, which then tries again.
    pub(in crate::supervisor) fn notify_admission_line(&mut self) {
        self.waiters.notify_admission();
        let line = self.admission.as_mut();
        let first = line.and_then(|line| line.first_waker());
        if let Some((waker, recheck_at)) = first {
            self.waiters.call([waker]);
            self.monitor.call_before(recheck_at);
        }
    }

    /// Wakes the first future in the line again if that is due, or removes it from the line if it did not react.
    pub(in crate::supervisor) fn recheck_admission(&mut self, now: Instant) {
        if let Some(admission) = &mut self.admission
            && admission.take_due_recheck(now)
        {
            self.notify_admission_line();
            // Runs may have waited for the future that was removed from the line.
            self.settle_dependents();
        }
    }
}

impl Supervisor {
    /// Blocks until the call is admitted, or the scope of its owner is cancelled: then its submission is refused.
    fn await_admission<'a>(
        &'a self,
        mut state: Locked<'a>,
        info: &KernelInfo,
        held: u64,
        target: Target,
    ) -> (Locked<'a>, Admitted) {
        let mut ticket = None;
        let kernel = state.kernels.index(info);
        loop {
            if let Ok(admitted) = state.admit_or_drain(kernel, held, ticket) {
                return (state, admitted);
            }
            if let Target::Workers(owner) = target
                && state.groups.refuses(owner)
                && let Some(admission) = &mut state.admission
            {
                // The charge of the refused job notifies the next caller in the line. The entry contains no waker.
                if let Some(ticket) = ticket {
                    admission.leave(ticket);
                }
                admission.reserve(0);
                return (state, Admitted(0));
            }
            self.assert_may_wait();
            if let Some(admission) = &mut state.admission {
                ticket.get_or_insert_with(|| admission.join());
            }
            if !state.lanes.request_next_ends() {
                continue;
            }
            state.monitor.watch_memory();
            let spot = &self.parking.admission;
            let sleep = spot.ticket();
            crate::sync::point!("admit.waits");
            self.unlock(state);
            spot.sleep(sleep, Some(LOOK_AGAIN));
            state = self.lock();
        }
    }

    /// Admits and submits a call in one critical section, or joins the line and stores a waker. So calls run in the
    /// order in which they were admitted.
    pub(crate) fn poll_submit(
        &self,
        info: &KernelInfo,
        call: &mut ArgWriter,
        target: Target,
        options: Option<&JobOptions>,
        line: &mut LineTicket,
        context: &Context<'_>,
    ) -> Poll<JobId> {
        let held = exclusive_bytes(call);
        // A waker is foreign code: it is cloned and dropped outside the lock.
        let mut waker = Some(context.waker().clone());
        let mut state = self.lock();
        let admission = state.admission.as_mut();
        let before = line
            .0
            .zip(admission)
            .map(|(ticket, line)| line.look_again(ticket));
        let kernel = state.kernels.index(info);
        let entered = loop {
            state.catch_up();
            if let Ok(admitted) = state.admit(kernel, held, line.0) {
                line.0 = None;
                state.notify_admission_line();
                let (locked, id) =
                    self.submit_with_admission(state, info, call, target, options, admitted);
                state = locked;
                break Poll::Ready(id);
            }
            if !state.lanes.request_next_ends() {
                continue;
            }
            state.monitor.watch_memory();
            let mut recheck_at = Instant::now() + LOOK_AGAIN;
            if let Some(admission) = &mut state.admission {
                let ticket = *line.0.get_or_insert_with(|| admission.join());
                recheck_at = admission.leave_waker(ticket, waker.take(), recheck_at);
            }
            state.monitor.call_before(recheck_at);
            break Poll::Pending;
        };
        self.unlock(state);
        drop((waker, before));
        entered
    }

    /// Leaves the line.
    pub(crate) fn leave_admission_line(&self, line: &mut LineTicket) {
        let Some(ticket) = line.0.take().filter(|_| !self.is_copy()) else {
            return;
        };
        let mut state = self.lock();
        let admission = state.admission.as_mut();
        let entry = admission.and_then(|admission| admission.leave(ticket));
        // The next caller in the line may fit.
        state.notify_admission_line();
        state.settle_dependents();
        self.unlock(state);
        drop(entry);
    }

    /// Submits a job to an engine with a ceiling. Blocks until the job is admitted, or refused because its scope is
    /// cancelled.
    #[cold]
    pub(in crate::supervisor) fn submit_admitted<'a>(
        &'a self,
        state: Locked<'a>,
        info: &KernelInfo,
        call: &mut ArgWriter,
        target: Target,
        options: Option<&JobOptions>,
    ) -> (Locked<'a>, JobId) {
        let (state, admitted) = self.await_admission(state, info, exclusive_bytes(call), target);
        self.submit_with_admission(state, info, call, target, options, admitted)
    }

    /// Submits an admitted job.
    pub(in crate::supervisor) fn submit_with_admission<'a>(
        &'a self,
        state: Locked<'a>,
        info: &KernelInfo,
        call: &mut ArgWriter,
        target: Target,
        options: Option<&JobOptions>,
        entry: Admitted,
    ) -> (Locked<'a>, JobId) {
        let mut state = self.spilled(state, call);
        let id = state.submit_to(info, call, target, options);
        state.charge_admitted(id, entry);
        // The job may have been answered at once, which makes room for other jobs.
        state.settle_dependents();
        (state, id)
    }

    /// Admits a job, unless it has to wait. `held`: bytes of its arguments that no other handle refers to. After
    /// admission, call [`Supervisor::submit_admitted_job`].
    pub(crate) fn try_admit_job(
        &self,
        info: &KernelInfo,
        held: u64,
    ) -> Result<Admitted, RefusedBy> {
        let mut state = self.lock();
        state.catch_up();
        let entry = if state.scheduler.is_low_on_memory() && !state.lifecycle.is_over() {
            Err(RefusedBy::MemoryShort)
        } else {
            let kernel = state.kernels.index(info);
            state.admit(kernel, held, None)
        };
        self.unlock(state);
        entry
    }

    /// Submits an admitted job.
    pub(crate) fn submit_admitted_job(
        &self,
        info: &KernelInfo,
        call: &mut ArgWriter,
        options: Option<&JobOptions>,
        entry: Admitted,
    ) -> JobId {
        self.spill(call);
        let target = Owner::Handle.into();
        let (state, id) =
            self.submit_with_admission(self.lock(), info, call, target, options, entry);
        self.unlock(state);
        id
    }
}
