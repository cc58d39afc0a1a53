//! Decoding of GIF, by the `gif` crate: the first frame, on a screen that is large enough for it.

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::damage::{Found, Loss};
use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Metadata, Request};
use super::pixels::{Color, Pixels, Samples, buffer};
use super::spec::ResizeSpec;
use image::metadata::Orientation;

/// Bytes of a pixel.
const PIXEL: usize = 4;

/// Decodes the first frame. A screen that is smaller than the frame, or has no size, grows to it, as in browsers.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let format = Format::Gif;
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    // The size is checked here, before anything is allocated.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(input).map_err(translate)?;
    let area = |width: u32, height: u32| u64::from(width) * u64::from(height);
    let screen @ (width, height) = (decoder.width().into(), decoder.height().into());
    if area(width, height) > 0 {
        spec.check_source(screen, format)?;
        spec.admit(area(width, height) * PIXEL as u64, input.len() as u64)?;
    }
    let frame = decoder.next_frame_info().map_err(translate)?;
    let frame = frame.ok_or_else(|| ImageError::corrupt(format, "it has no picture"))?;
    let [left, top, across, down] =
        [frame.left, frame.top, frame.width, frame.height].map(u32::from);
    let width = u32::from(decoder.width()).max(left + across);
    let height = u32::from(decoder.height()).max(top + down);
    spec.check_source((width, height), format)?;
    spec.check_source((across, down), format)?;
    let is_whole = (across, down) == (width, height);
    let bytes = area(width, height) * PIXEL as u64;
    spec.admit(bytes, input.len() as u64)?;
    let metadata = Metadata {
        exif: None,
        xmp: decoder.xmp_metadata().map(<[u8]>::to_vec),
        icc: decoder.icc_profile().map(<[u8]>::to_vec),
    };
    let orientation = Orientation::NoTransforms;
    let plans = request.plans((width, height), orientation, format)?;

    let mut shown = buffer::<u8>(area(across, down) as usize * PIXEL)?;
    let mut damage = None;
    if let Err(error) = decoder.read_into_buffer(&mut shown) {
        // Pixels that were not reached are transparent, and so is what a frame leaves free.
        let missing = shown.as_chunks::<PIXEL>().0.iter().rev();
        let missing = missing.take_while(|pixel| **pixel == [0; PIXEL]).count();
        let loss = Loss::Pixels(missing.max(1) as u64);
        let error = translate(error);
        damage = Some(Found { loss, error });
    }
    let samples = if is_whole {
        shown
    } else {
        let mut screen = buffer::<u8>(bytes as usize)?;
        let (row, wide) = (across as usize * PIXEL, width as usize * PIXEL);
        let rows = screen.chunks_exact_mut(wide).skip(top as usize);
        for (to, from) in rows.zip(shown.chunks_exact(row)) {
            to[left as usize * PIXEL..][..row].copy_from_slice(from);
        }
        screen
    };
    let pixels = Pixels {
        width,
        height,
        color: Color::Rgba,
        samples: Samples::Eight(samples),
    };
    Ok(Decoded {
        // The decoder always yields alpha.
        pixels: pixels.without_full_alpha(),
        chroma: None,
        plans,
        orientation,
        metadata,
        damage,
        full: (width, height),
    })
}

/// Decodes the frames after the first, and returns the first damage in them.
///
/// # Errors
/// A frame beyond the limits of `spec`.
pub(super) fn damage_after_first(
    input: &[u8],
    spec: &ResizeSpec,
) -> Result<Option<Found>, ImageError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(input).map_err(translate)?;
    let mut pixels: Vec<u8> = Vec::new();
    for number in 0_u32.. {
        let (width, height) = match decoder.next_frame_info() {
            Ok(Some(frame)) => (u32::from(frame.width), u32::from(frame.height)),
            Ok(None) => break,
            // Between two frames, or after the last one.
            Err(error) => {
                let error = match translate(error) {
                    ImageError::Truncated { format } => {
                        ImageError::corrupt(format, "its end marker is missing")
                    }
                    error => error,
                };
                return Ok(Some(Found::around(error)));
            }
        };
        if number == 0 {
            // Decoded already; the decoder skips what is not read.
            continue;
        }
        spec.check_source((width, height), Format::Gif)?;
        let bytes = u64::from(width) * u64::from(height);
        spec.admit(bytes, input.len() as u64)?;
        if pixels.len() < bytes as usize {
            pixels = buffer(bytes as usize)?;
        }
        let frame = pixels.get_mut(..bytes as usize).unwrap_or_default();
        if let Err(error) = decoder.read_into_buffer(frame) {
            let (loss, error) = (Loss::Later, translate(error));
            return Ok(Some(Found { loss, error }));
        }
    }
    Ok(None)
}

/// Rewords an error of the decoder.
fn translate(error: DecodingError) -> ImageError {
    let format = Format::Gif;
    match error {
        DecodingError::UnexpectedEof => ImageError::Truncated { format },
        DecodingError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format }
        }
        DecodingError::OutOfMemory | DecodingError::MemoryLimit => {
            ImageError::OutOfMemory { bytes: 0 }
        }
        DecodingError::LzwError(_) => {
            ImageError::corrupt(format, "its pixels hold an invalid code")
        }
        DecodingError::EndCodeNotFound => {
            ImageError::corrupt(format, "it has fewer pixels than its header says")
        }
        DecodingError::Format(error) => {
            let text = error.to_string();
            let reason = match text.as_str() {
                _ if text.contains("truncated") || text.contains("unexpected data") => {
                    "it has fewer pixels than its header says"
                }
                _ if text.contains("code size") => "its pixels have codes of an impossible size",
                _ if text.contains("color table") => "it has no palette",
                _ if text.contains("block type") => "an unknown kind of block",
                text => text,
            };
            ImageError::corrupt(format, reason)
        }
        other => ImageError::corrupt(format, other),
    }
}
