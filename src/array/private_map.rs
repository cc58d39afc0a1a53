//! Copy-on-write maps of arrays: [`PrivateMap`].

use std::ops::Range;
use std::sync::Arc;

use super::lane::CurrentLane;
use super::{Array, ArrayLocation};
use crate::sys::limits::DataRoom;
use crate::sys::{self, HUGE, Map, PAGE, Segment};

/// A copy-on-write map of the bytes of an array. Writes to it are visible only through this map. Linux copies only the
/// pages that are written; pages that were not written show the memory of the array, also after it was freed.
///
/// In a worker, all bytes are copied before the job is answered if the map still exists then.
#[derive(Debug)]
pub struct PrivateMap {
    map: Map,
    skip: usize,
    len: usize,
    /// In a worker: raises a limit on private memory by the size of the map, so that the map takes nothing from what
    /// the job may allocate. Dropped after the map.
    room: Option<DataRoom>,
}

impl PrivateMap {
    /// Maps the bytes of an argument or a result of the running job, or of an array of an engine of this program.
    /// Returns `None` for other arrays, in a sandbox, and if no more maps can be made.
    pub fn of(array: &Array<u8>) -> Option<Arc<PrivateMap>> {
        if array.is_empty() {
            return None;
        }
        if let Some(lane) = CurrentLane::get() {
            return lane.memory.private_map(array.location(), array.len());
        }
        let ArrayLocation::Block(block, extent) = array.location() else {
            return None;
        };
        let map = |segment: &Segment, at| PrivateMap::new(segment, at, array.len(), false);
        block.arena().with_segment(extent, map).ok().map(Arc::new)
    }

    /// Maps `len` bytes of a segment from byte `at` on.
    pub(crate) fn new(
        segment: &Segment,
        at: u64,
        len: usize,
        is_of_job: bool,
    ) -> sys::Result<PrivateMap> {
        // Map from a multiple of the page size, so that huge pages of the segment are mapped as huge pages.
        let unit = if len >= HUGE { HUGE } else { PAGE } as u64;
        let start = at / unit * unit;
        let skip = (at - start) as usize;
        // In the program, the engine sets no limit that would have to be raised.
        let room = is_of_job.then(|| DataRoom::new((skip + len).next_multiple_of(PAGE) as u64));
        Ok(PrivateMap {
            map: Map::new_private(segment, start, skip + len)?,
            skip,
            len,
            room,
        })
    }

    /// Whether this was made on the thread of a job.
    pub fn is_of_job(&self) -> bool {
        self.room.is_some()
    }

    /// The address of the first byte. All bytes may be read and written as long as this value lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.map.base().as_ptr().wrapping_add(self.skip)
    }

    /// The number of bytes.
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The addresses of the whole map, which begins before the first byte.
    pub fn addresses(&self) -> Range<usize> {
        let base = self.map.base().addr().get();
        base..base + self.map.len()
    }

    /// Copies all pages into memory of this process: afterwards the memory of the array may change. Other threads may
    /// write to the map meanwhile.
    pub fn detach(&self) {
        self.map.copy_pages();
    }
}
