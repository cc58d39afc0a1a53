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
//! The preview is turned by the orientation in its own EXIF. If it has none, it is turned by that of the raw file,
//! which describes the pixels of the sensor, unless its sides show that the camera has turned it already.

use std::ops::ControlFlow;

use super::avif::Reader;
use super::damage::Found;
use super::error::ImageError;
use super::exif;
use super::format::Format;
use super::jpeg;
use super::jxl;
use super::meta::{Decoded, Request, StoredPlan};
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
    pub(super) const WIDTH: u16 = 0x0100;
    pub(super) const HEIGHT: u16 = 0x0101;
    pub(super) const PHOTOMETRIC: u16 = 0x0106;
    pub(super) const STRIPS: u16 = 0x0111;
    pub(super) const ORIENTATION: u16 = 0x0112;
    pub(super) const STRIP_BYTES: u16 = 0x0117;
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

/// Returns the sides of the largest preview.
pub(super) fn announced(file: &[u8]) -> Option<(u32, u32)> {
    Previews::of(file).largest.map(|(sides, _)| sides)
}

/// Decodes the largest preview.
pub(super) fn decode(file: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let previews = Previews::of(file);
    let (sides, preview) = previews.largest.ok_or_else(|| {
        ImageError::variety(FORMAT, "no preview in JPEG or JPEG XL is found in it")
    })?;
    let with_warning = |decoded: Result<Decoded, ImageError>| {
        let mut decoded = decoded.map_err(of_raw)?.with_damage(of_raw);
        if decoded.plans.iter().any(StoredPlan::enlarges) {
            let (width, height) = sides;
            let reason = format!("its largest preview, of {width}x{height} pixels, is enlarged");
            let enlarged = Found::around(ImageError::BadRequest { reason });
            decoded.damage.get_or_insert(enlarged);
        }
        Ok(decoded)
    };
    let number = previews
        .orientation
        .filter(|&number| !previews.is_upright(number, sides));
    if jxl::sides(preview).is_some() {
        let orientation = number.and_then(Orientation::from_exif);
        let orientation = orientation.unwrap_or(Orientation::NoTransforms);
        return with_warning(jxl::decode(preview, orientation, request));
    }
    let turned = match number {
        Some(number @ 2..=8) if !jpeg::has_orientation(preview) => {
            Some(with_orientation(preview, number))
        }
        _ => None,
    };
    with_warning(jpeg::decode(turned.as_deref().unwrap_or(preview), request))
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
    /// The largest preview, with its sides.
    largest: Option<((u32, u32), &'a [u8])>,
    /// The orientation of the raw file, as a number of EXIF.
    orientation: Option<u8>,
    /// The sides of the sensor's pixels, if a TIFF contains them.
    sensor: Option<(usize, usize)>,
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

    /// Returns whether a preview with these sides has been turned by the orientation `number` already: it is upright
    /// and the sensor is not, or the other way round. Sensors of unknown sides are wider than high.
    fn is_upright(&self, number: u8, (width, height): (u32, u32)) -> bool {
        let (across, down) = self.sensor.unwrap_or((3, 2));
        let swaps_sides = number >= 5;
        swaps_sides && width != height && across != down && (width < height) != (across < down)
    }

    /// Considers the bytes at an offset, if they are a JPEG or JPEG XL that can be decoded.
    fn add(&mut self, file: &'a [u8], offset: Option<usize>, len: Option<usize>) {
        let (Some(offset), Some(len)) = (offset, len) else {
            return;
        };
        let rest = file.get(offset..).unwrap_or_default();
        let preview = &rest[..len.min(rest.len())];
        let Some(sides) = jpeg::sides(preview).or_else(|| jxl::sides(preview)) else {
            return;
        };
        let area = |(width, height)| u64::from(width) * u64::from(height);
        if self
            .largest
            .is_none_or(|(most, _)| area(sides) > area(most))
        {
            self.largest = Some((sides, preview));
        }
    }

    /// Considers the previews in all directories.
    fn add_directories(&mut self, file: &'a [u8]) {
        let mut count = 0;
        // Lengths of Panasonic may be those of decompressed pixels.
        let has_lengths = !file.starts_with(b"IIU\0");
        Directory::each(file, &[tag::DIRECTORIES, tag::EXIF], |directory| {
            count += 1;
            if count > MAX_DIRECTORIES {
                return ControlFlow::Break(());
            }
            let Some(directory) = directory else {
                self.may_have_raw_pixels = true;
                self.is_cut = true;
                return ControlFlow::Continue(());
            };
            let number = |tag| usize::try_from(directory.first(tag)?).ok();
            if count == 1 {
                let number = number(tag::ORIENTATION);
                self.orientation = number.and_then(|number| u8::try_from(number).ok());
            }
            let is_raw = matches!(number(tag::PHOTOMETRIC), Some(32_803 | 34_892));
            if is_raw {
                self.may_have_raw_pixels = true;
                self.sensor = number(tag::WIDTH).zip(number(tag::HEIGHT));
            }
            self.is_cut |= has_lengths && directory.lacks_pixels();
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
            ControlFlow::Continue(())
        });
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
        let directory = |start| Directory::within(file, is_big_endian, start);
        let Some(notes) = directory(start) else {
            return;
        };
        let number = |directory: &Directory<'_>, tag| usize::try_from(directory.first(tag)?).ok();
        if let Some(camera) = notes.first(tag::CAMERA).and_then(directory) {
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
