//! Committing and freeing memory of a region: chunks, huge pages, fallbacks, trim. See "Commit" in README.md.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;

use super::budget::Budget;
use super::layout::{CHUNK, GRANULE, PAGE};
use super::region::{Region, chunks_of, inside, runs, touched, within};
use crate::sync::lock;
use crate::sys;

/// If at least this number of granules of a chunk (1 MiB) is needed at once, the chunk becomes a huge page immediately.
const HUGE_MIN_NEED: u32 = 16;
/// If a chunk has at least this number of granules of small pages (256 KiB) and needs more, it becomes a huge page.
const HUGE_MIN_HAVE: u32 = 4;
/// If a chunk has more than this number of granules of small pages, copying them costs more than a huge page saves.
const HUGE_MAX_COPY: u32 = 8;
/// Maximum number of empty chunks collapsed by one call. Linux begins each call by asking every core to drain its page
/// caches, which takes milliseconds when cores are busy.
const MAX_RUN: usize = 16;
/// From this number of runs on (64 MiB), several threads share the work.
const PARALLEL_RUNS: usize = 2;
/// Maximum number of threads that collapse, including the caller.
const MAX_THREADS: usize = 4;
/// Maximum number of tries of a collapse that returns `EAGAIN`.
const COLLAPSE_TRIES: u32 = 3;

/// The error of [`Region::commit`]: the budget or the system has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfMemory;

fn bytes(mask: u32) -> u64 {
    u64::from(mask.count_ones()) * GRANULE
}

impl Region {
    /// Commits `range`, which the caller has reserved.
    ///
    /// `huge` allows huge pages, which may commit more than asked for. Without `huge`, commits the 64 KiB granules that
    /// `range` touches.
    pub(super) fn commit(
        &self,
        range: &Range<u64>,
        huge: bool,
        budget: &Budget,
    ) -> Result<(), OutOfMemory> {
        let _committing = lock(&self.commit_lock);
        if huge {
            self.fill_in_parallel(range, budget);
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

    /// Makes huge pages of the empty chunks of a large range, with several threads: a collapse spends most of its time
    /// clearing memory, and one core does not use the full memory bandwidth. Chunks that fail stay as they were; the
    /// caller then fills them one by one.
    fn fill_in_parallel(&self, range: &Range<u64>, budget: &Budget) {
        let chunks = chunks_of(range);
        if chunks.len() < PARALLEL_RUNS * MAX_RUN || !budget.collapse.is_worth_trying() {
            return;
        }
        let mut work = Vec::with_capacity(chunks.len() / MAX_RUN + 1);
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
        let threads = sys::limits::cores().min(MAX_THREADS).min(work.len());
        // Grow the segment here, on one thread.
        let Some(&(first, run)) = work.last() else {
            return;
        };
        if threads < 2 || self.grow((first + run) as u64 * CHUNK).is_err() {
            return;
        }
        let next = AtomicUsize::new(0);
        // Relaxed: each index is taken once, and the list was complete before the threads started.
        let take = || work.get(next.fetch_add(1, Ordering::Relaxed));
        let fill =
            |&(first, run): &(usize, usize)| self.fill_run(first, run, threads as u32, budget);
        let work_off = || while take().is_some_and(fill) {};
        thread::scope(|scope| {
            for _ in 1..threads {
                let builder = thread::Builder::new().name("arenite-commit".to_owned());
                // If a thread cannot be started, the others do its share.
                let _ = sys::process::start_scoped(builder, scope, work_off);
            }
            work_off();
        });
    }

    /// The number of consecutive chunks from `first` on that are empty, and of which `range` needs enough granules for
    /// a huge page to be worthwhile.
    fn empty_run(&self, first: usize, range: &Range<u64>) -> usize {
        let accounting = lock(&self.accounting);
        accounting.chunks[first..chunks_of(range).end]
            .iter()
            .take(MAX_RUN)
            .enumerate()
            .take_while(|&(step, chunk)| {
                let need = touched(&within(range, first + step));
                chunk.committed == 0 && need.count_ones() >= HUGE_MIN_NEED
            })
            .count()
    }

    /// Makes huge pages of `count` empty chunks with one call, or changes nothing. `threads` is the number of threads
    /// that call this in parallel.
    fn fill_run(&self, first: usize, count: usize, threads: u32, budget: &Budget) -> bool {
        let total = count as u64 * CHUNK;
        if !budget.collapse.is_worth_trying() {
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
        let worked = seeded.is_ok() && self.collapse(first, count, threads, budget);
        for index in first..first + count {
            if worked {
                self.note_committed(index, u32::MAX, true);
            } else {
                // Linux does not report how many chunks succeeded. The caller finds out by trying chunk by chunk.
                self.punch(index, u32::MAX);
            }
        }
        if worked {
            taken.confirm();
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
    ) -> Result<(), OutOfMemory> {
        let worth = need.count_ones() >= HUGE_MIN_NEED || have.count_ones() >= HUGE_MIN_HAVE;
        let cheap = have.count_ones() <= HUGE_MAX_COPY;
        if huge
            && worth
            && cheap
            && budget.collapse.is_worth_trying()
            && let Some(taken) = budget.take(bytes(!have))
            && let Ok(huge) = self.fill(index, have, budget)
        {
            self.note_committed(index, u32::MAX, huge);
            taken.confirm();
            return Ok(());
        }
        let taken = budget.take(bytes(need)).ok_or(OutOfMemory)?;
        let done = self
            .grow((index as u64 + 1) * CHUNK)
            .and_then(|()| self.allocate(index, need));
        crate::sync::point!("commit.allocated");
        if done.is_err() {
            // Part of the range may be allocated; memory that is not counted must not stay.
            self.punch(index, need);
            return Err(OutOfMemory);
        }
        self.note_committed(index, need, false);
        taken.confirm();
        Ok(())
    }

    /// Makes chunk `index` a huge page, or fills it with small pages. Returns whether it is a huge page.
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
        // The reason of the failure does not matter: fallocate decides whether there is room. Allocate only granules
        // without memory: a fallocate that fails frees every untouched page of its range, even pages that an earlier
        // call has allocated.
        let filled = self.allocate(index, !have);
        if filled.is_err() {
            self.punch(index, !have);
        }
        filled.map(|()| false)
    }

    fn collapse(&self, first: usize, count: usize, threads: u32, budget: &Budget) -> bool {
        let start = first * CHUNK as usize;
        let range = start..start + count * CHUNK as usize;
        let began = Instant::now();
        let mut worked = false;
        for _ in 0..COLLAPSE_TRIES {
            match self.map.collapse(range.clone()) {
                Ok(()) => worked = true,
                Err(error) if error.errno() == Errno::EAGAIN => continue,
                Err(_) => {}
            }
            break;
        }
        crate::sync::point!("commit.collapsed");
        // Parallel collapses share the memory bandwidth: divide, to compare with a collapse that runs alone.
        let took = began.elapsed() / threads;
        budget.collapse.learn(took, count as u32, worked);
        worked
    }

    /// Allocates memory for granules of a chunk. On `ENOSPC`, frees stray pages (see `punch_strays`) and tries once
    /// more.
    ///
    /// The second try covers all granules: `punch_strays` also frees the granules that the first try allocated, which
    /// are not accounted for yet.
    fn allocate(&self, index: usize, mask: u32) -> sys::Result<()> {
        let all = || runs(index, mask).try_for_each(|run| self.segment.allocate(run));
        match all() {
            Err(error) if error.errno() == Errno::ENOSPC && self.punch_strays() > 0 => all(),
            other => other,
        }
    }

    /// Frees the memory of granules, whose content is lost. The caller holds `commit_lock`.
    fn punch(&self, index: usize, mask: u32) {
        for run in runs(index, mask) {
            // Punching whole pages of an in-memory file needs no memory and cannot fail for lack of it. Pages that stay
            // anyway become strays, which `punch_strays` tries to free again.
            let _ = self.segment.punch(run);
        }
    }

    /// Frees pages that the accounting does not count: reading a hole of the file allocates a page of zeros. The caller
    /// holds `commit_lock`. Returns the number of bytes freed.
    pub(super) fn punch_strays(&self) -> u64 {
        let Ok(before) = self.segment.stat() else {
            return 0;
        };
        let (counted, chunks) = {
            let accounting = lock(&self.accounting);
            (accounting.committed(), accounting.chunks.clone())
        };
        if before.blocks <= counted {
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

    /// Frees memory that no block occupies, until `want` bytes are freed or none is left. Returns the number of bytes.
    ///
    /// Frees whole chunks, and granules of small pages. With `split_huge` it also frees parts of huge pages, whose rest
    /// then consists of small pages.
    pub(super) fn trim(&self, split_huge: bool, want: u64, budget: &Budget) -> u64 {
        let _committing = lock(&self.commit_lock);
        let mut gained = self.punch_strays();
        let mut ranges = lock(&self.accounting).free.ranges();
        ranges.retain(|&(_, len)| len >= GRANULE);
        for (start, len) in ranges {
            if gained >= want {
                break;
            }
            // Taking the range keeps other threads from allocating it while it is punched.
            if !lock(&self.accounting).free.take_exact(start, len) {
                continue;
            }
            crate::sync::point!("reclaim.taken");
            gained += self.punch_free(start..start + len, split_huge, want - gained, budget);
            crate::sync::point!("reclaim.punched");
            lock(&self.accounting).free.give(start, len);
        }
        let above = || {
            let mut accounting = lock(&self.accounting);
            let end = accounting.chunks.len() as u64 * CHUNK;
            accounting.free.take_up_to(end)
        };
        if gained < want
            && let Some((start, len)) = above()
        {
            gained += self.punch_free(start..start + len, split_huge, want - gained, budget);
            lock(&self.accounting).free.give(start, len);
        }
        if gained >= CHUNK {
            budget.collapse.end_pause();
        }
        gained
    }

    /// Frees at least `want` bytes of a free range, or all of it. Starts at the range's end, because blocks are taken
    /// from its start.
    fn punch_free(&self, range: Range<u64>, split_huge: bool, want: u64, budget: &Budget) -> u64 {
        let mut gained = 0;
        for index in chunks_of(&range).rev() {
            if gained >= want {
                break;
            }
            let part = within(&range, index);
            let chunk = self.chunk(index);
            let whole = part == (0..CHUNK);
            let mask = inside(&part) & chunk.committed;
            if mask == 0 || (chunk.huge && !whole && !split_huge) {
                continue;
            }
            let zeros_generation = lock(&self.accounting).zeros_generation;
            // Punch even the uncounted granules of a whole chunk: a hostile writer can write to its whole region.
            let holes = if whole { !chunk.committed } else { 0 };
            let mut punched = 0;
            for run in runs(index, mask | holes) {
                if self.segment.punch(run.clone()).is_ok() {
                    punched |= touched(&within(&run, index));
                }
            }
            let mut accounting = lock(&self.accounting);
            // If `forget_zeros` was called meanwhile, the writer may have written here again.
            let is_zero = punched == u32::MAX && accounting.zeros_generation == zeros_generation;
            let chunk = &mut accounting.chunks[index];
            punched &= chunk.committed;
            chunk.committed &= !punched;
            if punched != 0 {
                chunk.huge = false;
            }
            if is_zero {
                chunk.fresh_from = 0;
            }
            drop(accounting);
            budget.give(bytes(punched));
            gained += bytes(punched);
        }
        gained
    }
}
