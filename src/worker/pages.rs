//! Which pages of this process are open for writing, and for which of its lanes.
//!
//! Pages are opened and closed for the process as a whole, and its lanes write side by side: so none is closed that another
//! lane still needs. One lock, held while pages change; a job that needs no page changed does not take it.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::arena::{Extent, Offset, PAGE, View};
use crate::sys;

/// Mostly one.
type Parts = SmallVec<[Range<u64>; 2]>;

/// What lanes need open.
#[derive(Debug, Default)]
struct Needs {
    /// Of the own region: grants that are allocated from, or were in a job that has not ended.
    grants: Vec<Grant>,
    /// What jobs have been lent.
    lent: Vec<Extent>,
}

/// Which grant: of which lane, by its link, and which of that lane's. Its range does not tell: what was published of it and
/// freed may be granted again, to another lane and as the very same range, before the first one has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GrantId {
    pub(super) link: u32,
    pub(super) number: u32,
}

#[derive(Debug)]
struct Grant {
    id: GrantId,
    whole: Range<u64>,
    /// What is left of it without what was published.
    open: Parts,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pages {
    view: &'static View,
    /// Pages are closed again.
    guard: bool,
    needs: Mutex<Needs>,
}

impl Pages {
    pub(super) fn new(view: &'static View, guard: bool) -> Self {
        Self {
            view,
            guard,
            needs: Mutex::default(),
        }
    }

    fn needs(&self) -> MutexGuard<'_, Needs> {
        // Nothing panics while it is held.
        self.needs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a grant for a lane that enters it.
    pub(super) fn open_grant(&self, id: GrantId, grant: Range<u64>) -> sys::Result<()> {
        let mut needs = self.needs();
        self.view.open_own(grant.clone())?;
        if self.guard {
            needs.enter(id, grant);
        }
        Ok(())
    }

    /// A lane has left a grant for good: closes of it what no lane needs.
    pub(super) fn close_grant(&self, id: GrantId) {
        if !self.guard {
            return;
        }
        let mut needs = self.needs();
        for part in needs.leave(id, self.view.own()) {
            self.close(part);
        }
    }

    /// Closes a chunk that was published: whole pages, of which nobody else has any. One that was an argument may begin and end
    /// anywhere, and is closed already.
    pub(super) fn close_chunk(&self, chunk: Range<u64>) {
        if !self.guard {
            return;
        }
        let mut needs = self.needs();
        needs.publish(&chunk);
        self.close(chunk);
    }

    fn close(&self, range: Range<u64>) {
        // A failure leaves the pages open: the guard is weaker, nothing else.
        let _ = self.view.close_own(range);
    }

    /// Opens what a job is lent.
    pub(super) fn lend_open(&self, extent: Extent) -> sys::Result<NonNull<u8>> {
        let mut needs = self.needs();
        let ptr = self.view.lend_open(extent)?;
        if self.guard {
            needs.lent.push(extent);
        }
        Ok(ptr)
    }

    /// The job that was lent this is over: closes the pages that no other job was lent.
    pub(super) fn lend_close(&self, extent: Extent) {
        if !self.guard {
            return;
        }
        let mut needs = self.needs();
        if let Some(at) = needs.lent.iter().position(|lent| *lent == extent) {
            needs.lent.swap_remove(at);
        }
        let region = extent.at.region();
        let others = needs
            .lent
            .iter()
            .filter(|other| other.at.region() == region);
        let grants = needs.open().filter(|_| region == self.view.own());
        let kept = others.map(|other| pages(*other)).chain(grants);
        for part in without(pages(extent), kept) {
            let part = Extent {
                at: Offset::new(region, part.start),
                len: part.end - part.start,
            };
            // As in `close`.
            let _ = self.view.lend_close(part);
        }
    }
}

impl Needs {
    fn enter(&mut self, id: GrantId, whole: Range<u64>) {
        let open = Parts::from_iter([whole.clone()]);
        self.grants.push(Grant { id, whole, open });
    }

    /// Nobody writes to this chunk any more. Older grants that had parts of it, which were freed since, do not need those.
    fn publish(&mut self, chunk: &Range<u64>) {
        let chunk = chunk.start.next_multiple_of(PAGE)..chunk.end / PAGE * PAGE;
        for grant in &mut self.grants {
            grant.open = cut(std::mem::take(&mut grant.open), &chunk);
        }
    }

    /// What nobody needs of a grant that a lane has left, in its own region.
    fn leave(&mut self, id: GrantId, own: u16) -> Parts {
        let Some(at) = self.grants.iter().position(|held| held.id == id) else {
            return Parts::new();
        };
        let left = self.grants.swap_remove(at).whole;
        // What was published and freed of it may be part of another grant already; and what was published of it may be lent to
        // the job of another lane, which closes it later.
        let lent = self.lent.iter().filter(|lent| lent.at.region() == own);
        let kept = self.open().chain(lent.map(|lent| pages(*lent)));
        without(left, kept)
    }

    /// What is open of grants.
    fn open(&self) -> impl Iterator<Item = Range<u64>> {
        self.grants
            .iter()
            .flat_map(|grant| grant.open.iter().cloned())
    }
}

/// The pages that an extent touches; none for one without bytes.
fn pages(extent: Extent) -> Range<u64> {
    let start = extent.at.offset();
    if extent.len == 0 {
        return start..start;
    }
    start / PAGE * PAGE..(start + extent.len).next_multiple_of(PAGE)
}

/// What is left of `range` without `kept`.
fn without(range: Range<u64>, kept: impl Iterator<Item = Range<u64>>) -> Parts {
    let mut rest = Parts::new();
    rest.push(range);
    for kept in kept {
        rest = cut(rest, &kept);
    }
    rest.retain(|part| !part.is_empty());
    rest
}

/// What is left of `parts` without `kept`; some may be empty.
fn cut(parts: Parts, kept: &Range<u64>) -> Parts {
    let meets =
        |part: &Range<u64>| !kept.is_empty() && part.start < kept.end && kept.start < part.end;
    if !parts.iter().any(meets) {
        return parts;
    }
    let rest = parts.iter().flat_map(|part| outside(part, kept));
    rest.filter(|part| !part.is_empty()).collect()
}

/// What `range` has before and behind `kept`; either may be empty.
fn outside(range: &Range<u64>, kept: &Range<u64>) -> [Range<u64>; 2] {
    [
        range.start..range.end.min(kept.start).max(range.start),
        range.start.max(kept.end).min(range.end)..range.end,
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
    fn what_is_kept_is_cut_out() {
        // Granted first, published and freed, granted again with what lies before it.
        assert_eq!(outside(&(64..320), &(0..256)), [64..64, 256..320]);
        assert_eq!(outside(&(0..256), &(64..128)), [0..64, 128..256]);
        assert_eq!(outside(&(0..64), &(64..128)), [0..64, 64..64]);
        assert_eq!(outside(&(64..128), &(0..64)), [64..64, 64..128]);
        assert_eq!(outside(&(64..128), &(0..256)), [64..64, 128..128]);
    }

    #[test]
    fn what_others_hold_stays() {
        let kept = [50..60, 0..10, 10..20, 90..200, 300..400, 52..55];
        let rest = without(5..100, kept.into_iter());
        assert_eq!(rest[..], [20..50, 60..90]);
        assert!(without(5..100, std::iter::once(0..100)).is_empty());
        // What is lent without any bytes.
        assert_eq!(only(&without(5..100, std::iter::once(50..50))), &(5..100));
    }

    /// One lane has published all of its grant, which was freed and granted again to another one, as it was. Whoever leaves it
    /// first, and in whatever order they are held.
    #[test]
    fn the_same_range_in_two_lanes_is_two_grants() {
        let (old, new, other) = ([1, 0], [2, 1], [3, 0]);
        let id = |[link, number]: [u32; 2]| GrantId { link, number };
        let range = 16 * PAGE..56 * PAGE;
        for turned in [false, true] {
            let mut needs = Needs::default();
            needs.enter(id(other), 0..16 * PAGE);
            needs.enter(id(old), range.clone());
            needs.publish(&range);
            needs.enter(id(new), range.clone());
            if turned {
                // The last one takes the place of the first.
                needs.leave(id(other), 1);
            }
            assert!(needs.leave(id(old), 1).is_empty(), "the other lane's");
            assert_eq!(only(&needs.leave(id(new), 1)), &range);
        }
        let mut needs = Needs::default();
        needs.enter(id(old), range.clone());
        needs.publish(&range);
        needs.enter(id(new), range.clone());
        assert_eq!(only(&needs.leave(id(new), 1)), &range, "published");
        assert_eq!(only(&needs.leave(id(old), 1)), &range);
    }

    /// A lane has published the front of its grant, which was freed and granted to another one with what lies before it.
    #[test]
    fn a_published_chunk_may_lie_across_an_older_grant() {
        let [old, new] = [1, 2].map(|link| GrantId { link, number: 0 });
        let mut needs = Needs::default();
        needs.enter(old, 16 * PAGE..64 * PAGE);
        needs.enter(new, 0..32 * PAGE);
        needs.publish(&(0..32 * PAGE));
        let open: Vec<_> = needs.open().collect();
        assert_eq!(only(&open), &(32 * PAGE..64 * PAGE));
        // An argument that is sent back.
        needs.publish(&(40 * PAGE + 64..41 * PAGE + 64));
        let open: Vec<_> = needs.open().collect();
        assert_eq!(only(&open), &(32 * PAGE..64 * PAGE), "not a whole page");
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
