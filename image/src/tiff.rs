//! What the TIFF decoder does not look at: whether compressed strips are there to their end, what alpha means, and the inks
//! themselves, which it makes RGB before a profile could be applied.

use std::io::{Cursor, ErrorKind};

use tiff::decoder::{Decoder, Limits};
use tiff::tags::Tag;
use tiff::{TiffError, TiffResult};

use super::error::ImageError;
use super::format::Format;
use super::pixels::{Color, Pixels, Samples, buffer};
use super::still::MORE_THAN_PIXELS;

/// JPEG within TIFF, the old kind and the new one. Its decoder takes what is missing for grey.
const JPEG: [u64; 2] = [6, 7];
pub(super) const ICC: Tag = Tag::IccProfile;
/// The packet that Adobe's programs write.
pub(super) const XMP: Tag = Tag::Unknown(700);
/// Of `ExtraSamples`: colours have been multiplied by alpha.
const ASSOCIATED: u64 = 1;

/// Looks into the first directory: whether colours have been multiplied by alpha.
///
/// # Errors
/// `Truncated`: a strip or tile of JPEG ends behind the file. What cannot be read here the decoder cannot read either, and says why.
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

/// The bytes that stand under this tag in the first directory, if there are any.
pub(super) fn bytes_of(file: &[u8], tag: Tag) -> Option<Vec<u8>> {
    /// What the decoder takes for each byte on the way.
    const EACH: usize = 32;
    /// Eight mebibytes of metadata.
    const MOST: usize = 256 << 20;
    let mut limits = Limits::default();
    // So that nothing is asked for that cannot be there.
    limits.decoding_buffer_size = file.len().saturating_mul(EACH).min(MOST);
    limits.ifd_value_size = file.len();
    let mut decoder = Decoder::new(Cursor::new(file)).ok()?.with_limits(limits);
    decoder.get_tag_u8_vec(tag).ok()
}

/// The inks of the first picture, which takes `bytes`; 0 is none of it, as everywhere here. On the way there the decoder may
/// take as much again, and `spare`.
///
/// # Errors
/// As of any decoder.
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
        let reason = "inks that do not lie side by side";
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

/// Colours as they are without alpha, which is what everything behind a decoder assumes.
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
    // Where nothing can be seen there is no colour to find.
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
