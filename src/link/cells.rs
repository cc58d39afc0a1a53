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

/// Stands for the real type in loom models, which do not use it.
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

/// Slots of a link, and so the most jobs that a lane can hold ahead.
pub(crate) const SLOTS: usize = 256;
/// Words of arguments or reply that fit into a slot.
pub(crate) const INLINE_WORDS: usize = 12;
/// The number of argument words in the first cache line of a call slot.
pub(crate) const FIRST_LINE: usize = 4;
/// Max unread grants of a lane.
pub(crate) const GRANTS: usize = 8;
/// Words of a refusal (the numbers of an `ArenaFull`).
pub(crate) const REFUSAL_WORDS: usize = 7;
/// Max arrays that a lane retains.
pub(crate) const MAX_RETAINED: usize = 1 << 16;
/// Max unread reports of released arrays.
pub(crate) const RELEASES: usize = if cfg!(arenite_loom) { 2 } else { 32 };

/// Words of the flight recorder's notes: the rest of its page. Loom models do not use them.
pub(crate) const RECORDED: usize = if cfg!(arenite_loom) { 4 } else { 440 };

/// Supervisor → worker: the call of a job. Written while the state word is not live, read from claim to finish.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub(crate) struct CallSlot {
    /// Number of the job, for messages.
    pub(crate) job: u64,
    /// Entry of the kernel, relative to the executable's image.
    pub(crate) entry: u64,
    /// Words of arguments, in `args` or in the block that `args` names.
    pub(crate) len: u32,
    /// [`SPILLED`] and [`STAMPED`].
    pub(crate) form: u32,
    /// Seed of the job's random numbers.
    pub(crate) seed: u64,
    /// The arguments.
    pub(crate) args: [u64; INLINE_WORDS],
}

/// Worker → supervisor: the reply of a job. Written while `Running`, read once after the end.
/// Word 0 is the head (kind, arrays, spilled, length), word 1 the number of the grant, word 2 the cursor in it, word 3 the
/// number of arrays that the lane retains.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct ReplySlot {
    pub(crate) head: AtomicU64,
    pub(crate) grant: AtomicU64,
    pub(crate) cursor: AtomicU64,
    pub(crate) retained: AtomicU64,
    pub(crate) words: [AtomicU64; INLINE_WORDS],
}

/// Worker → supervisor, for [`STAMPED`] jobs: when the kernel was entered and left, in monotonic nanoseconds. Written
/// while `Running`, read once after the end of the job or the exit of its worker. Before, for jobs that are timed from
/// `begin_timed` on: when that was, and in the place of the end the number of the job; read when its deadline is over.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct StampCell {
    /// Worker, before it enters the kernel.
    pub(crate) began: AtomicU64,
    /// Worker, before finish.
    pub(crate) ended: AtomicU64,
}

/// The state of a slot, with the duration and a reply of one word: all that most jobs need.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct StateCell {
    /// Both sides, by transitions.
    pub(crate) state: StateWord,
    /// Worker, before finish: the duration of the job, as packed by `span`.
    pub(crate) took: AtomicU32,
    /// Worker, before finish: a reply of one word.
    pub(crate) word: AtomicU64,
}

/// A range of the worker's region that is granted to the lane.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct GrantCell {
    /// Byte offset in the region.
    pub(crate) offset: AtomicU64,
    /// Its bytes; the top bit ([`FRESH`]) says that they are known to be zero.
    pub(crate) len: AtomicU64,
}

/// The supervisor's half. Read-only in the worker.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct PostHalf<const N: usize> {
    /// Supervisor: the futex word on which the lane sleeps; changed and woken once per sleep.
    pub(crate) doorbell: AtomicU32,
    /// Supervisor: `STOP`, `SPIN`, `BACKLOG`, `STEALABLE`, and from bit [`LOW_SHIFT`] on the low-water mark: a lane
    /// with `BACKLOG` signals the monitor when it has fewer jobs ahead.
    pub(crate) flags: AtomicU32,
    /// Supervisor: the number of grants given; published after the cell (Release).
    pub(crate) granted: AtomicU32,
    /// Supervisor: the number of the last allocation request that was refused; published after `refusal` (Release).
    pub(crate) refused: AtomicU32,
    /// Supervisor: the reason for the last refusal.
    pub(crate) refusal: [AtomicU64; REFUSAL_WORDS],
    /// Supervisor: the last grants, by number mod [`GRANTS`].
    pub(crate) grants: [GrantCell; GRANTS],
    /// Supervisor: the number of reports in `releases` read; published after their cells were read (Release).
    pub(crate) releases_taken: AtomicU32,
    /// Supervisor, by the state word.
    pub(crate) slots: [Cell<CallSlot>; N],
}

/// The worker's half.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct ReplyHalf<const N: usize> {
    /// Worker: number of the current sleep, 0 while awake.
    pub(crate) asleep: AtomicU32,
    /// Worker: the number of allocation requests made; published after `alloc_bytes` (Release).
    pub(crate) alloc_requests: AtomicU32,
    /// Worker: the bytes of the last allocation request.
    pub(crate) alloc_bytes: AtomicU64,
    /// Both, by transitions.
    pub(crate) states: [StateCell; N],
    /// Worker, by the state word.
    pub(crate) replies: [ReplySlot; N],
    /// Worker: the number of grants read; published after their cells were read (Release).
    pub(crate) grants_taken: AtomicU32,
    /// Worker, before it exits (Release): the system call that the sandbox denied; read after the exit is confirmed.
    pub(crate) denied: AtomicU32,
    /// Worker: the node of its chain that the running job has reached (Relaxed). Only used in error messages.
    pub(crate) step: AtomicU32,
    /// Worker, before it exits, in the link of its first lane (Release): 1 + the index of the lane whose thread ended
    /// the process; 0 for none. Read after the exit is confirmed.
    pub(crate) culprit_lane: AtomicU32,
    /// Worker: the core on which the lane runs, or that it sleeps; see [`Neighbours`](super::Neighbours).
    pub(crate) location: AtomicU64,
    /// Worker, once, when it aborts. The supervisor reads and clears it after the exit is confirmed.
    #[cfg(not(arenite_loom))]
    pub(crate) abort: AbortNote,
    /// Worker, with each allocation request: when it was made, in monotonic nanoseconds.
    pub(crate) alloc_requested_at: AtomicU64,
    /// Worker: the number of reports in `releases`; published after their cells (Release).
    pub(crate) released: AtomicU32,
    /// Worker: numbers of retained arrays that no handle refers to any more; report `n` is in cell `n` mod
    /// [`RELEASES`].
    pub(crate) releases: [AtomicU64; RELEASES],
    /// Worker: what it is doing, and its last notes.
    pub(crate) recorder: Recorder,
    /// Worker, for [`STAMPED`] jobs, by the state word. On a page of their own, which is untouched without such jobs.
    pub(crate) stamps: [StampCell; N],
    /// Worker, when it crashes, in the link of its first lane. The supervisor reads and clears it after the exit is
    /// confirmed. On pages of its own, which are untouched otherwise.
    #[cfg(not(arenite_loom))]
    pub(crate) crash: CrashNote,
}

/// The page that all links share. Written by the supervisor, read-only in every worker.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Hub {
    /// Supervisor: number of the monitor's current sleep, 0 while it is awake.
    pub(crate) armed: AtomicU32,
    /// Supervisor: the core of the thread that last waited for an answer or woke a lane. A hint.
    pub(crate) waiter_core: AtomicU32,
}

impl Hub {
    /// Announces that the monitor is about to sleep: from here on a worker with a reason signals it, once for each
    /// number. The monitor must look at everything once more before it sleeps.
    pub(crate) fn arm(&self, sleep: u32) {
        self.armed.store(sleep, Ordering::Relaxed);
        // SeqCst fence: "armed, then looked again", pairs with `Consumer::claim_monitor_signal`.
        fence(Ordering::SeqCst);
    }

    /// Announces that the monitor is awake: it will look at everything before it sleeps again.
    pub(crate) fn disarm(&self) {
        self.armed.store(0, Ordering::Relaxed);
    }
}

/// Form of a call: `args` holds the region offset and length of a block with the arguments.
pub(crate) const SPILLED: u32 = 1;
/// Form of a call: the worker records when the kernel was entered and left.
pub(crate) const STAMPED: u32 = 2;

/// Flag of a lane: stop when there is nothing left to run.
pub(crate) const STOP: u32 = 1;
/// Flag of a lane: it may spin for a moment when it runs dry.
pub(crate) const SPIN: u32 = 2;
/// Flag of a lane: jobs that it could run are queued in the supervisor.
pub(crate) const BACKLOG: u32 = 4;
/// Flag of a lane: other lanes have jobs ahead that it could take over.
pub(crate) const STEALABLE: u32 = 8;
/// The low-water mark begins at this bit of the flags.
pub(crate) const LOW_SHIFT: u32 = 16;

/// Top bit of a grant's length: the bytes are known to be zero.
pub(crate) const FRESH: u64 = 1 << 63;

/// Bytes of one link: both halves.
pub(crate) const LINK_BYTES: usize = size_of::<PostHalf<SLOTS>>() + size_of::<ReplyHalf<SLOTS>>();
/// Offset of the reply half in a link.
pub(crate) const REPLY_AT: usize = size_of::<PostHalf<SLOTS>>();
/// Bytes of the control segment's body for this many lanes.
pub(crate) const fn control_bytes(lanes: usize) -> usize {
    size_of::<Hub>() + lanes * LINK_BYTES
}
/// Offset of the link of a lane in the control segment's body.
pub(crate) const fn link_at(lane: usize) -> usize {
    size_of::<Hub>() + lane * LINK_BYTES
}

/// Both halves of a link as mapped by this process, and what keeps them mapped.
#[derive(Debug)]
pub(crate) struct LinkCells<const N: usize = SLOTS> {
    post: NonNull<PostHalf<N>>,
    reply: NonNull<ReplyHalf<N>>,
    hub: NonNull<Hub>,
    _mapped: Arc<dyn Keep>,
}

/// An owner of the memory of the cells.
pub(crate) trait Keep: Send + Sync + std::fmt::Debug {}
impl<T: Send + Sync + std::fmt::Debug> Keep for T {}

// SAFETY: the cells are atomics, or `Cell`s whose accesses the state word separates; the memory stays mapped as long as
// `_mapped` lives.
unsafe impl<const N: usize> Send for LinkCells<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for LinkCells<N> {}

impl<const N: usize> LinkCells<N> {
    /// The link whose halves are at these addresses.
    ///
    /// # Safety
    /// The three point to zeroed or live cells of this layout, aligned, and mapped (in a worker: `post` and `hub` may
    /// be read-only) as long as `mapped` lives.
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
        // SAFETY: mapped while `self` lives (`from_mapped`); only atomics and `Cell`s inside.
        unsafe { self.post.as_ref() }
    }

    #[inline]
    pub(crate) fn reply(&self) -> &ReplyHalf<N> {
        // SAFETY: mapped while `self` lives (`from_mapped`); only atomics inside.
        unsafe { self.reply.as_ref() }
    }

    #[inline]
    pub(crate) fn hub(&self) -> &Hub {
        // SAFETY: mapped while `self` lives (`from_mapped`); only atomics inside.
        unsafe { self.hub.as_ref() }
    }

    /// Worker: records the node of a chain that it has reached.
    pub(crate) fn note_step(&self, step: u32) {
        self.reply().step.store(step, Ordering::Relaxed);
    }

    /// Supervisor: the node that the worker reached last, in any chain.
    pub(crate) fn noted_step(&self) -> u32 {
        self.reply().step.load(Ordering::Relaxed)
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
            step: a32(),
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
        // SAFETY: it only holds the addresses, to free them once.
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
