//! One region as the supervisor keeps it: the segment, its map, and the private books about it.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::budget::lock;
use super::free::FreeRanges;
use super::layout::{CHUNK, GRANULE};
use crate::sys::cut::{self, Watched};
use crate::sys::{self, Map, Prot, Segment};

/// What is known about 2 MiB of a region.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Chunk {
    /// One bit per 64 KiB that has memory.
    pub(super) committed: u32,
    /// Bytes of the chunk before this one were given out since they were last committed; the rest is zero.
    pub(super) fresh_from: u32,
    /// It is one huge page.
    pub(super) huge: bool,
}

/// The books of a region. Private memory: nothing in shared memory decides who owns what.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) free: FreeRanges,
    pub(super) chunks: Vec<Chunk>,
    pub(super) in_use: u64,
    pub(super) blocks: u64,
    /// How often all zeros were forgotten: who has just made some knows whether they still count.
    pub(super) forgotten: u64,
}

/// What [`Books::reserve`] found.
#[derive(Debug)]
pub(super) struct Reserved {
    pub(super) start: u64,
    /// Nobody has written to it since it was committed.
    pub(super) fresh: bool,
    /// Every page of it has memory.
    pub(super) committed: bool,
}

/// The part of `range` in chunk `index`, counted from the chunk's start.
pub(super) fn within(range: &Range<u64>, index: usize) -> Range<u64> {
    let base = index as u64 * CHUNK;
    range.start.max(base) - base..range.end.min(base + CHUNK) - base
}

/// Chunks that `range` touches.
pub(super) fn chunks_of(range: &Range<u64>) -> Range<usize> {
    (range.start / CHUNK) as usize..range.end.div_ceil(CHUNK) as usize
}

/// Bits of the granules that `part` of a chunk touches.
pub(super) fn touched(part: &Range<u64>) -> u32 {
    bits(part.start / GRANULE, part.end.div_ceil(GRANULE))
}

/// Bits of the granules that lie wholly in `part` of a chunk.
pub(super) fn inside(part: &Range<u64>) -> u32 {
    bits(part.start.div_ceil(GRANULE), part.end / GRANULE)
}

fn bits(from: u64, to: u64) -> u32 {
    if from >= to {
        return 0;
    }
    (((1_u64 << to) - 1) & !((1_u64 << from) - 1)) as u32
}

/// Runs of set bits, as byte ranges of the region.
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

impl Books {
    fn new(reservation: u64) -> Books {
        Books {
            free: FreeRanges::new(reservation),
            chunks: Vec::new(),
            in_use: 0,
            blocks: 0,
            forgotten: 0,
        }
    }

    /// Takes `len` bytes at a multiple of `align`. With `stale`, notes there which parts are not known to be zero.
    pub(super) fn reserve(
        &mut self,
        len: u64,
        align: u64,
        stale: Option<&mut Vec<Range<u64>>>,
    ) -> Option<Reserved> {
        let start = self.free.take(len, align)?;
        Some(self.enter(start, len, stale))
    }

    /// Takes `len` bytes at a multiple of `align`, if what comes first has memory; otherwise changes nothing.
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
        Some(self.enter(start, len, None))
    }

    /// Notes a range that was taken.
    fn enter(&mut self, start: u64, len: u64, mut stale: Option<&mut Vec<Range<u64>>>) -> Reserved {
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
        self.blocks += 1;
        reserved
    }

    /// Nothing that lies in the region is known to be zero any more: what comes later is.
    pub(super) fn forget_zeros(&mut self) {
        self.forgotten += 1;
        for chunk in &mut self.chunks {
            chunk.fresh_from = CHUNK as u32;
        }
    }

    /// Takes `len` bytes at `start` back.
    pub(super) fn release(&mut self, start: u64, len: u64) {
        self.free.give(start, len);
        self.in_use -= len;
        self.blocks -= 1;
    }

    /// Bytes that a commit of `range` takes beyond those that have memory.
    pub(super) fn uncommitted(&self, range: &Range<u64>) -> u64 {
        let of = |index: usize| {
            let have = self.chunks.get(index).map_or(0, |chunk| chunk.committed);
            let need = touched(&within(range, index)) & !have;
            u64::from(need.count_ones()) * GRANULE
        };
        chunks_of(range).map(of).sum()
    }

    /// Bytes that have memory.
    pub(super) fn committed(&self) -> u64 {
        self.chunks
            .iter()
            .map(|chunk| u64::from(chunk.committed.count_ones()) * GRANULE)
            .sum()
    }
}

/// What somebody else has taken away from a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Length, rather than memory.
    pub(super) cut: bool,
    /// Bytes that are left, and that there should be.
    pub(super) left: u64,
    pub(super) expected: u64,
}

impl Missing {
    /// What a person has to know about it.
    pub(super) fn told(&self, what: &str) -> String {
        let Self {
            cut,
            left,
            expected,
        } = self;
        let how = if *cut { "cut" } else { "punched" };
        format!(
            "{what} was {how} by another process of this user: {left} of {expected} bytes are left; \
             Backing::Sealed keeps segments from being cut"
        )
    }
}

/// One region: a segment, mapped whole and writable in the supervisor.
///
/// Locks, in this order: `turn`, then `books`. `books` is held for memory accesses only, never over a system call;
/// `turn` is held by whoever changes what is committed.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) segment: Segment,
    /// Before the map, which it speaks of.
    _watched: Watched,
    pub(super) map: Map,
    /// Length of the segment: what has been committed at some time lies below it.
    pub(super) len: AtomicU64,
    pub(super) books: Mutex<Books>,
    pub(super) turn: Mutex<()>,
}

impl Region {
    /// Region `index` of `reservation` bytes of addresses over an empty segment.
    pub(super) fn new(segment: Segment, reservation: u64, index: u16) -> sys::Result<Region> {
        let len = usize::try_from(reservation)
            .map_err(|_| sys::Error::new("mmap", nix::errno::Errno::ENOMEM, "a region"))?;
        let map = Map::new(&segment, 0, len, Prot::ReadWrite, true)?;
        let watched = cut::watch(map.base(), map.len(), segment.as_raw_fd(), Some(index));
        Ok(Region {
            segment,
            _watched: watched,
            map,
            len: AtomicU64::new(0),
            books: Mutex::new(Books::new(reservation)),
            turn: Mutex::new(()),
        })
    }

    /// Whether the segment still has the length and the memory that the books count; if not, what is missing. `None`
    /// too while a commit changes both.
    pub(super) fn missing(&self) -> Option<Missing> {
        let _turn = self.turn.try_lock().ok()?;
        let len = self.len();
        let committed = lock(&self.books).committed();
        let stat = self.segment.stat().ok()?;
        let cut = stat.len < len;
        (cut || stat.blocks < committed).then_some(Missing {
            cut,
            left: if cut { stat.len } else { stat.blocks },
            expected: if cut { len } else { committed },
        })
    }

    /// Length of the segment in bytes.
    pub(super) fn len(&self) -> u64 {
        // Acquire: "segment grown", pairs with `grow`.
        self.len.load(Ordering::Acquire)
    }

    /// Makes the segment at least `len` bytes long. Only with `turn`.
    pub(super) fn grow(&self, len: u64) -> sys::Result<()> {
        if len > self.len() {
            self.segment.set_len(len)?;
            crate::sync::point!("commit.grown");
            // Release: "segment grown", pairs with `len`.
            self.len.store(len, Ordering::Release);
        }
        Ok(())
    }

    /// Notes that the granules of `mask` have memory now.
    pub(super) fn note_committed(&self, index: usize, mask: u32, huge: bool) {
        let mut books = lock(&self.books);
        let chunk = &mut books.chunks[index];
        chunk.committed |= mask;
        chunk.huge |= huge;
        crate::sync::point!("commit.noted");
    }

    /// What is known about a chunk now.
    pub(super) fn chunk(&self, index: usize) -> Chunk {
        lock(&self.books)
            .chunks
            .get(index)
            .copied()
            .unwrap_or_default()
    }
}
