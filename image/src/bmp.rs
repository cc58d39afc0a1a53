//! Decoding of BMP: all headers of Windows and OS/2, 1 to 32 bits, bit fields and run lengths; also without the first
//! header (DIB).

use super::damage::{Found, Loss, fill_rows};
use super::error::ImageError;
use super::format::{Format, is_dib};
use super::meta::{Decoded, Metadata, Request};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};

/// Length of the first header. The second header begins with its own length.
const FIRST: usize = 14;
/// The length of the second header of OS/2 1.
const OS2_1: usize = 12;
/// The length of the second header of Windows 3.
const WINDOWS_3: usize = 40;
/// The length of a second header with masks for three channels.
const WITH_MASKS: usize = 52;
/// The length of a second header with masks for four channels.
const WITH_ALPHA: usize = 56;
/// The length of the second header of OS/2 2.
const OS2_2: usize = 64;

/// How the pixels are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// As rows, each padded to a multiple of 4 bytes.
    Rows,
    /// As runs of pixels with this number of bits.
    Runs,
}

#[derive(Debug)]
struct Header {
    width: usize,
    height: usize,
    is_top_down: bool,
    bits: usize,
    storage: Storage,
    /// The bits of red, green, blue and alpha in a pixel of 16 or 32 bits.
    masks: [u32; 4],
    palette: Vec<[u8; 3]>,
    /// Offset of the pixels. If the file has none, they follow the palette.
    pixels: usize,
}

fn number(file: &[u8], at: usize, bytes: usize) -> Option<usize> {
    let bytes = file.get(at..at.checked_add(bytes)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | usize::from(byte)),
    )
}

impl Header {
    fn read(file: &[u8]) -> Result<Self, ImageError> {
        let format = Format::Bmp;
        let field = |at, bytes| number(file, at, bytes).ok_or(ImageError::Truncated { format });
        let variety = |reason: String| ImageError::variety(format, reason);
        let pixels = field(10, 4)?;
        let len = field(FIRST, 4)?;
        let is_old = len == OS2_1;
        // Sides of four bytes are signed. A negative height means that rows are stored from top to bottom.
        let (width, height, rest) = if is_old {
            (
                field(FIRST + 4, 2)? as i32,
                field(FIRST + 6, 2)? as i32,
                FIRST + 8,
            )
        } else {
            (
                field(FIRST + 4, 4)? as i32,
                field(FIRST + 8, 4)? as i32,
                FIRST + 12,
            )
        };
        let bits = field(rest + 2, 2)?;
        let has = |end: usize| len >= end;
        let optional = |at: usize| match has(at + 4) {
            true => field(FIRST + at, 4),
            false => Ok(0),
        };
        let (compression, used) = if is_old {
            (0, 0)
        } else {
            (optional(16)?, optional(32)?)
        };
        let is_os2 = matches!(len, 16..=39 | OS2_2);
        let storage = match (compression, bits) {
            (0, 1 | 2 | 4 | 8 | 16 | 24 | 32) => Storage::Rows,
            (3 | 6, 16 | 32) if !is_os2 => Storage::Rows,
            (1, 8) | (2, 4) => Storage::Runs,
            (4, 24) if is_os2 => Storage::Runs,
            (3, 1) if is_os2 => return Err(variety("its compression is fax".to_owned())),
            (4, _) => return Err(variety("it holds a JPEG".to_owned())),
            (5, _) => return Err(variety("it holds a PNG".to_owned())),
            (0, bits) => return Err(variety(format!("{bits} bits per pixel"))),
            (other, bits) => {
                let reason = format!(
                    "its compression is of the unknown kind {other}, with {bits} bits per pixel"
                );
                return Err(variety(reason));
            }
        };
        let mut masks = match bits {
            16 => [0x7c00, 0x3e0, 0x1f, 0],
            _ => [0xff_0000, 0xff00, 0xff, 0],
        };
        // Masks follow the header of Windows 3; later headers include them.
        let mut end = FIRST + len;
        if matches!(compression, 3 | 6) {
            let has_alpha = has(WITH_ALPHA) || compression == 6;
            for (index, mask) in masks
                .iter_mut()
                .enumerate()
                .take(if has_alpha { 4 } else { 3 })
            {
                *mask = field(FIRST + WINDOWS_3 + 4 * index, 4)? as u32;
            }
            if !has(WITH_MASKS) {
                end += if compression == 6 { 16 } else { 12 };
            }
        }
        let each = if is_old { 3 } else { 4 };
        let colors = match bits {
            1..=8 if used == 0 => 1 << bits,
            1..=8 => used.min(1 << bits),
            _ => 0,
        };
        let pixels = match pixels {
            0 => end + colors * each,
            pixels => pixels,
        };
        let table = file
            .get(end..)
            .unwrap_or_default()
            .chunks_exact(each)
            .take(colors);
        let palette = table.map(|color| [color[2], color[1], color[0]]).collect();
        Ok(Self {
            width: usize::try_from(width)
                .map_err(|_| ImageError::corrupt(format, "its width is negative"))?,
            height: height.unsigned_abs() as usize,
            is_top_down: height < 0,
            bits,
            storage,
            masks,
            palette,
            pixels,
        })
    }

    /// Returns the row of the picture that is stored at index `place`.
    const fn row(&self, place: usize) -> usize {
        match self.is_top_down {
            true => place,
            false => self.height - 1 - place,
        }
    }

    fn color(&self, index: usize) -> [u8; 3] {
        self.palette.get(index).copied().unwrap_or_default()
    }
}

/// Returns the sides in the header.
pub(super) fn announced(input: &[u8]) -> Option<(u32, u32)> {
    let header = Header::read(input).ok()?;
    Some((header.width as u32, header.height as u32))
}

/// Decodes a picture.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    if is_dib(input) {
        // A first header that leaves open where the pixels are: behind the palette.
        let file = [b"BM", &[0; FIRST - 2][..], input].concat();
        return decode(&file, request);
    }
    let spec = request.spec;
    let format = Format::Bmp;
    let header = Header::read(input)?;
    let full = (header.width as u32, header.height as u32);
    spec.check_source(full, format)?;
    let is_wide = header.storage == Storage::Runs || header.masks[3] != 0;
    let color = if is_wide { Color::Rgba } else { Color::Rgb };
    let pixels = header.width as u64 * header.height as u64;
    let bytes = pixels * color.channels() as u64;
    spec.admit(bytes, input.len() as u64)?;
    let orientation = Orientation::NoTransforms;
    let plans = request.plans(full, orientation, format)?;

    let mut samples: Vec<u8> = buffer(bytes as usize)?;
    let data = input.get(header.pixels..).unwrap_or_default();
    let missing = match header.storage {
        Storage::Rows => read_rows(&header, data, &mut samples, color.channels()),
        Storage::Runs => read_runs(&header, data, &mut samples),
    };
    let mut pixels = Pixels {
        width: full.0,
        height: full.1,
        color,
        samples: Samples::Eight(samples),
    };
    let error = ImageError::Truncated { format };
    let damage = missing.map(|missing| {
        if header.is_top_down {
            fill_rows(&mut pixels, header.height - missing, spec.background);
        } else if let Samples::Eight(samples) = &mut pixels.samples {
            let color = super::color::background_of(color, spec.background);
            let rows = missing * header.width;
            for pixel in samples.chunks_exact_mut(color.len()).take(rows) {
                pixel.copy_from_slice(&color);
            }
        }
        let loss = match missing {
            0 => Loss::Nothing,
            rows => Loss::Pixels(rows as u64 * u64::from(full.0)),
        };
        Found { loss, error }
    });
    let decoded = Decoded::without_metadata(pixels, plans, orientation, damage, full);
    let metadata = Metadata {
        icc: profile(input),
        ..Metadata::default()
    };
    Ok(Decoded {
        metadata,
        ..decoded
    })
}

/// Returns the profile that a header of Windows 5 embeds; empty if it ends beyond the file, which counts as a profile
/// that cannot be read.
fn profile(file: &[u8]) -> Option<Vec<u8>> {
    /// Length of that header.
    const WINDOWS_5: usize = 124;
    const KIND: usize = FIRST + 56;
    const OFFSET: usize = FIRST + 112;
    if number(file, FIRST, 4)? < WINDOWS_5 || file.get(KIND..KIND + 4)? != b"DEBM" {
        return None;
    }
    // Counted from this header on.
    let start = FIRST + number(file, OFFSET, 4)?;
    let end = start + number(file, OFFSET + 4, 4)?;
    Some(file.get(start..end).unwrap_or_default().to_vec())
}

/// Reads rows. Returns the number of rows that the file lacks, if any.
fn read_rows(header: &Header, data: &[u8], samples: &mut [u8], channels: usize) -> Option<usize> {
    let wide = header.width * channels;
    // The last row needs no padding.
    let (stride, least) = (
        (header.width * header.bits).div_ceil(32) * 4,
        (header.width * header.bits).div_ceil(8),
    );
    let mut is_invisible = true;
    for place in 0..header.height {
        let row = data
            .get(place * stride..)
            .and_then(|rest| rest.get(..least));
        let Some(row) = row else {
            return Some(header.height - place);
        };
        let to = &mut samples[header.row(place) * wide..][..wide];
        let targets = to.chunks_exact_mut(channels);
        match header.bits {
            24 => {
                for (to, from) in targets.zip(row.as_chunks::<3>().0) {
                    to.copy_from_slice(&[from[2], from[1], from[0]]);
                }
            }
            16 | 32 => {
                let size = header.bits / 8;
                for (to, from) in targets.zip(row.chunks_exact(size)) {
                    let pixel = from
                        .iter()
                        .rev()
                        .fold(0, |pixel, &byte| pixel << 8 | u32::from(byte));
                    for (to, mask) in to.iter_mut().zip(header.masks) {
                        *to = masked(pixel, mask);
                    }
                    is_invisible &= to.get(3).is_none_or(|&alpha| alpha == 0);
                }
            }
            bits => {
                let most = (1 << bits) - 1;
                for (x, to) in targets.enumerate() {
                    let (byte, place) = (row[x * bits / 8], x * bits % 8);
                    let index = usize::from(byte) >> (8 - bits - place) & most;
                    to.copy_from_slice(&header.color(index));
                }
            }
        }
    }
    // A file whose alpha is 0 everywhere was written without alpha.
    if channels == 4 && is_invisible {
        samples
            .as_chunks_mut::<4>()
            .0
            .iter_mut()
            .for_each(|pixel| pixel[3] = u8::MAX);
    }
    None
}

/// Returns the bits of `pixel` that `mask` selects, scaled to 8 bits.
fn masked(pixel: u32, mask: u32) -> u8 {
    if mask == 0 {
        return 0;
    }
    let shift = mask.trailing_zeros();
    let most = u64::from(mask >> shift);
    ((u64::from((pixel & mask) >> shift) * 255 + most / 2) / most) as u8
}

/// Reads runs. Pixels that are skipped, or come after an early end, are transparent with the first colour, as in
/// browsers. Returns the number of rows that a truncated file lacks.
fn read_runs(header: &Header, data: &[u8], samples: &mut [u8]) -> Option<usize> {
    let [r, g, b] = header.color(0);
    samples
        .as_chunks_mut::<4>()
        .0
        .iter_mut()
        .for_each(|pixel| *pixel = [r, g, b, 0]);
    let (width, height) = (header.width, header.height);
    let mut data = data.iter().copied();
    let (mut x, mut y) = (0, 0);
    // The number of bytes that one read consumes; pixels of 4 bits come in pairs.
    let size = if header.bits == 24 { 3 } else { 1 };
    while y < height {
        let lacking = Some(height - y);
        let (Some(count), Some(what)) = (data.next(), data.next()) else {
            return if x >= width && y + 1 == height {
                Some(0)
            } else {
                lacking
            };
        };
        let (count, is_run) = match (count, what) {
            (0, 0) => {
                (x, y) = (0, y + 1);
                continue;
            }
            (0, 1) => return None,
            (0, 2) => {
                let (Some(right), Some(up)) = (data.next(), data.next()) else {
                    return lacking;
                };
                (x, y) = (x + usize::from(right), y + usize::from(up));
                continue;
            }
            (0, count) => (usize::from(count), false),
            (count, _) => (usize::from(count), true),
        };
        let (bytes, padding) = match (is_run, header.bits) {
            (true, _) => (size, 0),
            (false, 4) => (count.div_ceil(2), count.div_ceil(2) % 2),
            (false, _) => (count * size, count * size % 2),
        };
        // The first byte of a run is read already.
        let mut part: Vec<u8> = is_run.then_some(what).into_iter().collect();
        part.extend(data.by_ref().take(bytes - part.len()));
        data.by_ref().take(padding).for_each(drop);
        if part.len() < bytes {
            return lacking;
        }
        for index in 0..count {
            let color = match header.bits {
                24 => {
                    let at = if is_run { 0 } else { index * 3 };
                    [part[at + 2], part[at + 1], part[at]]
                }
                4 => {
                    let byte = part[if is_run { 0 } else { index / 2 }];
                    header.color(usize::from(if index % 2 == 0 {
                        byte >> 4
                    } else {
                        byte & 15
                    }))
                }
                _ => header.color(part[if is_run { 0 } else { index }].into()),
            };
            if x < width {
                let at = (header.row(y) * width + x) * 4;
                samples[at..at + 3].copy_from_slice(&color);
                samples[at + 3] = u8::MAX;
            }
            x += 1;
        }
    }
    None
}
