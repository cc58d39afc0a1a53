//! Results of sandboxed workers are copied to where no worker can write.

use std::sync::Arc;

use crate::arena::{Arena, ArenaFull, Block};
use crate::kernel::wire::{Lease, ReceivedArray};

/// Copies fresh arrays of a reply into region 0. Inputs that come back lie there already.
///
/// Code that took over a worker may write into its own region as long as the process lives, which must not be visible
/// through a handle. Arrays that shared memory share it afterwards.
pub(super) fn copy_out(
    arena: &Arc<Arena>,
    arrays: &mut [ReceivedArray],
    leases: &[Lease],
) -> Result<(), ArenaFull> {
    let is_input = |block: &Arc<Block>| {
        leases.iter().any(|lease| match lease {
            Lease::Shared(input) | Lease::Owned(input) => Arc::ptr_eq(input, block),
            // Nothing is lent to sandboxed workers, and they open no files.
            Lease::Lent(_) | Lease::Loan { .. } | Lease::File(_) => false,
        })
    };
    for at in 0..arrays.len() {
        let from = Arc::clone(&arrays[at].block);
        if from.extent().at.region() == 0 || is_input(&from) {
            continue;
        }
        let copy = Arc::new(arena.alloc_copy(&from)?);
        crate::sync::point!("copy.allocated");
        for array in &mut arrays[at..] {
            if Arc::ptr_eq(&array.block, &from) {
                array.block = Arc::clone(&copy);
            }
        }
        crate::sync::point!("copy.done");
    }
    Ok(())
}
