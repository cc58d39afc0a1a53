//! The pixels that a file announces in its headers.

use std::panic::catch_unwind;

use super::format::Format;
use super::{animation, avif, bmp, format_of, gif, jpeg, jxl, png, pnm, qoi, raw, tiff, webp};

/// The pixels that a file announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Announced {
    /// Width in pixels, as stored.
    pub width: u32,
    /// Height in pixels, as stored.
    pub height: u32,
    /// The number of frames of an animation in GIF, WebP or PNG; otherwise 1.
    pub frames: u32,
}

/// Returns the pixels that a file announces in its headers, to estimate the effort of a picture. Decodes nothing: the
/// file may contain something else. In a raw file, the largest preview counts, and in AVIF and HEIC the largest
/// picture. `None` if the headers are invalid, or have no signature (TGA).
///
/// ```
/// use arenite_image::announced;
/// let photo = announced(&std::fs::read("../samples/chelsea.jpg")?).unwrap();
/// // It is stored lying on its side.
/// assert_eq!((photo.width, photo.height, photo.frames), (300, 451, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn announced(input: &[u8]) -> Option<Announced> {
    catch_unwind(|| {
        let format = format_of(input).ok()?;
        let frames = animation::frame_sides(input, format).len();
        let (width, height) = match format {
            Format::Jpeg => jpeg::sides(input),
            Format::Png => png::announced(input),
            Format::WebP => webp::announced(input),
            Format::Gif => gif::announced(input),
            Format::Tiff => tiff::announced(input),
            Format::Bmp => bmp::announced(input),
            Format::Avif | Format::Heic => avif::announced(input),
            Format::JpegXl => jxl::sides(input),
            Format::Pnm => pnm::announced(input),
            Format::Qoi => qoi::announced(input),
            // An entry has a byte for each side.
            Format::Ico => Some((256, 256)),
            Format::CameraRaw => raw::announced(input),
            _ => None,
        }?;
        Some(Announced {
            width,
            height,
            frames: u32::try_from(frames.max(1)).unwrap_or(u32::MAX),
        })
    })
    .ok()
    .flatten()
}
