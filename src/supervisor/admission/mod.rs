//! Admission by bytes: a ceiling on what the jobs in flight take together.

pub(super) mod account;

use std::task::{Context, Poll};
use std::time::Instant;

use self::account::{EACH, Entry, InLine, RefusedBy, held_by};
use super::options::JobOptions;
use super::record::{JobId, Stage};
use super::shared::{Locked, Supervisor};
use super::state::EngineState;
use super::waiting::LOOK_AGAIN;
use crate::kernel::KernelInfo;
use crate::kernel::wire::ArgWriter;

impl EngineState {
    /// What a job of this kernel counts for, with so many bytes of arguments of its own. A kernel that has never ended a job
    /// may return anything. Until it has, each job has a lane's share, so that there is one for each lane, unless its arguments
    /// have more than half of that: then it may return as much again.
    fn weight(&mut self, kernel: u32, held: u64) -> u64 {
        let limit = self
            .admission
            .as_ref()
            .map_or(0, |admission| admission.limit());
        let share = limit / self.lanes.len() as u64;
        let own = held.saturating_add(EACH);
        let kernel = self.kernels.get(kernel);
        match kernel.calls {
            0 => share.max(own.saturating_mul(2)),
            _ => own.saturating_add(kernel.expected_bytes),
        }
    }

    /// Lets a job in, if it may be; its weight.
    fn enter(
        &mut self,
        info: &KernelInfo,
        held: u64,
        ticket: Option<u64>,
    ) -> Result<u64, RefusedBy> {
        let kernel = self.kernels.index(info);
        self.enter_kernel(kernel, held, ticket)
    }

    /// The same; where it may not be, looks again behind what has ended.
    fn enter_or_drain(
        &mut self,
        info: &KernelInfo,
        held: u64,
        ticket: Option<u64>,
    ) -> Result<u64, RefusedBy> {
        self.enter(info, held, ticket).or_else(|_| {
            self.drain_busy();
            self.refill();
            self.enter(info, held, ticket)
        })
    }

    fn enter_kernel(
        &mut self,
        kernel: u32,
        held: u64,
        ticket: Option<u64>,
    ) -> Result<u64, RefusedBy> {
        let bytes = self.weight(kernel, held);
        let all = self.lets_all_in();
        let begun = self.graphs.first_held_back();
        let Some(admission) = &mut self.admission else {
            return Ok(bytes);
        };
        if !all && !admission.may_enter(bytes, ticket, begun) {
            return Err(RefusedBy::Admission {
                bytes,
                in_flight: admission.bytes(),
                limit: admission.limit(),
            });
        }
        if let Some(ticket) = ticket {
            // Not asleep: it is here.
            admission.leave(ticket);
        }
        admission.enter(bytes);
        crate::sync::point!("admit.entered");
        Ok(bytes)
    }

    /// Lets a call of a map in, if it may be without waiting.
    pub(super) fn enter_now(&mut self, info: &KernelInfo, call: &ArgWriter) -> Option<Entry> {
        self.enter(info, held_by(call), None).ok().map(Entry)
    }

    /// The same, or joins the line: others wait behind it until it is let in, or leaves. For who looks again by itself.
    pub(super) fn enter_or_join(
        &mut self,
        info: &KernelInfo,
        call: &ArgWriter,
        line: &mut InLine,
    ) -> Option<Entry> {
        match self.enter_or_drain(info, held_by(call), line.0) {
            Ok(bytes) => {
                line.0 = None;
                Some(Entry(bytes))
            }
            Err(_) => {
                if let Some(admission) = &mut self.admission {
                    line.0.get_or_insert_with(|| admission.join());
                }
                None
            }
        }
    }

    /// Lets a job of a graph in, or one that was spawned, if it may be without waiting. It comes before whoever came after the
    /// graph, or after the job that spawned it: what was begun is ended before more is begun.
    pub(super) fn enter_unit(&mut self, kernel: u32, ticket: u64) -> Option<Entry> {
        self.enter_kernel(kernel, 0, Some(ticket)).ok().map(Entry)
    }

    /// The place of what begins now, see [`EngineState::enter_unit`].
    pub(super) fn begin(&mut self) -> u64 {
        let line = self.admission.as_mut();
        line.map_or(0, |line| line.number())
    }

    /// Whether nobody has to wait for admission any more.
    fn lets_all_in(&self) -> bool {
        self.lifecycle.is_over()
    }

    /// A job that was let in has been submitted.
    pub(super) fn entered(&mut self, id: JobId, Entry(bytes): Entry) {
        // Its lane was looked at when it was posted, and it may have ended by then: it is answered, waits for what it has
        // spawned, or is gone, if it was the last of a family and others follow it.
        let record = self.records.find(id);
        let record = record
            .filter(|record| !matches!(record.stage, Stage::Answered | Stage::Spawned { .. }));
        let open = record.is_some();
        if let Some(record) = record {
            // So that its answer is not told on the short way.
            record.parked = true;
        }
        let Some(admission) = &mut self.admission else {
            return;
        };
        let awaited = admission.entered(open.then_some(id.index), bytes);
        crate::sync::point!("admit.charged");
        if awaited {
            self.tell_line();
        }
    }

    /// The job of this record is answered, or given up.
    pub(super) fn discharge(&mut self, record: u32) {
        if self.records.look(record).policy.is_some() {
            self.give_back(record);
        }
        let Some(admission) = &mut self.admission else {
            return;
        };
        let awaited = admission.discharge(record);
        crate::sync::point!("admit.left");
        if awaited {
            self.tell_line();
        }
    }

    /// Whoever is the first in the line looks again.
    pub(super) fn tell_line(&mut self) {
        self.waiters.notify_admission();
        let line = self.admission.as_mut();
        let told = line.and_then(|line| line.first_waker());
        if let Some((waker, look_at)) = told {
            self.waiters.call([waker]);
            self.monitor.call_before(look_at);
        }
    }

    /// Nobody has to wait for admission any more.
    pub(super) fn let_all_in(&mut self) {
        let Some(admission) = &mut self.admission else {
            return;
        };
        self.waiters.call(admission.take_wakers());
    }

    /// When a future in the line looks again whatever it was told, since what it was told depends on workers; or is passed
    /// over, since nobody may poll it any more.
    pub(super) fn admission_due(&self) -> Option<Instant> {
        self.admission
            .as_ref()
            .and_then(|admission| admission.look_at())
    }

    /// Wakes the first in the line if it is time, or passes it over.
    pub(super) fn look_at_admission(&mut self, now: Instant) {
        if let Some(admission) = &mut self.admission
            && admission.is_time_to_look(now)
        {
            self.tell_line();
            // What was begun may have stood behind it.
            self.go_on();
        }
    }
}

impl Supervisor {
    /// Waits until a call may be let in, and lets it in. Returns its weight.
    fn await_admission<'a>(
        &'a self,
        mut state: Locked<'a>,
        info: &KernelInfo,
        held: u64,
    ) -> (Locked<'a>, u64) {
        let mut ticket = None;
        loop {
            if let Ok(bytes) = state.enter_or_drain(info, held, ticket) {
                return (state, bytes);
            }
            if let Some(admission) = &mut state.admission {
                ticket.get_or_insert_with(|| admission.join());
            }
            if !state.want_next_ends() {
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

    /// Lets a job in, or joins the line and leaves a waker there. To be followed by [`Supervisor::submit_entered`].
    pub(crate) fn poll_enter(
        &self,
        info: &KernelInfo,
        held: u64,
        line: &mut InLine,
        context: &Context<'_>,
    ) -> Poll<Entry> {
        self.poll_enter_and(info, held, line, context, |state, entry| (state, entry))
    }

    /// Submits a job when it is let in, before anybody else is; or joins the line and leaves a waker there.
    pub(super) fn poll_submit(
        &self,
        info: &KernelInfo,
        call: &mut ArgWriter,
        line: &mut InLine,
        context: &Context<'_>,
        submit: impl FnOnce(&mut EngineState, &mut ArgWriter) -> JobId,
    ) -> Poll<JobId> {
        let held = held_by(call);
        self.poll_enter_and(info, held, line, context, |state, entry| {
            self.submit_let_in(state, call, entry, submit)
        })
    }

    /// Lets a job in, and goes on under the same lock; or joins the line and leaves a waker there.
    fn poll_enter_and<'a, T>(
        &'a self,
        info: &KernelInfo,
        held: u64,
        line: &mut InLine,
        context: &Context<'_>,
        go_on: impl FnOnce(Locked<'a>, Entry) -> (Locked<'a>, T),
    ) -> Poll<T> {
        // Wakers are foreign code: they are cloned and dropped outside the lock.
        let mut waker = Some(context.waker().clone());
        let mut state = self.lock();
        let admission = state.admission.as_mut();
        let before = line
            .0
            .zip(admission)
            .map(|(ticket, line)| line.come(ticket));
        let entry = loop {
            state.drain_busy();
            state.refill();
            if let Ok(bytes) = state.enter(info, held, line.0) {
                line.0 = None;
                state.tell_line();
                break Poll::Ready(Entry(bytes));
            }
            if !state.want_next_ends() {
                continue;
            }
            state.monitor.watch_memory();
            let mut look_at = Instant::now() + LOOK_AGAIN;
            if let Some(admission) = &mut state.admission {
                let ticket = *line.0.get_or_insert_with(|| admission.join());
                look_at = admission.sleeps(ticket, waker.take(), look_at);
            }
            state.monitor.call_before(look_at);
            break Poll::Pending;
        };
        let entered = match entry {
            Poll::Ready(entry) => {
                let (locked, entered) = go_on(state, entry);
                state = locked;
                Poll::Ready(entered)
            }
            Poll::Pending => Poll::Pending,
        };
        self.unlock(state);
        drop((waker, before));
        entered
    }

    /// Gives up a place in the line.
    pub(crate) fn leave_line(&self, line: &mut InLine) {
        let Some(ticket) = line.0.take().filter(|_| !self.is_copy()) else {
            return;
        };
        let mut state = self.lock();
        let admission = state.admission.as_mut();
        let place = admission.and_then(|admission| admission.leave(ticket));
        // Whoever is the first now may fit.
        state.tell_line();
        state.go_on();
        self.unlock(state);
        drop(place);
    }

    /// Submits a job where there is a ceiling: waits until it is let in.
    #[cold]
    pub(super) fn submit_admitted<'a>(
        &'a self,
        state: Locked<'a>,
        info: &KernelInfo,
        call: &mut ArgWriter,
        submit: impl FnOnce(&mut EngineState, &mut ArgWriter) -> JobId,
    ) -> (Locked<'a>, JobId) {
        let (state, bytes) = self.await_admission(state, info, held_by(call));
        self.submit_let_in(state, call, Entry(bytes), submit)
    }

    /// Submits a job that was let in, for who has the lock.
    pub(super) fn submit_let_in<'a>(
        &'a self,
        state: Locked<'a>,
        call: &mut ArgWriter,
        entry: Entry,
        submit: impl FnOnce(&mut EngineState, &mut ArgWriter) -> JobId,
    ) -> (Locked<'a>, JobId) {
        let mut state = self.spilled(state, call);
        let id = submit(&mut state, call);
        state.entered(id, entry);
        // What was held back by what it counted for: it may have been answered at once.
        state.go_on();
        (state, id)
    }

    /// Lets a job in, if that takes no waiting; `held`: bytes of its arguments that nobody else has. To be followed by
    /// [`Supervisor::submit_entered`].
    pub(crate) fn try_enter(&self, info: &KernelInfo, held: u64) -> Result<Entry, RefusedBy> {
        let mut state = self.lock();
        state.drain_busy();
        state.refill();
        let entry = if state.scheduler.is_low_on_memory() && !state.lets_all_in() {
            Err(RefusedBy::MemoryShort)
        } else {
            state.enter(info, held, None).map(Entry)
        };
        self.unlock(state);
        entry
    }

    /// Submits a job that was let in.
    pub(crate) fn submit_entered(
        &self,
        info: &KernelInfo,
        call: &mut ArgWriter,
        options: Option<&JobOptions>,
        entry: Entry,
    ) -> JobId {
        self.spill(call);
        let submit = |state: &mut EngineState, call: &mut _| state.submit(info, call, 0, options);
        let (state, id) = self.submit_let_in(self.lock(), call, entry, submit);
        self.unlock(state);
        id
    }
}
