//! A non-generic function around [`fast_image_resize`], for `arenite-image` and the baselines of the benchmarks.
//!
//! `Resizer::resize` is generic over the storage of pixels, so its convolutions, hundreds of vectorized variants of a
//! few functions, are compiled in each crate that calls it, again for that crate's unit tests, and again at each change
//! of a line in it. They would be two fifths of the code of the library. Here they are compiled once, without overflow
//! checks, as their authors release them (with checks, resizing is a tenth slower). The code that parses untrusted
//! files keeps its checks: it is in another crate.
//!
//! Pixels are loaded into the cache in order (`streamed.rs`), which halves the time for large pictures.
#![deny(unsafe_code)]

mod streamed;

pub use fast_image_resize::images::{Image, ImageRef};
pub use fast_image_resize::{
    FilterType, ImageBufferError, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer,
};

use std::f64::consts::PI;

use fast_image_resize::{Filter, PixelTrait, pixels};

use streamed::Streamed;

/// Resizes `source` to the size of `target`. Both have the same pixel type: one to four samples of 8 or 16 bits. The
/// other types of `fast_image_resize` are rejected, and not compiled.
///
/// ```
/// use arenite_resample::{Image, ImageRef, PixelType, ResizeOptions, Resizer, resize};
///
/// let white = [255; 64 * 48 * 3];
/// let source = ImageRef::new(64, 48, &white, PixelType::U8x3)?;
/// let mut small = Image::new(8, 6, PixelType::U8x3);
/// resize(&mut Resizer::new(), &source, &mut small, &ResizeOptions::new())?;
/// assert_eq!(small.buffer(), [255; 8 * 6 * 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the pixel types differ or are not supported, or the crop is not inside the source.
// If this were inlined, its callers would compile the convolutions.
#[inline(never)]
pub fn resize(
    resizer: &mut Resizer,
    source: &ImageRef<'_>,
    target: &mut Image<'_>,
    options: &ResizeOptions,
) -> Result<(), ResizeError> {
    let resize = match target.pixel_type() {
        PixelType::U8 => typed::<pixels::U8>,
        PixelType::U8x2 => typed::<pixels::U8x2>,
        PixelType::U8x3 => typed::<pixels::U8x3>,
        PixelType::U8x4 => typed::<pixels::U8x4>,
        PixelType::U16 => typed::<pixels::U16>,
        PixelType::U16x2 => typed::<pixels::U16x2>,
        PixelType::U16x3 => typed::<pixels::U16x3>,
        PixelType::U16x4 => typed::<pixels::U16x4>,
        _ => return Err(ResizeError::PixelTypesAreDifferent),
    };
    resize(resizer, source, target, options)
}

fn typed<P: PixelTrait>(
    resizer: &mut Resizer,
    source: &ImageRef<'_>,
    target: &mut Image<'_>,
    options: &ResizeOptions,
) -> Result<(), ResizeError> {
    match (source.typed_image::<P>(), target.typed_image_mut::<P>()) {
        (Some(view), Some(mut target)) => {
            let source = Streamed::new(view, source.buffer());
            resizer.resize_typed(&source, &mut target, options)
        }
        _ => Err(ResizeError::PixelTypesAreDifferent),
    }
}

/// Lanczos with three lobes: `FilterType::Lanczos3` up to the last bits of a weight, in half the time. Weights are
/// computed per picture; for small pictures, the sines of `FilterType::Lanczos3` take a fifth of the time of resizing.
pub fn lanczos3() -> FilterType {
    Filter::new("Lanczos3", lanczos3_weight, LOBES).map_or(FilterType::Lanczos3, FilterType::Custom)
}

const LOBES: f64 = 3.0;

/// Computes sinc(x) · sinc(x/3) from one sine: with s = sin(πx/3), sin(πx) is 3s − 4s³.
fn lanczos3_weight(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    if x.abs() >= LOBES {
        return 0.0;
    }
    let angle = PI * x / LOBES;
    let square = angle.sin().powi(2);
    square * (3.0 - 4.0 * square) / (LOBES * angle * angle)
}
