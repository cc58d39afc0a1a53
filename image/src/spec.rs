//! The request: what to make of a picture, as plain data that can be sent to a worker.

use std::str::FromStr;

use bytemuck::{CheckedBitPattern, NoUninit};

use super::damage::FailOn;
use super::error::ImageError;
use super::format::Format;
use super::pad::Margins;
use super::palette::Palette;
use super::position::Position;
use super::size::{Fit, Plan, Size, When};

/// The number of bytes that a decoder may allocate in addition to the pixels: for palettes, profiles, rows.
pub(super) const SPARE_BYTES: u64 = 64 << 20;

/// The resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, NoUninit, CheckedBitPattern)]
#[repr(u8)]
pub enum Filter {
    /// Sinc windowed to three lobes: the sharpest. The default.
    #[default]
    Lanczos3 = 0,
    /// Catmull-Rom, a sharp cubic.
    CatmullRom = 1,
    /// Mitchell-Netravali, a soft cubic.
    Mitchell = 2,
    /// A triangle.
    Bilinear = 3,
    /// The mean of the source pixels inside each pixel. Slower for JPEG, which is decoded at full size.
    Box = 4,
    /// The nearest source pixel. Slower for JPEG, which is decoded at full size.
    Nearest = 5,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "lanczos3" => Self::Lanczos3,
            "catmull-rom" | "cubic" => Self::CatmullRom,
            "mitchell" => Self::Mitchell,
            "bilinear" | "linear" => Self::Bilinear,
            "box" => Self::Box,
            "nearest" => Self::Nearest,
            _ => {
                return Err(format!(
                    "unknown filter {text:?}; choose lanczos3, catmull-rom, mitchell, bilinear, box or nearest"
                ));
            }
        })
    }
}

/// The format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, NoUninit, CheckedBitPattern)]
#[repr(u8)]
pub enum Output {
    /// The format of the input; PNG for formats that are only decoded, such as TIFF.
    #[default]
    SameAsInput = 0,
    /// JPEG, baseline or progressive.
    Jpeg = 1,
    /// PNG.
    Png = 2,
    /// WebP, lossy or lossless.
    WebP = 3,
    /// GIF, with 256 colours per frame.
    Gif = 4,
    /// AVIF, lossy, still.
    Avif = 5,
}

impl Output {
    /// Returns the format in which a picture of format `input` is written.
    pub const fn format_for(self, input: Format) -> Format {
        match self {
            Self::SameAsInput => input.default_output(),
            Self::Jpeg => Format::Jpeg,
            Self::Png => Format::Png,
            Self::WebP => Format::WebP,
            Self::Gif => Format::Gif,
            Self::Avif => Format::Avif,
        }
    }
}

impl TryFrom<Format> for Output {
    type Error = ImageError;

    fn try_from(format: Format) -> Result<Self, ImageError> {
        match format {
            Format::Jpeg => Ok(Self::Jpeg),
            Format::Png => Ok(Self::Png),
            Format::WebP => Ok(Self::WebP),
            Format::Gif => Ok(Self::Gif),
            Format::Avif if format.is_writable() => Ok(Self::Avif),
            _ => Err(ImageError::NotAnOutput { format }),
        }
    }
}

/// What [`resize_encoded`](super::resize_encoded) makes of a picture. Plain data, and thus an argument of kernels.
///
/// ```
/// use arenite_image::{Fit, Output, ResizeSpec};
/// let spec = ResizeSpec {
///     fit: Fit::Cover,
///     output: Output::WebP,
///     ..ResizeSpec::new("224x224".parse()?)
/// };
/// assert_eq!(spec.quality, 80);
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, NoUninit, CheckedBitPattern)]
#[repr(C)]
pub struct ResizeSpec {
    /// The maximum number of pixels of a picture. Larger pictures are rejected by their header.
    pub max_pixels: u64,
    /// The maximum number of bytes that decoding may use for pixels, and resizing in addition. Pictures that need more
    /// are rejected by their header.
    pub max_bytes: u64,
    /// The target size.
    pub size: Size,
    /// How the picture fits the target.
    pub fit: Fit,
    /// Whether a picture may be enlarged; `false` overrides `size.when`.
    pub enlarge: bool,
    /// The filter.
    pub filter: Filter,
    /// The output's format.
    pub output: Output,
    /// Quality of JPEG, lossy WebP and AVIF output, 1 to 100; other numbers are clamped.
    pub quality: u8,
    /// Whether EXIF (with its orientation reset), XMP and the colour profile are kept; for TIFF only XMP and the
    /// profile. Nothing else is kept: no IPTC, comments or extended XMP.
    pub keep_metadata: bool,
    /// Whether WebP is lossless. PNG is always lossless, JPEG and AVIF never.
    pub lossless: bool,
    /// Whether JPEG is written progressive. Encoding takes half as long again, and files are about 1 % smaller (on the
    /// samples).
    pub progressive: bool,
    /// The colour of missing pixels, of transparent parts in JPEG, and of margins: red, green, blue. White by default.
    pub background: [u8; 3],
    /// The lowest level of damage that is an error.
    pub fail_on: FailOn,
    /// The part of the picture that `Fit::Cover` shows, and the place where `Fit::Pad` puts the picture.
    pub position: Position,
    /// The content of the margins of `Fit::Pad`.
    pub margins: Margins,
    /// Whether to resize in linear light: pixels are weighted by the light that they stand for, so that fine patterns,
    /// stars and lights at night keep their brightness. Slower, especially for JPEG, which is decoded at full size.
    pub linear: bool,
    /// When PNG is written with a palette.
    pub palette: Palette,
    /// The maximum number of bytes of pixels per byte of the file. A picture that exceeds it is a decompression bomb,
    /// not a photo. Pictures of at most 64 MiB of pixels are exempt.
    pub max_ratio: u32,
    /// Whether the result of an animation is a still picture, the first frame. Otherwise all frames are written, if the
    /// output's format has animations (GIF, WebP, PNG).
    pub first_frame: bool,
    /// Reserved for later fields; write `..ResizeSpec::new(size)`.
    #[doc(hidden)]
    pub reserved: [u8; 7],
}

const _: () = assert!(size_of::<ResizeSpec>() == 56);

impl arenite::Scalar for ResizeSpec {}

impl ResizeSpec {
    /// The default of [`max_pixels`](Self::max_pixels): 400 million, twice the pixels of the largest phone cameras.
    /// Smaller pictures are limited by [`max_bytes`](Self::max_bytes): a JPEG that is scaled down needs few bytes.
    pub const MAX_PIXELS: u64 = 400_000_000;
    /// The default of [`max_bytes`](Self::max_bytes): 1 GiB.
    pub const MAX_BYTES: u64 = 1 << 30;
    /// The default of [`max_ratio`](Self::max_ratio). PNG and GIF cannot reach it; flat colours in WebP can.
    pub const MAX_RATIO: u32 = 4096;
    /// All frames of an animation together have at most this number of times [`max_pixels`](Self::max_pixels), at the
    /// size of the screen: by default 1,600 million pixels, such as 771 frames of 1920×1080.
    pub const MAX_FRAMES: u64 = 4;
    /// The number of bytes of pixels that is allowed at any ratio.
    pub(super) const HARMLESS: u64 = 64 << 20;
    /// The default of [`quality`](Self::quality).
    pub const QUALITY: u8 = 80;

    /// Returns the defaults for a target size: contain, Lanczos3, quality 80, the input's format, white background.
    pub const fn new(size: Size) -> Self {
        Self {
            max_pixels: Self::MAX_PIXELS,
            max_bytes: Self::MAX_BYTES,
            size,
            fit: Fit::Contain,
            enlarge: true,
            filter: Filter::Lanczos3,
            output: Output::SameAsInput,
            quality: Self::QUALITY,
            keep_metadata: false,
            lossless: false,
            progressive: false,
            background: [u8::MAX; 3],
            fail_on: FailOn::Error,
            position: Position::Center,
            margins: Margins::Auto,
            linear: false,
            palette: Palette::Auto,
            max_ratio: Self::MAX_RATIO,
            first_frame: false,
            reserved: [0; 7],
        }
    }

    /// Returns the defaults without resizing. Use them to [`decode`](super::decode) with other limits, or to convert
    /// the format.
    ///
    /// ```
    /// use arenite_image::{resize_encoded, Output, ResizeSpec};
    /// let photo = std::fs::read("../samples/chelsea.jpg")?;
    /// let webp = ResizeSpec { output: Output::WebP, max_pixels: 1_000_000, ..ResizeSpec::full_size() };
    /// let file = resize_encoded(&photo, &webp)?;
    /// assert_eq!((file.width, file.height), (451, 300));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn full_size() -> Self {
        // Only enlarges, and no picture is smaller than 1 × 1: so no picture is resized.
        Self::new(Size::new(1, 1, When::Enlarge))
    }

    /// Checks whether a file of `file` bytes may announce `bytes` bytes of pixels.
    ///
    /// # Errors
    /// `TooManyBytes` if the pixels exceed `max_bytes`, `Bomb` if they exceed `max_ratio`.
    pub fn admit(&self, bytes: u64, file: u64) -> Result<(), ImageError> {
        if bytes > self.max_bytes {
            return Err(ImageError::TooManyBytes {
                bytes,
                limit: self.max_bytes,
            });
        }
        let allowed = file.saturating_mul(self.max_ratio.into());
        if bytes > allowed.max(Self::HARMLESS) {
            return Err(ImageError::Bomb {
                bytes,
                file,
                limit: self.max_ratio,
            });
        }
        Ok(())
    }

    /// Returns the plan for a picture with these sides, with its orientation applied.
    ///
    /// # Errors
    /// `Corrupt` if the source has no pixels, `TooManyPixels` if it exceeds `max_pixels`, `OutputTooManyPixels` if the
    /// output exceeds that limit, `OutputTooLarge` if `format` does not support the sides of the output.
    pub fn plan(&self, width: u32, height: u32, format: Format) -> Result<Plan, ImageError> {
        self.check_source((width, height), format)?;
        let plan = Plan::new(
            (width, height),
            self.size,
            (self.fit, self.position),
            self.enlarge,
        );
        let output = self.output.format_for(format);
        let (width, height) = plan.output();
        check_sides((width, height), output)?;
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(ImageError::OutputTooManyPixels {
                width,
                height,
                limit: self.max_pixels,
            });
        }
        Ok(plan)
    }

    /// Checks the sides of a source, in either order. Returns `Corrupt` if one is 0, `TooManyPixels` beyond
    /// `max_pixels`.
    pub(super) fn check_source(
        &self,
        (width, height): (u32, u32),
        format: Format,
    ) -> Result<(), ImageError> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(ImageError::corrupt(format, "it has no pixels"));
        }
        if pixels > self.max_pixels {
            return Err(ImageError::TooManyPixels {
                width,
                height,
                limit: self.max_pixels,
            });
        }
        Ok(())
    }
}

/// Returns `OutputTooLarge` if the format does not support these sides.
pub(super) fn check_sides((width, height): (u32, u32), format: Format) -> Result<(), ImageError> {
    let limit = longest_side(format);
    if width > limit || height > limit {
        return Err(ImageError::OutputTooLarge {
            width,
            height,
            format,
            limit,
        });
    }
    Ok(())
}

/// Returns the maximum side of an output format, in pixels.
const fn longest_side(format: Format) -> u32 {
    match format {
        Format::Jpeg => 65_500,
        Format::WebP => 16_383,
        Format::Gif => 65_535,
        // libavif, which Chrome and Pillow use, refuses longer sides by default.
        Format::Avif => 32_768,
        _ => i32::MAX as u32,
    }
}
