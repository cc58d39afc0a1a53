//! The layout of a link in shared memory: [`LinkCells`].
//!
//! Layouts are fixed by the assertions at the end. The comment of each field names its writer; the other side only
//! reads it, or, for the state words, uses the transitions of [`StateWord`].

use std::ptr::NonNull;
use std::sync::Arc;

use super::recorder::Recorder;
use super::state::{Generation, StateWord};
use crate::sync::{AtomicU32, AtomicU64, Cell, Ordering, fence, prefetch_read};
#[cfg(not(arenite_loom))]
use crate::sys::{abort::AbortNote, crash::CrashNote};

/// Stands for the real type in loom models, which do not use the note.
#[cfg(arenite_loom)]
#[derive(Debug)]
pub(crate) struct AbortNote;

#[cfg(arenite_loom)]
impl AbortNote {
    fn new() -> Self {
        Self
    }

    pub(crate) fn clear(&self) {}
}

/// The number of slots of a link: the maximum number of jobs posted to a lane and not drained.
pub(crate) const SLOTS: usize = 256;
/// Words of arguments or reply that fit into a slot.
pub(crate) const INLINE_WORDS: usize = 12;
/// The number of argument words in the first cache line of a call slot.
pub(crate) const FIRST_LINE: usize = 4;
/// Max number of grants that a lane has not read yet.
pub(crate) const GRANTS: usize = 8;
/// Words of a refusal (the numbers of an `ArenaFull`).
pub(crate) const REFUSAL_WORDS: usize = 7;
/// Max number of arrays that a lane retains.
pub(crate) const MAX_RETAINED: usize = 1 << 16;
/// Max number of reports of released arrays that the supervisor has not read yet.
pub(crate) const RELEASES: usize = if cfg!(arenite_loom) { 2 } else { 32 };

/// The number of words for the flight recorder's notes, which fill the rest of its page. Loom models do not use them.
pub(crate) const RECORDED: usize = if cfg!(arenite_loom) { 4 } else { 440 };

/// Supervisor → worker: the call of a job. Written while the state word is not live, read from claim to finish.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub(crate) struct CallSlot {
    /// Number of the job, for messages.
    pub(crate) job: u64,
    /// Offset of the kernel's entry in the executable's image.
    pub(crate) entry: u64,
    /// The number of argument words, in `args` or in the block that `args` names.
    pub(crate) len: u32,
    /// The bits [`SPILLED`] and [`STAMPED`].
    pub(crate) form: u32,
    /// Seed of the job's random numbers.
    pub(crate) seed: u64,
    /// The arguments, or with [`SPILLED`] the location of the block that contains them.
    pub(crate) args: [u64; INLINE_WORDS],
}

/// Worker → supervisor: the reply of a job. Written while `Running`, read once after the end.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct ReplySlot {
    /// Kind, number of arrays, spill flag and length of the reply, packed into a word.
    pub(crate) head: AtomicU64,
    /// The number of the grant that contains `cursor`.
    pub(crate) grant: AtomicU64,
    /// Offset in the worker's region up to which the grant is used.
    pub(crate) cursor: AtomicU64,
    /// The number of arrays that the lane retains.
    pub(crate) retained: AtomicU64,
    /// The words of the reply, or with the spill flag the extent of the block that contains them.
    pub(crate) words: [AtomicU64; INLINE_WORDS],
}

/// Worker → supervisor: two times of a job, in monotonic nanoseconds.
///
/// For a [`STAMPED`] job: when its kernel was entered and left. Written while `Running`, read once after the end of the
/// job or the exit of its worker.
///
/// For a running job that has called `begin_timed`: the time of the call in `began`, and the number of the job in
/// `ended`. The supervisor reads them when the job's deadline may be over.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct StampCell {
    /// Written by the worker before it enters the kernel.
    pub(crate) began: AtomicU64,
    /// Written by the worker before `finish`.
    pub(crate) ended: AtomicU64,
}

/// The state of a slot, its duration, and a reply of one word, in one place: most jobs need nothing else.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct StateCell {
    /// Written by both sides, by transitions.
    pub(crate) state: StateWord,
    /// Written by the worker before `finish`: the duration of the job, as packed by `span`.
    pub(crate) took: AtomicU32,
    /// Written by the worker before `finish`: a reply of one word.
    pub(crate) word: AtomicU64,
}

/// A range of the worker's region that is granted to a lane.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct GrantCell {
    /// Byte offset in the region.
    pub(crate) offset: AtomicU64,
    /// Length in bytes. The top bit ([`FRESH`]) says that the bytes are known to be zero.
    pub(crate) len: AtomicU64,
}

/// The supervisor's half. Read-only in the worker.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct PostHalf<const N: usize> {
    /// Supervisor: the futex word on which the lane sleeps. It is incremented, and its sleeper woken, once for each
    /// sleep.
    pub(crate) doorbell: AtomicU32,
    /// Supervisor: the bits `STOP`, `SPIN`, `BACKLOG` and `STEALABLE`, and from bit [`LOW_SHIFT`] on the low-water
    /// mark: a lane with `BACKLOG` signals the monitor when the number of jobs ahead falls below the mark.
    pub(crate) flags: AtomicU32,
    /// Supervisor: the number of grants given; published after the cell (Release).
    pub(crate) granted: AtomicU32,
    /// Supervisor: the number of the last allocation request that was refused; published after `refusal` (Release).
    pub(crate) refused: AtomicU32,
    /// Supervisor: the reason for the last refusal.
    pub(crate) refusal: [AtomicU64; REFUSAL_WORDS],
    /// Supervisor: the last grants. Grant `n` is in cell `n` mod [`GRANTS`].
    pub(crate) grants: [GrantCell; GRANTS],
    /// Supervisor: the number of reports in `releases` read; published after their cells were read (Release).
    pub(crate) releases_taken: AtomicU32,
    /// Supervisor, while the state word of the slot is not live: the calls.
    pub(crate) slots: [Cell<CallSlot>; N],
}

/// The worker's half. The supervisor writes only the state words, except after the worker's exit.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct ReplyHalf<const N: usize> {
    /// Worker: the number of the current sleep; 0 while awake.
    pub(crate) asleep: AtomicU32,
    /// Worker: the number of allocation requests made; published after `alloc_bytes` (Release).
    pub(crate) alloc_requests: AtomicU32,
    /// Worker: the bytes of the last allocation request.
    pub(crate) alloc_bytes: AtomicU64,
    /// Both sides, by transitions of the state words: the states.
    pub(crate) states: [StateCell; N],
    /// Worker, while the state word of the slot says `Running`: the replies.
    pub(crate) replies: [ReplySlot; N],
    /// Worker: the number of grants read; published after their cells were read (Release).
    pub(crate) grants_taken: AtomicU32,
    /// Worker, before it exits (Release): the system call that the sandbox denied; read after the exit is confirmed.
    pub(crate) denied: AtomicU32,
    /// Worker, before it exits, in the link of its first lane (Release): 1 + the index of the lane that ended the
    /// process; 0 for none. Read after the exit is confirmed.
    pub(crate) culprit_lane: AtomicU32,
    /// Worker: the core on which the lane runs or went to sleep; see [`Neighbours`](super::Neighbours).
    pub(crate) location: AtomicU64,
    /// Worker, once, when it aborts: its last note. The supervisor reads and clears it after the exit is confirmed.
    #[cfg(not(arenite_loom))]
    pub(crate) abort: AbortNote,
    /// Worker, with each allocation request: the time of the request, in monotonic nanoseconds.
    pub(crate) alloc_requested_at: AtomicU64,
    /// Worker: the number of reports in `releases`; published after their cells (Release).
    pub(crate) released: AtomicU32,
    /// Worker: numbers of retained arrays that no handle refers to any more; report `n` is in cell `n` mod
    /// [`RELEASES`].
    pub(crate) releases: [AtomicU64; RELEASES],
    /// Worker: what the lane is doing, and its last notes.
    pub(crate) recorder: Recorder,
    /// Worker, for [`STAMPED`] and timed jobs, while `Running`: their times. On a page of its own, which other jobs do
    /// not touch.
    pub(crate) stamps: [StampCell; N],
    /// Worker, when it crashes, in the link of its first lane: its last note. The supervisor reads and clears it after
    /// the exit is confirmed. On pages of its own, which are not touched unless a worker crashes.
    #[cfg(not(arenite_loom))]
    pub(crate) crash: CrashNote,
}

/// The page that all links share. Written by the supervisor, read-only in every worker.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Hub {
    /// Supervisor: the number of the monitor's current sleep; 0 while it is awake.
    pub(crate) armed: AtomicU32,
    /// Supervisor: the core of the thread that last waited for an answer or woke a lane. A hint.
    pub(crate) waiter_core: AtomicU32,
}

impl Hub {
    /// Announces that the monitor is about to sleep. From then on, a worker that has something to report signals the
    /// monitor, once for each sleep number. The monitor must check all links once more before it sleeps.
    pub(crate) fn arm(&self, sleep: u32) {
        self.armed.store(sleep, Ordering::Relaxed);
        // SeqCst fence: "armed, then looked again", pairs with `Consumer::claim_monitor_signal`.
        fence(Ordering::SeqCst);
    }

    /// Announces that the monitor is awake. The monitor must check all links before it sleeps again.
    pub(crate) fn disarm(&self) {
        self.armed.store(0, Ordering::Relaxed);
    }
}

/// Form of a call: `args` names a block that contains the arguments, by offset and length.
pub(crate) const SPILLED: u32 = 1;
/// Form of a call: the worker records the times at which the kernel is entered and left.
pub(crate) const STAMPED: u32 = 2;

/// Flag of a lane: stop when no posted job is left.
pub(crate) const STOP: u32 = 1;
/// Flag of a lane: it may spin for a moment before it sleeps.
pub(crate) const SPIN: u32 = 2;
/// Flag of a lane: the supervisor has queued jobs that the lane could run.
pub(crate) const BACKLOG: u32 = 4;
/// Flag of a lane: other lanes have unclaimed jobs that it could take over.
pub(crate) const STEALABLE: u32 = 8;
/// The lowest bit of the low-water mark in the flags.
pub(crate) const LOW_SHIFT: u32 = 16;

/// Top bit of a grant's length: the bytes are known to be zero.
pub(crate) const FRESH: u64 = 1 << 63;

/// The size of one link in bytes: both halves.
pub(crate) const LINK_BYTES: usize = size_of::<PostHalf<SLOTS>>() + size_of::<ReplyHalf<SLOTS>>();
/// Offset of the reply half in a link.
pub(crate) const REPLY_AT: usize = size_of::<PostHalf<SLOTS>>();
/// The size in bytes of the control segment's body for `lanes` lanes.
pub(crate) const fn control_bytes(lanes: usize) -> usize {
    size_of::<Hub>() + lanes * LINK_BYTES
}
/// Offset of the link of a lane in the control segment's body.
pub(crate) const fn link_at(lane: usize) -> usize {
    size_of::<Hub>() + lane * LINK_BYTES
}

/// Both halves of a link as mapped by this process. Keeps them mapped.
#[derive(Debug)]
pub(crate) struct LinkCells<const N: usize = SLOTS> {
    post: NonNull<PostHalf<N>>,
    reply: NonNull<ReplyHalf<N>>,
    hub: NonNull<Hub>,
    _mapped: Arc<dyn Keep>,
}

/// A value that keeps the memory of the cells mapped.
pub(crate) trait Keep: Send + Sync + std::fmt::Debug {}
impl<T: Send + Sync + std::fmt::Debug> Keep for T {}

// SAFETY: the cells are atomics, or `Cell`s whose accesses by the two processes the state word separates. The memory
// stays mapped as long as `_mapped` lives.
unsafe impl<const N: usize> Send for LinkCells<N> {}
// SAFETY: as for `Send`.
unsafe impl<const N: usize> Sync for LinkCells<N> {}

impl<const N: usize> LinkCells<N> {
    /// Creates the handle of a link whose halves and hub are at these addresses.
    ///
    /// # Safety
    /// The three addresses point to zeroed or live cells of this layout, aligned, and mapped as long as `mapped` lives.
    /// In a worker, `post` and `hub` may be read-only.
    pub(crate) unsafe fn from_mapped(
        hub: NonNull<u8>,
        post: NonNull<u8>,
        reply: NonNull<u8>,
        mapped: Arc<dyn Keep>,
    ) -> Self {
        Self {
            post: post.cast(),
            reply: reply.cast(),
            hub: hub.cast(),
            _mapped: mapped,
        }
    }

    #[inline]
    pub(crate) fn post(&self) -> &PostHalf<N> {
        // SAFETY: mapped while `self` lives (`from_mapped`). The other process may write: atomics and `Cell`s allow
        // that.
        unsafe { self.post.as_ref() }
    }

    #[inline]
    pub(crate) fn reply(&self) -> &ReplyHalf<N> {
        // SAFETY: mapped while `self` lives (`from_mapped`). The other process may write: atomics allow that.
        unsafe { self.reply.as_ref() }
    }

    #[inline]
    pub(crate) fn hub(&self) -> &Hub {
        // SAFETY: mapped while `self` lives (`from_mapped`). The other process may write: atomics allow that.
        unsafe { self.hub.as_ref() }
    }

    /// The state word of job number `position`.
    #[inline]
    pub(crate) fn state(&self, position: u64) -> &StateWord {
        &self.reply().states[Self::index(position)].state
    }

    /// Supervisor, after the exit is confirmed, on the first link of a worker: the index of the lane whose thread ended
    /// the process, as claimed by the worker.
    pub(crate) fn culprit_lane(&self) -> Option<usize> {
        // Acquire: "number stored", pairs with the signal handler of the worker.
        let number = self.reply().culprit_lane.load(Ordering::Acquire);
        (number as usize).checked_sub(1)
    }

    /// Worker, after a claim: prefetches the call of the next job, if it is posted, so that its cache line arrives from
    /// the supervisor's core while the kernel runs.
    #[inline]
    pub(crate) fn prefetch_next_call(&self, position: u64) {
        let next = position + 1;
        if self.state(next).is_queued(Generation::of(next, N)) {
            prefetch_read(&self.post().slots[Self::index(next)]);
        }
    }

    #[inline]
    pub(crate) fn index(position: u64) -> usize {
        (position % N as u64) as usize
    }

    /// The number that marks the stamps of the job at this position. Not zero, which an unused cell has.
    pub(crate) fn tag(position: u64) -> u64 {
        position.wrapping_add(1)
    }
}

#[cfg(any(test, arenite_loom))]
impl<const N: usize> LinkCells<N> {
    /// A link on the heap, for tests and models.
    pub(crate) fn on_heap() -> Self {
        use std::array::from_fn;
        let a32 = || AtomicU32::new(0);
        let a64 = || AtomicU64::new(0);
        let call = CallSlot {
            job: 0,
            entry: 0,
            len: 0,
            form: 0,
            seed: 0,
            args: [0; INLINE_WORDS],
        };
        let post = Box::new(PostHalf {
            doorbell: a32(),
            flags: a32(),
            granted: a32(),
            refused: a32(),
            refusal: from_fn(|_| a64()),
            grants: from_fn(|_| GrantCell {
                offset: a64(),
                len: a64(),
            }),
            releases_taken: a32(),
            slots: from_fn(|_| Cell::new(call)),
        });
        let reply = Box::new(ReplyHalf {
            asleep: a32(),
            alloc_requests: a32(),
            alloc_bytes: a64(),
            states: from_fn(|_| StateCell {
                state: StateWord::new(),
                took: a32(),
                word: a64(),
            }),
            replies: from_fn(|_| ReplySlot {
                head: a64(),
                grant: a64(),
                cursor: a64(),
                retained: a64(),
                words: from_fn(|_| a64()),
            }),
            grants_taken: a32(),
            denied: a32(),
            culprit_lane: a32(),
            location: a64(),
            #[cfg(not(arenite_loom))]
            abort: AbortNote::new(),
            alloc_requested_at: a64(),
            released: a32(),
            releases: from_fn(|_| a64()),
            recorder: Recorder {
                now: a64(),
                written: a64(),
                words: from_fn(|_| a64()),
            },
            stamps: from_fn(|_| StampCell {
                began: a64(),
                ended: a64(),
            }),
            #[cfg(not(arenite_loom))]
            crash: CrashNote::new(),
        });
        let hub = Box::new(Hub {
            armed: a32(),
            waiter_core: a32(),
        });
        #[derive(Debug)]
        struct Owned<const N: usize>(*mut PostHalf<N>, *mut ReplyHalf<N>, *mut Hub);
        // SAFETY: `Owned` only stores the addresses. Its drop frees them, after the last handle to the cells is gone.
        unsafe impl<const N: usize> Send for Owned<N> {}
        // SAFETY: as above.
        unsafe impl<const N: usize> Sync for Owned<N> {}
        impl<const N: usize> Drop for Owned<N> {
            fn drop(&mut self) {
                // SAFETY: from `Box::into_raw` below, and no link uses them any more.
                unsafe {
                    drop(Box::from_raw(self.0));
                    drop(Box::from_raw(self.1));
                    drop(Box::from_raw(self.2));
                }
            }
        }
        let owned = Owned(
            Box::into_raw(post),
            Box::into_raw(reply),
            Box::into_raw(hub),
        );
        let (post, reply, hub) = (
            NonNull::new(owned.0).expect("a box is not null"),
            NonNull::new(owned.1).expect("a box is not null"),
            NonNull::new(owned.2).expect("a box is not null"),
        );
        Self {
            post,
            reply,
            hub,
            _mapped: Arc::new(owned),
        }
    }
}

#[cfg(not(arenite_loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<CallSlot>() == 128 && align_of::<CallSlot>() == 128);
    assert!(offset_of!(CallSlot, args) + FIRST_LINE * 8 == 64);
    assert!(size_of::<ReplySlot>() == 128 && offset_of!(ReplySlot, words) == 32);
    assert!(size_of::<StateCell>() == 16);
    assert!(offset_of!(PostHalf<SLOTS>, slots) == 256);
    assert!(offset_of!(ReplyHalf<SLOTS>, states) == 16);
    assert!(offset_of!(ReplyHalf<SLOTS>, replies) == 4224);
    assert!(size_of::<PostHalf<SLOTS>>() == 36 * 1024);
    assert!(size_of::<ReplyHalf<SLOTS>>() == 52 * 1024);
    assert!(offset_of!(ReplyHalf<SLOTS>, stamps) == 40 * 1024);
    assert!(size_of::<Hub>() == 4096);
    assert!(SLOTS.is_power_of_two() && RELEASES.is_power_of_two());
};
