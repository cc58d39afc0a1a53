//! Where snapshots of a private block have its bytes: [`Image`].

use std::ops::Range;
use std::sync::{Arc, MutexGuard, Weak};

use super::{Block, CowHeap, Place, State, bytes, lock};
use crate::array::habit::LEAST_PART;
use crate::sys::written::Written;
use crate::sys::{HUGE, Segment};

/// A new image is made as long as at most this part of the memory is in blocks.
const MOST_HELD: usize = 4;

/// The chunks whose file has the bytes of a private block, except those that were written since the last snapshot.
///
/// A page of the block differs from the image only if [`Written::is_any`] finds it. It does not count as written from
/// the moment on when [`Written::take`] has found it, and is copied into the image behind that: what a thread writes
/// meanwhile is found by the next snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Image {
    /// Those of the block itself.
    #[default]
    Own,
    /// Those of a block that only snapshots read.
    Other(Place),
    /// No image has all bytes.
    Stale,
}

impl State {
    /// Whether the image has these bytes of a block as they are now. `None`: another thread copies them into it.
    pub(super) fn is_current(&mut self, place: Place, range: Range<usize>) -> Option<bool> {
        let block = self.block(place)?;
        if block.is_busy {
            return None;
        }
        let image = block.image;
        let is_in_image = match image {
            Image::Own => true,
            Image::Other(other) => range.end <= self.block(other)?.len,
            Image::Stale => false,
        };
        let begin = self.address(place)?;
        let addresses = begin + range.start..begin + range.end;
        let is_current = is_in_image
            && Written::of_this_process()
                .and_then(|pages| pages.is_any(addresses))
                .is_ok_and(|is_written| !is_written);
        Some(self.block(place)?.habit.reused_if(is_current))
    }

    /// The chunks that have the bytes of this block.
    pub(super) fn image_of(&mut self, place: Place) -> Option<Place> {
        match self.block(place)?.image {
            Image::Own => Some(place),
            Image::Other(other) => Some(other),
            Image::Stale => None,
        }
    }

    fn address(&mut self, (region, first): Place) -> Option<usize> {
        let region = self.region(region)?;
        Some(region.write.base().addr().get() + first * HUGE)
    }

    /// The image of a block, if no process reads it: then it may change.
    fn unread_image(&mut self, place: Place) -> Option<Place> {
        let image = self.image_of(place)?;
        let region = self.region(image.0)?;
        region.check();
        // A copy of this process reads the pages that it has not written.
        let is_read = region.is_retired || region.is_lost;
        (!is_read && self.block(image)?.snapshots == 0).then_some(image)
    }
}

impl CowHeap {
    /// Copies what was written to a private block into its image, or all of it into a new one if snapshots read that
    /// one. Returns the number of copied bytes; `None` if the caller had better copy the range.
    pub(super) fn renew<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        place: Place,
        range: Range<usize>,
    ) -> Option<(MutexGuard<'a, State>, usize)> {
        let block = state.block(place)?;
        let (len, all) = (block.len, bytes(place.1, block.chunks));
        if block.habit.refuses() {
            return None;
        }
        // Less is copied by the caller, if all of the block would have to be copied into a new image.
        let is_much = range.len() >= len / LEAST_PART;
        let write = Arc::clone(&state.region(place.0)?.write);
        let base = write.base().addr().get();
        let pages = Written::of_this_process().ok()?;
        if !pages.track(base + all.start..base + all.end) {
            return None;
        }
        let mut written = 0;
        let store = |run: Range<usize>, image: Place, segment: &Segment| {
            let at = image.1 * HUGE + run.start - all.start;
            write.store(run, segment, at as u64)
        };
        if let Some(image) = state.unread_image(place)
            && state.block(image)?.len >= range.end
        {
            // As much as the image has.
            let end = state.block(image)?.len.min(len);
            let part = if is_much { 0..end } else { range };
            let segment = Arc::clone(&state.region(image.0)?.segment);
            let begin = base + all.start;
            // No fork may happen meanwhile: a copy of this process would read the pages that it has not written.
            let mut stored = Ok(());
            let taken = pages.take(begin + part.start..begin + part.end, |run| {
                let run = run.start - base..(run.end - base).min(all.start + end);
                written += run.len();
                if stored.is_ok() {
                    stored = store(run, image, &segment);
                }
            });
            let is_made = taken.is_ok() && stored.is_ok();
            state.block(place)?.habit.copied(written, len);
            if !is_made {
                // Pages may count as not written that the image does not have.
                let block = state.block(place)?;
                let image = std::mem::replace(&mut block.image, Image::Stale);
                self.release(&mut state, image);
            }
            return is_made.then_some((state, written));
        }

        if !is_much || state.held + len > self.memory / MOST_HELD {
            return None;
        }
        let new = self.add_block(&mut state, len, false)?;
        let block = state.block(place)?;
        block.is_busy = true;
        // Code of the program that frees the block meanwhile is wrong, and must not harm other blocks.
        block.snapshots += 1;
        drop(state);
        self.prepare(&new, len);
        let image = (new.region, new.first);
        let is_made = pages
            .take(base + all.start..base + all.end, |run| written += run.len())
            .and_then(|()| store(all.start..all.start + len, image, &new.segment))
            .is_ok();

        let mut state = lock(&self.state);
        let block = state.block(place)?;
        block.is_busy = false;
        block.snapshots -= 1;
        block.habit.copied(written, len);
        let is_used = is_made && block.is_owned;
        let after = match is_used {
            true => Image::Other(image),
            false => Image::Stale,
        };
        let before = std::mem::replace(&mut block.image, after);
        self.release(&mut state, before);
        if !is_used {
            self.release(&mut state, Image::Other(image));
            let index = state.index_of(place.0)?;
            self.recycle(&mut state, index, place.1);
        }
        is_used.then_some((state, len))
    }

    /// No block has this image any more.
    pub(super) fn release(&self, state: &mut State, image: Image) {
        let Image::Other(place) = image else {
            return;
        };
        if let Some(index) = state.index_of(place.0)
            && let Some(Block { is_owned, last, .. }) =
                state.regions[index].blocks.get_mut(&place.1)
        {
            *is_owned = false;
            *last = Weak::new();
            self.recycle(state, index, place.1);
        }
    }
}
