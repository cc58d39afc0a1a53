//! What EXIF says of the picture that it travels with, made true of a smaller one.
//!
//! EXIF is a TIFF without pixels: a list of entries of 12 bytes, which leads to a second one with what the camera noted, and to
//! a third with a thumbnail. Only what is there is changed, in its place; what makes no sense is left as it is.

use std::ops::Range;

/// Entries by their numbers in the standard (Exif 2.32, tables 4 and 7).
mod tag {
    pub(super) const IMAGE_WIDTH: u16 = 0x0100;
    pub(super) const IMAGE_LENGTH: u16 = 0x0101;
    pub(super) const STRIP_OFFSETS: u16 = 0x0111;
    pub(super) const STRIP_BYTES: u16 = 0x0117;
    pub(super) const THUMBNAIL: u16 = 0x0201;
    pub(super) const THUMBNAIL_BYTES: u16 = 0x0202;
    pub(super) const EXIF: u16 = 0x8769;
    pub(super) const PIXEL_X: u16 = 0xa002;
    pub(super) const PIXEL_Y: u16 = 0xa003;
}

/// A list of entries has a number in front, and the place of the next list behind.
const COUNT: usize = 2;
const ENTRY: usize = 12;
const NEXT: usize = 4;

/// Gives `exif` the sides of the picture, and takes the thumbnail away, which shows the one before: unturned, and all of it.
pub(super) fn describe(exif: &mut Vec<u8>, (width, height): (u32, u32)) {
    let mut tiff = match exif.get(..4) {
        Some(b"II*\0") => Tiff { exif, big: false },
        Some(b"MM\0*") => Tiff { exif, big: true },
        _ => return,
    };
    let Some(first) = tiff.long(4) else { return };
    tiff.set(first, tag::IMAGE_WIDTH, width);
    tiff.set(first, tag::IMAGE_LENGTH, height);
    if let Some(noted) = tiff.find(first, tag::EXIF).and_then(|at| tiff.number(at)) {
        tiff.set(noted, tag::PIXEL_X, width);
        tiff.set(noted, tag::PIXEL_Y, height);
    }
    tiff.drop_thumbnail(first);
}

struct Tiff<'a> {
    exif: &'a mut Vec<u8>,
    /// The most significant byte comes first.
    big: bool,
}

impl Tiff<'_> {
    fn short(&self, at: usize) -> Option<u16> {
        let bytes = *self.exif.get(at..)?.first_chunk()?;
        Some(match self.big {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let bytes = *self.exif.get(at..)?.first_chunk()?;
        Some(match self.big {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        } as usize)
    }

    /// Where the entries of a list begin; no more of them than there is room for.
    fn entries(&self, list: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.short(list).map_or(0, usize::from);
        let room = self.exif.len().saturating_sub(list + COUNT) / ENTRY;
        (0..count.min(room)).map(move |index| list + COUNT + index * ENTRY)
    }

    fn find(&self, list: usize, tag: u16) -> Option<usize> {
        self.entries(list).find(|&at| self.short(at) == Some(tag))
    }

    /// The value of an entry that is one number.
    fn number(&self, entry: usize) -> Option<usize> {
        match (self.short(entry + 2)?, self.long(entry + 4)?) {
            (SHORT, 1) => self.short(entry + 8).map(usize::from),
            (LONG, 1) => self.long(entry + 8),
            _ => None,
        }
    }

    /// Puts a number into an entry, if it is there and holds one.
    fn set(&mut self, list: usize, tag: u16, number: u32) {
        let Some(entry) = self.find(list, tag) else {
            return;
        };
        let kind = match (self.short(entry + 2), self.long(entry + 4)) {
            (Some(kind), Some(1)) => kind,
            _ => return,
        };
        let bytes = match (kind, u16::try_from(number), self.big) {
            (SHORT, Ok(number), true) => &number.to_be_bytes()[..],
            (SHORT, Ok(number), false) => &number.to_le_bytes()[..],
            (LONG, _, true) => &number.to_be_bytes()[..],
            (LONG, _, false) => &number.to_le_bytes()[..],
            _ => return,
        };
        if let Some(value) = self.exif.get_mut(entry + 8..entry + 8 + bytes.len()) {
            value.copy_from_slice(bytes);
        }
    }

    /// Takes away the list behind the first one, and all that belongs to it.
    fn drop_thumbnail(&mut self, first: usize) {
        let Some(count) = self.short(first).map(usize::from) else {
            return;
        };
        let link = first + COUNT + count * ENTRY;
        let Some(list) = self.long(link).filter(|&list| list != 0) else {
            return;
        };
        let end = list + COUNT + self.entries(list).count() * ENTRY + NEXT;
        let values = self.entries(list).filter_map(|at| self.far_value(at));
        let behind: Vec<_> = values.filter(|value| value.start >= end).collect();
        let mut parts = vec![link..link + NEXT, list..end];
        for (place, bytes) in [
            (tag::THUMBNAIL, tag::THUMBNAIL_BYTES),
            (tag::STRIP_OFFSETS, tag::STRIP_BYTES),
        ] {
            let number = |tag| self.find(list, tag).and_then(|at| self.number(at));
            if let (Some(place), Some(bytes)) = (number(place), number(bytes)) {
                parts.push(place..place.saturating_add(bytes));
            }
        }
        for part in &parts {
            let part = part.start..part.end.min(self.exif.len());
            if let Some(bytes) = self.exif.get_mut(part) {
                bytes.fill(0);
            }
        }
        // What lies at the end goes, instead of being carried along as zeros. Values that do not fit into their entries could be those
        // of other lists as well, so they stay where they are not at the end.
        parts.extend(behind);
        parts.sort_by_key(|part| part.end);
        for part in parts.into_iter().rev() {
            if part.start >= link + NEXT && part.end >= self.exif.len() {
                self.exif.truncate(part.start);
            }
        }
    }

    /// Where the value of an entry lies that is not in the entry itself.
    fn far_value(&self, entry: usize) -> Option<Range<usize>> {
        let size = match self.short(entry + 2)? {
            SHORT | 8 => 2,
            LONG | 9 | 11 => 4,
            5 | 10 | 12 => 8,
            _ => 1,
        };
        let bytes = self.long(entry + 4)?.checked_mul(size)?;
        let place = self.long(entry + 8)?;
        (bytes > 4).then_some(place..place.checked_add(bytes)?)
    }
}

/// Kinds of values: two bytes, and four.
const SHORT: u16 = 3;
const LONG: u16 = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    struct Writer {
        exif: Vec<u8>,
        big: bool,
    }

    impl Writer {
        fn new(big: bool) -> Self {
            let exif = if big { b"MM\0*" } else { b"II*\0" };
            Self {
                exif: exif.to_vec(),
                big,
            }
        }

        fn short(&mut self, number: u16) {
            match self.big {
                true => self.exif.extend(number.to_be_bytes()),
                false => self.exif.extend(number.to_le_bytes()),
            }
        }

        fn long(&mut self, number: u32) {
            match self.big {
                true => self.exif.extend(number.to_be_bytes()),
                false => self.exif.extend(number.to_le_bytes()),
            }
        }

        fn list(&mut self, entries: &[(u16, u16, u32)], next: u32) {
            self.short(entries.len() as u16);
            for &(tag, kind, number) in entries {
                self.short(tag);
                self.short(kind);
                self.long(1);
                match kind {
                    SHORT => {
                        self.short(number as u16);
                        self.short(0);
                    }
                    _ => self.long(number),
                }
            }
            self.long(next);
        }
    }

    const JPEG: &[u8] = b"\xff\xd8 the picture before \xff\xd9";

    /// Three lists, and a thumbnail with `behind` behind it.
    fn camera(big: bool, behind: &[u8]) -> Vec<u8> {
        let mut camera = Writer::new(big);
        camera.long(8);
        // 2 + 3 * 12 + 4 bytes each: at 8, 50 and 92.
        camera.list(
            &[
                (tag::IMAGE_WIDTH, LONG, 4000),
                (0x0112, SHORT, 6),
                (tag::EXIF, LONG, 50),
            ],
            92,
        );
        camera.list(
            &[
                (0x9000, LONG, 0x3032_3330),
                (tag::PIXEL_X, SHORT, 4000),
                (tag::PIXEL_Y, LONG, 3000),
            ],
            0,
        );
        let bytes = JPEG.len() as u32;
        camera.list(
            &[
                (0x0103, SHORT, 6),
                (tag::THUMBNAIL, LONG, 134),
                (tag::THUMBNAIL_BYTES, LONG, bytes),
            ],
            0,
        );
        camera.exif.extend(JPEG);
        camera.exif.extend(behind);
        camera.exif
    }

    #[test]
    fn sides_are_those_of_the_picture_and_the_thumbnail_is_gone() {
        for big in [false, true] {
            for behind in [&b""[..], b"maker's note"] {
                let mut exif = camera(big, behind);
                let before = exif.clone();
                describe(&mut exif, (200, 70_000));
                let tiff = Tiff {
                    exif: &mut exif.clone(),
                    big,
                };
                let number = |list, tag| tiff.number(tiff.find(list, tag).unwrap()).unwrap();
                assert_eq!(number(8, tag::IMAGE_WIDTH), 200);
                assert_eq!(number(8, 0x0112), 6, "not its business");
                assert_eq!(number(50, tag::PIXEL_X), 200);
                assert_eq!(number(50, tag::PIXEL_Y), 70_000);
                assert_eq!(tiff.long(8 + 2 + 36), Some(0), "no list behind the first");
                assert!(
                    !exif
                        .windows(8)
                        .any(|part| JPEG.windows(8).any(|jpeg| part == jpeg))
                );
                match behind {
                    [] => assert_eq!(exif.len(), 92),
                    _ => assert!(exif.len() == before.len() && exif.ends_with(behind)),
                }
                // Nothing is left to do.
                let mut again = exif.clone();
                describe(&mut again, (200, 70_000));
                assert_eq!(again, exif);
            }
        }
    }

    #[test]
    fn a_number_that_does_not_fit_stays() {
        let mut exif = camera(false, b"");
        describe(&mut exif, (70_000, 9));
        let tiff = Tiff {
            exif: &mut exif,
            big: false,
        };
        let entry = tiff.find(50, tag::PIXEL_X).unwrap();
        assert_eq!(tiff.number(entry), Some(4000));
    }

    #[test]
    fn broken_ones_are_left_or_changed_and_nothing_else_happens() {
        let whole = camera(true, b"");
        for cut in 0..whole.len() {
            describe(&mut whole[..cut].to_vec(), (5, 5));
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 7, 8, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = byte;
                describe(&mut broken, (5, 5));
                assert!(broken.len() <= whole.len());
            }
        }
    }
}
