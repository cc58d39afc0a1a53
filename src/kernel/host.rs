//! The interface through which a running kernel uses its lane: [`Host`].

use std::ptr::NonNull;
use std::sync::Arc;

use super::failure::BadArgument;
use crate::arena::{ArenaFull, Extent};
use crate::array::{FileName, LaneChunk, LaneCount, SealedFile};

/// The error for an argument that refers to memory which this process cannot reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable(pub(crate) String);

/// The lane of a worker, for the code that reads the arguments and writes the replies of its kernels.
///
/// # Safety
/// `read` and `lend` return addresses at which `extent.len` bytes stay mapped and readable until the job has ended and
/// the counter of their handles is 0. Bytes from `lend` are writable until the job ends. If `count_of_moved` was called
/// for them and no part of them was sent, they are writable as long as there are handles.
pub(crate) unsafe trait Host {
    /// Returns the address in this process of an array that the job reads.
    fn read(&self, extent: Extent) -> Result<NonNull<u8>, Unreachable>;
    /// Returns the address of an array that the job changes, writable until the job ends. Also makes the `behind` bytes
    /// that follow the array writable: whole pages that belong to no other array. `has_gaps`: whether the job changes
    /// only a part of the array, so that its other arrays may have bytes in between.
    fn lend(&self, extent: Extent, behind: u64, has_gaps: bool)
    -> Result<NonNull<u8>, Unreachable>;
    /// Maps a sealed memory file of the supervisor. If the file is not sealed as a whole, maps only `bytes` (offset and
    /// length), which do not change while a job has them.
    fn open_file(&self, name: FileName, bytes: (u64, u64)) -> Result<Arc<SealedFile>, BadArgument>;
    /// Returns the counter of this lane's array handles.
    fn count(&self) -> &'static LaneCount;
    /// Returns the counter for the handles of an array that was just read or lent.
    fn count_of(&self, _extent: Extent) -> &'static LaneCount {
        self.count()
    }
    /// Like [`count_of`](Host::count_of), for an array that has moved into the job.
    fn count_of_moved(&self, extent: Extent) -> &'static LaneCount {
        self.count_of(extent)
    }
    /// Returns true if an earlier job made this chunk and the lane retains it: the supervisor has leased the chunk for
    /// the lane.
    fn has_retained(&self, _chunk: Extent) -> bool {
        false
    }
    /// Returns true if a reply may send an array with this counter without a copy, because the array belongs to the
    /// job, or the lane retains it.
    fn owns(&self, count: &'static LaneCount) -> bool {
        std::ptr::eq(count, self.count())
    }
    /// Returns true if the lane retains arrays whose handles outlive their job. Such a lane counts the handles of each
    /// array.
    fn retains(&self) -> bool {
        false
    }
    /// Called by a subtree before each of its nodes, with the seed of the node's random numbers. Returns
    /// true if the job has been cancelled.
    fn step(&self, _seed: u64) -> bool {
        false
    }
    /// Allocates `len` bytes of output memory.
    fn alloc(&self, len: usize) -> Result<LaneChunk, ArenaFull>;
}
