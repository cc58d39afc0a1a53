//! Resizing by `fast_image_resize`, with buffers that each thread reuses.

use std::cell::RefCell;

use arenite_resample::{
    FilterType, Image, ImageRef, PixelType, ResizeAlg, ResizeOptions, Resizer, lanczos3,
    resize as resample,
};

use super::error::ImageError;
use super::meta::{Chroma, Levels, Request, StoredPlan};
use super::pixels::{Color, Pixels, Samples, buffer};
use super::position::Position;
use super::size::Region;
use super::spec::{Filter, ResizeSpec};

/// Buffers that are kept from picture to picture, so that their pages stay mapped.
#[derive(Default)]
struct Scratch {
    resizer: Resizer,
    /// Buffers of decoded samples: one for luma and one for chroma.
    decoded: [Vec<u8>; 2],
}

/// Larger buffers are freed, so that a worker does not keep the memory of a huge picture. A picture of 12 megapixels,
/// scaled during decoding, stays well below.
const KEEP_BYTES: usize = 16 << 20;

/// The maximum number of pixels of a row or column that may become one, with 8 bits per sample. Weights have 21 binary
/// places: with more pixels, the sum of the weights would be off by a grey level, and with a million each weight would
/// be 0.
const MAX_TO_ONE: f64 = 8192.0;

/// The maximum number of bytes of weights per pixel of a row or column: the weights of three lobes in 64 and again in
/// 32 bits, plus the bounds of each output pixel.
const WEIGHTS: u64 = 96;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Returns a buffer of `len` bytes with unspecified content, if possible a buffer that this thread has kept. Give it
/// back with [`keep_buffer`].
pub(super) fn take_buffer(len: usize) -> Result<Vec<u8>, ImageError> {
    let kept = SCRATCH.with_borrow_mut(|scratch| {
        let enough = scratch.decoded.iter_mut().filter(|b| b.capacity() >= len);
        enough.min_by_key(|b| b.capacity()).map(std::mem::take)
    });
    match kept {
        Some(mut bytes) => {
            // The capacity suffices, and only the bytes beyond the last length are written.
            bytes.resize(len, 0);
            Ok(bytes)
        }
        None => buffer(len),
    }
}

/// Keeps a buffer for the next picture on this thread.
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
/// grey, 2 grey and alpha, 3 RGB, 4 RGBA), to `out_width * out_height`. Colours are weighted by alpha.
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
/// `BadRequest` if a side is 0, `channels` is not 1 to 4, the buffer has another length, or more than 8192 pixels of a
/// side would become one (except with `Nearest`); `TooManyBytes` if very long sides would need more than a gigabyte of
/// extra memory, and more than both pictures have; `OutOfMemory`.
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

/// Resizes like [`resize_pixels`], but writes to a buffer of the caller, such as a kernel's result.
///
/// # Errors
/// The errors of [`resize_pixels`]; also `BadRequest` if `out` does not have the length of the result.
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

/// Rejects resizing that would be inaccurate, or need far more memory than the pixels: there are weights for each pixel
/// of a row and of a column, and an intermediate picture with the width of one side and the height of the other.
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
        if from > MAX_TO_ONE * f64::from(to) {
            return Err(ImageError::BadRequest {
                reason: format!(
                    "a side of {from:.0} pixels would become {to}, but at most {MAX_TO_ONE} can become one; \
                     use a larger size, or the filter nearest"
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

/// Resizes `region`, which must be inside `source`, to `width * height` pixels. Uses at most `max_bytes` of extra
/// memory.
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

/// A picture that is resized while its rows are decoded: the filter needs only some rows at a time.
pub(super) struct Bands {
    plan: StoredPlan,
    filter: Filter,
    max_bytes: u64,
    /// The number of rows of the picture.
    height: u32,
    /// The number of rows of the picture that the filter reads on either side of a point.
    reach: f64,
    /// The number of rows to add at a time.
    step: usize,
    /// The rows that are still needed, from row `first` on.
    rows: Option<Pixels>,
    first: u32,
    /// The rows of the result that are finished.
    done: Option<Pixels>,
}

impl Bands {
    /// The minimum number of bytes of rows that are added at a time.
    const BYTES: u64 = 4 << 20;
    /// The minimum size of a picture in bytes at which bands pay.
    const WORTHWHILE: u64 = 32 << 20;

    /// Prepares the bands of a request. `None` if the picture is small, if all its pixels are needed at once, or if the
    /// filter reads most rows for each row of the result. `row` is the number of bytes of a row.
    pub(super) fn for_request(
        request: Request<'_>,
        plans: &[StoredPlan],
        (width, height): (u32, u32),
        row: u64,
    ) -> Option<Self> {
        let spec = request.spec;
        let &[plan] = plans else { return None };
        let needs_all = spec.linear || spec.position == Position::Attention;
        let shrinks = 2 * u64::from(plan.width) * u64::from(plan.height)
            <= u64::from(width) * u64::from(height);
        if needs_all || !shrinks || row * u64::from(height) < Self::WORTHWHILE {
            return None;
        }
        let scale = plan.region.height / f64::from(plan.height);
        // The longest filters have three lobes.
        let reach = 3.0 * scale.max(1.0) + 2.0;
        let step = (Self::BYTES / row.max(1)).max(reach as u64 + 1);
        (3.0 * reach < f64::from(height) && step < u64::from(height) / 2).then_some(Bands {
            plan,
            filter: spec.filter,
            max_bytes: spec.max_bytes,
            height,
            reach,
            step: step as usize,
            rows: None,
            first: 0,
            done: None,
        })
    }

    /// Returns the number of rows to add at a time.
    pub(super) fn rows(&self) -> usize {
        self.step
    }

    /// Adds the next rows, all of one colour model and depth, and resizes the part that is complete.
    pub(super) fn add(&mut self, next: Pixels) -> Result<(), ImageError> {
        let rows = match self.rows.take() {
            None => next,
            Some(rows) => rows.followed_by(next)?,
        };
        let (plan, region) = (self.plan, self.plan.region);
        let end = self.first + rows.height;
        let scale = region.height / f64::from(plan.height);
        let at = |row: u32| region.top + f64::from(row) * scale;
        let done = self.done.as_ref().map_or(0, |done| done.height);
        let is_complete =
            |row: &u32| end == self.height || at(row + 1) + self.reach <= f64::from(end);
        let until = (done..plan.height).take_while(is_complete).count() as u32 + done;
        if until > done {
            let top = (at(done) - f64::from(self.first)).max(0.0);
            let height = at(until) - at(done);
            let part = Region {
                top,
                // At the last row, rounding must not exceed the picture.
                height: height.min(f64::from(rows.height) - top),
                ..region
            };
            let size = (plan.width, until - done);
            let part = resize(&rows, part, size, self.filter, self.max_bytes)?;
            self.done = Some(match self.done.take() {
                None => part,
                Some(done) => done.followed_by(part)?,
            });
        }
        let first = match until == plan.height {
            // No more rows of the result follow: the rest of the picture is not needed.
            true => end,
            false => ((at(until) - self.reach).max(0.0) as u32).clamp(self.first, end),
        };
        self.rows = Some(rows.without_rows(first - self.first));
        self.first = first;
        Ok(())
    }

    /// Returns the result, with plans that do not change it.
    ///
    /// # Errors
    /// `BadRequest` if rows are missing.
    pub(super) fn finish(self) -> Result<(Pixels, Vec<StoredPlan>), ImageError> {
        let done = self.done.filter(|done| done.height == self.plan.height);
        let pixels = done.ok_or_else(|| ImageError::BadRequest {
            reason: "rows of the picture are missing".to_owned(),
        })?;
        let whole = Region {
            left: 0.0,
            top: 0.0,
            width: f64::from(pixels.width),
            height: f64::from(pixels.height),
        };
        let plan = StoredPlan {
            region: whole,
            ..self.plan
        };
        Ok((pixels, vec![plan]))
    }
}

/// Adds chroma to resized luma: resizes `region` of chroma to the sides of luma.
pub(super) fn with_chroma(
    luma: Pixels,
    chroma: &Chroma,
    region: Region,
    filter: Filter,
    max_bytes: u64,
) -> Result<Pixels, ImageError> {
    let Samples::Eight(levels) = &luma.samples else {
        return Ok(luma);
    };
    let (kind, to) = (PixelType::U8x2, (luma.width, luma.height));
    let (from, sides) = (&chroma.pairs[..], (chroma.width, chroma.height));
    let mut pairs = take_buffer(2 * levels.len())?;
    let into = pairs.as_mut_slice();
    run(
        from, sides, into, to, kind, region, filter, false, max_bytes,
    )?;
    let mut samples = buffer(3 * levels.len())?;
    let pixels = samples.as_chunks_mut::<3>().0;
    let both = pixels.iter_mut().zip(levels).zip(pairs.as_chunks().0);
    match chroma.levels {
        Levels::Full => both.for_each(|((pixel, &level), &[blue, red])| {
            *pixel = [level, blue, red];
        }),
        Levels::Video => both.for_each(|((pixel, &level), &[blue, red])| {
            *pixel = [
                stretched(level, (16, 219), 0),
                stretched(blue, (128, 224), 128),
                stretched(red, (128, 224), 128),
            ];
        }),
    }
    keep_buffer(pairs);
    Ok(Pixels {
        color: Color::YCbCr,
        samples: Samples::Eight(samples),
        ..luma
    })
}

/// Converts a value of video, which uses `range` steps from `start` on, to a value that uses 255 steps around `center`.
fn stretched(level: u8, (start, range): (i32, i32), center: i32) -> u8 {
    let steps = ((i32::from(level) - start) * 255 * 2 + range).div_euclid(2 * range);
    (steps + center).clamp(0, 255) as u8
}

/// Returns whether all pixels are opaque. If so, weighting by alpha would copy the source for nothing.
fn is_opaque<const CHANNELS: usize, T: PartialEq>(samples: &[T], full: T) -> bool {
    let (pixels, _) = samples.as_chunks::<CHANNELS>();
    // No early exit inside a block, so that the compiler vectorizes it.
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
