//! A region in the supervisor: its segment, its map, and the private accounting of both.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use super::free::FreeRanges;
use super::layout::{CHUNK, GRANULE};
use crate::sync::lock;
use crate::sys::truncation::{self, Watched};
use crate::sys::{self, Map, Prot, Segment};

/// The state of a chunk: 2 MiB of a region.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Chunk {
    /// One bit for each granule (64 KiB); set if the granule is committed.
    pub(super) committed: u32,
    /// Bytes of the chunk below this offset may have been written since they were committed. The bytes from this offset
    /// on are zero.
    pub(super) fresh_from: u32,
    /// Whether the chunk is one huge page.
    pub(super) huge: bool,
}

/// The accounting of a region, in private memory: nothing in shared memory decides who owns what.
#[derive(Debug)]
pub(super) struct RegionAccounting {
    pub(super) free: FreeRanges,
    pub(super) chunks: Vec<Chunk>,
    pub(super) in_use: u64,
    /// Maximum of `in_use` since [`Arena::return_unused`](super::Arena::return_unused) last reset it.
    pub(super) peak: u64,
    pub(super) blocks: u64,
    /// The number of calls of [`RegionAccounting::forget_zeros`]. A thread that punches memory reads the number before
    /// and after: if the two differ, the memory does not count as zero.
    pub(super) zeros_generation: u64,
}

/// Result of [`RegionAccounting::reserve`].
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) start: u64,
    /// Whether the range is known to be zero: no block had it since it was committed.
    pub(super) fresh: bool,
    /// Whether every page of the range is committed.
    pub(super) committed: bool,
}

/// The part of `range` that is in chunk `index`, relative to the chunk's start.
pub(super) fn within(range: &Range<u64>, index: usize) -> Range<u64> {
    let base = index as u64 * CHUNK;
    range.start.max(base) - base..range.end.min(base + CHUNK) - base
}

/// Chunks that `range` touches.
pub(super) fn chunks_of(range: &Range<u64>) -> Range<usize> {
    (range.start / CHUNK) as usize..range.end.div_ceil(CHUNK) as usize
}

/// Bits of the granules that overlap `part` of a chunk.
pub(super) fn touched(part: &Range<u64>) -> u32 {
    bits(part.start / GRANULE, part.end.div_ceil(GRANULE))
}

/// Bits of the granules that are wholly inside `part` of a chunk.
pub(super) fn inside(part: &Range<u64>) -> u32 {
    bits(part.start.div_ceil(GRANULE), part.end / GRANULE)
}

fn bits(from: u64, to: u64) -> u32 {
    if from >= to {
        return 0;
    }
    (((1_u64 << to) - 1) & !((1_u64 << from) - 1)) as u32
}

/// Runs of set bits in the `mask` of chunk `index`, as byte ranges of the region.
pub(super) fn runs(index: usize, mut mask: u32) -> impl Iterator<Item = Range<u64>> {
    let base = index as u64 * CHUNK;
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let from = mask.trailing_zeros();
        let len = (mask >> from).trailing_ones();
        mask &= !bits(u64::from(from), u64::from(from + len));
        Some(base + u64::from(from) * GRANULE..base + u64::from(from + len) * GRANULE)
    })
}

impl RegionAccounting {
    fn new(reservation: u64) -> RegionAccounting {
        RegionAccounting {
            free: FreeRanges::new(reservation),
            chunks: Vec::new(),
            in_use: 0,
            peak: 0,
            blocks: 0,
            zeros_generation: 0,
        }
    }

    /// Takes `len` bytes at a multiple of `align`. Adds the parts that may be nonzero to `stale`.
    pub(super) fn reserve(
        &mut self,
        len: u64,
        align: u64,
        stale: Option<&mut Vec<Range<u64>>>,
    ) -> Option<Reserved> {
        let start = self.free.take(len, align)?;
        Some(self.record(start, len, stale))
    }

    /// Takes `len` bytes at a multiple of `align`, if the range that [`reserve`](Self::reserve) would take is
    /// committed. Otherwise changes nothing and returns `None`.
    pub(super) fn reserve_committed(&mut self, len: u64, align: u64) -> Option<Reserved> {
        let start = self.free.take(len, align)?;
        let range = start..start + len;
        let committed = |index| {
            let chunk = self.chunks.get(index).copied().unwrap_or_default();
            touched(&within(&range, index)) & !chunk.committed == 0
        };
        if !chunks_of(&range).all(committed) {
            self.free.give(start, len);
            return None;
        }
        Some(self.record(start, len, None))
    }

    /// Updates the accounting for a range that was taken from `free`.
    fn record(
        &mut self,
        start: u64,
        len: u64,
        mut stale: Option<&mut Vec<Range<u64>>>,
    ) -> Reserved {
        let range = start..start + len;
        let touched_chunks = chunks_of(&range);
        if self.chunks.len() < touched_chunks.end {
            self.chunks.resize(touched_chunks.end, Chunk::default());
        }
        let mut reserved = Reserved {
            start,
            fresh: true,
            committed: true,
        };
        for index in touched_chunks {
            let part = within(&range, index);
            let chunk = &mut self.chunks[index];
            if part.start < u64::from(chunk.fresh_from) {
                reserved.fresh = false;
                if let Some(stale) = &mut stale {
                    let base = index as u64 * CHUNK;
                    let end = part.end.min(chunk.fresh_from.into());
                    stale.push(base + part.start..base + end);
                }
            }
            chunk.fresh_from = chunk.fresh_from.max(part.end as u32);
            reserved.committed &= touched(&part) & !chunk.committed == 0;
        }
        self.in_use += len;
        self.peak = self.peak.max(self.in_use);
        self.blocks += 1;
        reserved
    }

    /// Marks all committed memory of the region as possibly nonzero. Memory committed later is zero again.
    pub(super) fn forget_zeros(&mut self) {
        self.zeros_generation += 1;
        for chunk in &mut self.chunks {
            chunk.fresh_from = CHUNK as u32;
        }
    }

    /// Frees `len` bytes at `start`.
    pub(super) fn release(&mut self, start: u64, len: u64) {
        self.free.give(start, len);
        self.in_use -= len;
        self.blocks -= 1;
    }

    /// The number of bytes that a commit of `range` would add to the committed bytes.
    pub(super) fn uncommitted(&self, range: &Range<u64>) -> u64 {
        let of = |index: usize| {
            let have = self.chunks.get(index).map_or(0, |chunk| chunk.committed);
            let need = touched(&within(range, index)) & !have;
            u64::from(need.count_ones()) * GRANULE
        };
        chunks_of(range).map(of).sum()
    }

    /// The number of committed bytes.
    pub(super) fn committed(&self) -> u64 {
        self.chunks
            .iter()
            .map(|chunk| u64::from(chunk.committed.count_ones()) * GRANULE)
            .sum()
    }
}

/// Describes memory that another process has removed from a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Whether the segment is too short (truncated). Otherwise memory is missing (holes were punched).
    pub(super) is_truncated: bool,
    /// The length of the segment if `is_truncated`, otherwise the size of its memory, in bytes.
    pub(super) left: u64,
    /// The length or memory size that the accounting expects, in bytes.
    pub(super) expected: u64,
}

impl Missing {
    /// A sentence about the damage. `what` names the segment.
    pub(super) fn describe(&self, what: &str) -> String {
        let Self {
            is_truncated,
            left,
            expected,
        } = self;
        let how = if *is_truncated {
            "truncated"
        } else {
            "hole-punched"
        };
        format!(
            "{what} was {how} by another process of this user: {left} of {expected} bytes are left; \
             Backing::Sealed protects segments from truncation"
        )
    }
}

/// A region: a segment, mapped whole and writable in the supervisor.
///
/// Lock order: `commit_lock`, then `accounting`. `accounting` is held for memory accesses only, never across a system
/// call. `commit_lock` is held while the set of committed pages changes.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) segment: Segment,
    /// Must be dropped before `map`, so it is declared first.
    _watched: Watched,
    pub(super) map: Map,
    /// Length of the segment in bytes. All memory that was ever committed is below it.
    pub(super) len: AtomicU64,
    pub(super) accounting: Mutex<RegionAccounting>,
    pub(super) commit_lock: Mutex<()>,
}

impl Region {
    /// Creates region `index` with `reservation` bytes of address space over an empty segment.
    pub(super) fn new(segment: Segment, reservation: u64, index: u16) -> sys::Result<Region> {
        let len = usize::try_from(reservation)
            .map_err(|_| sys::Error::new("mmap", Errno::ENOMEM, "a region"))?;
        let map = Map::new(&segment, 0, len, Prot::ReadWrite, true)?;
        let watched = truncation::watch(map.base(), map.len(), segment.as_raw_fd(), Some(index));
        Ok(Region {
            segment,
            _watched: watched,
            map,
            len: AtomicU64::new(0),
            accounting: Mutex::new(RegionAccounting::new(reservation)),
            commit_lock: Mutex::new(()),
        })
    }

    /// Compares the segment's length and memory with the accounting. Returns what is missing; `None` if nothing is
    /// missing, or while a commit changes the segment.
    pub(super) fn missing(&self) -> Option<Missing> {
        let _committing = self.commit_lock.try_lock().ok()?;
        let len = self.len();
        let committed = lock(&self.accounting).committed();
        let stat = self.segment.stat().ok()?;
        let is_truncated = stat.len < len;
        (is_truncated || stat.blocks < committed).then_some(Missing {
            is_truncated,
            left: if is_truncated { stat.len } else { stat.blocks },
            expected: if is_truncated { len } else { committed },
        })
    }

    /// Length of the segment in bytes.
    pub(super) fn len(&self) -> u64 {
        // Acquire: "segment grown", pairs with `grow`.
        self.len.load(Ordering::Acquire)
    }

    /// Makes the segment at least `len` bytes long. Fails if another process has truncated the segment: lost content
    /// must not read as zeros. The caller holds `commit_lock`.
    pub(super) fn grow(&self, len: u64) -> sys::Result<()> {
        if self.segment.stat()?.len < self.len() {
            let what = "a segment that another process has truncated";
            return Err(sys::Error::new("ftruncate", Errno::EIO, what));
        }
        if len > self.len() {
            self.segment.set_len(len)?;
            crate::sync::point!("commit.grown");
            // Release: "segment grown", pairs with `len`.
            self.len.store(len, Ordering::Release);
        }
        Ok(())
    }

    /// Records that the granules of `mask` are committed.
    pub(super) fn note_committed(&self, index: usize, mask: u32, huge: bool) {
        let mut accounting = lock(&self.accounting);
        let chunk = &mut accounting.chunks[index];
        chunk.committed |= mask;
        chunk.huge |= huge;
        crate::sync::point!("commit.noted");
    }

    /// The state of a chunk.
    pub(super) fn chunk(&self, index: usize) -> Chunk {
        lock(&self.accounting)
            .chunks
            .get(index)
            .copied()
            .unwrap_or_default()
    }
}
