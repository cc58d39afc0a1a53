//! Prepares heaps for a fork, and sets them up in the forked process.

use std::sync::{Mutex, MutexGuard, Once};

use arenite::raw::memory::{Access, AfterFork, Segment, run_around_forks};

use super::{CowHeap, State};
use crate::sync::{lock, point};

/// Registers the heap: from now on, after a fork neither process sees what the other writes to blocks of the heap.
pub(super) fn register(heap: &'static CowHeap) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| run_around_forks(before_fork));
    lock(&HEAPS).push(heap);
}

/// All heaps of this process.
static HEAPS: Mutex<Vec<&'static CowHeap>> = Mutex::new(Vec::new());

/// The locks of one heap, and its files that the forked process is to hold.
struct Locks {
    state: MutexGuard<'static, State>,
    _ended: MutexGuard<'static, Vec<(u64, usize)>>,
    /// One for each region: it [holds](Segment::hold) the region's file as long as the forked process lives.
    holders: Vec<Segment>,
}

/// Locks all heaps, makes their blocks private and retires their regions.
fn before_fork() -> AfterFork {
    let heaps = lock(&HEAPS).clone();
    let mut all = Vec::new();
    for heap in heaps {
        let mut state = lock(&heap.state);
        heap.tidy(&mut state);
        let State {
            regions,
            private,
            free,
            ..
        } = &mut *state;
        let mut holders = Vec::new();
        for region in regions.iter_mut() {
            region.check();
            region.return_free(free, 0, None);
            region.make_all_private(private);
            point!("heap.forking");
            region.is_retired = true;
            if region.is_lost {
                continue;
            }
            let holder = Segment::reopen(region.segment.as_raw_fd(), Access::ReadOnly);
            match holder.and_then(|holder| holder.hold().map(|()| holder)) {
                Ok(holder) => holders.push(holder),
                // Without a holder this process cannot find out whether the forked process lives.
                Err(_) => region.is_lost = true,
            }
        }
        regions.retain(|region| !region.blocks.is_empty());
        let _ended = lock(&heap.ended);
        all.push(Locks {
            state,
            _ended,
            holders,
        });
        point!("heap.retired");
    }
    Box::new(|is_copy| after_fork(all, is_copy))
}

fn after_fork(all: Vec<Locks>, is_copy: bool) {
    for Locks {
        mut state, holders, ..
    } in all
    {
        if !is_copy {
            point!("heap.forked");
            continue;
        }
        // As long as the holders are open, the original process knows that this process lives.
        std::mem::forget(holders);
        let State {
            regions, private, ..
        } = &mut *state;
        for region in regions {
            region.is_lost = true;
            // A thread that was making an image does not exist in this process.
            let blocks = region.blocks.values_mut();
            blocks.for_each(|block| block.is_busy = false);
            region.make_all_private(private);
            if region.blocks.values().any(|block| !block.is_private) {
                // Writes of this process to a shared block would reach the other process.
                eprintln!(
                    "arenite: this copy made by fork() cannot have memory of its own for its arrays"
                );
                std::process::abort();
            }
        }
    }
}
