//! Updates EXIF to describe a resized picture.
//!
//! EXIF is a TIFF without pixels: a list of entries of 12 bytes that refers to a second list with the camera's data,
//! and to a third with a thumbnail. Existing entries are changed in place; invalid data is left unchanged.

use std::ops::Range;

/// Tags of entries (Exif 2.32, tables 4 and 7).
mod tag {
    pub(super) const IMAGE_WIDTH: u16 = 0x0100;
    pub(super) const IMAGE_LENGTH: u16 = 0x0101;
    pub(super) const ORIENTATION: u16 = 0x0112;
    pub(super) const STRIP_OFFSETS: u16 = 0x0111;
    pub(super) const STRIP_BYTES: u16 = 0x0117;
    pub(super) const THUMBNAIL: u16 = 0x0201;
    pub(super) const THUMBNAIL_BYTES: u16 = 0x0202;
    pub(super) const EXIF: u16 = 0x8769;
    pub(super) const GPS: u16 = 0x8825;
    pub(super) const PIXEL_X: u16 = 0xa002;
    pub(super) const PIXEL_Y: u16 = 0xa003;
    pub(super) const INTEROPERABILITY: u16 = 0xa005;
}

/// The number of bytes of the number of entries, at the start of a list.
const COUNT: usize = 2;
/// The number of bytes of an entry.
const ENTRY: usize = 12;
/// The number of bytes of the offset of the next list, at the end of a list.
const NEXT: usize = 4;
/// Byte order and offset of the first list.
const HEADER: Range<usize> = 0..8;

/// Returns whether data begins like EXIF: with a byte order and the number 42 of TIFF.
pub(super) fn begins_as_exif(exif: &[u8]) -> bool {
    exif.starts_with(b"II*\0") || exif.starts_with(b"MM\0*")
}

/// Returns the orientation in the first list: 1 to 8. Programs write the number with every type of whole number.
pub(super) fn orientation(exif: &[u8]) -> Option<u8> {
    // A copy, since `Tiff` may change the data. It has only a few kilobytes.
    let mut exif = exif.to_vec();
    let tiff = Tiff::new(&mut exif)?;
    let entry = tiff.find(tiff.long(4)?, tag::ORIENTATION)?;
    let number = tiff.whole_number(entry)?;
    u8::try_from(number)
        .ok()
        .filter(|number| (1..=8).contains(number))
}

/// Sets the orientation in the first list to "upright". Returns whether the list has one.
pub(super) fn make_upright(exif: &mut Vec<u8>) -> bool {
    let Some(tiff) = Tiff::new(exif) else {
        return false;
    };
    let find = || tiff.find(tiff.long(4)?, tag::ORIENTATION);
    let Some(entry) = find() else { return false };
    let upright: [u8; 4] = match (tiff.short(entry + 2), tiff.is_big_endian) {
        (Some(SHORT | SIGNED_SHORT), true) => [0, 1, 0, 0],
        (Some(LONG | SIGNED_LONG), true) => [0, 0, 0, 1],
        _ => [1, 0, 0, 0],
    };
    let value = tiff.exif.get_mut(entry + 8..entry + ENTRY);
    value.map(|value| value.copy_from_slice(&upright)).is_some()
}

/// Sets the sides in EXIF to the sides of the result. Removes the thumbnail, which shows the original picture.
pub(super) fn describe(exif: &mut Vec<u8>, (width, height): (u32, u32)) {
    let Some(mut tiff) = Tiff::new(exif) else {
        return;
    };
    let Some(first) = tiff.long(4) else { return };
    tiff.set(first, tag::IMAGE_WIDTH, width);
    tiff.set(first, tag::IMAGE_LENGTH, height);
    if let Some(camera) = tiff.find(first, tag::EXIF).and_then(|at| tiff.number(at)) {
        tiff.set(camera, tag::PIXEL_X, width);
        tiff.set(camera, tag::PIXEL_Y, height);
    }
    tiff.drop_thumbnail(first);
}

struct Tiff<'a> {
    exif: &'a mut Vec<u8>,
    /// Whether the most significant byte comes first.
    is_big_endian: bool,
}

impl<'a> Tiff<'a> {
    /// Opens EXIF; `None` if the data does not begin like EXIF.
    fn new(exif: &'a mut Vec<u8>) -> Option<Self> {
        let is_big_endian = match exif.get(..4) {
            Some(b"II*\0") => false,
            Some(b"MM\0*") => true,
            _ => return None,
        };
        Some(Self {
            exif,
            is_big_endian,
        })
    }

    /// Returns the value of an entry, of any type of whole number.
    fn whole_number(&self, entry: usize) -> Option<usize> {
        match self.short(entry + 2)? {
            BYTE | SIGNED_BYTE => self.exif.get(entry + 8).copied().map(usize::from),
            SHORT | SIGNED_SHORT => self.short(entry + 8).map(usize::from),
            LONG | SIGNED_LONG => self.long(entry + 8),
            _ => None,
        }
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = *self.exif.get(at..)?.first_chunk()?;
        Some(match self.is_big_endian {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let bytes = *self.exif.get(at..)?.first_chunk()?;
        Some(match self.is_big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        } as usize)
    }

    /// Returns the offsets of the entries of a list, as far as the data reaches.
    fn entries(&self, list: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.short(list).map_or(0, usize::from);
        let room = self.exif.len().saturating_sub(list + COUNT) / ENTRY;
        (0..count.min(room)).map(move |index| list + COUNT + index * ENTRY)
    }

    fn find(&self, list: usize, tag: u16) -> Option<usize> {
        self.entries(list).find(|&at| self.short(at) == Some(tag))
    }

    /// Returns the value of an entry that consists of one number.
    fn number(&self, entry: usize) -> Option<usize> {
        self.numbers(entry, 1).first().copied()
    }

    /// Returns the values of an entry; empty if there are more than `most`.
    fn numbers(&self, entry: usize, most: usize) -> Vec<usize> {
        let all = || {
            let (kind, count) = (self.short(entry + 2)?, self.long(entry + 4)?);
            let offset = match self.far_value(entry) {
                Some(far) => far.start,
                None => entry + 8,
            };
            let number = |index| match kind {
                SHORT => self.short(offset + index * 2).map(usize::from),
                LONG => self.long(offset + index * 4),
                _ => None,
            };
            (count <= most)
                .then(|| (0..count).map(number).collect())
                .flatten()
        };
        all().unwrap_or_default()
    }

    /// Replaces the number in an entry, if the entry exists and has one number.
    fn set(&mut self, list: usize, tag: u16, number: u32) {
        let Some(entry) = self.find(list, tag) else {
            return;
        };
        if self.number(entry).is_none() {
            return;
        }
        let value = entry + 8..entry + ENTRY;
        match (self.short(entry + 2), u16::try_from(number)) {
            (Some(SHORT), Ok(number)) => {
                let bytes = match self.is_big_endian {
                    true => number.to_be_bytes(),
                    false => number.to_le_bytes(),
                };
                self.exif[value.start..value.start + 2].copy_from_slice(&bytes);
            }
            _ => {
                let (kind, number) = match self.is_big_endian {
                    true => (LONG.to_be_bytes(), number.to_be_bytes()),
                    false => (LONG.to_le_bytes(), number.to_le_bytes()),
                };
                self.exif[entry + 2..entry + 4].copy_from_slice(&kind);
                self.exif[value].copy_from_slice(&number);
            }
        }
    }

    /// Removes the lists that follow the first list, and their data. Bytes that other data needs stay; but the pixels
    /// of a thumbnail go even if a value of another list claims them, as values of cameras with a wrong length do.
    fn drop_thumbnail(&mut self, first: usize) {
        let Some(own) = self.extent(first) else {
            return;
        };
        let link = own.end - NEXT;
        let (lists, values) = self.kept(own);
        let (mut parts, mut pixels, mut next) = (Vec::new(), Vec::new(), self.long(link));
        self.exif[link..link + NEXT].fill(0);
        while let Some(list) = next.filter(|&list| list != 0)
            && let Some(extent) = self.extent(list)
            && !parts.contains(&extent)
            && parts.len() < MAX_PARTS
        {
            next = self.long(extent.end - NEXT);
            for (places, sizes) in [
                (tag::THUMBNAIL, tag::THUMBNAIL_BYTES),
                (tag::STRIP_OFFSETS, tag::STRIP_BYTES),
            ] {
                let numbers = |tag| {
                    let entry = self.find(list, tag);
                    entry.map_or_else(Vec::new, |at| self.numbers(at, MAX_PARTS))
                };
                let pairs = numbers(places).into_iter().zip(numbers(sizes));
                pixels.extend(pairs.map(|(place, size)| place..place.saturating_add(size)));
            }
            let values = self.entries(list).filter_map(|at| self.far_value(at));
            parts.extend(values.filter(|value| value.end <= self.exif.len()));
            parts.push(extent);
        }
        let lists = merged(lists);
        let kept = merged([&lists[..], &values].concat());
        let mut gone = without(merged(parts), &kept);
        gone.extend(without(merged(pixels), &lists));
        let kept_end = kept.last().map_or(0, |kept| kept.end);
        for part in merged(gone) {
            let end = part.end.min(self.exif.len());
            if let Some(bytes) = self.exif.get_mut(part.start..end) {
                bytes.fill(0);
            }
            // Zeros at the end are dropped: no other data follows.
            if part.end >= self.exif.len() {
                self.exif.truncate(part.start.max(kept_end));
            }
        }
    }

    /// Returns the byte range of a list, if it is complete.
    fn extent(&self, list: usize) -> Option<Range<usize>> {
        let count = usize::from(self.short(list)?);
        let end = list + COUNT + count * ENTRY + NEXT;
        (end <= self.exif.len()).then_some(list..end)
    }

    /// Returns the bytes that stay: the header, the first list and the lists to which it refers; and their values.
    fn kept(&self, first: Range<usize>) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
        let mut lists = vec![first];
        for tag in [tag::EXIF, tag::GPS, tag::INTEROPERABILITY] {
            // The second list refers to the third.
            let named = lists.iter().find_map(|list| self.find(list.start, tag));
            let place = named.and_then(|at| self.number(at));
            lists.extend(place.and_then(|place| self.extent(place)));
        }
        let entries = lists.iter().flat_map(|list| self.entries(list.start));
        let values = entries.filter_map(|at| self.far_value(at)).collect();
        lists.push(HEADER);
        (lists, values)
    }

    /// Returns the byte range of a value that is stored outside its entry.
    fn far_value(&self, entry: usize) -> Option<Range<usize>> {
        let size = match self.short(entry + 2)? {
            SHORT | SIGNED_SHORT => 2,
            LONG | SIGNED_LONG | 11 => 4,
            5 | 10 | 12 => 8,
            _ => 1,
        };
        let bytes = self.long(entry + 4)?.checked_mul(size)?;
        let offset = self.long(entry + 8)?;
        (bytes > 4).then_some(offset..offset.checked_add(bytes)?)
    }
}

/// Sorts ranges, merges those that touch or overlap, and drops empty ranges. In a file every entry may refer to the
/// same bytes; a pass over the result visits each byte once.
fn merged(mut parts: Vec<Range<usize>>) -> Vec<Range<usize>> {
    parts.retain(|part| !part.is_empty());
    parts.sort_unstable_by_key(|part| part.start);
    parts.dedup_by(|next, part| {
        let touches = next.start <= part.end;
        if touches {
            part.end = part.end.max(next.end);
        }
        touches
    });
    parts
}

/// Removes the bytes of `holes` from `parts`. Both are [`merged`].
fn without(parts: Vec<Range<usize>>, holes: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut rest = Vec::with_capacity(parts.len());
    let mut next = 0;
    for part in parts {
        let mut start = part.start;
        next += holes[next..].partition_point(|hole| hole.end <= start);
        for hole in holes[next..]
            .iter()
            .take_while(|hole| hole.start < part.end)
        {
            rest.push(start..hole.start.max(start));
            start = hole.end;
        }
        rest.push(start.min(part.end)..part.end);
    }
    rest
}

/// The maximum number of strips of a thumbnail that are removed, and of parts of lists after the first.
const MAX_PARTS: usize = 1024;
// The types of whole numbers, as the file numbers them: of one byte, two (short) and four (long).
const BYTE: u16 = 1;
const SIGNED_BYTE: u16 = 6;
const SHORT: u16 = 3;
const SIGNED_SHORT: u16 = 8;
const LONG: u16 = 4;
const SIGNED_LONG: u16 = 9;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    struct Writer {
        exif: Vec<u8>,
        is_big_endian: bool,
    }

    impl Writer {
        fn new(is_big_endian: bool) -> Self {
            let exif = if is_big_endian { b"MM\0*" } else { b"II*\0" };
            Self {
                exif: exif.to_vec(),
                is_big_endian,
            }
        }

        fn short(&mut self, number: u16) {
            match self.is_big_endian {
                true => self.exif.extend(number.to_be_bytes()),
                false => self.exif.extend(number.to_le_bytes()),
            }
        }

        fn long(&mut self, number: u32) {
            match self.is_big_endian {
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

    /// Three lists, and a thumbnail followed by `after`.
    fn camera(is_big_endian: bool, after: &[u8]) -> Vec<u8> {
        let mut camera = Writer::new(is_big_endian);
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
        camera.exif.extend(after);
        camera.exif
    }

    #[test]
    fn sides_are_updated_and_the_thumbnail_is_removed() {
        for is_big_endian in [false, true] {
            for after in [&b""[..], b"maker's note"] {
                let mut exif = camera(is_big_endian, after);
                let before = exif.clone();
                describe(&mut exif, (200, 70_000));
                let tiff = Tiff {
                    exif: &mut exif.clone(),
                    is_big_endian,
                };
                let number = |list, tag| tiff.number(tiff.find(list, tag).unwrap()).unwrap();
                assert_eq!(number(8, tag::IMAGE_WIDTH), 200);
                assert_eq!(number(8, 0x0112), 6, "not its business");
                assert_eq!(number(50, tag::PIXEL_X), 200);
                assert_eq!(number(50, tag::PIXEL_Y), 70_000);
                assert_eq!(tiff.long(8 + 2 + 36), Some(0), "no list after the first");
                assert!(
                    !exif
                        .windows(8)
                        .any(|part| JPEG.windows(8).any(|jpeg| part == jpeg))
                );
                match after {
                    [] => assert_eq!(exif.len(), 92),
                    _ => assert!(exif.len() == before.len() && exif.ends_with(after)),
                }
                // A second call changes nothing.
                let mut again = exif.clone();
                describe(&mut again, (200, 70_000));
                assert_eq!(again, exif);
            }
        }
    }

    #[test]
    fn an_orientation_of_any_whole_type_is_read_and_reset_in_the_first_list_only() {
        for is_big_endian in [false, true] {
            for kind in [BYTE, SIGNED_BYTE, SHORT, SIGNED_SHORT, LONG, SIGNED_LONG] {
                let mut writer = Writer::new(is_big_endian);
                writer.long(8);
                writer.list(&[(tag::ORIENTATION, SHORT, 6)], 26);
                writer.list(&[(tag::ORIENTATION, SHORT, 3)], 0);
                let mut exif = writer.exif;
                let entry = 10;
                let kind_bytes = match is_big_endian {
                    true => kind.to_be_bytes(),
                    false => kind.to_le_bytes(),
                };
                exif[entry + 2..entry + 4].copy_from_slice(&kind_bytes);
                let value = match (kind, is_big_endian) {
                    (SHORT | SIGNED_SHORT, true) => [0, 6, 0, 0],
                    (LONG | SIGNED_LONG, true) => [0, 0, 0, 6],
                    _ => [6, 0, 0, 0],
                };
                exif[entry + 8..entry + 12].copy_from_slice(&value);
                assert_eq!(orientation(&exif), Some(6), "type {kind}");
                assert!(make_upright(&mut exif));
                assert_eq!(orientation(&exif), Some(1), "type {kind}");
            }
            let mut other = Writer::new(is_big_endian);
            other.long(8);
            other.list(&[(tag::IMAGE_WIDTH, SHORT, 6)], 26);
            other.list(&[(tag::ORIENTATION, SHORT, 3)], 0);
            assert_eq!(orientation(&other.exif), None, "that of the thumbnail");
            assert!(!make_upright(&mut other.exif));
        }
    }

    #[test]
    fn a_side_beyond_16_bits_becomes_a_long() {
        let mut exif = camera(false, b"");
        describe(&mut exif, (70_000, 9));
        let tiff = Tiff {
            exif: &mut exif,
            is_big_endian: false,
        };
        let entry = tiff.find(50, tag::PIXEL_X).unwrap();
        assert_eq!(tiff.number(entry), Some(70_000));
    }

    #[test]
    fn a_thumbnail_in_strips_is_removed_and_a_shared_value_stays() {
        let mut camera = Writer::new(false);
        camera.long(8);
        // At 8: one entry, whose value is at 76, after the second list. At 26: four entries.
        camera.list(&[(0x011a, 5, 76)], 26);
        camera.list(
            &[
                (tag::STRIP_OFFSETS, LONG, 84),
                (tag::STRIP_BYTES, SHORT, 0),
                (0x011a, 5, 76),
            ],
            0,
        );
        let two = |exif: &mut Vec<u8>, entry: usize| exif[26 + 2 + entry * 12 + 4] = 2;
        two(&mut camera.exif, 0);
        two(&mut camera.exif, 1);
        camera.exif.resize(76, 0);
        camera.long(72);
        camera.long(1);
        // The offsets of the strips, and their sizes in the entry.
        camera.long(92);
        camera.long(96);
        camera.exif[26 + 2 + 12 + 8..][..4].copy_from_slice(&[4, 0, 4, 0]);
        camera.exif.extend(b"onlyhalf");
        let mut exif = camera.exif;
        describe(&mut exif, (5, 5));
        assert_eq!(exif.len(), 84, "both strips, and their places");
        assert_eq!(exif[76..], [72, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(exif[22..26], [0; 4]);
    }

    #[test]
    fn only_the_thumbnail_is_removed() {
        let whole = camera(false, b"");
        // The offset of the next list, or of the thumbnail, points to other data.
        for (at, elsewhere) in [
            (46, [0, 4, 8, 20, 50, 60, 88, 200]),
            (92 + 2 + 12 + 8, [0, 4, 8, 20, 50, 60, 88, 1_000_000]),
        ] {
            for place in elsewhere {
                let mut broken = whole.clone();
                broken[at..at + 4].copy_from_slice(&u32::to_le_bytes(place));
                let mut after = broken.clone();
                describe(&mut after, (4000, 3000));
                // Only the link and the side that was a short change.
                assert_eq!(after[..46], broken[..46], "{at}: {place}");
                assert_eq!(after[66..88], broken[66..88], "{at}: {place}");
            }
        }
    }

    /// As cameras write them: a value of the first list, such as PrintIM, that is shorter than its length. The pixels
    /// may not stay, wherever the value ends.
    #[test]
    fn a_value_that_overlaps_the_thumbnail_does_not_keep_it() {
        const LIST: u32 = 100;
        for is_big_endian in [false, true] {
            for end in [LIST, LIST + 1, LIST + 12, LIST + 42, LIST + 50, 5000] {
                let mut camera = Writer::new(is_big_endian);
                camera.long(8);
                camera.list(&[(0x0112, SHORT, 6), (0xc4a5, 7, 60)], LIST);
                let count = (end - 60).to_be_bytes();
                let at = 8 + 2 + 12 + 4;
                camera.exif[at..at + 4].copy_from_slice(&count);
                if !is_big_endian {
                    camera.exif[at..at + 4].reverse();
                }
                camera.exif.resize(LIST as usize, 7);
                let bytes = JPEG.len() as u32;
                let thumbnail = (tag::THUMBNAIL, LONG, LIST + 42);
                let entries = [
                    (0x0103, SHORT, 6),
                    thumbnail,
                    (tag::THUMBNAIL_BYTES, LONG, bytes),
                ];
                camera.list(&entries, 0);
                camera.exif.extend(JPEG);
                let mut exif = camera.exif;
                let before = exif.clone();
                describe(&mut exif, (5, 5));
                let has = |part: &[u8]| exif.windows(part.len()).any(|window| window == part);
                assert!(!JPEG.windows(4).any(has), "{end}");
                assert_eq!(exif[34..38], [0; 4], "no list after the first");
                assert_eq!(
                    (&exif[..34], &exif[38..100]),
                    (&before[..34], &before[38..100])
                );
                // What the value needs is still there.
                assert!(exif.len() >= before.len().min(end as usize), "{end}");
            }
        }
    }

    #[test]
    fn invalid_exif_does_not_panic() {
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

    impl Writer {
        /// Writes a list of entries whose values, of eight bytes each, follow one another from `values` on. `first`
        /// replaces the first entry; `next` is the offset of the next list.
        fn crowd(&mut self, entries: u16, values: u32, first: Option<(u16, u32)>, next: u32) {
            let mut list: Vec<_> = (0..u32::from(entries))
                .map(|index| (0x9000, 5, values + index * 8))
                .collect();
            if let Some((tag, number)) = first {
                list[0] = (tag, LONG, number);
            }
            self.list(&list, next);
        }
    }

    /// Comparing each entry with each other would take minutes.
    #[test]
    fn many_entries_take_linear_time() {
        const ENTRIES: u16 = 60_000;
        let list = 2 + u32::from(ENTRIES) * 12 + 4;
        let values = u32::from(ENTRIES) * 8;
        let (second, third, far) = (8 + list, 8 + 2 * list, 8 + 3 * list);
        let mut crowd = Writer::new(false);
        crowd.long(8);
        crowd.crowd(ENTRIES, far, Some((tag::EXIF, second)), third);
        crowd.crowd(ENTRIES, far + values, None, 0);
        crowd.crowd(ENTRIES, far + 2 * values, None, 0);
        crowd.exif.resize((far + 3 * values) as usize, 7);
        let mut exif = crowd.exif;
        describe(&mut exif, (5, 5));
        assert_eq!(exif.len() as u32, far + 2 * values);
        assert!(
            exif[third as usize..far as usize]
                .iter()
                .all(|&byte| byte == 0)
        );
        assert!(exif[far as usize..].iter().all(|&byte| byte == 7));
    }

    /// Filling each range separately would write 64 GiB.
    #[test]
    fn bytes_named_by_many_entries_are_cleared_once() {
        const BYTES: u32 = 1 << 20;
        let mut crowd = Writer::new(false);
        crowd.long(8);
        crowd.list(&[(0x0112, SHORT, 1)], 26);
        let far = 26 + 2 + 65_535 * 12 + 4;
        crowd.list(&vec![(0x9000, 7, far); 65_535], 0);
        for entry in 0..65_535 {
            let count = 26 + 2 + entry * 12 + 4;
            crowd.exif[count..count + 4].copy_from_slice(&BYTES.to_le_bytes());
        }
        crowd.exif.resize((far + BYTES) as usize, 7);
        let mut exif = crowd.exif;
        describe(&mut exif, (5, 5));
        assert_eq!(exif.len(), 26, "the second list and its value");
    }

    proptest::proptest! {
        #[test]
        fn merged_ranges_cover_the_same_bytes_once(
            parts in proptest::collection::vec((0..60_usize, 0..9_usize), 0..20)
        ) {
            let parts: Vec<_> = parts.into_iter().map(|(start, len)| start..start + len).collect();
            let merged = merged(parts.clone());
            proptest::prop_assert!(merged.iter().all(|part| !part.is_empty()));
            proptest::prop_assert!(merged.is_sorted_by(|one, next| one.end < next.start));
            for byte in 0..80 {
                let has = |parts: &[Range<usize>]| parts.iter().any(|part| part.contains(&byte));
                proptest::prop_assert_eq!(has(&parts), has(&merged));
            }
        }

        /// Against a simple byte-by-byte model, of a thumbnail without pixels.
        #[test]
        fn only_bytes_of_the_thumbnail_alone_are_removed(
            values in proptest::collection::vec((0..150_u32, 5..20_u32), 7)
        ) {
            let mut camera = Writer::new(false);
            camera.long(8);
            let entries: Vec<_> = values.iter().map(|&(place, _)| (0x9000, 7, place)).collect();
            // At 8 and at 50: three entries, and four.
            camera.list(&entries[..3], 50);
            camera.list(&entries[3..], 0);
            for (index, (_, count)) in values.iter().enumerate() {
                let entry = 10 + index * 12 + if index < 3 { 0 } else { 6 };
                camera.exif[entry + 4..entry + 8].copy_from_slice(&count.to_le_bytes());
            }
            camera.exif.resize(150, 7);
            let mut exif = camera.exif;
            let value = |&(place, count): &(u32, u32)| place as usize..(place + count) as usize;
            let (kept, own) = values.split_at(3);
            let kept: Vec<_> = std::iter::once(0..50).chain(kept.iter().map(value)).collect();
            let is_kept = |byte: usize| kept.iter().any(|kept| kept.contains(&byte));
            let own: Vec<_> = std::iter::once(50..104).chain(own.iter().map(value)).collect();
            let own: Vec<_> = own.into_iter().filter(|part| part.end <= 150).collect();
            let is_gone = |byte: &usize| !is_kept(*byte) && own.iter().any(|part| part.contains(byte));
            let mut expected = exif.clone();
            expected[46..50].fill(0);
            (0..150).filter(is_gone).for_each(|byte| expected[byte] = 0);
            let end = (0..150).rev().find(|byte| !is_gone(byte));
            expected.truncate(end.unwrap_or(0) + 1);
            describe(&mut exif, (5, 5));
            proptest::prop_assert_eq!(exif, expected);
        }
    }
}
