//! Decoding of formats other than JPEG. WebP is read by the `image` crate and libwebp, here; others have their own
//! module.

use std::io::{Cursor, ErrorKind};

use image::codecs::webp::WebPDecoder;
use image::error::{ImageError as CrateError, LimitErrorKind};
use image::{ColorType, ImageDecoder, Limits};

use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Metadata, Request, without_prefix};
use super::pixels::{Color, Pixels, Samples, buffer};
use super::{avif, bmp, gif, jxl, png, riff, tiff};

/// Bytes that a decoder may allocate besides the pixels: palettes, profiles, rows.
pub(super) const SPARE_BYTES: u64 = 64 << 20;

pub(super) const MORE_THAN_PIXELS: &str = "decoding it takes more memory than its pixels can need";

/// Decodes the first picture in the file at full size.
pub(super) fn decode(
    input: &[u8],
    format: Format,
    request: Request<'_>,
) -> Result<Decoded, ImageError> {
    match format {
        Format::Png => png::decode(input, request),
        Format::WebP => read_webp(input, request).map_err(|error| match error {
            // The decoders report various errors about a truncated file.
            ImageError::Corrupt { .. } if riff::is_truncated(input) => {
                ImageError::Truncated { format }
            }
            error => error,
        }),
        Format::Gif => gif::decode(input, request),
        Format::Tiff => tiff::decode(input, request),
        Format::Bmp => bmp::decode(input, request),
        Format::Avif => avif::decode(input, request),
        Format::JpegXl => jxl::decode(input, request),
        _ => Err(ImageError::Unsupported {
            format: format.name(),
        }),
    }
}

/// Reads header, limits, metadata and pixels, in this order.
fn read_webp(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let format = Format::WebP;
    riff::check_first_frame(input)?;
    let file = riff::with_transparent_canvas(input);
    let mut decoder = WebPDecoder::new(Cursor::new(&*file)).map_err(translate)?;
    let full @ (width, height) = decoder.dimensions();
    // Before memory for them is allocated. The sides of the result are checked later: the orientation may swap them.
    spec.check_source(full, format)?;
    let bytes = decoder.total_bytes();
    spec.admit(bytes, input.len() as u64)?;
    // Limited by the announced pixels: room for the result, and as much for intermediate data.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes.saturating_mul(2).saturating_add(SPARE_BYTES));
    decoder.set_limits(limits).map_err(translate)?;
    let metadata = Metadata {
        // Read here: the decoder has no limits.
        exif: riff::bytes_of(input, riff::EXIF).map(without_prefix),
        xmp: riff::bytes_of(input, riff::XMP),
        icc: riff::bytes_of(input, riff::ICC),
    };
    let orientation = metadata.orientation();
    let plans = request.plans(full, orientation, format)?;
    let pixels = match decoder.has_animation() {
        true => read_frame(decoder)?,
        false => read_still(input, width, height)?,
    };
    Ok(Decoded {
        pixels,
        chroma: None,
        plans,
        orientation,
        metadata,
        damage: None,
        full,
    })
}

/// The first frame of an animation.
fn read_frame(decoder: impl ImageDecoder) -> Result<Pixels, ImageError> {
    let (width, height) = decoder.dimensions();
    let color = match decoder.color_type() {
        ColorType::Rgb8 => Color::Rgb,
        ColorType::Rgba8 => Color::Rgba,
        _ => {
            return Err(ImageError::corrupt(
                Format::WebP,
                "an unknown kind of pixels",
            ));
        }
    };
    let bytes = decoder.total_bytes();
    let len = usize::try_from(bytes).map_err(|_| ImageError::OutOfMemory { bytes })?;
    let mut samples: Vec<u8> = buffer(len)?;
    decoder.read_image(&mut samples).map_err(translate)?;
    Ok(Pixels {
        width,
        height,
        color,
        samples: Samples::Eight(samples),
    })
}

/// Decodes a still WebP by libwebp, twice as fast as the decoder that read the header.
pub(super) fn read_still(file: &[u8], width: u32, height: u32) -> Result<Pixels, ImageError> {
    let broken = || ImageError::corrupt(Format::WebP, "its pixels cannot be decoded");
    let features = webp::BitstreamFeatures::new(file).ok_or_else(broken)?;
    // Both parsers must agree before libwebp allocates.
    if (features.width(), features.height()) != (width, height) {
        let reason = "its two headers disagree about its size";
        return Err(ImageError::corrupt(Format::WebP, reason));
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

/// Rewords an error of the decoder.
fn translate(error: CrateError) -> ImageError {
    let format = Format::WebP;
    match error {
        CrateError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format }
        }
        CrateError::Limits(error) if error.kind() == LimitErrorKind::InsufficientMemory => {
            ImageError::corrupt(format, MORE_THAN_PIXELS)
        }
        CrateError::Unsupported(_) => {
            ImageError::variety(format, "a feature that no decoder knows")
        }
        CrateError::Decoding(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let text = source.unwrap_or_else(|| error.to_string());
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
