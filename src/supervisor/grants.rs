//! The output memory of one lane: memory that its worker may fill with results.
//!
//! The worker allocates by moving a cursor through its grants, in order. A reply contains the position of the cursor,
//! which shows what the job has used, and the arrays of the reply, which must lie in the used memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use super::retained::RetainedArrays;
use crate::arena::{Arena, Block, BlockPlacement, Extent, Offset, QUANTUM};
use crate::kernel::wire::{Lease, ReceivedArray, SentArray};
use crate::link::NO_GRANT;

/// A grant of at least this size is placed on huge pages.
pub(super) const HUGE: u64 = crate::sys::HUGE as u64;
/// The maximum size of a grant for several jobs ahead, if lanes share a region.
const LANE_AHEAD: u64 = 64 * 1024;
/// The minimum size of a grant that is made because a kernel is known to need memory.
const GRANT_AHEAD: u64 = 256 * 1024;

/// Memory that the worker may use and has not published.
#[derive(Debug)]
struct Grant {
    number: u32,
    /// The memory from the cursor on.
    block: Block,
}

/// The grants of one lane: see the module.
#[derive(Debug)]
pub(super) struct Grants {
    region: u16,
    grants: VecDeque<Grant>,
    /// Bytes that are granted and not used.
    ahead: u64,
    /// Bytes that the monitor has to commit first and then grant ahead; 0 for none.
    short_of: u64,
    /// The arena's bytes in use when it had no room for a grant ahead. The grant is tried again when fewer bytes are in
    /// use.
    full_at: u64,
    /// The size of the last grant in bytes.
    last: u64,
}

/// The contents of a reply, taken over from the worker.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) arrays: SmallVec<[ReceivedArray; 1]>,
    /// Bytes of fresh memory in the reply; inputs that come back do not count.
    pub(super) bytes: u64,
}

/// Up to this number of arrays and leases, a linear search is fastest. A reply may contain thousands of arrays, and
/// each may be one of thousands of inputs: these are found by position. The number is small in tests, so that they
/// cover both searches.
const FEW: usize = if cfg!(test) { 2 } else { 16 };

/// A chunk of memory that a reply has described, and the number of its bytes that arrays cover.
struct Fresh {
    chunk: Extent,
    block: Arc<Block>,
    viewed: u64,
}

impl Grants {
    pub(super) fn new(region: u16) -> Self {
        Self {
            region,
            grants: VecDeque::new(),
            ahead: 0,
            short_of: 0,
            full_at: u64::MAX,
            last: 0,
        }
    }

    pub(super) fn region(&self) -> u16 {
        self.region
    }

    /// Returns the number of bytes that are granted and not used, as the arena counts them.
    #[inline]
    pub(super) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// Returns the size of the last grant in bytes.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Records that the worker was granted this block under this number.
    pub(super) fn add(&mut self, number: u32, block: Block) {
        self.last = block.held();
        self.ahead += self.last;
        self.grants.push_back(Grant { number, block });
    }

    /// Returns the number of bytes to grant ahead for jobs that take `bytes` each.
    ///
    /// `shared`: whether lanes share the region.
    pub(super) fn len_ahead(bytes: u64, shared: bool) -> u64 {
        // Whole pages per array, and some more.
        let each = bytes.saturating_add(4096);
        match shared {
            // With many lanes, large grants ahead would take memory that no lane uses.
            true => each.saturating_mul(4).min(LANE_AHEAD).max(each),
            false => each
                .saturating_mul(4)
                .clamp(GRANT_AHEAD, HUGE.max(each.saturating_mul(2))),
        }
    }

    /// Allocates memory of this length to grant ahead, if the arena has it committed. Otherwise records what the
    /// monitor has to commit, unless the arena is too full. Also returns whether the monitor has to be called.
    #[cold]
    pub(super) fn find_ahead(&mut self, arena: &Arc<Arena>, len: u64) -> (Option<Block>, bool) {
        if let Some(block) = arena.grant_committed(self.region, len) {
            return (Some(block), false);
        }
        // If there is no room, the worker requests memory when it needs it, and then gets an error with the numbers.
        if arena.in_use() >= self.full_at {
            return (None, false);
        }
        // The monitor commits without the lock, because committing may take a while, or wait for another thread that
        // commits.
        let was_asked = self.short_of != 0;
        self.short_of = len;
        (None, !was_asked)
    }

    /// Removes and returns the number of bytes that the monitor has to grant ahead.
    pub(super) fn take_short_of(&mut self) -> Option<u64> {
        let bytes = std::mem::take(&mut self.short_of);
        (bytes != 0).then_some(bytes)
    }

    /// Records that the monitor has committed memory to grant ahead, or that the arena was full with `full_at` bytes in
    /// use.
    pub(super) fn committed(&mut self, full_at: Option<u64>) {
        // This also clears a request that was made in the meantime without knowledge of this result.
        self.short_of = 0;
        self.full_at = full_at.unwrap_or(u64::MAX);
    }

    /// Takes over the contents of a reply: its arrays, and the block of its words if they did not fit into the slot.
    /// Frees the memory that the job used and did not send. `retained`: arrays of earlier jobs that the lane retains.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the reply.
    pub(super) fn receive(
        &mut self,
        arena: &Arc<Arena>,
        grant: u64,
        cursor: u64,
        sent: &[SentArray],
        leases: &[Lease],
        retained: &RetainedArrays,
    ) -> Result<Taken, String> {
        let is_long = sent.len() > FEW;
        let mut pieces = Pieces::new(self.advance(grant, cursor)?, is_long);
        let inputs = Inputs::new(leases, is_long);
        let mut fresh: SmallVec<[Fresh; 2]> = SmallVec::new();
        let mut numbers = HashMap::new();
        let mut received = SmallVec::new();
        for array in sent {
            if array.view.len == 0 {
                // An array of zero bytes has no position: its offset may be the end of any array.
                let empty = arena.alloc(self.region, 0, BlockPlacement::Packed);
                let block = Arc::new(empty.map_err(|full| full.to_string())?);
                received.push(ReceivedArray {
                    block,
                    skip: 0,
                    len: 0,
                });
                continue;
            }
            let lent = inputs.find(array.view);
            let earlier = || {
                let block = retained.find(array.view)?;
                Some((Arc::clone(block), skip_within(block.extent(), array.view)?))
            };
            let (block, skip) = match lent.or_else(earlier) {
                Some(found) => found,
                None => {
                    // Several arrays of zero bytes may have the same offset; they are different arrays.
                    let key = (array.chunk.at, array.chunk.len);
                    let known = match is_long {
                        true => numbers.get(&key).copied(),
                        false => fresh.iter().position(|known| known.chunk == array.chunk),
                    };
                    let at = match known.filter(|_| array.chunk.len > 0) {
                        Some(at) => at,
                        None => {
                            fresh.push(Fresh {
                                chunk: array.chunk,
                                block: Arc::new(Self::carve(&mut pieces, array.chunk)?),
                                viewed: 0,
                            });
                            if is_long {
                                numbers.insert(key, fresh.len() - 1);
                            }
                            fresh.len() - 1
                        }
                    };
                    let skip = skip_within(array.chunk, array.view).ok_or_else(|| {
                        format!("an array at {:?} outside its memory", array.view)
                    })?;
                    let known = &mut fresh[at];
                    // Views may overlap, and there may be thousands of them: together they count for at most the chunk.
                    known.viewed = known
                        .viewed
                        .saturating_add(array.view.len)
                        .min(array.chunk.len);
                    (Arc::clone(&known.block), skip)
                }
            };
            received.push(ReceivedArray {
                block,
                skip,
                len: array.view.len,
            });
        }
        Ok(Taken {
            arrays: received,
            bytes: fresh.iter().map(|fresh| fresh.viewed).sum(),
        })
    }

    /// Returns true if the extent lies in memory that the worker may use.
    pub(super) fn contain(&self, extent: Extent) -> bool {
        let mut grants = self.grants.iter();
        grants.any(|grant| skip_within(whole(&grant.block), extent).is_some())
    }

    /// Moves the worker's cursor. The memory up to the new position is no longer granted. Returns that memory.
    fn advance(&mut self, number: u64, cursor: u64) -> Result<SmallVec<[Block; 2]>, String> {
        let mut pieces = SmallVec::new();
        if number == NO_GRANT {
            return Ok(pieces);
        }
        let bad = || format!("a cursor at {cursor} of grant {number}, which it does not hold");
        let position = self
            .grants
            .iter()
            .position(|grant| u64::from(grant.number) == number)
            .ok_or_else(bad)?;
        let current = &self.grants[position].block;
        let used = cursor
            .checked_sub(current.extent().at.offset())
            .filter(|used| *used <= current.held() && used.is_multiple_of(QUANTUM))
            .or((current.held() == 0).then_some(0))
            .ok_or_else(bad)?;
        for old in self.grants.drain(..position) {
            self.ahead -= old.block.held();
            pieces.push(old.block);
        }
        if used > 0 {
            let current = &mut self.grants[0].block;
            let rest = current.split_off(used);
            pieces.push(std::mem::replace(current, rest));
            self.ahead -= used;
        }
        Ok(pieces)
    }

    /// Splits a chunk off the used pieces.
    fn carve(pieces: &mut Pieces, chunk: Extent) -> Result<Block, String> {
        let bad = || format!("an array at {chunk:?}, which was not granted");
        let unit = BlockPlacement::Packed.unit(chunk.len);
        let held = chunk.len.checked_next_multiple_of(unit).ok_or_else(bad)?;
        let extent = Extent {
            at: chunk.at,
            len: held,
        };
        let (piece, skip) = pieces.find(extent).ok_or_else(bad)?;
        if !skip.is_multiple_of(QUANTUM) {
            return Err(bad());
        }
        let mut block = piece.split_off(skip);
        let after = block.split_off(held);
        if !after.is_empty() {
            pieces.add(after);
        }
        Ok(block)
    }

    /// Frees all granted memory. Called only after the exit of the worker is confirmed.
    pub(super) fn revoke(&mut self) {
        self.grants.clear();
        self.ahead = 0;
        self.short_of = 0;
        self.full_at = u64::MAX;
        self.last = 0;
    }
}

/// Memory that a job has used, without the arrays of its reply that were carved out of it.
struct Pieces {
    pieces: SmallVec<[Block; 2]>,
    /// The pieces by start offset, if there may be many.
    by_start: Option<BTreeMap<Offset, usize>>,
}

impl Pieces {
    fn new(pieces: SmallVec<[Block; 2]>, may_be_many: bool) -> Self {
        let starts = || {
            let starts = pieces.iter().enumerate();
            starts.map(|(number, piece)| (piece.extent().at, number))
        };
        let by_start = may_be_many.then(|| starts().collect());
        Self { pieces, by_start }
    }

    fn add(&mut self, piece: Block) {
        if let Some(by_start) = &mut self.by_start {
            by_start.insert(piece.extent().at, self.pieces.len());
        }
        self.pieces.push(piece);
    }

    /// Returns the piece that contains this extent, and the offset of the extent in it.
    fn find(&mut self, extent: Extent) -> Option<(&mut Block, u64)> {
        let number = match &self.by_start {
            Some(by_start) => *by_start.range(..=extent.at).next_back()?.1,
            None => {
                let mut all = self.pieces.iter();
                all.position(|piece| skip_within(whole(piece), extent).is_some())?
            }
        };
        let piece = &mut self.pieces[number];
        let skip = skip_within(whole(piece), extent)?;
        Some((piece, skip))
    }
}

/// The arrays that a job read or borrowed: its reply may contain them.
struct Inputs<'a> {
    leases: &'a [Lease],
    /// If there may be many inputs: one entry for each, sorted by start. An entry has the start and the end of the
    /// extent that a reply may contain, its index among the leases, and the largest end of all entries up to this one.
    by_start: Option<Vec<(Offset, u64, usize, u64)>>,
}

impl<'a> Inputs<'a> {
    fn new(leases: &'a [Lease], is_long: bool) -> Self {
        let by_start = (is_long && leases.len() > FEW).then(|| {
            let extents = leases.iter().enumerate();
            let mut all: Vec<_> = extents
                .filter_map(|(number, lease)| {
                    let extent = Self::extent(lease)?;
                    Some((extent.at, extent.at.offset() + extent.len, number, 0))
                })
                .collect();
            all.sort_unstable();
            let mut before = (0, 0);
            for (at, end, _, largest) in &mut all {
                if at.region() != before.0 {
                    before = (at.region(), 0);
                }
                before.1 = before.1.max(*end);
                *largest = before.1;
            }
            all
        });
        Self { leases, by_start }
    }

    /// Returns the extent that a reply may contain: of lent memory only the part of the block that was lent.
    fn extent(lease: &Lease) -> Option<Extent> {
        match lease {
            Lease::Shared(block) | Lease::Owned(block) => Some(block.extent()),
            Lease::Loan { extent, .. } => Some(*extent),
            Lease::Lent(_) | Lease::File(_) => None,
        }
    }

    /// Returns the block that contains this extent, and the offset of the extent in it.
    fn find(&self, view: Extent) -> Option<(Arc<Block>, u64)> {
        let number = match &self.by_start {
            None => self.leases.iter().position(|lease| {
                Self::extent(lease).is_some_and(|extent| skip_within(extent, view).is_some())
            })?,
            Some(by_start) => {
                let end = view.at.offset().checked_add(view.len)?;
                let before = by_start.partition_point(|&(at, ..)| at <= view.at);
                let mut before = by_start[..before]
                    .iter()
                    .rev()
                    .take_while(|(at, .., largest)| {
                        at.region() == view.at.region() && *largest >= end
                    });
                before.find(|&&(_, ends, ..)| ends >= end)?.2
            }
        };
        match &self.leases[number] {
            Lease::Shared(block) | Lease::Owned(block) | Lease::Loan { block, .. } => {
                Some((Arc::clone(block), skip_within(block.extent(), view)?))
            }
            Lease::Lent(_) | Lease::File(_) => None,
        }
    }
}

/// Returns the extent of a block, with its padding.
fn whole(block: &Block) -> Extent {
    Extent {
        len: block.held(),
        ..block.extent()
    }
}

#[cfg(any(test, feature = "points"))]
impl Grants {
    /// Returns the number of bytes that the monitor has to grant ahead.
    #[cfg(test)]
    pub(super) fn short_of(&self) -> u64 {
        self.short_of
    }

    /// Returns the offset and size in bytes of the granted, unused memory.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, u64)> {
        let block = |grant: &Grant| (grant.block.extent().at.offset(), grant.block.held());
        self.grants.iter().map(block)
    }
}

/// Returns the offset of `inner` in `outer`, if it lies within.
pub(super) fn skip_within(outer: Extent, inner: Extent) -> Option<u64> {
    if outer.at.region() != inner.at.region() {
        return None;
    }
    let skip = inner.at.offset().checked_sub(outer.at.offset())?;
    (skip.checked_add(inner.len)? <= outer.len).then_some(skip)
}
