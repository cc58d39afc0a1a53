//! The hook by which a worker's lane lends its memory to the arrays of the kernel that runs on it.
//!
//! While a job runs, its thread has a lane set ([`enter`]). Constructors then allocate in the lane's memory, and each
//! handle to an array that the job can reach (parameters, clones, sub-arrays, fresh arrays) is counted in the lane's
//! [`LaneCount`]. If the count is not 0 when the job has ended, a handle has escaped and the worker must exit before
//! any of that memory is used again.
//!
//! | field | writer | reader | protection |
//! |---|---|---|---|
//! | `LaneCount::live` | any thread of the worker that holds a handle | the lane, when its job ends | atomic; Release "handle is gone" pairs with the Acquire in `live()` |
//! | `CURRENT` | the lane's thread, around a job | the lane's thread | thread-local |
//!
//! What was written or read through a handle happens before the count that shows it gone.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::arena::{ArenaFull, BlockPlacement, Extent, Offset};

/// Memory that a lane gives to the fresh arrays of its running job.
///
/// # Safety
///
/// A chunk that `alloc` returned is at least `len` bytes, initialised, aligned to 64, readable and writable by this process, and
/// neither given out again nor taken away until `release` got it back or the job has ended with no handle alive. If
/// `fresh` is set its content is zero. No other process writes to it in that time.
pub(crate) unsafe trait LaneMemory {
    /// A chunk of `len` bytes; 0 is legal.
    fn alloc(&self, len: usize, placement: BlockPlacement) -> Result<LaneChunk, ArenaFull>;

    /// The last handle to a chunk (its start and the length that was asked for) is gone and its content is not part
    /// of the result. The newest chunk can be rolled back, others wait for the end of the job. Called only on a
    /// thread on which this lane is set.
    fn release(&self, chunk: (Offset, u64));
}

/// What [`LaneMemory::alloc`] gives.
#[derive(Copy, Clone, Debug)]
pub(crate) struct LaneChunk {
    /// Where the chunk lies in this process.
    pub(crate) ptr: NonNull<u8>,
    /// Where it lies in the arena.
    pub(crate) at: Offset,
    /// The content is known to be zero.
    pub(crate) fresh: bool,
}

/// How many handles to the arrays of the lane's current job are alive.
#[derive(Debug, Default)]
pub(crate) struct LaneCount {
    live: AtomicUsize,
}

impl LaneCount {
    pub(crate) const fn new() -> LaneCount {
        LaneCount {
            live: AtomicUsize::new(0),
        }
    }

    /// The handles alive now. Acquire: pairs with [`LaneTicket`]'s drop, so that after a 0 nothing is read or written
    /// through any of them any more.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }
}

/// One counted handle. Forgetting it leaves the count up, which is the point.
pub(super) struct LaneTicket(&'static LaneCount);

impl LaneTicket {
    pub(super) fn new(count: &'static LaneCount) -> LaneTicket {
        // Relaxed: whoever makes a handle either is the lane itself or holds one that keeps the count above 0.
        count.live.fetch_add(1, Ordering::Relaxed);
        LaneTicket(count)
    }

    /// Where it is counted.
    pub(super) fn count(&self) -> &'static LaneCount {
        self.0
    }
}

impl Clone for LaneTicket {
    fn clone(&self) -> LaneTicket {
        LaneTicket::new(self.0)
    }
}

impl Drop for LaneTicket {
    fn drop(&mut self) {
        // Release: "handle is gone", pairs with LaneCount::live().
        self.0.live.fetch_sub(1, Ordering::Release);
    }
}

/// A handle that nobody can take back is alive somewhere: whatever this counts for has to answer for it.
pub(crate) fn blame(count: &'static LaneCount) {
    std::mem::forget(LaneTicket::new(count));
}

/// The right to write to a piece of lane memory, or to be the last to hold it: a fresh chunk, or a window onto an
/// array that was moved into the job.
pub(super) struct LaneChunkOwner {
    /// The chunk as `release` wants it; `None` for a window, which is not the lane's to take back.
    fresh: Option<(Offset, u64)>,
    /// Part of the result: the chunk stays when the handles go.
    published: AtomicBool,
    count: &'static LaneCount,
}

impl LaneChunkOwner {
    /// Owns `chunk`, for which `len` bytes were asked.
    pub(super) fn fresh(chunk: LaneChunk, len: u64, count: &'static LaneCount) -> LaneChunkOwner {
        LaneChunkOwner {
            fresh: Some((chunk.at, len)),
            published: AtomicBool::new(false),
            count,
        }
    }

    /// Owns memory that somebody else has lent to the job.
    pub(super) fn window(count: &'static LaneCount) -> LaneChunkOwner {
        LaneChunkOwner {
            fresh: None,
            published: AtomicBool::new(false),
            count,
        }
    }

    /// The chunk, as it was asked for; `None` for a window.
    pub(super) fn chunk(&self) -> Option<Extent> {
        self.fresh.map(|(at, len)| Extent { at, len })
    }

    pub(super) fn publish(&self) {
        // Relaxed: the drop that reads it comes after this in the same thread, or is ordered by the Arc around it.
        self.published.store(true, Ordering::Relaxed);
    }
}

impl Drop for LaneChunkOwner {
    fn drop(&mut self) {
        let Some(chunk) = self.fresh else { return };
        if *self.published.get_mut() {
            return;
        }
        // On a foreign thread the lane's allocator is out of reach; the chunk then waits for the end of the job.
        if let Some(lane) = Lane::current()
            && std::ptr::eq(lane.count, self.count)
        {
            lane.memory.release(chunk);
        }
    }
}

impl fmt::Debug for LaneChunkOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneChunkOwner")
            .field("fresh", &self.fresh)
            .finish_non_exhaustive()
    }
}

/// The lane of the running job, as its thread knows it.
#[derive(Copy, Clone)]
pub(super) struct Lane {
    pub(super) memory: &'static dyn LaneMemory,
    pub(super) count: &'static LaneCount,
}

impl Lane {
    /// The lane whose job runs on this thread.
    pub(super) fn current() -> Option<Lane> {
        // While the thread is being torn down there is no lane any more, only handles in other thread-locals.
        CURRENT.try_with(Cell::get).ok().flatten()
    }
}

thread_local! {
    static CURRENT: Cell<Option<Lane>> = const { Cell::new(None) };
}

/// Sets the lane of this thread for the job that runs until the guard is dropped.
pub(crate) fn enter(memory: &'static dyn LaneMemory, count: &'static LaneCount) -> LaneGuard {
    LaneGuard {
        before: CURRENT.replace(Some(Lane { memory, count })),
        thread: PhantomData,
    }
}

/// The lane stays set while this lives; afterwards it is the one that was set before.
#[must_use]
pub(crate) struct LaneGuard {
    before: Option<Lane>,
    thread: PhantomData<*const ()>,
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

impl fmt::Debug for LaneGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneGuard").finish_non_exhaustive()
    }
}
