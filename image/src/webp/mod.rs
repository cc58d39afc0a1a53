//! WebP, by libwebp.

#[allow(unsafe_code, reason = "libwebp has the interface of C only")]
mod decoder;
#[allow(unsafe_code, reason = "libwebp has the interface of C only")]
mod encoder;
mod riff;

use libwebp_sys::WebPEncodingError;

use self::decoder::{Failure, Header, Target};
pub(super) use self::riff::{animation, announced, damage_after_first, frame_sides};
use super::animation::{Frame, Unchanged, changes};
use super::damage::Found;
use super::encode::Encoding;
use super::error::ImageError;
use super::format::Format;
use super::meta::{Chroma, Decoded, Levels, Metadata, Request, StoredPlan, without_prefix};
use super::pixels::{Color, Pixels, Samples, buffer};
use super::resample::take_buffer;
use super::spec::ResizeSpec;

/// Effort of the lossless encoder, 0 to 100: the default of libwebp.
const EFFORT: f32 = 75.0;

/// Decodes the picture, or the first frame of an animation.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let format = Format::WebP;
    let header =
        decoder::header(input).ok_or_else(|| broken(input, "its header cannot be read"))?;
    let full = (header.width, header.height);
    // Checked before memory for the pixels is allocated.
    spec.check_source(full, format)?;
    let metadata = Metadata {
        exif: riff::bytes_of(input, riff::EXIF).map(without_prefix),
        xmp: riff::bytes_of(input, riff::XMP),
        icc: riff::bytes_of(input, riff::ICC),
        hdr: None,
    };
    let orientation = metadata.orientation();
    let plans = request.plans(full, orientation, format)?;
    let mut damage = None;
    let (pixels, chroma) = if riff::is_animation(input) {
        let frame = riff::frames(input, spec, true)?.frames.next();
        let frame = frame.ok_or_else(|| broken(input, "an animation without a frame"))?;
        let pixels = frame.map_err(|found| found.error)?.pixels;
        match header.has_alpha {
            true => (pixels.with_alpha(), None),
            false => (pixels, None),
        }
    } else {
        let bytes = size(&header);
        spec.admit(bytes, input.len() as u64)?;
        // Smoothing costs an eighth of the time and is hardly visible: the scaled decoding of libwebp leaves it out
        // too.
        let smooths = request.needs_exact_pixels() || !plans.iter().all(|plan| plan.has_spare(1.0));
        let area = u64::from(full.0) * u64::from(full.1);
        let is_flat = header.is_lossy && !header.has_alpha;
        let decoded = match is_flat && request.converts_late(&plans, area) {
            true => planes(input, &header, &plans, smooths)?,
            false => still(input, &header, smooths)?.map(|pixels| (pixels, None)),
        };
        match decoded {
            Some(decoded) => decoded,
            None => {
                let (pixels, found) = beginning(input, &header, smooths, spec)?;
                damage = Some(found);
                (pixels, None)
            }
        }
    };
    Ok(Decoded {
        pixels,
        chroma,
        plans,
        orientation,
        metadata,
        damage,
        full,
    })
}

/// Decodes the data of a TIFF's block, which has these sides, to RGB, or RGBA if `has_alpha`. `None` if it is damaged.
pub(super) fn block(data: &[u8], sides: (usize, usize), has_alpha: bool) -> Option<Vec<u8>> {
    let header = Header {
        has_alpha,
        ..decoder::header(data)?
    };
    if (header.width as usize, header.height as usize) != sides {
        return None;
    }
    let mut samples = buffer(usize::try_from(size(&header)).ok()?).ok()?;
    decoder::whole(data, &header, Target::Rgb(&mut samples), true).ok()?;
    Some(samples)
}

/// Returns the size of the decoded pixels, in bytes.
fn size(header: &Header) -> u64 {
    let channels = if header.has_alpha { 4 } else { 3 };
    u64::from(header.width) * u64::from(header.height) * channels
}

/// Returns the error for a file that libwebp rejects.
fn broken(file: &[u8], reason: &str) -> ImageError {
    match riff::is_truncated(file) {
        true => ImageError::Truncated {
            format: Format::WebP,
        },
        false => ImageError::corrupt(Format::WebP, reason),
    }
}

fn pixels(header: &Header, samples: Vec<u8>) -> Pixels {
    Pixels {
        width: header.width,
        height: header.height,
        color: match header.has_alpha {
            true => Color::Rgba,
            false => Color::Rgb,
        },
        samples: Samples::Eight(samples),
    }
}

/// Decodes a picture. `None` if it is damaged.
fn still(file: &[u8], header: &Header, smooths: bool) -> Result<Option<Pixels>, ImageError> {
    let bytes = size(header);
    let len = usize::try_from(bytes).map_err(|_| ImageError::OutOfMemory { bytes })?;
    let mut samples = take_buffer(len)?;
    let done = decoder::whole(file, header, Target::Rgb(&mut samples), smooths);
    Ok(is_whole(header, done)?.then(|| pixels(header, samples)))
}

/// Decodes the rows that exist. Missing rows show the background.
fn beginning(
    file: &[u8],
    header: &Header,
    smooths: bool,
    spec: &ResizeSpec,
) -> Result<(Pixels, Found), ImageError> {
    let mut samples = buffer(size(header) as usize)?;
    let (rows, done) = decoder::beginning(file, header, &mut samples, smooths);
    let mut pixels = pixels(header, samples);
    if is_whole(header, done)? {
        let chunks = || Found::around(ImageError::corrupt(Format::WebP, "its chunks are damaged"));
        return Ok((pixels, damage_after_first(file).unwrap_or_else(chunks)));
    }
    let error = broken(file, "its pixels cannot be decoded");
    let found = Found::missing_rows(&mut pixels, rows, spec.background, error);
    Ok((pixels, found))
}

/// Returns whether decoding was complete, and not ended by damage; an error if memory was short.
fn is_whole(header: &Header, done: Result<(), Failure>) -> Result<bool, ImageError> {
    match done {
        Ok(()) => Ok(true),
        Err(Failure::Damage) => Ok(false),
        Err(Failure::OutOfMemory) => {
            let bytes = size(header);
            Err(ImageError::OutOfMemory { bytes })
        }
    }
}

/// Decodes luma, and chroma with half of its sides: they are resized separately, without conversion. `None` if damaged.
fn planes(
    file: &[u8],
    header: &Header,
    plans: &[StoredPlan],
    smooths: bool,
) -> Result<Option<(Pixels, Option<Chroma>)>, ImageError> {
    let (width, height) = (header.width, header.height);
    let sides = (width.div_ceil(2), height.div_ceil(2));
    let half = sides.0 as usize * sides.1 as usize;
    let mut luma = take_buffer(width as usize * height as usize)?;
    let mut both: Vec<u8> = buffer(2 * half)?;
    let (blue, red) = both.split_at_mut(half);
    let target = Target::Planes(&mut luma, [&mut *blue, &mut *red]);
    if !is_whole(header, decoder::whole(file, header, target, smooths))? {
        return Ok(None);
    }
    let mut pairs = take_buffer(2 * half)?;
    let planes = blue.iter().zip(red.iter());
    for (pair, (&blue, &red)) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(planes) {
        *pair = [blue, red];
    }
    let scaled = |plan: &StoredPlan| plan.region.scaled((0.5, 0.5), sides);
    let chroma = Chroma {
        width: sides.0,
        height: sides.1,
        pairs,
        levels: Levels::Video,
        regions: plans.iter().map(scaled).collect(),
    };
    let luma = Pixels {
        width,
        height,
        color: Color::Gray,
        samples: Samples::Eight(luma),
    };
    Ok(Some((luma, Some(chroma))))
}

/// Encodes a picture of 8-bit RGB or RGBA, with metadata if given.
pub(super) fn encode(
    pixels: &Pixels,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let file = bare(pixels, how)?;
    let has_any =
        |data: &&Metadata| data.icc.is_some() || data.exif.is_some() || data.xmp.is_some();
    let Some(metadata) = metadata.filter(has_any) else {
        return Ok(file);
    };
    let flags = riff::ALPHA * u8::from(pixels.color.has_alpha());
    let sides = (pixels.width, pixels.height);
    riff::picture_chunks(&file)
        .and_then(|picture| riff::file(picture, flags, sides, metadata))
        .ok_or_else(|| failed("its metadata does not fit"))
}

/// Encodes frames of 8-bit RGB or RGBA.
pub(super) fn encode_animation(
    frames: &[Frame],
    plays: u32,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let changes = changes(frames, Unchanged::Repeated);
    let mut encoded = Vec::with_capacity(changes.len());
    for change in &changes {
        encoded.push(bare(&change.pixels, how)?);
    }
    let chunks = changes.iter().zip(&encoded).map(|(change, file)| {
        let sides = (change.pixels.width, change.pixels.height);
        riff::frame((change.left, change.top), sides, change.millis, file)
    });
    let body: Option<Vec<Vec<u8>>> = chunks.collect();
    let sides = frames
        .first()
        .map_or((1, 1), |first| (first.pixels.width, first.pixels.height));
    let has_alpha = frames.iter().any(|frame| frame.pixels.color.has_alpha());
    let flags = riff::ANIMATION | (riff::ALPHA * u8::from(has_alpha));
    let plays = u16::try_from(plays).unwrap_or(u16::MAX);
    let none = Metadata::default();
    body.and_then(|frames| {
        let body = [riff::animation_chunk(plays), frames.concat()].concat();
        riff::file(&body, flags, sides, metadata.unwrap_or(&none))
    })
    .ok_or_else(|| failed("it is larger than 4 GiB"))
}

/// Encodes a picture without metadata.
fn bare(pixels: &Pixels, how: Encoding) -> Result<Vec<u8>, ImageError> {
    let samples = match (pixels.color, &pixels.samples) {
        (Color::Rgb | Color::Rgba, Samples::Eight(samples)) => samples,
        (color, _) => return Err(failed(format!("{color:?} is not a WebP's colour model"))),
    };
    let quality = match how.lossless {
        true => EFFORT,
        false => f32::from(how.quality.clamp(1, 100)),
    };
    let sides = (pixels.width, pixels.height);
    let has_alpha = pixels.color.has_alpha();
    encoder::encoded(samples, sides, has_alpha, quality, how.lossless)
        .map_err(|error| translate(error, pixels))
}

/// Converts an error of the encoder. It copies the pixels first, with up to four bytes each.
fn translate(error: WebPEncodingError, pixels: &Pixels) -> ImageError {
    match error {
        // The file is written to memory.
        WebPEncodingError::VP8_ENC_ERROR_BAD_WRITE
        | WebPEncodingError::VP8_ENC_ERROR_OUT_OF_MEMORY
        | WebPEncodingError::VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY => {
            let bytes = u64::from(pixels.width) * u64::from(pixels.height) * 4;
            ImageError::OutOfMemory { bytes }
        }
        error => failed(format!("{error:?}")),
    }
}

fn failed(reason: impl Into<String>) -> ImageError {
    ImageError::Encode {
        format: Format::WebP,
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_no_fault_of_the_pixels() {
        let pixels = Pixels {
            width: 1000,
            height: 500,
            color: Color::Rgb,
            samples: Samples::Eight(Vec::new()),
        };
        for error in [
            WebPEncodingError::VP8_ENC_ERROR_OUT_OF_MEMORY,
            WebPEncodingError::VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY,
            WebPEncodingError::VP8_ENC_ERROR_BAD_WRITE,
        ] {
            let bytes = 2_000_000;
            assert_eq!(translate(error, &pixels), ImageError::OutOfMemory { bytes });
        }
        let other = translate(WebPEncodingError::VP8_ENC_ERROR_BAD_DIMENSION, &pixels);
        assert!(matches!(other, ImageError::Encode { .. }), "{other}");
    }
}
