//! Pictures: compressed bytes in, pixels or smaller compressed bytes out. Plain functions over `&[u8]`, with
//! nothing of the engine in them; [`resize_encoded`] is what `arenite resize` runs as a kernel.
//!
//! | from | to | |
//! |---|---|---|
//! | a file's bytes | a file's bytes | [`resize_encoded`] |
//! | a file's bytes | pixels | [`resize_to_pixels`], [`decode`] |
//! | pixels | a file's bytes | [`encode`] |
//! | pixels | pixels | [`resize_pixels`] |
//! | pixels | an array, and back | [`Pixels::to_array`], [`Pixels::from_array`] |
//!
//! ```
//! use arenite_image::{probe, resize_encoded, Format, ResizeSpec};
//! # let photo = std::fs::read("../samples/chelsea.jpg")?;
//! assert_eq!(probe(&photo), Some(Format::Jpeg));
//! let small = resize_encoded(&photo, &ResizeSpec::new("100x100".parse()?))?;
//! assert_eq!((small.width, small.height), (100, 67));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What happens to a picture
//! 1. The first bytes decide its format. HEIC, AVIF, JPEG XL and JPEG 2000 are refused by name.
//! 2. The header is read; more than `max_pixels` are refused before anything is allocated for them.
//! 3. It is decoded. JPEG is scaled on the way, to no less than twice the target on each side, but for the filters `Box` and
//!    `Nearest`; the others are decoded whole. Of GIF, of animated WebP and PNG, and of TIFF, it is the first picture.
//! 4. It is resized, colours weighted by alpha, and *then* turned as its EXIF orientation says and
//!    converted to sRGB: both cost next to nothing on a small picture.
//! 5. It is encoded: JPEG with 4:2:0 chroma, baseline or progressive; PNG; or WebP, lossy or lossless.
//!
//! # Decisions
//! - **Profiles** are applied, and then dropped: pixels become sRGB, which is what everything assumes
//!   that sees no profile, and a profile may be larger than the thumbnail. With `keep_metadata` the
//!   pixels keep their own colours and the profile goes with them (but for CMYK and for grey in WebP, which become sRGB).
//! - **Truncated and corrupt files are errors**, also where libjpeg would paint grey over the gap:
//!   a torn thumbnail looks finished. A JPEG of one scan that lacks only its end marker, or a PNG its last chunk, is whole and is accepted.
//! - **16 bits** stay 16 bits from PNG or TIFF to PNG; JPEG and WebP have 8. A profile of inks goes by the upper 8.
//! - **Alpha** is kept in PNG and WebP, and becomes white in JPEG, as a page behind it would be, or the `background` that is asked
//!   for. A GIF without holes has none; a WebP animation whose first frame leaves something free has it.
//! - **Grey** stays grey in JPEG and PNG, but not over a coloured background; WebP has no grey.
//! - **CMYK** (and YCCK) JPEGs, and CMYK TIFFs, become RGB, by their profile if they have one; Adobe's upside-down
//!   inks in JPEG are recognised by its marker.
//! - **Metadata**: without `keep_metadata` none. With it EXIF (orientation reset, its sides those of the result, and without the
//!   thumbnail, which shows the picture before), XMP (orientation reset) and profile, in
//!   each of the three output formats, and nothing else: not IPTC (APP13 of JPEG), not comments, not PNG's texts, not extended
//!   XMP, which spans segments, not XMP that speaks of what lies beside the picture (a gain map, a film, a small copy), and in JPEG no EXIF or XMP that is longer than a segment (64 KiB). TIFF's own tags are its
//!   EXIF, and part of its pixels' description: of them nothing is carried over.
#![deny(unsafe_code)]

mod arrays;
mod color;
mod encode;
mod error;
mod exif;
mod format;
mod jpeg;
mod meta;
mod pixels;
mod png;
mod resample;
mod riff;
mod size;
mod spec;
mod still;
#[cfg(test)]
mod tests;
mod tiff;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use error::ImageError;
pub use format::{Format, PROBE_BYTES, probe};
pub use pixels::{Color, Pixels, Samples};
pub use resample::{resize_pixels, resize_pixels_into};
pub use size::{Fit, Plan, Region, Size, When};
pub use spec::{Filter, Output, ResizeSpec};

use encode::Encoding;
use meta::Metadata;

/// A picture in compressed form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoded {
    /// The content of the file.
    pub bytes: Vec<u8>,
    /// Its format: JPEG, PNG or WebP.
    pub format: Format,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Decodes, resizes and encodes one picture; see the [module](self) for the steps.
///
/// # Errors
/// [`ImageError`], for anything the file may contain: this function does not panic on broken input.
pub fn resize_encoded(input: &[u8], spec: &ResizeSpec) -> Result<Encoded, ImageError> {
    let rendered = render(input, spec)?;
    let metadata = spec.keep_metadata.then_some(&rendered.metadata);
    let (pixels, format) = (&rendered.pixels, rendered.format);
    let bytes = encode::encode(pixels, format, Encoding::of(spec), metadata)?;
    Ok(Encoded {
        bytes,
        format,
        width: pixels.width,
        height: pixels.height,
    })
}

/// The pixels that [`resize_encoded`] hands to the encoder.
///
/// # Errors
/// As for [`resize_encoded`].
pub fn resize_to_pixels(input: &[u8], spec: &ResizeSpec) -> Result<Pixels, ImageError> {
    render(input, spec).map(|rendered| color::without_ycbcr(rendered.pixels))
}

/// Decodes one picture at its full size, upright and in sRGB, within the limits of [`ResizeSpec::full_size`].
///
/// ```
/// use arenite_image::{decode, Color};
/// let photo = decode(&std::fs::read("../samples/chelsea.jpg")?)?;
/// assert_eq!((photo.width, photo.height, photo.color), (451, 300, Color::Rgb));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As for [`resize_encoded`].
#[doc(alias("imread", "imdecode"))]
pub fn decode(input: &[u8]) -> Result<Pixels, ImageError> {
    resize_to_pixels(input, &ResizeSpec::full_size())
}

/// Encodes pixels, which are taken for sRGB, as JPEG, PNG or WebP; `quality` of JPEG and WebP is 1 to 100 (other numbers count as
/// the nearest). What the format cannot hold is converted: see the [decisions](self#decisions).
///
/// ```
/// use arenite_image::{decode, encode, Format};
/// let photo = decode(&std::fs::read("../samples/chelsea.jpg")?)?;
/// let file = encode(photo.clone(), Format::Png, 80)?;
/// assert_eq!(decode(&file)?, photo);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `NotAnOutput` for another format; `BadRequest` if there are not as many samples as the sides say, or a side is 0;
/// `OutputTooLarge` if the format cannot hold the sides; `Encode`.
#[doc(alias("imwrite", "imencode"))]
pub fn encode(pixels: Pixels, format: Format, quality: u8) -> Result<Vec<u8>, ImageError> {
    pixels.check()?;
    spec::check_sides((pixels.width, pixels.height), format)?;
    let pixels = color::to_srgb(pixels, None);
    let how = Encoding::new(quality);
    encode::encode(&encode::prepared(pixels, format, how), format, how, None)
}

/// The format of a file that can be decoded, from its first bytes.
///
/// # Errors
/// `NotAnImage` and `Unsupported`.
pub fn readable_format(head: &[u8]) -> Result<Format, ImageError> {
    match probe(head) {
        Some(format) if format.is_readable() => Ok(format),
        Some(format) => Err(ImageError::Unsupported {
            format: format.name(),
        }),
        None => Err(ImageError::NotAnImage),
    }
}

/// A picture on its way from decoder to encoder.
struct Rendered {
    pixels: Pixels,
    metadata: Metadata,
    format: Format,
}

fn render(input: &[u8], spec: &ResizeSpec) -> Result<Rendered, ImageError> {
    let from = readable_format(input)?;
    let into = spec.output.format_for(from);
    // The decoders return their errors. Should one panic all the same, the picture is at fault.
    let work = || render_unguarded(input, from, into, spec);
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let reason = format!("the decoder panicked: {text}");
        Err(ImageError::corrupt(from, reason))
    })
}

fn render_unguarded(
    input: &[u8],
    from: Format,
    into: Format,
    spec: &ResizeSpec,
) -> Result<Rendered, ImageError> {
    let decoded = match from {
        Format::Jpeg => jpeg::decode(input, spec)?,
        other => still::decode(input, other, spec)?,
    };
    let plan = decoded.plan;
    let size = (plan.width, plan.height);
    let limit = spec.max_bytes;
    let mut small = resample::resize(&decoded.pixels, plan.region, size, spec.filter, limit)?;
    if let Samples::Eight(bytes) = decoded.pixels.samples {
        resample::keep_buffer(bytes);
    }
    if let Some(chroma) = decoded.chroma {
        small = resample::with_chroma(small, &chroma, spec.filter, limit)?;
        resample::keep_buffer(chroma.pairs);
    }
    let mut metadata = decoded.metadata;
    let upright = small.oriented(decoded.orientation)?;
    // A profile describes its pixels: it cannot stay with inks that become RGB, or grey that does.
    let becomes_rgb =
        upright.color == Color::Cmyk || Encoding::of(spec).colours(upright.color, into);
    let pixels = if spec.keep_metadata && !becomes_rgb {
        // Where a decoder has converted the pixels, what described them before does so no more.
        metadata.icc = metadata
            .icc
            .filter(|icc| color::is_profile_of(icc, upright.color));
        upright
    } else {
        let icc = metadata.icc.take();
        color::to_srgb(upright, icc.as_deref())
    };
    let pixels = encode::prepared(pixels, into, Encoding::of(spec));
    if spec.keep_metadata {
        let turned = decoded.orientation != image::metadata::Orientation::NoTransforms;
        metadata.describe((pixels.width, pixels.height), turned);
    }
    Ok(Rendered {
        pixels,
        metadata,
        format: into,
    })
}
