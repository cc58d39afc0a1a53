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

#[derive(Debug)]
struct Grant {
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
    pub(super) fn open_grant(&self, grant: Range<u64>) -> sys::Result<()> {
        let mut needs = self.needs();
        self.view.open_own(grant.clone())?;
        if self.guard {
            needs.grants.push(Grant {
                open: Parts::from_iter([grant.clone()]),
                whole: grant,
            });
        }
        Ok(())
    }

    /// A lane has left a grant for good: closes of it what no lane needs.
    pub(super) fn close_grant(&self, grant: &Range<u64>) {
        if !self.guard {
            return;
        }
        let mut needs = self.needs();
        if let Some(at) = needs.grants.iter().position(|held| held.whole == *grant) {
            needs.grants.swap_remove(at);
        }
        // What was published and freed of it may be part of another grant already; and what was published of it may be lent to
        // the job of another lane, which closes it later.
        let lent = needs
            .lent
            .iter()
            .filter(|lent| lent.at.region() == self.view.own());
        let kept = needs.open().chain(lent.map(|lent| pages(*lent)));
        for part in without(grant.clone(), kept) {
            self.close(part);
        }
    }

    /// Closes a chunk that was published: whole pages, of which nobody else has any.
    pub(super) fn close_chunk(&self, chunk: Range<u64>) {
        if !self.guard {
            return;
        }
        let mut needs = self.needs();
        for grant in &mut needs.grants {
            if grant.whole.start <= chunk.start && chunk.end <= grant.whole.end {
                grant.open = cut(std::mem::take(&mut grant.open), &chunk);
            }
        }
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
    let meets = |part: &Range<u64>| part.start < kept.end && kept.start < part.end;
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
