//! Output memory of a lane: grants, a cursor, and the pages behind them.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::lane::Lane;
use crate::arena::{ArenaFull, Extent, Offset, Placement};
use crate::array::{LaneChunk, LaneMemory};
use crate::link::{Answer, Granted};

/// From this size on a chunk has whole pages of its own, closed as soon as it is sent.
pub(super) const OWN_PAGES: u64 = 64 * 1024;
const PAGE: u64 = 4096;
const ALIGN: u64 = 64;

/// Where the lane allocates.
#[derive(Debug, Default)]
pub(super) struct Bump {
    grant: Option<Granted>,
    /// The next free byte of the grant, as an offset in the region.
    cursor: u64,
    /// From here on the grant's bytes have never been written, if it came fresh.
    untouched: u64,
    /// The cursor when the job began, if the grant is the same.
    job_start: Option<u64>,
    /// Grants that were used up in this job.
    retired: Vec<Granted>,
    /// Chunks of this job that are not rolled back, oldest first.
    chunks: Vec<(u64, u64)>,
}

impl Bump {
    fn place(&mut self, len: u64, placement: Placement) -> Option<(u64, bool)> {
        let grant = self.grant?;
        let (align, padded) = if len >= OWN_PAGES || placement == Placement::Pages {
            (PAGE, len.checked_next_multiple_of(PAGE)?)
        } else {
            (ALIGN, len.checked_next_multiple_of(ALIGN)?)
        };
        let at = self.cursor.checked_next_multiple_of(align)?;
        let end = at.checked_add(padded)?;
        if end > grant.offset + grant.len {
            return None;
        }
        let fresh = grant.fresh && at >= self.untouched;
        self.untouched = self.untouched.max(end);
        self.cursor = end;
        self.chunks.push((at, end));
        Some((at, fresh))
    }

    fn enter(&mut self, grant: Granted) {
        if let Some(old) = self.grant.replace(grant) {
            self.retired.push(old);
        }
        self.cursor = grant.offset;
        self.untouched = grant.offset;
        self.job_start = None;
    }

    /// A chunk was dropped. If it is the newest one the cursor goes back; a chunk in an older grant
    /// is only forgotten.
    fn release(&mut self, at: u64) {
        if self.chunks.last().is_some_and(|&(start, _)| start == at) {
            self.chunks.pop();
            if self
                .grant
                .is_some_and(|grant| (grant.offset..grant.offset + grant.len).contains(&at))
            {
                self.cursor = at;
            }
        }
    }
}

/// What the end of a job means for the lane's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// Number of the current grant.
    pub(super) grant: u32,
    /// Where the next chunk would go.
    pub(super) cursor: u64,
}

/// The lane as its arrays see it.
#[derive(Debug)]
pub(super) struct LaneHeap {
    bump: RefCell<Bump>,
    /// The last refusal in this job.
    pub(super) full: Cell<Option<ArenaFull>>,
}

impl LaneHeap {
    pub(super) fn new() -> Self {
        Self {
            bump: RefCell::default(),
            full: Cell::new(None),
        }
    }

    /// A job begins.
    pub(super) fn begin(&self) {
        let mut bump = self.bump.borrow_mut();
        bump.job_start = bump.grant.map(|_| bump.cursor);
        self.full.set(None);
    }
}

impl Lane {
    /// The job is over and sends these chunks. Closes pages, moves the cursor, and tells where it
    /// stands; `None` if the lane never had a grant.
    pub(super) fn settle(&self, sent: impl Iterator<Item = Extent> + Clone) -> Option<Used> {
        let mut bump = self.heap.bump.borrow_mut();
        bump.chunks.clear();
        let grant = bump.grant?;
        let range = grant.offset..grant.offset + grant.len;
        let start = bump.job_start.unwrap_or(grant.offset);
        let end = sent
            .clone()
            .filter(|chunk| range.contains(&chunk.at.offset()))
            .map(|chunk| chunk_end(&chunk))
            .max();
        bump.cursor = end.unwrap_or(start).max(start);
        if self.guard {
            for chunk in sent.filter(|chunk| chunk.len >= OWN_PAGES && self.owns(chunk)) {
                let at = chunk.at.offset();
                self.close(at..at + chunk.len.next_multiple_of(PAGE));
            }
            // What was published and freed of an older grant may be part of the current one already.
            for old in std::mem::take(&mut bump.retired) {
                for part in outside(old.offset..old.offset + old.len, &range) {
                    self.close(part);
                }
            }
        } else {
            bump.retired.clear();
        }
        Some(Used {
            grant: grant.number,
            cursor: bump.cursor,
        })
    }

    fn owns(&self, chunk: &Extent) -> bool {
        chunk.at.region() == self.region
    }

    fn close(&self, range: Range<u64>) {
        // A failure leaves the pages open: the guard is weaker, nothing else.
        let _ = self.view.close_own(range);
    }

    fn refill_cold(&self, len: u64) -> Result<(), ArenaFull> {
        let mut taker = self.taker.borrow_mut();
        let granted = match taker.next_grant() {
            Some(granted) => granted,
            None => {
                taker.want(len);
                taker.monitor_sleeps();
                self.ring();
                match taker.await_grant() {
                    Answer::Granted(granted) => granted,
                    Answer::Refused(words) => {
                        let full = super::full_from_words(words);
                        self.heap.full.set(Some(full));
                        return Err(full);
                    }
                }
            }
        };
        drop(taker);
        if let Err(error) = self
            .view
            .open_own(granted.offset..granted.offset + granted.len)
        {
            super::die(&format!("cannot open granted memory: {error}"));
        }
        self.heap.bump.borrow_mut().enter(granted);
        Ok(())
    }
}

/// What `range` has before and behind `kept`; either may be empty.
fn outside(range: Range<u64>, kept: &Range<u64>) -> [Range<u64>; 2] {
    [
        range.start..range.end.min(kept.start).max(range.start),
        range.start.max(kept.end).min(range.end)..range.end,
    ]
}

/// The end of what was allocated for a chunk.
fn chunk_end(chunk: &Extent) -> u64 {
    let unit = if chunk.len >= OWN_PAGES { PAGE } else { ALIGN };
    chunk.at.offset() + chunk.len.next_multiple_of(unit)
}

// SAFETY: a chunk lies in a grant, which the supervisor gave to this lane alone and which `open_own`
// made writable; the cursor only moves forward over it while its handles live, and `settle` moves
// it back only behind chunks that were sent or whose handles are gone (they were counted).
unsafe impl LaneMemory for Lane {
    fn alloc(&self, len: usize, placement: Placement) -> Result<LaneChunk, ArenaFull> {
        let len = len as u64;
        loop {
            let placed = self.heap.bump.borrow_mut().place(len, placement);
            if let Some((at, fresh)) = placed {
                let at = Offset::new(self.region, at);
                let extent = Extent { at, len };
                let ptr = match self.view.pointer(extent) {
                    Ok(ptr) => ptr,
                    Err(error) => super::die(&format!("granted memory is out of reach: {error}")),
                };
                return Ok(LaneChunk { ptr, at, fresh });
            }
            // Room for the alignment of the first chunk is in the whole pages of a grant.
            self.refill_cold(len.max(1))?;
        }
    }

    fn release(&self, chunk: (Offset, u64)) {
        self.heap.bump.borrow_mut().release(chunk.0.offset());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_grant_is_closed_where_the_current_one_does_not_reuse_it() {
        // Granted first, published and freed, granted again with what lies before it.
        assert_eq!(outside(64..320, &(0..256)), [64..64, 256..320]);
        assert_eq!(outside(0..256, &(64..128)), [0..64, 128..256]);
        assert_eq!(outside(0..64, &(64..128)), [0..64, 64..64]);
        assert_eq!(outside(64..128, &(0..64)), [64..64, 64..128]);
        assert_eq!(outside(64..128, &(0..256)), [64..64, 128..128]);
    }
}
