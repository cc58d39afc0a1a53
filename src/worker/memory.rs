//! Output memory of a lane: grants, and a cursor that allocates from them.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::Arc;

use super::lane::Lane;
use super::pages::GrantId;
use super::retention::{CountedArray, RetainedPages};
use crate::arena::{ArenaFull, BlockPlacement, Extent, FreeRanges, LARGE, Offset, PAGE};
use crate::array::{ArrayLocation, LaneChunk, LaneCount, LaneMemory, PrivateMap};
use crate::link::{AllocAnswer, Granted};
use crate::sys::{Segment, clock};

/// The bump allocator of a lane.
#[derive(Debug)]
pub(super) struct Bump {
    grant: Option<Granted>,
    /// The next free byte of the grant, as an offset in the region.
    cursor: u64,
    /// Offset from which on no byte of the grant was ever written, if the grant was fresh.
    untouched: u64,
    /// The cursor when the job began; `None` if the lane has entered its current grant during the job.
    job_start: Option<u64>,
    /// The grants that were current earlier in the running job.
    retired: Vec<Retired>,
    /// Free bytes below the cursor in the grants of this job: dropped chunks, alignment, and the ends of retired
    /// grants.
    holes: FreeRanges,
    /// Whether the job has ended. Chunks released after that may be part of its reply.
    is_job_over: bool,
}

/// A grant that was current earlier in the running job.
#[derive(Debug)]
struct Retired {
    grant: Granted,
    /// The part of the grant that was free when the job began. The bytes before this part were sent by earlier jobs,
    /// and may have been freed and granted again since.
    part: Range<u64>,
}

impl Default for Bump {
    fn default() -> Self {
        Self {
            grant: None,
            cursor: 0,
            untouched: 0,
            job_start: None,
            retired: Vec::new(),
            holes: FreeRanges::all_taken(),
            is_job_over: false,
        }
    }
}

impl Bump {
    /// Allocates `len` bytes. Returns their offset and whether they are known to be zero, or `None` if the grant has no
    /// room.
    fn place(&mut self, len: u64, placement: BlockPlacement) -> Option<(u64, bool)> {
        let grant = self.grant?;
        if len == 0 {
            // An empty chunk has the same offset as the next chunk.
            return Some((self.cursor, true));
        }
        let unit = placement.unit(len);
        let padded = len.checked_next_multiple_of(unit)?;
        if self.holes.holes() >= padded
            && let Some(at) = self.holes.take_hole(padded, unit)
        {
            return Some((at, false));
        }
        let at = self.cursor.checked_next_multiple_of(unit)?;
        let end = at.checked_add(padded)?;
        if end > range(grant).end {
            return None;
        }
        let fresh = grant.fresh && at >= self.untouched;
        self.untouched = self.untouched.max(end);
        self.add_hole(at, self.job_part(grant));
        self.cursor = end;
        Some((at, fresh))
    }

    /// Returns the part of the current grant that the running job may use.
    fn job_part(&self, current: Granted) -> Range<u64> {
        self.job_start.unwrap_or(current.offset)..range(current).end
    }

    /// Adds the bytes between the cursor and `end` to the holes.
    fn add_hole(&mut self, end: u64, part: Range<u64>) {
        if end > self.cursor {
            let len = end - self.cursor;
            self.holes.give_within(self.cursor, len, part);
        }
    }

    fn begin_job(&mut self) {
        self.job_start = self.grant.map(|_| self.cursor);
        self.is_job_over = false;
    }

    /// Makes `grant` the current grant, and adds the rest of the old grant to the holes.
    fn enter(&mut self, grant: Granted) {
        if let Some(old) = self.grant.replace(grant) {
            let part = self.job_part(old);
            self.add_hole(part.end, part.clone());
            self.retired.push(Retired { grant: old, part });
        }
        self.cursor = grant.offset;
        self.untouched = grant.offset;
        self.job_start = None;
    }

    /// Ends the job: moves the cursor back to the end of the last chunk in `sent`.
    fn end_job(&mut self, region: u16, sent: impl Iterator<Item = Extent>) -> Option<MemoryUse> {
        self.holes.clear();
        self.is_job_over = true;
        let grant = self.grant?;
        // Parameters that the job returns are in other regions, or in chunks that earlier jobs have published.
        let fresh = self.job_part(grant);
        let end = sent
            // A handle without bytes keeps no memory, so its offset may be that of a later grant.
            .filter(|chunk| chunk.len > 0)
            .filter(|chunk| chunk.at.region() == region && fresh.contains(&chunk.at.offset()))
            .map(|chunk| chunk.at.offset() + padded(chunk.len))
            .max();
        self.cursor = end.unwrap_or(fresh.start);
        Some(MemoryUse {
            grant: grant.number,
            cursor: self.cursor,
            left_grants: !self.retired.is_empty(),
        })
    }

    /// Frees a chunk. If it is the last chunk, moves the cursor back, also over a hole directly before the chunk.
    /// Otherwise adds the chunk to the holes.
    fn release(&mut self, at: u64, len: u64) {
        if len == 0 || self.is_job_over {
            return;
        }
        let len = padded(len);
        let current = self.grant.map(|grant| self.job_part(grant));
        let current = current.filter(|part| part.contains(&at));
        if let Some(part) = &current
            && at + len == self.cursor
        {
            // Adjacent holes are merged, so there is at most one directly before the chunk.
            let before = (at > part.start).then(|| self.holes.take_before(at));
            self.cursor = before.flatten().unwrap_or(at);
            return;
        }
        let mut retired = self.retired.iter().map(|retired| &retired.part);
        // The supervisor accepts no chunk that spans two grants, so a hole must not span two either.
        if let Some(part) = current.or_else(|| retired.find(|part| part.contains(&at)).cloned()) {
            self.holes.give_within(at, len, part);
        }
    }
}

fn range(grant: Granted) -> Range<u64> {
    grant.offset..grant.offset + grant.len
}

/// Returns the number of bytes that a chunk of `len` bytes occupies.
fn padded(len: u64) -> u64 {
    len.next_multiple_of(BlockPlacement::Packed.unit(len))
}

/// The position of a lane in its grants at the end of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryUse {
    /// Number of the current grant.
    pub(super) grant: u32,
    /// The offset of the next chunk.
    pub(super) cursor: u64,
    /// Whether the job has used up older grants, which must be reported to the supervisor.
    pub(super) left_grants: bool,
}

/// The output memory of a lane.
#[derive(Debug)]
pub(super) struct LaneHeap {
    bump: RefCell<Bump>,
    /// The last `ArenaFull` in this job.
    pub(super) last_refusal: Cell<Option<ArenaFull>>,
}

impl LaneHeap {
    pub(super) fn new() -> Self {
        Self {
            bump: RefCell::default(),
            last_refusal: Cell::new(None),
        }
    }

    /// Called when a job begins.
    pub(super) fn begin(&self) {
        self.bump.borrow_mut().begin_job();
        self.last_refusal.set(None);
    }
}

impl Lane {
    /// Ends the use of memory by the job. Makes pages of sent chunks and of earlier grants read-only, where pages are
    /// guarded, and moves the cursor back. `sent` are the chunks in the job's reply, `left` the arrays whose handles
    /// outlive the job. Returns `None` if the lane never had a grant.
    pub(super) fn settle(
        &self,
        sent: impl Iterator<Item = Extent> + Clone,
        left: &mut [CountedArray],
    ) -> Option<MemoryUse> {
        let mut bump = self.heap.bump.borrow_mut();
        for array in &mut *left {
            if array.pages == RetainedPages::Writable {
                if sent.clone().any(|chunk| chunk.overlaps(&array.extent)) {
                    array.pages = RetainedPages::Plain;
                }
                self.worker.pages.retain(array.extent, array.pages);
            }
        }
        let chunks = sent.clone().chain(left.iter().map(|array| array.extent));
        let used = bump.end_job(self.worker.region, chunks)?;
        let retired = std::mem::take(&mut bump.retired);
        if self.worker.guard {
            let own = sent.filter(|chunk| chunk.at.region() == self.worker.region);
            // A chunk of this size has whole pages of its own, which are closed as soon as the chunk is sent.
            for chunk in own.filter(|chunk| chunk.len >= LARGE) {
                let at = chunk.at.offset();
                self.worker
                    .pages
                    .close_chunk(at..at + chunk.len.next_multiple_of(PAGE));
            }
            for old in retired {
                self.worker.pages.close_grant(self.id_of(old.grant));
            }
        }
        Some(used)
    }

    fn id_of(&self, grant: Granted) -> GrantId {
        GrantId {
            link: self.link,
            number: grant.number,
        }
    }

    fn refill_cold(&self, len: u64) -> Result<(), ArenaFull> {
        let mut consumer = self.consumer.borrow_mut();
        let granted = match consumer.next_grant() {
            Some(granted) => granted,
            None => {
                consumer.request_alloc(len, clock::monotonic_ns());
                crate::sync::point!("allocate.wanted");
                consumer.claim_monitor_signal();
                self.signal_monitor();
                crate::sync::point!("allocate.rung");
                match consumer.await_grant() {
                    AllocAnswer::Granted(granted) => granted,
                    AllocAnswer::Refused(words) => {
                        let full = super::full_from_words(words);
                        self.heap.last_refusal.set(Some(full));
                        return Err(full);
                    }
                }
            }
        };
        drop(consumer);
        crate::sync::point!("allocate.granted");
        let opened = self
            .worker
            .pages
            .open_grant(self.id_of(granted), range(granted));
        if let Err(error) = opened {
            super::die(&format!("cannot open granted memory: {error}"));
        }
        crate::sync::point!("allocate.opened");
        self.heap.bump.borrow_mut().enter(granted);
        Ok(())
    }
}

#[allow(unsafe_code, reason = "the trait is unsafe to implement")]
// SAFETY: a chunk is in a grant, which the supervisor gave to this lane only, so no other process writes it, and which
// `open_own` made writable until the job is over. It comes from above the cursor, which moves back only over bytes
// without handles, or from a hole, which consists of bytes of this job without handles. `settle` drops all holes, and
// moves the cursor back only to the end of chunks that were sent or have handles; every other handle was counted.
unsafe impl LaneMemory for Lane {
    fn alloc(&self, len: usize, placement: BlockPlacement) -> Result<LaneChunk, ArenaFull> {
        let len = len as u64;
        loop {
            let placed = self.heap.bump.borrow_mut().place(len, placement);
            // An array without bytes needs no grant.
            let placed = placed.or((len == 0).then_some((0, true)));
            if let Some((at, fresh)) = placed {
                crate::sync::point!("allocate.placed");
                let at = Offset::new(self.worker.region, at);
                let extent = Extent { at, len };
                let ptr = match self.worker.view.pointer(extent) {
                    Ok(ptr) => ptr,
                    Err(error) => super::die(&format!("granted memory is out of reach: {error}")),
                };
                return Ok(LaneChunk { ptr, at, fresh });
            }
            // A grant consists of whole pages, so there is room to align its first chunk.
            self.refill_cold(len)?;
        }
    }

    fn private_map(&self, of: ArrayLocation<'_>, len: usize) -> Option<Arc<PrivateMap>> {
        let map = match of {
            ArrayLocation::Lane(extent) => {
                let map = |segment: &Segment, at| PrivateMap::new(segment, at, len, true).ok();
                self.worker.view.with_segment(extent, map)?
            }
            ArrayLocation::File(file, skip) => file.private_map(skip, len),
            _ => None,
        };
        let map = Arc::new(map?);
        crate::sync::point!("private.mapped");
        self.files.note_private(&map);
        Some(map)
    }

    fn count_of(&self, chunk: Extent) -> Option<&'static LaneCount> {
        let retention = self.retention.as_ref()?;
        Some(retention.count_made(chunk))
    }

    fn release(&self, chunk: (Offset, u64)) {
        if let Some(retention) = &self.retention
            && chunk.1 > 0
            && !retention.release_made(chunk.0)
        {
            return;
        }
        self.heap
            .bump
            .borrow_mut()
            .release(chunk.0.offset(), chunk.1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arena::QUANTUM;

    const REGION: u16 = 3;

    fn granted(number: u32, offset: u64, len: u64) -> Granted {
        Granted {
            number,
            offset,
            len,
            fresh: true,
        }
    }

    fn bump(len: u64) -> Bump {
        let mut bump = Bump::default();
        bump.enter(granted(0, 8192, len));
        bump.begin_job();
        bump.retired.clear();
        bump
    }

    fn extent(region: u16, at: u64, len: u64) -> Extent {
        Extent {
            at: Offset::new(region, at),
            len,
        }
    }

    #[test]
    fn dropping_an_empty_array_frees_nothing() {
        let mut bump = bump(64 * 1024);
        let (empty, _) = bump.place(0, BlockPlacement::Packed).unwrap();
        let (first, _) = bump.place(100, BlockPlacement::Packed).unwrap();
        assert_eq!(empty, first, "they share an offset");
        bump.release(empty, 0);
        let (second, _) = bump.place(100, BlockPlacement::Packed).unwrap();
        assert!(second >= first + 100);
    }

    #[test]
    fn a_returned_parameter_does_not_move_the_cursor() {
        let mut bump = bump(64 * 1024);
        let inputs = [
            // At the same offset in another region, longer than the grant; and unaligned.
            extent(0, 8192, 1 << 20),
            extent(0, 8192 + 24, 1000),
            // Published by an earlier job of this lane.
            extent(REGION, 4096, 64),
        ];
        let used = bump.end_job(REGION, inputs.into_iter()).unwrap();
        assert_eq!((used.grant, used.cursor), (0, 8192));
        bump.begin_job();
        let (at, _) = bump.place(100, BlockPlacement::Packed).unwrap();
        let sent = inputs.into_iter().chain([extent(REGION, at, 100)]);
        assert_eq!(bump.end_job(REGION, sent).unwrap().cursor, 8192 + 128);
    }

    #[test]
    fn a_job_that_leaves_grants_reports_it() {
        let mut bump = bump(4096);
        assert!(
            !bump
                .end_job(REGION, std::iter::empty())
                .unwrap()
                .left_grants
        );
        bump.begin_job();
        assert!(bump.place(4097, BlockPlacement::Packed).is_none());
        bump.enter(granted(1, 1 << 20, 8192));
        bump.place(4097, BlockPlacement::Packed).unwrap();
        let used = bump.end_job(REGION, std::iter::empty()).unwrap();
        assert_eq!(
            (used.grant, used.cursor, used.left_grants),
            (1, 1 << 20, true)
        );
    }

    /// A part of a grant that an earlier job sent may be granted again while a job still has the rest of it.
    #[test]
    fn no_hole_spans_two_grants() {
        const BASE: u64 = 2 * PAGE;
        let mut bump = bump(16 * PAGE);
        let place = |bump: &mut Bump, pages: u64| {
            let placed = bump.place(pages * PAGE, BlockPlacement::Pages);
            placed.map(|(at, _)| (at - BASE) / PAGE)
        };
        let release = |bump: &mut Bump, at: u64, pages: u64| {
            // One page at a time: small chunks are not padded.
            for page in at..at + pages {
                bump.release(BASE + page * PAGE, PAGE);
            }
        };
        assert_eq!(place(&mut bump, 4), Some(0));
        let sent = extent(REGION, BASE, 4 * PAGE);
        bump.end_job(REGION, std::iter::once(sent)).unwrap();
        // The caller has dropped the array.
        bump.begin_job();
        assert_eq!(place(&mut bump, 12), Some(4));
        assert_eq!(place(&mut bump, 2), None);
        bump.enter(granted(1, BASE, 2 * PAGE));
        assert_eq!(place(&mut bump, 2), Some(0));
        bump.enter(granted(2, BASE + 2 * PAGE, 2 * PAGE));
        assert_eq!(place(&mut bump, 1), Some(2));
        assert_eq!(place(&mut bump, 1), Some(3));
        release(&mut bump, 2, 1);
        release(&mut bump, 0, 2);
        assert_eq!(place(&mut bump, 3), None, "it would span two grants");
        // Nor together with the rest of the first grant.
        release(&mut bump, 3, 1);
        release(&mut bump, 4, 12);
        assert_eq!(place(&mut bump, 13), None, "it would span two grants");
        assert_eq!(place(&mut bump, 12), Some(4));
        assert_eq!(place(&mut bump, 2), Some(0));
        assert_eq!(place(&mut bump, 2), Some(2));
    }

    /// If a job repeatedly makes arrays and drops the oldest, it uses about as much memory as its live arrays have.
    #[test]
    fn a_job_reuses_dropped_memory() {
        for (live, most) in [(1, 3 << 20), (4, 3 << 20), (1000, 9000)] {
            let mut bump = Bump::default();
            bump.begin_job();
            let mut held = std::collections::VecDeque::new();
            let (mut grants, mut granted_bytes) = (0, 0);
            for step in 0..5000_u64 {
                let len = most / 2 + step * 7919 % (most / 2);
                let at = loop {
                    if let Some((at, _)) = bump.place(len, BlockPlacement::Packed) {
                        break at;
                    }
                    let size = (2 * most).next_multiple_of(PAGE);
                    bump.enter(granted(grants, PAGE + granted_bytes, size));
                    (grants, granted_bytes) = (grants + 1, granted_bytes + size);
                };
                held.push_back((at, len));
                if held.len() > live {
                    let (at, len) = held.pop_front().unwrap();
                    bump.release(at, len);
                }
            }
            let needed = (live as u64 + 1) * most;
            assert!(granted_bytes <= 2 * needed + 4 * most, "{live} of {most}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        /// For any order of allocations and drops, live chunks do not overlap and are inside grants.
        #[test]
        fn live_chunks_do_not_overlap(
            steps in prop::collection::vec(
                (any::<prop::sample::Index>(), prop_oneof![Just(0), 0u64..200, 0u64..9000], 0u8..4),
                1..120,
            ),
        ) {
            let mut bump = Bump::default();
            let mut grants = Vec::new();
            let mut live: Vec<(u64, u64)> = Vec::new();
            let mut next = 4096;
            for (pick, len, what) in steps {
                match what {
                    0 if !live.is_empty() => {
                        let (at, len) = live.swap_remove(pick.index(live.len()));
                        bump.release(at, len);
                    }
                    1 => {
                        // The job ends and sends all live chunks.
                        let sent = live.drain(..).map(|(at, len)| extent(REGION, at, len));
                        let sent: Vec<_> = sent.collect();
                        if let Some(used) = bump.end_job(REGION, sent.iter().copied()) {
                            prop_assert_eq!(used.cursor % QUANTUM, 0);
                            // An empty array may be at an offset beyond chunks that were dropped.
                            let full = sent.iter().filter(|chunk| chunk.len > 0);
                            let end = full.map(|chunk| chunk.at.offset() + chunk.len).max();
                            let (from, to): (u64, u64) = *grants.last().unwrap();
                            prop_assert!((from..=to).contains(&used.cursor));
                            prop_assert!(end.is_none_or(|end| end <= used.cursor || end <= from || end > to));
                            bump.retired.clear();
                        }
                        bump.begin_job();
                    }
                    _ => {
                        let placed = loop {
                            if let Some((at, _)) = bump.place(len, BlockPlacement::Packed) {
                                break at;
                            }
                            // Adjacent grants, so that the end of one is the start of the next.
                            let size = len.max(1).next_multiple_of(PAGE);
                            grants.push((next, next + size));
                            bump.enter(granted(grants.len() as u32, next, size));
                            next += size;
                        };
                        let end = placed + padded(len);
                        prop_assert!(grants.iter().any(|&(from, to)| from <= placed && end <= to));
                        let disjoint = |&(at, len): &(u64, u64)| len == 0 || at + len <= placed || end <= at;
                        prop_assert!(len == 0 || live.iter().all(disjoint));
                        live.push((placed, len));
                    }
                }
            }
        }
    }
}
