//! Decoding of TGA: palettes, black and white, grey and colours, with and without run lengths, from any corner.
//!
//! A TGA has no signature. [`is_header`] checks that the fields of its header are plausible. A file that begins with
//! the signature of another format is not a TGA.

use super::damage::Found;
use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Request};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};

const FORMAT: Format = Format::Tga;

/// Bytes of the header.
const HEADER: usize = 18;

/// The meaning of a stored pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The number of a colour in the palette.
    Index,
    Colors,
    Gray,
}

#[derive(Debug)]
struct Header {
    kind: Kind,
    has_runs: bool,
    width: u32,
    height: u32,
    /// The number of bits of a pixel.
    bits: u8,
    orientation: Orientation,
    /// Whether the header announces alpha.
    has_alpha: bool,
    /// The number by which pixels name the first colour of the palette.
    first: usize,
    /// The number of bits of a colour in the palette.
    color_bits: u8,
    /// The number of colours in the palette.
    colors: usize,
    /// Offset of the palette.
    palette: usize,
}

/// Returns whether a file may begin with these bytes.
pub(super) fn is_header(head: &[u8]) -> bool {
    Header::read(head).is_some()
}

impl Header {
    /// Reads the header. `None` if a field has a value that no program writes. Not all of these headers can be decoded:
    /// see [`Header::check`].
    fn read(file: &[u8]) -> Option<Self> {
        let header = file.first_chunk::<HEADER>()?;
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let &[comment, has_palette, kind, ..] = header;
        let &[.., bits, flags] = header;
        let (first, colors, color_bits) = (word(3), word(5), header[7]);
        let (width, height) = (word(12), word(14));
        let palette_is_valid = match has_palette {
            0 => (first, colors) == (0, 0),
            1 => colors > 0 && matches!(color_bits, 1..=32),
            _ => false,
        };
        let (kind, has_runs) = match kind {
            1 | 9 if has_palette == 0 => (Kind::Gray, kind == 9),
            1 | 9 => (Kind::Index, kind == 9),
            2 | 10 => (Kind::Colors, kind == 10),
            3 | 11 => (Kind::Gray, kind == 11),
            _ => return None,
        };
        let bits_are_valid = matches!(bits, 1 | 2 | 4 | 8 | 15 | 16 | 24 | 32);
        let alpha = flags & 15;
        let is_valid = palette_is_valid
            && bits_are_valid
            && width > 0
            && height > 0
            && flags & 0xc0 == 0
            && alpha <= 8;
        is_valid.then_some(Self {
            kind,
            has_runs,
            width: width.into(),
            height: height.into(),
            bits,
            // Rows are stored from the bottom, unless a flag says otherwise.
            orientation: match flags >> 4 {
                0 => Orientation::FlipVertical,
                1 => Orientation::Rotate180,
                2 => Orientation::NoTransforms,
                _ => Orientation::FlipHorizontal,
            },
            has_alpha: alpha > 0,
            first: first.into(),
            color_bits,
            colors: match has_palette {
                0 => 0,
                _ => colors.into(),
            },
            palette: HEADER + usize::from(comment),
        })
    }

    /// Returns `UnsupportedVariety` if pixels or colours have a number of bits that is not decoded.
    fn check(&self) -> Result<(), ImageError> {
        let is_read = match self.kind {
            Kind::Index => {
                matches!(self.bits, 8 | 16) && matches!(self.color_bits, 15 | 16 | 24 | 32)
            }
            Kind::Colors => matches!(self.bits, 15 | 16 | 24 | 32),
            Kind::Gray => matches!(self.bits, 8 | 16) || self.bits == 1 && !self.has_runs,
        };
        let how = if self.has_runs { " in runs" } else { "" };
        let reason = || match self.kind {
            Kind::Index => format!(
                "{} bits per pixel, {} per colour",
                self.bits, self.color_bits
            ),
            _ => format!("{} bits per pixel{how}", self.bits),
        };
        match is_read {
            true => Ok(()),
            false => Err(ImageError::variety(FORMAT, reason())),
        }
    }

    fn color(&self) -> Color {
        match (self.kind, self.bits) {
            (Kind::Gray, 16) => Color::GrayAlpha,
            (Kind::Gray, _) => Color::Gray,
            (kind, bits) => {
                let bits = if kind == Kind::Index {
                    self.color_bits
                } else {
                    bits
                };
                match bits {
                    32 => Color::Rgba,
                    16 if self.has_alpha => Color::Rgba,
                    _ => Color::Rgb,
                }
            }
        }
    }
}

/// Converts a stored colour to red, green, blue and alpha.
fn rgba(stored: &[u8]) -> [u8; 4] {
    match *stored {
        [low, high] => {
            let pixel = u16::from_le_bytes([low, high]);
            let part = |shift: u16| ((pixel >> shift & 31) * 255 / 31) as u8;
            let alpha = if high & 0x80 == 0 { 0 } else { u8::MAX };
            [part(10), part(5), part(0), alpha]
        }
        [b, g, r] => [r, g, b, u8::MAX],
        [b, g, r, a] => [r, g, b, a],
        _ => [0; 4],
    }
}

/// Decodes a picture.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let header = Header::read(input).ok_or(ImageError::NotAnImage)?;
    header.check()?;
    let full = (header.width, header.height);
    spec.check_source(full, FORMAT)?;
    let color = header.color();
    let (channels, all) = (color.channels(), u64::from(full.0) * u64::from(full.1));
    spec.admit(all * channels as u64, input.len() as u64)?;
    let plans = request.plans(full, header.orientation, FORMAT)?;

    let color_bytes = usize::from(header.color_bits).div_ceil(8);
    let palette_end = header.palette + header.colors * color_bytes;
    let palette = input.get(header.palette..palette_end);
    let palette = palette.ok_or(ImageError::Truncated { format: FORMAT })?;
    let palette: Vec<[u8; 4]> = match header.colors {
        0 => Vec::new(),
        _ => palette.chunks_exact(color_bytes).map(rgba).collect(),
    };
    let mut samples: Vec<u8> = buffer((all * channels as u64) as usize)?;
    let convert = |stored: &[u8], to: &mut [u8]| match header.kind {
        Kind::Gray => to.copy_from_slice(stored),
        Kind::Colors => to.copy_from_slice(&rgba(stored)[..to.len()]),
        Kind::Index => {
            let number = stored
                .iter()
                .rev()
                .fold(0, |number, &byte| number << 8 | usize::from(byte));
            let color = number.checked_sub(header.first);
            let color = color.and_then(|index| palette.get(index));
            to.copy_from_slice(&color.unwrap_or(&[0; 4])[..to.len()]);
        }
    };
    let bytes = usize::from(header.bits).div_ceil(8);
    let targets = samples.chunks_exact_mut(channels);
    let (done, has_excess) = match header.has_runs {
        true => read_runs(&input[palette_end..], bytes, targets, convert),
        false if header.bits == 1 => {
            let stride = (full.0 as usize).div_ceil(8);
            let rows = input[palette_end..].chunks_exact(stride);
            let bits = rows.flat_map(|row| (0..full.0 as usize).map(|x| row[x / 8] << (x % 8)));
            let pixels = bits.zip(targets);
            let done = pixels.map(|(bits, to)| to[0] = 255 * (bits >> 7)).count();
            (done, false)
        }
        false => {
            let stored = input[palette_end..].chunks_exact(bytes);
            let done = stored.len().min(targets.len());
            stored
                .zip(targets)
                .for_each(|(stored, to)| convert(stored, to));
            (done, false)
        }
    };
    // A file whose alpha is 0 everywhere was written without alpha.
    if color.has_alpha()
        && samples
            .chunks_exact(channels)
            .all(|pixel| pixel[channels - 1] == 0)
    {
        let pixels = samples.chunks_exact_mut(channels);
        pixels.for_each(|pixel| pixel[channels - 1] = u8::MAX);
    }
    let mut pixels = Pixels {
        width: full.0,
        height: full.1,
        color,
        samples: Samples::Eight(samples),
    };
    let damage = if (done as u64) < all {
        let error = ImageError::Truncated { format: FORMAT };
        let rows = done / full.0 as usize;
        Some(Found::missing_rows(
            &mut pixels,
            rows,
            spec.background,
            error,
        ))
    } else if has_excess {
        // After a byte too many or too few, pixels are read as lengths.
        let reason = "its last run is longer than the picture";
        Some(Found::doubtful(ImageError::corrupt(FORMAT, reason)))
    } else {
        None
    };
    Ok(Decoded::without_metadata(
        pixels,
        plans,
        header.orientation,
        damage,
        full,
    ))
}

/// Reads packets: each is a run of one pixel, or a number of different pixels. Returns the number of pixels, and
/// whether the last packet has more than the picture.
fn read_runs<'a>(
    mut data: &[u8],
    bytes: usize,
    mut targets: impl ExactSizeIterator<Item = &'a mut [u8]>,
    convert: impl Fn(&[u8], &mut [u8]),
) -> (usize, bool) {
    let (mut done, mut has_excess) = (0, false);
    while targets.len() > 0 {
        let Some((&packet, rest)) = data.split_first() else {
            break;
        };
        let count = usize::from(packet & 0x7f) + 1;
        let is_run = packet & 0x80 != 0;
        let stored = if is_run { bytes } else { count * bytes };
        let (stored, rest) = rest.split_at(stored.min(rest.len()));
        data = rest;
        let mut pixels = stored.chunks_exact(bytes).cycle();
        let count = match (is_run, stored.len() / bytes) {
            (true, 1) => count,
            (true, _) => 0,
            (false, whole) => whole,
        };
        has_excess = count > targets.len();
        for to in targets.by_ref().take(count) {
            if let Some(pixel) = pixels.next() {
                convert(pixel, to);
                done += 1;
            }
        }
    }
    (done, has_excess)
}
