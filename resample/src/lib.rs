//! [`fast_image_resize`] behind a function that is not generic, for `arenite` and the twins that it is measured beside.
//!
//! `Resizer::resize` is generic over what holds the pixels, so its convolutions, hundreds of vectorised variants of a few
//! functions, are compiled in whichever crate calls it: they were two fifths of the code generated for the library, made once
//! more for its unit tests and at every change of a line of it. Here they are compiled once, and linked.
#![forbid(unsafe_code)]

pub use fast_image_resize::images::{Image, ImageRef};
pub use fast_image_resize::{
    FilterType, ImageBufferError, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer,
};

/// Brings `source` to the size of `target`, which has the same type of pixels.
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
/// If the types of the pixels differ, or the part that is asked for is not within the source.
#[inline(never)]
pub fn resize(
    resizer: &mut Resizer,
    source: &ImageRef<'_>,
    target: &mut Image<'_>,
    options: &ResizeOptions,
) -> Result<(), ResizeError> {
    resizer.resize(source, target, options)
}
