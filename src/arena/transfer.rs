//! Copying plain words and bytes into and out of an arena, for data too large for a link.

use std::sync::Arc;

use super::{Arena, BadOffset, Block, BlockPlacement, Extent, View};
use crate::arena::ArenaFull;

impl Arena {
    /// Allocates a block of region 0 with a copy of `words`.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if there is no room for it.
    pub(crate) fn alloc_words(self: &Arc<Self>, words: &[u64]) -> Result<Block, ArenaFull> {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let block = self.alloc(0, bytes.len() as u64, BlockPlacement::Packed)?;
        // SAFETY: the block was just allocated, is known to no other code, and has this length.
        unsafe {
            block
                .as_ptr()
                .as_ptr()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        Ok(block)
    }

    /// Allocates a block of region 0 with a copy of the present content of `of`.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if there is no room for it.
    #[cfg(feature = "sandbox")]
    pub(crate) fn alloc_copy(self: &Arc<Self>, of: &Block) -> Result<Block, ArenaFull> {
        let block = self.alloc(0, of.len(), BlockPlacement::Packed)?;
        // SAFETY: the block was just allocated, so no other code and no worker has its location. Both blocks have
        // `of.len()` bytes and stay mapped while they live. A worker that has published `of` may write to it meanwhile;
        // then the copied bytes are unspecified, but no reference to them exists.
        unsafe {
            block
                .as_ptr()
                .as_ptr()
                .copy_from_nonoverlapping(of.as_ptr().as_ptr(), of.len() as usize);
        }
        Ok(block)
    }

    /// Returns a private copy of words that a worker has published.
    ///
    /// # Errors
    ///
    /// [`BadOffset`] if the extent is not committed memory of the arena, or not whole aligned words.
    pub(crate) fn copy_words(&self, extent: Extent) -> Result<Vec<u64>, BadOffset> {
        copy(extent, self.pointer(extent)?)
    }
}

impl View {
    /// Returns a private copy of words that the supervisor has lent to the running job.
    ///
    /// # Errors
    ///
    /// [`BadOffset`] as for [`View::pointer`], and if the extent is not whole aligned words.
    pub(crate) fn copy_words(&self, extent: Extent) -> Result<Vec<u64>, BadOffset> {
        copy(extent, self.pointer(extent)?)
    }
}

fn copy(extent: Extent, from: std::ptr::NonNull<u8>) -> Result<Vec<u64>, BadOffset> {
    let from = from.cast::<u64>();
    if !extent.len.is_multiple_of(8) || !from.is_aligned() {
        return Err(BadOffset {
            extent,
            committed: 0,
        });
    }
    let mut words = vec![0; (extent.len / 8) as usize];
    // SAFETY: `pointer` checked that the extent is mapped; its writer handed it over (published it, or lent it with the
    // job) before reporting its location, and any bytes are a valid `u64`.
    unsafe {
        from.as_ptr()
            .copy_to_nonoverlapping(words.as_mut_ptr(), words.len())
    };
    Ok(words)
}
