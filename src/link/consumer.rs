//! The worker's handle on a link: [`Consumer`].

use std::sync::Arc;

use super::cells::{
    BACKLOG, CallSlot, FIRST_LINE, FRESH, GRANTS, INLINE_WORDS, LOW_SHIFT, LinkCells,
    REFUSAL_WORDS, RELEASES, SLOTS, SPILLED, SPIN, STEALABLE, STOP,
};
use super::producer::Reply;
use super::state::{Claim, Finished, Generation, ReplyIn};
use super::{futex, kind, span};
use crate::sync::{Ordering, fence};

/// Result of [`Consumer::next`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    /// A job is claimed: read it with [`Consumer::call`], end it with [`Consumer::finish`].
    Run,
    /// No job is posted.
    Empty,
    /// No job is posted, and none will be: the lane must stop.
    Stop,
}

/// A range of the worker's own region in which the lane may allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Number of the grant, counted from the creation of the link.
    pub(crate) number: u32,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Whether the bytes are known to be zero.
    pub(crate) fresh: bool,
}

/// The reply to an allocation request.
#[derive(Debug)]
pub(crate) enum AllocAnswer {
    Granted(Granted),
    /// The arena has no room. The words are the numbers of an `ArenaFull`.
    Refused([u64; REFUSAL_WORDS]),
}

/// Used instead of a grant number if the reply reports no use of memory. Grant numbers have 32 bits.
pub(crate) const NO_GRANT: u64 = u64::MAX;

/// A reply to write: head, position in a grant, and the words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutgoingReply<'a> {
    pub(crate) kind: u8,
    pub(crate) arrays: u16,
    /// The number of arrays that the lane retains.
    pub(crate) retained: u32,
    pub(crate) spilled: bool,
    pub(crate) len: u32,
    /// Number of the grant that `cursor` is in, or [`NO_GRANT`].
    pub(crate) grant: u64,
    pub(crate) cursor: u64,
    pub(crate) words: &'a [u64],
}

impl OutgoingReply<'_> {
    /// Whether the reply is a value of one word, and reports no use of memory.
    #[inline]
    fn is_one_word(&self) -> bool {
        self.kind == kind::VALUE
            && self.words.len() == 1
            && self.arrays == 0
            && self.retained == 0
            && !self.spilled
            && self.grant == NO_GRANT
    }
}

/// The worker's handle on a link. One per lane, used only by its thread.
#[derive(Debug)]
pub(crate) struct Consumer<const N: usize = SLOTS> {
    cells: Arc<LinkCells<N>>,
    /// Number of the next job to claim, or of the claimed job.
    position: u64,
    /// Whether the job at `position` is claimed and not finished.
    claimed: bool,
    /// Number of the last sleep.
    sleeps: u32,
    /// The number of the monitor's last sleep for which this lane has signalled it.
    signalled: u32,
    /// The number of grants taken.
    taken: u32,
    /// The number of allocation requests made.
    alloc_requests: u32,
    /// The number of released arrays reported.
    released: u32,
    /// Whether released arrays are left to report, for which there was no room.
    has_unreported: bool,
}

impl<const N: usize> Consumer<N> {
    /// Creates the only consumer of this link. `position` and `taken` are the producer's present counts of posted jobs
    /// and of grants.
    pub(crate) fn new(cells: Arc<LinkCells<N>>, position: u64, taken: u32) -> Self {
        Self {
            cells,
            position,
            claimed: false,
            sleeps: 0,
            signalled: 0,
            taken,
            alloc_requests: 0,
            released: 0,
            has_unreported: false,
        }
    }

    fn generation(&self) -> Generation {
        Generation::of(self.position, N)
    }

    /// Claims the next job, if one is posted.
    #[inline]
    pub(crate) fn next(&mut self) -> Next {
        loop {
            match self.cells.state(self.position).claim(self.generation()) {
                Claim::Run => {
                    self.claimed = true;
                    self.cells.prefetch_next_call(self.position);
                    crate::sync::point!("claim.taken");
                    return Next::Run;
                }
                Claim::Retracted => {
                    crate::sync::point!("claim.retracted");
                    self.cells.state(self.position).pass(self.generation());
                    crate::sync::point!("claim.passed");
                    self.position += 1;
                }
                Claim::Empty => {
                    // Acquire: "posted before STOP", pairs with `Producer::set_flags`.
                    let flags = self.cells.post().flags.load(Ordering::Acquire);
                    if flags & STOP == 0 {
                        return Next::Empty;
                    }
                    // A job posted before the flag was set is visible now.
                    if !self.cells.state(self.position).is_live(self.generation()) {
                        return Next::Stop;
                    }
                }
            }
        }
    }

    /// Copies the call of the claimed job.
    #[inline]
    pub(crate) fn call(&self) -> CallSlot {
        debug_assert!(self.claimed);
        let slot = &self.cells.post().slots[LinkCells::<N>::index(self.position)];
        slot.with(|slot| {
            // SAFETY: `next` has claimed this job, so the supervisor does not write its slot before `finish`. Other
            // workers map the slot read-only.
            let slot = unsafe { &*slot };
            let mut args = [0; INLINE_WORDS];
            // With few arguments, the common case, the second cache line of the slot is not read from the supervisor's
            // core.
            if slot.len as usize <= FIRST_LINE || slot.form & SPILLED != 0 {
                args[..FIRST_LINE].copy_from_slice(&slot.args[..FIRST_LINE]);
            } else {
                args = slot.args;
            }
            CallSlot { args, ..*slot }
        })
    }

    /// The position of the claimed job.
    pub(crate) fn claimed(&self) -> Option<u64> {
        self.claimed.then_some(self.position)
    }

    /// Records the time at which the kernel of the claimed job is entered, or, if `ended`, was left.
    pub(crate) fn stamp(&self, at: u64, ended: bool) {
        let cell = &self.cells.reply().stamps[LinkCells::<N>::index(self.position)];
        let field = if ended { &cell.ended } else { &cell.began };
        // Relaxed: published by `finish`, or by the exit of the worker.
        field.store(at, Ordering::Relaxed);
    }

    /// Records that the claimed job is timed from `at` on. Stores a number made from its position too, because the cell
    /// may have the stamps of an older job. At the end of a traced job its second stamp overwrites the number.
    pub(crate) fn begin_timed(&self, at: u64) {
        let cell = &self.cells.reply().stamps[LinkCells::<N>::index(self.position)];
        cell.began.store(at, Ordering::Relaxed);
        // Release: "timed", pairs with the load in `Producer::timed_since`.
        cell.ended
            .store(LinkCells::<N>::tag(self.position), Ordering::Release);
    }

    /// Whether the claimed job is cancelled. False while no job is claimed.
    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.claimed
            && self
                .cells
                .state(self.position)
                .is_cancelled(self.generation())
    }

    /// Ends the claimed job and wakes the threads that sleep on it. If this returns true, the caller must signal the
    /// monitor.
    #[inline]
    pub(crate) fn finish(
        &mut self,
        failed: bool,
        took_ns: u64,
        answer: Option<&OutgoingReply<'_>>,
    ) -> bool {
        let index = LinkCells::<N>::index(self.position);
        let reply = self.cells.reply();
        let cell = &reply.states[index];
        let reply_in = match answer {
            None => ReplyIn::Nothing,
            Some(answer) if answer.is_one_word() && !failed => ReplyIn::Cell,
            Some(_) => ReplyIn::Slot,
        };
        if let (Some(answer), ReplyIn::Cell) = (answer, reply_in) {
            cell.word.store(answer.words[0], Ordering::Relaxed);
        } else if let Some(answer) = answer {
            debug_assert!(answer.words.len() <= INLINE_WORDS);
            let slot = &reply.replies[index];
            let head = Reply::head(answer.kind, answer.arrays, answer.spilled, answer.len);
            slot.head.store(head, Ordering::Relaxed);
            slot.grant.store(answer.grant, Ordering::Relaxed);
            slot.cursor.store(answer.cursor, Ordering::Relaxed);
            slot.retained
                .store(answer.retained.into(), Ordering::Relaxed);
            for (to, from) in slot.words.iter().zip(answer.words) {
                to.store(*from, Ordering::Relaxed);
            }
        }
        cell.took.store(span::pack(took_ns), Ordering::Relaxed);
        crate::sync::point!("publish.filled");
        let Finished { wake, notice } = cell.state.finish(self.generation(), failed, reply_in);
        crate::sync::point!("complete.stored");
        let woken = wake && futex::wake(cell.state.as_futex()) > 0;
        crate::sync::point!("complete.woken");
        self.position += 1;
        self.claimed = false;
        self.must_signal_monitor(notice, woken)
    }

    /// Whether to signal the monitor: it sleeps, was not signalled for this sleep, and there is a reason. Reasons are
    /// `notice`, and a lane that runs dry while no thread was `woken`: a woken thread refills the lanes.
    #[inline]
    fn must_signal_monitor(&mut self, notice: bool, woken: bool) -> bool {
        let post = self.cells.post();
        let flags = post.flags.load(Ordering::Relaxed);
        let low = flags & BACKLOG != 0 && !self.is_posted_ahead(u64::from(flags >> LOW_SHIFT));
        (notice || low && !woken) && self.claim_monitor_signal()
    }

    /// Whether the job `ahead` positions after the current one is posted. A hint.
    fn is_posted_ahead(&self, ahead: u64) -> bool {
        let position = self.position + ahead;
        self.cells
            .state(position)
            .is_queued(Generation::of(position, N))
    }

    /// Returns true if the monitor sleeps and this lane has not signalled it for this sleep. The caller must then
    /// signal it.
    pub(crate) fn claim_monitor_signal(&mut self) -> bool {
        // SeqCst fence: "finished, then looked for the sleeping monitor", pairs with `Hub::arm`.
        fence(Ordering::SeqCst);
        let armed = self.cells.hub().armed.load(Ordering::Relaxed);
        if armed == 0 || armed == self.signalled {
            return false;
        }
        self.signalled = armed;
        true
    }

    /// The core of the thread that last waited for a reply or woke a lane. A hint.
    pub(crate) fn waiter_core(&self) -> u32 {
        self.cells.hub().waiter_core.load(Ordering::Relaxed)
    }

    /// Whether this lane may spin for a moment before it sleeps.
    #[inline]
    pub(crate) fn may_spin(&self) -> bool {
        self.cells.post().flags.load(Ordering::Relaxed) & SPIN != 0
    }

    /// Whether other jobs exist that this lane could run: queued in the supervisor, or posted to other lanes. Called
    /// before a sleep.
    pub(crate) fn work_elsewhere(&self) -> bool {
        // SeqCst fence: "finished, then looked for BACKLOG", pairs with `fence_after_queueing`.
        fence(Ordering::SeqCst);
        self.cells.post().flags.load(Ordering::Relaxed) & (BACKLOG | STEALABLE) != 0
    }

    /// Whether the lane must not sleep: `next` would not return `Empty`, or released arrays are left to report and
    /// there is room.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.cells.state(self.position).is_live(self.generation())
            // Acquire: "posted before STOP", pairs with `Producer::set_flags`.
            || self.cells.post().flags.load(Ordering::Acquire) & STOP != 0
            || self.may_report_more()
    }

    /// Whether released arrays are left to report, and there is room now.
    #[inline]
    pub(crate) fn may_report_more(&self) -> bool {
        self.has_unreported && self.is_release_ring_open()
    }

    fn is_release_ring_open(&self) -> bool {
        // Acquire: "report read", pairs with `Producer::take_releases`.
        let taken = self.cells.post().releases_taken.load(Ordering::Acquire);
        (self.released.wrapping_sub(taken) as usize) < RELEASES
    }

    /// Whether there is room to report a released array. If not, records that a report is left to make:
    /// [`has_work`](Self::has_work) returns true once the supervisor has read earlier reports.
    pub(crate) fn has_room_for_release(&mut self) -> bool {
        self.has_unreported = !self.is_release_ring_open();
        !self.has_unreported
    }

    /// Reports that no handle to a retained array is left. The caller has checked that there is room.
    pub(crate) fn report_release(&mut self, number: u64) {
        debug_assert!(self.is_release_ring_open());
        let reply = self.cells.reply();
        reply.releases[self.released as usize % RELEASES].store(number, Ordering::Relaxed);
        crate::sync::point!("release.filled");
        self.released = self.released.wrapping_add(1);
        // Release: "report filled", pairs with `Producer::released`.
        reply.released.store(self.released, Ordering::Release);
        crate::sync::point!("release.reported");
    }

    /// Sleeps until there is work. May return early.
    pub(crate) fn sleep(&mut self) {
        let rings = self.announce_sleep();
        crate::sync::point!("claim.announced");
        if !self.has_work() {
            futex::wait(&self.cells.post().doorbell, rings, None);
        }
        crate::sync::point!("claim.woken");
        self.end_sleep();
    }

    /// Announces a sleep and returns the value of the doorbell to sleep on. The caller must check `has_work` again
    /// before it sleeps.
    fn announce_sleep(&mut self) -> u32 {
        // Acquire: "posted, then rung", pairs with `Producer::ring`.
        let rings = self.cells.post().doorbell.load(Ordering::Acquire);
        self.sleeps = self.sleeps.wrapping_add(1).max(1);
        let asleep = &self.cells.reply().asleep;
        asleep.store(self.sleeps, Ordering::Relaxed);
        // SeqCst fence: "announced, then looked again", pairs with `Producer::ring`.
        fence(Ordering::SeqCst);
        rings
    }

    fn end_sleep(&self) {
        self.cells.reply().asleep.store(0, Ordering::Relaxed);
    }

    /// Takes the next grant, if there is one.
    pub(crate) fn next_grant(&mut self) -> Option<Granted> {
        let post = self.cells.post();
        // Acquire: "grant cell filled", pairs with `Producer::grant`.
        if post.granted.load(Ordering::Acquire) == self.taken {
            return None;
        }
        let cell = &post.grants[self.taken as usize % GRANTS];
        let len = cell.len.load(Ordering::Relaxed);
        let granted = Granted {
            number: self.taken,
            offset: cell.offset.load(Ordering::Relaxed),
            len: len & !FRESH,
            fresh: len & FRESH != 0,
        };
        crate::sync::point!("allocate.read");
        self.taken = self.taken.wrapping_add(1);
        // Release: "grant cell read", pairs with `Producer::grant`, which may then fill the cell again.
        self.cells
            .reply()
            .grants_taken
            .store(self.taken, Ordering::Release);
        Some(granted)
    }

    /// Requests output memory. The caller signals the monitor, then calls [`Consumer::await_grant`].
    pub(crate) fn request_alloc(&mut self, bytes: u64, now: u64) {
        self.alloc_requests = self.alloc_requests.wrapping_add(1).max(1);
        let reply = self.cells.reply();
        reply.alloc_bytes.store(bytes, Ordering::Relaxed);
        reply.alloc_requested_at.store(now, Ordering::Relaxed);
        // Release: "alloc_bytes written", pairs with `Producer::alloc_request`.
        reply
            .alloc_requests
            .store(self.alloc_requests, Ordering::Release);
    }

    /// Sleeps until the allocation request is granted or refused.
    pub(crate) fn await_grant(&mut self) -> AllocAnswer {
        loop {
            if let Some(granted) = self.next_grant() {
                return AllocAnswer::Granted(granted);
            }
            let post = self.cells.post();
            // Acquire: "refusal written", pairs with `Producer::answer_alloc`.
            if post.refused.load(Ordering::Acquire) == self.alloc_requests {
                return AllocAnswer::Refused(std::array::from_fn(|i| {
                    post.refusal[i].load(Ordering::Relaxed)
                }));
            }
            self.sleep_for_grant();
        }
    }

    fn sleep_for_grant(&mut self) {
        let rings = self.announce_sleep();
        let post = self.cells.post();
        if post.granted.load(Ordering::Acquire) == self.taken
            && post.refused.load(Ordering::Acquire) != self.alloc_requests
        {
            futex::wait(&post.doorbell, rings, None);
        }
        self.end_sleep();
    }
}
