//! The private records of jobs, which waiting threads and futures read. They are not shared with workers.

use std::task::Waker;

use smallvec::SmallVec;

use crate::kernel::wire::{ArgWriter, Leases, ReceivedArray};
use crate::link::{INLINE_WORDS, NOTICE};
use crate::supervisor::error::JobError;
use crate::supervisor::options::Priority;
use crate::supervisor::owner::Owner;
use crate::supervisor::policy::Policy;
use crate::sync::FIRST_COUNT;

/// Identifies a record until the job's answer is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobId {
    pub(super) index: u32,
    generation: u32,
}

impl JobId {
    /// Returns the id as a number.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.index) | u64::from(self.generation) << 32
    }

    /// Returns the id with this number.
    pub(super) fn from_bits(bits: u64) -> Self {
        Self::new(bits as u32, (bits >> 32) as u32)
    }

    pub(super) fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    pub(super) fn generation(self) -> u32 {
        self.generation
    }
}

/// The stage of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Free,
    /// The job is in the queue.
    Queued,
    /// The job is in a slot of a link.
    Placed {
        lane: u32,
        position: u64,
    },
    /// The job waits for the pause before its next attempt, for its limiter, or for jobs whose values it takes.
    Waiting,
    /// The job has spawned jobs, and is answered when their run is over.
    Spawned {
        run: u32,
    },
    /// The job has ended with a value that the monitor copies to memory that no worker can write.
    #[cfg(feature = "sandbox")]
    Copying,
    /// The job has ended, failed or was refused: `outcome` is set.
    Answered,
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A value without words.
    Bare,
    /// `len` words in the payload of the record.
    Inline {
        len: u32,
    },
    /// Words that did not fit into the payload.
    Long(Vec<u64>),
    /// Words that are so long that they stay in the arena until a handle takes them.
    InArena(ReceivedArray),
    Failed(JobError),
}

/// A bit in [`Record::requests`], in addition to the bits of a state word: a thread waits for the first of several jobs
/// including this one, and sleeps on the state words of others. So the end of this job has to be reported from the lane
/// where it is placed next.
pub(super) const AWAITED: u32 = 1 << 31;

/// What ties a job to its consumers, the jobs that take its value, and to those whose values it takes.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The consumers that wait for the end of this job, once for each time that they take the value.
    pub(super) consumers: Vec<JobId>,
    /// How often the value will still be taken.
    pub(super) uses: u32,
    /// Whether the handle is gone. Then the last use frees the record; the owner stays until then.
    pub(super) handle: Handle,
    /// The call of this job, while jobs whose values it takes have not ended.
    pub(super) call: Option<Box<OpenCall>>,
}

/// What became of the handle of a job whose value other jobs take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Handle {
    #[default]
    Kept,
    /// The job is abandoned if no other job takes its value any more.
    Dropped,
    /// The job runs in any case.
    Detached,
}

/// A call that lacks values of jobs.
#[derive(Debug)]
pub(super) struct OpenCall {
    pub(super) call: ArgWriter,
    /// The number of values whose jobs have not ended.
    pub(super) open: usize,
}

/// One job. The fields that every job uses come first, in two cache lines, up to `leases`.
///
/// A plain data record: any code that handles a job writes its fields. Only the file that moves a job changes its
/// stage.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Record {
    pub(super) generation: u32,
    /// Index into the table of kernels.
    pub(super) kernel: u32,
    pub(super) stage: Stage,
    /// The number of the job, for messages.
    pub(super) job: u64,
    /// Number of words of the call.
    pub(super) len: u32,
    /// Bits for the state word, and [`AWAITED`].
    pub(super) requests: u32,
    pub(super) attempt: u16,
    /// Whether the answer takes the slow path, because a thread sleeps on the parking word of this record or the answer
    /// affects more than the record: see `EngineState::notify_slow`.
    pub(super) parked: bool,
    /// The form of the call: `SPILLED` if its words are in a block, `STAMPED` if it is traced.
    pub(super) form: u32,
    pub(super) owner: Owner,
    /// The seed of its random numbers, which is the same for each attempt.
    pub(super) seed: u64,
    /// Deadline, retries, priority. `None` for most jobs.
    pub(super) policy: Option<Box<Policy>>,
    pub(super) outcome: Option<Outcome>,
    pub(super) waker: Option<Waker>,
    pub(super) leases: Leases,
    pub(super) arrays: SmallVec<[ReceivedArray; 1]>,
    /// What ties the job to jobs that take its value, or whose values it takes.
    pub(super) link: Option<Box<Link>>,
    /// The lane that sent the value, and the generation of its worker.
    pub(super) answered_by: (u32, u32),
    /// The words of the call until the job ends, then the words of the value.
    pub(super) payload: [u64; INLINE_WORDS],
}

// Two cache lines of 64 bytes.
const _: () = assert!(std::mem::offset_of!(Record, leases) <= 128);

impl Record {
    /// Returns a record without a job.
    pub(super) fn new() -> Self {
        Self {
            generation: FIRST_COUNT,
            stage: Stage::Free,
            job: 0,
            kernel: 0,
            attempt: 1,
            parked: false,
            form: 0,
            requests: 0,
            owner: Owner::None,
            policy: None,
            len: 0,
            answered_by: (u32::MAX, 0),
            seed: 0,
            payload: [0; INLINE_WORDS],
            leases: SmallVec::new(),
            outcome: None,
            arrays: SmallVec::new(),
            link: None,
            waker: None,
        }
    }

    /// Returns the job's class in the queue.
    #[inline]
    pub(super) fn priority(&self) -> Priority {
        let policy = self.policy.as_ref();
        policy.map_or(Priority::Normal, |policy| policy.options.priority)
    }

    /// Returns the requests in the job's state word when the job is posted.
    #[inline]
    pub(super) fn asked(&self) -> u32 {
        let notice = if self.requests & AWAITED == 0 {
            0
        } else {
            NOTICE
        };
        self.requests & !AWAITED | notice
    }

    /// Returns true if the monitor is to be notified of the job's end, at least from the lane where it is placed next.
    pub(super) fn is_noticed(&self) -> bool {
        self.asked() & NOTICE != 0
    }

    /// Returns the number of times that other jobs will take the value.
    #[inline]
    pub(super) fn uses(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.uses)
    }

    pub(super) fn link(&mut self) -> &mut Link {
        self.link.get_or_insert_default()
    }

    /// Notes that the handle is gone. Returns false if no other job takes the value: then the caller ends the job.
    #[inline]
    pub(super) fn leave_to_consumers(&mut self, handle: Handle) -> bool {
        let link = self.link.as_mut().filter(|link| link.uses > 0);
        link.map(|link| link.handle = handle).is_some()
    }

    /// Returns the arrays of the value: its own, or others if another one takes the value later.
    pub(super) fn take_arrays(&mut self, is_last: bool) -> SmallVec<[ReceivedArray; 1]> {
        match is_last {
            true => std::mem::take(&mut self.arrays),
            false => self.arrays.iter().map(ReceivedArray::share).collect(),
        }
    }

    /// Returns true if the call of the job lacks values of other jobs.
    #[inline]
    pub(super) fn lacks_values(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.call.is_some())
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Free | Stage::Answered)
    }

    /// Returns true if the job has its worker to itself.
    #[inline]
    pub(super) fn is_exclusive(&self) -> bool {
        self.policy
            .as_ref()
            .is_some_and(|policy| policy.is_exclusive)
    }

    /// Returns the words of the job's value. Empty if they are in the arena.
    #[inline]
    pub(super) fn value(&self) -> &[u64] {
        match &self.outcome {
            Some(Outcome::Inline { len }) => &self.payload[..*len as usize],
            Some(Outcome::Long(words)) => words,
            Some(Outcome::Bare | Outcome::InArena(_) | Outcome::Failed(_)) | None => &[],
        }
    }

    /// Frees the memory of the job's value, if it has one.
    pub(super) fn drop_value(&mut self) {
        self.arrays.clear();
        if matches!(
            self.outcome,
            Some(Outcome::Long(_) | Outcome::InArena(_) | Outcome::Inline { .. })
        ) {
            self.outcome = Some(Outcome::Bare);
        }
    }

    /// Allows no further attempt: the job is cancelled or dropped, or may run only once.
    pub(super) fn give_up(&mut self) {
        if let Some(policy) = &mut self.policy {
            policy.given_up = true;
        }
    }
}
