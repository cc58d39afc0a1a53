//! The supervisor's side of a link.

use std::sync::Arc;

use super::cells::{FRESH, GRANTS, INLINE_WORDS, LinkCells, REFUSAL_WORDS, SLOTS};
use super::state::{Ask, Generation, Look, ReplyIn, Retract};
use super::{NO_GRANT, doorbell, kind, span};
use crate::sync::{Ordering, fence};

/// What to post: the head of a call slot and its argument words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) job: u64,
    pub(crate) entry: u64,
    /// Words of arguments.
    pub(crate) len: u32,
    /// `SPILLED`: `words` names a block that holds them. `STAMPED`: see [`Poster::stamps`].
    pub(crate) form: u32,
    /// Which random numbers it draws.
    pub(crate) seed: u64,
    /// At most [`INLINE_WORDS`].
    pub(crate) words: &'a [u64],
    /// Request bits that somebody already asked for.
    pub(crate) requests: u32,
}

/// A reply, copied out of shared memory once and not yet checked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reply {
    /// A value of [`super::kind`].
    pub(crate) kind: u8,
    /// Array descriptors at the beginning of the words.
    pub(crate) arrays: u16,
    /// The words name a block of the worker's region that holds the rest.
    pub(crate) spilled: bool,
    /// Words of the reply.
    pub(crate) len: u32,
    /// Number of the grant in which `cursor` lies.
    pub(crate) grant: u64,
    /// Offset in the worker's region up to which that grant is used.
    pub(crate) cursor: u64,
    /// The words, or where they are.
    pub(crate) words: [u64; INLINE_WORDS],
}

impl Reply {
    /// A value of one word, and no memory.
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
            words,
        }
    }

    /// Packs kind, array count, spill flag and length into the head word.
    pub(super) fn head(kind: u8, arrays: u16, spilled: bool, len: u32) -> u64 {
        u64::from(kind) | u64::from(arrays) << 8 | u64::from(spilled) << 24 | u64::from(len) << 32
    }
}

/// One step of draining.
#[derive(Debug)]
#[must_use]
pub(crate) enum Drained {
    /// The oldest open job has not ended (or there is none).
    Nothing,
    /// It ended, well or badly; the reply buffer is filled unless `bare`.
    Ended {
        position: u64,
        failed: bool,
        bare: bool,
        took_ns: u64,
    },
    /// It was retracted (the caller knows whether that is true), and the worker has passed it.
    Skipped { position: u64 },
    /// The worker wrote what it cannot have meant.
    Fault(String),
}

/// After the supervisor kept a job and set `MORE`, before it looks once more for what has ended.
pub(crate) fn after_keeping() {
    // SeqCst fence: "MORE set, then looked", pairs with the one in `Taker::more`. Without the look a
    // lane that ran dry just before would sleep beside the job.
    fence(Ordering::SeqCst);
}

/// A lane waits for output memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Which of the lane's wants this is; its answer names it.
    number: u32,
    pub(crate) bytes: u64,
}

/// The supervisor's handle on a link: posts, drains, grants. One per link, used under the engine's
/// core lock.
#[derive(Debug)]
pub(crate) struct Poster<const N: usize = SLOTS> {
    cells: Arc<LinkCells<N>>,
    /// Number of the next job to post.
    tail: u64,
    /// Number of the oldest job that is not drained.
    head: u64,
    /// The last sleep of the worker that was rung.
    rung: u32,
    /// Grants given.
    granted: u32,
    /// Wants that were answered.
    answered: u32,
    /// The flags as last written.
    flags: u32,
}

impl<const N: usize> Poster<N> {
    /// The one poster of this link.
    pub(crate) fn new(cells: Arc<LinkCells<N>>) -> Self {
        Self {
            cells,
            tail: 0,
            head: 0,
            rung: 0,
            granted: 0,
            answered: 0,
            flags: 0,
        }
    }

    /// Number of the next job to post; where a new worker begins.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// Grants given so far; where a new worker begins.
    pub(crate) fn granted(&self) -> u32 {
        self.granted
    }

    /// Jobs posted and not drained.
    #[inline]
    pub(crate) fn open(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// Positions of the jobs posted and not drained, oldest first.
    pub(crate) fn open_positions(&self) -> std::ops::Range<u64> {
        self.head..self.tail
    }

    /// Slots that are free.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        N - self.open()
    }

    /// Posts a job and returns its position. The worker may sleep: call [`Poster::ring`] after the
    /// last one of a batch.
    #[inline]
    pub(crate) fn post(&mut self, call: &Call<'_>) -> u64 {
        debug_assert!(self.room() > 0 && call.words.len() <= INLINE_WORDS);
        let position = self.tail;
        let index = LinkCells::<N>::index(position);
        self.cells.post().slots[index].with_mut(|slot| {
            // SAFETY: this position was drained one lap ago (`room`), so its state word is not
            // live and the worker does not read the slot until `post` below; there is one poster.
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

    /// Wakes the worker if it sleeps and was not rung for this sleep. True if it cost a wake-up.
    #[inline]
    pub(crate) fn ring(&mut self) -> bool {
        // SeqCst fence: "posted, then looked for a sleeper", pairs with the fence in `Taker::sleep`.
        fence(Ordering::SeqCst);
        self.ring_early()
    }

    /// The same without the fence, which waits until what was posted has left this core: may overlook a worker that is about to
    /// sleep. So [`Poster::ring`] has to follow, once for many jobs; this only lets a worker that sleeps already begin sooner.
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
        let bell = &self.cells.post().bell;
        // Release: "posted, then rung", pairs with the look at the bell before a sleep: a worker that has heard this ring sees
        // what was posted, and does not sleep on it. One early ring is all that this sleep gets.
        bell.fetch_add(1, Ordering::Release);
        doorbell::wake(bell);
    }

    /// Is the worker asleep, as far as it says?
    #[inline]
    pub(crate) fn seems_asleep(&self) -> bool {
        self.cells.reply().asleep.load(Ordering::Relaxed) != 0
    }

    /// Sets the lane's flags (`STOP`, `SPIN`, `MORE`), writing only on a change.
    #[inline]
    pub(crate) fn set_flags(&mut self, flags: u32) {
        if flags != self.flags {
            self.flags = flags;
            // Release: "whatever led to it", pairs with the load in `Taker`.
            self.cells.post().flags.store(flags, Ordering::Release);
        }
    }

    /// The flags as last set.
    pub(crate) fn flags(&self) -> u32 {
        self.flags
    }

    /// Looks at the oldest open job; fills `reply` when it ended with one.
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
            bare: reply_in == ReplyIn::Nothing,
            took_ns,
        }
    }

    /// Each word is read once; a worker that writes now spoils only the value.
    fn copy_reply(&self, index: usize, reply: &mut Reply) {
        let slot = &self.cells.reply().replies[index];
        let head = slot.head.load(Ordering::Relaxed);
        reply.kind = head as u8;
        reply.arrays = (head >> 8) as u16;
        reply.spilled = (head >> 24) & 1 == 1;
        reply.len = (head >> 32) as u32;
        reply.grant = slot.grant.load(Ordering::Relaxed);
        reply.cursor = slot.cursor.load(Ordering::Relaxed);
        let used = if reply.spilled { 2 } else { reply.len as usize };
        for (to, from) in reply.words.iter_mut().zip(&slot.words).take(used) {
            *to = from.load(Ordering::Relaxed);
        }
    }

    /// When the kernel of this job was entered and left, as far as the worker says. For jobs that were posted as
    /// `STAMPED`, after their end or that of their worker; what an older job left there may come instead.
    pub(crate) fn stamps(&self, position: u64) -> (u64, u64) {
        let cell = &self.cells.reply().stamps[LinkCells::<N>::index(position)];
        // Relaxed: the state word was read before, or the worker is gone.
        let (began, ended) = (&cell.began, &cell.ended);
        (began.load(Ordering::Relaxed), ended.load(Ordering::Relaxed))
    }

    /// When the present want was made, as far as the worker says.
    pub(crate) fn wanted_at(&self) -> u64 {
        self.cells.reply().wanted_at.load(Ordering::Relaxed)
    }

    /// Takes a queued job back.
    pub(crate) fn retract(&mut self, position: u64) -> Retract {
        self.cells
            .state(position)
            .retract(Generation::of(position, N))
    }

    /// Adds a request to a job that has not ended.
    pub(crate) fn ask(&self, position: u64, request: u32) -> Ask {
        self.cells
            .state(position)
            .ask(Generation::of(position, N), request)
    }

    /// Gives output memory to the lane; false when as many grants as it can hold are on their way,
    /// as far as it says. A worker that lies spoils cells that only it reads.
    pub(crate) fn grant(&mut self, offset: u64, len: u64, fresh: bool) -> bool {
        // Acquire: "grant cell read", pairs with `Taker::next_grant`.
        let taken = self.cells.reply().taken.load(Ordering::Acquire);
        if self.granted.wrapping_sub(taken) as usize >= GRANTS {
            return false;
        }
        let cell = &self.cells.post().grants[self.granted as usize % GRANTS];
        cell.offset.store(offset, Ordering::Relaxed);
        cell.len
            .store(len | if fresh { FRESH } else { 0 }, Ordering::Relaxed);
        self.granted = self.granted.wrapping_add(1);
        crate::sync::point!("grant.filled");
        // Release: "grant cell filled", pairs with `Taker::next_grant`.
        self.cells
            .post()
            .granted
            .store(self.granted, Ordering::Release);
        crate::sync::point!("grant.given");
        true
    }

    /// What the lane waits for, if it does.
    pub(crate) fn wanted(&self) -> Option<Want> {
        // Acquire: "want_bytes written", pairs with `Taker::want`.
        let number = self.cells.reply().wants.load(Ordering::Acquire);
        (number != self.answered).then(|| Want {
            number,
            bytes: self.cells.reply().want_bytes.load(Ordering::Relaxed),
        })
    }

    /// This want is answered, by a grant or by a refusal with these numbers. If the lane has helped
    /// itself to another grant and wants something else by now, that is still to be answered.
    pub(crate) fn answer_want(&mut self, want: Want, refusal: Option<[u64; REFUSAL_WORDS]>) {
        self.answered = want.number;
        if let Some(words) = refusal {
            for (to, from) in self.cells.post().refusal.iter().zip(words) {
                to.store(from, Ordering::Relaxed);
            }
            // Release: "refusal written", pairs with `Taker::await_grant`.
            self.cells
                .post()
                .refused
                .store(want.number, Ordering::Release);
        }
        self.ring();
    }

    /// The worker is gone and every record is in order: whoever sleeps on a word of this link looks at
    /// its record, and the next worker begins at `tail`.
    pub(crate) fn start_over(&mut self) {
        // All of them. The next worker must not take for a job what this one may have written beyond its own; a thread may be
        // on its way to sleep here with a value that it read before; and a job may have been taken whose worker died between
        // finishing and waking.
        for cell in &self.cells.reply().states {
            cell.state.clear();
            doorbell::wake(cell.state.place_to_sleep());
        }
        self.head = self.tail;
        let reply = self.cells.reply();
        // Relaxed: no worker is there to read; the next one starts after its spawn.
        reply.asleep.store(0, Ordering::Relaxed);
        reply.wants.store(0, Ordering::Relaxed);
        reply.taken.store(self.granted, Ordering::Relaxed);
        reply.denied.store(0, Ordering::Relaxed);
        reply.fell.store(0, Ordering::Relaxed);
        #[cfg(not(arenite_loom))]
        self.cells.goes_to_sleep();
        #[cfg(not(arenite_loom))]
        reply.abort.clear();
        self.cells.post().refused.store(0, Ordering::Relaxed);
        self.answered = 0;
        self.rung = 0;
        self.set_flags(0);
    }

    /// After the exit of the worker: had it not begun this job?
    pub(crate) fn is_queued(&self, position: u64) -> bool {
        self.cells
            .state(position)
            .is_queued(Generation::of(position, N))
    }

    /// The cells, for whoever sleeps on a state word or wakes a sleeper.
    pub(crate) fn cells(&self) -> &Arc<LinkCells<N>> {
        &self.cells
    }
}
