//! The margins of [`Fit::Pad`](super::Fit::Pad).

use bytemuck::{CheckedBitPattern, NoUninit};

use super::color::background_of;
use super::encode::is_grey;
use super::error::ImageError;
use super::format::Format;
use super::pixels::{Color, Pixels, Samples, buffer};
use super::position::Position;
use super::spec::ResizeSpec;

/// The content of the margins of [`Fit::Pad`](super::Fit::Pad).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, NoUninit, CheckedBitPattern)]
#[repr(u8)]
pub enum Margins {
    /// Transparent around a picture with transparent pixels, if the output's format supports it; otherwise the background.
    #[default]
    Auto = 0,
    /// The background, around every picture.
    Background = 1,
    /// Transparent, around every picture, which gets an alpha channel. JPEG shows the background instead.
    Transparent = 2,
}

/// The widths of margins, in pixels of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// To the left of the picture.
    pub left: u32,
    /// Above the picture.
    pub top: u32,
    /// To the right of the picture.
    pub right: u32,
    /// Below the picture.
    pub bottom: u32,
}

impl Padding {
    /// Returns the margins of a picture with sides `inner` at a position in a box with sides `outer`. All are 0 if the
    /// picture does not fit inside.
    pub(super) fn new(inner: (u32, u32), outer: (u32, u32), position: Position) -> Self {
        let (Some(across), Some(down)) =
            (outer.0.checked_sub(inner.0), outer.1.checked_sub(inner.1))
        else {
            return Self::default();
        };
        let (before, above) = position.halves();
        let share = |free: u32, halves: u8| (u64::from(free) * u64::from(halves) / 2) as u32;
        let (left, top) = (share(across, before), share(down, above));
        Self {
            left,
            top,
            right: across - left,
            bottom: down - top,
        }
    }

    /// Returns whether there is no margin.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Returns whether the margins have a colour, so that grey pixels become RGB.
    pub(super) fn make_rgb(self, color: Color, into: Format, spec: &ResizeSpec) -> bool {
        let is_visible = match spec.margins {
            Margins::Auto => !color.has_alpha(),
            Margins::Background => true,
            Margins::Transparent => into == Format::Jpeg,
        };
        let has_grey = matches!(color, Color::Gray | Color::GrayAlpha);
        !self.is_empty() && has_grey && is_visible && !is_grey(spec.background)
    }

    /// Adds the margins to pixels that are ready for the encoder of `into`.
    pub(super) fn around(
        self,
        pixels: Pixels,
        into: Format,
        spec: &ResizeSpec,
    ) -> Result<Pixels, ImageError> {
        if self.is_empty() {
            return Ok(pixels);
        }
        let pixels = match spec.margins {
            _ if self.make_rgb(pixels.color, into, spec) => pixels.into_rgb(),
            Margins::Transparent if into != Format::Jpeg => pixels.with_alpha(),
            _ => pixels,
        };
        let mut fill = background_of(pixels.color, spec.background);
        if pixels.color.has_alpha() && spec.margins == Margins::Background {
            fill.pop();
            fill.push(u8::MAX);
        }
        let sides = (pixels.width as usize, pixels.height as usize);
        let samples = match &pixels.samples {
            Samples::Eight(samples) => Samples::Eight(self.surround(samples, sides, &fill)?),
            Samples::Sixteen(samples) => {
                let fill: Vec<u16> = fill.iter().map(|&s| u16::from(s) * 257).collect();
                Samples::Sixteen(self.surround(samples, sides, &fill)?)
            }
        };
        Ok(Pixels {
            width: self.left + pixels.width + self.right,
            height: self.top + pixels.height + self.bottom,
            samples,
            ..pixels
        })
    }

    fn surround<T: Copy + Default>(
        self,
        samples: &[T],
        (width, height): (usize, usize),
        fill: &[T],
    ) -> Result<Vec<T>, ImageError> {
        let [left, top, right, bottom] =
            [self.left, self.top, self.right, self.bottom].map(|side| side as usize);
        let channels = fill.len();
        let row = (left + width + right) * channels;
        let mut out: Vec<T> = buffer(row * (top + height + bottom))?;
        for pixel in out.chunks_exact_mut(channels) {
            pixel.copy_from_slice(fill);
        }
        let inner = out.chunks_exact_mut(row).skip(top);
        let start = left * channels;
        for (target, source) in inner.zip(samples.chunks_exact(width * channels)) {
            target[start..start + source.len()].copy_from_slice(source);
        }
        Ok(out)
    }
}
