//! Locations in an arena, as numbers that mean the same in every process.

use std::fmt;

use super::layout::PAGE;
use crate::sys::debug_as_text;
use bytemuck::{Pod, Zeroable};

/// The number of low bits of an [`Offset`] that hold the byte offset. The bits above hold the region.
const BYTE_BITS: u32 = 48;

/// A location in an arena: a region and a byte in it. Unlike an address, it means the same in every process.
#[repr(transparent)]
#[derive(Copy, Clone, Pod, Zeroable, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

const _: () = assert!(size_of::<Offset>() == 8 && align_of::<Offset>() == 8);

impl Offset {
    /// Upper bound of the size of a region in bytes.
    pub const MAX_REGION_LEN: u64 = 1 << BYTE_BITS;

    /// The location of byte `offset` of `region`.
    ///
    /// # Panics
    ///
    /// If `offset` is not below [`Offset::MAX_REGION_LEN`].
    pub fn new(region: u16, offset: u64) -> Offset {
        assert!(
            offset < Offset::MAX_REGION_LEN,
            "byte {offset} is beyond any region"
        );
        Offset(u64::from(region) << BYTE_BITS | offset)
    }

    /// The region's number.
    pub fn region(self) -> u16 {
        (self.0 >> BYTE_BITS) as u16
    }

    /// The byte offset in the region.
    pub fn offset(self) -> u64 {
        self.0 & (Offset::MAX_REGION_LEN - 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} of region {}", self.offset(), self.region())
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}+{:#x}", self.region(), self.offset())
    }
}

/// A run of bytes in one region.
#[repr(C)]
#[derive(Copy, Clone, Pod, Zeroable, PartialEq, Eq, Hash, Debug)]
pub struct Extent {
    /// The first byte.
    pub at: Offset,
    /// Length in bytes.
    pub len: u64,
}

const _: () = assert!(size_of::<Extent>() == 16);

impl Extent {
    /// The offset of the first byte after the extent, or `None` if it exceeds the maximum size of a region.
    pub fn end(&self) -> Option<u64> {
        let end = self.at.offset().checked_add(self.len)?;
        (end <= Offset::MAX_REGION_LEN).then_some(end)
    }

    /// Extends the extent to the end of its last page, and then by `behind` bytes, which are whole pages. If `behind`
    /// is 0, the extent does not change.
    pub(crate) fn extended_by_pages(&self, behind: u64) -> Extent {
        let whole = |end: u64| end.next_multiple_of(PAGE).saturating_add(behind);
        match self.end().filter(|_| behind > 0) {
            Some(end) => Extent {
                len: whole(end).saturating_sub(self.at.offset()),
                ..*self
            },
            None => *self,
        }
    }

    /// Whether the two extents have a byte in common.
    pub(crate) fn overlaps(&self, other: &Extent) -> bool {
        let begins_in = |inner: &Extent, outer: &Extent| {
            let skip = inner.at.offset().checked_sub(outer.at.offset());
            skip.is_some_and(|skip| skip < outer.len)
        };
        self.at.region() == other.at.region()
            && self.len > 0
            && other.len > 0
            && (begins_in(self, other) || begins_in(other, self))
    }
}

/// An extent outside the committed part of the arena.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct BadOffset {
    /// The extent.
    pub extent: Extent,
    /// Committed bytes of the extent's region; 0 if the region does not exist.
    pub committed: u64,
}

impl fmt::Display for BadOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes at {} are outside the {} committed bytes of this region",
            self.extent.len, self.extent.at, self.committed
        )
    }
}

impl std::error::Error for BadOffset {}

debug_as_text!(BadOffset);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_and_offset_are_recovered() {
        let last = Offset::new(u16::MAX, Offset::MAX_REGION_LEN - 1);
        assert_eq!(last.region(), u16::MAX);
        assert_eq!(last.offset(), Offset::MAX_REGION_LEN - 1);
    }

    #[test]
    fn ends_are_checked() {
        let at = Offset::new(1, 64);
        assert_eq!(Extent { at, len: 64 }.end(), Some(128));
        assert_eq!(Extent { at, len: u64::MAX }.end(), None);
        assert_eq!(
            Extent {
                at,
                len: Offset::MAX_REGION_LEN
            }
            .end(),
            None
        );
    }

    #[test]
    #[should_panic(expected = "beyond any region")]
    fn an_offset_never_overflows_into_the_region() {
        let _ = Offset::new(0, Offset::MAX_REGION_LEN);
    }
}
