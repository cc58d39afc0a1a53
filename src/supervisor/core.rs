//! The private state of an engine, behind one lock: who waits, who runs what, who holds which memory.
//!
//! Everything here is called with the lock held and never blocks, but for a wake-up now and then.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::mem::forget;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::actor::{Actors, actor_of};
use super::admission::Admission;
use super::depend::Graphs;
use super::error::{Because, Beside, Failed, JobError, JobErrorKind};
use super::group::{Groups, fails_together};
use super::kernels::Kernels;
use super::lane::{Lane, NOBODY};
use super::limit::Lines;
use super::options::{JobOptions, Priority};
use super::parking::Parking;
use super::policy::Policy;
use super::queue::Queue;
use super::record::{JobId, NO_GRAPH, Outcome, Record, Records, Stage};
use super::trace::Tracing;
use super::unsent::Unsent;
use super::worker::Worker;
use crate::arena::Arena;
use crate::kernel::wire::{ArgWriter, Lease, ReplyReader, WordReader};
use crate::kernel::{BadReply, KernelInfo, Receiving};
use crate::link::{Ask, INLINE_WORDS, NOTICE, Reply, Retract, SPILLED, fence_after_queueing};

/// Jobs that are kept between two looks at what lanes have finished.
const LOOK_EVERY: usize = 32;

/// Workers that a job with retries may cost, if the builder does not say.
pub(crate) const QUARANTINE_AFTER: u32 = 5;

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
    /// Lane `n` is one of worker `n` modulo the number of workers.
    pub(super) lanes: Vec<Lane>,
    pub(super) workers: Vec<Worker>,
    /// A bit for each lane that has work; one that has ended its work may still have it.
    pub(super) busy: Vec<u64>,
    /// A bit for each lane that has got jobs under this lock.
    pub(super) unrung: Vec<u64>,
    /// Jobs that no lane has.
    pub(super) queue: Queue,
    /// States that stay in their workers, and the calls that only those can have.
    pub(super) actors: Actors,
    /// Jobs that wait for their next attempt, by the time when their pause is over.
    pub(super) waiting: BTreeSet<(Instant, u32)>,
    /// Jobs that wait for a permit of their limiter.
    pub(super) lines: Lines,
    /// Some job had a priority other than the usual one.
    pub(super) ranked: bool,
    /// Workers that a job with retries may cost.
    pub(super) quarantine_after: u32,
    /// Nothing runs beside a job with a deadline.
    pub(super) deadlines_alone: bool,
    /// Workers have several lanes, which share one region.
    pub(super) lanes_share_regions: bool,
    /// The worker that is kept for the first job that waits for one of its own.
    pub(super) reserved: Option<usize>,
    /// One that has waited for that was the last to be placed.
    pub(super) alone_was_placed: bool,
    /// The lane that got work last.
    pub(super) recent: usize,
    /// Jobs in slots.
    pub(super) open: usize,
    /// Lanes that take jobs.
    pub(super) ready: usize,
    pub(super) next_job: u64,
    /// Jobs so far that draw random numbers by the order in which they were submitted.
    pub(super) seeded: u64,
    pub(super) groups: Groups,
    pub(super) closing: Closing,
    /// Until when what there is to finish is waited for, while the engine ends by [`Closing::Drain`].
    pub(super) drains_until: Option<Instant>,
    /// All workers have been ready once.
    pub(super) started: bool,
    /// Nothing is left to do, and the workers have been told to stop.
    pub(super) stopping: bool,
    /// Jobs that were in front of a lane that had begun none when its worker died by itself, by number, or by [`Core::starts`]; how
    /// often, weighed.
    pub(super) in_front: Vec<(u64, u32)>,
    /// Why nothing can run any more.
    pub(super) broken: Option<String>,
    /// The monitor looks every now and then whether work is spread badly.
    pub(super) ticking: bool,
    /// Calls of maps that the monitor looks after while their iterators run.
    pub(super) unsent: Vec<Weak<Unsent>>,
    /// The monitor should be woken when the lock is released.
    pub(super) call_monitor: bool,
    /// The monitor looks at memory a few times a second.
    pub(super) watched: bool,
    /// Workers are replaced when they have grown: the monitor has to look after each job.
    pub(super) weighs: bool,
    /// Jobs that wait for others.
    pub(super) graphs: Graphs,
    /// The ceiling on bytes in flight, if there is one.
    pub(super) admission: Option<Box<Admission>>,
    /// Memory is short: one job runs at a time.
    pub(super) tight: bool,
    /// Until when the monitor sleeps at most, if it sleeps; `None`: until somebody rings.
    pub(super) wakes_at: Option<Instant>,
    /// A job had ended already whose end somebody wanted to hear of: its lane has to be drained before
    /// the monitor sleeps.
    pub(super) look_again: bool,
    /// Futures to wake when the lock is released.
    pub(super) wakers: Vec<Waker>,
    pub(super) may_spin: bool,
    pub(super) cores: usize,
    /// The monitor places, and nobody submits: sleeping workers may be woken for tiny jobs too.
    pub(super) freely: bool,
    /// Workers are locked down: nothing is lent to them, and what they made is copied.
    pub(super) strict: bool,
    pub(super) reply: Reply,
    /// What every call's form has: `STAMPED` with a trace.
    pub(super) form: u32,
    pub(super) trace: Option<Box<Tracing>>,
    /// Jobs that were answered without a value, and those that were given up.
    pub(super) failed: u64,
    pub(super) cancelled: u64,
}

impl Core {
    pub(super) fn new(
        arena: Arc<Arena>,
        parking: Arc<Parking>,
        lanes: Vec<Lane>,
        workers: usize,
    ) -> Self {
        let lanes_share = lanes.len() > workers;
        Self {
            arena,
            parking,
            records: Records::default(),
            kernels: Kernels::default(),
            busy: vec![0; lanes.len().div_ceil(64)],
            unrung: vec![0; lanes.len().div_ceil(64)],
            lanes,
            workers: (0..workers).map(|_| Worker::new()).collect(),
            queue: Queue::default(),
            actors: Actors::default(),
            waiting: BTreeSet::new(),
            lines: Lines::default(),
            ranked: false,
            quarantine_after: QUARANTINE_AFTER,
            deadlines_alone: false,
            lanes_share_regions: lanes_share,
            reserved: None,
            alone_was_placed: false,
            recent: 0,
            open: 0,
            ready: 0,
            next_job: 0,
            seeded: 0,
            groups: Groups::default(),
            closing: Closing::No,
            drains_until: None,
            started: false,
            stopping: false,
            in_front: Vec::new(),
            broken: None,
            ticking: false,
            unsent: Vec::new(),
            call_monitor: false,
            watched: false,
            weighs: false,
            graphs: Graphs::default(),
            admission: None,
            tight: false,
            wakes_at: None,
            look_again: false,
            wakers: Vec::new(),
            may_spin: false,
            cores: 1,
            freely: false,
            strict: false,
            reply: Reply::default(),
            form: 0,
            trace: None,
            failed: 0,
            cancelled: 0,
        }
    }

    /// Before a job is there: who may spin depends on how many cores there are.
    pub(super) fn has_cores(&mut self, cores: usize) {
        self.cores = cores;
        // Of more lanes than cores one that spins is in the way of another.
        self.may_spin = cores > 1 && (!self.lanes_share_regions || self.lanes.len() <= cores);
    }

    // ---- submitting -------------------------------------------------------------------------

    /// Takes a job: it is placed, queued, or refused with an answer.
    #[inline]
    pub(super) fn submit(
        &mut self,
        info: &KernelInfo,
        call: &mut ArgWriter,
        group: u32,
        options: Option<&JobOptions>,
    ) -> JobId {
        let (id, refusal) = self.enter_record(info, call, group, options);
        if let Some(why) = refusal {
            self.fail(id.index, why, None, Vec::new());
        } else if let Some(options) = options
            && self.is_kept_back(id.index, options)
        {
            // It is answered, or its limiter says when it goes on.
        } else if self.ranked && self.overtake(id.index) {
            self.enqueue(id.index);
        } else if self.queue.is_clear() {
            if !self.place(id.index) {
                self.place_after_drain(id.index);
            }
        } else {
            // Lanes know already that something is kept, and ring before they run dry. Looking at them
            // costs each a cache line, so not for every job.
            self.queue.push_back(id.index, self.records.at(id.index));
            if self.queue.len().is_multiple_of(LOOK_EVERY) {
                self.drain_busy();
                self.refill();
            }
        }
        id
    }

    /// A record for a job, and why it cannot be taken if that is so.
    #[inline(always)]
    pub(super) fn enter_record(
        &mut self,
        info: &KernelInfo,
        call: &mut ArgWriter,
        group: u32,
        options: Option<&JobOptions>,
    ) -> (JobId, Option<JobErrorKind>) {
        let kernel = self.kernels.index(info);
        self.next_job += 1;
        let job = self.next_job;
        let (id, record) = self.records.add();
        record.job = job;
        record.kernel = kernel;
        record.group = group;
        if call.seed == 0 {
            self.seeded += 1;
            call.seed = self.seeded;
        }
        record.seed = call.seed;
        if let Some(options) = options {
            self.set_options(id.index, options);
        }
        let refusal = self.write_call(id.index, call);
        crate::sync::point!("submit.recorded");
        (id, refusal.or_else(|| self.refusal(kernel, group)))
    }

    /// The options of a job go into its record.
    pub(super) fn set_options(&mut self, index: u32, options: &JobOptions) {
        let mut policy = Policy::new(options.clone());
        policy.alone = self.deadlines_alone && options.deadline.is_some();
        let record = self.records.at(index);
        record.policy = Some(Box::new(policy));
        if options.retries > 0 && options.retry_errors {
            // Nobody may be waiting for it yet, and its next attempt is to begin all the same.
            record.requests |= NOTICE;
            self.be_watched();
        }
        self.ranked |= options.priority != Priority::Normal;
    }

    /// Looks at what may keep a job from being placed at once: it is answered, because it has no time at all, or its limiter says
    /// when it goes on.
    pub(super) fn is_kept_back(&mut self, index: u32, options: &JobOptions) -> bool {
        self.is_too_late(index, options) || self.joins_a_line(index)
    }

    /// Answers a job that has no time at all: no worker has to end for that. Says whether it did.
    pub(super) fn is_too_late(&mut self, index: u32, options: &JobOptions) -> bool {
        let Some(limit) = options.deadline.filter(Duration::is_zero) else {
            return false;
        };
        let why = JobErrorKind::DeadlineExceeded { limit };
        self.fail(index, why, None, Vec::new());
        true
    }

    /// Moves the call of a job into its record; an answer if it cannot be made.
    #[inline(always)]
    pub(super) fn write_call(&mut self, index: u32, call: &mut ArgWriter) -> Option<JobErrorKind> {
        if fill(self.records.at(index), call, self.form) {
            return refusal_of(call, self.strict);
        }
        self.fill_specially(index, call)
    }

    /// A call that is traced, or longer than a record; an answer if it cannot be made.
    #[cold]
    fn fill_specially(&mut self, index: u32, call: &mut ArgWriter) -> Option<JobErrorKind> {
        if let Some(trace) = &mut self.trace {
            trace.submitted(index, call);
        }
        let record = self.records.at(index);
        if record.form & SPILLED != 0 {
            return fill_long(record, call, &self.arena, self.strict);
        }
        fill_inline(record, call);
        refusal_of(call, self.strict)
    }

    /// No lane has room for a new job, as far as is known: takes what has ended first.
    fn place_after_drain(&mut self, index: u32) {
        // It is in no queue yet, and a failure that is found now may cancel it with its group.
        self.records.at(index).stage = Stage::Waiting;
        self.drain_busy();
        let record = self.records.at(index);
        if record.stage != Stage::Waiting {
            return;
        }
        record.stage = Stage::Queued;
        if !self.place(index) {
            self.enqueue(index);
        }
    }

    /// Keeps a job until a lane has room: the first one that is kept.
    #[cold]
    fn enqueue(&mut self, index: u32) {
        self.be_watched();
        self.queue.push_back(index, self.records.at(index));
        crate::sync::point!("submit.kept");
        self.update_flags();
        fence_after_queueing();
        self.drain_busy();
        self.refill();
    }

    #[inline]
    pub(super) fn refusal(&mut self, kernel: u32, group: u32) -> Option<JobErrorKind> {
        if self.groups.refuses(group) {
            return Some(JobErrorKind::Cancelled);
        }
        if self.closing != Closing::No {
            return Some(JobErrorKind::ShutDown);
        }
        self.cannot_run(kernel)
    }

    /// No worker is left, or none has this kernel.
    #[inline]
    pub(super) fn cannot_run(&mut self, kernel: u32) -> Option<JobErrorKind> {
        if let Some(why) = &self.broken {
            return Some(JobErrorKind::NoWorkers(why.clone()));
        }
        self.kernels
            .get(kernel)
            .offset
            .is_none()
            .then_some(JobErrorKind::ForeignKernel)
    }

    // ---- answering --------------------------------------------------------------------------

    /// The job is over: tells whoever waits in this process.
    #[inline]
    pub(super) fn answer(&mut self, index: u32, outcome: Outcome) {
        let record = self.records.at(index);
        if record.detached {
            if record.graph != NO_GRAPH {
                return self.unit_ended(index, outcome);
            }
            if actor_of(record.group).is_some() {
                return self.actor_job_ended(index, outcome);
            }
            self.discharge(index);
            self.records.remove(index);
            return;
        }
        record.stage = Stage::Answered;
        record.outcome = Some(outcome);
        if record.unwanted {
            record.drop_value();
        }
        if record.parked || record.waker.is_some() {
            self.tell_slow(index);
        }
    }

    /// The job has ended with a value that lies in its record, of so many words.
    #[inline]
    pub(super) fn answer_inline(&mut self, index: u32, len: u32) {
        let record = self.records.at(index);
        if record.detached || record.parked || record.waker.is_some() {
            return self.answer(index, Outcome::Inline { len });
        }
        record.stage = Stage::Answered;
        record.outcome = Some(Outcome::Inline { len });
    }

    #[cold]
    fn tell_slow(&mut self, index: u32) {
        let record = self.records.at(index);
        self.wakers.extend(record.waker.take());
        if record.parked {
            self.parking.of(index).notify();
            self.discharge(index);
        }
    }

    /// The job gave no value.
    pub(super) fn fail(
        &mut self,
        index: u32,
        why: impl Into<Because>,
        worker: Option<u32>,
        lent: Vec<Range<usize>>,
    ) {
        let why = why.into();
        let kind = &why.kind;
        self.count_failed(index, kind);
        let record = self.records.at(index);
        record.leases.clear();
        let group = record.group;
        let policy = record.policy.as_mut();
        let (deaths, label) = policy
            .map(|policy| {
                let label = policy.options.label.clone();
                (std::mem::take(&mut policy.deaths), label)
            })
            .unwrap_or_default();
        let job = record.job;
        let cancels = fails_together(group) && *kind != JobErrorKind::Cancelled;
        let name = self.kernels.get(record.kernel).name;
        let last_words = self.last_words(index, worker);
        let beside = worker.map_or_else(Beside::default, |worker| {
            self.workers[worker as usize].last_words.beside(job, kind)
        });
        let error = Failed {
            attempt: u32::from(self.records.look(index).attempt),
            worker,
            lent,
            label,
            deaths,
            last_words,
            beside,
            ..Failed::new(why, name, job)
        };
        self.answer(index, Outcome::Failed(error.into()));
        if cancels {
            self.cancel_group(group);
        }
    }

    /// It gives no value, in the figures and in the trace.
    pub(super) fn count_failed(&mut self, index: u32, kind: &JobErrorKind) {
        if *kind == JobErrorKind::Cancelled {
            self.cancelled += 1;
        } else {
            self.failed += 1;
        }
        if self.records.at(index).is_traced() {
            self.trace_failed(index, kind, false);
        }
    }

    /// What the worker wrote last in this job, if it died in it.
    pub(super) fn last_words(&self, index: u32, worker: Option<u32>) -> Vec<String> {
        let job = self.records.look(index).job;
        let words = worker.map(|worker| self.workers[worker as usize].last_words.of(job));
        words.unwrap_or_default()
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
                let mut reply = Receiving(ReplyReader { words, arrays });
                fenced(|| read(&mut reply)).map_err(|why| self.not_read(id.index, why))
            }
        };
        self.records.remove(id.index);
        Some(answer)
    }

    /// A reply that its kernel cannot have sent.
    #[cold]
    fn unreadable(&mut self, index: u32) -> JobError {
        let (lane, life) = self.records.at(index).answered_by;
        let why = "a reply that its kernel cannot have sent";
        let kind = JobErrorKind::Protocol(why.into());
        // Unless that process is gone already, it has to go now.
        if self
            .lanes
            .get(lane as usize)
            .is_some_and(|lane| lane.life == life)
        {
            self.condemn(lane as usize, NOBODY, kind.clone());
        }
        self.failed_here(index, kind)
    }

    /// What a reply answers that is there and cannot be read, see [`fenced`].
    #[cold]
    pub(super) fn not_read(&mut self, index: u32, why: Unread) -> JobError {
        match why {
            Unread::Lie => self.unreadable(index),
            Unread::Panicked(kind) => self.failed_here(index, kind),
        }
    }

    /// What is told of an answer that came, and cannot be taken.
    #[cold]
    fn failed_here(&mut self, index: u32, kind: JobErrorKind) -> JobError {
        let lane = self.records.at(index).answered_by.0 as usize;
        let worker = (lane < self.lanes.len()).then(|| self.worker_of(lane) as u32);
        let record = self.records.at(index);
        let name = self.kernels.get(record.kernel).name;
        let policy = record.policy.as_ref();
        let failed = Failed {
            label: policy.and_then(|policy| policy.options.label.clone()),
            attempt: u32::from(record.attempt),
            worker,
            ..Failed::new(kind, name, record.job)
        };
        failed.into()
    }

    /// Retracts a job from its slot. Its sleepers are woken and find the record.
    pub(super) fn take_back(&mut self, link: usize, position: u64) -> bool {
        let lane = &mut self.lanes[link];
        // The words of a condemned lane mean nothing, and its verdict may name this very record. Nor do they where the job was
        // taken from a worker that is gone: who judges its jobs one by one answers this one as well.
        if lane.condemned || !lane.holds(position) {
            return false;
        }
        match lane.producer.retract(position) {
            Retract::TooLate => false,
            Retract::Taken { wake } => {
                let record = lane.take(position);
                self.open -= 1;
                self.never_begun(record, position);
                let lane = &mut self.lanes[link];
                crate::sync::point!("retract.taken");
                if wake {
                    let word = lane.producer.cells().state(position).as_futex();
                    crate::sys::futex::wake(word, u32::MAX >> 1);
                }
                // The worker passes over the slot when it gets there; if it sleeps it has to be told.
                lane.producer.ring();
                if !lane.timed.is_empty() {
                    self.watch(link);
                }
                crate::sync::point!("retract.told");
                true
            }
        }
    }

    /// The engine is to end when everything is done, and it is.
    pub(super) fn is_drained(&self) -> bool {
        self.closing == Closing::Drain
            && self.open == 0
            && !self.keeps_any()
            && self.lines.is_empty()
            && self.actors.none_pauses()
            && !self.graphs.have_news()
    }

    /// Are there jobs that no lane has, or actors for which one has something to do?
    pub(super) fn keeps_any(&self) -> bool {
        !self.queue.is_empty() || self.actors.wanting > 0
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
            Closing::Drain => self.open + self.lines.len() > 0 || self.keeps_any(),
            Closing::Now => false,
        };
        asked_for && !self.stopping && self.broken.is_none()
    }

    /// The monitor wants to hear of the end of all that is open. A lane ends its jobs in order, so
    /// its newest is enough.
    pub(super) fn want_end_of_all(&mut self) {
        for lane in &mut self.lanes {
            let newest = lane.held().next_back();
            if let Some(position) = newest {
                // Over already: the monitor looks again before it sleeps.
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
    }

    /// Somebody waits for this job elsewhere than on its state word.
    pub(super) fn want_notice(&mut self, id: JobId) {
        let record = self.records.get(id);
        record.requests |= NOTICE;
        if let Stage::Placed { link, position } = record.stage {
            // Over already: whoever waits drains before it sleeps.
            let _: Ask = self.lanes[link as usize].ask(position, NOTICE);
        }
    }
}

/// Why a reply cannot be read.
pub(super) enum Unread {
    /// Its kernel cannot have sent it.
    Lie,
    /// The program's own check of one of its types has panicked.
    Panicked(JobErrorKind),
}

/// Reads a reply. A type of the program's own may have a check of its own, whose panic must not leave books half changed; and
/// what it throws is not dropped under the lock.
pub(super) fn fenced<R>(read: impl FnOnce() -> Result<R, BadReply>) -> Result<R, Unread> {
    FENCED.set(true);
    let value = catch_unwind(AssertUnwindSafe(read));
    FENCED.set(false);
    match value {
        Ok(value) => value.map_err(|BadReply| Unread::Lie),
        Err(panic) => Err(Unread::Panicked(JobErrorKind::panicked_here(panic, forget))),
    }
}

thread_local! {
    /// This thread reads a reply, with the lock of its engine.
    static FENCED: Cell<bool> = const { Cell::new(false) };
}

/// # Panics
/// In the check of a type, while a reply is read: it may not call an engine, which may be busy with this very check.
#[inline]
pub(super) fn assert_not_fenced() {
    assert!(
        !FENCED.get(),
        "the check of a type (`CheckedBitPattern`) calls an engine: it may look at the bits and at nothing else"
    );
}

/// How a reply becomes a value.
pub(crate) type Read<R> = fn(&mut Receiving<'_>) -> Result<R, BadReply>;

/// Moves a call into its record. False: not yet, because there is more to do with it.
#[inline]
fn fill(record: &mut Record, call: &mut ArgWriter, form: u32) -> bool {
    record.len = call.words().len() as u32;
    let spilled = call.words().len() > INLINE_WORDS;
    record.form = form | if spilled { SPILLED } else { 0 };
    let plain = record.form == 0;
    if plain {
        fill_inline(record, call);
    }
    plain
}

#[inline]
fn fill_inline(record: &mut Record, call: &mut ArgWriter) {
    let words = call.words();
    record.payload[..words.len()].copy_from_slice(words);
    if !call.leases.is_empty() {
        record.leases.append(&mut call.leases);
    }
}

#[inline]
fn refusal_of(call: &ArgWriter, strict: bool) -> Option<JobErrorKind> {
    if call.exclusive && strict {
        return Some(JobErrorKind::NoLending);
    }
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
    strict: bool,
) -> Option<JobErrorKind> {
    // Only what the engine sends by itself, for graphs and spawned jobs, has not been put there before the lock was taken.
    let spilled = call.spilled.take();
    let block = match spilled.unwrap_or_else(|| arena.alloc_words(call.words())) {
        Ok(block) => block,
        Err(full) => return Some(JobErrorKind::ArenaFull(full)),
    };
    let extent = block.extent();
    record.payload[0] = bytemuck::cast(extent.at);
    record.payload[1] = extent.len;
    record.leases.append(&mut call.leases);
    record.leases.push(Lease::Shared(Arc::new(block)));
    refusal_of(call, strict)
}
