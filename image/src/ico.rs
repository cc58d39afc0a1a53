//! Decoding of icons of Windows: the largest picture in the file, a PNG or a BMP with a mask.

use super::bmp;
use super::damage::{Found, Loss};
use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Request};
use super::pixels::{Color, Pixels, Samples, buffer};
use super::png;

const FORMAT: Format = Format::Ico;

/// Bytes of the header.
const HEADER: usize = 6;
/// Bytes of an entry.
const ENTRY: usize = 16;

/// The length of the first header of a BMP, which icons leave out.
const FILE_HEADER: usize = 14;
/// The length of the second header of Windows 3.
const WINDOWS_3: usize = 40;
/// The length of a second header with masks for four channels.
const WITH_ALPHA: usize = 56;

/// A picture as the directory describes it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    width: u16,
    height: u16,
    bits: u16,
    len: usize,
    offset: usize,
}

impl Entry {
    fn read(bytes: &[u8; ENTRY]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| usize::from(word(at)) | usize::from(word(at + 2)) << 16;
        let side = |side: u8| if side == 0 { 256 } else { u16::from(side) };
        Self {
            width: side(bytes[0]),
            height: side(bytes[1]),
            bits: word(6),
            len: long(8),
            offset: long(12),
        }
    }
}

/// Returns whether a file that begins with the four bytes of an icon continues with a valid entry: these bytes are also
/// common in other files.
pub(super) fn is_header(head: &[u8]) -> bool {
    let rest = head.strip_prefix(b"\0\0\x01\0").unwrap_or_default();
    let Some((count, rest)) = rest.split_first_chunk::<2>() else {
        return false;
    };
    let count = usize::from(u16::from_le_bytes(*count));
    let Some(first) = rest.first_chunk::<ENTRY>() else {
        return false;
    };
    let entry = Entry::read(first);
    let planes = u16::from_le_bytes([first[4], first[5]]);
    count > 0
        && planes <= 1
        && matches!(entry.bits, 0 | 1 | 2 | 4 | 8 | 16 | 24 | 32)
        && entry.len >= WINDOWS_3
        && entry.offset >= HEADER + count * ENTRY
}

/// Returns the pictures as far as the directory exists.
fn entries(file: &[u8]) -> impl Iterator<Item = Entry> {
    let count = file.get(4..HEADER).unwrap_or(&[0, 0]);
    let count = usize::from(u16::from_le_bytes([count[0], count[1]]));
    let entries = file.get(HEADER..).unwrap_or_default();
    let entries = entries.as_chunks::<ENTRY>().0;
    entries.iter().take(count).map(Entry::read)
}

/// Returns the picture with the most pixels, and its number. Among pictures of equal size, the one with the most bits
/// per pixel is returned.
fn largest(file: &[u8]) -> Option<(usize, Entry)> {
    let size = |entry: &Entry| (u32::from(entry.width) * u32::from(entry.height), entry.bits);
    entries(file)
        .enumerate()
        .max_by_key(|(_, entry)| size(entry))
}

/// Returns the damage of a file that ends before a picture other than the decoded one does.
pub(super) fn damage_beyond_picture(file: &[u8]) -> Option<Found> {
    let (decoded, _) = largest(file)?;
    let mut others = entries(file)
        .enumerate()
        .filter(|(number, _)| *number != decoded);
    let is_cut = others.any(|(_, entry)| entry.offset.saturating_add(entry.len) > file.len());
    is_cut.then(|| Found::later(ImageError::Truncated { format: FORMAT }))
}

/// Decodes the largest picture.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let truncated = ImageError::Truncated { format: FORMAT };
    let (_, largest) = largest(input).ok_or(truncated)?;
    let rest = input.get(largest.offset..).unwrap_or_default();
    let data = &rest[..largest.len.min(rest.len())];
    let decoded = match data.starts_with(b"\x89PNG\r\n\x1a\n") {
        true => png::decode(data, request),
        false => decode_bmp(data, data.len() < largest.len, request),
    };
    let mut decoded = decoded.map_err(of_icon)?.with_damage(of_icon);
    if data.len() < largest.len {
        // Its pixels are there, but not its mask, which has no meaning next to alpha, or bytes after a PNG.
        let reason = "it is shorter than its directory says";
        let around = || Found::around(ImageError::corrupt(FORMAT, reason));
        decoded.damage.get_or_insert_with(around);
    }
    Ok(decoded)
}

/// Converts an error about the picture in an icon to one about the icon.
fn of_icon(error: ImageError) -> ImageError {
    match error {
        ImageError::Truncated { .. } => ImageError::Truncated { format: FORMAT },
        ImageError::Corrupt { format, reason } if format != FORMAT => {
            ImageError::corrupt(FORMAT, format!("{format}: {reason}"))
        }
        ImageError::UnsupportedVariety { format, reason } if format != FORMAT => {
            ImageError::variety(FORMAT, format!("{format}: {reason}"))
        }
        other => other,
    }
}

/// Decodes a BMP of twice the height: rows of colours, then rows of bits. A bit of 1 is transparent. `is_cut`: whether
/// the file ends before the BMP does.
fn decode_bmp(data: &[u8], is_cut: bool, request: Request<'_>) -> Result<Decoded, ImageError> {
    let truncated = || ImageError::Truncated { format: FORMAT };
    let header = data.first_chunk::<WINDOWS_3>().ok_or_else(truncated)?;
    let long = |at: usize| {
        let [a, b, c, d] = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_le_bytes([a, b, c, d])
    };
    let header_len = long(0) as usize;
    let (width, twice) = (long(4).cast_signed(), long(8).cast_signed());
    let bits = u16::from_le_bytes([header[14], header[15]]);
    let (compression, used) = (long(16), long(32) as usize);
    if header_len != WINDOWS_3 || width <= 0 || twice.unsigned_abs() < 2 {
        return Err(ImageError::variety(
            FORMAT,
            "a header other than that of Windows 3",
        ));
    }
    if compression != 0 || !matches!(bits, 1 | 4 | 8 | 16 | 24 | 32) {
        let reason = format!("a compressed BMP, or one of {bits} bits");
        return Err(ImageError::variety(FORMAT, reason));
    }
    let height = twice / 2;
    let sides = (width.unsigned_abs(), height.unsigned_abs());
    request.spec.check_source(sides, FORMAT)?;
    let colors = match bits {
        ..=8 if used == 0 => 1 << bits,
        ..=8 => used.min(1 << bits),
        _ => 0,
    };
    let pixels = WINDOWS_3 + 4 * colors;
    let colors = data.get(WINDOWS_3..pixels).ok_or_else(truncated)?;
    let (wide, rows) = (sides.0 as usize, sides.1 as usize);
    request
        .spec
        .admit(4 * wide as u64 * rows as u64, data.len() as u64)?;
    let stride = (wide * usize::from(bits)).div_ceil(32) * 4;
    let stored = data.get(pixels..).unwrap_or_default();
    let (stored, mask) = stored.split_at((stride * rows).min(stored.len()));
    let alphas = stored.as_chunks::<4>().0.iter().map(|pixel| pixel[3]);
    let has_alpha = bits == 32 && alphas.into_iter().any(|alpha| alpha > 0);

    // Build a BMP file with the same pixels. Its header has a mask for alpha if the pixels have alpha.
    let second = if has_alpha { WITH_ALPHA } else { WINDOWS_3 };
    let offset = (FILE_HEADER + second + colors.len()) as u32;
    let mut file = b"BM\0\0\0\0\0\0\0\0".to_vec();
    file.extend(offset.to_le_bytes());
    file.extend((second as u32).to_le_bytes());
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend(&header[12..16]);
    file.extend((if has_alpha { 3u32 } else { 0 }).to_le_bytes());
    file.extend(&header[20..]);
    if has_alpha {
        let masks = [0xff_0000u32, 0xff00, 0xff, 0xff00_0000];
        file.extend(masks.iter().flat_map(|mask| mask.to_le_bytes()));
    }
    file.extend(colors);
    file.extend(stored);
    let decoded = bmp::decode(&file, request)?;
    match has_alpha {
        true => Ok(decoded),
        false => with_mask(decoded, mask, height < 0, is_cut),
    }
}

/// Makes the pixels transparent whose bits in `mask` are set. A missing mask hides nothing.
fn with_mask(
    decoded: Decoded,
    mask: &[u8],
    is_top_down: bool,
    is_cut: bool,
) -> Result<Decoded, ImageError> {
    let (wide, rows) = (
        decoded.pixels.width as usize,
        decoded.pixels.height as usize,
    );
    let stride = wide.div_ceil(32) * 4;
    let Some(mask) = mask.get(..stride * rows) else {
        if !is_cut && mask.iter().all(|&bits| bits == 0) {
            // Pillow writes rows that are not padded; the mask hides nothing.
            let reason = "its mask is shorter than its picture";
            let short = Found::around(ImageError::corrupt(FORMAT, reason));
            let damage = decoded.damage.or(Some(short));
            return Ok(Decoded { damage, ..decoded });
        }
        let missing = rows - mask.len() / stride;
        let torn = Found {
            loss: Loss::Pixels((missing * wide) as u64),
            error: ImageError::Truncated { format: FORMAT },
        };
        let damage = decoded.damage.or(Some(torn));
        return Ok(Decoded { damage, ..decoded });
    };
    if mask.iter().all(|&bits| bits == 0) {
        return Ok(decoded);
    }
    let mut samples: Vec<u8> = buffer(wide * rows * 4)?;
    let colors = decoded
        .pixels
        .eight_bits()
        .chunks_exact(decoded.pixels.color.channels());
    for (index, (to, from)) in samples
        .as_chunks_mut::<4>()
        .0
        .iter_mut()
        .zip(colors)
        .enumerate()
    {
        let (x, y) = (index % wide, index / wide);
        let place = if is_top_down { y } else { rows - 1 - y };
        let is_hidden = mask[place * stride + x / 8] >> (7 - x % 8) & 1 == 1;
        let alpha = if is_hidden { 0 } else { u8::MAX };
        *to = [from[0], from[1], from[2], alpha];
    }
    let pixels = Pixels {
        color: Color::Rgba,
        samples: Samples::Eight(samples),
        ..decoded.pixels
    };
    Ok(Decoded { pixels, ..decoded })
}
