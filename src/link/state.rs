//! The state word of a slot: its phases, and the transitions between them.
//!
//! The table of transitions, who makes them and what they pair with is in the README of this floor.

use crate::sync::{AtomicU32, Ordering};

/// A thread of the supervisor sleeps on this word.
pub(crate) const WAITER: u32 = 1 << 3;
/// Somebody waits elsewhere: the monitor has to hear of the end of this job.
pub(crate) const NOTICE: u32 = 1 << 4;
/// The caller gave up; a kernel may ask and return early.
pub(crate) const CANCEL: u32 = 1 << 5;
/// The job answered with nothing: there is no reply to read.
pub(crate) const BARE: u32 = 1 << 6;
/// The job answered with one word, which lies beside this one.
pub(crate) const LONE: u32 = 1 << 7;

const PHASE: u32 = 0b111;
const GENERATION_SHIFT: u32 = 8;
const REQUESTS: u32 = WAITER | NOTICE | CANCEL;

/// How many bits of a lap number the word carries.
pub(crate) const GENERATION_BITS: u32 = 32 - GENERATION_SHIFT;

/// Where a job stands. Fresh memory says 0, which is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Phase {
    Queued = 1,
    Running = 2,
    Done = 3,
    Failed = 4,
    Retracted = 5,
    Skipped = 6,
}

/// The lap on which a job uses its slot, as far as the word can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// The generation of job number `position` in a table of `slots`.
    #[inline]
    pub(crate) fn of(position: u64, slots: usize) -> Self {
        Self(((position / slots as u64) as u32) & ((1 << GENERATION_BITS) - 1))
    }
}

/// One reading of a state word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u32);

impl Word {
    #[inline]
    fn new(phase: Phase, generation: Generation, bits: u32) -> Self {
        Self(phase as u32 | bits | (generation.0 << GENERATION_SHIFT))
    }

    #[inline]
    fn is(self, phase: Phase, generation: Generation) -> bool {
        self.0 & PHASE == phase as u32 && self.0 >> GENERATION_SHIFT == generation.0
    }

    #[inline]
    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = [
            "Free",
            "Queued",
            "Running",
            "Done",
            "Failed",
            "Retracted",
            "Skipped",
            "?",
        ][(self.0 & PHASE) as usize];
        write!(f, "{phase}@{}", self.0 >> GENERATION_SHIFT)?;
        for (bit, name) in [
            (WAITER, "WAITER"),
            (NOTICE, "NOTICE"),
            (CANCEL, "CANCEL"),
            (BARE, "BARE"),
            (LONE, "LONE"),
        ] {
            if self.has(bit) {
                write!(f, "+{name}")?;
            }
        }
        Ok(())
    }
}

/// Where the reply of a job lies that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyIn {
    /// There is none.
    Nothing,
    /// Its only word is in the state cell.
    Cell,
    /// In the reply slot.
    Slot,
}

impl ReplyIn {
    #[inline]
    fn bits(self) -> u32 {
        match self {
            Self::Nothing => BARE,
            Self::Cell => LONE,
            Self::Slot => 0,
        }
    }

    #[inline]
    fn of(word: Word) -> Self {
        if word.has(BARE) {
            Self::Nothing
        } else if word.has(LONE) {
            Self::Cell
        } else {
            Self::Slot
        }
    }
}

/// What the worker finds at its next slot.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Claim {
    /// The job is this worker's now: run it.
    Run,
    /// The supervisor took it back: pass over it.
    Retracted,
    /// Nothing posted yet.
    Empty,
}

/// Whom the worker has to tell that a job ended.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Finished {
    /// A thread sleeps on the word.
    pub(crate) wake: bool,
    /// The monitor wants to hear of it.
    pub(crate) notice: bool,
}

/// What became of the attempt to take a job back.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Retract {
    /// It will not run. `wake`: a thread sleeps on the word.
    Taken {
        /// A thread sleeps on the word.
        wake: bool,
    },
    /// It runs, or has ended.
    TooLate,
}

/// What became of a request bit.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Ask {
    /// The bit is set; the word now reads so.
    Set(u32),
    /// The job has left `Queued` and `Running`: look at the record.
    Over,
}

/// What the supervisor finds at its oldest open slot.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Look {
    /// Queued, running, or retracted and not yet passed.
    Open,
    /// Ended well.
    Done(ReplyIn),
    /// Ended badly; the reply says how.
    Failed,
    /// Retracted and passed.
    Skipped,
    /// Nothing that can follow from what was posted.
    Fault(Word),
}

/// A state word in the reply half of a link.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct StateWord(AtomicU32);

impl StateWord {
    #[cfg(any(test, arenite_loom))]
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The word as a place to sleep.
    #[inline]
    pub(crate) fn place_to_sleep(&self) -> &AtomicU32 {
        &self.0
    }

    /// Supervisor: the call slot is filled; the worker may have it.
    #[inline]
    pub(crate) fn post(&self, generation: Generation, requests: u32) {
        debug_assert_eq!(requests & !REQUESTS, 0);
        // Release: "call slot filled", pairs with `claim`.
        self.0.store(
            Word::new(Phase::Queued, generation, requests).0,
            Ordering::Release,
        );
    }

    /// Worker: take the job, if there is one.
    #[inline]
    pub(crate) fn claim(&self, generation: Generation) -> Claim {
        // Relaxed: only a first look; the exchange below acquires.
        let mut seen = Word(self.0.load(Ordering::Relaxed));
        loop {
            if seen.is(Phase::Retracted, generation) {
                return Claim::Retracted;
            }
            if !seen.is(Phase::Queued, generation) {
                return Claim::Empty;
            }
            let running = Word::new(Phase::Running, generation, seen.0 & REQUESTS);
            // Acquire: "call slot filled", pairs with `post`. Excludes `retract`.
            match self.0.compare_exchange_weak(
                seen.0,
                running.0,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Claim::Run,
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Worker: a retracted job is behind us.
    #[inline]
    pub(crate) fn pass(&self, generation: Generation) {
        // Release: "the worker will not look at this slot again", pairs with `look`.
        self.0.store(
            Word::new(Phase::Skipped, generation, 0).0,
            Ordering::Release,
        );
    }

    /// Supervisor, after the exit of the worker: as in fresh memory, whatever the worker left here.
    pub(crate) fn clear(&self) {
        // Relaxed: only a sleeper compares it, with a phase that it read before; the record was updated under the core
        // lock, and the next worker starts after its spawn.
        self.0.store(0, Ordering::Relaxed);
    }

    /// Worker: the reply is where this says; that of a failure is in the slot.
    #[inline]
    pub(crate) fn finish(
        &self,
        generation: Generation,
        failed: bool,
        reply_in: ReplyIn,
    ) -> Finished {
        let phase = if failed { Phase::Failed } else { Phase::Done };
        let word = Word::new(phase, generation, reply_in.bits());
        // Release: "reply filled", pairs with `look`. Acquire: the requests of `ask`.
        let before = Word(self.0.swap(word.0, Ordering::AcqRel));
        Finished {
            wake: before.has(WAITER),
            notice: before.has(NOTICE),
        }
    }

    /// Supervisor: take the job back if it has not begun.
    pub(crate) fn retract(&self, generation: Generation) -> Retract {
        let mut seen = Word(self.0.load(Ordering::Relaxed));
        loop {
            if !seen.is(Phase::Queued, generation) {
                return Retract::TooLate;
            }
            let word = Word::new(Phase::Retracted, generation, 0);
            // Relaxed: nothing is published by it; excludes `claim`.
            match self
                .0
                .compare_exchange_weak(seen.0, word.0, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => {
                    return Retract::Taken {
                        wake: seen.has(WAITER),
                    };
                }
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Supervisor: add a request to a job that has not ended.
    pub(crate) fn ask(&self, generation: Generation, request: u32) -> Ask {
        debug_assert_eq!(request & !REQUESTS, 0);
        // Acquire: "over", pairs with `finish` and `pass`: whoever drains now finds it, and all before it.
        let mut seen = Word(self.0.load(Ordering::Acquire));
        loop {
            if !seen.is(Phase::Queued, generation) && !seen.is(Phase::Running, generation) {
                return Ask::Over;
            }
            let word = seen.0 | request;
            // Release: "somebody waits", pairs with the swap in `finish`.
            match self
                .0
                .compare_exchange_weak(seen.0, word, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ask::Set(word),
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Supervisor: how does the oldest open job stand?
    #[inline]
    pub(crate) fn look(&self, generation: Generation) -> Look {
        // Acquire: "reply filled", pairs with `finish`; "passed", pairs with `pass`.
        let word = Word(self.0.load(Ordering::Acquire));
        if word.0 >> GENERATION_SHIFT != generation.0 {
            return Look::Fault(word);
        }
        const DONE: u32 = Phase::Done as u32;
        const FAILED: u32 = Phase::Failed as u32;
        const SKIPPED: u32 = Phase::Skipped as u32;
        const QUEUED: u32 = Phase::Queued as u32;
        const RUNNING: u32 = Phase::Running as u32;
        const RETRACTED: u32 = Phase::Retracted as u32;
        match word.0 & PHASE {
            DONE => Look::Done(ReplyIn::of(word)),
            FAILED => Look::Failed,
            SKIPPED => Look::Skipped,
            QUEUED | RUNNING | RETRACTED => Look::Open,
            _ => Look::Fault(word),
        }
    }

    /// Is this job posted and not begun? A hint, while a worker lives.
    #[inline]
    pub(crate) fn is_queued(&self, generation: Generation) -> bool {
        Word(self.0.load(Ordering::Relaxed)).is(Phase::Queued, generation)
    }

    /// Worker: does the running job have the request to end?
    #[inline]
    pub(crate) fn is_cancelled(&self, generation: Generation) -> bool {
        // Relaxed: a request that stands for itself.
        let word = Word(self.0.load(Ordering::Relaxed));
        word.is(Phase::Running, generation) && word.has(CANCEL)
    }

    /// Worker: would a look find something, a job or a retracted one?
    #[inline]
    pub(crate) fn is_live(&self, generation: Generation) -> bool {
        // Acquire: pairs with what posts or retracts it.
        let word = Word(self.0.load(Ordering::Acquire));
        word.is(Phase::Queued, generation) || word.is(Phase::Retracted, generation)
    }
}

/// Is the job at this position queued or running, as its state word reads now? For a thread that
/// spins on the word without holding the link.
#[inline]
pub(crate) fn is_open(word: &AtomicU32, position: u64, slots: usize) -> bool {
    let generation = Generation::of(position, slots);
    // Relaxed: only a hint; whoever believes it drains under the lock.
    let word = Word(word.load(Ordering::Relaxed));
    word.is(Phase::Queued, generation) || word.is(Phase::Running, generation)
}
