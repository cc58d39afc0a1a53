//! Errors of one picture.

use std::fmt;

use arenite::{ArenaFull, KernelError};

use super::format::Format;

/// The reason why a picture could not be decoded, resized or encoded. Each variant displays as a sentence that names
/// the cause, and what to change. `{:#}` leaves out the advice to raise a limit of [`ResizeSpec`](crate::ResizeSpec),
/// for programs in which that limit has another name.
///
/// A kernel that returns this error in an [`arenite::Typed`] passes the error to its caller as a value:
///
/// ```
/// use arenite::{Array, Engine, Typed};
/// use arenite_image::{ImageError, ResizeSpec, resize_to_pixels};
///
/// fn thumbnail(file: &[u8]) -> Result<Array<u8>, Typed<ImageError>> {
///     let spec = ResizeSpec::new("32x32".parse().expect("a size"));
///     // The array is in the arena, which may be full: `?` takes that error, too.
///     Ok(resize_to_pixels(file, &spec)?.to_array()?)
/// }
///
/// let engine = Engine::inline();
/// let error = engine.submit(thumbnail, (b"no picture",)).wait().unwrap_err();
/// assert_eq!(error.returned(), Some(ImageError::NotAnImage));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// The format is recognized but not supported (JPEG 2000, …).
    Unsupported {
        /// The format's name.
        format: &'static str,
    },
    /// The format is supported, but this variety of it is not (arithmetic coding, 12 bits, …).
    UnsupportedVariety {
        /// The format of the file.
        format: Format,
        /// The decoder's message.
        reason: String,
    },
    /// The first bytes belong to no known picture format.
    NotAnImage,
    /// The file ends before the picture does. No partial picture is returned.
    Truncated {
        /// The format of the file.
        format: Format,
    },
    /// The decoder found invalid data.
    Corrupt {
        /// The format the file has, or claims to have.
        format: Format,
        /// The decoder's message.
        reason: String,
    },
    /// The header announces more pixels than allowed; no memory was allocated for them.
    TooManyPixels {
        /// Width in pixels, from the header.
        width: u32,
        /// Height in pixels, from the header.
        height: u32,
        /// The limit in pixels.
        limit: u64,
    },
    /// The pixels that the header announces, or resizing them, would need more bytes than allowed; no memory was
    /// allocated for them.
    TooManyBytes {
        /// The bytes needed.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The header announces far more pixels than a photo in a file of this length has; no memory was allocated for
    /// them.
    Bomb {
        /// Bytes that the pixels would take.
        bytes: u64,
        /// Bytes of the file.
        file: u64,
        /// The allowed ratio.
        limit: u32,
    },
    /// The result would be wider or higher than its format allows.
    OutputTooLarge {
        /// Width of the output in pixels.
        width: u32,
        /// Height of the output in pixels.
        height: u32,
        /// The requested format.
        format: Format,
        /// The longest side that the format allows, in pixels.
        limit: u32,
    },
    /// The result would have more pixels than allowed.
    OutputTooManyPixels {
        /// Width of the output in pixels.
        width: u32,
        /// Height of the output in pixels.
        height: u32,
        /// The limit in pixels.
        limit: u64,
    },
    /// The format can be decoded but not encoded (TIFF, BMP, HEIC, JPEG XL).
    NotAnOutput {
        /// The requested format.
        format: Format,
    },
    /// Memory for the pixels could not be allocated.
    OutOfMemory {
        /// The bytes requested, 0 if unknown.
        bytes: u64,
    },
    /// The encoder failed.
    Encode {
        /// The format that was being written.
        format: Format,
        /// The encoder's message.
        reason: String,
    },
    /// The headers of an animation announce more pixels in all frames together than allowed; no frame was decoded.
    TooManyFrames {
        /// The number of frames.
        frames: u32,
        /// The pixels of all frames, each at the size of the screen if it is drawn.
        pixels: u64,
        /// The limit in pixels: [`ResizeSpec::MAX_FRAMES`](crate::ResizeSpec::MAX_FRAMES) times `max_pixels`.
        limit: u64,
    },
    /// The arguments do not fit together, such as a buffer that is too short or a side of zero.
    BadRequest {
        /// What does not fit.
        reason: String,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { format } => write!(
                f,
                "unsupported format: {format}; convert to JPEG, PNG or WebP first"
            ),
            Self::UnsupportedVariety { format, reason } => {
                write!(f, "unsupported kind of {format}: {reason}")
            }
            Self::NotAnImage => f.write_str(
                "not a picture: the first bytes are not those of JPEG, PNG, WebP, GIF, AVIF, HEIC, TIFF, BMP, JPEG XL, PNM, \
                 QOI, TGA or ICO",
            ),
            Self::Truncated { format } => {
                write!(
                    f,
                    "truncated {format}: the file ends before the picture does"
                )
            }
            Self::Corrupt { format, reason } => write!(f, "corrupt {format}: {reason}"),
            Self::TooManyPixels {
                width,
                height,
                limit,
            } => write!(
                f,
                "{width}x{height} is {} pixels, more than the limit of {limit}",
                u64::from(*width) * u64::from(*height)
            ),
            Self::TooManyBytes { bytes, limit } => write!(
                f,
                "its pixels, or resizing them, would take {}, more than the limit of {}",
                size(*bytes),
                size(*limit)
            ),
            Self::Bomb { bytes, file, limit } => write!(
                f,
                "a file of {} that decodes to {} of pixels, more than {limit} times as much, is not a photo",
                size(*file),
                size(*bytes)
            ),
            Self::OutputTooLarge {
                width,
                height,
                format,
                limit,
            } => write!(
                f,
                "{format} cannot hold {width}x{height}: its longest side is {limit}; \
                 ask for a smaller size or another format"
            ),
            Self::OutputTooManyPixels {
                width,
                height,
                limit,
            } => write!(
                f,
                "the result would be {width}x{height}, {} pixels, more than the limit of {limit}",
                u64::from(*width) * u64::from(*height)
            ),
            Self::NotAnOutput { format } => f.write_str(&format.why_not_written()),
            Self::OutOfMemory { bytes: 0 } => f.write_str("no memory for its pixels"),
            Self::OutOfMemory { bytes } => {
                write!(f, "no memory for {} of pixels", size(*bytes))
            }
            Self::Encode { format, reason } => write!(f, "could not encode {format}: {reason}"),
            Self::TooManyFrames {
                frames,
                pixels,
                limit,
            } => write!(
                f,
                "{frames} frames of {pixels} pixels together, more than the limit of {limit}"
            ),
            Self::BadRequest { reason } => f.write_str(reason),
        }?;
        match self {
            _ if f.alternate() => Ok(()),
            Self::TooManyPixels { .. } | Self::TooManyFrames { .. } => {
                f.write_str("; if you trust the file, raise max_pixels")
            }
            Self::TooManyBytes { .. } => f.write_str("; if you trust the file, raise max_bytes"),
            Self::Bomb { .. } => f.write_str("; if you trust the file, raise max_ratio"),
            Self::OutputTooManyPixels { .. } => {
                f.write_str("; ask for a smaller size, or raise max_pixels")
            }
            Self::OutOfMemory { .. } => f.write_str("; give more memory"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ImageError {}

impl From<ArenaFull> for ImageError {
    fn from(full: ArenaFull) -> Self {
        Self::OutOfMemory {
            bytes: full.requested,
        }
    }
}

impl fmt::Debug for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Encodes the number of the variant, the number of the format, three numbers, and a text.
impl KernelError for ImageError {
    fn to_bytes(&self) -> Vec<u8> {
        let (variant, format, numbers, text) = self.parts();
        let mut bytes = vec![variant, format.map_or(0, |format| format as u8)];
        bytes.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[variant, format], rest) = bytes.split_first_chunk()?;
        let (numbers, text) = rest.split_first_chunk::<24>()?;
        let numbers: [u64; 3] =
            std::array::from_fn(|index| u64::from_le_bytes(numbers.as_chunks().0[index]));
        let format = bytemuck::checked::try_cast::<u8, Format>(format).ok();
        Self::from_parts(variant, format, numbers, str::from_utf8(text).ok()?)
    }
}

impl ImageError {
    /// Returns whether the file is broken: it ends early, or its content violates its format. Other errors are about
    /// limits, memory, and missing support; they say nothing about the file.
    pub const fn proves_damage(&self) -> bool {
        matches!(
            self,
            Self::Truncated { .. } | Self::Corrupt { .. } | Self::NotAnImage
        )
    }

    /// Returns a `Corrupt` error with a decoder's message, on one line and without a final full stop.
    pub(super) fn corrupt(format: Format, reason: impl fmt::Display) -> Self {
        let reason = one_line(reason);
        Self::Corrupt { format, reason }
    }

    /// Returns an `UnsupportedVariety` error with a decoder's message.
    pub(super) fn variety(format: Format, reason: impl fmt::Display) -> Self {
        let reason = one_line(reason);
        Self::UnsupportedVariety { format, reason }
    }

    /// Returns the same error, with the format replaced.
    pub(super) fn with_format(mut self, of: Format) -> Self {
        if let Self::UnsupportedVariety { format, .. }
        | Self::Truncated { format }
        | Self::Corrupt { format, .. } = &mut self
        {
            *format = of;
        }
        self
    }

    fn parts(&self) -> (u8, Option<Format>, [u64; 3], &str) {
        match self {
            Self::Unsupported { format } => (0, None, [0; 3], format),
            Self::UnsupportedVariety { format, reason } => (1, Some(*format), [0; 3], reason),
            Self::NotAnImage => (2, None, [0; 3], ""),
            Self::Truncated { format } => (3, Some(*format), [0; 3], ""),
            Self::Corrupt { format, reason } => (4, Some(*format), [0; 3], reason),
            &Self::TooManyPixels {
                width,
                height,
                limit,
            } => (5, None, [width.into(), height.into(), limit], ""),
            &Self::TooManyBytes { bytes, limit } => (6, None, [bytes, limit, 0], ""),
            &Self::Bomb { bytes, file, limit } => (7, None, [bytes, file, limit.into()], ""),
            &Self::OutputTooLarge {
                width,
                height,
                format,
                limit,
            } => (
                8,
                Some(format),
                [width.into(), height.into(), limit.into()],
                "",
            ),
            &Self::OutputTooManyPixels {
                width,
                height,
                limit,
            } => (9, None, [width.into(), height.into(), limit], ""),
            Self::NotAnOutput { format } => (10, Some(*format), [0; 3], ""),
            &Self::OutOfMemory { bytes } => (11, None, [bytes, 0, 0], ""),
            Self::Encode { format, reason } => (12, Some(*format), [0; 3], reason),
            Self::BadRequest { reason } => (13, None, [0; 3], reason),
            &Self::TooManyFrames {
                frames,
                pixels,
                limit,
            } => (14, None, [frames.into(), pixels, limit], ""),
        }
    }

    fn from_parts(
        variant: u8,
        format: Option<Format>,
        [a, b, c]: [u64; 3],
        text: &str,
    ) -> Option<Self> {
        let short = |number: u64| u32::try_from(number).ok();
        let reason = text.to_owned();
        Some(match variant {
            0 => Self::Unsupported {
                format: Format::from_name(text)?.name(),
            },
            1 => Self::UnsupportedVariety {
                format: format?,
                reason,
            },
            2 => Self::NotAnImage,
            3 => Self::Truncated { format: format? },
            4 => Self::Corrupt {
                format: format?,
                reason,
            },
            5 => Self::TooManyPixels {
                width: short(a)?,
                height: short(b)?,
                limit: c,
            },
            6 => Self::TooManyBytes { bytes: a, limit: b },
            7 => Self::Bomb {
                bytes: a,
                file: b,
                limit: short(c)?,
            },
            8 => Self::OutputTooLarge {
                width: short(a)?,
                height: short(b)?,
                format: format?,
                limit: short(c)?,
            },
            9 => Self::OutputTooManyPixels {
                width: short(a)?,
                height: short(b)?,
                limit: c,
            },
            10 => Self::NotAnOutput { format: format? },
            11 => Self::OutOfMemory { bytes: a },
            12 => Self::Encode {
                format: format?,
                reason,
            },
            13 => Self::BadRequest { reason },
            14 => Self::TooManyFrames {
                frames: short(a)?,
                pixels: b,
                limit: c,
            },
            _ => return None,
        })
    }
}

/// The maximum length of a decoder's message, in bytes: some contain whole tables of the file.
const LONGEST_MESSAGE: usize = 400;

/// Returns a number of bytes as text, such as `1.5 GiB`.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ => format!("{value:.1} {unit}"),
    }
}

fn one_line(text: impl fmt::Display) -> String {
    let mut text = text.to_string().replace('\n', " ");
    if text.len() > LONGEST_MESSAGE {
        text.truncate(text.floor_char_boundary(LONGEST_MESSAGE));
        text.push('…');
    }
    text.trim_end_matches(['.', ' ']).to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_error_survives_its_encoding() {
        let (format, reason) = (Format::Gif, "why: ä".to_owned());
        let (width, height) = (u32::MAX, 7);
        let errors = [
            ImageError::Unsupported {
                format: Format::Jpeg2000.name(),
            },
            ImageError::UnsupportedVariety {
                format,
                reason: reason.clone(),
            },
            ImageError::NotAnImage,
            ImageError::Truncated { format },
            ImageError::Corrupt {
                format,
                reason: reason.clone(),
            },
            ImageError::TooManyPixels {
                width,
                height,
                limit: u64::MAX,
            },
            ImageError::TooManyBytes {
                bytes: u64::MAX,
                limit: 1,
            },
            ImageError::Bomb {
                bytes: u64::MAX,
                file: 2,
                limit: 3,
            },
            ImageError::OutputTooLarge {
                width,
                height,
                format,
                limit: 4,
            },
            ImageError::OutputTooManyPixels {
                width,
                height,
                limit: 5,
            },
            ImageError::NotAnOutput { format },
            ImageError::OutOfMemory { bytes: 6 },
            ImageError::Encode {
                format,
                reason: reason.clone(),
            },
            ImageError::BadRequest { reason },
            ImageError::TooManyFrames {
                frames: u32::MAX,
                pixels: u64::MAX,
                limit: 8,
            },
        ];
        for (variant, error) in errors.into_iter().enumerate() {
            let bytes = error.to_bytes();
            assert_eq!(usize::from(bytes[0]), variant, "{error}");
            assert_eq!(ImageError::from_bytes(&bytes), Some(error.clone()));
            for end in 0..26 {
                assert_eq!(ImageError::from_bytes(&bytes[..end]), None, "{error}");
            }
        }
        let unknown = [&[15][..], &[0; 25]].concat();
        assert_eq!(ImageError::from_bytes(&unknown), None);
        let without_format = [&[3][..], &[0; 25]].concat();
        assert_eq!(ImageError::from_bytes(&without_format), None);
        let not_utf8 = [&[13][..], &[0; 25], b"\xff"].concat();
        assert_eq!(ImageError::from_bytes(&not_utf8), None);
    }
}
