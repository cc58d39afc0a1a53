//! Checking a picture: it is decoded, and the pixels are dropped.

use super::damage::{Damage, Found};
use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Request};
use super::pixels::{Samples, swaps_sides};
use super::size::{Size, When};
use super::spec::ResizeSpec;
use super::{animation, damage_after_first, decode_for, format_of, resample};

/// A picture whose pixels can be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// The format of the file.
    pub format: Format,
    /// Width in pixels, with the orientation applied.
    pub width: u32,
    /// Height in pixels, with the orientation applied.
    pub height: u32,
    /// Damage that [`ResizeSpec::fail_on`] does not count as an error.
    pub damage: Option<Damage>,
}

/// Decodes one picture to find out whether it is complete. Uses only the limits and `fail_on` of `spec`.
///
/// All pixels are decoded; in a JPEG only as far as needed to find damage, which is faster than [`decode`]. If a file
/// has several pictures, the first is decoded; in an animation in GIF, WebP or PNG, all frames are. AVIF, HEIC and JPEG
/// XL that end before their other pictures do are truncated.
/// [`ImageError::proves_damage`] separates broken files from files that could not be checked. In a JPEG that is
/// complete otherwise, damage outside the pixels is only searched for at [`FailOn::Warning`](super::FailOn::Warning).
///
/// ```
/// use arenite_image::{ResizeSpec, check};
/// let photo = std::fs::read("../samples/chelsea.jpg")?;
/// let spec = ResizeSpec::full_size();
/// assert_eq!(check(&photo, &spec)?.width, 451);
/// let error = check(&photo[..photo.len() / 2], &spec).unwrap_err();
/// assert!(error.proves_damage());
/// assert_eq!(error.to_string(), "truncated JPEG: the file ends before the picture does");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ImageError`]: the damage, or the reason why the picture was not decoded.
///
/// # Panics
/// If a decoder panics. That is a bug of the decoder and says nothing about the file. [`decode`] and similar functions
/// return it as an error; here a panic is kept separate from damage. In a worker process, it becomes the failure of the
/// job.
///
/// [`decode`]: super::decode
pub fn check(input: &[u8], spec: &ResizeSpec) -> Result<Checked, ImageError> {
    let format = format_of(input)?;
    // A JPEG is decoded at its smallest scale: all its codes are still read.
    let smallest = ResizeSpec::new(Size::new(1, 1, When::Always));
    let spec = ResizeSpec {
        max_pixels: spec.max_pixels,
        max_bytes: spec.max_bytes,
        max_ratio: spec.max_ratio,
        fail_on: spec.fail_on,
        ..smallest
    };
    let request = Request {
        spec: &spec,
        sizes: &[spec.size],
        animates: false,
        checks: true,
    };
    let (decoded, mut damage) = decode_for(input, format, request)?;
    let (width, height) = decoded.full;
    let found = match animation::open(input, format, &spec, false) {
        Ok(Some(mut animation)) => animation.frames.find_map(Result::err),
        Ok(None) => None,
        Err(error) => Some(Found::later(error)),
    };
    if let Some(found) = found.or_else(|| damage_after_first(input, format)) {
        let later = found.judge(spec.fail_on, u64::from(width) * u64::from(height))?;
        damage.get_or_insert(later);
    }
    let (width, height) = match swaps_sides(decoded.orientation) {
        true => (height, width),
        false => (width, height),
    };
    keep_buffers(decoded);
    Ok(Checked {
        format,
        width,
        height,
        damage,
    })
}

/// Keeps the memory of the pixels for the next picture.
fn keep_buffers(decoded: Decoded) {
    if let Samples::Eight(bytes) = decoded.pixels.samples {
        resample::keep_buffer(bytes);
    }
    if let Some(chroma) = decoded.chroma {
        resample::keep_buffer(chroma.pairs);
    }
}
