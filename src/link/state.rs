//! The state word of a slot: its phases, and the transitions between them.
//!
//! The table of transitions, with the side that makes each and what it pairs with, is in the README of `link`.

use crate::sync::{AtomicU32, Ordering};

/// A thread of the supervisor sleeps on this word: the worker wakes the thread at the job's end.
pub(crate) const WAITER: u32 = 1 << 3;
/// A future or a set of jobs waits for this job: the worker signals the monitor at the job's end.
pub(crate) const NOTICE: u32 = 1 << 4;
/// The job was cancelled. Its kernel may poll this bit and return early.
pub(crate) const CANCEL: u32 = 1 << 5;
/// The job has no reply: its value is `()`.
pub(crate) const EMPTY: u32 = 1 << 6;
/// The reply of the job is one word, stored next to the state word.
pub(crate) const ONE_WORD: u32 = 1 << 7;

const PHASE: u32 = 0b111;
const GENERATION_SHIFT: u32 = 8;
const REQUESTS: u32 = WAITER | NOTICE | CANCEL;

/// The number of bits of the generation (lap number) in the word.
pub(crate) const GENERATION_BITS: u32 = 32 - GENERATION_SHIFT;

/// The phase of a job. Fresh memory contains 0, which is no phase.
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

/// The lap on which a job uses its slot, modulo 2^[`GENERATION_BITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// The generation of job number `position` in a table of `slots`.
    #[inline]
    pub(crate) fn of(position: u64, slots: usize) -> Self {
        Self(((position / slots as u64) as u32) & ((1 << GENERATION_BITS) - 1))
    }
}

/// A value read from a state word.
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
            (EMPTY, "EMPTY"),
            (ONE_WORD, "ONE_WORD"),
        ] {
            if self.has(bit) {
                write!(f, "+{name}")?;
            }
        }
        Ok(())
    }
}

/// Where the reply of a successful job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyIn {
    /// There is no reply.
    Nothing,
    /// In the state cell: one word.
    Cell,
    /// In the reply slot.
    Slot,
}

impl ReplyIn {
    #[inline]
    fn bits(self) -> u32 {
        match self {
            Self::Nothing => EMPTY,
            Self::Cell => ONE_WORD,
            Self::Slot => 0,
        }
    }

    #[inline]
    fn of(word: Word) -> Self {
        if word.has(EMPTY) {
            Self::Nothing
        } else if word.has(ONE_WORD) {
            Self::Cell
        } else {
            Self::Slot
        }
    }
}

/// Result of [`StateWord::claim`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Claim {
    /// The job belongs to this worker now: run it.
    Run,
    /// The supervisor has retracted the job: pass its slot.
    Retracted,
    /// No job is posted yet.
    Empty,
}

/// What the worker must do after [`StateWord::finish`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Finished {
    /// Wake the threads that sleep on the word.
    pub(crate) wake: bool,
    /// Signal the monitor.
    pub(crate) notice: bool,
}

/// Result of [`StateWord::retract`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Retract {
    /// The job will not run.
    Taken {
        /// Whether a thread sleeps on the word.
        wake: bool,
    },
    /// The job runs, or has ended.
    TooLate,
}

/// Result of [`StateWord::ask`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Ask {
    /// The bit is set. This is the new value of the word.
    Set(u32),
    /// The job is no longer `Queued` or `Running`: read its record.
    Over,
}

/// The state of the oldest open job, from [`StateWord::look`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Look {
    /// Queued, running, or retracted and not yet passed by the worker.
    Open,
    /// Succeeded.
    Done(ReplyIn),
    /// Failed. The reply has the reason.
    Failed,
    /// Retracted, and passed by the worker.
    Skipped,
    /// A value that no transition from the posted word reaches.
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

    /// The word as a futex, on which threads sleep.
    #[inline]
    pub(crate) fn as_futex(&self) -> &AtomicU32 {
        &self.0
    }

    /// Supervisor: publishes the filled call slot to the worker.
    #[inline]
    pub(crate) fn post(&self, generation: Generation, requests: u32) {
        debug_assert_eq!(requests & !REQUESTS, 0);
        // Release: "call slot filled", pairs with `claim`.
        self.0.store(
            Word::new(Phase::Queued, generation, requests).0,
            Ordering::Release,
        );
    }

    /// Worker: claims the job, if one is posted.
    #[inline]
    pub(crate) fn claim(&self, generation: Generation) -> Claim {
        // Relaxed: the exchange below acquires.
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

    /// Worker: marks the slot of a retracted job as passed, so that the supervisor may reuse it.
    #[inline]
    pub(crate) fn pass(&self, generation: Generation) {
        // Release: "passed": the worker does not read this slot again; pairs with `look`.
        self.0.store(
            Word::new(Phase::Skipped, generation, 0).0,
            Ordering::Release,
        );
    }

    /// Supervisor, after the exit of the worker: resets the word to its value in fresh memory.
    pub(crate) fn clear(&self) {
        // Relaxed: only threads that go to sleep compare the word, with values that they read before; the records of
        // their jobs were updated under the engine's lock. The next worker reads the word only after it was spawned.
        self.0.store(0, Ordering::Relaxed);
    }

    /// Worker: ends the running job. `reply_in` is the location of its reply; the reply of a failed job is always in
    /// the slot.
    #[inline]
    pub(crate) fn finish(
        &self,
        generation: Generation,
        failed: bool,
        reply_in: ReplyIn,
    ) -> Finished {
        let phase = if failed { Phase::Failed } else { Phase::Done };
        let word = Word::new(phase, generation, reply_in.bits());
        // Release: "reply filled", pairs with `look`. Acquire: "a thread waits", pairs with `ask`.
        let before = Word(self.0.swap(word.0, Ordering::AcqRel));
        Finished {
            wake: before.has(WAITER),
            notice: before.has(NOTICE),
        }
    }

    /// Supervisor: retracts the job if it is not claimed.
    pub(crate) fn retract(&self, generation: Generation) -> Retract {
        let mut seen = Word(self.0.load(Ordering::Relaxed));
        loop {
            if !seen.is(Phase::Queued, generation) {
                return Retract::TooLate;
            }
            let word = Word::new(Phase::Retracted, generation, 0);
            // Relaxed: publishes nothing. Excludes `claim`.
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

    /// Supervisor: adds a request bit to a job that has not ended.
    pub(crate) fn ask(&self, generation: Generation, request: u32) -> Ask {
        debug_assert_eq!(request & !REQUESTS, 0);
        // Acquire: "over", pairs with `finish` and `pass`: a later drain finds that this job and earlier jobs have
        // ended.
        let mut seen = Word(self.0.load(Ordering::Acquire));
        loop {
            if !seen.is(Phase::Queued, generation) && !seen.is(Phase::Running, generation) {
                return Ask::Over;
            }
            let word = seen.0 | request;
            // Release: "a thread waits", pairs with the swap in `finish`.
            match self
                .0
                .compare_exchange_weak(seen.0, word, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ask::Set(word),
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Supervisor: reads the state of the oldest open job.
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

    /// Whether the job is posted and not claimed. A hint while the worker lives.
    #[inline]
    pub(crate) fn is_queued(&self, generation: Generation) -> bool {
        Word(self.0.load(Ordering::Relaxed)).is(Phase::Queued, generation)
    }

    /// Worker: whether the running job is cancelled.
    #[inline]
    pub(crate) fn is_cancelled(&self, generation: Generation) -> bool {
        // Relaxed: the bit publishes nothing else.
        let word = Word(self.0.load(Ordering::Relaxed));
        word.is(Phase::Running, generation) && word.has(CANCEL)
    }

    /// Worker: whether `claim` would find a posted or retracted job.
    #[inline]
    pub(crate) fn is_live(&self, generation: Generation) -> bool {
        // Acquire: pairs with `post`.
        let word = Word(self.0.load(Ordering::Acquire));
        word.is(Phase::Queued, generation) || word.is(Phase::Retracted, generation)
    }
}

/// Whether the state word of the job at `position` says queued or running. For threads that spin on the word without
/// the engine's lock.
#[inline]
pub(crate) fn is_open(word: &AtomicU32, position: u64, slots: usize) -> bool {
    let generation = Generation::of(position, slots);
    // Relaxed: a hint; the caller then drains under the lock.
    let word = Word(word.load(Ordering::Relaxed));
    word.is(Phase::Queued, generation) || word.is(Phase::Running, generation)
}

/// Whether the state word of the job at `position` says running. A hint: the worker may change it at any time.
#[inline]
pub(crate) fn is_running(word: &AtomicU32, position: u64, slots: usize) -> bool {
    // Relaxed: a hint.
    let word = Word(word.load(Ordering::Relaxed));
    word.is(Phase::Running, Generation::of(position, slots))
}
