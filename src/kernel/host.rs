//! What a running kernel needs from the place where it runs.

use std::ptr::NonNull;

use crate::arena::{ArenaFull, Extent};
use crate::array::{LaneChunk, LaneCount};

/// The argument names memory that this process cannot reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable(pub(crate) String);

/// The worker, as its kernels' arguments and replies see it.
///
/// # Safety
/// `read` and `lend` return addresses at which `extent.len` bytes stay mapped until the job ends,
/// readable, and for `lend` writable.
pub(crate) unsafe trait Host {
    /// Where an array that the job reads lies in this process.
    fn read(&self, extent: Extent) -> Result<NonNull<u8>, Unreachable>;
    /// Where an array that the job changes lies, open for writing until the job ends; and with it so many bytes of whole
    /// pages behind its own, which nobody else has.
    fn lend(&self, extent: Extent, behind: u64) -> Result<NonNull<u8>, Unreachable>;
    /// The counter of this lane's handles.
    fn count(&self) -> &'static LaneCount;
    /// The job is a chain or a subtree, and has come to its node of this number, which draws its own random numbers. True if somebody
    /// asked it to stop.
    fn step(&self, _at: u32, _seed: u64) -> bool {
        false
    }
    /// Output memory.
    fn alloc(&self, len: usize) -> Result<LaneChunk, ArenaFull>;
}
