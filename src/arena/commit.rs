//! Putting memory behind a region and taking it away: chunks, huge pages, fallbacks, trim.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;

use super::budget::{Budget, lock};
use super::layout::{CHUNK, GRANULE, PAGE};
use super::region::{Region, chunks_of, inside, runs, touched, within};
use crate::sys;

/// A chunk needed by at least this many granules at once (1 MiB) becomes a huge page right away.
const FILL_NEED: u32 = 16;
/// A chunk that has got this many granules of small pages (256 KiB) becomes one when it needs more.
const FILL_HAVE: u32 = 4;
/// Beyond this many granules of small pages, copying them costs more than it brings.
const FILL_MOST: u32 = 8;
/// How many empty chunks are collapsed by one call: the kernel begins each call by asking every core to empty its page
/// caches, which takes milliseconds when cores are busy.
const RUN: usize = 16;
/// From so many runs on (64 MiB) several threads collapse them, at most so many, the caller among them.
const SHARED: usize = 2;
const HANDS: usize = 4;
/// How often a collapse that says "try again" is tried.
const TRIES: u32 = 3;

/// There was no memory to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

fn bytes(mask: u32) -> u64 {
    u64::from(mask.count_ones()) * GRANULE
}

impl Region {
    /// Puts memory behind `range`, which the caller has reserved in the books.
    ///
    /// `huge` allows huge pages, which may commit more than asked for; without it only the 64 KiB granules touched.
    pub(super) fn commit(
        &self,
        range: &Range<u64>,
        huge: bool,
        budget: &Budget,
    ) -> Result<(), NoRoom> {
        let _turn = lock(&self.turn);
        // What somebody has cut must not grow again over what is gone.
        if self.segment.stat().is_ok_and(|stat| stat.len < self.len()) {
            return Err(NoRoom);
        }
        if huge {
            self.fill_together(range, budget);
        }
        let chunks = chunks_of(range);
        let mut index = chunks.start;
        while index < chunks.end {
            let run = if huge {
                self.empty_run(index, range)
            } else {
                0
            };
            if run > 1 && self.fill_run(index, run, 1, budget) {
                index += run;
                continue;
            }
            let chunk = self.chunk(index);
            let need = touched(&within(range, index)) & !chunk.committed;
            if need != 0 {
                self.commit_chunk(index, chunk.committed, need, huge, budget)?;
            }
            index += 1;
        }
        Ok(())
    }

    /// Makes huge pages of the empty chunks of a large range by several threads: most of a collapse is clearing, and one
    /// core clears less than memory takes. What fails is left as it was, for one thread that finds out where.
    fn fill_together(&self, range: &Range<u64>, budget: &Budget) {
        let chunks = chunks_of(range);
        if chunks.len() < SHARED * RUN || !budget.collapse.may_try() {
            return;
        }
        let mut work = Vec::with_capacity(chunks.len() / RUN + 1);
        let mut index = chunks.start;
        while index < chunks.end {
            match self.empty_run(index, range) {
                0 => index += 1,
                run => {
                    work.push((index, run));
                    index += run;
                }
            }
        }
        let hands = sys::limits::cores().min(HANDS).min(work.len());
        // The segment grows by one thread.
        let Some(&(first, run)) = work.last() else {
            return;
        };
        if hands < 2 || self.grow((first + run) as u64 * CHUNK).is_err() {
            return;
        }
        let next = AtomicUsize::new(0);
        // Relaxed: each index is taken once, and the list itself was there before the threads.
        let take = || work.get(next.fetch_add(1, Ordering::Relaxed));
        let fill = |&(first, run): &(usize, usize)| self.fill_run(first, run, hands as u32, budget);
        let hand = || while take().is_some_and(fill) {};
        thread::scope(|scope| {
            for _ in 1..hands {
                let builder = thread::Builder::new().name("arenite-commit".to_owned());
                // Where no thread can be had, the others do it all.
                let _ = sys::process::start_scoped(builder, scope, hand);
            }
            hand();
        });
    }

    /// How many chunks from `first` on have nothing and are needed enough to become huge pages at once.
    fn empty_run(&self, first: usize, range: &Range<u64>) -> usize {
        let books = lock(&self.books);
        books.chunks[first..chunks_of(range).end]
            .iter()
            .take(RUN)
            .enumerate()
            .take_while(|&(step, chunk)| {
                let need = touched(&within(range, first + step));
                chunk.committed == 0 && need.count_ones() >= FILL_NEED
            })
            .count()
    }

    /// Makes huge pages of `count` empty chunks by one call, or changes nothing. So many threads do it side by side.
    fn fill_run(&self, first: usize, count: usize, hands: u32, budget: &Budget) -> bool {
        let total = count as u64 * CHUNK;
        if !budget.collapse.may_try() {
            return false;
        }
        let Some(taken) = budget.take(total) else {
            return false;
        };
        let start = first as u64 * CHUNK;
        let seeded = self.grow(start + total).and_then(|()| {
            (0..count as u64)
                .map(|step| start + step * CHUNK)
                .try_for_each(|at| self.segment.allocate(at..at + PAGE))
        });
        crate::sync::point!("commit.seeded");
        let worked = seeded.is_ok() && self.collapse(first, count, hands, budget);
        for index in first..first + count {
            if worked {
                self.note_committed(index, u32::MAX, true);
            } else {
                // The kernel does not say how far it came: one chunk after the other finds out.
                self.punch(index, u32::MAX);
            }
        }
        if worked {
            taken.keep();
        }
        worked
    }

    fn commit_chunk(
        &self,
        index: usize,
        have: u32,
        need: u32,
        huge: bool,
        budget: &Budget,
    ) -> Result<(), NoRoom> {
        let worth = need.count_ones() >= FILL_NEED || have.count_ones() >= FILL_HAVE;
        let cheap = have.count_ones() <= FILL_MOST;
        if huge
            && worth
            && cheap
            && budget.collapse.may_try()
            && let Some(taken) = budget.take(bytes(!have))
            && let Ok(huge) = self.fill(index, have, budget)
        {
            self.note_committed(index, u32::MAX, huge);
            taken.keep();
            return Ok(());
        }
        let taken = budget.take(bytes(need)).ok_or(NoRoom)?;
        let done = self
            .grow((index as u64 + 1) * CHUNK)
            .and_then(|()| self.allocate(index, need));
        crate::sync::point!("commit.allocated");
        if done.is_err() {
            // Part of it may have got memory; what the books do not count must not stay.
            self.punch(index, need);
            return Err(NoRoom);
        }
        self.note_committed(index, need, false);
        taken.keep();
        Ok(())
    }

    /// Makes chunk `index` a huge page, or fills it with small ones; says which.
    fn fill(&self, index: usize, have: u32, budget: &Budget) -> sys::Result<bool> {
        let start = index as u64 * CHUNK;
        self.grow(start + CHUNK)?;
        if have == 0 {
            // A collapse needs one page to start from.
            self.segment.allocate(start..start + PAGE)?;
        }
        if self.collapse(index, 1, 1, budget) {
            return Ok(true);
        }
        // Whatever the reason was: fallocate decides whether there is room. Only for what has no memory yet: one that
        // fails takes away every page of its range that nobody has touched, whoever had it allocated before.
        let filled = self.allocate(index, !have);
        if filled.is_err() {
            self.punch(index, !have);
        }
        filled.map(|()| false)
    }

    fn collapse(&self, first: usize, count: usize, hands: u32, budget: &Budget) -> bool {
        let start = first * CHUNK as usize;
        let range = start..start + count * CHUNK as usize;
        let began = Instant::now();
        let mut worked = false;
        for _ in 0..TRIES {
            match self.map.collapse(range.clone()) {
                Ok(()) => worked = true,
                Err(error) if error.errno() == Errno::EAGAIN => continue,
                Err(_) => {}
            }
            break;
        }
        crate::sync::point!("commit.collapsed");
        // Threads that share the memory's bandwidth are each as slow as all of them together are quick.
        let took = began.elapsed() / hands;
        budget.collapse.learn(took, count as u32, worked);
        worked
    }

    /// Puts memory behind granules of a chunk; where there is no room, looks for pages that readers of holes have left.
    ///
    /// All of them again then: what this call has allocated already is in no books yet, and goes with the strays.
    fn allocate(&self, index: usize, mask: u32) -> sys::Result<()> {
        let all = || runs(index, mask).try_for_each(|run| self.segment.allocate(run));
        match all() {
            Err(error) if error.errno() == Errno::ENOSPC && self.punch_strays() > 0 => all(),
            other => other,
        }
    }

    /// Takes the memory of granules away. Only with `turn`; content is lost.
    fn punch(&self, index: usize, mask: u32) {
        for run in runs(index, mask) {
            // Punching whole pages of a file in memory needs no memory and cannot fail for lack of it; if a kernel
            // refuses all the same, the pages stay as strays, which `punch_strays` tries again.
            let _ = self.segment.punch(run);
        }
    }

    /// Reading a hole gives it a page of zeros: if the segment has more memory than the books know of, takes the rest
    /// away. Only with `turn`. Returns the bytes gained.
    pub(super) fn punch_strays(&self) -> u64 {
        let Ok(before) = self.segment.stat() else {
            return 0;
        };
        let (known, chunks) = {
            let books = lock(&self.books);
            (books.committed(), books.chunks.clone())
        };
        if before.blocks <= known {
            return 0;
        }
        for (index, chunk) in chunks.iter().enumerate() {
            if index as u64 * CHUNK < self.len() {
                self.punch(index, !chunk.committed);
            }
        }
        let after = self
            .segment
            .stat()
            .map_or(before.blocks, |stat| stat.blocks);
        before.blocks.saturating_sub(after)
    }

    /// Takes memory away that nobody holds, until that is `want` bytes or all; the bytes given back.
    ///
    /// Whole chunks and granules of small pages only; with `hard` also parts of huge pages, which become small then.
    pub(super) fn trim(&self, hard: bool, want: u64, budget: &Budget) -> u64 {
        let _turn = lock(&self.turn);
        let mut gained = self.punch_strays();
        let mut ranges = lock(&self.books).free.ranges();
        ranges.retain(|&(_, len)| len >= GRANULE);
        for (start, len) in ranges {
            if gained >= want {
                break;
            }
            // While it is being punched the range belongs to us: nobody can be given a page that is about to go.
            if !lock(&self.books).free.take_exact(start, len) {
                continue;
            }
            crate::sync::point!("reclaim.taken");
            gained += self.punch_free(start..start + len, hard, budget);
            crate::sync::point!("reclaim.punched");
            lock(&self.books).free.give(start, len);
        }
        let above = || {
            let mut books = lock(&self.books);
            let end = books.chunks.len() as u64 * CHUNK;
            books.free.take_up_to(end)
        };
        if gained < want
            && let Some((start, len)) = above()
        {
            gained += self.punch_free(start..start + len, hard, budget);
            lock(&self.books).free.give(start, len);
        }
        if gained >= CHUNK {
            budget.collapse.forgive();
        }
        gained
    }

    fn punch_free(&self, range: Range<u64>, hard: bool, budget: &Budget) -> u64 {
        let mut gained = 0;
        for index in chunks_of(&range) {
            let part = within(&range, index);
            let chunk = self.chunk(index);
            let whole = part == (0..CHUNK);
            let mask = inside(&part) & chunk.committed;
            if mask == 0 || (chunk.huge && !whole && !hard) {
                continue;
            }
            let forgotten = lock(&self.books).forgotten;
            // Of a whole chunk also what is in no books: a hostile writer can open its whole region.
            let holes = if whole { !chunk.committed } else { 0 };
            let mut punched = 0;
            for run in runs(index, mask | holes) {
                if self.segment.punch(run.clone()).is_ok() {
                    punched |= touched(&within(&run, index));
                }
            }
            let mut books = lock(&self.books);
            // Who wrote here may have done so again before it was gone.
            let is_zero = punched == u32::MAX && books.forgotten == forgotten;
            let chunk = &mut books.chunks[index];
            punched &= chunk.committed;
            chunk.committed &= !punched;
            if punched != 0 {
                chunk.huge = false;
            }
            if is_zero {
                chunk.fresh_from = 0;
            }
            drop(books);
            budget.give(bytes(punched));
            gained += bytes(punched);
        }
        gained
    }
}
