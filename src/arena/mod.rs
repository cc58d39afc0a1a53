//! The `arena` floor: stand-ins for what the array floor needs of it.

use std::ptr::NonNull;

/// Region in the top 16 bits, byte offset in the low 48.
#[repr(transparent)]
#[derive(Copy, Clone, bytemuck::Pod, bytemuck::Zeroable, PartialEq, Eq, Hash, Debug)]
pub struct Offset(u64);

impl Offset {
    /// Packs a region and a byte offset.
    pub fn new(region: u16, offset: u64) -> Offset {
        Offset((u64::from(region) << 48) | (offset & ((1 << 48) - 1)))
    }
    /// The region.
    pub fn region(self) -> u16 {
        (self.0 >> 48) as u16
    }
    /// The byte offset in the region.
    pub fn offset(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }
}

/// A range of bytes in a region.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Extent {
    /// Where it starts.
    pub at: Offset,
    /// Bytes.
    pub len: u64,
}

/// No room.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ArenaFull {
    /// Bytes asked for.
    pub requested: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes in all.
    pub capacity: u64,
    /// Largest free range.
    pub largest_free: u64,
    /// Room in /dev/shm.
    pub shm_free: u64,
}

impl std::fmt::Display for ArenaFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "arena full: requested {}, free {}",
            self.requested, self.free
        )
    }
}

impl std::error::Error for ArenaFull {}

/// How a block lies in its region.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Placement {
    /// 64-byte aligned.
    Packed,
    /// Whole pages.
    Pages,
}

/// Owns an extent.
#[derive(Debug)]
pub struct Block(Extent);

impl Block {
    /// Its extent.
    pub fn extent(&self) -> Extent {
        self.0
    }
    /// Arena.
    pub fn arena_id(&self) -> u64 {
        0
    }
    /// Its base.
    pub fn as_ptr(&self) -> NonNull<u8> {
        NonNull::dangling()
    }
}
