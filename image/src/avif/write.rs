//! AVIF by ravif: 8 bits per sample, chroma at full size.

use ravif::{BitDepth, Encoder, Img, RGB8, RGBA8};

use super::super::encode::Encoding;
use super::super::error::ImageError;
use super::super::format::Format;
use super::super::meta::Metadata;
use super::super::pixels::{Color, Pixels, Samples};
use super::file::with_metadata;

/// The encoder's speed, 1 to 10. Lower speeds save few bytes for much more time: see docs/resize.md.
const SPEED: u8 = 8;

/// Encodes RGB or RGBA, rounded to 8 bits.
pub(in super::super) fn encode(
    pixels: &Pixels,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let failed = |reason: String| ImageError::Encode {
        format: Format::Avif,
        reason,
    };
    let quality = f32::from(how.quality.clamp(1, 100));
    let encoder = Encoder::new()
        .with_quality(quality)
        .with_alpha_quality(quality)
        .with_speed(SPEED)
        .with_bit_depth(BitDepth::Eight)
        .with_num_threads(Some(1));
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let rounded;
    let pixels = match &pixels.samples {
        Samples::Eight(_) => pixels,
        Samples::Sixteen(_) => {
            rounded = pixels.clone().into_eight_bits();
            &rounded
        }
    };
    // These are not the generic functions, which would compile the whole encoder again in this crate.
    let encoded = match (pixels.color, &pixels.samples) {
        (Color::Rgb, Samples::Eight(samples)) => {
            let pixels = samples.as_chunks::<3>().0.iter();
            let pixels: Vec<RGB8> = pixels.map(|&[r, g, b]| RGB8::new(r, g, b)).collect();
            encoder.encode_rgb(Img::new(&pixels, width, height))
        }
        (Color::Rgba, Samples::Eight(samples)) => {
            let pixels = samples.as_chunks::<4>().0.iter();
            let pixels: Vec<RGBA8> = pixels.map(|&[r, g, b, a]| RGBA8::new(r, g, b, a)).collect();
            encoder.encode_rgba(Img::new(&pixels, width, height))
        }
        (color, _) => return Err(failed(format!("{color:?} is not an AVIF's colour model"))),
    };
    let encoded = encoded.map_err(|error| failed(error.to_string()))?;
    let has_any = |data: &&Metadata| {
        data.icc.is_some() || data.exif.is_some() || data.xmp.is_some() || data.hdr.is_some()
    };
    match metadata.filter(has_any) {
        Some(metadata) => with_metadata(&encoded.avif_file, metadata)?
            .ok_or_else(|| failed("its metadata does not fit".to_owned())),
        None => Ok(encoded.avif_file),
    }
}
