//! Output memory of one lane: what its worker may fill with results and has not.
//!
//! The worker allocates by moving a cursor through its grants, in order. A reply names the cursor, which says what the
//! job has used, and the arrays that it sends, which have to lie there.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use super::retained::RetainedArrays;
use crate::arena::{Arena, Block, BlockPlacement, Extent, Offset, QUANTUM};
use crate::kernel::wire::{Lease, ReceivedArray, SentArray};
use crate::link::NO_GRANT;

/// From this size on a grant is worth huge pages.
pub(super) const HUGE: u64 = crate::sys::HUGE as u64;
/// The largest grant for several jobs ahead, where lanes share a region.
const LANE_AHEAD: u64 = 64 * 1024;
/// The smallest grant that is given because a kernel is known to need memory.
const GRANT_AHEAD: u64 = 256 * 1024;

/// Output memory that the worker may use and has not published.
#[derive(Debug)]
struct Grant {
    number: u32,
    /// From the cursor on.
    block: Block,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Grants {
    region: u16,
    grants: VecDeque<Grant>,
    /// Bytes granted and not used.
    ahead: u64,
    /// Bytes that the monitor is to grant ahead, because they have to be committed first; 0 for none.
    short_of: u64,
    /// Bytes in use when the arena had no room for that: it is asked for again when fewer are.
    full_at: u64,
    /// Bytes of the last grant.
    last: u64,
}

/// What a reply sends, taken over.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) arrays: SmallVec<[ReceivedArray; 1]>,
    /// Output memory: inputs that come back take none.
    pub(super) bytes: u64,
}

/// Up to this number of arrays and leases, a search from the first to the last is fastest. A reply may send thousands,
/// each of which may be an input of thousands: those are found by position. Tests have few of them.
const FEW: usize = if cfg!(test) { 2 } else { 16 };

/// Memory that a reply names first, and how much of it arrays have.
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

    /// Bytes granted and not used.
    #[inline]
    pub(super) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// Bytes of the last grant.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Bytes of the blocks that the worker may use and has not: what the arena counts for them.
    pub(super) fn held(&self) -> u64 {
        self.grants.iter().map(|grant| grant.block.held()).sum()
    }

    /// The worker was given this block, under this number.
    pub(super) fn add(&mut self, number: u32, block: Block) {
        self.last = block.held();
        self.ahead += self.last;
        self.grants.push_back(Grant { number, block });
    }

    /// Bytes to grant ahead for jobs that take `bytes` each.
    ///
    /// `shared`: lanes share the region.
    pub(super) fn len_ahead(bytes: u64, shared: bool) -> u64 {
        // Whole pages per array, and some to spare.
        let each = bytes.saturating_add(4096);
        match shared {
            // Many lanes with much ahead each would hold what none of them uses.
            true => each.saturating_mul(4).min(LANE_AHEAD).max(each),
            false => each
                .saturating_mul(4)
                .clamp(GRANT_AHEAD, HUGE.max(each.saturating_mul(2))),
        }
    }

    /// Memory of this length to grant ahead, if the arena has it committed. Without it, notes what the monitor is to
    /// grant, unless the arena is too full for that. Also returns whether the monitor has to be called.
    #[cold]
    pub(super) fn find_ahead(&mut self, arena: &Arc<Arena>, len: u64) -> (Option<Block>, bool) {
        if let Some(block) = arena.grant_committed(self.region, len) {
            return (Some(block), false);
        }
        // Without room the worker requests memory when it needs it, and gets the numbers.
        if arena.in_use() >= self.full_at {
            return (None, false);
        }
        // Committing may take a while, or wait for another thread that commits: not under the lock.
        let was_asked = self.short_of != 0;
        self.short_of = len;
        (None, !was_asked)
    }

    /// Takes the number of bytes that the monitor is to grant ahead.
    pub(super) fn take_short_of(&mut self) -> Option<u64> {
        let bytes = std::mem::take(&mut self.short_of);
        (bytes != 0).then_some(bytes)
    }

    /// The monitor has committed memory to grant ahead, or could not because the arena was full with this many bytes in
    /// use.
    pub(super) fn committed(&mut self, full_at: Option<u64>) {
        // Asked again meanwhile, without knowing of this.
        self.short_of = 0;
        self.full_at = full_at.unwrap_or(u64::MAX);
    }

    /// Takes over what a reply sends: arrays, and a block with the reply's words where they did not fit into the slot.
    /// Frees what the job used and did not send. `retained`: what the lane retains of earlier jobs.
    ///
    /// # Errors
    ///
    /// What is wrong with the reply.
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
                // Zero bytes have no position: the offset may be that of any array next to it.
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
                    // Several arrays without bytes may have one offset; they are not the same.
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
                    // Views may overlap, and there may be thousands: together they count for at most the chunk.
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

    /// Whether the extent lies in memory that the worker may use.
    pub(super) fn contain(&self, extent: Extent) -> bool {
        let mut grants = self.grants.iter();
        grants.any(|grant| skip_within(whole(&grant.block), extent).is_some())
    }

    /// Moves the worker's cursor: the memory before it is used, and no longer granted. Returns that memory.
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

    /// Frees all that was granted. Only after the exit of the worker is confirmed.
    pub(super) fn revoke(&mut self) {
        self.grants.clear();
        self.ahead = 0;
        self.short_of = 0;
        self.full_at = u64::MAX;
        self.last = 0;
    }
}

/// Memory that a job has used and that none of the arrays named so far lies in.
struct Pieces {
    pieces: SmallVec<[Block; 2]>,
    /// By where each begins, if there may be many.
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

    /// The piece with these bytes, and where in it they begin.
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

/// What a job read or borrowed, which its reply may send back.
struct Inputs<'a> {
    leases: &'a [Lease],
    /// If there may be many: where each may be sent from begins and ends, and its number among the leases, in this
    /// order; and the largest end up to there.
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

    /// The bytes that may be sent: of what was lent, nothing else of its block.
    fn extent(lease: &Lease) -> Option<Extent> {
        match lease {
            Lease::Shared(block) | Lease::Owned(block) => Some(block.extent()),
            Lease::Loan { extent, .. } => Some(*extent),
            Lease::Lent(_) | Lease::File(_) => None,
        }
    }

    /// The block with these bytes, and where in it they begin.
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

/// What a block holds, with the padding.
fn whole(block: &Block) -> Extent {
    Extent {
        len: block.held(),
        ..block.extent()
    }
}

#[cfg(any(test, feature = "points"))]
impl Grants {
    /// Where the grant of this number begins, from the cursor on.
    #[cfg(test)]
    pub(super) fn granted_at(&self, number: u32) -> Option<u64> {
        let grant = self.grants.iter().find(|grant| grant.number == number)?;
        Some(grant.block.extent().at.offset())
    }

    /// Bytes that the monitor is to grant ahead.
    #[cfg(test)]
    pub(super) fn short_of(&self) -> u64 {
        self.short_of
    }

    /// Offset and bytes of what is granted and not used.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, u64)> {
        let block = |grant: &Grant| (grant.block.extent().at.offset(), grant.block.held());
        self.grants.iter().map(block)
    }
}

/// How far into `outer` the extent `inner` begins, if it lies within it.
pub(super) fn skip_within(outer: Extent, inner: Extent) -> Option<u64> {
    if outer.at.region() != inner.at.region() {
        return None;
    }
    let skip = inner.at.offset().checked_sub(outer.at.offset())?;
    (skip.checked_add(inner.len)? <= outer.len).then_some(skip)
}
