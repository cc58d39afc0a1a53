//! The directories of a TIFF or BigTIFF: tags with their values.

use std::collections::{HashSet, VecDeque};
use std::ops::{ControlFlow, Range};

use super::super::error::ImageError;
use super::super::format::Format;
use super::tag;

/// The sizes of types of values, by their number in the file: bytes, texts, whole numbers and ratios.
const BYTES: [usize; 19] = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8];
const RATIO: usize = 5;
const SIGNED_RATIO: usize = 10;

/// Tags and their values.
#[derive(Debug)]
pub(in super::super) struct Directory<'a> {
    file: &'a [u8],
    is_big_endian: bool,
    /// Whether the file is a BigTIFF.
    is_large: bool,
    entries: Vec<Entry<'a>>,
}

#[derive(Debug)]
struct Entry<'a> {
    tag: u16,
    kind: usize,
    /// The value; `None` if it is outside the file.
    bytes: Option<&'a [u8]>,
}

impl<'a> Directory<'a> {
    /// Reads the first directory.
    ///
    /// # Errors
    /// `Truncated` if the file ends before or inside the directory, `Corrupt` if the directory has no entries.
    pub(super) fn read(file: &'a [u8]) -> Result<Self, ImageError> {
        let format = Format::Tiff;
        let directory = Self::first_of(file);
        let directory = directory.ok_or(ImageError::Truncated { format })?;
        if directory.lacks_layout() {
            return Err(ImageError::Truncated { format });
        }
        if directory.entries.is_empty() {
            return Err(ImageError::corrupt(format, "its directory is empty"));
        }
        Ok(directory)
    }

    /// Returns the first directory, whatever it contains. `None` if the file ends before or inside it.
    pub(in super::super) fn first_of(file: &'a [u8]) -> Option<Self> {
        let (header, start) = Self::header(file)?;
        header.at(start).map(|(directory, ..)| directory)
    }

    /// Passes the directories of a file to `visit`, the first of them first: those that follow each other, and those to
    /// which the tags `nested` refer. `None` stands for a directory that begins or ends beyond the file. Ends early if
    /// `visit` breaks, or when directories and values have several times the bytes of the file: then they overlap, and
    /// could be any number.
    pub(in super::super) fn each(
        file: &'a [u8],
        nested: &[u16],
        mut visit: impl FnMut(Option<&Self>) -> ControlFlow<()>,
    ) {
        /// The maximum number of directories to which one tag refers.
        const MOST_NESTED: usize = 1024;
        let Some((header, first)) = Self::header(file) else {
            let _ = visit(None);
            return;
        };
        let (mut starts, mut seen) = (VecDeque::from([first]), HashSet::from([0, first]));
        let mut free = file.len().saturating_mul(4);
        while let Some(start) = starts.pop_front() {
            let Some((directory, bytes, next)) = header.at(start) else {
                if visit(None).is_break() {
                    return;
                }
                continue;
            };
            let values = directory.entries.iter().filter_map(|entry| entry.bytes);
            let used = bytes.len() + values.map(<[u8]>::len).sum::<usize>();
            match free.checked_sub(used) {
                Some(rest) if visit(Some(&directory)).is_continue() => free = rest,
                _ => return,
            }
            let numbers = |&tag| directory.numbers(tag).take(MOST_NESTED);
            let below = nested.iter().flat_map(numbers);
            // A link that is cut off leads beyond the file.
            let next = next.unwrap_or(u64::MAX);
            starts.extend(below.chain([next]).filter(|&start| seen.insert(start)));
        }
    }

    /// Returns the directory at this offset of a file that is not BigTIFF.
    pub(in super::super) fn within(
        file: &'a [u8],
        is_big_endian: bool,
        start: u64,
    ) -> Option<Self> {
        let header = Self {
            file,
            is_big_endian,
            is_large: false,
            entries: Vec::new(),
        };
        header.at(start).map(|(directory, ..)| directory)
    }

    /// Returns an empty directory with the properties of the file, and the offset of the first directory.
    fn header(file: &'a [u8]) -> Option<(Self, u64)> {
        let mut header = Self {
            file,
            is_big_endian: file.starts_with(b"MM"),
            is_large: false,
            entries: Vec::new(),
        };
        header.is_large = header.whole(2, 2)? == 43;
        let (word, place) = if header.is_large { (8, 8) } else { (4, 4) };
        let start = header.whole(place, word)?;
        Some((header, start))
    }

    /// Returns the directory at an offset of the same file, its bytes, and the offset of the next directory, or 0. The
    /// latter is `None` if the file ends before it.
    fn at(&self, start: u64) -> Option<(Self, Range<usize>, Option<u64>)> {
        let start = usize::try_from(start).ok()?;
        let (entries, end) = self.entries(start)?;
        let next = self.whole(end, if self.is_large { 8 } else { 4 });
        let directory = Self { entries, ..*self };
        Some((directory, start..end, next))
    }

    /// Returns the entries of the directory at an offset, and the offset of its end.
    fn entries(&self, start: usize) -> Option<(Vec<Entry<'a>>, usize)> {
        // `word` is the size of an offset or of the count of values, `count` that of the number of entries.
        let (word, count) = if self.is_large { (8, 8) } else { (4, 2) };
        let len = 4 + 2 * word;
        let first = start.checked_add(count)?;
        let entries = usize::try_from(self.whole(start, count)?).ok()?;
        let end = first.checked_add(entries.checked_mul(len)?)?;
        let table = self.file.get(first..end)?;
        let entry = |index: usize| {
            let at = first + index * len;
            let kind = self.whole(at + 2, 2)? as usize;
            let items = usize::try_from(self.whole(at + 4, word)?).ok()?;
            let bytes = items.checked_mul(*BYTES.get(kind)?)?;
            let value = at + 4 + word;
            let from = match bytes > word {
                true => usize::try_from(self.whole(value, word)?).ok()?,
                false => value,
            };
            Some(Entry {
                tag: self.whole(at, 2)? as u16,
                kind,
                bytes: self.file.get(from..from.checked_add(bytes)?),
            })
        };
        let all = (0..table.len() / len).filter_map(entry);
        Some((all.collect(), end))
    }

    /// Returns the whole number of `bytes` bytes at an offset.
    fn whole(&self, at: usize, bytes: usize) -> Option<u64> {
        Some(self.number(self.file.get(at..at.checked_add(bytes)?)?))
    }

    /// Returns a whole number in the byte order of the file.
    pub(in super::super) fn number(&self, bytes: &[u8]) -> u64 {
        let add = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        match self.is_big_endian {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        }
    }

    pub(super) const fn file(&self) -> &'a [u8] {
        self.file
    }

    pub(super) const fn is_big_endian(&self) -> bool {
        self.is_big_endian
    }

    fn find(&self, tag: u16) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.tag == tag)
    }

    /// Returns whether there is a value that is outside the file.
    pub(super) fn is_beyond_file(&self, tag: u16) -> bool {
        self.find(tag).is_some_and(|entry| entry.bytes.is_none())
    }

    /// Returns whether a value is outside the file.
    pub(super) fn lacks_value(&self) -> bool {
        self.entries.iter().any(|entry| entry.bytes.is_none())
    }

    /// Returns whether a value that describes pixels is outside the file. Without it, they would be misinterpreted.
    fn lacks_layout(&self) -> bool {
        let lacks = |entry: &Entry<'_>| entry.bytes.is_none() && tag::is_layout(entry.tag);
        self.entries.iter().any(lacks)
    }

    /// Returns whether the pixels of this directory, or their description, are partly beyond the file: a strip, a tile
    /// or a JPEG. Places and lengths of ones, and a length of 0, are unknown.
    pub(in super::super) fn lacks_pixels(&self) -> bool {
        let is_known = |number: u64| number < u64::from(u32::MAX);
        let parts = [
            (tag::STRIP_PLACES, tag::STRIP_LENGTHS),
            (tag::TILE_PLACES, tag::TILE_LENGTHS),
            (tag::JPEG_PLACE, tag::JPEG_LENGTH),
        ];
        let has_part_beyond = |(places, lengths)| {
            let (places, lengths) = (self.numbers(places), self.numbers(lengths));
            let is_beyond = |(place, len): (u64, u64)| {
                is_known(place) && is_known(len) && len > 0 && place + len > self.file.len() as u64
            };
            places.len() == lengths.len() && places.zip(lengths).any(is_beyond)
        };
        self.lacks_layout() || parts.into_iter().any(has_part_beyond)
    }

    /// Returns the bytes of a value, whatever its type is.
    pub(in super::super) fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        let bytes = self.find(tag)?.bytes?;
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Returns the whole numbers of a value; empty if there is none.
    pub(in super::super) fn numbers(&self, tag: u16) -> impl ExactSizeIterator<Item = u64> + '_ {
        let (bytes, each) = match self.find(tag) {
            Some(entry) if !matches!(entry.kind, RATIO | SIGNED_RATIO) => {
                (entry.bytes.unwrap_or_default(), BYTES[entry.kind].max(1))
            }
            _ => (&[][..], 1),
        };
        bytes.chunks_exact(each).map(|bytes| self.number(bytes))
    }

    /// Returns the first whole number of a value.
    pub(in super::super) fn first(&self, tag: u16) -> Option<u64> {
        self.numbers(tag).next()
    }

    /// Returns the ratios of a value; empty if there is none. Whole numbers count as ratios.
    pub(super) fn ratios(&self, tag: u16) -> Vec<f32> {
        match self.find(tag) {
            Some(entry) if matches!(entry.kind, RATIO | SIGNED_RATIO) => {
                let ratio = |bytes: &[u8]| {
                    let (over, under) = (self.number(&bytes[..4]), self.number(&bytes[4..]));
                    over as f32 / under as f32
                };
                entry
                    .bytes
                    .unwrap_or_default()
                    .chunks_exact(8)
                    .map(ratio)
                    .collect()
            }
            _ => self.numbers(tag).map(|number| number as f32).collect(),
        }
    }
}
