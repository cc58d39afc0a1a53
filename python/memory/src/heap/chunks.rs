//! Chunks of 2 MiB, and runs of them.

use std::collections::BTreeMap;
use std::ops::Range;

use arenite::raw::memory::HUGE;

/// Runs of chunks, no two of which touch. Maps the first chunk to the number of chunks and to data about the run.
pub(super) type Runs<T> = BTreeMap<usize, (usize, T)>;

/// Takes the first `chunks` chunks of the run that begins at `first`.
pub(super) fn take_front<T>(runs: &mut Runs<T>, first: usize, chunks: usize) {
    if let Some((run, known)) = runs.remove(&first)
        && run > chunks
    {
        runs.insert(first + chunks, (run - chunks, known));
    }
}

/// Merges a run with the runs next to it, and adds the result.
pub(super) fn join<T>(runs: &mut Runs<T>, mut first: usize, mut chunks: usize, known: T) {
    if let Some((&before, &(run, _))) = runs.range(..first).next_back()
        && before + run == first
    {
        first = before;
        chunks += run;
    }
    if let Some((run, _)) = runs.remove(&(first + chunks)) {
        chunks += run;
    }
    runs.insert(first, (chunks, known));
}

/// The byte range of `chunks` chunks from chunk `first` on.
pub(super) fn bytes(first: usize, chunks: usize) -> Range<usize> {
    first * HUGE..(first + chunks) * HUGE
}

/// Returns the length of the part, at the start of a block of `len` bytes, that is worth huge pages.
pub(super) fn huge_part(len: usize) -> usize {
    let rest = len % HUGE;
    if rest >= HUGE / 4 * 3 {
        len.next_multiple_of(HUGE)
    } else {
        len - rest
    }
}
