//! The interface through which a worker's lane provides memory for the arrays of the kernel that runs on it.
//!
//! While a job runs, a lane is set for its thread ([`enter`]). Constructors then allocate from the lane, and each
//! handle to an array of the job (parameters, clones, sub-arrays, fresh arrays) is counted in the lane's [`LaneCount`].
//! If the count is not 0 when the job has ended, a handle has escaped. Then the worker must exit before the memory is
//! reused, unless the lane retains escaped arrays. A lane that retains arrays counts the handles of each array
//! separately ([`LaneCount::of_array`]).
//!
//! | field | writer | reader | protection |
//! |---|---|---|---|
//! | `LaneCount::live` | any thread with a handle | the lane, at the end of a job and between jobs | atomic, see `live` |
//! | `LaneCount::lane` | its creator | any thread | never changes |
//! | `LaneChunkOwner::published` | a thread with a handle | the thread with the last one | ordered by their `Arc` |
//! | `CURRENT` | the lane's thread, around a job | the lane's thread | thread-local |
//!
//! Each access through a handle happens before the handle is subtracted from the count.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{ArrayLocation, PrivateMap};
use crate::arena::{ArenaFull, BlockPlacement, Extent, Offset};

/// The allocator of a lane, for the arrays of its running job.
///
/// # Safety
///
/// A chunk returned by `alloc` has at least `len` bytes, is initialised, aligned to 64 bytes, readable and writable by
/// this process. If `fresh` is set, its content is zero. Until the chunk is released, or the job has ended and no
/// handle is alive, the lane neither hands it out again nor takes it away, and no other process writes to it.
pub(crate) unsafe trait LaneMemory {
    /// Allocates a chunk of `len` bytes; 0 is allowed.
    fn alloc(&self, len: usize, placement: BlockPlacement) -> Result<LaneChunk, ArenaFull>;

    /// Releases a chunk, given by its start and the requested length: its last handle is gone, and it is not part of
    /// the result. The newest chunk can be rolled back; others become free at the end of the job. Only called on a
    /// thread for which this lane is set. The chunk may belong to an earlier job, for which the lane retained it.
    fn release(&self, chunk: (Offset, u64));

    /// Maps bytes of an array of the running job, so that this process alone may change them. Returns `None` if that is
    /// not possible. If handles to the map exist when the job has ended, its bytes are copied.
    fn private_map(&self, _of: ArrayLocation<'_>, _len: usize) -> Option<Arc<PrivateMap>> {
        None
    }

    /// Returns the counter for the handles of a chunk that was just allocated. `None` if the lane's counter counts
    /// them.
    fn count_of(&self, _chunk: Extent) -> Option<&'static LaneCount> {
        None
    }
}

/// A chunk from [`LaneMemory::alloc`].
#[derive(Copy, Clone, Debug)]
pub(crate) struct LaneChunk {
    /// The address of the chunk in this process.
    pub(crate) ptr: NonNull<u8>,
    /// The location of the chunk in the arena.
    pub(crate) at: Offset,
    /// Whether the content is known to be zero.
    pub(crate) fresh: bool,
}

/// The number of live handles: to all arrays of a lane, or to one array.
#[derive(Debug, Default)]
pub(crate) struct LaneCount {
    live: AtomicUsize,
    /// In the counter of one array: the counter of its lane. `None` in the counter of a lane.
    lane: Option<&'static LaneCount>,
}

impl LaneCount {
    pub(crate) const fn new() -> LaneCount {
        LaneCount {
            live: AtomicUsize::new(0),
            lane: None,
        }
    }

    /// Creates a counter for the handles of one array at a time. `lane` is the counter of the array's lane.
    pub(crate) const fn of_array(lane: &'static LaneCount) -> LaneCount {
        LaneCount {
            live: AtomicUsize::new(0),
            lane: Some(lane),
        }
    }

    /// Whether this counter is `lane`, or the counter of an array of that lane.
    pub(crate) fn is_of(&self, lane: &LaneCount) -> bool {
        std::ptr::eq(self, lane) || self.lane.is_some_and(|own| std::ptr::eq(own, lane))
    }

    /// The number of live handles.
    // Acquire: "handle is gone", pairs with `LaneTicket::drop`. At 0, every access through a handle has happened.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }
}

/// Counts one handle until the ticket is dropped. If the ticket is forgotten (`mem::forget`), the count stays above 0,
/// as intended.
pub(super) struct LaneTicket(&'static LaneCount);

impl LaneTicket {
    pub(super) fn new(count: &'static LaneCount) -> LaneTicket {
        // Relaxed: the lane itself makes the first handle; others are made from a handle that keeps the count above 0.
        count.live.fetch_add(1, Ordering::Relaxed);
        LaneTicket(count)
    }

    /// The counter that includes this handle.
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
        // Release: "handle is gone", pairs with `LaneCount::live`.
        self.0.live.fetch_sub(1, Ordering::Release);
    }
}

/// Counts a handle that is never dropped: the count stays above 0.
pub(crate) fn leak_handle(count: &'static LaneCount) {
    std::mem::forget(LaneTicket::new(count));
}

/// Owner of a piece of lane memory: a fresh chunk, or a window onto an array that was moved into the job.
pub(super) struct LaneChunkOwner {
    /// The arguments of [`LaneMemory::release`]. `None` for a window: dropping it releases nothing.
    fresh: Option<(Offset, u64)>,
    /// Whether the chunk or a part of it was sent in a reply: other processes may have handles to it. A published chunk
    /// is not released when the handles of this process are gone, and is never written again.
    published: AtomicBool,
    count: &'static LaneCount,
}

impl LaneChunkOwner {
    /// Makes the owner of `chunk`, for which `len` bytes were requested.
    pub(super) fn fresh(chunk: LaneChunk, len: u64, count: &'static LaneCount) -> LaneChunkOwner {
        LaneChunkOwner {
            fresh: Some((chunk.at, len)),
            published: AtomicBool::new(false),
            count,
        }
    }

    /// Creates the owner of memory that was lent to the job. Dropping this owner releases nothing.
    pub(super) fn window(count: &'static LaneCount) -> LaneChunkOwner {
        LaneChunkOwner {
            fresh: None,
            published: AtomicBool::new(false),
            count,
        }
    }

    /// The chunk with the requested length; `None` for a window.
    pub(super) fn chunk(&self) -> Option<Extent> {
        self.fresh.map(|(at, len)| Extent { at, len })
    }

    pub(super) fn publish(&self) {
        // Relaxed: only the owner of the last handle reads the flag, after the handle used here is gone. Store and load
        // are on the same thread, or ordered by the `Arc` around `self`.
        self.published.store(true, Ordering::Relaxed);
    }

    /// Whether other processes may have handles. Only the owner of the last handle of this process may call this.
    pub(super) fn is_published(&self) -> bool {
        // Relaxed: see `publish`.
        self.published.load(Ordering::Relaxed)
    }
}

impl Drop for LaneChunkOwner {
    fn drop(&mut self) {
        let Some(chunk) = self.fresh else { return };
        if *self.published.get_mut() {
            return;
        }
        // On another thread the lane's allocator is out of reach; the chunk then becomes free at the end of the job.
        if let Some(lane) = CurrentLane::get()
            && self.count.is_of(lane.count)
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

/// The lane of the job that runs on this thread.
#[derive(Copy, Clone)]
pub(super) struct CurrentLane {
    pub(super) memory: &'static dyn LaneMemory,
    pub(super) count: &'static LaneCount,
}

impl CurrentLane {
    /// The lane of the job that runs on this thread, if any.
    pub(super) fn get() -> Option<CurrentLane> {
        // While the thread ends, `CURRENT` is destroyed, but other thread-locals may still drop handles.
        CURRENT.try_with(Cell::get).ok().flatten()
    }
}

thread_local! {
    static CURRENT: Cell<Option<CurrentLane>> = const { Cell::new(None) };
}

/// Sets the lane of this thread until the guard is dropped.
pub(crate) fn enter(memory: &'static dyn LaneMemory, count: &'static LaneCount) -> LaneGuard {
    LaneGuard {
        before: CURRENT.replace(Some(CurrentLane { memory, count })),
        thread: PhantomData,
    }
}

/// Restores the previous lane when dropped.
#[must_use]
pub(crate) struct LaneGuard {
    before: Option<CurrentLane>,
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
