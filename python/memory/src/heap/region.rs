//! A memory file of a heap and its maps: [`Region`].

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use arenite::raw::memory::{DataRoom, HUGE, Map, Prot, Segment};

use super::Block;
use super::chunks::{Runs, bytes, join, take_front};
use crate::pages::Pages;
use crate::sync::point;

pub(super) struct Region {
    pub(super) number: u64,
    pub(super) segment: Arc<Segment>,
    /// The map for writing, which contains the blocks.
    pub(super) write: Arc<Pages>,
    /// The map for reading, which snapshots use.
    pub(super) read: Arc<Map>,
    /// Number of chunks that the file has. It grows with the blocks: if the program locks its memory (`mlockall`),
    /// Linux provides memory for the whole file.
    len: usize,
    pub(super) is_retired: bool,
    /// Whether it is unknown which processes have the file: the process inherited the region by `fork`, or the
    /// descriptor of the file was closed. A lost region stays retired.
    pub(super) is_lost: bool,
    /// Runs of chunks that were freed while the region was retired: first chunk and number of chunks.
    pub(super) freed_while_retired: Vec<(usize, usize)>,
    /// The blocks, by their first chunk.
    pub(super) blocks: BTreeMap<usize, Block>,
    /// Runs of chunks that have no block and no memory.
    pub(super) unused: Runs<()>,
    /// Runs of free chunks that still have memory, each with the time when its block was freed.
    pub(super) free: Runs<Instant>,
}

impl Region {
    /// Creates a region of `len` bytes, which has no memory yet.
    pub(super) fn new(number: u64, label: &str, len: usize) -> io::Result<Self> {
        let segment = Segment::create_memfd(label, true)?;
        let write = Pages::new(&segment, len)?;
        let read = Map::new(&segment, 0, len, Prot::Read, true)?;
        // Core dumps contain no memory of arrays.
        write.exclude_from_core_dumps(0..len)?;
        read.exclude_from_core_dumps(0..len)?;
        Ok(Region {
            number,
            segment: Arc::new(segment),
            write: Arc::new(write),
            read: Arc::new(read),
            len: 0,
            is_retired: false,
            is_lost: false,
            freed_while_retired: Vec::new(),
            blocks: BTreeMap::new(),
            unused: BTreeMap::from([(0, (len / HUGE, ()))]),
            free: BTreeMap::new(),
        })
    }

    /// Takes `chunks` chunks that have no memory, from the first run that is long enough. Returns the first chunk.
    pub(super) fn take(&mut self, chunks: usize) -> Option<usize> {
        let mut runs = self.unused.iter();
        let (&first, _) = runs.find(|(_, (run, ()))| *run >= chunks)?;
        self.grow(first + chunks)?;
        take_front(&mut self.unused, first, chunks);
        Some(first)
    }

    /// Makes the file at least this number of chunks long.
    fn grow(&mut self, chunks: usize) -> Option<()> {
        if chunks > self.len {
            self.segment.set_len(bytes(0, chunks).end as u64).ok()?;
            self.len = chunks;
        }
        Some(())
    }

    /// Takes the `chunks` chunks from `first` on, which follow a block, to extend the block. Returns the number of
    /// chunks that still had memory, or `None` if one of the chunks belongs to a block.
    pub(super) fn extend(
        &mut self,
        first: usize,
        chunks: usize,
        is_private: bool,
    ) -> Option<usize> {
        let end = first + chunks;
        let mut at = first;
        while at < end {
            at += match (self.free.get(&at), self.unused.get(&at)) {
                (Some((run, _)), _) | (None, Some((run, ()))) => run,
                (None, None) => return None,
            };
        }
        let all = bytes(first, chunks);
        if self.is_retired
            || self.grow(end).is_none()
            || is_private && self.make_private(all.clone(), false).is_err()
        {
            return None;
        }
        // Only advice.
        let _ = self.write.advise_huge(all, true);
        let (mut at, mut was_free) = (first, 0);
        while at < end {
            if let Some(&(run, _)) = self.free.get(&at) {
                let taken = run.min(end - at);
                take_front(&mut self.free, at, taken);
                was_free += taken;
                at += taken;
            } else if let Some(&(run, ())) = self.unused.get(&at) {
                let taken = run.min(end - at);
                take_front(&mut self.unused, at, taken);
                at += taken;
            }
        }
        Some(was_free)
    }

    /// Retires the region permanently if code of the program has closed the region's descriptor, as daemons do.
    /// Otherwise ends its retirement if no forked process that may read the file is left.
    pub(super) fn check(&mut self) {
        if self.segment.check().is_err() {
            self.is_retired = true;
            self.is_lost = true;
        }
        if !self.is_retired || self.is_lost || self.segment.is_held().unwrap_or(true) {
            return;
        }
        self.is_retired = false;
        for (first, chunks) in std::mem::take(&mut self.freed_while_retired) {
            let all = bytes(first, chunks);
            // If a call fails, the chunks are not used again.
            if self.segment.punch(all.start as u64..all.end as u64).is_ok()
                && self.share(all).is_ok()
            {
                join(&mut self.unused, first, chunks, ());
            }
        }
    }

    /// Makes a block private by mapping it again. If that fails and `copies` is set, copies all its pages.
    pub(super) fn make_private(&self, range: Range<usize>, copies: bool) -> io::Result<()> {
        let map = || -> io::Result<()> {
            self.segment.check()?;
            Ok(self.write.set_shared(range.clone(), &self.segment, false)?)
        };
        let made = map().or_else(|_| {
            // Linux also refuses if the limit of private memory was lowered below what the process has: raise the limit
            // and try again.
            let _room = DataRoom::new(u64::MAX);
            map()
        });
        match made {
            Err(_) if copies => Ok(self.write.copy_in_place(range)?),
            made => made,
        }
    }

    /// Makes all shared blocks of the region private.
    pub(super) fn make_all_private(&mut self, private: &mut usize) {
        let shared = self.blocks.iter().filter(|(_, block)| !block.is_private);
        let shared: Vec<_> = shared
            .map(|(first, block)| (*first, block.chunks))
            .collect();
        for (first, chunks) in shared {
            if self.make_private(bytes(first, chunks), true).is_ok()
                && let Some(block) = self.blocks.get_mut(&first)
            {
                block.is_private = true;
                *private += 1;
            }
        }
    }

    /// Makes chunks of a private block shared again, by mapping them again.
    pub(super) fn share(&self, range: Range<usize>) -> io::Result<()> {
        self.segment.check()?;
        self.write.set_shared(range.clone(), &self.segment, true)?;
        Ok(self.write.exclude_from_core_dumps(range)?)
    }

    /// Takes `chunks` chunks that still have memory, from the shortest run that is long enough. Returns the first
    /// chunk.
    pub(super) fn take_free(&mut self, chunks: usize) -> Option<usize> {
        let fits = self.free.iter().filter(|(_, (run, _))| *run >= chunks);
        let (&first, _) = fits.min_by_key(|(_, (run, _))| *run)?;
        take_front(&mut self.free, first, chunks);
        Some(first)
    }

    /// Returns memory of freed blocks to Linux, oldest first: all that was freed before `until`, and more until at most
    /// `most` bytes are left.
    pub(super) fn return_free(&mut self, free: &mut usize, most: usize, until: Option<Instant>) {
        if self.segment.check().is_err() {
            return;
        }
        let mut runs: Vec<_> = self
            .free
            .iter()
            .map(|(first, (chunks, since))| (*since, *first, *chunks))
            .collect();
        runs.sort_unstable();
        for (since, first, chunks) in runs {
            if *free <= most && until.is_none_or(|until| since >= until) {
                break;
            }
            self.free.remove(&first);
            // Return no more of a long run than is above `most`.
            let returned = match until {
                Some(until) if since < until => chunks,
                _ => chunks.min((*free - most).div_ceil(HUGE)),
            };
            if returned < chunks {
                self.free.insert(first, (chunks - returned, since));
            }
            let all = bytes(first + chunks - returned, returned);
            *free -= all.len();
            // If punching fails, the chunks may not be zero: they are not used again.
            if self.segment.punch(all.start as u64..all.end as u64).is_ok() {
                point!("heap.returned");
                join(&mut self.unused, first + chunks - returned, returned, ());
            }
        }
    }
}
