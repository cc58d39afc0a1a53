//! The supervisor's handle on a link: [`Producer`].

use std::sync::Arc;

use super::cells::{FRESH, GRANTS, INLINE_WORDS, LinkCells, REFUSAL_WORDS, RELEASES, SLOTS};
#[cfg(feature = "points")]
use super::state::GENERATION_BITS;
use super::state::{Ask, Generation, Look, ReplyIn, Retract};
use super::{NO_GRANT, futex, kind, span};
use crate::sync::{Ordering, fence};

/// A call to post: the head of a call slot and its argument words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) job: u64,
    pub(crate) entry: u64,
    /// The number of argument words.
    pub(crate) len: u32,
    /// Bits: with [`SPILLED`](super::cells::SPILLED), `words` names a block that contains the arguments; for
    /// [`STAMPED`](super::cells::STAMPED) see [`Producer::stamps`].
    pub(crate) form: u32,
    /// Seed of the job's random numbers.
    pub(crate) seed: u64,
    /// At most [`INLINE_WORDS`] words.
    pub(crate) words: &'a [u64],
    /// Request bits that the state word has from the start.
    pub(crate) requests: u32,
}

/// A reply, copied out of shared memory once and not yet checked. Every field is a claim of the worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reply {
    /// A value of [`super::kind`].
    pub(crate) kind: u8,
    /// The number of array descriptors at the beginning of the words.
    pub(crate) arrays: u16,
    /// Whether the words name a block of the worker's region that contains the reply.
    pub(crate) spilled: bool,
    /// The number of words of the reply.
    pub(crate) len: u32,
    /// Number of the grant that contains `cursor`.
    pub(crate) grant: u64,
    /// Offset in the worker's region up to which the grant is used.
    pub(crate) cursor: u64,
    /// The number of extents of retained arrays, which follow the array descriptors in the words.
    pub(crate) retained: u64,
    /// The words, or the extent of the block that contains them.
    pub(crate) words: [u64; INLINE_WORDS],
}

impl Reply {
    /// A reply of one word that reports no use of memory.
    #[inline]
    fn of_one(word: u64) -> Self {
        let mut words = [0; INLINE_WORDS];
        words[0] = word;
        Self {
            kind: kind::VALUE,
            arrays: 0,
            spilled: false,
            len: 1,
            grant: NO_GRANT,
            cursor: 0,
            retained: 0,
            words,
        }
    }

    /// Packs kind, array count, spill flag and length into the head word.
    pub(super) fn head(kind: u8, arrays: u16, spilled: bool, len: u32) -> u64 {
        u64::from(kind) | u64::from(arrays) << 8 | u64::from(spilled) << 24 | u64::from(len) << 32
    }
}

/// Result of [`Producer::drain`] for the oldest open job.
#[derive(Debug)]
#[must_use]
pub(crate) enum Drained {
    /// The job has not ended, or no job is open.
    Nothing,
    /// The job has ended.
    Ended {
        position: u64,
        failed: bool,
        /// Whether the job has no reply: then the reply buffer is unchanged.
        is_empty: bool,
        took_ns: u64,
    },
    /// The job was retracted (the caller checks that), and the worker has passed its slot.
    Skipped { position: u64 },
    /// The worker wrote an impossible value.
    Fault(String),
}

/// Orders the store of `BACKLOG` before a drain. Call it when a job was queued and `BACKLOG` was set, before the lanes
/// are drained once more.
pub(crate) fn fence_after_queueing() {
    // SeqCst fence: "BACKLOG set, then looked", pairs with `Consumer::work_elsewhere`. Without it, a lane that has just
    // finished its last job could sleep although the job is queued.
    fence(Ordering::SeqCst);
}

/// A request of a lane for output memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AllocRequest {
    /// The number of the request in the lane. A refusal names it.
    number: u32,
    pub(crate) bytes: u64,
}

/// The supervisor's handle on a link: posts, drains, grants. One per link, used under the engine's lock.
#[derive(Debug)]
pub(crate) struct Producer<const N: usize = SLOTS> {
    cells: Arc<LinkCells<N>>,
    /// Number of the next job to post.
    tail: u64,
    /// Number of the oldest job that is not drained.
    head: u64,
    /// Number of the worker's last sleep for which the doorbell was rung.
    rung: u32,
    /// The number of grants given.
    granted: u32,
    /// Number of the last allocation request that was granted or refused.
    answered: u32,
    /// The flags as last written.
    flags: u32,
    /// The number of reports of released arrays that were read.
    releases_taken: u32,
}

impl<const N: usize> Producer<N> {
    /// Creates the only producer of this link.
    pub(crate) fn new(cells: Arc<LinkCells<N>>) -> Self {
        Self {
            cells,
            tail: 0,
            head: 0,
            rung: 0,
            granted: 0,
            answered: 0,
            flags: 0,
            releases_taken: 0,
        }
    }

    /// Lets positions and grants begin shortly before they wrap instead of at 0, so that test suites cover the wrap.
    /// Call it only on fresh cells without a worker.
    #[cfg(feature = "points")]
    pub(crate) fn begin_near_wrap(&mut self) {
        self.tail = ((1 << GENERATION_BITS) - 1) * N as u64 - 3;
        self.head = self.tail;
        self.granted = crate::sync::FIRST_COUNT;
        // Relaxed: the first worker reads them after it was spawned.
        let (post, reply) = (self.cells.post(), self.cells.reply());
        post.granted.store(self.granted, Ordering::Relaxed);
        reply.grants_taken.store(self.granted, Ordering::Relaxed);
    }

    /// Number of the next job to post, from which a new worker begins.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// The number of grants given, from which a new worker begins.
    pub(crate) fn granted(&self) -> u32 {
        self.granted
    }

    /// The number of jobs posted and not drained.
    #[inline]
    pub(crate) fn open(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// Positions of the jobs posted and not drained, oldest first.
    pub(crate) fn open_positions(&self) -> std::ops::Range<u64> {
        self.head..self.tail
    }

    /// The number of free slots.
    #[inline]
    pub(crate) fn free_slots(&self) -> usize {
        N - self.open()
    }

    /// Posts a job and returns its position. The worker may be asleep: call [`Producer::ring_posted`] after the last
    /// job of a batch.
    #[inline]
    pub(crate) fn post(&mut self, call: &Call<'_>) -> u64 {
        debug_assert!(self.free_slots() > 0 && call.words.len() <= INLINE_WORDS);
        let position = self.tail;
        let index = LinkCells::<N>::index(position);
        self.cells.post().slots[index].with_mut(|slot| {
            // SAFETY: the job that used this slot before is drained (`free_slots`), so its state word is not live and
            // the worker does not read the slot before `post` below. Workers map it read-only, and there is one
            // producer.
            unsafe {
                (*slot).job = call.job;
                (*slot).entry = call.entry;
                (*slot).len = call.len;
                (*slot).form = call.form;
                (*slot).seed = call.seed;
                let args = &mut (*slot).args;
                args[..call.words.len()].copy_from_slice(call.words);
            }
        });
        crate::sync::point!("submit.filled");
        self.cells
            .state(position)
            .post(Generation::of(position, N), call.requests);
        crate::sync::point!("submit.posted");
        self.tail += 1;
        position
    }

    /// Rings the doorbell if the worker sleeps and was not rung for this sleep. Returns whether it rang.
    #[inline]
    pub(crate) fn ring(&mut self) -> bool {
        // SeqCst fence: "posted, then looked for a sleeper", pairs with `Consumer::announce_sleep`.
        fence(Ordering::SeqCst);
        self.ring_early()
    }

    /// Like [`Producer::ring`], but rings only while a posted job is unclaimed. After an early ring the worker may have
    /// claimed all posted jobs and gone back to sleep; then it need not be woken.
    #[inline]
    pub(crate) fn ring_posted(&mut self) -> bool {
        // SeqCst fence: as in `ring`.
        fence(Ordering::SeqCst);
        let asleep = self.cells.reply().asleep.load(Ordering::Relaxed);
        asleep != 0 && asleep != self.rung && self.has_queued() && self.ring_early()
    }

    /// Whether a posted job is unclaimed.
    #[cold]
    fn has_queued(&self) -> bool {
        // Relaxed: posted under the same lock, so no value older than `Queued` is read.
        (self.head..self.tail).any(|position| {
            let generation = Generation::of(position, N);
            self.cells.state(position).is_queued(generation)
        })
    }

    /// Like [`Producer::ring`], but without the fence, which waits until the store buffer is empty. May miss a worker
    /// that is about to sleep, so `ring_posted` must follow, once for all jobs of a batch. The early ring lets a worker
    /// that already sleeps begin sooner.
    #[inline]
    pub(crate) fn ring_early(&mut self) -> bool {
        let asleep = self.cells.reply().asleep.load(Ordering::Relaxed);
        if asleep == 0 || asleep == self.rung {
            return false;
        }
        self.rung = asleep;
        self.ring_cold();
        true
    }

    #[cold]
    fn ring_cold(&self) {
        let doorbell = &self.cells.post().doorbell;
        // Release: "posted, then rung", pairs with the load of the doorbell in `Consumer::sleep`: a worker that sees
        // this ring sees the posted job and does not sleep. No second ring follows an early one for the same sleep.
        doorbell.fetch_add(1, Ordering::Release);
        #[cfg(not(arenite_loom))]
        self.cells
            .hub()
            .set_waiter_core(crate::sys::cores::current());
        futex::wake(doorbell);
    }

    /// Whether the worker claims to be asleep.
    #[inline]
    pub(crate) fn seems_asleep(&self) -> bool {
        self.cells.reply().asleep.load(Ordering::Relaxed) != 0
    }

    /// Sets the lane's flags. Writes them only if they differ from the last ones.
    #[inline]
    pub(crate) fn set_flags(&mut self, flags: u32) {
        if flags != self.flags {
            self.flags = flags;
            // Release: "posted before STOP", pairs with `Consumer::next` and `Consumer::has_work`.
            self.cells.post().flags.store(flags, Ordering::Release);
        }
    }

    /// The flags as last set.
    pub(crate) fn flags(&self) -> u32 {
        self.flags
    }

    /// Removes the oldest open job if it has ended. Fills `reply` if the job has a reply.
    #[inline]
    pub(crate) fn drain(&mut self, reply: &mut Reply) -> Drained {
        if self.head == self.tail {
            return Drained::Nothing;
        }
        let position = self.head;
        let index = LinkCells::<N>::index(position);
        let cell = &self.cells.reply().states[index];
        let (failed, reply_in) = match cell.state.look(Generation::of(position, N)) {
            Look::Open => return Drained::Nothing,
            Look::Done(reply_in) => (false, reply_in),
            Look::Failed => (true, ReplyIn::Slot),
            Look::Skipped => {
                self.head += 1;
                return Drained::Skipped { position };
            }
            Look::Fault(word) => {
                return Drained::Fault(format!("slot {index} reads {word:?} for job {position}"));
            }
        };
        let took_ns = span::unpack(cell.took.load(Ordering::Relaxed));
        match reply_in {
            ReplyIn::Nothing => {}
            ReplyIn::Cell => *reply = Reply::of_one(cell.word.load(Ordering::Relaxed)),
            ReplyIn::Slot => self.copy_reply(index, reply),
        }
        self.head += 1;
        Drained::Ended {
            position,
            failed,
            is_empty: reply_in == ReplyIn::Nothing,
            took_ns,
        }
    }

    /// Copies a reply, reading each word once. A worker that writes meanwhile only makes the copy a wrong value.
    fn copy_reply(&self, index: usize, reply: &mut Reply) {
        let slot = &self.cells.reply().replies[index];
        let head = slot.head.load(Ordering::Relaxed);
        reply.kind = head as u8;
        reply.arrays = (head >> 8) as u16;
        reply.spilled = (head >> 24) & 1 == 1;
        reply.len = (head >> 32) as u32;
        reply.grant = slot.grant.load(Ordering::Relaxed);
        reply.cursor = slot.cursor.load(Ordering::Relaxed);
        reply.retained = slot.retained.load(Ordering::Relaxed);
        let used = if reply.spilled { 2 } else { reply.len as usize };
        for (to, from) in reply.words.iter_mut().zip(&slot.words).take(used) {
            *to = from.load(Ordering::Relaxed);
        }
    }

    /// Returns the times at which the kernel of the job was entered and left, as claimed by the worker. Call it for
    /// `STAMPED` jobs only, after the end of the job or the exit of its worker. May return the stamps of an older job.
    pub(crate) fn stamps(&self, position: u64) -> (u64, u64) {
        let cell = &self.cells.reply().stamps[LinkCells::<N>::index(position)];
        // Relaxed: the state word was read before, or the worker has exited.
        let (began, ended) = (&cell.began, &cell.ended);
        (began.load(Ordering::Relaxed), ended.load(Ordering::Relaxed))
    }

    /// The time at which the job called `begin_timed`, as claimed by the worker, in monotonic nanoseconds. `None` if
    /// the job has not called it: each attempt of a job has a position of its own.
    pub(crate) fn timed_since(&self, position: u64) -> Option<u64> {
        let cell = &self.cells.reply().stamps[LinkCells::<N>::index(position)];
        // Acquire: "timed", pairs with the store in `Consumer::begin_timed`.
        let of = cell.ended.load(Ordering::Acquire);
        (of == LinkCells::<N>::tag(position)).then(|| cell.began.load(Ordering::Relaxed))
    }

    /// The time of the current allocation request, as claimed by the worker.
    pub(crate) fn alloc_requested_at(&self) -> u64 {
        self.cells
            .reply()
            .alloc_requested_at
            .load(Ordering::Relaxed)
    }

    /// Retracts a job that is not claimed.
    pub(crate) fn retract(&mut self, position: u64) -> Retract {
        self.cells
            .state(position)
            .retract(Generation::of(position, N))
    }

    /// Adds a request bit to a job that has not ended.
    pub(crate) fn ask(&self, position: u64, request: u32) -> Ask {
        self.cells
            .state(position)
            .ask(Generation::of(position, N), request)
    }

    /// Grants output memory to the lane. Returns false if the lane has [`GRANTS`] unread grants. The worker claims how
    /// many it has read; if it claims too many, this call overwrites unread cells, which harms that worker alone.
    pub(crate) fn grant(&mut self, offset: u64, len: u64, fresh: bool) -> bool {
        // Acquire: "grant cell read", pairs with `Consumer::next_grant`.
        let taken = self.cells.reply().grants_taken.load(Ordering::Acquire);
        if self.granted.wrapping_sub(taken) as usize >= GRANTS {
            return false;
        }
        let cell = &self.cells.post().grants[self.granted as usize % GRANTS];
        cell.offset.store(offset, Ordering::Relaxed);
        cell.len
            .store(len | if fresh { FRESH } else { 0 }, Ordering::Relaxed);
        self.granted = self.granted.wrapping_add(1);
        crate::sync::point!("grant.filled");
        // Release: "grant cell filled", pairs with `Consumer::next_grant`.
        self.cells
            .post()
            .granted
            .store(self.granted, Ordering::Release);
        crate::sync::point!("grant.given");
        true
    }

    /// The allocation request that the lane waits for, if any.
    pub(crate) fn alloc_request(&self) -> Option<AllocRequest> {
        // Acquire: "alloc_bytes written", pairs with `Consumer::request_alloc`.
        let number = self.cells.reply().alloc_requests.load(Ordering::Acquire);
        (number != self.answered).then(|| AllocRequest {
            number,
            bytes: self.cells.reply().alloc_bytes.load(Ordering::Relaxed),
        })
    }

    /// Marks the request as answered: by an earlier grant, or by this refusal. If the lane has found another grant and
    /// made a later request meanwhile, that request stays unanswered.
    pub(crate) fn answer_alloc(
        &mut self,
        request: AllocRequest,
        refusal: Option<[u64; REFUSAL_WORDS]>,
    ) {
        self.answered = request.number;
        if let Some(words) = refusal {
            for (to, from) in self.cells.post().refusal.iter().zip(words) {
                to.store(from, Ordering::Relaxed);
            }
            // Release: "refusal written", pairs with `Consumer::await_grant`.
            self.cells
                .post()
                .refused
                .store(request.number, Ordering::Release);
        }
        self.ring();
    }

    /// The number of reports of released arrays that the worker claims to have made. A report may concern an array that
    /// an earlier reply retains, so drain the lane between this call and [`Producer::take_releases`].
    pub(crate) fn released(&self) -> u32 {
        // Acquire: "report filled", pairs with `Consumer::report_release`.
        self.cells.reply().released.load(Ordering::Acquire)
    }

    /// Reads the reports up to number `upto`, and wakes the lane if it may wait for room. Returns false if the worker
    /// claims more reports than there are cells.
    pub(crate) fn take_releases(&mut self, upto: u32, mut take: impl FnMut(u64)) -> bool {
        let before = self.releases_taken;
        let unread = upto.wrapping_sub(before) as usize;
        if unread == 0 || unread > RELEASES {
            return unread == 0;
        }
        let reply = self.cells.reply();
        for report in 0..unread as u32 {
            let cell = before.wrapping_add(report) as usize % RELEASES;
            take(reply.releases[cell].load(Ordering::Relaxed));
        }
        self.releases_taken = upto;
        // Release: "report read", pairs with `Consumer::is_release_ring_open`.
        self.cells
            .post()
            .releases_taken
            .store(upto, Ordering::Release);
        crate::sync::point!("release.taken");
        // SeqCst fence: "made room, then looked for a lane that found none", pairs with `Consumer::announce_sleep`.
        fence(Ordering::SeqCst);
        let released = reply.released.load(Ordering::Relaxed);
        if released.wrapping_sub(before) as usize >= RELEASES {
            self.ring();
        }
        true
    }

    /// Resets the link after the exit of its worker, when the record of every job is updated. Threads that sleep on a
    /// word of this link wake and read the records of their jobs again. The next worker begins at `tail`.
    pub(crate) fn reset(&mut self) {
        // Clears and wakes all words, not only those of open jobs: the worker may have written to any of them; a thread
        // may be about to sleep on a value that it read before; and the worker may have died after it finished a job,
        // which was then drained, and before it woke the waiter.
        for cell in &self.cells.reply().states {
            cell.state.clear();
            futex::wake(cell.state.as_futex());
        }
        self.head = self.tail;
        let reply = self.cells.reply();
        // Relaxed: no worker runs; the next worker reads them after it was spawned.
        reply.asleep.store(0, Ordering::Relaxed);
        reply.alloc_requests.store(0, Ordering::Relaxed);
        reply.grants_taken.store(self.granted, Ordering::Relaxed);
        reply.released.store(0, Ordering::Relaxed);
        reply.denied.store(0, Ordering::Relaxed);
        reply.culprit_lane.store(0, Ordering::Relaxed);
        #[cfg(not(arenite_loom))]
        self.cells.set_asleep(0);
        #[cfg(not(arenite_loom))]
        reply.abort.clear();
        #[cfg(not(arenite_loom))]
        reply.crash.clear();
        self.cells.post().refused.store(0, Ordering::Relaxed);
        self.cells.post().releases_taken.store(0, Ordering::Relaxed);
        self.answered = 0;
        self.releases_taken = 0;
        self.rung = 0;
        self.set_flags(0);
    }

    /// After the exit of the worker: whether the job was still unclaimed.
    pub(crate) fn is_queued(&self, position: u64) -> bool {
        self.cells
            .state(position)
            .is_queued(Generation::of(position, N))
    }

    /// The cells, for threads that sleep on a state word or wake its sleepers.
    pub(crate) fn cells(&self) -> &Arc<LinkCells<N>> {
        &self.cells
    }
}
