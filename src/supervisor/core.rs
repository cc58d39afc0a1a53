//! The private state of an engine, behind one lock: who waits, who runs what, who holds which memory.
//!
//! Everything here is called with the lock held and never blocks, but for a wake-up now and then.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use super::error::{Failed, JobError, JobErrorKind};
use super::kernels::Kernels;
use super::lane::{Lane, NOBODY, Status};
use super::parking::Parking;
use super::record::{JobId, Outcome, Record, Records, Stage};
use crate::arena::Arena;
use crate::kernel::wire::{ArgWriter, Lease, Leases, ReplyReader, SENT_WORDS, Sent, WordReader};
use crate::kernel::{BadReply, KernelInfo, Receiving};
use crate::link::{
    Ask, CANCEL, Call, Drained, INLINE_WORDS, LOW_SHIFT, MORE, NOTICE, Reply, Retract, SLOTS,
    SPARE, SPIN, STOP, after_keeping, kind,
};
use crate::worker::fence;

/// Work that a lane may hold ahead, by expectation: a short buffer, so that a long job holds up
/// little.
const DEPTH_NS: u64 = 200_000;
/// What waking a sleeping worker costs: less work than this is not worth a second one.
const WAKE_NS: u64 = 25_000;
/// What a job is thought to need still, when it has not ended since the last tick.
const TICK_NS: u32 = 1_000_000;
/// Jobs posted between two looks at what a busy lane has finished.
const DRAIN_EVERY: u64 = 32;
/// The smallest grant that is given because a kernel is known to need memory.
const GRANT_AHEAD: u64 = 256 * 1024;
/// From this size on a grant is worth huge pages.
const HUGE: u64 = 2 << 20;

/// How the engine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    No,
    /// Finish everything first.
    Drain,
    /// Answer everything now.
    Now,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) arena: Arc<Arena>,
    pub(super) parking: Arc<Parking>,
    pub(super) records: Records,
    pub(super) kernels: Kernels,
    pub(super) lanes: Vec<Lane>,
    /// Jobs that no lane has, oldest first.
    pub(super) queue: VecDeque<u32>,
    /// The lane that got work last.
    recent: usize,
    /// Jobs in slots.
    pub(super) open: usize,
    pub(super) ready: usize,
    next_job: u64,
    pub(super) last_group: u32,
    /// Groups of which a job has failed, while their scope goes on.
    pub(super) failed_groups: HashSet<u32>,
    pub(super) closing: Closing,
    /// All workers have been ready once.
    pub(super) started: bool,
    /// Why nothing can run any more.
    pub(super) broken: Option<String>,
    /// The monitor looks every now and then whether work is spread badly.
    pub(super) ticking: bool,
    /// The monitor should be woken when the lock is released.
    pub(super) call_monitor: bool,
    /// Futures to wake when the lock is released.
    pub(super) wakers: Vec<Waker>,
    may_spin: bool,
    reply: Reply,
}

impl Core {
    pub(super) fn new(arena: Arc<Arena>, parking: Arc<Parking>, lanes: Vec<Lane>) -> Self {
        Self {
            arena,
            parking,
            records: Records::default(),
            kernels: Kernels::default(),
            lanes,
            queue: VecDeque::new(),
            recent: 0,
            open: 0,
            ready: 0,
            next_job: 0,
            last_group: 0,
            failed_groups: HashSet::new(),
            closing: Closing::No,
            started: false,
            broken: None,
            ticking: false,
            call_monitor: false,
            wakers: Vec::new(),
            may_spin: crate::sys::limits::cores() > 1,
            reply: Reply::default(),
        }
    }

    // ---- submitting -------------------------------------------------------------------------

    /// Takes a job: it is placed, queued, or refused with an answer.
    #[inline]
    pub(super) fn submit(&mut self, info: &KernelInfo, call: &mut ArgWriter, group: u32) -> JobId {
        let kernel = self.kernels.index(info);
        self.next_job += 1;
        let job = self.next_job;
        let (id, record) = self.records.add();
        record.job = job;
        record.kernel = kernel;
        record.group = group;
        let refusal = fill(record, call, &self.arena);
        let refusal = refusal.or_else(|| self.refusal(kernel, group));
        if let Some(why) = refusal {
            self.fail(id.index, why, None, Vec::new());
        } else if self.queue.is_empty() {
            if !self.place(id.index) {
                self.drain_busy();
                if !self.place(id.index) {
                    self.enqueue(id.index);
                }
            }
        } else {
            self.enqueue(id.index);
        }
        id
    }

    /// Keeps a job until a lane has room.
    #[cold]
    fn enqueue(&mut self, index: u32) {
        self.queue.push_back(index);
        self.update_flags();
        after_keeping();
        self.drain_busy();
        self.refill();
    }

    #[inline]
    fn refusal(&mut self, kernel: u32, group: u32) -> Option<JobErrorKind> {
        if group != 0 && self.failed_groups.contains(&group) {
            return Some(JobErrorKind::Cancelled);
        }
        if self.closing != Closing::No {
            return Some(JobErrorKind::ShutDown);
        }
        if let Some(why) = &self.broken {
            return Some(JobErrorKind::NoWorkers(why.clone()));
        }
        self.kernels
            .get(kernel)
            .offset
            .is_none()
            .then_some(JobErrorKind::ForeignKernel)
    }

    /// Puts the job of a record into a slot, if a lane should have it.
    #[inline]
    fn place(&mut self, index: u32) -> bool {
        let record = self.records.at(index);
        let kernel = self.kernels.get(record.kernel);
        let expected = kernel.expected_ns;
        let bytes = kernel.expected_bytes;
        let offset = kernel.offset.unwrap_or_default();
        let Some(chosen) = self.choose(expected) else {
            return false;
        };
        let record = self.records.at(index);
        let lane = &mut self.lanes[chosen];
        if bytes > 0 {
            top_up(lane, &self.arena, bytes);
        }
        let words = if record.spilled {
            2
        } else {
            record.len as usize
        };
        // The monitor waits for the last job, whoever placed it.
        let ending = if self.closing == Closing::No {
            0
        } else {
            NOTICE
        };
        let position = lane.poster.post(&Call {
            job: record.job,
            entry: offset,
            len: record.len,
            spilled: record.spilled,
            words: &record.payload[..words],
            requests: record.requests | ending,
        });
        record.stage = Stage::Placed {
            link: chosen as u32,
            position,
        };
        lane.note(position, index, expected);
        self.open += 1;
        if chosen != self.recent {
            // It takes over the permit to spin.
            let before = std::mem::replace(&mut self.recent, chosen);
            self.flag(before);
        }
        self.flag(chosen);
        let lane = &mut self.lanes[chosen];
        lane.poster.ring();
        // A job behind another one, while somebody has nothing to do: look at it soon.
        if !self.ticking && lane.poster.open() > 1 && self.open < self.ready * 2 {
            self.ticking = true;
            self.call_monitor = true;
        }
        if position.is_multiple_of(DRAIN_EVERY) && self.lanes[chosen].poster.open() > SLOTS / 4 {
            self.drain(chosen);
        }
        true
    }

    /// The lane for a job of this length: the one that was active last while its backlog is worth
    /// less than a wake-up, else one without work, else the one with the shortest backlog.
    #[inline]
    fn choose(&self, expected_ns: u32) -> Option<usize> {
        let recent = &self.lanes[self.recent];
        let fits = |lane: &Lane| {
            lane.status == Status::Ready
                && lane.poster.room() > 0
                && (lane.poster.open() < 2 || lane.backlog_ns + u64::from(expected_ns) <= DEPTH_NS)
        };
        let behind = recent.backlog_ns + u64::from(expected_ns);
        if fits(recent) && (recent.is_idle() || behind <= WAKE_NS) {
            return Some(self.recent);
        }
        self.choose_slow(&fits, expected_ns)
    }

    #[cold]
    fn choose_slow(&self, fits: &impl Fn(&Lane) -> bool, expected_ns: u32) -> Option<usize> {
        // A full table of tiny jobs is no reason to wake somebody: it is emptied sooner than that, unless
        // one of them turned out to be long.
        let recent = &self.lanes[self.recent];
        let queued = self.queue.len() as u64 * u64::from(expected_ns);
        if recent.status == Status::Ready
            && recent.poster.room() == 0
            && recent.backlog_ns + queued < 4 * WAKE_NS
            && !recent.stands_still()
        {
            return None;
        }
        let free = |lane: &&Lane| lane.is_idle() && fits(lane);
        let awake = |lane: &&Lane| !lane.poster.seems_asleep();
        let position =
            |wanted: &dyn Fn(&&Lane) -> bool| self.lanes.iter().position(|lane| wanted(&lane));
        position(&|lane| free(lane) && awake(lane))
            .or_else(|| position(&free))
            .or_else(|| {
                let fitting = self.lanes.iter().enumerate().filter(|(_, lane)| fits(lane));
                fitting
                    .min_by_key(|(_, lane)| lane.backlog_ns)
                    .map(|(index, _)| index)
            })
    }

    /// Sets the flags of a lane after its situation changed.
    #[inline]
    fn flag(&mut self, index: usize) {
        let more = !self.queue.is_empty();
        let spare = self.open > self.ready;
        let spin = self.may_spin && index == self.recent;
        let lane = &mut self.lanes[index];
        if lane.poster.flags() & STOP != 0 {
            return;
        }
        let mut flags = if spin { SPIN } else { 0 } | if spare { SPARE } else { 0 };
        if more {
            // A quarter of what the lane holds when it is full, in powers of two.
            let low = (lane.poster.open() as u32 / 4)
                .clamp(1, 64)
                .next_power_of_two();
            flags |= MORE | low << LOW_SHIFT;
        }
        lane.poster.set_flags(flags);
    }

    /// Sets the flags of all lanes.
    pub(super) fn update_flags(&mut self) {
        for index in 0..self.lanes.len() {
            self.flag(index);
        }
    }

    /// Places queued jobs as far as they fit.
    pub(super) fn refill(&mut self) {
        let before = self.queue.is_empty();
        while let Some(&index) = self.queue.front() {
            if !self.place(index) {
                break;
            }
            self.queue.pop_front();
        }
        if before != self.queue.is_empty() {
            self.update_flags();
        }
    }

    // ---- draining ---------------------------------------------------------------------------

    /// Takes what lanes with work have finished.
    pub(super) fn drain_busy(&mut self) {
        for index in 0..self.lanes.len() {
            if !self.lanes[index].is_idle() {
                self.drain(index);
            }
        }
    }

    /// Takes what a lane has finished.
    pub(super) fn drain(&mut self, index: usize) {
        let mut any = false;
        loop {
            if self.lanes[index].verdict.is_some() {
                break;
            }
            match self.lanes[index].poster.drain(&mut self.reply) {
                Drained::Nothing => break,
                Drained::Skipped { position } => {
                    any = true;
                    self.skipped(index, position);
                }
                Drained::Ended {
                    position,
                    failed,
                    bare,
                    took_ns,
                } => {
                    any = true;
                    self.ended(index, position, failed, bare, took_ns);
                }
                Drained::Fault(what) => {
                    let position = self.lanes[index].poster.open_positions().start;
                    let record = self.lanes[index].records[(position % SLOTS as u64) as usize];
                    self.condemn(index, record, JobErrorKind::Protocol(what));
                }
            }
        }
        if any {
            self.lanes[index].poster.publish_drained();
            self.call_if_drained();
        }
    }

    /// The worker says that it has passed over a job that was taken back.
    fn skipped(&mut self, lane: usize, position: u64) {
        let record = self.lanes[lane].take(position);
        if record != NOBODY {
            self.open -= 1;
            let why = JobErrorKind::Protocol("a job was passed over that nobody took back".into());
            self.condemn(lane, record, why);
        }
    }

    #[inline]
    fn ended(&mut self, lane_index: usize, position: u64, failed: bool, bare: bool, took_ns: u32) {
        let lane = &mut self.lanes[lane_index];
        let index = lane.take(position);
        if index == NOBODY {
            self.condemn(
                lane_index,
                NOBODY,
                JobErrorKind::Protocol("an answer to no job".into()),
            );
            return;
        }
        self.lanes[lane_index].jobs += 1;
        self.open -= 1;
        if bare {
            let record = self.records.at(index);
            let kernel = record.kernel;
            record.leases.clear();
            self.kernels.get(kernel).learn(took_ns, 0, false);
            self.answer(index, Outcome::Bare);
            return;
        }
        self.ended_with_reply(lane_index, index, failed, took_ns);
    }

    fn ended_with_reply(&mut self, lane_index: usize, index: u32, failed: bool, took_ns: u32) {
        let reply = self.reply;
        if reply.kind == kind::ESCAPED {
            self.condemn(
                lane_index,
                index,
                JobErrorKind::Escaped {
                    count: reply.words[0],
                },
            );
            return;
        }
        let record = self.records.at(index);
        let leases = std::mem::take(&mut record.leases);
        match self.unpack(lane_index, &reply, &leases) {
            Err(what) => {
                self.records.at(index).leases = leases;
                self.condemn(lane_index, index, JobErrorKind::Protocol(what));
            }
            Ok(unpacked) => {
                let record = self.records.at(index);
                let kernel = record.kernel;
                let bytes = unpacked.bytes;
                self.kernels.get(kernel).learn(took_ns, bytes, failed);
                if failed {
                    let words = match &unpacked.long {
                        Some(words) => words.as_slice(),
                        None => &reply.words[..reply.len as usize],
                    };
                    let why = failure(reply.kind, words);
                    self.fail(index, why, Some(lane_index as u32), lent(&leases));
                } else {
                    let skip = unpacked.skip;
                    let record = self.records.at(index);
                    record.arrays = unpacked.arrays;
                    let outcome = match unpacked.long {
                        Some(mut words) => {
                            words.drain(..skip);
                            Outcome::Long(words)
                        }
                        None => {
                            let len = reply.len as usize - skip;
                            record.payload[..len].copy_from_slice(&reply.words[skip..skip + len]);
                            Outcome::Inline { len: len as u32 }
                        }
                    };
                    self.answer(index, outcome);
                }
            }
        }
        // Inputs go only now: the reply may have taken some of them over.
    }

    fn unpack(&mut self, lane: usize, reply: &Reply, leases: &[Lease]) -> Result<Unpacked, String> {
        let arrays = usize::from(reply.arrays);
        let skip = arrays * SENT_WORDS;
        let lane = &mut self.lanes[lane];
        if !reply.spilled {
            let words = reply
                .words
                .get(..reply.len as usize)
                .filter(|words| words.len() >= skip)
                .ok_or("a reply longer than its slot")?;
            let sent = read_sent(words, arrays)?;
            let arrays = lane.receive(&self.arena, reply.grant, reply.cursor, &sent, leases)?;
            let bytes = fresh_bytes(&arrays, leases);
            return Ok(Unpacked {
                arrays,
                long: None,
                skip,
                bytes,
            });
        }
        // The words lie in a block of their own, which comes first among what the job sends; the
        // arrays it names come out of the same grants, so both are taken in one go.
        let at = bytemuck::cast::<u64, crate::arena::Offset>(reply.words[0]);
        let extent = crate::arena::Extent {
            at,
            len: reply.words[1],
        };
        if extent.len != u64::from(reply.len) * 8 || reply.len as usize > MAX_REPLY_WORDS {
            return Err(format!(
                "a reply of {} words in {} bytes",
                reply.len, extent.len
            ));
        }
        if at.region() != lane.region {
            return Err(format!("a reply at {extent:?}"));
        }
        let words = self
            .arena
            .copy_words(extent)
            .map_err(|error| error.to_string())?;
        if words.len() < skip {
            return Err("a reply shorter than its arrays".into());
        }
        let mut sent = read_sent(&words, arrays)?;
        sent.push(Sent {
            chunk: extent,
            view: extent,
        });
        let mut arrays = lane.receive(&self.arena, reply.grant, reply.cursor, &sent, leases)?;
        arrays.pop();
        let bytes = fresh_bytes(&arrays, leases) + extent.len;
        Ok(Unpacked {
            arrays,
            long: Some(words),
            skip,
            bytes,
        })
    }

    /// The worker has to go, because of the job of this record; the answer waits for its exit.
    pub(super) fn condemn(&mut self, lane: usize, record: u32, why: JobErrorKind) {
        let lane = &mut self.lanes[lane];
        if lane.verdict.is_none() {
            lane.verdict = Some((record, why));
        }
        if lane.status == Status::Ready {
            lane.status = Status::Leaving;
            self.ready -= 1;
        }
        if let Some(process) = &lane.process {
            // It may have gone already; the pidfd tells.
            let _ = process.pidfd.kill(nix::sys::signal::Signal::SIGKILL);
        }
        self.call_monitor = true;
    }

    // ---- answering --------------------------------------------------------------------------

    /// The job is over: tells whoever waits in this process.
    #[inline]
    pub(super) fn answer(&mut self, index: u32, outcome: Outcome) {
        let record = self.records.at(index);
        if record.detached {
            self.records.remove(index);
            return;
        }
        record.stage = Stage::Answered;
        record.outcome = Some(outcome);
        if record.parked || record.waker.is_some() {
            self.tell_slow(index);
        }
    }

    #[cold]
    fn tell_slow(&mut self, index: u32) {
        let record = self.records.at(index);
        self.wakers.extend(record.waker.take());
        if record.parked {
            self.parking.of(index).notify();
        }
    }

    /// The job gave no value.
    pub(super) fn fail(
        &mut self,
        index: u32,
        kind: JobErrorKind,
        worker: Option<u32>,
        lent: Vec<Range<usize>>,
    ) {
        let record = self.records.at(index);
        record.leases.clear();
        let group = record.group;
        let cancels = group != 0 && kind != JobErrorKind::Cancelled;
        let error = Failed {
            kind,
            kernel: self.kernels.get(record.kernel).info.name,
            job: record.job,
            attempt: u32::from(record.attempt),
            worker,
            lent,
        };
        self.answer(index, Outcome::Failed(error.into()));
        if cancels && self.failed_groups.insert(group) {
            for id in self.records.of_group(group) {
                self.cancel(id);
            }
        }
    }

    /// Takes the answer of a job, if it is there.
    #[inline]
    pub(super) fn try_take<R>(&mut self, id: JobId, read: Read<R>) -> Option<Result<R, JobError>> {
        let record = self.records.get(id);
        if record.stage != Stage::Answered {
            return None;
        }
        let outcome = record.outcome.take();
        let words: &[u64] = match &outcome {
            Some(Outcome::Inline { len }) => &record.payload[..*len as usize],
            Some(Outcome::Long(words)) => words,
            Some(Outcome::Bare | Outcome::Failed(_)) | None => &[],
        };
        let answer = match &outcome {
            Some(Outcome::Failed(error)) => Err(error.clone()),
            _ => {
                let words = WordReader::new(words);
                let arrays = std::mem::take(&mut record.arrays).into_iter();
                let value = read(&mut Receiving(ReplyReader { words, arrays }));
                value.map_err(|BadReply| self.unreadable(id.index))
            }
        };
        self.records.remove(id.index);
        Some(answer)
    }

    /// A reply that its kernel cannot have sent.
    #[cold]
    fn unreadable(&mut self, index: u32) -> JobError {
        let record = self.records.at(index);
        let failed = Failed {
            kind: JobErrorKind::Protocol("a reply that its kernel cannot have sent".into()),
            kernel: self.kernels.get(record.kernel).info.name,
            job: record.job,
            attempt: u32::from(record.attempt),
            worker: None,
            lent: Vec::new(),
        };
        failed.into()
    }

    // ---- giving up on jobs ------------------------------------------------------------------

    /// Nobody waits for the job any more. Unless it runs, it will not.
    ///
    /// The waker that was kept for it is for the caller to drop, outside the lock: it is foreign code.
    #[must_use]
    pub(super) fn abandon(&mut self, id: JobId) -> Option<Waker> {
        let record = self.records.get(id);
        let waker = record.waker.take();
        match record.stage {
            Stage::Answered | Stage::Free => self.records.remove(id.index),
            Stage::Queued => {
                self.unqueue(id.index);
                self.records.remove(id.index);
            }
            Stage::Placed { link, position } => {
                if self.take_back(link as usize, position) {
                    self.records.remove(id.index);
                } else {
                    let lane = &self.lanes[link as usize];
                    // Its end frees what it holds, so the monitor wants to hear of it. If it is over
                    // already, the next drain finds nobody who asks.
                    let _: Ask = lane.poster.ask(position, CANCEL | NOTICE);
                    self.records.at(id.index).detached = true;
                }
            }
        }
        self.call_if_drained();
        waker
    }

    /// Takes a job out of the queue. Jobs are mostly given up in the order in which they were
    /// submitted, or in the opposite one: looks from both ends.
    fn unqueue(&mut self, index: u32) {
        let len = self.queue.len();
        let at = (0..len.div_ceil(2))
            .flat_map(|i| [i, len - 1 - i])
            .find(|&at| self.queue[at] == index);
        if let Some(at) = at {
            self.queue.remove(at);
        }
        if self.queue.is_empty() {
            self.update_flags();
        }
    }

    /// Lets the job run without anybody who asks for its answer. The waker is for the caller to drop.
    #[must_use]
    pub(super) fn detach(&mut self, id: JobId) -> Option<Waker> {
        let record = self.records.get(id);
        let waker = record.waker.take();
        if record.stage == Stage::Answered {
            self.records.remove(id.index);
        } else {
            record.detached = true;
        }
        waker
    }

    /// Cancels a job that has not begun: it answers `Cancelled`. One that runs gets the flag.
    pub(super) fn cancel(&mut self, id: JobId) {
        let record = self.records.get(id);
        match record.stage {
            Stage::Answered | Stage::Free => {}
            Stage::Queued => {
                self.unqueue(id.index);
                self.fail(id.index, JobErrorKind::Cancelled, None, Vec::new());
            }
            Stage::Placed { link, position } => {
                if self.take_back(link as usize, position) {
                    self.fail(id.index, JobErrorKind::Cancelled, None, Vec::new());
                } else {
                    let _: Ask = self.lanes[link as usize].poster.ask(position, CANCEL);
                }
            }
        }
    }

    /// Retracts a job from its slot. Its sleepers are woken and find the record.
    pub(super) fn take_back(&mut self, link: usize, position: u64) -> bool {
        let lane = &mut self.lanes[link];
        // The words of a condemned lane mean nothing, and its verdict may name this very record.
        if lane.verdict.is_some() {
            return false;
        }
        match lane.poster.retract(position) {
            Retract::TooLate => false,
            Retract::Taken { wake } => {
                lane.take(position);
                self.open -= 1;
                if wake {
                    let word = lane.poster.cells().state(position).place_to_sleep();
                    crate::sys::futex::wake(word, u32::MAX >> 1);
                }
                // The worker passes over the slot when it gets there; if it sleeps it has to be told.
                lane.poster.ring();
                true
            }
        }
    }

    /// Lanes that have work.
    pub(super) fn busy_lanes(&self) -> usize {
        self.lanes.iter().filter(|lane| !lane.is_idle()).count()
    }

    /// Moves jobs that wait behind a long one to lanes without work, and says whether to look again.
    pub(super) fn even_out(&mut self) {
        let idle = self
            .lanes
            .iter()
            .filter(|lane| lane.status == Status::Ready && lane.is_idle())
            .count();
        let behind = |lane: &Lane| lane.status == Status::Ready && lane.poster.open() > 1;
        let mut waiting = false;
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            if idle == 0 || !behind(lane) {
                lane.seen_at_tick = u64::MAX;
                continue;
            }
            waiting = true;
            let oldest = lane.poster.open_positions().start;
            let stuck = std::mem::replace(&mut lane.seen_at_tick, oldest) == oldest;
            if stuck {
                // Longer than expected: nothing more should line up behind it.
                lane.expect_longer(oldest, TICK_NS);
            }
            if stuck || lane.backlog_ns > 4 * WAKE_NS {
                self.share_out(index, idle);
            }
        }
        self.ticking = waiting;
        self.refill();
        // Lanes that got nothing have to know as well that others have something to spare.
        self.update_flags();
    }

    /// Takes back a fair share of the jobs that a lane has not begun, newest first.
    fn share_out(&mut self, index: usize, idle: usize) {
        let lane = &self.lanes[index];
        let held = |position: &u64| lane.records[(position % SLOTS as u64) as usize];
        // Slots that were retracted before count no more: the worker has only not passed them yet.
        let open = lane.poster.open_positions();
        let live: Vec<(u64, u32)> = open
            .map(|position| (position, held(&position)))
            .filter(|&(_, record)| record != NOBODY)
            .collect();
        let ahead = live.len().saturating_sub(1);
        let share = (ahead * idle).div_ceil(idle + 1);
        for (position, record) in live.into_iter().rev().take(share) {
            if !self.take_back(index, position) {
                break;
            }
            self.records.at(record).stage = Stage::Queued;
            self.queue.push_front(record);
        }
    }

    /// The engine is to end when everything is done, and it is.
    pub(super) fn is_drained(&self) -> bool {
        self.closing == Closing::Drain && self.open == 0 && self.queue.is_empty()
    }

    pub(super) fn call_if_drained(&mut self) {
        if self.is_drained() {
            self.call_monitor = true;
        }
    }

    /// Is there, or may there be, something for a worker to do?
    pub(super) fn needs_workers(&self) -> bool {
        let asked_for = match self.closing {
            Closing::No => true,
            Closing::Drain => self.open + self.queue.len() > 0,
            Closing::Now => false,
        };
        asked_for && self.broken.is_none()
    }

    /// The monitor wants to hear of the end of all that is open. A lane ends its jobs in order, so
    /// its newest is enough.
    pub(super) fn want_end_of_all(&mut self) {
        for lane in &self.lanes {
            let newest = lane
                .poster
                .open_positions()
                .rev()
                .find(|position| lane.records[(position % SLOTS as u64) as usize] != NOBODY);
            if let Some(position) = newest {
                // Over already: the monitor looks again before it sleeps.
                let _: Ask = lane.poster.ask(position, NOTICE);
            }
        }
    }

    /// Somebody waits for this job elsewhere than on its state word.
    pub(super) fn want_notice(&mut self, id: JobId) {
        let record = self.records.get(id);
        record.requests |= NOTICE;
        if let Stage::Placed { link, position } = record.stage {
            // Over already: whoever waits drains before it sleeps.
            let _: Ask = self.lanes[link as usize].poster.ask(position, NOTICE);
        }
    }
}

/// The longest reply in words, arrays excluded: 64 MiB.
const MAX_REPLY_WORDS: usize = 8 << 20;

struct Unpacked {
    arrays: smallvec::SmallVec<[crate::kernel::wire::Received; 1]>,
    long: Option<Vec<u64>>,
    /// Words that describe arrays.
    skip: usize,
    bytes: u64,
}

/// How a reply becomes a value.
pub(crate) type Read<R> = fn(&mut Receiving<'_>) -> Result<R, BadReply>;

/// Output memory in a reply: inputs that are sent back take none.
fn fresh_bytes(arrays: &[crate::kernel::wire::Received], leases: &[Lease]) -> u64 {
    let is_input = |block| {
        leases.iter().any(|lease| match lease {
            Lease::Shared(input) | Lease::Owned(input) => Arc::ptr_eq(input, block),
            Lease::Lent(_) => false,
        })
    };
    let fresh = arrays.iter().filter(|array| !is_input(&array.block));
    fresh.map(|array| array.len).sum()
}

fn read_sent(words: &[u64], arrays: usize) -> Result<smallvec::SmallVec<[Sent; 2]>, String> {
    let mut reader = WordReader::new(words);
    (0..arrays)
        .map(|_| Sent::read(&mut reader).map_err(|_| "a cut list of arrays".to_owned()))
        .collect()
}

/// Moves a call into its record; an answer if it cannot be made.
#[inline]
fn fill(record: &mut Record, call: &mut ArgWriter, arena: &Arc<Arena>) -> Option<JobErrorKind> {
    let words = call.words();
    record.len = words.len() as u32;
    record.spilled = words.len() > INLINE_WORDS;
    if record.spilled {
        return fill_long(record, call, arena);
    }
    record.payload[..words.len()].copy_from_slice(words);
    if !call.leases.is_empty() {
        record.leases.append(&mut call.leases);
    }
    refusal_of(call)
}

#[inline]
fn refusal_of(call: &ArgWriter) -> Option<JobErrorKind> {
    if call.foreign {
        return Some(JobErrorKind::ForeignArray);
    }
    call.full.map(JobErrorKind::ArenaFull)
}

#[cold]
fn fill_long(
    record: &mut Record,
    call: &mut ArgWriter,
    arena: &Arc<Arena>,
) -> Option<JobErrorKind> {
    let block = match arena.alloc_words(call.words()) {
        Ok(block) => block,
        Err(full) => return Some(JobErrorKind::ArenaFull(full)),
    };
    let extent = block.extent();
    record.payload[0] = bytemuck::cast(extent.at);
    record.payload[1] = extent.len;
    record.leases.append(&mut call.leases);
    record.leases.push(Lease::Shared(Arc::new(block)));
    refusal_of(call)
}

/// Grants ahead what jobs of this kernel are known to need.
#[inline]
fn top_up(lane: &mut Lane, arena: &Arc<Arena>, bytes: u64) {
    let jobs = lane.poster.open() as u64 + 2;
    if lane.ahead < bytes.saturating_mul(jobs.min(8)) {
        top_up_slow(lane, arena, bytes);
    }
}

#[cold]
fn top_up_slow(lane: &mut Lane, arena: &Arc<Arena>, bytes: u64) {
    // Whole pages per array, and some to spare.
    let each = bytes.saturating_add(4096);
    let len = each
        .saturating_mul(4)
        .clamp(GRANT_AHEAD, HUGE.max(each.saturating_mul(2)));
    // Without room the worker asks when it needs it, and is told the numbers.
    if let Ok(block) = arena.grant(lane.region, len, len >= HUGE) {
        // A link that cannot take it now has plenty.
        drop(lane.grant(block));
    }
}

/// What a failed reply means.
fn failure(kind: u8, words: &[u64]) -> JobErrorKind {
    let text = || {
        let mut reader = WordReader::new(words);
        let len = reader.word().unwrap_or(0) as usize;
        let rest = words.len().saturating_sub(1) * 8;
        let bytes = reader.bytes(len.min(rest)).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    match kind {
        kind::RETURNED => JobErrorKind::Returned(text()),
        kind::PANICKED => {
            let text = text();
            let (message, location, backtrace) = fence::split(&text);
            JobErrorKind::Panicked {
                message: message.to_owned(),
                location: location.to_owned(),
                backtrace: backtrace.to_owned(),
            }
        }
        kind::ARENA_FULL => match <[u64; 5]>::try_from(words) {
            Ok(words) => JobErrorKind::ArenaFull(crate::worker::full_from_words(words)),
            Err(_) => JobErrorKind::Protocol("a cut refusal".into()),
        },
        kind::BAD_ARGUMENTS => JobErrorKind::Protocol(format!("arguments refused: {}", text())),
        other => JobErrorKind::Protocol(format!("a reply of kind {other}")),
    }
}

/// The rows that a job could write in place.
pub(super) fn lent(leases: &Leases) -> Vec<Range<usize>> {
    leases
        .iter()
        .filter_map(|lease| match lease {
            Lease::Lent(rows) => Some(rows.clone()),
            Lease::Shared(_) | Lease::Owned(_) => None,
        })
        .collect()
}
