//! Admission by bytes: a ceiling on what the jobs in flight take together.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::Shared;
use super::core::{Closing, Core};
use super::lock::Locked;
use super::options::JobOptions;
use super::record::{JobId, Stage};
use super::wait::LOOK_AGAIN;
use crate::kernel::KernelInfo;
use crate::kernel::wire::{ArgWriter, Lease};
use crate::link::{Ask, INLINE_WORDS, NOTICE};

/// What a job takes beside arrays: its record and its slot. So no job is free, and the end of each is noticed.
const EACH: u64 = 512;

/// The books of admission. A job counts from the moment it is let in until it is answered.
#[derive(Debug)]
pub(super) struct Admission {
    limit: u64,
    /// Bytes of all jobs in flight.
    bytes: u64,
    /// Those of each, by its record.
    charges: HashMap<u32, u64>,
    /// Jobs that were let in and have no record yet.
    entering: usize,
    /// Who waits, in the order in which they came.
    line: BTreeMap<u64, Place>,
    last_ticket: u64,
    /// When the first in the line, a future, looks again whatever it was told, or is passed over.
    look_at: Option<Instant>,
}

/// Who stands in the line.
#[derive(Debug)]
enum Place {
    /// A thread, which sleeps in the parking and comes by itself; or a future that is looking.
    Here,
    /// A future that comes when it is woken.
    Asleep(Waker),
    /// A future that was woken then. It may be one that nobody polls any more.
    Told(Instant),
}

impl Admission {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            bytes: 0,
            charges: HashMap::new(),
            entering: 0,
            line: BTreeMap::new(),
            last_ticket: 0,
            look_at: None,
        }
    }

    /// Bytes of the jobs in flight.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A place behind all who have come so far.
    pub(super) fn number(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    /// Joins the line.
    fn join(&mut self) -> u64 {
        let ticket = self.number();
        self.come(ticket);
        ticket
    }

    /// Whoever has this ticket looks, also if it was passed over. A waker that it had left is given back.
    fn come(&mut self, ticket: u64) -> Option<Place> {
        self.line.insert(ticket, Place::Here)
    }

    fn leave(&mut self, ticket: u64) -> Option<Place> {
        self.line.remove(&ticket)
    }

    /// The waker of the first in the line, if that is a future. It comes again and leaves another, or is passed over.
    fn first_waker(&mut self) -> Option<(Waker, Instant)> {
        let mut first = self.line.first_entry()?;
        let Place::Asleep(_) = first.get() else {
            return None;
        };
        let now = Instant::now();
        let Place::Asleep(waker) = first.insert(Place::Told(now)) else {
            unreachable!("it was just seen");
        };
        let look_at = now + LOOK_AGAIN;
        self.look_at = Some(look_at);
        Some((waker, look_at))
    }

    /// Those in front that were told long ago, and have not come, keep nobody waiting any more. They have their places again
    /// when they come.
    fn pass_over(&mut self, now: Instant) {
        while let Some(first) = self.line.first_entry()
            && matches!(first.get(), Place::Told(at) if now.duration_since(*at) >= LOOK_AGAIN)
        {
            first.remove();
        }
    }

    /// Whether a job of so many bytes may be let in now: it fits, or nothing else is in flight; and nobody came before, neither
    /// in the line nor, with ticket `begun`, with something that was begun already.
    fn may_enter(&self, bytes: u64, ticket: Option<u64>, begun: Option<u64>) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= self.limit;
        let waits = self.line.first_key_value().map(|(&first, _)| first);
        let first = waits.into_iter().chain(begun).min();
        let is_first = first.is_none_or(|first| ticket.is_some_and(|ticket| ticket <= first));
        is_first && (fits || self.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.charges.is_empty() && self.entering == 0
    }

    /// A job is let in, and counts from now on.
    fn enter(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.entering += 1;
    }

    /// The job that was let in has this record; `None`: it was answered at once. True if somebody waits for that.
    #[must_use]
    fn entered(&mut self, record: Option<u32>, bytes: u64) -> bool {
        self.entering -= 1;
        match record {
            Some(record) => {
                let before = self.charges.insert(record, bytes);
                debug_assert_eq!(before, None, "a job is let in once");
            }
            None => self.give(bytes),
        }
        // Whoever comes next may fit beside it, or instead of it.
        !self.line.is_empty()
    }

    fn give(&mut self, bytes: u64) {
        self.bytes = match self.is_empty() {
            // A sum that was cut begins anew.
            true => 0,
            false => self.bytes.saturating_sub(bytes),
        };
    }

    /// The job of this record is no longer in flight. True if somebody waits for that.
    #[must_use]
    fn discharge(&mut self, record: u32) -> bool {
        let Some(bytes) = self.charges.remove(&record) else {
            return false;
        };
        self.give(bytes);
        !self.line.is_empty()
    }
}

/// Why a job was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedBy {
    /// The bytes of the jobs in flight and those of this one are more than
    /// [`admission`](crate::engine::Builder::admission) allows, or others wait already.
    Admission {
        /// What the job would have counted for.
        bytes: u64,
        /// What the jobs in flight count for.
        in_flight: u64,
        /// The ceiling.
        limit: u64,
    },
    /// The machine or the container has next to no memory left.
    MemoryShort,
}

impl fmt::Display for RefusedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admission { bytes, in_flight, limit } => write!(
                f,
                "a job of {bytes} bytes is not let in beside {in_flight} bytes of jobs in flight, with a ceiling of {limit}: \
                 wait until some have ended, or raise the ceiling"
            ),
            Self::MemoryShort => f.write_str(
                "machine or container have next to no memory left: wait, stop other programs, or raise the limit",
            ),
        }
    }
}

/// What a call holds that would be free without it.
pub(crate) fn held_by(call: &ArgWriter) -> u64 {
    let words = call.words().len();
    let spilled = if words > INLINE_WORDS {
        words as u64 * 8
    } else {
        0
    };
    let alone = |lease: &Lease| match lease {
        Lease::Shared(block) if std::sync::Arc::strong_count(block) > 1 + call.kept => 0,
        lease => lease.bytes(),
    };
    call.leases
        .iter()
        .map(alone)
        .fold(spilled, u64::saturating_add)
}

impl Core {
    /// What a job of this kernel counts for, with so many bytes of arguments of its own. A kernel that has never ended a job
    /// may return anything. Until it has, each job has a lane's share, so that there is one for each lane, unless its arguments
    /// have more than half of that: then it may return as much again.
    fn weight(&mut self, kernel: u32, held: u64) -> u64 {
        let limit = self
            .admission
            .as_ref()
            .map_or(0, |admission| admission.limit);
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
                in_flight: admission.bytes,
                limit: admission.limit,
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

    /// The place of what begins now, see [`Core::enter_unit`].
    pub(super) fn begin(&mut self) -> u64 {
        let line = self.admission.as_mut();
        line.map_or(0, |line| line.number())
    }

    /// Whether nobody has to wait for admission any more.
    fn lets_all_in(&self) -> bool {
        self.closing != Closing::No || self.broken.is_some()
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
        self.parking.admission.notify();
        let line = self.admission.as_mut();
        let told = line.and_then(|line| line.first_waker());
        if let Some((waker, look_at)) = told {
            self.wakers.push(waker);
            self.wake_monitor_by(look_at);
        }
    }

    /// Nobody has to wait for admission any more.
    pub(super) fn let_all_in(&mut self) {
        let Some(admission) = &mut self.admission else {
            return;
        };
        for place in admission.line.values_mut() {
            if let Place::Asleep(waker) = std::mem::replace(place, Place::Here) {
                self.wakers.push(waker);
            }
        }
    }

    /// When a future in the line looks again whatever it was told, since what it was told depends on workers; or is passed
    /// over, since nobody may poll it any more.
    pub(super) fn admission_due(&self) -> Option<Instant> {
        self.admission
            .as_ref()
            .and_then(|admission| admission.look_at)
    }

    /// Wakes the first in the line if it is time, or passes it over.
    pub(super) fn look_at_admission(&mut self, now: Instant) {
        if let Some(admission) = &mut self.admission
            && admission.look_at.is_some_and(|at| at <= now)
        {
            admission.look_at = None;
            admission.pass_over(now);
            self.tell_line();
            // What was begun may have stood behind it.
            self.go_on();
        }
    }

    /// Whoever waits for admission wants to hear of the next end of a job in each lane. False if one has ended meanwhile.
    pub(super) fn want_next_ends(&mut self) -> bool {
        self.lanes.iter_mut().all(|lane| {
            // The words of a condemned lane mean nothing: its jobs end with its worker, which everybody hears of.
            if lane.condemned {
                return true;
            }
            let oldest = lane.held().next();
            oldest.is_none_or(|position| matches!(lane.ask(position, NOTICE), Ask::Set(_)))
        })
    }
}

impl Shared {
    /// Waits until a call may be let in, and lets it in. Returns its weight.
    fn await_admission<'a>(
        &'a self,
        mut core: Locked<'a>,
        info: &KernelInfo,
        held: u64,
    ) -> (Locked<'a>, u64) {
        let mut ticket = None;
        loop {
            if let Ok(bytes) = core.enter_or_drain(info, held, ticket) {
                return (core, bytes);
            }
            if let Some(admission) = &mut core.admission {
                ticket.get_or_insert_with(|| admission.join());
            }
            if !core.want_next_ends() {
                continue;
            }
            core.be_watched();
            let spot = &self.parking.admission;
            let sleep = spot.ticket();
            crate::sync::point!("admit.waits");
            self.unlock(core);
            spot.sleep(sleep, Some(LOOK_AGAIN));
            core = self.lock();
        }
    }

    /// Lets a job in, or joins the line and leaves a waker there. To be followed by [`Shared::submit_entered`].
    pub(crate) fn poll_enter(
        &self,
        info: &KernelInfo,
        held: u64,
        line: &mut InLine,
        context: &Context<'_>,
    ) -> Poll<Entry> {
        self.poll_enter_and(info, held, line, context, |core, entry| (core, entry))
    }

    /// Submits a job when it is let in, before anybody else is; or joins the line and leaves a waker there.
    pub(super) fn poll_submit(
        &self,
        info: &KernelInfo,
        call: &mut ArgWriter,
        line: &mut InLine,
        context: &Context<'_>,
        submit: impl FnOnce(&mut Core, &mut ArgWriter) -> JobId,
    ) -> Poll<JobId> {
        let held = held_by(call);
        self.poll_enter_and(info, held, line, context, |core, entry| {
            self.submit_let_in(core, call, entry, submit)
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
        let mut core = self.lock();
        let admission = core.admission.as_mut();
        let before = line
            .0
            .zip(admission)
            .map(|(ticket, line)| line.come(ticket));
        let entry = loop {
            core.drain_busy();
            core.refill();
            if let Ok(bytes) = core.enter(info, held, line.0) {
                line.0 = None;
                core.tell_line();
                break Poll::Ready(Entry(bytes));
            }
            if !core.want_next_ends() {
                continue;
            }
            core.be_watched();
            let mut look_at = Instant::now() + LOOK_AGAIN;
            if let Some(admission) = &mut core.admission {
                let ticket = *line.0.get_or_insert_with(|| admission.join());
                // No later than it is time for those before, however often this one looks.
                look_at = *admission.look_at.get_or_insert(look_at);
                if let Some(waker) = waker.take() {
                    admission.line.insert(ticket, Place::Asleep(waker));
                }
            }
            core.wake_monitor_by(look_at);
            break Poll::Pending;
        };
        let entered = match entry {
            Poll::Ready(entry) => {
                let (locked, entered) = go_on(core, entry);
                core = locked;
                Poll::Ready(entered)
            }
            Poll::Pending => Poll::Pending,
        };
        self.unlock(core);
        drop((waker, before));
        entered
    }

    /// Gives up a place in the line.
    pub(crate) fn leave_line(&self, line: &mut InLine) {
        let Some(ticket) = line.0.take().filter(|_| !self.is_copy()) else {
            return;
        };
        let mut core = self.lock();
        let admission = core.admission.as_mut();
        let place = admission.and_then(|admission| admission.leave(ticket));
        // Whoever is the first now may fit.
        core.tell_line();
        core.go_on();
        self.unlock(core);
        drop(place);
    }

    /// Submits a job where there is a ceiling: waits until it is let in.
    #[cold]
    pub(super) fn submit_admitted<'a>(
        &'a self,
        core: Locked<'a>,
        info: &KernelInfo,
        call: &mut ArgWriter,
        submit: impl FnOnce(&mut Core, &mut ArgWriter) -> JobId,
    ) -> (Locked<'a>, JobId) {
        let (core, bytes) = self.await_admission(core, info, held_by(call));
        self.submit_let_in(core, call, Entry(bytes), submit)
    }

    /// Submits a job that was let in, for who has the lock.
    pub(super) fn submit_let_in<'a>(
        &'a self,
        core: Locked<'a>,
        call: &mut ArgWriter,
        entry: Entry,
        submit: impl FnOnce(&mut Core, &mut ArgWriter) -> JobId,
    ) -> (Locked<'a>, JobId) {
        let mut core = self.spilled(core, call);
        let id = submit(&mut core, call);
        core.entered(id, entry);
        // What was held back by what it counted for: it may have been answered at once.
        core.go_on();
        (core, id)
    }

    /// Lets a job in, if that takes no waiting; `held`: bytes of its arguments that nobody else has. To be followed by
    /// [`Shared::submit_entered`].
    pub(crate) fn try_enter(&self, info: &KernelInfo, held: u64) -> Result<Entry, RefusedBy> {
        let mut core = self.lock();
        core.drain_busy();
        core.refill();
        let entry = if core.tight && !core.lets_all_in() {
            Err(RefusedBy::MemoryShort)
        } else {
            core.enter(info, held, None).map(Entry)
        };
        self.unlock(core);
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
        let submit = |core: &mut Core, call: &mut _| core.submit(info, call, 0, options);
        let (core, id) = self.submit_let_in(self.lock(), call, entry, submit);
        self.unlock(core);
        id
    }
}

/// A place in the line, as a future.
#[derive(Debug, Default)]
pub(crate) struct InLine(Option<u64>);

impl InLine {
    pub(crate) fn is_in(&self) -> bool {
        self.0.is_some()
    }
}

/// A job of so many bytes was let in, and has not been submitted.
#[derive(Debug)]
#[must_use]
pub(crate) struct Entry(u64);
