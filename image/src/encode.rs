//! Encoding as JPEG, PNG, WebP, GIF and AVIF.

use std::borrow::Cow;

use ::png::{BitDepth, ColorType, Compression, Filter, Info};

use super::color::without_ycbcr;
use super::error::ImageError;
use super::format::{Format, probe};
use super::meta::{Metadata, complete_png};
use super::palette::{Indexed, MAX_COLORS, Palette};
use super::pixels::{Color, Pixels, Samples};
use super::spec::ResizeSpec;
use super::{gif, jpeg, png, webp};

/// Options of the encoders.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    pub(super) quality: u8,
    pub(super) lossless: bool,
    pub(super) progressive: bool,
    background: [u8; 3],
    palette: Palette,
}

impl Encoding {
    /// Returns the defaults with this quality.
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

    /// Returns the options for a result made from the file `input`: `Palette::Auto` becomes `Never` if the file has no
    /// palette.
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

    /// Returns whether pixels of this colour model are grey and become RGB in this format.
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

/// Converts pixels to the form that the encoder of `format` takes. JPEG: 8 bits without alpha, or YCbCr. WebP and GIF:
/// 8 bits, no grey. AVIF: no grey. PNG: everything except YCbCr.
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
        Format::WebP => webp::encode(pixels, how, metadata),
        Format::Gif => gif::encode_still(pixels),
        #[cfg(feature = "avif")]
        Format::Avif => super::avif::encode(pixels, how, metadata),
        _ => Err(ImageError::NotAnOutput { format }),
    }
}

/// The largest mean squared error at which a picture with a palette looks like the original: 42 dB.
pub(super) const INVISIBLE: f64 = 4.1;

/// Encodes PNG, with a palette if the options `how` ask for it and it fits.
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
    let Some(nearest) = Indexed::nearest(pixels, MAX_COLORS) else {
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
    // Opaque colours come last and need no alpha.
    let alphas = indexed.colors.iter().map(|color| color[3]);
    let alphas: Vec<u8> = alphas.take_while(|&alpha| alpha != u8::MAX).collect();
    info.trns = (!alphas.is_empty()).then_some(alphas.into());
    let per_byte = 8 / bits;
    let mut rows = Vec::with_capacity(indexed.indices.len() / per_byte + height as usize);
    for row in indexed.indices.chunks_exact(width as usize) {
        // The first pixel is in the highest bits.
        rows.extend(row.chunks(per_byte).map(|group| {
            let places = group.iter().zip(1..);
            places.fold(0, |byte, (index, place)| byte | index << (8 - bits * place))
        }));
    }
    // No filter: differences of indices have no meaning.
    write_png(info, Filter::NoFilter, &rows, metadata)
}

/// Writes a PNG from rows without padding, with metadata if given.
fn write_png<'a>(
    mut info: Info<'a>,
    filter: Filter,
    rows: &[u8],
    metadata: Option<&'a Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let failed = |error: ::png::EncodingError| ImageError::Encode {
        format: Format::Png,
        reason: error.to_string(),
    };
    describe_png(&mut info, metadata);
    let mut out = Vec::with_capacity(rows.len() / 2 + 1024);
    let mut encoder = ::png::Encoder::with_info(&mut out, info).map_err(failed)?;
    encoder.set_compression(Compression::Balanced);
    encoder.set_filter(filter);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(rows).map_err(failed)?;
    writer.finish().map_err(failed)?;
    if let Some(metadata) = metadata {
        complete_png(&mut out, metadata);
    }
    Ok(out)
}

/// Adds profile and EXIF to the header of a PNG.
pub(super) fn describe_png<'a>(info: &mut Info<'a>, metadata: Option<&'a Metadata>) {
    if let Some(metadata) = metadata {
        info.icc_profile = metadata.icc.as_deref().map(Cow::Borrowed);
        let exif = metadata.exif.as_deref().filter(|exif| !exif.is_empty());
        info.exif_metadata = exif.map(Cow::Borrowed);
    }
}

fn png(pixels: &Pixels, metadata: Option<&Metadata>) -> Result<Vec<u8>, ImageError> {
    let mut info = Info::with_size(pixels.width, pixels.height);
    info.color_type = match pixels.color {
        Color::Gray => ColorType::Grayscale,
        Color::GrayAlpha => ColorType::GrayscaleAlpha,
        Color::Rgb => ColorType::Rgb,
        Color::Rgba => ColorType::Rgba,
        Color::Cmyk | Color::YCbCr => {
            return Err(ImageError::Encode {
                format: Format::Png,
                reason: "PNG has neither inks nor YCbCr".to_owned(),
            });
        }
    };
    let (depth, rows) = match &pixels.samples {
        Samples::Eight(samples) => (BitDepth::Eight, Cow::Borrowed(&samples[..])),
        Samples::Sixteen(samples) => {
            let big_endian = samples.iter().flat_map(|sample| sample.to_be_bytes());
            (BitDepth::Sixteen, Cow::Owned(big_endian.collect()))
        }
    };
    info.bit_depth = depth;
    write_png(info, Filter::Adaptive, &rows, metadata)
}
