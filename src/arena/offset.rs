//! Places in an arena, as numbers that mean the same in every process.

use std::fmt;

use super::layout::PAGE;
use crate::sys::debug_as_text;
use bytemuck::{Pod, Zeroable};

/// Bits of an [`Offset`] that count bytes; the rest names the region.
const BYTE_BITS: u32 = 48;

/// A place in an arena: a region and a byte in it. Never an address, so it means the same in every process.
///
/// # Examples
///
/// ```
/// use arenite::arena::Offset;
///
/// let place = Offset::new(3, 4096);
/// assert_eq!((place.region(), place.offset()), (3, 4096));
/// ```
#[repr(transparent)]
#[derive(Copy, Clone, Pod, Zeroable, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

const _: () = assert!(size_of::<Offset>() == 8 && align_of::<Offset>() == 8);

impl Offset {
    /// The largest number of bytes a region can have.
    pub const MAX_REGION_LEN: u64 = 1 << BYTE_BITS;

    /// Byte `offset` of `region`.
    ///
    /// # Panics
    ///
    /// If `offset` is not below [`Offset::MAX_REGION_LEN`].
    pub fn new(region: u16, offset: u64) -> Offset {
        assert!(
            offset < Offset::MAX_REGION_LEN,
            "byte {offset} lies beyond any region"
        );
        Offset(u64::from(region) << BYTE_BITS | offset)
    }

    /// The region.
    pub fn region(self) -> u16 {
        (self.0 >> BYTE_BITS) as u16
    }

    /// The byte in it.
    pub fn offset(self) -> u64 {
        self.0 & (Offset::MAX_REGION_LEN - 1)
    }

    /// The place `bytes` further on in the same region; `None` beyond its largest possible end.
    pub fn checked_add(self, bytes: u64) -> Option<Offset> {
        let offset = self.offset().checked_add(bytes)?;
        (offset < Offset::MAX_REGION_LEN).then(|| Offset::new(self.region(), offset))
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
    /// How many there are.
    pub len: u64,
}

const _: () = assert!(size_of::<Extent>() == 16);

impl Extent {
    /// The byte behind the last one, in its region; `None` if the numbers cannot be right.
    pub fn end(&self) -> Option<u64> {
        let end = self.at.offset().checked_add(self.len)?;
        (end <= Offset::MAX_REGION_LEN).then_some(end)
    }

    /// With the rest of its last page, and so many bytes of whole pages behind it. Without those: itself.
    pub(crate) fn with_pages_behind(&self, behind: u64) -> Extent {
        let whole = |end: u64| end.next_multiple_of(PAGE).saturating_add(behind);
        match self.end().filter(|_| behind > 0) {
            Some(end) => Extent {
                len: whole(end).saturating_sub(self.at.offset()),
                ..*self
            },
            None => *self,
        }
    }

    /// Whether some byte lies in both.
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

/// An extent that does not lie inside the committed part of the arena.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct BadOffset {
    /// The extent that was refused.
    pub extent: Extent,
    /// How many bytes of that region there are; 0 if there is no such region.
    pub committed: u64,
}

impl fmt::Display for BadOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes at {} lie outside the {} bytes that this region has",
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
    fn parts_come_back() {
        let last = Offset::new(u16::MAX, Offset::MAX_REGION_LEN - 1);
        assert_eq!(last.region(), u16::MAX);
        assert_eq!(last.offset(), Offset::MAX_REGION_LEN - 1);
        assert_eq!(last.checked_add(1), None);
        assert_eq!(last.checked_add(u64::MAX), None);
        assert_eq!(Offset::new(2, 5).checked_add(6), Some(Offset::new(2, 11)));
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
    fn an_offset_never_spills_into_the_region() {
        let _ = Offset::new(0, Offset::MAX_REGION_LEN);
    }
}
