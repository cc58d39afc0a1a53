//! A lane: one thread that claims jobs and runs them.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use super::affinity::Affinity;
use super::files::MappedFiles;
use super::memory::LaneHeap;
use super::output;
use super::pages::Pages;
use super::panics::{self, Outcome};
use super::retention::{
    CountedArray, LOOKS_BEFORE_SLEEP, LOOKS_BETWEEN_JOBS, LeftBehind, RetainedPages, Retention,
};
use super::rng::{GeneratorCount, RngSeed};
use crate::arena::{ArenaFull, Extent, View};
use crate::array::{Array, FileName, LaneChunk, LaneCount, LaneMemory, SealedFile, lane};
use crate::control::LaneStart;
use crate::kernel::actor::{self, take_state};
use crate::kernel::wire::{INLINE_WORDS, ReplyWriter, SENT_WORDS, SentArray, WordReader};
use crate::kernel::{BadArgument, Failure, Host, Returned, Unreachable, from_offset};
use crate::link::{
    CallSlot, Consumer, LinkCells, NO_GRANT, Next, OutgoingReply, Phase, SPILLED, STAMPED,
    SpinLimit, kind,
};
use crate::sys::event::EventFd;
use crate::sys::{abort, clock};

thread_local! {
    /// The lane of this thread.
    static LANE: Cell<Option<&'static Lane>> = const { Cell::new(None) };
}

/// In a kernel: returns whether the running job has been cancelled.
///
/// A job is cancelled by [`Job::cancel`](crate::Job::cancel); when its handle, or the handle of its map or stream
/// is dropped; when its scope is cancelled; and when a related job fails: a job of the same scope, of the same map if
/// that stops at the first failure, or another job spawned by the same job. A long-running kernel
/// should call this from time to time and, if it returns true, return a partial result or an error.
///
/// A call costs a few nanoseconds. Returns false outside a kernel, on threads that a kernel starts, and with
/// [`Engine::inline`](crate::Engine::inline).
///
/// ```
/// # let engine = arenite::Engine::inline();
/// fn search(upto: u64) -> Result<u64, &'static str> {
///     let mut found = 0;
///     for n in 0..upto {
///         if n % 1024 == 0 && arenite::cancelled() {
///             return Err("not needed any more");
///         }
///         found += u64::from(n.is_power_of_two());
///     }
///     Ok(found)
/// }
///
/// assert_eq!(engine.submit(search, (1000,)).wait()?, 10);
/// # Ok::<(), arenite::JobError>(())
/// ```
pub fn cancelled() -> bool {
    // While thread-locals are destroyed, no job runs.
    let lane = LANE.try_with(Cell::get).ok().flatten();
    let is_cancelled = lane.is_some_and(|lane| lane.consumer.borrow().is_cancelled());
    if is_cancelled {
        crate::sync::point!("cancel.seen");
    }
    is_cancelled
}

/// Starts the clock of the running job's [deadline](crate::JobOptions::deadline), if its options have
/// [`loading`](crate::raw::loading). A second call restarts the clock. Does nothing outside a job.
pub fn begin_timed() {
    let lane = LANE.try_with(Cell::get).ok().flatten();
    if let Some(lane) = lane {
        let consumer = lane.consumer.borrow();
        if consumer.claimed().is_some() {
            consumer.begin_timed(clock::monotonic_ns());
        }
    }
}

/// State that all lanes of this worker share. Never dropped.
#[derive(Debug)]
pub(super) struct WorkerContext {
    pub(super) view: &'static View,
    /// The worker's own region.
    pub(super) region: u16,
    /// Whether pages that no running job needs are closed for writing.
    pub(super) guard: bool,
    /// The pages that are open for writing because lanes need them.
    pub(super) pages: Pages,
    /// Entry of the program's code that runs before arrays are retained. `None` if arrays are not retained.
    pub(super) retain: Option<u64>,
    /// Whether private memory has a limit.
    pub(super) has_memory_limit: bool,
    /// Whether there is only one lane.
    pub(super) has_one_lane: bool,
    /// Seed of the run's random numbers.
    pub(super) seed: u64,
    /// The number of cores that this engine may use.
    pub(super) cores: usize,
    /// Wakes the monitor.
    pub(super) monitor_event: EventFd,
}

/// Returns the link of this thread's lane, or `first` on threads without a lane.
pub(super) fn cells_here(first: &LinkCells) -> &LinkCells {
    let lane = LANE.try_with(Cell::get).ok().flatten();
    lane.map_or(first, |lane| &lane.cells)
}

/// Discards the recorder notes that this thread's lane has written after position `end`: the reply of the job reports
/// the same event.
pub(super) fn truncate_notes(end: u64) {
    if let Some(lane) = LANE.try_with(Cell::get).ok().flatten() {
        lane.cells.truncate_notes(end);
    }
}

/// Returns the number of the job that runs on this thread, or 0. For a thread without a lane, returns the job of the
/// only lane, whose link is `first`, or 0 if there are several lanes.
#[cfg(feature = "tracing")]
pub(super) fn current_job(first: &LinkCells, has_one_lane: bool) -> u64 {
    let lane = LANE.try_with(Cell::get).ok().flatten();
    let cells = lane
        .map(|lane| &*lane.cells)
        .or(has_one_lane.then_some(first));
    cells.and_then(|cells| cells.phase().job()).unwrap_or(0)
}

/// Returns the seed of the run, on the thread of a lane.
pub(super) fn seed_of_run() -> Option<u64> {
    let lane = LANE.try_with(Cell::get).ok().flatten()?;
    Some(lane.worker.seed)
}

/// Returns the seed of the next generator of the job that runs on this thread's lane.
pub(super) fn next_rng_seed() -> Option<RngSeed> {
    LANE.try_with(Cell::get).ok().flatten()?.next_rng_seed()
}

/// One lane of this worker. Never dropped.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) consumer: RefCell<Consumer>,
    /// The cells of the link, for the recorder.
    cells: Arc<LinkCells>,
    /// Index of the link.
    pub(super) link: u32,
    pub(super) worker: &'static WorkerContext,
    pub(super) heap: LaneHeap,
    pub(super) count: &'static LaneCount,
    /// `None` if arrays are not retained: then a job whose handles outlive it ends the worker.
    pub(super) retention: Option<Retention>,
    /// The position of the last job that made random number generators, and the number of these generators.
    generators: Cell<(u64, GeneratorCount)>,
    /// The position of the last job that was a chain or a subtree, and the seed of the node that the job has reached.
    node_seed: Cell<(u64, u64)>,
    affinity: Affinity,
    /// How long the lane spins for a job while the supervisor permits spinning (`SPIN`).
    spin_limit: SpinLimit,
    /// Extents opened for writing for the running job, and whether the job changes only a part of them.
    lent: RefCell<Vec<(Extent, bool)>>,
    /// Extents that the running job reads. The same job may not write them through a loan.
    read: RefCell<Vec<Extent>>,
    /// The sealed files that the last jobs took.
    pub(super) files: MappedFiles,
    /// Whether this worker ends after the reply of the running job.
    is_leaving: Cell<bool>,
}

/// What the worker reports if it cannot go on without its descriptors.
const CLOSED: &str =
    "a job has closed descriptors of this worker; close only what the job has opened";

/// Returns a reply of this kind that consists of a text.
fn text_reply(kind: u8, text: &str) -> ReplyWriter {
    let end = text.floor_char_boundary(panics::TEXT_LIMIT);
    let mut reply = ReplyWriter {
        kind,
        ..ReplyWriter::default()
    };
    reply.word(end as u64);
    reply.bytes(&text.as_bytes()[..end]);
    reply
}

/// Returns the reply for an error that a kernel returned.
fn returned_reply(returned: &Returned) -> ReplyWriter {
    let Some((tag, bytes)) = returned.encoded() else {
        return text_reply(kind::RETURNED, returned.text());
    };
    let mut reply = text_reply(kind::TYPED_ERROR, returned.text());
    reply.words.insert_from_slice(1, &[tag, bytes.len() as u64]);
    reply.bytes(bytes);
    reply
}

/// Returns the reply for a full arena.
fn full_reply(full: ArenaFull) -> ReplyWriter {
    let mut reply = ReplyWriter {
        kind: kind::ARENA_FULL,
        ..ReplyWriter::default()
    };
    super::full_to_words(full)
        .into_iter()
        .for_each(|word| reply.word(word));
    reply
}

impl Lane {
    pub(super) fn new(
        consumer: Consumer,
        affinity: Affinity,
        cells: Arc<LinkCells>,
        link: u32,
        worker: &'static WorkerContext,
    ) -> Self {
        let count: &'static LaneCount = Box::leak(Box::new(LaneCount::new()));
        Self {
            consumer: RefCell::new(consumer),
            cells,
            link,
            worker,
            heap: LaneHeap::new(),
            count,
            retention: worker.retain.map(|before| Retention::new(before, count)),
            generators: Cell::new((u64::MAX, GeneratorCount::default())),
            node_seed: Cell::new((u64::MAX, 0)),
            affinity,
            spin_limit: SpinLimit::new(),
            lent: RefCell::default(),
            read: RefCell::default(),
            files: MappedFiles::default(),
            is_leaving: Cell::new(false),
        }
    }

    /// Creates the lane of the calling thread. It is never dropped.
    pub(super) fn begin(
        start: LaneStart,
        cells: Arc<LinkCells>,
        worker: &'static WorkerContext,
    ) -> &'static Self {
        let consumer = Consumer::new(Arc::clone(&cells), start.position, start.grants);
        let affinity = Affinity::new(Arc::clone(&cells), worker, start.link as usize);
        let lane = Self::new(consumer, affinity, cells, start.link, worker);
        Box::leak(Box::new(lane))
    }

    /// Runs jobs until the supervisor sets the stop flag, or a job has closed the descriptors of this worker.
    pub(super) fn run(&'static self) {
        LANE.set(Some(self));
        let mut free_since = clock::monotonic_ns();
        loop {
            let next = self.consumer.borrow_mut().next();
            match next {
                Next::Run => {
                    let started = free_since;
                    free_since = self.job(started);
                    if self.is_leaving.get() {
                        return;
                    }
                }
                Next::Stop => {
                    self.cells.set_phase(Phase::Stopping);
                    crate::sync::point!("stop.obeyed");
                    self.drop_states();
                    crate::sync::point!("stop.dropped");
                    return;
                }
                Next::Empty => {
                    self.cells.set_phase(Phase::Idle);
                    free_since = self.idle();
                }
            }
        }
    }

    /// Drops the states of actors that still exist. No job runs, so arrays that a destructor makes are in private
    /// memory.
    fn drop_states(&self) {
        while let Some(state) = take_state() {
            // A backtrace would use up the short grace period.
            if let Outcome::Panicked(text) = panics::catch_without_backtrace(|| drop(state)) {
                let (message, location, _) = panics::split(&text);
                eprintln!(
                    "the state of an actor panicked at {location} when it was dropped: {message}"
                );
            }
        }
        if self.worker.has_one_lane {
            output::attribute_to(0);
        }
    }

    /// Waits for work: spins for a moment if permitted, then sleeps. Returns the current time.
    fn idle(&self) -> u64 {
        let mut consumer = self.consumer.borrow_mut();
        if consumer.may_report_more() {
            if self.report_releases(&mut consumer, LOOKS_BEFORE_SLEEP, &[])
                && consumer.claim_monitor_signal()
            {
                self.signal_monitor();
            }
            return clock::monotonic_ns();
        }
        let start = consumer.may_spin().then(Instant::now);
        if let Some(start) = start {
            if self.affinity.avoid_waiter(consumer.waiter_core()) {
                self.spin_limit.reset();
            }
            self.affinity.publish();
            let waiter_core = || Some(consumer.waiter_core());
            let has_work = || consumer.has_work();
            if self.spin_limit.poll(start, has_work, waiter_core) {
                return clock::monotonic_ns();
            }
        }
        let has_released = self.report_releases(&mut consumer, LOOKS_BEFORE_SLEEP, &[]);
        if (consumer.work_elsewhere() || has_released) && consumer.claim_monitor_signal() {
            self.signal_monitor();
        }
        self.affinity.before_sleep();
        self.files.clear();
        consumer.sleep();
        if let Some(start) = start {
            self.spin_limit
                .learn(start.elapsed(), consumer.waiter_core());
        }
        let now = clock::monotonic_ns();
        self.affinity.after_sleep(now);
        now
    }

    /// Runs the claimed job and answers it. Returns the time at which it ended.
    fn job(&'static self, started: u64) -> u64 {
        let call = self.consumer.borrow().call();
        // Threads that outlive an earlier job may have printed since. With several lanes, output cannot be attributed.
        if self.worker.has_one_lane {
            output::attribute_to(0);
        }
        self.cells.set_phase(Phase::Opening(call.job));
        crate::sync::point!("run.read");
        self.heap.begin();
        actor::begin_job();
        if self.worker.has_memory_limit {
            abort::clear_errno();
        }
        let reply = match self.words_of(&call) {
            Ok(words) => {
                self.cells.set_phase(Phase::Running(call.job));
                self.stamp(&call, false);
                self.run_kernel(call.entry, &words)
            }
            Err(why) => text_reply(kind::BAD_ARGUMENTS, &why),
        };
        let mut left = self.left_behind(started);
        let sent = &reply.arrays[..];
        self.close_lent(sent, &mut left);
        self.stamp(&call, true);
        crate::sync::point!("run.closed");
        let now = clock::monotonic_ns();
        let took = now.saturating_sub(started);
        self.look_after_descriptors(took);
        if self.worker.has_one_lane {
            output::end_job(call.job, took);
        }
        // Output found in the pipe after this boundary does not belong to the job.
        self.cells.set_phase(Phase::Publishing(call.job));
        self.report_releases(&mut self.consumer.borrow_mut(), LOOKS_BETWEEN_JOBS, sent);
        self.answer(reply, took, left);
        self.affinity.between_jobs(now);
        now
    }

    /// Called after a job, before its reply. If the job has closed the descriptor of the monitor's event, this worker
    /// ends after the reply, and another one runs its other jobs. A worker with several lanes, or with the state of an
    /// actor, goes on until it needs the descriptor.
    fn look_after_descriptors(&self, took: u64) {
        // The check takes some hundred nanoseconds. A job that closes descriptors is rarely quicker.
        const QUICK: u64 = 10_000;
        if took < QUICK || self.worker.monitor_event.is_open() {
            return;
        }
        if self.worker.has_one_lane && !actor::has_states() {
            self.is_leaving.set(true);
            eprintln!(
                "arenite worker {}: {CLOSED}; it is replaced",
                std::process::id()
            );
        }
    }

    /// Returns the arrays whose handles outlive the job, if the lane may retain them. Ends the process if there are
    /// such handles and the lane may not retain their arrays.
    fn left_behind(&'static self, started: u64) -> LeftBehind {
        let (live_handles, left) = match &self.retention {
            None => (self.count.live(), LeftBehind::new()),
            Some(retention) => {
                let left = self.arrays_left(retention);
                match retention.has_room(left.len()) {
                    true => (0, left),
                    false => (left.len(), left),
                }
            }
        };
        if live_handles != 0 {
            // Exits before pages are closed: otherwise a thread that still has the handles could fault, and its fault
            // would hide the cause.
            self.exit_escaped(live_handles, clock::monotonic_ns().saturating_sub(started));
        }
        if self.files.detach_escaped().is_err() {
            // There is no memory to copy the parts of files that have handles.
            self.exit_escaped(1, clock::monotonic_ns().saturating_sub(started));
        }
        left
    }

    /// Returns the seed of the next generator of the running job. Computed on demand, so a job without generators pays
    /// nothing.
    fn next_rng_seed(&self) -> Option<RngSeed> {
        let consumer = self.consumer.borrow();
        let position = consumer.claimed()?;
        let mut count = match self.generators.get() {
            (of, count) if of == position => count,
            _ => GeneratorCount::default(),
        };
        let stream = count.next_stream();
        self.generators.set((position, count));
        Some(RngSeed {
            run: self.worker.seed,
            job: match self.node_seed.get() {
                (of, seed) if of == position => seed,
                _ => consumer.call().seed,
            },
            stream,
        })
    }

    /// Records the time if the call is `STAMPED`. `ended`: whether the kernel returns; otherwise it is about to begin.
    #[inline]
    fn stamp(&self, call: &CallSlot, ended: bool) {
        if call.form & STAMPED != 0 {
            self.consumer.borrow().stamp(clock::monotonic_ns(), ended);
        }
    }

    /// Returns the argument words of a call, from its slot or from a block of region 0.
    fn words_of<'a>(&self, call: &'a CallSlot) -> Result<Cow<'a, [u64]>, String> {
        let count = call.len as usize;
        if call.form & SPILLED == 0 {
            let inline = call.args.get(..count).map(Cow::Borrowed);
            return inline.ok_or_else(|| "more argument words than a slot holds".into());
        }
        let extent = Extent {
            at: bytemuck::cast(call.args[0]),
            len: count as u64 * 8,
        };
        self.worker
            .view
            .copy_words(extent)
            .map(Cow::Owned)
            .map_err(|error| error.to_string())
    }

    /// Runs a kernel and returns its reply.
    fn run_kernel(&'static self, offset: u64, words: &[u64]) -> ReplyWriter {
        #[allow(unsafe_code, reason = "a kernel is called by the offset of its entry")]
        // SAFETY: the supervisor computed the offset from an entry, and is the same build (checked in the handshake).
        let entry = unsafe { from_offset(offset) };
        let mut reply = ReplyWriter::default();
        let _lane = lane::enter(self, self.count);
        crate::sync::point!("run.entered");
        let outcome = panics::catch(|| entry(WordReader::new(words), self, &mut reply));
        crate::sync::point!("run.returned");
        let failure = match outcome {
            Outcome::Returned(Ok(())) => return reply,
            Outcome::Full(full) => Failure::Full(full),
            Outcome::Panicked(text) => {
                let full = self.full_in(&text);
                return full.unwrap_or_else(|| text_reply(kind::PANICKED, &text));
            }
            Outcome::Returned(Err(failure)) => failure,
        };
        match failure {
            Failure::Full(full) => full_reply(full),
            Failure::Rejected(BadArgument::NoFile(why)) => text_reply(kind::RETURNED, &why),
            Failure::Rejected(why) => text_reply(kind::BAD_ARGUMENTS, &why.to_string()),
            // Not reached: a worker sends spawned jobs to the supervisor; only inline engines run them in place.
            Failure::Spawned(_) | Failure::NoInput(_) => {
                text_reply(kind::RETURNED, "a job that ran inline failed")
            }
            // A typed error is not replaced by `ArenaFull`, even if its text contains the message of an `ArenaFull`.
            Failure::Returned(returned) => Some(&returned)
                .filter(|returned| returned.encoded().is_none())
                .and_then(|returned| self.full_in(returned.text()))
                .unwrap_or_else(|| returned_reply(&returned)),
            Failure::Cancelled => text_reply(kind::CANCELLED, ""),
        }
    }

    /// Returns the reply for a full arena, if this text contains the message of the lane's last `ArenaFull` in this
    /// job.
    fn full_in(&self, text: &str) -> Option<ReplyWriter> {
        let full = self.heap.last_refusal.get()?;
        text.contains(&full.to_string()).then(|| full_reply(full))
    }

    fn answer(&'static self, mut reply: ReplyWriter, took: u64, mut left: LeftBehind) {
        let kind = reply.kind;
        if left.is_empty() && reply.arrays.is_empty() && reply.words.len() <= INLINE_WORDS {
            return self.answer_inline(kind, &reply.words, took);
        }
        let arrays = reply.arrays.len();
        let mut words: smallvec::SmallVec<[u64; INLINE_WORDS]> = smallvec::SmallVec::new();
        for sent in &reply.arrays {
            words.extend(sent.words());
        }
        for array in &left {
            words.extend([bytemuck::cast(array.extent.at), array.extent.len]);
        }
        let described = words.len();
        words.append(&mut reply.words);
        let len = words.len();
        let mut spilled = None;
        if len > INLINE_WORDS {
            match self.spill(&words) {
                Ok(extent) => spilled = Some(extent),
                // Without memory for a block, a text is truncated to the slot, and a value becomes the failure
                // `ArenaFull`.
                Err(_)
                    if [kind::RETURNED, kind::PANICKED].contains(&kind)
                        && described < INLINE_WORDS =>
                {
                    words.truncate(INLINE_WORDS);
                    words[described] = ((INLINE_WORDS - described - 1) * 8) as u64;
                }
                // Without memory for a block, a reply cannot name more arrays than fit into its slot, so the arrays
                // cannot be retained.
                Err(_) if [kind::RETURNED, kind::PANICKED, kind::ARENA_FULL].contains(&kind) => {
                    self.exit_escaped(left.len(), took);
                }
                Err(full) => return self.answer(full_reply(full), took, left),
            }
        }
        let chunks = reply
            .arrays
            .iter()
            .map(|sent: &SentArray| sent.chunk)
            .chain(spilled);
        crate::sync::point!("publish.spilled");
        let used = self.settle(chunks, &mut left);
        crate::sync::point!("publish.settled");
        debug_assert!(SENT_WORDS * arrays <= len);
        let inline: &[u64] = match &spilled {
            Some(extent) => &[bytemuck::cast(extent.at), extent.len],
            None => &words,
        };
        let answer = OutgoingReply {
            kind,
            arrays: arrays as u16,
            retained: left.len() as u32,
            spilled: spilled.is_some(),
            len: if spilled.is_some() {
                len as u32
            } else {
                words.len() as u32
            },
            grant: used.map_or(NO_GRANT, |used| used.grant.into()),
            cursor: used.map_or(0, |used| used.cursor),
            words: inline,
        };
        self.finish(is_failure(kind), took, Some(&answer));
        if let Some(retention) = &self.retention {
            left.into_iter().for_each(|array| retention.retain(array));
        }
        self.signal_if_job_goes_on(kind);
    }

    /// Signals the monitor after a reply that spawns jobs or that may lead to a retry: the supervisor must continue
    /// even if no thread waits for the job.
    fn signal_if_job_goes_on(&self, kind: u8) {
        if [kind::SPAWN, kind::PANICKED].contains(&kind)
            && self.consumer.borrow_mut().claim_monitor_signal()
        {
            self.signal_monitor();
        }
    }

    /// Answers with words that fit into the slot, without a block.
    fn answer_inline(&self, kind: u8, words: &[u64], took: u64) {
        // Report the position in the grants only if older grants were used up: the supervisor does not learn this
        // otherwise. Without new grants the cursor is back where the job began, so no report is needed.
        let moved = self
            .settle(std::iter::empty(), &mut [])
            .filter(|used| used.left_grants);
        let failed = is_failure(kind);
        if moved.is_none() && words.is_empty() && !failed {
            return self.finish(false, took, None);
        }
        let answer = OutgoingReply {
            kind,
            arrays: 0,
            retained: 0,
            spilled: false,
            len: words.len() as u32,
            grant: moved.map_or(NO_GRANT, |used| used.grant.into()),
            cursor: moved.map_or(0, |used| used.cursor),
            words,
        };
        self.finish(failed, took, Some(&answer));
        self.signal_if_job_goes_on(kind);
    }

    fn spill(&'static self, words: &[u64]) -> Result<Extent, ArenaFull> {
        let _lane = lane::enter(self, self.count);
        let copy = Array::try_from_slice(words)?;
        Ok(copy
            .take_lane(|count| count.is_of(self.count))
            .expect("the array was made in the lane that is entered"))
    }

    fn finish(&self, failed: bool, took: u64, answer: Option<&OutgoingReply<'_>>) {
        if self.consumer.borrow_mut().finish(failed, took, answer) {
            self.signal_monitor();
            crate::sync::point!("complete.rung");
        }
    }

    /// Reports that handles have outlived their job, and exits before the memory of their arrays can be reused.
    fn exit_escaped(&self, live_handles: usize, took: u64) -> ! {
        let answer = OutgoingReply {
            kind: kind::ESCAPED,
            arrays: 0,
            retained: 0,
            spilled: false,
            len: 1,
            grant: NO_GRANT,
            cursor: 0,
            words: &[live_handles as u64],
        };
        self.finish(true, took, Some(&answer));
        self.signal_monitor();
        crate::sys::process::exit_now(super::EXIT_ESCAPED);
    }

    /// Wakes the monitor, which also wakes when this process ends.
    pub(super) fn signal_monitor(&self) {
        if self.is_leaving.get() {
            return;
        }
        if !self.worker.monitor_event.is_open() {
            super::die(CLOSED);
        }
        // This fails only if the counter is full; then the monitor has not read an earlier signal yet.
        let _ = self.worker.monitor_event.ring();
    }

    /// Closes the memory that was lent to the job. Called after the job's arguments were dropped. Arrays in `left` stay
    /// readable; those that have moved into the job and are not in `sent` also stay writable.
    pub(super) fn close_lent(&self, sent: &[SentArray], left: &mut [CountedArray]) {
        self.read.borrow_mut().clear();
        let mut lent = self.lent.borrow_mut();
        for array in left {
            if lent.iter().any(|(lent, _)| lent.overlaps(&array.extent)) {
                let is_sent = || sent.iter().any(|sent| sent.view.overlaps(&array.extent));
                if array.pages != RetainedPages::Moved || is_sent() {
                    array.pages = RetainedPages::Lent;
                }
                self.worker.pages.retain(array.extent, array.pages);
            }
        }
        for (extent, _) in lent.drain(..) {
            self.worker.pages.lend_close(extent);
            crate::sync::point!("lend.closed");
        }
    }
}

/// Returns the extents that the job changes as a whole.
fn without_gaps(lent: &[(Extent, bool)]) -> impl Iterator<Item = &Extent> {
    let whole = lent.iter().filter(|(_, has_gaps)| !has_gaps);
    whole.map(|(extent, _)| extent)
}

/// Returns whether a reply of this kind is a failure.
fn is_failure(kind: u8) -> bool {
    ![kind::VALUE, kind::SPAWN].contains(&kind)
}

/// Checks that an extent that the job may change overlaps none of the job's other extents: two references to one byte,
/// one of them mutable, would be undefined behaviour.
fn check_disjoint<'a>(
    extent: Extent,
    mut others: impl Iterator<Item = &'a Extent>,
) -> Result<(), Unreachable> {
    match others.find(|other| other.overlaps(&extent)) {
        None => Ok(()),
        Some(other) => Err(Unreachable(format!(
            "the job changes {} bytes at {}, which overlap its {} bytes at {}",
            extent.len, extent.at, other.len, other.at
        ))),
    }
}

#[allow(unsafe_code, reason = "the trait is unsafe to implement")]
// SAFETY: `pointer` and `lend_open` return addresses in mapped regions, which stay mapped until the process ends. Lent
// pages are open until `close_lent` at the end of the job. Of arrays with handles it leaves the pages readable, or
// writable if the arrays have moved into the job and were not sent, until `report_releases` has found no handle. The
// supervisor gives no other process the memory before that.
unsafe impl Host for Lane {
    fn read(&self, extent: Extent) -> Result<NonNull<u8>, Unreachable> {
        let view = self.worker.view;
        let ptr = view
            .pointer(extent)
            .map_err(|error| Unreachable(error.to_string()))?;
        check_disjoint(extent, without_gaps(&self.lent.borrow()))?;
        self.read.borrow_mut().push(extent);
        Ok(ptr)
    }

    fn lend(
        &self,
        extent: Extent,
        behind: u64,
        has_gaps: bool,
    ) -> Result<NonNull<u8>, Unreachable> {
        let opened = extent.extended_by_pages(behind);
        if !has_gaps {
            check_disjoint(opened, without_gaps(&self.lent.borrow()))?;
            check_disjoint(opened, self.read.borrow().iter())?;
        }
        let pages = &self.worker.pages;
        let ptr = pages
            .lend_open(opened)
            .map_err(|error| Unreachable(error.to_string()))?;
        self.lent.borrow_mut().push((opened, has_gaps));
        crate::sync::point!("lend.opened");
        Ok(ptr)
    }

    fn open_file(&self, name: FileName, bytes: (u64, u64)) -> Result<Arc<SealedFile>, BadArgument> {
        self.files.open(name, bytes)
    }

    fn count(&self) -> &'static LaneCount {
        self.count
    }

    fn count_of(&self, extent: Extent) -> &'static LaneCount {
        let retention = self.retention.as_ref();
        retention.map_or(self.count, |retention| {
            retention.count_given(extent, RetainedPages::Plain)
        })
    }

    fn count_of_moved(&self, extent: Extent) -> &'static LaneCount {
        let retention = self.retention.as_ref();
        retention.map_or(self.count, |retention| {
            retention.count_given(extent, RetainedPages::Moved)
        })
    }

    fn has_retained(&self, chunk: Extent) -> bool {
        let retention = self.retention.as_ref();
        chunk.len > 0 && retention.is_some_and(|retention| !retention.has_made(chunk))
    }

    fn owns(&self, count: &'static LaneCount) -> bool {
        let retention = self.retention.as_ref();
        count.is_of(self.count) && retention.is_none_or(|retention| !retention.was_lent(count))
    }

    fn retains(&self) -> bool {
        self.retention.is_some()
    }

    fn step(&self, seed: u64) -> bool {
        let consumer = self.consumer.borrow();
        if let Some(position) = consumer.claimed() {
            self.node_seed.set((position, seed));
            self.generators.set((position, GeneratorCount::default()));
        }
        consumer.is_cancelled()
    }

    fn alloc(&self, len: usize) -> Result<LaneChunk, ArenaFull> {
        LaneMemory::alloc(self, len, crate::arena::BlockPlacement::Packed)
    }
}
