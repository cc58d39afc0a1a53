//! Ownership of an extent.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Arena;
use super::layout::{PAGE, QUANTUM};
use super::offset::{Extent, Offset};

/// An owned extent of an arena; dropping it frees exactly that extent.
///
/// A block says who owns memory, not who may read or write it. While a worker has the block as a grant, or an array in
/// the block is lent to one of its jobs, no other process accesses the block's memory.
pub struct Block {
    arena: Arc<Arena>,
    at: Offset,
    len: u64,
    /// Bytes that the block occupies: at least `len`, a multiple of the quantum; 0 for an empty block.
    held: u64,
    fresh: bool,
}

impl Block {
    pub(super) fn new(arena: Arc<Arena>, at: Offset, len: u64, held: u64, fresh: bool) -> Block {
        Block {
            arena,
            at,
            len,
            held,
            fresh,
        }
    }

    /// The location of the block and the number of bytes requested.
    pub fn extent(&self) -> Extent {
        Extent {
            at: self.at,
            len: self.len,
        }
    }

    /// The number of bytes requested.
    #[cfg(any(test, feature = "sandbox"))]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of bytes that the block occupies: its length with padding.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// The number of bytes of the whole pages after the last page of `extent` that belong to the block's padding. 0 if
    /// `extent` does not end at the last requested byte of the block.
    pub(crate) fn spare_bytes_after(&self, extent: Extent) -> u64 {
        if extent.at.region() != self.at.region() || extent.len == 0 {
            return 0;
        }
        let end = extent.at.offset() + extent.len;
        if end != self.at.offset() + self.len {
            return 0;
        }
        let held = self.at.offset() + self.held;
        held.saturating_sub(end.next_multiple_of(PAGE)) / PAGE * PAGE
    }

    /// The address of the first byte in this process, aligned to at least 64 bytes. The caller must not read through it
    /// while another process may write there.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.arena.address(self.at)
    }

    /// The [id](Arena::id) of the arena that the block belongs to.
    pub fn arena_id(&self) -> u64 {
        self.arena.id()
    }

    /// The arena that the block belongs to.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Whether all bytes of the block were known to be zero when it was allocated.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Splits the block at byte `at`: `self` keeps the bytes below `at`, and the returned block owns the rest with the
    /// padding.
    ///
    /// # Panics
    ///
    /// If `at` is not a multiple of 64, or is above [`held`](Block::held).
    #[must_use = "the part split off is freed when it is dropped"]
    pub fn split_off(&mut self, at: u64) -> Block {
        assert!(
            at.is_multiple_of(QUANTUM) && at <= self.held,
            "a block of {} bytes cannot be split at byte {at}",
            self.held
        );
        let place = Offset::new(self.at.region(), self.at.offset() + at);
        let rest = Block {
            arena: Arc::clone(&self.arena),
            at: if at == self.held {
                Offset::new(self.at.region(), 0)
            } else {
                place
            },
            len: self.len.saturating_sub(at),
            held: self.held - at,
            fresh: self.fresh,
        };
        self.len = self.len.min(at);
        self.held = at;
        self.arena
            .note_split(self.at.region(), self.held, rest.held);
        rest
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.held > 0 {
            self.arena.release(self.at, self.held);
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("at", &self.at)
            .field("len", &self.len)
            .field("held", &self.held)
            .field("arena", &format_args!("{:#x}", self.arena.id()))
            .finish_non_exhaustive()
    }
}
