//! Encoding as JPEG, PNG, WebP, GIF and AVIF.

use std::borrow::Cow;

use ::png::{BitDepth, ColorType, Compression, Filter, Info};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::color::without_ycbcr;
use super::error::ImageError;
use super::format::{Format, probe};
use super::meta::{Metadata, add_xmp_to_png, webp_file};
use super::palette::{Indexed, Palette};
use super::pixels::{Color, Pixels, Samples};
use super::spec::ResizeSpec;
use super::{avif, gif, jpeg, png, riff};

/// Options of the encoders.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    pub(super) quality: u8,
    lossless: bool,
    pub(super) progressive: bool,
    background: [u8; 3],
    palette: Palette,
}

/// Effort of the lossless WebP encoder, 0 to 100: the default of libwebp.
const EFFORT: f32 = 75.0;

impl Encoding {
    /// The defaults with this quality.
    pub(super) const fn new(quality: u8) -> Self {
        Self::of(&ResizeSpec {
            quality,
            palette: Palette::Never,
            ..ResizeSpec::full_size()
        })
    }

    pub(super) const fn of(spec: &ResizeSpec) -> Self {
        Self {
            quality: spec.quality,
            lossless: spec.lossless,
            progressive: spec.progressive,
            background: spec.background,
            palette: spec.palette,
        }
    }

    /// With the palette decided for a result of this file.
    pub(super) fn after(self, input: &[u8]) -> Self {
        let has_palette = match probe(input) {
            Some(Format::Gif) => true,
            Some(Format::Png) => png::has_palette(input),
            _ => false,
        };
        match self.palette {
            Palette::Auto if !has_palette => Self {
                palette: Palette::Never,
                ..self
            },
            _ => self,
        }
    }

    /// Whether grey pixels become RGB in this format.
    pub(super) fn makes_rgb(self, color: Color, format: Format) -> bool {
        match (color, format) {
            (Color::Gray | Color::GrayAlpha, Format::WebP | Format::Gif | Format::Avif) => true,
            (Color::GrayAlpha, Format::Jpeg) => !is_grey(self.background),
            _ => false,
        }
    }
}

pub(super) fn is_grey([red, green, blue]: [u8; 3]) -> bool {
    red == green && green == blue
}

/// Converts pixels to what the encoder of `format` takes: JPEG takes 8 bits without alpha, and YCbCr; WebP and GIF take
/// 8 bits and no grey; AVIF takes no grey; PNG takes everything but YCbCr.
pub(super) fn prepared(pixels: Pixels, format: Format, how: Encoding) -> Pixels {
    let pixels = match how.makes_rgb(pixels.color, format) {
        true => pixels.into_rgb(),
        false => pixels,
    };
    match format {
        Format::Jpeg => pixels.flattened_over(how.background).into_eight_bits(),
        Format::WebP | Format::Gif => without_ycbcr(pixels).into_eight_bits(),
        _ => without_ycbcr(pixels),
    }
}

/// Encodes [`prepared`] pixels, with metadata if given.
pub(super) fn encode(
    pixels: &Pixels,
    format: Format,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    match format {
        Format::Jpeg => jpeg::encode(pixels, how, metadata),
        Format::Png => palette_png(pixels, how, metadata),
        Format::WebP => webp(pixels, how, metadata),
        Format::Gif => gif::encode_still(pixels),
        Format::Avif => avif::encode(pixels, how, metadata),
        _ => Err(ImageError::NotAnOutput { format }),
    }
}

/// The largest mean squared difference of a palette to its picture that is not seen: 42 dB.
pub(super) const INVISIBLE: f64 = 4.1;

/// Encodes PNG, with a palette where `how` wants one.
fn palette_png(
    pixels: &Pixels,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    if how.palette == Palette::Never {
        return png(pixels, metadata);
    }
    let sides = (pixels.width, pixels.height);
    if let Some(exact) = Indexed::exact(pixels) {
        return indexed_png(&exact, sides, metadata);
    }
    let Some(nearest) = Indexed::nearest(pixels) else {
        return png(pixels, metadata);
    };
    let is_invisible = nearest.error <= INVISIBLE;
    if how.palette == Palette::Always {
        let indexed = match is_invisible {
            true => nearest,
            false => nearest.dithered(pixels),
        };
        return indexed_png(&indexed, sides, metadata);
    }
    let own = png(pixels, metadata)?;
    if !is_invisible {
        return Ok(own);
    }
    let indexed = indexed_png(&nearest, sides, metadata)?;
    Ok(if indexed.len() < own.len() {
        indexed
    } else {
        own
    })
}

/// Encodes PNG with a palette, in as few bits per pixel as it needs.
fn indexed_png(
    indexed: &Indexed,
    (width, height): (u32, u32),
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let failed = |error: ::png::EncodingError| ImageError::Encode {
        format: Format::Png,
        reason: error.to_string(),
    };
    let (depth, bits) = match indexed.colors.len() {
        ..=2 => (BitDepth::One, 1),
        3..=4 => (BitDepth::Two, 2),
        5..=16 => (BitDepth::Four, 4),
        _ => (BitDepth::Eight, 8),
    };
    let mut info = Info::with_size(width, height);
    info.color_type = ColorType::Indexed;
    info.bit_depth = depth;
    let colors = indexed.colors.iter();
    info.palette = Some(colors.flat_map(|color| color[..3].to_vec()).collect());
    // Opaque colours are the last ones, and need no alpha.
    let alphas = indexed.colors.iter().map(|color| color[3]);
    let alphas: Vec<u8> = alphas.take_while(|&alpha| alpha != u8::MAX).collect();
    info.trns = (!alphas.is_empty()).then_some(alphas.into());
    describe_png(&mut info, metadata);
    let per_byte = 8 / bits;
    let mut rows = Vec::with_capacity(indexed.indices.len() / per_byte + height as usize);
    for row in indexed.indices.chunks_exact(width as usize) {
        // The first pixel is in the highest bits.
        rows.extend(row.chunks(per_byte).map(|group| {
            let places = group.iter().zip(1..);
            places.fold(0, |byte, (index, place)| byte | index << (8 - bits * place))
        }));
    }
    let mut out = Vec::with_capacity(rows.len() / 2 + 1024);
    let mut encoder = ::png::Encoder::with_info(&mut out, info).map_err(failed)?;
    encoder.set_compression(Compression::Balanced);
    // Differences of indices mean nothing.
    encoder.set_filter(Filter::NoFilter);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&rows).map_err(failed)?;
    writer.finish().map_err(failed)?;
    if let Some(xmp) = metadata.and_then(|metadata| metadata.xmp.as_deref()) {
        add_xmp_to_png(&mut out, xmp);
    }
    Ok(out)
}

/// Adds profile and EXIF to the header of a PNG.
pub(super) fn describe_png<'a>(info: &mut Info<'a>, metadata: Option<&'a Metadata>) {
    if let Some(metadata) = metadata {
        info.icc_profile = metadata.icc.as_deref().map(Cow::Borrowed);
        info.exif_metadata = metadata.exif.as_deref().map(Cow::Borrowed);
    }
}

const NOT_OF_PNG: &str = "PNG has neither inks nor YCbCr";

fn png(pixels: &Pixels, metadata: Option<&Metadata>) -> Result<Vec<u8>, ImageError> {
    let failed = |error: &dyn std::fmt::Display| ImageError::Encode {
        format: Format::Png,
        reason: error.to_string(),
    };
    let (kind, bytes): (_, &[u8]) = match (&pixels.samples, pixels.color) {
        (Samples::Eight(samples), Color::Gray) => (ExtendedColorType::L8, samples),
        (Samples::Eight(samples), Color::GrayAlpha) => (ExtendedColorType::La8, samples),
        (Samples::Eight(samples), Color::Rgb) => (ExtendedColorType::Rgb8, samples),
        (Samples::Eight(samples), Color::Rgba) => (ExtendedColorType::Rgba8, samples),
        (Samples::Sixteen(samples), color) => {
            let kind = match color {
                Color::Gray => ExtendedColorType::L16,
                Color::GrayAlpha => ExtendedColorType::La16,
                Color::Rgb => ExtendedColorType::Rgb16,
                Color::Rgba => ExtendedColorType::Rgba16,
                Color::Cmyk | Color::YCbCr => return Err(failed(&NOT_OF_PNG)),
            };
            (kind, bytemuck::cast_slice(samples))
        }
        (_, Color::Cmyk | Color::YCbCr) => return Err(failed(&NOT_OF_PNG)),
    };
    let mut out = Vec::with_capacity(bytes.len() / 2 + 1024);
    let mut encoder =
        PngEncoder::new_with_quality(&mut out, CompressionType::Default, FilterType::Adaptive);
    if let Some(metadata) = metadata {
        if let Some(icc) = &metadata.icc {
            encoder
                .set_icc_profile(icc.clone())
                .map_err(|e| failed(&e))?;
        }
        if let Some(exif) = &metadata.exif {
            encoder
                .set_exif_metadata(exif.clone())
                .map_err(|e| failed(&e))?;
        }
    }
    encoder
        .write_image(bytes, pixels.width, pixels.height, kind)
        .map_err(|e| failed(&e))?;
    if let Some(xmp) = metadata.and_then(|metadata| metadata.xmp.as_deref()) {
        add_xmp_to_png(&mut out, xmp);
    }
    Ok(out)
}

fn webp(
    pixels: &Pixels,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let file = webp_picture(pixels, how)?;
    let has_any =
        |data: &&Metadata| data.icc.is_some() || data.exif.is_some() || data.xmp.is_some();
    let Some(metadata) = metadata.filter(has_any) else {
        return Ok(file);
    };
    let flags = riff::ALPHA * u8::from(pixels.color.has_alpha());
    let sides = (pixels.width, pixels.height);
    riff::picture_chunks(&file)
        .and_then(|picture| webp_file(picture, flags, sides, metadata))
        .ok_or_else(|| ImageError::Encode {
            format: Format::WebP,
            reason: "its metadata does not fit".to_owned(),
        })
}

/// A WebP file without metadata.
pub(super) fn webp_picture(pixels: &Pixels, how: Encoding) -> Result<Vec<u8>, ImageError> {
    let failed = |reason: String| ImageError::Encode {
        format: Format::WebP,
        reason,
    };
    let (layout, samples) = match (pixels.color, &pixels.samples) {
        (Color::Rgb, Samples::Eight(samples)) => (webp::PixelLayout::Rgb, samples),
        (Color::Rgba, Samples::Eight(samples)) => (webp::PixelLayout::Rgba, samples),
        (color, _) => return Err(failed(format!("{color:?} is not a WebP's colour model"))),
    };
    let quality = match how.lossless {
        true => EFFORT,
        false => f32::from(how.quality.clamp(1, 100)),
    };
    let file = webp::Encoder::new(samples, layout, pixels.width, pixels.height)
        .encode_simple(how.lossless, quality)
        .map_err(|error| failed(format!("{error:?}")))?;
    Ok(file.to_vec())
}
