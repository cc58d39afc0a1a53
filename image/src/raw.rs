//! Raw files of cameras: decodes the largest preview, in JPEG or JPEG XL, that the camera or a converter has stored.
//!
//! | file | previews |
//! |---|---|
//! | NEF, CR2, ARW, DNG | in the directories of a TIFF, both chained and nested |
//! | RW2 | the same, or the value of a tag |
//! | ORF | the same, or at the offset that the notes of Olympus contain |
//! | RAF | at the offset that the header contains |
//! | CR3 | the samples of its tracks |
//!
//! The preview is turned by the orientation in its own EXIF, or otherwise by that of the raw file.

use super::avif::Reader;
use super::damage::Found;
use super::error::ImageError;
use super::exif;
use super::format::Format;
use super::jpeg;
use super::jxl;
use super::meta::{Decoded, Request};
use super::pixels::Orientation;
use super::tiff::Directory;

const FORMAT: Format = Format::CameraRaw;

/// The maximum number of TIFF directories that are read. Cameras write fewer.
const MAX_DIRECTORIES: usize = 64;
/// The maximum depth of nested boxes.
const MAX_DEPTH: usize = 8;

/// Tags of directories.
mod tag {
    pub(super) const KIND: u16 = 0x00fe;
    pub(super) const PHOTOMETRIC: u16 = 0x0106;
    pub(super) const STRIPS: u16 = 0x0111;
    pub(super) const ORIENTATION: u16 = 0x0112;
    pub(super) const STRIP_BYTES: u16 = 0x0117;
    pub(super) const TILES: u16 = 0x0144;
    pub(super) const TILE_BYTES: u16 = 0x0145;
    pub(super) const DIRECTORIES: u16 = 0x014a;
    pub(super) const JPEG: u16 = 0x0201;
    pub(super) const JPEG_BYTES: u16 = 0x0202;
    pub(super) const EXIF: u16 = 0x8769;
    pub(super) const NOTES: u16 = 0x927c;
    pub(super) const DNG: u16 = 0xc612;
    /// A tag of Panasonic, whose value is a whole JPEG.
    pub(super) const WHOLE_JPEG: u16 = 0x002e;
    /// A tag of Olympus: a directory with the offset of the preview.
    pub(super) const CAMERA: u16 = 0x2020;
    pub(super) const PREVIEW: u16 = 0x0101;
    pub(super) const PREVIEW_BYTES: u16 = 0x0102;
}

/// Returns whether a file that begins like TIFF is a raw file: its header or its first directory says so, or that
/// directory describes a small picture and refers to nested directories. Other programs write the latter, too, but
/// neither previews nor pixels of a sensor.
pub(super) fn is_tiff(file: &[u8]) -> bool {
    if file.get(8..10) == Some(b"CR") {
        return true;
    }
    let Some(first) = Directory::first_of(file) else {
        return false;
    };
    let is_small = first.first(tag::KIND).is_some_and(|kind| kind & 1 == 1);
    first.bytes(tag::DNG).is_some()
        || is_small && first.bytes(tag::DIRECTORIES).is_some() && {
            let previews = Previews::of(file);
            previews.largest.is_some() || previews.may_have_raw_pixels
        }
}

/// Decodes the largest preview.
pub(super) fn decode(file: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let previews = Previews::of(file);
    let (_, preview) = previews.largest.ok_or_else(|| {
        ImageError::variety(FORMAT, "no preview in JPEG or JPEG XL is found in it")
    })?;
    if jxl::sides(preview).is_some() {
        let orientation = previews.orientation.and_then(Orientation::from_exif);
        let orientation = orientation.unwrap_or(Orientation::NoTransforms);
        let decoded = jxl::decode(preview, orientation, request);
        return Ok(decoded.map_err(of_raw)?.with_damage(of_raw));
    }
    let turned = match previews.orientation {
        Some(number @ 2..=8) if !jpeg::has_orientation(preview) => {
            Some(with_orientation(preview, number))
        }
        _ => None,
    };
    let decoded = jpeg::decode(turned.as_deref().unwrap_or(preview), request);
    Ok(decoded.map_err(of_raw)?.with_damage(of_raw))
}

/// Returns the damage of a file that ends before its raw pixels or one of its previews do.
pub(super) fn damage_beyond_preview(file: &[u8]) -> Option<Found> {
    let truncated = || Found::later(ImageError::Truncated { format: FORMAT });
    Previews::of(file).is_cut.then(truncated)
}

/// Converts an error about a preview to one about the raw file.
fn of_raw(error: ImageError) -> ImageError {
    match error {
        ImageError::Truncated { .. } => ImageError::Truncated { format: FORMAT },
        ImageError::Corrupt { reason, .. } => {
            ImageError::corrupt(FORMAT, format!("its preview: {reason}"))
        }
        other => other,
    }
}

/// Returns a copy of a JPEG, with this orientation in EXIF.
fn with_orientation(jpeg: &[u8], number: u8) -> Vec<u8> {
    let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0";
    let mut turned = b"\xff\xd8\xff\xe1".to_vec();
    // EXIF is followed by the number, two bytes of padding, and the end of the list.
    turned.extend((exif.len() as u16 + 2 + 7).to_be_bytes());
    turned.extend(exif);
    turned.extend([number, 0, 0, 0, 0, 0, 0]);
    turned.extend(&jpeg[2..]);
    turned
}

/// The best preview that has been found.
#[derive(Debug, Default)]
struct Previews<'a> {
    /// The largest preview, with its number of pixels.
    largest: Option<(u64, &'a [u8])>,
    /// The orientation of the raw file, as a number of EXIF.
    orientation: Option<u8>,
    /// Whether a TIFF has the pixels of a sensor, or directories that cannot be read.
    may_have_raw_pixels: bool,
    /// Whether raw pixels or a preview end beyond the file.
    is_cut: bool,
}

impl<'a> Previews<'a> {
    /// Searches the whole file.
    fn of(file: &'a [u8]) -> Self {
        let mut previews = Self::default();
        if let Some(rest) = file.strip_prefix(b"FUJIFILMCCD-RAW") {
            let place = rest.get(84 - 15..92 - 15).unwrap_or(&[0; 8]);
            let long = |at: usize| {
                place[at..at + 4]
                    .iter()
                    .fold(0, |n, &byte| n << 8 | usize::from(byte))
            };
            previews.add(file, Some(long(0)), Some(long(4)));
        } else if file.get(4..8) == Some(b"ftyp") {
            previews.add_boxes(file, file, MAX_DEPTH);
        } else {
            previews.add_directories(file);
        }
        previews
    }

    /// Considers the bytes at an offset, if they are a JPEG or JPEG XL that can be decoded.
    fn add(&mut self, file: &'a [u8], offset: Option<usize>, len: Option<usize>) {
        let (Some(offset), Some(len)) = (offset, len) else {
            return;
        };
        let rest = file.get(offset..).unwrap_or_default();
        let preview = &rest[..len.min(rest.len())];
        let Some((width, height)) = jpeg::sides(preview).or_else(|| jxl::sides(preview)) else {
            return;
        };
        let pixels = u64::from(width) * u64::from(height);
        if self.largest.is_none_or(|(most, _)| pixels > most) {
            self.largest = Some((pixels, preview));
        }
    }

    /// Considers the previews in all directories.
    fn add_directories(&mut self, file: &'a [u8]) {
        let is_big_endian = file.starts_with(b"MM");
        let start = file.get(4..8).unwrap_or_default().iter();
        let add = |number: usize, &byte: &u8| number << 8 | usize::from(byte);
        let mut starts = vec![match is_big_endian {
            true => start.fold(0, add),
            false => start.rev().fold(0, add),
        }];
        let mut next = 0;
        while let Some(&start) = starts.get(next)
            && next < MAX_DIRECTORIES
        {
            next += 1;
            let Some((directory, following)) = Directory::at(file, is_big_endian, start) else {
                self.may_have_raw_pixels = true;
                continue;
            };
            let number = |tag| {
                directory
                    .first(tag)
                    .and_then(|number| usize::try_from(number).ok())
            };
            if next == 1 {
                let orientation =
                    number(tag::ORIENTATION).and_then(|number| u8::try_from(number).ok());
                self.orientation = orientation;
            }
            let is_raw = matches!(number(tag::PHOTOMETRIC), Some(32_803 | 34_892));
            self.may_have_raw_pixels |= is_raw;
            // Lengths of Panasonic may be those of decompressed pixels.
            self.is_cut |= !file.starts_with(b"IIU\0") && has_part_beyond(file, &directory);
            self.add(file, number(tag::JPEG), number(tag::JPEG_BYTES));
            // The pixels of a sensor are no preview, even if they are compressed as one.
            if !is_raw && directory.numbers(tag::STRIPS).len() == 1 {
                self.add(file, number(tag::STRIPS), number(tag::STRIP_BYTES));
            }
            if let Some(whole) = directory.bytes(tag::WHOLE_JPEG) {
                self.add(whole, Some(0), Some(whole.len()));
            }
            if let Some(notes) = directory.bytes(tag::NOTES) {
                self.add_notes(file, notes);
            }
            let below = directory
                .numbers(tag::DIRECTORIES)
                .chain(directory.first(tag::EXIF));
            let below = below.filter_map(|start| usize::try_from(start).ok());
            for start in below.chain([following]).take(MAX_DIRECTORIES) {
                if start > 0 && !starts.contains(&start) {
                    starts.push(start);
                }
            }
        }
    }

    /// Considers the preview of Olympus. Its offsets count from the start of the notes, and may be beyond their end.
    fn add_notes(&mut self, file: &'a [u8], notes: &[u8]) {
        let (order, start) = match notes {
            [b'O', b'L', b'Y', b'M', b'P', b'U', b'S', 0, order, ..] => (order, 12),
            [
                b'O',
                b'M',
                b' ',
                b'S',
                b'Y',
                b'S',
                b'T',
                b'E',
                b'M',
                0,
                0,
                0,
                order,
                ..,
            ] => (order, 16),
            _ => return,
        };
        let at = notes.as_ptr().addr() - file.as_ptr().addr();
        let (file, is_big_endian) = (&file[at..], *order == b'M');
        let directory = |start| Directory::at(file, is_big_endian, start);
        let Some((notes, _)) = directory(start) else {
            return;
        };
        let number = |directory: &Directory<'_>, tag| usize::try_from(directory.first(tag)?).ok();
        let camera = number(&notes, tag::CAMERA).and_then(directory);
        if let Some((camera, _)) = camera {
            let len = number(&camera, tag::PREVIEW_BYTES);
            self.add(file, number(&camera, tag::PREVIEW), len);
        }
    }

    /// Considers the samples of tracks, and reads the orientation of Canon.
    fn add_boxes(&mut self, file: &'a [u8], boxes: &'a [u8], depth: usize) {
        let (mut offset, mut len) = (None, None);
        let mut boxes = Reader::new(boxes);
        while let Ok(Some(found)) = boxes.top_box() {
            let content = found.content.rest();
            let long = |at: usize| {
                let bytes = *content.get(at..)?.first_chunk()?;
                Some(u32::from_be_bytes(bytes) as usize)
            };
            // What follows the last box of the format may look like a longer one.
            let is_known = matches!(&found.kind, b"moov" | b"uuid" | b"mdat");
            self.is_cut |= depth == MAX_DEPTH && is_known && found.is_truncated;
            match &found.kind {
                // The last is no kind: a number in front of the preview's box looks like a box around it.
                b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"\0\0\0\x01" if depth > 0 => {
                    self.add_boxes(file, content, depth - 1);
                }
                // The first 16 bytes identify the box.
                b"uuid" if depth > 0 => {
                    let inner = content.get(16..).unwrap_or_default();
                    self.add_boxes(file, inner, depth - 1);
                }
                b"PRVW" => self.add(content, Some(16), long(12)),
                b"CMT1" => self.orientation = exif::orientation(content),
                b"stsz" => len = long(4).filter(|&len| len > 0).or_else(|| long(12)),
                b"stco" => offset = long(8),
                b"co64" => offset = long(8).filter(|&upper| upper == 0).and_then(|_| long(12)),
                _ => {}
            }
        }
        self.add(file, offset, len);
    }
}

/// Returns whether a strip, a tile or a JPEG of a directory ends beyond the file. Places and lengths of ones, and a
/// length of 0, are unknown.
fn has_part_beyond(file: &[u8], directory: &Directory<'_>) -> bool {
    let is_known = |number: u64| number < u64::from(u32::MAX);
    let parts = [
        (tag::STRIPS, tag::STRIP_BYTES),
        (tag::TILES, tag::TILE_BYTES),
        (tag::JPEG, tag::JPEG_BYTES),
    ];
    parts.into_iter().any(|(places, lengths)| {
        let (places, lengths) = (directory.numbers(places), directory.numbers(lengths));
        let is_beyond = |(place, len): (u64, u64)| {
            is_known(place) && is_known(len) && len > 0 && place + len > file.len() as u64
        };
        places.len() == lengths.len() && places.zip(lengths).any(is_beyond)
    })
}
