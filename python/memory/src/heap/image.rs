//! Where snapshots find the bytes of a private block: [`Image`].

use std::io;
use std::ops::Range;
use std::sync::{Arc, MutexGuard, Weak};

use arenite::raw::memory::{HUGE, Segment};

use super::chunks::bytes;
use super::{Block, CowHeap, Place, State};
use crate::habit::MIN_PART;
use crate::sync::{lock, point};
use crate::written::Written;

/// A new image is created only if all blocks then take at most 1/`MAX_HELD` of the memory.
const MAX_HELD: usize = 4;

/// The chunks whose part of the file contains the bytes of a private block, except for pages that were written since
/// the last snapshot.
///
/// A page of the block differs from the image only if [`Written::is_any`] finds it. [`Written::take`] first marks a
/// written page as not written, then copies it into the image: if a thread writes to the page during the copy, the page
/// counts as written again, and the next snapshot copies it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Image {
    /// The chunks of the block itself.
    #[default]
    Own,
    /// The chunks of a block that only snapshots read.
    Other(Place),
    /// At present, no image has all bytes of the block.
    Stale,
    /// None: all bytes are zero, except in pages that [`Written::is_any`] finds.
    Zero,
}

impl State {
    /// Returns true if the image has the present bytes of `range` of a block, and `None` while another thread makes a
    /// new image.
    pub(super) fn is_current(&mut self, place: Place, range: Range<usize>) -> Option<bool> {
        let block = self.block(place)?;
        if block.is_busy {
            return None;
        }
        let image = block.image;
        let is_in_image = match image {
            Image::Own => true,
            Image::Other(other) => range.end <= self.block(other)?.len,
            Image::Stale | Image::Zero => false,
        };
        let begin = self.address(place)?;
        let addresses = begin + range.start..begin + range.end;
        let is_current = is_in_image
            && Written::of_this_process()
                .and_then(|pages| pages.is_any(addresses))
                .is_ok_and(|is_written| !is_written);
        Some(self.block(place)?.habit.note_reuse(is_current))
    }

    /// Returns the chunks of the block's image. `None` if there is none, or if it is stale.
    pub(super) fn image_of(&mut self, place: Place) -> Option<Place> {
        match self.block(place)?.image {
            Image::Own => Some(place),
            Image::Other(other) => Some(other),
            Image::Stale | Image::Zero => None,
        }
    }

    fn address(&mut self, (region, first): Place) -> Option<usize> {
        let region = self.region(region)?;
        Some(region.write.base().addr().get() + first * HUGE)
    }

    /// Returns the image of a block, if no other process and no snapshot reads it: only then may the image change.
    fn unread_image(&mut self, place: Place) -> Option<Place> {
        let image = self.image_of(place)?;
        let region = self.region(image.0)?;
        region.check();
        // A forked process reads from the file the pages that it has not written.
        let is_read = region.is_retired || region.is_lost;
        (!is_read && self.block(image)?.snapshots == 0).then_some(image)
    }
}

impl CowHeap {
    /// Copies the written pages of a private block into its image. If snapshots read the image, copies all of the block
    /// into a new image. Returns the number of bytes that were copied, or `None` if a copy of the range by the caller
    /// costs less.
    pub(super) fn renew<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        place: Place,
        range: Range<usize>,
    ) -> Option<(MutexGuard<'a, State>, usize)> {
        let block = state.block(place)?;
        let (len, all) = (block.len, bytes(place.1, block.chunks));
        if block.habit.take_refusal() {
            return None;
        }
        // A small range is copied by the caller if a new image would need a copy of all of the block.
        let is_much = range.len() >= len / MIN_PART;
        let write = Arc::clone(&state.region(place.0)?.write);
        let base = write.base().addr().get();
        let pages = Written::of_this_process().ok()?;
        if !pages.track(base + all.start..base + all.end) {
            return None;
        }
        let mut written = 0;
        let store = |run: Range<usize>, image: Place, segment: &Segment| -> io::Result<()> {
            let at = image.1 * HUGE + run.start - all.start;
            Ok(write.store(run, segment, at as u64)?)
        };
        if let Some(image) = state.unread_image(place)
            && state.block(image)?.len >= range.end
        {
            // Copy only as far as the image extends.
            let end = state.block(image)?.len.min(len);
            let part = if is_much { 0..end } else { range };
            let segment = Arc::clone(&state.region(image.0)?.segment);
            let begin = base + all.start;
            // The lock prevents a fork during the copy: in the forked process, pages that it has not written would
            // change with the image.
            let mut stored = Ok(());
            let taken = pages.take(begin + part.start..begin + part.end, |run| {
                let run = run.start - base..(run.end - base).min(all.start + end);
                written += run.len();
                point!("heap.marked");
                if stored.is_ok() {
                    stored = store(run, image, &segment);
                }
                point!("heap.stored");
            });
            let is_made = taken.is_ok() && stored.is_ok();
            state.block(place)?.habit.copied(written, len);
            if !is_made {
                // Pages that were not copied into the image may count as not written.
                let block = state.block(place)?;
                let image = std::mem::replace(&mut block.image, Image::Stale);
                self.release(&mut state, image);
            }
            return is_made.then_some((state, written));
        }

        if !is_much || state.held + len > self.memory / MAX_HELD {
            return None;
        }
        let mut new = self.add_block(&mut state, len, false)?;
        // Of zeros only the pages that were used get memory.
        let goes_ahead = new.goes_ahead && !new.is_warm;
        let block = state.block(place)?;
        let is_zero = block.image == Image::Zero;
        new.goes_ahead &= !is_zero;
        block.is_busy = true;
        // This keeps other blocks intact even if the program frees the block during the copy, which is an error of the
        // program.
        block.snapshots += 1;
        drop(state);
        self.prepare(&new, len);
        let image = (new.region, new.first);
        // A block that was shortened has chunks beyond its end, and the image has none for them.
        let until = all.start + len;
        let in_image = |range: Range<usize>| {
            let at = |offset: usize| image.1 * HUGE + offset - all.start;
            at(range.start)..at(range.end)
        };
        let mut stored = Ok(());
        // The end of the bytes that the image has so far, if it gets only pages that were used: to read other pages of
        // the block would use them, too.
        let mut end = all.start;
        let clear = |range: Range<usize>| -> io::Result<()> {
            let range = in_image(range);
            match new.is_warm {
                true => Ok(new.segment.punch(range.start as u64..range.end as u64)?),
                false => Ok(()),
            }
        };
        let taken = pages.take(base + all.start..base + all.end, |run| {
            written += run.len();
            if !is_zero || stored.is_err() {
                return;
            }
            let run = run.start - base..until.min(run.end - base);
            if run.is_empty() {
                return;
            }
            if goes_ahead {
                let part = in_image(run.clone());
                let huge = part.start.next_multiple_of(HUGE)..part.end / HUGE * HUGE;
                self.populate(&new.write, &new.segment, huge);
            }
            stored = clear(end..run.start).and_then(|()| store(run.clone(), image, &new.segment));
            end = run.end;
        });
        if taken.is_ok() && stored.is_ok() {
            stored = match is_zero {
                true => clear(end..until),
                false => store(all.start..until, image, &new.segment),
            };
        }
        let is_made = taken.is_ok() && stored.is_ok();
        point!("heap.copied");

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
        is_used.then_some((state, if is_zero { written.min(len) } else { len }))
    }

    /// Frees the image, which no private block uses any more.
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
