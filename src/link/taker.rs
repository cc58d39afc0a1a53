//! The worker's side of a link.

use std::sync::Arc;

use super::cells::{
    CallSlot, FIRST_LINE, FRESH, GRANTS, INLINE_WORDS, LOW_SHIFT, LinkCells, MORE, REFUSAL_WORDS,
    SLOTS, SPARE, SPILLED, SPIN, STOP,
};
use super::poster::Reply;
use super::state::{Claim, Finished, Generation, ReplyIn};
use super::{doorbell, kind, span};
use crate::sync::{Ordering, fence};

/// What a lane finds when it looks for work.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    /// A job is claimed; read it with [`Taker::call`], end it with [`Taker::finish`].
    Run,
    /// Nothing posted.
    Empty,
    /// Nothing posted, and nothing will be.
    Stop,
}

/// A range of the worker's own region to allocate from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// Number of the grant, counted from the start of the link.
    pub(crate) number: u32,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Known to be zero.
    pub(crate) fresh: bool,
}

/// What came of waiting for output memory.
#[derive(Debug)]
pub(crate) enum Answer {
    Granted(Granted),
    /// No room; the numbers of the arena's refusal.
    Refused([u64; REFUSAL_WORDS]),
}

/// In place of the number of a grant: a reply says nothing of memory. No number of a grant comes so far.
pub(crate) const NO_GRANT: u64 = u64::MAX;

/// What the lane sends back: head, grant position and the words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answering<'a> {
    pub(crate) kind: u8,
    pub(crate) arrays: u16,
    pub(crate) spilled: bool,
    pub(crate) len: u32,
    /// Number of the grant, or [`NO_GRANT`].
    pub(crate) grant: u64,
    pub(crate) cursor: u64,
    pub(crate) words: &'a [u64],
}

impl Answering<'_> {
    /// A value of one word, and nothing to say of memory.
    #[inline]
    fn is_one_word(&self) -> bool {
        self.kind == kind::VALUE
            && self.words.len() == 1
            && self.arrays == 0
            && !self.spilled
            && self.grant == NO_GRANT
    }
}

/// The worker's handle on a link. One per lane, used by its thread only.
#[derive(Debug)]
pub(crate) struct Taker<const N: usize = SLOTS> {
    cells: Arc<LinkCells<N>>,
    /// Number of the next job to look at.
    position: u64,
    /// The job at `position` is this lane's, until `finish`.
    claimed: bool,
    /// Number of the last sleep.
    sleeps: u32,
    /// The last sleep of the monitor that was rung.
    rung: u32,
    /// Grants taken.
    taken: u32,
    /// Wants made.
    wants: u32,
}

impl<const N: usize> Taker<N> {
    /// The one taker of this link, beginning where the supervisor's posting stood.
    pub(crate) fn new(cells: Arc<LinkCells<N>>, position: u64, taken: u32) -> Self {
        Self {
            cells,
            position,
            claimed: false,
            sleeps: 0,
            rung: 0,
            taken,
            wants: 0,
        }
    }

    fn generation(&self) -> Generation {
        Generation::of(self.position, N)
    }

    /// Looks for the next job and claims it.
    #[inline]
    pub(crate) fn next(&mut self) -> Next {
        loop {
            match self.cells.state(self.position).claim(self.generation()) {
                Claim::Run => {
                    self.claimed = true;
                    self.cells.expect(self.position);
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
                    // Acquire: pairs with `Poster::set_flags`.
                    let flags = self.cells.post().flags.load(Ordering::Acquire);
                    if flags & STOP == 0 {
                        return Next::Empty;
                    }
                    // What was posted before the flag was set is seen now.
                    if !self.cells.state(self.position).is_live(self.generation()) {
                        return Next::Stop;
                    }
                }
            }
        }
    }

    /// A copy of the job that was claimed.
    #[inline]
    pub(crate) fn call(&self) -> CallSlot {
        debug_assert!(self.claimed);
        let slot = &self.cells.post().slots[LinkCells::<N>::index(self.position)];
        slot.with(|slot| {
            // SAFETY: `next` claimed this job, so the supervisor does not write its slot before `finish`.
            let slot = unsafe { &*slot };
            let mut args = [0; INLINE_WORDS];
            // Mostly few: then the slot's second cache line stays where it is.
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

    /// The kernel of the claimed job is about to be entered, or has just been left.
    pub(crate) fn stamp(&self, at: u64, ended: bool) {
        let cell = &self.cells.reply().stamps[LinkCells::<N>::index(self.position)];
        let field = if ended { &cell.ended } else { &cell.began };
        // Relaxed: finish publishes it, or the worker's exit does.
        field.store(at, Ordering::Relaxed);
    }

    /// Has somebody asked the claimed job to end? False while there is none.
    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.claimed
            && self
                .cells
                .state(self.position)
                .is_cancelled(self.generation())
    }

    /// Ends the claimed job. Wakes whoever sleeps on it; the caller rings the monitor when this
    /// returns true.
    #[inline]
    pub(crate) fn finish(
        &mut self,
        failed: bool,
        took_ns: u64,
        answer: Option<&Answering<'_>>,
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
            for (to, from) in slot.words.iter().zip(answer.words) {
                to.store(*from, Ordering::Relaxed);
            }
        }
        cell.took.store(span::pack(took_ns), Ordering::Relaxed);
        crate::sync::point!("publish.filled");
        let Finished { wake, notice } = cell.state.finish(self.generation(), failed, reply_in);
        crate::sync::point!("complete.said");
        let woken = wake && doorbell::wake(cell.state.place_to_sleep()) > 0;
        crate::sync::point!("complete.woken");
        self.position += 1;
        self.claimed = false;
        self.must_ring(notice, woken)
    }

    /// Is there a reason to ring the monitor, and does it sleep unrung? A thread that was `woken` gives out what waits in the queue
    /// itself.
    #[inline]
    fn must_ring(&mut self, notice: bool, woken: bool) -> bool {
        let post = self.cells.post();
        let flags = post.flags.load(Ordering::Relaxed);
        let low = flags & MORE != 0 && !self.is_posted_ahead(u64::from(flags >> LOW_SHIFT));
        (notice || low && !woken) && self.monitor_sleeps()
    }

    /// Is there a job `ahead` positions on? A hint.
    fn is_posted_ahead(&self, ahead: u64) -> bool {
        let position = self.position + ahead;
        self.cells
            .state(position)
            .is_queued(Generation::of(position, N))
    }

    /// Does the monitor sleep, and was it not rung for this sleep? Then it counts as rung.
    pub(crate) fn monitor_sleeps(&mut self) -> bool {
        // SeqCst fence: "finished, then looked for the sleeping monitor", pairs with the one after
        // arming.
        fence(Ordering::SeqCst);
        let armed = self.cells.hub().armed.load(Ordering::Relaxed);
        if armed == 0 || armed == self.rung {
            return false;
        }
        self.rung = armed;
        true
    }

    /// The core of the thread that waits for this lane, as far as it said.
    pub(crate) fn waiter_core(&self) -> u32 {
        self.cells.hub().waiter_core.load(Ordering::Relaxed)
    }

    /// May this lane spin for a moment?
    #[inline]
    pub(crate) fn may_spin(&self) -> bool {
        self.cells.post().flags.load(Ordering::Relaxed) & SPIN != 0
    }

    /// Are there jobs that this lane could have, kept by the supervisor or posted to others? Asked
    /// before a sleep.
    pub(crate) fn more(&self) -> bool {
        // SeqCst fence: "finished, then looked for MORE", pairs with `after_keeping`.
        fence(Ordering::SeqCst);
        self.cells.post().flags.load(Ordering::Relaxed) & (MORE | SPARE) != 0
    }

    /// Is there something to look at?
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.cells.state(self.position).is_live(self.generation())
            // Acquire: pairs with what sets it.
            || self.cells.post().flags.load(Ordering::Acquire) & STOP != 0
    }

    /// Sleeps until there is something to look at.
    pub(crate) fn sleep(&mut self) {
        let bell = &self.cells.post().bell;
        // Acquire: "posted, then rung", pairs with `Poster::ring`.
        let heard = bell.load(Ordering::Acquire);
        self.sleeps = self.sleeps.wrapping_add(1).max(1);
        let asleep = &self.cells.reply().asleep;
        asleep.store(self.sleeps, Ordering::Relaxed);
        // SeqCst fence: "announced, then looked again", pairs with the one in `Poster::ring`.
        fence(Ordering::SeqCst);
        crate::sync::point!("claim.announced");
        if !self.has_work() {
            doorbell::wait(bell, heard, None);
        }
        crate::sync::point!("claim.woken");
        asleep.store(0, Ordering::Relaxed);
    }

    /// The next grant, if one was given ahead.
    pub(crate) fn next_grant(&mut self) -> Option<Granted> {
        let post = self.cells.post();
        // Acquire: "grant cell filled", pairs with `Poster::grant`.
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
        // Release: "grant cell read", pairs with `Poster::grant`, which may fill it again.
        self.cells
            .reply()
            .taken
            .store(self.taken, Ordering::Release);
        Some(granted)
    }

    /// Asks for output memory. The caller rings the monitor, then calls [`Taker::await_grant`].
    pub(crate) fn want(&mut self, bytes: u64, now: u64) {
        self.wants = self.wants.wrapping_add(1).max(1);
        let reply = self.cells.reply();
        reply.want_bytes.store(bytes, Ordering::Relaxed);
        reply.wanted_at.store(now, Ordering::Relaxed);
        // Release: "want_bytes written", pairs with `Poster::wanted`.
        reply.wants.store(self.wants, Ordering::Release);
    }

    /// Sleeps until the want is answered.
    pub(crate) fn await_grant(&mut self) -> Answer {
        loop {
            if let Some(granted) = self.next_grant() {
                return Answer::Granted(granted);
            }
            let post = self.cells.post();
            // Acquire: "refusal written", pairs with `Poster::answer_want`.
            if post.refused.load(Ordering::Acquire) == self.wants {
                return Answer::Refused(std::array::from_fn(|i| {
                    post.refusal[i].load(Ordering::Relaxed)
                }));
            }
            self.sleep_for_grant();
        }
    }

    fn sleep_for_grant(&mut self) {
        let bell = &self.cells.post().bell;
        // Acquire: as in `sleep`.
        let heard = bell.load(Ordering::Acquire);
        self.sleeps = self.sleeps.wrapping_add(1).max(1);
        let asleep = &self.cells.reply().asleep;
        asleep.store(self.sleeps, Ordering::Relaxed);
        // SeqCst fence: as in `sleep`.
        fence(Ordering::SeqCst);
        let post = self.cells.post();
        if post.granted.load(Ordering::Acquire) == self.taken
            && post.refused.load(Ordering::Acquire) != self.wants
        {
            doorbell::wait(bell, heard, None);
        }
        asleep.store(0, Ordering::Relaxed);
    }
}
