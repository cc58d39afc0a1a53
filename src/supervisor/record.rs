//! The private records of jobs: the truth for whoever waits.
//!
//! Records lie in a slab and are reused; an id carries the generation, so that an old one is told
//! apart. Nothing here is shared with a worker.

use std::task::Waker;

use smallvec::SmallVec;

use crate::kernel::wire::{Leases, ReceivedArray};
use crate::link::{INLINE_WORDS, NOTICE};
use crate::supervisor::error::JobError;
use crate::supervisor::options::Priority;
use crate::supervisor::policy::Policy;

/// Names a record as long as its job is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobId {
    pub(super) index: u32,
    generation: u32,
}

impl JobId {
    pub(super) fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    pub(super) fn generation(self) -> u32 {
        self.generation
    }

    /// Names no record.
    pub(super) const NOBODY: Self = Self {
        index: u32::MAX,
        generation: 0,
    };
}

/// The graph of a job that belongs to none.
pub(super) const NO_GRAPH: u32 = u32::MAX;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Free,
    /// In the private queue.
    Queued,
    /// In a slot of a link.
    Placed {
        link: u32,
        position: u64,
    },
    /// An attempt has failed, and the pause before the next is not over.
    Waiting,
    /// It has spawned jobs, and has its answer when those have: see [`TaskGroups`](super::depend).
    Spawned {
        task_group: u32,
    },
    /// Ended, failed or refused: the outcome is there.
    Answered,
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A value without words.
    Bare,
    /// Words in the record's payload, `len` of them.
    Inline {
        len: u32,
    },
    /// Words that did not fit.
    Long(Vec<u64>),
    Failed(JobError),
}

/// In [`Record::requests`], beside the bits of a state word: a thread waits for the first of several jobs, this one among them, and
/// sleeps on the words of others. So wherever this one is put next, its end has to be told.
pub(super) const AWAITED: u32 = 1 << 31;

/// One job. What every job touches comes first: two cache lines, up to whether it has leases.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Record {
    pub(super) generation: u32,
    /// Index into the table of kernels.
    pub(super) kernel: u32,
    pub(super) stage: Stage,
    /// Number for messages.
    pub(super) job: u64,
    /// Words of the call.
    pub(super) len: u32,
    /// Bits for the state word, and [`AWAITED`].
    pub(super) requests: u32,
    pub(super) attempt: u16,
    /// Nobody will ask for the outcome.
    pub(super) detached: bool,
    /// A thread sleeps on the parking word of this record.
    pub(super) parked: bool,
    /// Of the call: `SPILLED` if its words name a block, `STAMPED` if it is traced.
    pub(super) form: u32,
    /// Jobs that are cancelled together, or belong to one actor; 0 for none.
    pub(super) group: u32,
    /// The graph that this job is part of, which is told of its end. Such a job is detached.
    pub(super) graph: u32,
    /// Which random numbers it draws, at each attempt.
    pub(super) seed: u64,
    /// Deadline, retries, priority: most jobs have none.
    pub(super) policy: Option<Box<Policy>>,
    pub(super) outcome: Option<Outcome>,
    pub(super) waker: Option<Waker>,
    pub(super) leases: Leases,
    pub(super) arrays: SmallVec<[ReceivedArray; 1]>,
    /// Somebody will ask whether it ended well, and nobody for its value.
    pub(super) unwanted: bool,
    /// Which unit of its graph it is.
    pub(super) unit: u32,
    /// Lane and life of the worker whose value this is.
    pub(super) answered_by: (u32, u32),
    /// The call until it ended, then the reply.
    pub(super) payload: [u64; INLINE_WORDS],
}

impl Record {
    /// A record that no job has.
    pub(super) fn new() -> Self {
        Self {
            generation: 0,
            stage: Stage::Free,
            job: 0,
            kernel: 0,
            attempt: 1,
            detached: false,
            parked: false,
            unwanted: false,
            form: 0,
            requests: 0,
            group: 0,
            policy: None,
            len: 0,
            answered_by: (u32::MAX, 0),
            graph: NO_GRAPH,
            unit: 0,
            seed: 0,
            payload: [0; INLINE_WORDS],
            leases: SmallVec::new(),
            outcome: None,
            arrays: SmallVec::new(),
            waker: None,
        }
    }

    /// Its class in the queue.
    #[inline]
    pub(super) fn priority(&self) -> Priority {
        let policy = self.policy.as_ref();
        policy.map_or(Priority::Normal, |policy| policy.options.priority)
    }

    /// What its state word is to say when it is posted.
    #[inline]
    pub(super) fn asked(&self) -> u32 {
        let told = if self.requests & AWAITED == 0 {
            0
        } else {
            NOTICE
        };
        self.requests & !AWAITED | told
    }

    /// Is its end to be told to the monitor, at least where it is put next?
    pub(super) fn is_noticed(&self) -> bool {
        self.asked() & NOTICE != 0
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Free | Stage::Answered)
    }

    /// Nothing may run beside it.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.alone)
    }

    /// What its value holds is given back, if that is there.
    pub(super) fn drop_value(&mut self) {
        self.arrays.clear();
        if matches!(
            self.outcome,
            Some(Outcome::Long(_) | Outcome::Inline { .. })
        ) {
            self.outcome = Some(Outcome::Bare);
        }
    }

    /// Somebody asked it to stop: it is not tried again.
    pub(super) fn give_up(&mut self) {
        if let Some(policy) = &mut self.policy {
            policy.given_up = true;
        }
    }
}
