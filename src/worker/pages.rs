//! Keeps track of the pages of this process that are open for writing, and of the lanes that need them.
//!
//! Pages are opened and closed for the whole process, while all its lanes run. So a page is closed only when no lane
//! needs it. One lock is held while pages change; a job that changes no page does not take the lock.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use super::retention::RetainedPages;
use crate::arena::{Extent, Offset, PAGE, View};
use crate::sys;

/// Ranges of offsets in a region, mostly one.
type Ranges = SmallVec<[Range<u64>; 2]>;

/// The ranges that must be open because lanes need them.
#[derive(Debug, Default)]
struct OpenPages {
    /// Grants from which a lane allocates, or which the running job of a lane has used up. In the worker's own region.
    grants: Vec<OpenGrant>,
    /// Extents that are lent to running jobs, and retained extents that have moved into a job.
    lent: Vec<Extent>,
    /// Arrays that lanes retain and that were not published. In the worker's own region.
    writable: Vec<Extent>,
    /// Arrays that lanes retain and that were lent to their jobs. Their pages are readable, but not open for writing.
    readable: Vec<Extent>,
}

/// Identifies a grant by the link of its lane and its number in that link. The range of a grant is not unique: a part
/// that was published and freed may be granted again while the first lane still has its grant, even the same range to
/// another lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GrantId {
    pub(super) link: u32,
    pub(super) number: u32,
}

#[derive(Debug)]
struct OpenGrant {
    id: GrantId,
    whole: Range<u64>,
    /// The range `whole` without the published chunks.
    open: Ranges,
}

/// Opens and closes pages for all lanes of this process.
#[derive(Debug)]
pub(super) struct Pages {
    view: &'static View,
    /// Whether pages are closed when no lane needs them.
    guard: bool,
    open: Mutex<OpenPages>,
}

impl Pages {
    pub(super) fn new(view: &'static View, guard: bool) -> Self {
        Self {
            view,
            guard,
            open: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, OpenPages> {
        // Poisoning is ignored: no code panics while it holds the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a grant that has become the current grant of a lane.
    pub(super) fn open_grant(&self, id: GrantId, grant: Range<u64>) -> sys::Result<()> {
        let mut open = self.lock();
        self.view.open_own(grant.clone())?;
        if self.guard {
            open.enter(id, grant);
        }
        Ok(())
    }

    /// Closes a grant that a lane no longer uses, except pages that another lane needs.
    pub(super) fn close_grant(&self, id: GrantId) {
        if !self.guard {
            return;
        }
        let mut open = self.lock();
        for part in open.leave(id, self.view.own()) {
            self.close(part);
        }
    }

    /// Closes the pages of a published chunk that belong to no other array. A chunk that was an argument may not be
    /// aligned to pages, but its pages are closed already.
    pub(super) fn close_chunk(&self, chunk: Range<u64>) {
        if !self.guard {
            return;
        }
        let mut open = self.lock();
        open.publish(&chunk);
        // The chunk may be the block of an argument that is sent back, and a part of the chunk may be lent to the job
        // of another lane.
        for part in subtract_all(chunk, open.lent_pages(self.view.own())) {
            self.close(part);
        }
    }

    fn close(&self, range: Range<u64>) {
        // On failure the pages stay open, which only makes the guard weaker.
        let _ = self.view.close_own(range);
    }

    /// Opens an extent that is lent to a job.
    pub(super) fn lend_open(&self, extent: Extent) -> sys::Result<NonNull<u8>> {
        let mut open = self.lock();
        let ptr = self.view.lend_open(extent)?;
        if self.guard {
            open.lent.push(extent);
        }
        Ok(ptr)
    }

    /// Closes an extent that was lent to a job that has ended, except pages that are needed for another reason.
    pub(super) fn lend_close(&self, extent: Extent) {
        if !self.guard {
            return;
        }
        let mut open = self.lock();
        remove(&mut open.lent, extent);
        self.close_lent(&open, extent);
    }

    /// Closes the pages of an extent that no job needs. Pages of arrays that lanes retain stay readable.
    fn close_lent(&self, open: &OpenPages, extent: Extent) {
        let region = extent.at.region();
        let whole = |part: &Range<u64>| Extent {
            at: Offset::new(region, part.start),
            len: part.end - part.start,
        };
        for part in open.unneeded(extent, self.view.own()) {
            let read = open.readable.iter();
            let read = read.filter(|read| read.at.region() == region);
            let closed = subtract_all(part.clone(), read.map(|read| pages(*read)));
            // A failure is ignored as in `close`.
            for part in &closed {
                let _ = self.view.lend_close(whole(part));
            }
            for part in subtract_all(part, closed.into_iter()) {
                let _ = self.view.lend_close_readable(whole(&part));
            }
        }
    }

    /// Records that a lane retains an array after its job. Must be called before the pages of the job are closed.
    pub(super) fn retain(&self, extent: Extent, how: RetainedPages) {
        if !self.guard {
            return;
        }
        match how {
            RetainedPages::Plain => {}
            RetainedPages::Writable => self.lock().writable.push(extent),
            RetainedPages::Moved => self.lock().lent.push(extent),
            RetainedPages::Lent => self.lock().readable.push(extent),
        }
    }

    /// Records that no handle to a retained array is left, and closes its pages.
    pub(super) fn release(&self, extent: Extent, how: RetainedPages) {
        if !self.guard {
            return;
        }
        match how {
            RetainedPages::Plain => {}
            RetainedPages::Writable => {
                let mut open = self.lock();
                for part in open.remove_writable(extent) {
                    self.close(part);
                }
            }
            RetainedPages::Moved => self.lend_close(extent),
            RetainedPages::Lent => {
                let mut open = self.lock();
                remove(&mut open.readable, extent);
                self.close_lent(&open, extent);
            }
        }
    }
}

fn remove(extents: &mut Vec<Extent>, extent: Extent) {
    if let Some(at) = extents.iter().position(|other| *other == extent) {
        extents.swap_remove(at);
    }
}

impl OpenPages {
    fn enter(&mut self, id: GrantId, whole: Range<u64>) {
        let open = Ranges::from_iter([whole.clone()]);
        self.grants.push(OpenGrant { id, whole, open });
    }

    /// Removes the whole pages of a chunk from the open ranges of all grants, also of older grants that include these
    /// pages.
    fn publish(&mut self, chunk: &Range<u64>) {
        let chunk = chunk.start.next_multiple_of(PAGE)..chunk.end / PAGE * PAGE;
        for grant in &mut self.grants {
            grant.open = subtract(std::mem::take(&mut grant.open), &chunk);
        }
    }

    /// Removes a grant, and returns the ranges of the grant that no lane needs.
    fn leave(&mut self, id: GrantId, own: u16) -> Ranges {
        let Some(at) = self.grants.iter().position(|held| held.id == id) else {
            return Ranges::new();
        };
        let left = self.grants.swap_remove(at).whole;
        // A published part may have been freed and granted again, or lent to the job of another lane; that lane closes
        // the part later.
        subtract_all(left, self.needed_own().chain(self.lent_pages(own)))
    }

    /// Removes a retained array in the worker's own region that was not published. Returns its pages that no lane needs:
    /// also those at its ends, of which other arrays may have a part.
    fn remove_writable(&mut self, extent: Extent) -> Ranges {
        remove(&mut self.writable, extent);
        let start = extent.at.offset();
        self.publish(&(start..start + extent.len));
        self.unneeded(extent, extent.at.region())
    }

    /// Returns the pages of an extent that no lane needs. `own`: the worker's own region.
    fn unneeded(&self, extent: Extent, own: u16) -> Ranges {
        let region = extent.at.region();
        let needed = self.needed_own().filter(|_| region == own);
        subtract_all(pages(extent), self.lent_pages(region).chain(needed))
    }

    /// Returns the pages of a region that are open because they are lent to jobs.
    fn lent_pages(&self, region: u16) -> impl Iterator<Item = Range<u64>> {
        let lent = self.lent.iter();
        lent.filter(move |lent| lent.at.region() == region)
            .map(|lent| pages(*lent))
    }

    /// Returns the ranges of the worker's own region that lanes need, apart from lent ranges.
    fn needed_own(&self) -> impl Iterator<Item = Range<u64>> {
        let retained = self.writable.iter().map(|extent| pages(*extent));
        self.open_grants().chain(retained)
    }

    /// Returns the open ranges of all grants.
    fn open_grants(&self) -> impl Iterator<Item = Range<u64>> {
        self.grants
            .iter()
            .flat_map(|grant| grant.open.iter().cloned())
    }
}

/// Returns the pages that an extent touches; an empty range if the extent has no bytes.
fn pages(extent: Extent) -> Range<u64> {
    let start = extent.at.offset();
    if extent.len == 0 {
        return start..start;
    }
    start / PAGE * PAGE..(start + extent.len).next_multiple_of(PAGE)
}

/// Returns `range` without all `holes`.
fn subtract_all(range: Range<u64>, holes: impl Iterator<Item = Range<u64>>) -> Ranges {
    let mut rest = Ranges::new();
    rest.push(range);
    for hole in holes {
        rest = subtract(rest, &hole);
    }
    rest.retain(|part| !part.is_empty());
    rest
}

/// Returns `ranges` without `hole`; some of the returned ranges may be empty.
fn subtract(ranges: Ranges, hole: &Range<u64>) -> Ranges {
    let overlaps =
        |part: &Range<u64>| !hole.is_empty() && part.start < hole.end && hole.start < part.end;
    if !ranges.iter().any(overlaps) {
        return ranges;
    }
    let rest = ranges.iter().flat_map(|part| split_around(part, hole));
    rest.filter(|part| !part.is_empty()).collect()
}

/// Returns the parts of `range` before and after `hole`; either may be empty.
fn split_around(range: &Range<u64>, hole: &Range<u64>) -> [Range<u64>; 2] {
    [
        range.start..range.end.min(hole.start).max(range.start),
        range.start.max(hole.end).min(range.end)..range.end,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(parts: &[Range<u64>]) -> &Range<u64> {
        assert_eq!(parts.len(), 1, "{parts:?}");
        &parts[0]
    }

    #[test]
    fn a_range_splits_around_a_hole() {
        // Granted, published and freed, then granted again with the range before it.
        assert_eq!(split_around(&(64..320), &(0..256)), [64..64, 256..320]);
        assert_eq!(split_around(&(0..256), &(64..128)), [0..64, 128..256]);
        assert_eq!(split_around(&(0..64), &(64..128)), [0..64, 64..64]);
        assert_eq!(split_around(&(64..128), &(0..64)), [64..64, 64..128]);
        assert_eq!(split_around(&(64..128), &(0..256)), [64..64, 128..128]);
    }

    #[test]
    fn holes_are_subtracted() {
        let holes = [50..60, 0..10, 10..20, 90..200, 300..400, 52..55];
        let rest = subtract_all(5..100, holes.into_iter());
        assert_eq!(rest[..], [20..50, 60..90]);
        assert!(subtract_all(5..100, std::iter::once(0..100)).is_empty());
        // An empty extent that is lent.
        assert_eq!(
            only(&subtract_all(5..100, std::iter::once(50..50))),
            &(5..100)
        );
    }

    /// One lane has published all of its grant, which was freed and granted as the same range to another lane. The
    /// order in which the two grants are left or stored does not matter.
    #[test]
    fn the_same_range_in_two_lanes_is_two_grants() {
        let (old, new, other) = ([1, 0], [2, 1], [3, 0]);
        let id = |[link, number]: [u32; 2]| GrantId { link, number };
        let range = 16 * PAGE..56 * PAGE;
        for is_swapped in [false, true] {
            let mut open = OpenPages::default();
            open.enter(id(other), 0..16 * PAGE);
            open.enter(id(old), range.clone());
            open.publish(&range);
            open.enter(id(new), range.clone());
            if is_swapped {
                // `swap_remove` moves the last grant to the front.
                open.leave(id(other), 1);
            }
            assert!(open.leave(id(old), 1).is_empty(), "the other lane needs it");
            assert_eq!(only(&open.leave(id(new), 1)), &range);
        }
        let mut open = OpenPages::default();
        open.enter(id(old), range.clone());
        open.publish(&range);
        open.enter(id(new), range.clone());
        assert_eq!(only(&open.leave(id(new), 1)), &range, "published");
        assert_eq!(only(&open.leave(id(old), 1)), &range);
    }

    /// A lane has published the front of its grant, which was freed and granted to another lane together with the range
    /// before it.
    #[test]
    fn a_published_chunk_may_overlap_an_older_grant() {
        let [old, new] = [1, 2].map(|link| GrantId { link, number: 0 });
        let mut open = OpenPages::default();
        open.enter(old, 16 * PAGE..64 * PAGE);
        open.enter(new, 0..32 * PAGE);
        open.publish(&(0..32 * PAGE));
        let ranges: Vec<_> = open.open_grants().collect();
        assert_eq!(only(&ranges), &(32 * PAGE..64 * PAGE));
        // An argument that is returned.
        open.publish(&(40 * PAGE + 64..41 * PAGE + 64));
        let ranges: Vec<_> = open.open_grants().collect();
        assert_eq!(only(&ranges), &(32 * PAGE..64 * PAGE), "not a whole page");
    }

    /// A small array that a lane retains keeps its page open when the grant around it is left, until it is released.
    #[test]
    fn retained_arrays_are_needed() {
        let id = GrantId { link: 1, number: 0 };
        let mut open = OpenPages::default();
        open.enter(id, 0..8 * PAGE);
        let retained = Extent {
            at: Offset::new(1, 2 * PAGE + 100),
            len: 200,
        };
        open.writable.push(retained);
        assert_eq!(open.leave(id, 1)[..], [0..2 * PAGE, 3 * PAGE..8 * PAGE]);
        assert_eq!(only(&open.remove_writable(retained)), &(2 * PAGE..3 * PAGE));
        assert!(open.needed_own().next().is_none());
        // The page has another retained array, or belongs to a grant that a lane uses.
        let other = Extent {
            at: Offset::new(1, 2 * PAGE),
            len: 100,
        };
        open.writable.extend([retained, other]);
        assert!(open.remove_writable(retained).is_empty());
        open.enter(id, 0..8 * PAGE);
        assert!(open.remove_writable(other).is_empty());
    }

    #[test]
    fn an_extent_touches_whole_pages() {
        let extent = |at, len| Extent {
            at: Offset::new(2, at),
            len,
        };
        assert_eq!(pages(extent(100, 10)), 0..PAGE);
        assert_eq!(pages(extent(PAGE - 1, 2)), 0..2 * PAGE);
        assert_eq!(pages(extent(PAGE, PAGE)), PAGE..2 * PAGE);
        assert!(pages(extent(100, 0)).is_empty());
    }
}
