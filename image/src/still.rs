//! Decoding of PNG, WebP, GIF, TIFF and BMP, by the `image` crate and libwebp.

use std::io::{Cursor, ErrorKind};

use image::codecs::webp::WebPDecoder;
use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, png::PngDecoder, tiff::TiffDecoder};
use image::error::{ImageError as CrateError, LimitErrorKind};
use image::metadata::Orientation;
use image::{ColorType, ExtendedColorType, ImageDecoder, Limits};

use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Metadata, StoredPlan};
use super::pixels::{Color, Pixels, Samples, buffer};
use super::spec::ResizeSpec;
use super::{png, riff, tiff};

/// Bytes that a decoder may allocate besides the pixels: palettes, profiles, rows.
const SPARE_BYTES: u64 = 64 << 20;

pub(super) const MORE_THAN_PIXELS: &str = "decoding it takes more memory than its pixels can need";

/// Limits for a picture of `bytes` bytes: room for the result, and as much for intermediate data.
fn limits(bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes.saturating_mul(2).saturating_add(SPARE_BYTES));
    limits
}

/// Decodes the first picture in the file at full size.
pub(super) fn decode(
    input: &[u8],
    format: Format,
    spec: &ResizeSpec,
) -> Result<Decoded, ImageError> {
    let broken = |error| translate(error, format);
    let file = Cursor::new(input);
    match format {
        Format::Png => {
            let read = |input: &[u8]| {
                // The profile is decompressed with the header, before the size of the pixels is known.
                let decoder = PngDecoder::with_limits(Cursor::new(input), limits(0));
                read(decoder.map_err(broken)?, (input, format), spec, false)
            };
            // Before the decoder: it allocates rows for these sides at once.
            if let Some(sides) = png::announced(input) {
                spec.check_source(sides, format)?;
            }
            png::check_palette(input)?;
            read(input).or_else(|error| match (&error, png::with_end(input)) {
                (ImageError::Truncated { .. }, Some(whole)) => read(&whole).map_err(|_| error),
                _ => Err(error),
            })
        }
        Format::WebP => {
            let read = || {
                riff::check_frame(input)?;
                let file = riff::with_transparent_canvas(input);
                let decoder = WebPDecoder::new(Cursor::new(&*file)).map_err(broken)?;
                let still = !decoder.has_animation();
                read(decoder, (input, format), spec, still)
            };
            // The decoders report various errors about a truncated file.
            read().map_err(|error| match error {
                ImageError::Corrupt { .. } if riff::is_truncated(input) => {
                    ImageError::Truncated { format }
                }
                error => error,
            })
        }
        Format::Gif => {
            let decoder = GifDecoder::new(file).map_err(broken)?;
            let mut decoded = read(decoder, (input, format), spec, false)?;
            // The decoder always yields alpha.
            decoded.pixels = decoded.pixels.without_full_alpha();
            Ok(decoded)
        }
        Format::Tiff => {
            let decoder = TiffDecoder::new(file).map_err(broken)?;
            let associated = tiff::has_associated_alpha(input)?;
            let mut decoded = read(decoder, (input, format), spec, false)?;
            if associated {
                decoded.pixels = tiff::divided_by_alpha(decoded.pixels);
            }
            Ok(decoded)
        }
        Format::Bmp => {
            if let Some((width, height)) = bmp_sides(input) {
                spec.check_source((width.unsigned_abs(), height.unsigned_abs()), format)?;
                if width.max(height) > LONGEST_IN_BMP {
                    let reason = format!("a side of more than {LONGEST_IN_BMP} pixels");
                    return Err(ImageError::variety(format, reason));
                }
            }
            let decoder = BmpDecoder::new(file).map_err(broken)?;
            read(decoder, (input, format), spec, false)
        }
        _ => Err(ImageError::Unsupported {
            format: format.name(),
        }),
    }
}

/// The longest side that the decoder of BMP accepts.
const LONGEST_IN_BMP: i32 = 0xffff;

/// Width and height, which is negative if rows are stored top down; `None` for the oldest version, whose sides are
/// short.
fn bmp_sides(file: &[u8]) -> Option<(i32, i32)> {
    /// Offset of the second header, which starts with its length.
    const SECOND: usize = 14;
    const OLDEST: u32 = 12;
    let number = |at: usize| file.get(at..)?.first_chunk().copied();
    let length = u32::from_le_bytes(number(SECOND)?);
    let side = |at| number(at).map(i32::from_le_bytes);
    let sides = (side(SECOND + 4)?, side(SECOND + 8)?);
    // The decoder rejects sides of 0.
    (length > OLDEST && sides.0 != 0 && sides.1 != 0).then_some(sides)
}

/// Reads header, limits, metadata and pixels, in this order; the pixels by libwebp if `by_libwebp`.
fn read<D: ImageDecoder>(
    mut decoder: D,
    (file, format): (&[u8], Format),
    spec: &ResizeSpec,
    by_libwebp: bool,
) -> Result<Decoded, ImageError> {
    let broken = |error| translate(error, format);
    let (width, height) = decoder.dimensions();
    // Before memory for them is allocated. The sides of the result are checked later: the orientation may swap them.
    spec.check_source((width, height), format)?;
    let inks = ink_bytes(&decoder);
    let bytes = inks.unwrap_or(decoder.total_bytes());
    spec.admit(bytes, file.len() as u64)?;
    // Limited by the announced pixels: a frame may not be larger than its picture.
    let limits = limits(bytes);
    decoder.set_limits(limits).map_err(broken)?;

    // Unreadable metadata is ignored: the pixels matter.
    let (exif, xmp, icc) = match format {
        // Read here: under these limits the decoder reads none that is large compared with the picture.
        Format::Tiff => (
            decoder.exif_metadata().ok().flatten(),
            tiff::bytes_of(file, tiff::XMP),
            tiff::bytes_of(file, tiff::ICC),
        ),
        // Read here: the decoder has no limits.
        Format::WebP => (
            riff::bytes_of(file, riff::EXIF),
            riff::bytes_of(file, riff::XMP),
            riff::bytes_of(file, riff::ICC),
        ),
        _ => (
            decoder.exif_metadata().ok().flatten(),
            decoder.xmp_metadata().ok().flatten(),
            decoder.icc_profile().ok().flatten(),
        ),
    };
    let mut metadata = Metadata {
        exif: exif.map(without_prefix),
        xmp,
        icc,
    };
    if format == Format::Png
        && let Some(rest) = png::metadata_after_pixels(file)
    {
        let rest = PngDecoder::with_limits(Cursor::new(&rest), self::limits(0));
        if let Ok(mut rest) = rest {
            let exif = || rest.exif_metadata().ok().flatten();
            metadata.exif = metadata.exif.or_else(exif).map(without_prefix);
            let xmp = || rest.xmp_metadata().ok().flatten();
            metadata.xmp = metadata.xmp.or_else(xmp);
        }
    }
    // TIFF has it in its own directory, other formats in EXIF.
    let orientation = match format {
        Format::Tiff => decoder.orientation().unwrap_or(Orientation::NoTransforms),
        _ => metadata.orientation(),
    };
    let plan = StoredPlan::new(spec, (width, height), orientation, format)?;
    let pixels = if by_libwebp {
        read_webp(file, width, height)?
    } else if let Some(bytes) = inks {
        tiff::read_inks(file, (width, height), bytes, SPARE_BYTES)?
    } else {
        read_pixels(decoder, format, width, height)?
    };
    Ok(Decoded {
        pixels,
        chroma: None,
        plan,
        orientation,
        metadata,
    })
}

fn without_prefix(exif: Vec<u8>) -> Vec<u8> {
    match exif.strip_prefix(b"Exif\0\0") {
        Some(inner) => inner.to_vec(),
        None => exif,
    }
}

/// Bytes of the inks of a CMYK picture. The decoder would convert them to RGB without their profile.
fn ink_bytes<D: ImageDecoder>(decoder: &D) -> Option<u64> {
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    match decoder.original_color_type() {
        ExtendedColorType::Cmyk8 => Some(pixels.saturating_mul(4)),
        ExtendedColorType::Cmyk16 => Some(pixels.saturating_mul(8)),
        _ => None,
    }
}

fn read_pixels<D: ImageDecoder>(
    decoder: D,
    format: Format,
    width: u32,
    height: u32,
) -> Result<Pixels, ImageError> {
    let broken = |error| translate(error, format);
    let kind = decoder.color_type();
    let color = match kind {
        ColorType::L8 | ColorType::L16 => Color::Gray,
        ColorType::La8 | ColorType::La16 => Color::GrayAlpha,
        ColorType::Rgb8 | ColorType::Rgb16 | ColorType::Rgb32F => Color::Rgb,
        ColorType::Rgba8 | ColorType::Rgba16 | ColorType::Rgba32F => Color::Rgba,
        other => return Err(ImageError::variety(format, format!("pixels of {other:?}"))),
    };
    let too_large = |_| ImageError::OutOfMemory {
        bytes: decoder.total_bytes(),
    };
    let bytes = usize::try_from(decoder.total_bytes()).map_err(too_large)?;
    let samples = match kind.bytes_per_pixel() as usize / color.channels() {
        1 => {
            let mut samples: Vec<u8> = buffer(bytes)?;
            decoder.read_image(&mut samples).map_err(broken)?;
            Samples::Eight(samples)
        }
        2 => {
            let mut samples: Vec<u16> = buffer(bytes / 2)?;
            let bytes = bytemuck::cast_slice_mut(&mut samples);
            decoder.read_image(bytes).map_err(broken)?;
            Samples::Sixteen(samples)
        }
        _ => {
            let mut samples: Vec<f32> = buffer(bytes / 4)?;
            let bytes = bytemuck::cast_slice_mut(&mut samples);
            decoder.read_image(bytes).map_err(broken)?;
            // 0 to 1 is the visible range; the conversion clamps the rest, NaN included.
            let samples = samples.iter().map(|&s| (s * 65_535.0).round() as u16);
            Samples::Sixteen(samples.collect())
        }
    };
    Ok(Pixels {
        width,
        height,
        color,
        samples,
    })
}

/// Decodes a still WebP by libwebp, twice as fast as the decoder that read the header.
fn read_webp(file: &[u8], width: u32, height: u32) -> Result<Pixels, ImageError> {
    let broken = || ImageError::corrupt(Format::WebP, "libwebp could not decode it");
    let features = webp::BitstreamFeatures::new(file).ok_or_else(broken)?;
    // Both parsers must agree before libwebp allocates.
    if (features.width(), features.height()) != (width, height) {
        return Err(ImageError::corrupt(
            Format::WebP,
            "its two headers disagree about its size",
        ));
    }
    let image = webp::Decoder::new(file).decode().ok_or_else(broken)?;
    let color = if image.is_alpha() {
        Color::Rgba
    } else {
        Color::Rgb
    };
    Ok(Pixels {
        width,
        height,
        color,
        samples: Samples::Eight(image.to_vec()),
    })
}

fn translate(error: CrateError, format: Format) -> ImageError {
    match error {
        CrateError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format }
        }
        CrateError::Limits(error) if error.kind() == LimitErrorKind::InsufficientMemory => {
            ImageError::corrupt(format, MORE_THAN_PIXELS)
        }
        CrateError::Unsupported(error) => ImageError::variety(format, error),
        CrateError::Decoding(error) => {
            let text = error.to_string();
            let lower = text.to_lowercase();
            if lower.contains("unexpected end") || lower.contains("unexpected eof") {
                ImageError::Truncated { format }
            } else {
                ImageError::corrupt(format, text)
            }
        }
        other => ImageError::corrupt(format, other),
    }
}
