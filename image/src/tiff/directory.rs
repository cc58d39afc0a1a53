//! The first directory of a TIFF or BigTIFF: tags with their values.

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
        // Without one of these tags, pixels would be misinterpreted.
        let lacks = |entry: &Entry<'_>| entry.bytes.is_none() && tag::is_layout(entry.tag);
        if directory.entries.iter().any(lacks) {
            return Err(ImageError::Truncated { format });
        }
        if directory.entries.is_empty() {
            return Err(ImageError::corrupt(format, "its directory is empty"));
        }
        Ok(directory)
    }

    /// Returns the first directory, whatever it contains. `None` if the file ends before or inside it.
    pub(in super::super) fn first_of(file: &'a [u8]) -> Option<Self> {
        let mut directory = Self::empty(file, file.starts_with(b"MM"));
        let is_large = directory.whole(2, 2)? == 43;
        let (word, place) = if is_large { (8, 8) } else { (4, 4) };
        let start = usize::try_from(directory.whole(place, word)?).ok()?;
        directory.entries = directory.entries(start, is_large)?.0;
        Some(directory)
    }

    /// Returns the directory at this offset of a file that is not BigTIFF, and the offset of the next directory, or 0.
    pub(in super::super) fn at(
        file: &'a [u8],
        is_big_endian: bool,
        start: usize,
    ) -> Option<(Self, usize)> {
        let mut directory = Self::empty(file, is_big_endian);
        let (entries, end) = directory.entries(start, false)?;
        directory.entries = entries;
        let next = directory.whole(end, 4).unwrap_or(0);
        Some((directory, usize::try_from(next).ok()?))
    }

    const fn empty(file: &'a [u8], is_big_endian: bool) -> Self {
        Self {
            file,
            is_big_endian,
            entries: Vec::new(),
        }
    }

    /// Returns the entries of the directory at an offset, and the offset of its end.
    fn entries(&self, start: usize, is_large: bool) -> Option<(Vec<Entry<'a>>, usize)> {
        // `word` is the size of an offset or of the count of values, `count` that of the number of entries.
        let (word, count) = if is_large { (8, 8) } else { (4, 2) };
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

    fn number(&self, bytes: &[u8]) -> u64 {
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
