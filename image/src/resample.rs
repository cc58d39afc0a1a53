//! Fewer or more pixels: `fast_image_resize`, with buffers that a worker keeps.

use std::cell::RefCell;

use arenite_resample::{
    FilterType, Image, ImageRef, PixelType, ResizeAlg, ResizeOptions, Resizer, lanczos3,
    resize as resample,
};

use super::error::ImageError;
use super::meta::Chroma;
use super::pixels::{Color, Pixels, Samples, buffer};
use super::size::Region;
use super::spec::{Filter, ResizeSpec};

/// Buffers that outlive a picture, so that the next one finds its pages already there.
#[derive(Default)]
struct Scratch {
    resizer: Resizer,
    /// Those of a picture: luma and chroma may have one each. What was decoded is resized into another's.
    decoded: [Vec<u8>; 2],
}

/// Above this many bytes each buffer is given back: one huge picture must not stay on the books of a
/// worker that sees small ones ever after. 12 megapixels scaled while decoding stay well below.
const KEEP_BYTES: usize = 16 << 20;

/// How many pixels of a row or column may become one, with 8 bits: weights have 21 binary places, so those of more would be off by
/// a grey level in sum, and those of a million would all be nothing.
const MOST_TO_ONE: f64 = 8192.0;

/// Bytes that the weights of a row or column take for each pixel of it, at most: those of three lobes as 64 bits and once more as 32,
/// and the bounds of each pixel that is made.
const WEIGHTS: u64 = 96;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A buffer of `len` bytes of unspecified content from this thread's stock; give it back to
/// [`keep_buffer`] when done.
pub(super) fn take_buffer(len: usize) -> Result<Vec<u8>, ImageError> {
    let kept = SCRATCH.with_borrow_mut(|scratch| {
        let enough = scratch.decoded.iter_mut().filter(|b| b.capacity() >= len);
        enough.min_by_key(|b| b.capacity()).map(std::mem::take)
    });
    match kept {
        Some(mut bytes) => {
            // Within the capacity; only what was never used is written.
            bytes.resize(len, 0);
            Ok(bytes)
        }
        None => buffer(len),
    }
}

/// Puts a buffer back for the next picture on this thread.
pub(super) fn keep_buffer(bytes: Vec<u8>) {
    if bytes.capacity() <= KEEP_BYTES {
        SCRATCH.with_borrow_mut(|scratch| {
            let [first, second] = &mut scratch.decoded;
            let smaller = match first.capacity() <= second.capacity() {
                true => first,
                false => second,
            };
            if smaller.capacity() < bytes.capacity() {
                *smaller = bytes;
            }
        });
    }
}

/// Resizes raw 8-bit pixels: `width * height` of them with `channels` interleaved samples each (1
/// grey, 2 grey and alpha, 3 RGB, 4 RGBA), to `out_width * out_height`. With alpha, colours are
/// weighted by it.
///
/// ```
/// use arenite_image::{resize_pixels, Filter};
/// let white = vec![255; 64 * 48 * 3];
/// let small = resize_pixels(&white, (64, 48), 3, (8, 6), Filter::Lanczos3)?;
/// assert_eq!(small, vec![255; 8 * 6 * 3]);
/// # Ok::<(), arenite_image::ImageError>(())
/// ```
///
/// # Errors
/// `BadRequest` if a side is 0, `channels` is not 1 to 4, or the buffer has another length, or more than 8192 pixels of a side would
/// become one (unless it is the nearest); `TooManyBytes` where sides that are very long make it need more than a gigabyte, and more
/// than both pictures have; `OutOfMemory`.
pub fn resize_pixels(
    pixels: &[u8],
    size: (u32, u32),
    channels: u8,
    out_size: (u32, u32),
    filter: Filter,
) -> Result<Vec<u8>, ImageError> {
    let len = byte_len(out_size, channels)?;
    let mut out = buffer(len)?;
    resize_pixels_into(pixels, size, channels, &mut out, out_size, filter)?;
    Ok(out)
}

/// Like [`resize_pixels`], into memory of the caller's: a kernel writes straight into its result.
///
/// # Errors
/// As for [`resize_pixels`]; `out` must have exactly the length of the result.
pub fn resize_pixels_into(
    pixels: &[u8],
    size: (u32, u32),
    channels: u8,
    out: &mut [u8],
    out_size: (u32, u32),
    filter: Filter,
) -> Result<(), ImageError> {
    for (what, actual, (width, height)) in [
        ("source", pixels.len(), size),
        ("output", out.len(), out_size),
    ] {
        let expected = byte_len((width, height), channels)?;
        if actual != expected {
            return Err(ImageError::BadRequest {
                reason: format!(
                    "the {what} has {actual} bytes, but {width}x{height} pixels of {channels} \
                     channels are {expected}"
                ),
            });
        }
    }
    let kind = [
        PixelType::U8,
        PixelType::U8x2,
        PixelType::U8x3,
        PixelType::U8x4,
    ][usize::from(channels) - 1];
    let opaque = match channels {
        2 => is_opaque::<2, u8>(pixels, u8::MAX),
        4 => is_opaque::<4, u8>(pixels, u8::MAX),
        _ => true,
    };
    let whole = Region {
        left: 0.0,
        top: 0.0,
        width: f64::from(size.0),
        height: f64::from(size.1),
    };
    let limit = ResizeSpec::MAX_BYTES;
    run(
        pixels, size, out, out_size, kind, whole, filter, !opaque, limit,
    )
}

fn byte_len((width, height): (u32, u32), channels: u8) -> Result<usize, ImageError> {
    let len = u64::from(width)
        .checked_mul(u64::from(height))
        .and_then(|pixels| pixels.checked_mul(u64::from(channels)))
        .and_then(|bytes| usize::try_from(bytes).ok());
    match len {
        Some(len) if len > 0 && channels <= 4 => Ok(len),
        _ => Err(ImageError::BadRequest {
            reason: format!(
                "{width}x{height} pixels of {channels} channels cannot be resized: sides must be \
                 at least 1, channels 1 to 4"
            ),
        }),
    }
}

/// Refuses what would come out wrong, or need far more memory than its pixels: weights are made for each pixel of a row and a
/// column, and between the two directions there is a picture that is as wide as one and as high as the other.
fn check(
    from: usize,
    into: usize,
    kind: PixelType,
    region: Region,
    (width, height): (u32, u32),
    filter: Filter,
    limit: u64,
) -> Result<(), ImageError> {
    if filter == Filter::Nearest {
        return Ok(());
    }
    let sides = [(region.width, width), (region.height, height)];
    let is_short = matches!(
        kind,
        PixelType::U8 | PixelType::U8x2 | PixelType::U8x3 | PixelType::U8x4
    );
    for (from, to) in sides.into_iter().filter(|_| is_short) {
        if from > MOST_TO_ONE * f64::from(to) {
            return Err(ImageError::BadRequest {
                reason: format!(
                    "a side of {from:.0} pixels would become {to}, and at most {MOST_TO_ONE} can become one; ask for a larger \
                     size, or for the nearest pixel"
                ),
            });
        }
    }
    let weights = sides.map(|(from, to)| (from.ceil() as u64 + u64::from(to)) * WEIGHTS);
    let wide = region.width.ceil() as u64 * u64::from(height);
    let high = region.height.ceil() as u64 * u64::from(width);
    let between = wide.max(high).saturating_mul(kind.size() as u64);
    let bytes = between.saturating_add(weights[0] + weights[1]);
    let limit = limit.max((from + into) as u64);
    if bytes > limit.max(ResizeSpec::HARMLESS) {
        return Err(ImageError::TooManyBytes { bytes, limit });
    }
    Ok(())
}

/// `region` of `source`, which lies in it, as `width * height` pixels, with at most so many bytes beside.
pub(super) fn resize(
    source: &Pixels,
    region: Region,
    (width, height): (u32, u32),
    filter: Filter,
    max_bytes: u64,
) -> Result<Pixels, ImageError> {
    let color = source.color;
    let len = width as usize * height as usize * color.channels();
    let sides = (source.width, source.height);
    let samples = match &source.samples {
        Samples::Eight(samples) => {
            let mut out = buffer(len)?;
            let (kind, alpha) = match color {
                Color::Gray => (PixelType::U8, false),
                Color::GrayAlpha => (PixelType::U8x2, !is_opaque::<2, u8>(samples, u8::MAX)),
                Color::Rgb | Color::YCbCr => (PixelType::U8x3, false),
                Color::Rgba => (PixelType::U8x4, !is_opaque::<4, u8>(samples, u8::MAX)),
                Color::Cmyk => (PixelType::U8x4, false),
            };
            let to = (width, height);
            run(
                samples, sides, &mut out, to, kind, region, filter, alpha, max_bytes,
            )?;
            Samples::Eight(out)
        }
        Samples::Sixteen(samples) => {
            let mut out: Vec<u16> = buffer(len)?;
            let (kind, alpha) = match color {
                Color::Gray => (PixelType::U16, false),
                Color::GrayAlpha => (PixelType::U16x2, !is_opaque::<2, u16>(samples, u16::MAX)),
                Color::Rgb | Color::YCbCr => (PixelType::U16x3, false),
                Color::Rgba => (PixelType::U16x4, !is_opaque::<4, u16>(samples, u16::MAX)),
                Color::Cmyk => (PixelType::U16x4, false),
            };
            let from = bytemuck::cast_slice(samples);
            let into: &mut [u8] = bytemuck::cast_slice_mut(&mut out);
            let to = (width, height);
            run(
                from, sides, into, to, kind, region, filter, alpha, max_bytes,
            )?;
            Samples::Sixteen(out)
        }
    };
    Ok(Pixels {
        width,
        height,
        color,
        samples,
    })
}

/// The luma of a picture that is resized already, with its colour brought to the same size.
pub(super) fn with_chroma(
    luma: Pixels,
    chroma: &Chroma,
    filter: Filter,
    max_bytes: u64,
) -> Result<Pixels, ImageError> {
    let Samples::Eight(levels) = &luma.samples else {
        return Ok(luma);
    };
    let (from, kind, region) = (chroma.pairs.as_slice(), PixelType::U8x2, chroma.region);
    let (sides, to) = ((chroma.width, chroma.height), (luma.width, luma.height));
    let mut pairs = take_buffer(2 * levels.len())?;
    let into = pairs.as_mut_slice();
    run(
        from, sides, into, to, kind, region, filter, false, max_bytes,
    )?;
    let mut samples = buffer(3 * levels.len())?;
    let pixels = samples.as_chunks_mut::<3>().0;
    for ((pixel, &level), &[blue, red]) in pixels.iter_mut().zip(levels).zip(pairs.as_chunks().0) {
        *pixel = [level, blue, red];
    }
    keep_buffer(pairs);
    Ok(Pixels {
        color: Color::YCbCr,
        samples: Samples::Eight(samples),
        ..luma
    })
}

/// Whether alpha is full everywhere: weighting by it would copy the whole source for nothing.
fn is_opaque<const CHANNELS: usize, T: PartialEq>(samples: &[T], full: T) -> bool {
    let (pixels, _) = samples.as_chunks::<CHANNELS>();
    // Blocks without an early exit inside let the compiler use vectors.
    pixels.chunks(1024).all(|block| {
        block
            .iter()
            .fold(true, |all, pixel| all & (pixel[CHANNELS - 1] == full))
    })
}

#[allow(
    clippy::too_many_arguments,
    reason = "one private function behind three typed ones"
)]
fn run(
    from: &[u8],
    (width, height): (u32, u32),
    into: &mut [u8],
    (out_width, out_height): (u32, u32),
    kind: PixelType,
    region: Region,
    filter: Filter,
    alpha: bool,
    max_bytes: u64,
) -> Result<(), ImageError> {
    let to = (out_width, out_height);
    check(from.len(), into.len(), kind, region, to, filter, max_bytes)?;
    let refused = |error: &dyn std::fmt::Display| ImageError::BadRequest {
        reason: format!("the pixels could not be resized: {error}"),
    };
    let source = ImageRef::new(width, height, from, kind).map_err(|e| refused(&e))?;
    let mut out =
        Image::from_slice_u8(out_width, out_height, into, kind).map_err(|e| refused(&e))?;
    let algorithm = match filter {
        Filter::Lanczos3 => ResizeAlg::Convolution(lanczos3()),
        Filter::CatmullRom => ResizeAlg::Convolution(FilterType::CatmullRom),
        Filter::Mitchell => ResizeAlg::Convolution(FilterType::Mitchell),
        Filter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Filter::Box => ResizeAlg::Convolution(FilterType::Box),
        Filter::Nearest => ResizeAlg::Nearest,
    };
    let options = ResizeOptions::new()
        .resize_alg(algorithm)
        .crop(region.left, region.top, region.width, region.height)
        .use_alpha(alpha);
    SCRATCH.with_borrow_mut(|scratch| {
        let resizer = &mut scratch.resizer;
        let done = resample(resizer, &source, &mut out, &options);
        if resizer.size_of_internal_buffers() > KEEP_BYTES {
            resizer.reset_internal_buffers();
        }
        done.map_err(|e| refused(&e))
    })
}
