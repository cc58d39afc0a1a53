//! A lane: one thread that claims jobs and runs them.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::fence::{self, Outcome};
use super::memory::LaneHeap;
use super::output;
use super::pages::Pages;
use super::rng::{Drawing, Made};
use super::seat::Seat;
use crate::arena::{ArenaFull, Extent, View};
use crate::array::{Array, LaneChunk, LaneCount, LaneMemory, lane};
use crate::control::LaneStart;
use crate::kernel::actor::{self, take_state};
use crate::kernel::wire::{INLINE_WORDS, ReplyWriter, SENT_WORDS, SentArray, WordReader};
use crate::kernel::{Failure, Host, Returned, Unreachable, from_offset, step_reached};
use crate::link::{
    CallSlot, Consumer, LinkCells, NO_GRANT, Next, OutgoingReply, Phase, SPILLED, STAMPED, kind,
};
use crate::sync::spin_until;
use crate::sys::event::EventFd;
use crate::sys::{abort, clock};

/// How long a lane spins before it looks on which core it is.
const EAGER: Duration = Duration::from_micros(2);
/// How long a lane with the permit spins after its last job.
const SPIN_FOR: Duration = Duration::from_micros(50);

thread_local! {
    /// The lane of this thread.
    static LANE: Cell<Option<&'static Lane>> = const { Cell::new(None) };
}

/// In a kernel: has somebody asked this job to end? By [`Job::cancel`](crate::Job::cancel), by dropping its handle or that of its
/// graph, map or stream, by cancelling its scope, or because another job failed with which it stops: of its scope, of a graph or map
/// that stops at the first failure, of those that one job spawned. A kernel that takes long asks now and then, and returns what it
/// has, or an error.
///
/// It costs a few nanoseconds. Outside a kernel, on threads that a kernel starts, and with
/// [`Engine::inline`](crate::Engine::inline): false.
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
    // While the thread is being torn down nothing runs on it.
    let lane = LANE.try_with(Cell::get).ok().flatten();
    let asked = lane.is_some_and(|lane| lane.consumer.borrow().is_cancelled());
    if asked {
        crate::sync::point!("cancel.seen");
    }
    asked
}

/// What all lanes of this worker share. Lives as long as the process.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) view: &'static View,
    pub(super) region: u16,
    pub(super) guard: bool,
    /// Which pages are open, and for whom.
    pub(super) pages: Pages,
    /// This worker's private memory has a ceiling.
    pub(super) limited: bool,
    /// There is one lane only.
    pub(super) single: bool,
    /// Of the random numbers of this run.
    pub(super) seed: u64,
    /// Cores that this engine may use.
    pub(super) cores: usize,
    /// Rings the monitor.
    pub(super) bell: EventFd,
}

/// The link of this thread's lane; on other threads `first`.
pub(super) fn cells_here(first: &LinkCells) -> &LinkCells {
    let lane = LANE.try_with(Cell::get).ok().flatten();
    lane.map_or(first, |lane| &lane.cells)
}

/// What this thread's lane has noted since then is told otherwise.
pub(super) fn truncate_notes(noted: u64) {
    if let Some(lane) = LANE.try_with(Cell::get).ok().flatten() {
        lane.cells.truncate_notes(noted);
    }
}

/// The job that runs on this thread, or beside it if the worker has one lane only (`first` is its link); 0 for none.
#[cfg(feature = "tracing")]
pub(super) fn job_here(first: &LinkCells, single: bool) -> u64 {
    let lane = LANE.try_with(Cell::get).ok().flatten();
    let cells = lane.map(|lane| &*lane.cells).or(single.then_some(first));
    cells.and_then(|cells| cells.phase().job()).unwrap_or(0)
}

/// The seed of the run, if this is a worker's thread that runs jobs.
pub(super) fn seed_of_run() -> Option<u64> {
    let lane = LANE.try_with(Cell::get).ok().flatten()?;
    Some(lane.home.seed)
}

/// What the random numbers of the job that runs on this thread depend on.
pub(super) fn drawing() -> Option<Drawing> {
    LANE.try_with(Cell::get).ok().flatten()?.drawing()
}

/// Everything that one lane of this worker has. Lives as long as the process.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) consumer: RefCell<Consumer>,
    /// For the recorder.
    cells: Arc<LinkCells>,
    /// Number of the link.
    pub(super) link: u32,
    pub(super) home: &'static Home,
    pub(super) heap: LaneHeap,
    pub(super) count: &'static LaneCount,
    /// The position of the last job that drew random numbers, and which generators it has made.
    drawn: Cell<(u64, Made)>,
    /// The position of the last job that was a chain or a subtree, and the seed of the node that it came to.
    reseeded: Cell<(u64, u64)>,
    seat: Seat,
    /// Extents opened for the running job.
    lent: RefCell<Vec<Extent>>,
    /// Extents that the running job reads: none of them may be lent as well.
    read: RefCell<Vec<Extent>>,
}

/// What a job sends back, before it is written into its slot.
struct Ending {
    kind: u8,
    reply: ReplyWriter,
}

impl Ending {
    fn text(kind: u8, text: &str) -> Self {
        let mut end = text.len().min(fence::TEXT_LIMIT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut reply = ReplyWriter::default();
        // Above the length: the node of a chain that it is about.
        reply.word(end as u64 | u64::from(step_reached()) << 32);
        reply.bytes(&text.as_bytes()[..end]);
        Self { kind, reply }
    }

    /// The error that a kernel returned.
    fn returned(returned: &Returned) -> Self {
        let Some((tag, bytes)) = returned.encoded() else {
            return Self::text(kind::RETURNED, returned.text());
        };
        let Self { mut reply, .. } = Self::text(kind::TYPED_ERROR, returned.text());
        reply.words.insert_from_slice(1, &[tag, bytes.len() as u64]);
        reply.bytes(bytes);
        Self {
            kind: kind::TYPED_ERROR,
            reply,
        }
    }

    /// `step`: the node of a chain that it is about, 0 in what is none.
    fn full(full: ArenaFull, step: u32) -> Self {
        let mut reply = ReplyWriter::default();
        super::full_to_words(full)
            .into_iter()
            .for_each(|word| reply.word(word));
        if step != 0 {
            reply.word(step.into());
        }
        Self {
            kind: kind::ARENA_FULL,
            reply,
        }
    }
}

impl Lane {
    pub(super) fn new(
        consumer: Consumer,
        seat: Seat,
        cells: Arc<LinkCells>,
        link: u32,
        home: &'static Home,
    ) -> Self {
        Self {
            consumer: RefCell::new(consumer),
            cells,
            link,
            home,
            heap: LaneHeap::new(),
            count: Box::leak(Box::new(LaneCount::new())),
            drawn: Cell::new((u64::MAX, Made::default())),
            reseeded: Cell::new((u64::MAX, 0)),
            seat,
            lent: RefCell::default(),
            read: RefCell::default(),
        }
    }

    /// The lane that begins here, for good. On its thread.
    pub(super) fn begin(
        start: LaneStart,
        cells: Arc<LinkCells>,
        home: &'static Home,
    ) -> &'static Self {
        let consumer = Consumer::new(Arc::clone(&cells), start.position, start.grants);
        let seat = Seat::new(Arc::clone(&cells), home, start.link as usize);
        Box::leak(Box::new(Self::new(consumer, seat, cells, start.link, home)))
    }

    /// Runs jobs until the supervisor says stop.
    pub(super) fn run(&'static self) {
        LANE.set(Some(self));
        let mut free_since = clock::monotonic_ns();
        loop {
            let next = self.consumer.borrow_mut().next();
            match next {
                Next::Run => {
                    let started = free_since;
                    free_since = self.job(started);
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
                    free_since = self.idle(free_since);
                }
            }
        }
    }

    /// Drops what actors have left here. Outside of any job: arrays that are made now are the process's own.
    fn drop_states(&self) {
        while let Some(state) = take_state() {
            // The time for this is short.
            if let Outcome::Panicked(text) = fence::run_briefly(|| drop(state)) {
                let (message, location, _) = fence::split(&text);
                eprintln!(
                    "the state of an actor panicked at {location} when it was dropped: {message}"
                );
            }
        }
        if self.home.single {
            output::belongs_to(0);
        }
    }

    /// Nothing to do: spins for a moment if it may, then sleeps. Returns the time now.
    fn idle(&self, free_since: u64) -> u64 {
        let mut consumer = self.consumer.borrow_mut();
        if consumer.may_spin() {
            if spin_until(EAGER, || consumer.has_work()) {
                return clock::monotonic_ns();
            }
            self.seat.step_aside(consumer.waiter_core());
            let idle = clock::monotonic_ns().saturating_sub(free_since);
            let left = SPIN_FOR.saturating_sub(Duration::from_nanos(idle));
            if spin_until(left, || consumer.has_work()) {
                return clock::monotonic_ns();
            }
        }
        if consumer.work_elsewhere() && consumer.claim_monitor_signal() {
            self.ring();
        }
        self.seat.leave();
        consumer.sleep();
        let now = clock::monotonic_ns();
        self.seat.take(now);
        now
    }

    /// Runs the claimed job and answers it. Returns the time of its end.
    fn job(&'static self, started: u64) -> u64 {
        let call = self.consumer.borrow().call();
        // Threads that outlive their job may have printed since. Of lanes side by side nobody can tell who printed.
        if self.home.single {
            output::belongs_to(0);
        }
        self.cells.set_phase(Phase::Opening(call.job));
        crate::sync::point!("run.read");
        self.heap.begin();
        actor::begin_job();
        if self.home.limited {
            abort::clear_errno();
        }
        let ended = match self.words_of(&call) {
            Ok(words) => {
                self.cells.set_phase(Phase::Running(call.job));
                self.stamp(&call, false);
                self.run_fenced(call.entry, &words)
            }
            Err(why) => Some(Ending::text(kind::BAD_ARGUMENTS, &why)),
        };
        let alive = self.count.live();
        if alive != 0 {
            // Before anything is closed under who has them: his fault would be taken for the cause.
            self.escaped(alive, clock::monotonic_ns().saturating_sub(started));
        }
        self.close_lent();
        self.stamp(&call, true);
        crate::sync::point!("run.closed");
        let now = clock::monotonic_ns();
        let took = now.saturating_sub(started);
        if self.home.single {
            output::belongs_to(call.job);
        }
        // Behind the boundary: what is found in the pipe from now on is not the job's.
        self.cells.set_phase(Phase::Publishing(call.job));
        self.answer(ended, took);
        self.seat.look_around(now);
        now
    }

    /// Called by the running kernel; until then random numbers cost a job nothing.
    fn drawing(&self) -> Option<Drawing> {
        let consumer = self.consumer.borrow();
        let position = consumer.claimed()?;
        let mut made = match self.drawn.get() {
            (drawn, made) if drawn == position => made,
            _ => Made::default(),
        };
        let stream = made.next_stream();
        self.drawn.set((position, made));
        Some(Drawing {
            run: self.home.seed,
            job: match self.reseeded.get() {
                (of, seed) if of == position => seed,
                _ => consumer.call().seed,
            },
            stream,
        })
    }

    /// Says when the kernel is entered and left, if the call asks for it.
    #[inline]
    fn stamp(&self, call: &CallSlot, ended: bool) {
        if call.form & STAMPED != 0 {
            self.consumer.borrow().stamp(clock::monotonic_ns(), ended);
        }
    }

    /// The argument words of a call, in its slot or in a block of region 0.
    fn words_of<'a>(&self, call: &'a CallSlot) -> Result<Cow<'a, [u64]>, String> {
        let count = call.len as usize;
        if call.form & SPILLED == 0 {
            let inline = call.args.get(..count).map(Cow::Borrowed);
            return inline.ok_or_else(|| "more arguments than a slot holds".into());
        }
        let extent = Extent {
            at: bytemuck::cast(call.args[0]),
            len: count as u64 * 8,
        };
        self.home
            .view
            .copy_words(extent)
            .map(Cow::Owned)
            .map_err(|error| error.to_string())
    }

    /// `None`: a value without any words.
    fn run_fenced(&'static self, offset: u64, words: &[u64]) -> Option<Ending> {
        #[allow(unsafe_code, reason = "a kernel is called by the offset of its entry")]
        // SAFETY: the supervisor computed the offset in a process of the same build (checked in the
        // handshake), from an entry.
        let entry = unsafe { from_offset(offset) };
        let mut reply = ReplyWriter::default();
        let _lane = lane::enter(self, self.count);
        crate::sync::point!("run.entered");
        let outcome = fence::run(|| entry(WordReader::new(words), self, &mut reply));
        crate::sync::point!("run.returned");
        match outcome {
            Outcome::Returned(Ok(())) if reply.is_empty() => None,
            Outcome::Returned(Ok(())) => Some(Ending {
                kind: match &reply {
                    ReplyWriter { spawns: true, .. } => kind::SPAWN,
                    ReplyWriter { timed: true, .. } => kind::TIMED,
                    _ => kind::VALUE,
                },
                reply,
            }),
            Outcome::Returned(Err(Failure::Full(full))) | Outcome::Full(full) => {
                Some(Ending::full(full, step_reached()))
            }
            Outcome::Returned(Err(Failure::Rejected(why))) => {
                Some(Ending::text(kind::BAD_ARGUMENTS, &format!("{why:?}")))
            }
            // Only who runs kernels in the program itself runs what they spawn.
            Outcome::Returned(Err(Failure::Spawned(_))) => {
                Some(Ending::text(kind::RETURNED, "spawned where it cannot"))
            }
            Outcome::Returned(Err(Failure::Returned(returned))) => Some(
                // A typed error stays what it is.
                Some(&returned)
                    .filter(|returned| returned.encoded().is_none())
                    .and_then(|returned| self.full_in(returned.text()))
                    .unwrap_or_else(|| Ending::returned(&returned)),
            ),
            Outcome::Returned(Err(Failure::Cancelled)) => Some(Ending::text(kind::CANCELLED, "")),
            Outcome::Panicked(text) => Some(
                self.full_in(&text)
                    .unwrap_or_else(|| Ending::text(kind::PANICKED, &text)),
            ),
        }
    }

    /// Is this text about the lane's own refusal in this job?
    fn full_in(&self, text: &str) -> Option<Ending> {
        let full = self.heap.full.get()?;
        text.contains(&full.to_string())
            .then(|| Ending::full(full, step_reached()))
    }

    fn answer(&'static self, ended: Option<Ending>, took: u64) {
        let Some(Ending { kind, mut reply }) = ended else {
            return self.answer_plainly(kind::VALUE, &[], took);
        };
        if reply.arrays.is_empty() && reply.words.len() <= INLINE_WORDS {
            return self.answer_plainly(kind, &reply.words, took);
        }
        let arrays = reply.arrays.len();
        let mut words: smallvec::SmallVec<[u64; INLINE_WORDS]> = smallvec::SmallVec::new();
        for sent in &reply.arrays {
            words.extend(sent.words());
        }
        words.append(&mut reply.words);
        let len = words.len();
        let mut spilled = None;
        if len > INLINE_WORDS {
            match self.spill(&words) {
                Ok(extent) => spilled = Some(extent),
                // A text is cut to what fits; a value without room is a failure of its own.
                Err(_) if kind == kind::RETURNED || kind == kind::PANICKED => {
                    words.truncate(INLINE_WORDS);
                    let step = words[0] >> 32 << 32;
                    words[0] = ((INLINE_WORDS - 1) * 8) as u64 | step;
                }
                Err(full) => {
                    let step = match kind {
                        kind::TIMED => self.cells.noted_step(),
                        kind::TYPED_ERROR => (words[0] >> 32) as u32,
                        _ => 0,
                    };
                    return self.answer(Some(Ending::full(full, step)), took);
                }
            }
        }
        let chunks = reply
            .arrays
            .iter()
            .map(|sent: &SentArray| sent.chunk)
            .chain(spilled);
        crate::sync::point!("publish.spilled");
        let used = self.settle(chunks);
        crate::sync::point!("publish.settled");
        debug_assert!(SENT_WORDS * arrays <= len);
        let inline: &[u64] = match &spilled {
            Some(extent) => &[bytemuck::cast(extent.at), extent.len],
            None => &words,
        };
        let answer = OutgoingReply {
            kind,
            arrays: arrays as u16,
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
        self.announce(kind);
    }

    /// Nobody may be waiting for a job that spawns others, or for one that may be tried again, and yet it has to go on.
    fn announce(&self, kind: u8) {
        if [kind::SPAWN, kind::PANICKED].contains(&kind)
            && self.consumer.borrow_mut().claim_monitor_signal()
        {
            self.ring();
        }
    }

    /// Answers with words that fit into the slot, and no memory.
    fn answer_plainly(&self, kind: u8, words: &[u64], took: u64) {
        // Only a reply can tell that grants are used up, and they would pile up otherwise. A cursor
        // that went back to where it was is no news.
        let moved = self.settle(std::iter::empty()).filter(|used| used.moved);
        let failed = is_failure(kind);
        if moved.is_none() && words.is_empty() && !failed {
            return self.finish(false, took, None);
        }
        let answer = OutgoingReply {
            kind,
            arrays: 0,
            spilled: false,
            len: words.len() as u32,
            grant: moved.map_or(NO_GRANT, |used| used.grant.into()),
            cursor: moved.map_or(0, |used| used.cursor),
            words,
        };
        self.finish(failed, took, Some(&answer));
        self.announce(kind);
    }

    fn spill(&'static self, words: &[u64]) -> Result<Extent, ArenaFull> {
        let _lane = lane::enter(self, self.count);
        let copy = Array::try_from_slice(words)?;
        Ok(copy
            .take_lane(|count| std::ptr::eq(count, self.count))
            .expect("a lane is set on this thread, so the array lies in it"))
    }

    fn finish(&self, failed: bool, took: u64, answer: Option<&OutgoingReply<'_>>) {
        if self.consumer.borrow_mut().finish(failed, took, answer) {
            self.ring();
            crate::sync::point!("complete.rung");
        }
    }

    /// Handles outlived their job: says so and ends the process, before any of that memory can be
    /// reused.
    fn escaped(&self, alive: usize, took: u64) -> ! {
        let answer = OutgoingReply {
            kind: kind::ESCAPED,
            arrays: 0,
            spilled: false,
            len: 1,
            grant: NO_GRANT,
            cursor: 0,
            words: &[alive as u64],
        };
        self.finish(true, took, Some(&answer));
        self.ring();
        crate::sys::process::exit_now(super::EXIT_ESCAPED);
    }

    /// Wakes the monitor.
    pub(super) fn ring(&self) {
        // The counter is full only if the monitor has thousands of rings to read.
        let _ = self.home.bell.ring();
    }

    /// The arguments of the job are gone.
    pub(super) fn close_lent(&self) {
        self.read.borrow_mut().clear();
        for extent in self.lent.borrow_mut().drain(..) {
            self.home.pages.lend_close(extent);
            crate::sync::point!("lend.closed");
        }
    }
}

/// Does a reply of this kind say why there is no value?
fn is_failure(kind: u8) -> bool {
    ![kind::VALUE, kind::SPAWN, kind::TIMED].contains(&kind)
}

/// What a job changes is nothing else that it has: two such references to one byte are undefined behaviour.
fn apart(extent: Extent, others: &[Extent]) -> Result<(), Unreachable> {
    match others.iter().find(|other| other.overlaps(&extent)) {
        None => Ok(()),
        Some(other) => Err(Unreachable(format!(
            "{} bytes at {} are changed by this job, and it has {} bytes at {} beside them",
            extent.len, extent.at, other.len, other.at
        ))),
    }
}

#[allow(unsafe_code, reason = "the trait is unsafe to implement")]
// SAFETY: `pointer` and `lend_open` resolve within mapped regions, which stay mapped for the life of
// the process; lent pages are open until `close_lent` at the end of the job.
unsafe impl Host for Lane {
    fn read(&self, extent: Extent) -> Result<NonNull<u8>, Unreachable> {
        let view = self.home.view;
        let ptr = view
            .pointer(extent)
            .map_err(|error| Unreachable(error.to_string()))?;
        apart(extent, &self.lent.borrow())?;
        self.read.borrow_mut().push(extent);
        Ok(ptr)
    }

    fn lend(&self, extent: Extent, behind: u64) -> Result<NonNull<u8>, Unreachable> {
        let opened = extent.extended_by_pages(behind);
        apart(opened, &self.lent.borrow())?;
        apart(opened, &self.read.borrow())?;
        let pages = &self.home.pages;
        let ptr = pages
            .lend_open(opened)
            .map_err(|error| Unreachable(error.to_string()))?;
        self.lent.borrow_mut().push(opened);
        crate::sync::point!("lend.opened");
        Ok(ptr)
    }

    fn count(&self) -> &'static LaneCount {
        self.count
    }

    fn step(&self, at: u32, seed: u64) -> bool {
        self.cells.note_step(at);
        let consumer = self.consumer.borrow();
        if let Some(position) = consumer.claimed() {
            self.reseeded.set((position, seed));
            self.drawn.set((position, Made::default()));
        }
        consumer.is_cancelled()
    }

    fn alloc(&self, len: usize) -> Result<LaneChunk, ArenaFull> {
        LaneMemory::alloc(self, len, crate::arena::BlockPlacement::Packed)
    }
}
