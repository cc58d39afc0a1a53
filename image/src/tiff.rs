//! What the TIFF decoder does not do: check that JPEG strips are complete, tell associated alpha, and return inks,
//! which it converts to RGB before their profile could be applied.

use std::io::{Cursor, ErrorKind};

use tiff::decoder::{Decoder, Limits};
use tiff::tags::Tag;
use tiff::{TiffError, TiffResult};

use super::error::ImageError;
use super::format::Format;
use super::pixels::{Color, Pixels, Samples, buffer};
use super::still::MORE_THAN_PIXELS;

/// Compression by JPEG, old and new style. The decoder fills missing data with grey.
const JPEG: [u64; 2] = [6, 7];
pub(super) const ICC: Tag = Tag::IccProfile;
/// The packet that Adobe's programs write.
pub(super) const XMP: Tag = Tag::Unknown(700);
/// In `ExtraSamples`: colours are multiplied by alpha.
const ASSOCIATED: u64 = 1;

/// Whether colours are multiplied by alpha, by the first directory.
///
/// # Errors
/// `Truncated` if a JPEG strip or tile ends beyond the file. Other errors are left to the decoder, which names them.
pub(super) fn has_associated_alpha(file: &[u8]) -> Result<bool, ImageError> {
    let Ok(mut directory) = Decoder::new(Cursor::new(file)) else {
        return Ok(false);
    };
    let mut numbers = |tag| directory.find_tag_unsigned_vec::<u64>(tag).ok().flatten();
    let mut first = |tag| numbers(tag).and_then(|all| all.first().copied());
    let (compression, extra) = (first(Tag::Compression), first(Tag::ExtraSamples));
    if compression.is_some_and(|kind| JPEG.contains(&kind)) {
        let places = [
            (Tag::StripOffsets, Tag::StripByteCounts),
            (Tag::TileOffsets, Tag::TileByteCounts),
        ];
        for (starts, lengths) in places {
            let (Some(starts), Some(lengths)) = (numbers(starts), numbers(lengths)) else {
                continue;
            };
            let ends = starts.iter().zip(&lengths);
            let mut ends = ends.map(|(&start, &len)| start.saturating_add(len));
            if ends.any(|end| end > file.len() as u64) {
                let format = Format::Tiff;
                return Err(ImageError::Truncated { format });
            }
        }
    }
    Ok(extra == Some(ASSOCIATED))
}

/// The bytes of this tag in the first directory, if any.
pub(super) fn bytes_of(file: &[u8], tag: Tag) -> Option<Vec<u8>> {
    /// Bytes that the decoder needs per byte of a value.
    const EACH: usize = 32;
    /// Enough for 8 MiB of metadata.
    const MOST: usize = 256 << 20;
    let mut limits = Limits::default();
    // A value cannot be longer than the file.
    limits.decoding_buffer_size = file.len().saturating_mul(EACH).min(MOST);
    limits.ifd_value_size = file.len();
    let mut decoder = Decoder::new(Cursor::new(file)).ok()?.with_limits(limits);
    decoder.get_tag_u8_vec(tag).ok()
}

/// Decodes the inks of the first picture, which take `bytes`; 0 is no ink. The decoder may use as many bytes again,
/// plus `spare`.
///
/// # Errors
/// Those of any decoder.
pub(super) fn read_inks(
    file: &[u8],
    (width, height): (u32, u32),
    bytes: u64,
    spare: u64,
) -> Result<Pixels, ImageError> {
    let len = usize::try_from(bytes).map_err(|_| ImageError::OutOfMemory { bytes })?;
    let mut limits = Limits::default();
    limits.decoding_buffer_size = len;
    limits.intermediate_buffer_size = len.saturating_add(spare as usize);
    limits.ifd_value_size = limits.intermediate_buffer_size;
    let decoder = Decoder::new(Cursor::new(file)).map_err(translate)?;
    let mut decoder = decoder.with_limits(limits);
    let layout = decoder.image_buffer_layout().map_err(translate)?;
    if layout.planes != 1 || layout.complete_len != len {
        let reason = "inks in separate planes";
        return Err(ImageError::variety(Format::Tiff, reason));
    }
    let mut fill = |samples: &mut [u8]| -> TiffResult<()> { decoder.read_image_bytes(samples) };
    let samples = if bytes == u64::from(width) * u64::from(height) * 4 {
        let mut samples: Vec<u8> = buffer(len)?;
        fill(&mut samples).map_err(translate)?;
        Samples::Eight(samples)
    } else {
        let mut samples: Vec<u16> = buffer(len / 2)?;
        fill(bytemuck::cast_slice_mut(&mut samples)).map_err(translate)?;
        Samples::Sixteen(samples)
    };
    Ok(Pixels {
        width,
        height,
        color: Color::Cmyk,
        samples,
    })
}

fn translate(error: TiffError) -> ImageError {
    let format = Format::Tiff;
    match error {
        TiffError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format }
        }
        TiffError::LimitsExceeded => ImageError::corrupt(format, MORE_THAN_PIXELS),
        TiffError::UnsupportedError(what) => ImageError::variety(format, what),
        other => ImageError::corrupt(format, other),
    }
}

/// Undoes the multiplication of colours by alpha, as the code after a decoder expects.
pub(super) fn divided_by_alpha(mut pixels: Pixels) -> Pixels {
    let channels = pixels.color.channels();
    if pixels.color.has_alpha() {
        match &mut pixels.samples {
            Samples::Eight(samples) => {
                for pixel in samples.chunks_exact_mut(channels) {
                    divide(pixel, u8::MAX.into(), |divided| divided as u8);
                }
            }
            Samples::Sixteen(samples) => {
                for pixel in samples.chunks_exact_mut(channels) {
                    divide(pixel, u16::MAX.into(), |divided| divided as u16);
                }
            }
        }
    }
    pixels
}

fn divide<T: Copy + Into<u32>>(pixel: &mut [T], full: u32, narrow: fn(u32) -> T) {
    let Some((alpha, colors)) = pixel.split_last_mut() else {
        return;
    };
    let alpha: u32 = (*alpha).into();
    // Invisible pixels have no colour to recover.
    if alpha == 0 || alpha == full {
        return;
    }
    for color in colors {
        let multiplied: u32 = (*color).into();
        let divided =
            (u64::from(multiplied) * u64::from(full) + u64::from(alpha / 2)) / u64::from(alpha);
        *color = narrow(divided.min(full.into()) as u32);
    }
}
