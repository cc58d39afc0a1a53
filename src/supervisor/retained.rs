//! The arrays of one lane whose handles in the worker outlive their jobs. The supervisor retains their blocks.
//!
//! Worker and supervisor number the arrays in the order in which replies name them. A worker can release only arrays of
//! its own lane, and can add only arrays that the ended job had leased or allocated.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::grants::skip_within;
use crate::arena::{Arena, Block, Extent, Offset};
use crate::kernel::wire::Lease;
use crate::link::MAX_RETAINED;

/// The retained arrays of one lane: see the module.
#[derive(Debug, Default)]
pub(super) struct RetainedArrays {
    /// The number of the next array.
    next: u64,
    /// The arrays, by number.
    arrays: HashMap<u64, RetainedArray>,
    /// The blocks, by start offset.
    blocks: BTreeMap<Offset, RetainedBlock>,
    /// Total size of the blocks in bytes.
    bytes: u64,
}

#[derive(Debug)]
struct RetainedArray {
    /// The start offset of the array's block.
    block: Offset,
    /// Whether a reply may send the array. An array that was lent to its job is copied instead, because other code may
    /// write it.
    is_sendable: bool,
}

#[derive(Debug)]
struct RetainedBlock {
    block: Arc<Block>,
    /// The number of retained arrays in the block.
    arrays: usize,
    /// The number of these arrays that a reply may send.
    sendable: usize,
}

impl RetainedArrays {
    pub(super) fn is_empty(&self) -> bool {
        self.arrays.is_empty()
    }

    /// Returns the total size of the blocks in bytes. A block counts once, however many arrays are in it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the block that contains this extent, if it has a retained array that a reply may send.
    pub(super) fn find(&self, extent: Extent) -> Option<&Arc<Block>> {
        let (_, found) = self.blocks.range(..=extent.at).next_back()?;
        let is_within = skip_within(found.block.extent(), extent).is_some();
        (is_within && found.sendable > 0).then_some(&found.block)
    }

    /// Retains the blocks of arrays whose handles outlive a job with these leases.
    ///
    /// # Errors
    ///
    /// If there are more arrays than a lane may retain, or an array is empty.
    pub(super) fn add(
        &mut self,
        arena: &Arena,
        blocks: impl Iterator<Item = Arc<Block>>,
        leases: &[Lease],
    ) -> Result<(), String> {
        let before = self.bytes;
        let added = self.add_all(blocks, leases);
        arena.note_retained(before, self.bytes);
        added
    }

    fn add_all(
        &mut self,
        blocks: impl Iterator<Item = Arc<Block>>,
        leases: &[Lease],
    ) -> Result<(), String> {
        // Empty for most jobs.
        let lent = leases.iter().filter_map(|lease| match lease {
            Lease::Owned(block) | Lease::Loan { block, .. } => Some(block),
            Lease::Shared(_) | Lease::Lent(_) | Lease::File(_) => None,
        });
        let lent: HashSet<_> = lent.map(Arc::as_ptr).collect();
        let was_lent = |block: &Arc<Block>| lent.contains(&Arc::as_ptr(block));
        for block in blocks {
            if self.arrays.len() >= MAX_RETAINED {
                return Err(format!("more than {MAX_RETAINED} retained arrays"));
            }
            if block.is_empty() {
                return Err("a retained array without bytes".into());
            }
            let at = block.extent().at;
            let (held, is_sendable) = (block.held(), !was_lent(&block));
            let array = RetainedArray {
                block: at,
                is_sendable,
            };
            self.arrays.insert(self.next, array);
            self.next += 1;
            let entry = self.blocks.entry(at).or_insert(RetainedBlock {
                block,
                arrays: 0,
                sendable: 0,
            });
            entry.arrays += 1;
            entry.sendable += usize::from(is_sendable);
            if entry.arrays == 1 {
                self.bytes += held;
            }
        }
        Ok(())
    }

    /// Releases the array of this number. Returns its block if no other retained array is in it.
    ///
    /// # Errors
    ///
    /// If no array has this number.
    pub(super) fn release(
        &mut self,
        arena: &Arena,
        number: u64,
    ) -> Result<Option<Arc<Block>>, String> {
        let RetainedArray {
            block: at,
            is_sendable,
        } = self
            .arrays
            .remove(&number)
            .ok_or_else(|| format!("a release of array {number}, which it does not retain"))?;
        let entry = self.blocks.get_mut(&at).expect("entered with the number");
        entry.arrays -= 1;
        entry.sendable -= usize::from(is_sendable);
        if entry.arrays > 0 {
            return Ok(None);
        }
        let before = self.bytes;
        self.bytes -= entry.block.held();
        arena.note_retained(before, self.bytes);
        Ok(self.blocks.remove(&at).map(|entry| entry.block))
    }

    /// Frees all blocks. Called only after the exit of the worker is confirmed.
    pub(super) fn clear(&mut self, arena: &Arena) {
        arena.note_retained(self.bytes, 0);
        *self = Self::default();
    }
}
