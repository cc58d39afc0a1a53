//! Damage in files: what it costs, and whether it is an error.

use std::str::FromStr;

use bytemuck::{CheckedBitPattern, NoUninit};

use super::error::ImageError;
use super::format::Format;
use super::pixels::{Pixels, Samples};

/// The lowest level of damage that is an error, in the terms of libvips and sharp. Each level includes the levels above
/// it in this list.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, NoUninit, CheckedBitPattern,
)]
#[repr(u8)]
pub enum FailOn {
    /// No damage is an error, as long as the header can be read.
    None = 0,
    /// A file that ends before its pixels do.
    Truncated = 1,
    /// Pixels that are missing or wrong for any other reason. The default.
    #[default]
    Error = 2,
    /// Damage that costs no pixel, such as a missing end or a colour profile that cannot be applied.
    Warning = 3,
}

impl FromStr for FailOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "none" => Self::None,
            "truncated" => Self::Truncated,
            "error" => Self::Error,
            "warning" => Self::Warning,
            _ => {
                return Err(format!(
                    "unknown level {text:?}; choose none, truncated, error or warning"
                ));
            }
        })
    }
}

/// Damage of a file whose picture was decoded in spite of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The number of missing pixels of the source, which show the background. 0 if the damage is outside the pixels, or
    /// if the picture is only coarser than the original.
    pub missing: u64,
    /// The total number of pixels of the source.
    pub pixels: u64,
    /// A sentence that describes the damage.
    pub text: String,
}

/// What damage costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Nothing: the damage is outside the pixels.
    Nothing,
    /// This number of pixels.
    Pixels(u64),
    /// No pixel is missing, but some may be wrong, because a checksum over the pixels is.
    Doubtful,
    /// Detail: passes over the whole picture are missing.
    Detail,
    /// Pixels of pictures after the first in the file.
    Later,
    /// Pixels of pictures in the file that are not part of the result.
    Unshown,
}

/// Damage that a decoder has found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) loss: Loss,
    /// The error to return if the policy counts the damage as an error.
    pub(super) error: ImageError,
}

impl Damage {
    /// Combines this damage with other damage of the same file.
    pub(super) fn and(self, other: Self) -> Self {
        let own = self.text.strip_suffix(NO_PIXEL);
        let own = own.unwrap_or(&self.text).trim_end_matches("; ");
        Self {
            missing: self.missing.max(other.missing),
            text: format!("{own}; {}", other.text),
            ..self
        }
    }
}

/// The end of the text about damage outside the pixels.
const NO_PIXEL: &str = "no pixel is missing";

impl Found {
    pub(super) const fn around(error: ImageError) -> Self {
        let loss = Loss::Nothing;
        Self { loss, error }
    }

    /// Creates the damage of a file that ends early, and after the pixels of its last picture.
    pub(super) fn after_pixels(format: Format) -> Self {
        Self::around(ImageError::corrupt(
            format,
            "the file ends early, after its pixels",
        ))
    }

    /// Fills the rows after the first `rows`, and creates the damage of a picture that lacks them. At least one pixel
    /// counts as missing.
    pub(super) fn missing_rows(
        pixels: &mut Pixels,
        rows: usize,
        background: [u8; 3],
        error: ImageError,
    ) -> Self {
        fill_rows(pixels, rows, background);
        let missing =
            u64::from(pixels.height).saturating_sub(rows as u64) * u64::from(pixels.width);
        let loss = Loss::Pixels(missing.max(1));
        Self { loss, error }
    }

    /// Creates the damage of a picture that lacks no pixel, and of which some may be wrong.
    pub(super) const fn doubtful(error: ImageError) -> Self {
        let loss = Loss::Doubtful;
        Self { loss, error }
    }

    /// Creates the damage of a picture after the first in the file.
    pub(super) const fn later(error: ImageError) -> Self {
        let loss = Loss::Later;
        Self { loss, error }
    }

    /// Returns the same damage, of a file of which the result shows only the first picture.
    pub(super) fn unshown(mut self) -> Self {
        if self.loss == Loss::Later {
            self.loss = Loss::Unshown;
        }
        self
    }

    /// Applies the policy `fail_on` to this damage of a picture with `pixels` pixels.
    ///
    /// # Errors
    /// The error of the damage, if the policy counts it as an error, or if a limit caused the loss of pixels.
    pub(super) fn judge(self, fail_on: FailOn, pixels: u64) -> Result<Damage, ImageError> {
        let level = match (self.loss, &self.error) {
            (Loss::Nothing | Loss::Unshown, _) => FailOn::Warning,
            (_, ImageError::Truncated { .. }) => FailOn::Truncated,
            _ => FailOn::Error,
        };
        if fail_on >= level || level < FailOn::Warning && !self.error.proves_damage() {
            return Err(self.error);
        }
        let (missing, what) = match self.loss {
            Loss::Nothing => (0, NO_PIXEL.to_owned()),
            Loss::Pixels(count) => {
                let percent = count as f64 * 100.0 / pixels.max(1) as f64;
                (count, format!("{percent:.1} % of its pixels are missing"))
            }
            Loss::Doubtful => (0, "some of its pixels may be wrong".to_owned()),
            Loss::Detail => (0, "the picture is coarser than it was".to_owned()),
            Loss::Later | Loss::Unshown => (0, "what comes before is whole".to_owned()),
        };
        let text = format!("{}; {what}", self.error);
        Ok(Damage {
            missing,
            pixels,
            text,
        })
    }
}

/// Fills the rows from `from` on with a background; transparent if the pixels have alpha.
pub(super) fn fill_rows(pixels: &mut Pixels, from: usize, background: [u8; 3]) {
    let color = super::color::background_of(pixels.color, background);
    let start = from * pixels.width as usize * color.len();
    match &mut pixels.samples {
        Samples::Eight(samples) => {
            for pixel in samples
                .get_mut(start..)
                .unwrap_or_default()
                .chunks_exact_mut(color.len())
            {
                pixel.copy_from_slice(&color);
            }
        }
        Samples::Sixteen(samples) => {
            for pixel in samples
                .get_mut(start..)
                .unwrap_or_default()
                .chunks_exact_mut(color.len())
            {
                for (sample, &value) in pixel.iter_mut().zip(&color) {
                    *sample = u16::from(value) * 257;
                }
            }
        }
    }
}
