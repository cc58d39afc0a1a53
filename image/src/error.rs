//! What can go wrong with one picture.

use std::fmt;

use super::format::Format;

/// Why a picture could not be resized. The text of each variant is a sentence for a person.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// The first bytes are those of a format that is known but not decoded here (HEIC, AVIF, …).
    Unsupported {
        /// The format's name, as people write it.
        format: &'static str,
    },
    /// The file is of a format that is read, in a variety that is not (arithmetic coding, 12 bits, …).
    UnsupportedVariety {
        /// The format the file has.
        format: Format,
        /// What is special about it, in the decoder's own words.
        reason: String,
    },
    /// The first bytes belong to no picture format that is known here.
    NotAnImage,
    /// The file ends before the picture does. Nothing is written: a torn picture is worse than none.
    Truncated {
        /// The format the file has.
        format: Format,
    },
    /// The decoder met bytes that make no sense.
    Corrupt {
        /// The format the file has, or claims to have.
        format: Format,
        /// The decoder's own words.
        reason: String,
    },
    /// The header announces more pixels than allowed; nothing was allocated for them.
    TooManyPixels {
        /// Width in pixels, from the header.
        width: u32,
        /// Height in pixels, from the header.
        height: u32,
        /// The limit in pixels.
        limit: u64,
    },
    /// The header announces pixels that take more bytes than allowed, or whose sides are so long that resizing does; nothing was
    /// allocated for that.
    TooManyBytes {
        /// Bytes that it would take.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The header announces far more than a photo of this length holds; nothing was allocated for it.
    Bomb {
        /// Bytes that the pixels would take.
        bytes: u64,
        /// Bytes of the file.
        file: u64,
        /// How many times as many are allowed.
        limit: u32,
    },
    /// The picture would be wider or higher than its output format can hold.
    OutputTooLarge {
        /// Width of the output in pixels.
        width: u32,
        /// Height of the output in pixels.
        height: u32,
        /// The format that was asked for.
        format: Format,
        /// The longest side that format can hold, in pixels.
        limit: u32,
    },
    /// The output would have more pixels than was allowed.
    OutputTooManyPixels {
        /// Width of the output in pixels.
        width: u32,
        /// Height of the output in pixels.
        height: u32,
        /// The most pixels that were allowed.
        limit: u64,
    },
    /// This format is read, never written (GIF, TIFF, BMP).
    NotAnOutput {
        /// The format that was asked for.
        format: Format,
    },
    /// There was no memory for the pixels.
    OutOfMemory {
        /// How many bytes were asked for, 0 if the decoder has not said.
        bytes: u64,
    },
    /// The encoder failed.
    Encode {
        /// The format that was being written.
        format: Format,
        /// The encoder's own words.
        reason: String,
    },
    /// The caller's numbers do not fit together: a buffer that is too short, a size of zero.
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
                "not a picture: the first bytes are not those of JPEG, PNG, WebP, GIF, TIFF or BMP",
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
                "{width}x{height} is {} pixels, more than the limit of {limit}; \
                 if you trust the file, raise max_pixels",
                u64::from(*width) * u64::from(*height)
            ),
            Self::TooManyBytes { bytes, limit } => write!(
                f,
                "its pixels, or what resizing them needs, take {}, more than the limit of {}; if you trust the file, raise max_bytes",
                size(*bytes),
                size(*limit)
            ),
            Self::Bomb { bytes, file, limit } => write!(
                f,
                "{} that become {} of pixels, more than {limit} times as many, are no photo; \
                 if you trust the file, raise max_ratio",
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
                "the result would be {width}x{height}, {} pixels, more than the limit of {limit}; \
                 ask for a smaller size, or raise max_pixels",
                u64::from(*width) * u64::from(*height)
            ),
            Self::NotAnOutput { format } => write!(
                f,
                "{format} is read but not written; choose jpeg, png or webp"
            ),
            Self::OutOfMemory { bytes: 0 } => {
                f.write_str("no memory for its pixels; give more memory")
            }
            Self::OutOfMemory { bytes } => write!(
                f,
                "no memory for {} of pixels; give more memory",
                size(*bytes)
            ),
            Self::Encode { format, reason } => write!(f, "could not encode {format}: {reason}"),
            Self::BadRequest { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for ImageError {}

impl fmt::Debug for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ImageError {
    /// A `Corrupt` error with a decoder's own words, on one line and without a final stop.
    pub(super) fn corrupt(format: Format, reason: impl fmt::Display) -> Self {
        let reason = one_line(reason);
        Self::Corrupt { format, reason }
    }

    /// An `UnsupportedVariety` error with a decoder's own words.
    pub(super) fn variety(format: Format, reason: impl fmt::Display) -> Self {
        let reason = one_line(reason);
        Self::UnsupportedVariety { format, reason }
    }
}

/// Bytes of a decoder's own words that are kept: some put whole tables of the file into them.
const MOST_WORDS: usize = 400;

/// Bytes for a reader: `1.5 GiB`.
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
    if text.len() > MOST_WORDS {
        text.truncate(text.floor_char_boundary(MOST_WORDS));
        text.push('…');
    }
    text.trim_end_matches(['.', ' ']).to_owned()
}
