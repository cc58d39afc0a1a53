//! Results of locked-down workers, copied to where no worker can write.

use std::sync::Arc;

use crate::arena::{Arena, ArenaFull, Block};
use crate::kernel::wire::{Lease, ReceivedArray};

/// Puts fresh arrays of a reply into region 0. Inputs that come back lie there already.
///
/// Code that took over a worker may write into its own region for as long as it lives; whoever holds a handle must not
/// see that. Arrays that share their memory still do afterwards.
pub(super) fn copy_out(
    arena: &Arc<Arena>,
    arrays: &mut [ReceivedArray],
    leases: &[Lease],
) -> Result<(), ArenaFull> {
    let is_input = |block: &Arc<Block>| {
        leases.iter().any(|lease| match lease {
            Lease::Shared(input) | Lease::Owned(input) => Arc::ptr_eq(input, block),
            Lease::Lent(_) => false,
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
