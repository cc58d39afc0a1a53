//! Decoded pixels: colour model, depth, orientation, transparency.

use super::error::ImageError;

/// The colour model of decoded pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Color {
    /// One channel, black to white.
    Gray,
    /// Grey and alpha.
    GrayAlpha,
    /// Red, green, blue.
    Rgb,
    /// Red, green, blue, alpha.
    Rgba,
    /// Four inks; 0 is no ink. Used only between a decoder and the conversion to RGB.
    Cmyk,
    /// Luma and two colour differences, as in JFIF; 128 is no difference. Used only between a decoder and the
    /// conversion to RGB or the JPEG encoder.
    YCbCr,
}

impl Color {
    /// Returns the number of channels of a pixel.
    pub const fn channels(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb | Self::YCbCr => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }

    /// Returns whether the last channel is alpha.
    pub const fn has_alpha(self) -> bool {
        matches!(self, Self::GrayAlpha | Self::Rgba)
    }
}

/// How the stored pixels are displayed: flipped, then turned clockwise, or only one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orientation {
    NoTransforms,
    Rotate90,
    Rotate180,
    Rotate270,
    FlipHorizontal,
    FlipVertical,
    Rotate90FlipH,
    Rotate270FlipH,
}

impl Orientation {
    /// Returns the orientation with this number in EXIF.
    pub(super) fn from_exif(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::NoTransforms,
            2 => Self::FlipHorizontal,
            3 => Self::Rotate180,
            4 => Self::FlipVertical,
            5 => Self::Rotate90FlipH,
            6 => Self::Rotate90,
            7 => Self::Rotate270FlipH,
            8 => Self::Rotate270,
            _ => return None,
        })
    }
}

/// The samples of a picture, row by row, channels interleaved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Samples {
    /// 0 to 255.
    Eight(Vec<u8>),
    /// 0 to 65,535, native byte order.
    Sixteen(Vec<u16>),
}

/// A decoded picture: `width * height * color.channels()` samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The colour model.
    pub color: Color,
    /// The samples.
    pub samples: Samples,
}

/// Divides the other samples of each pixel by the last one, taken as a fraction of `most`. Pixels whose last sample is
/// 0 do not change.
pub(super) fn divide_by_last<T: Copy + Into<u64> + TryFrom<u64>>(
    samples: &mut [T],
    channels: usize,
    most: T,
) {
    for pixel in samples.chunks_exact_mut(channels) {
        let Some((alpha, colors)) = pixel.split_last_mut() else {
            continue;
        };
        let (alpha, full): (u64, u64) = ((*alpha).into(), most.into());
        for color in colors.iter_mut().filter(|_| alpha > 0) {
            let value: u64 = (*color).into();
            let value = ((value * full + alpha / 2) / alpha).min(full);
            *color = T::try_from(value).unwrap_or(most);
        }
    }
}

/// Allocates a zeroed buffer of `len` samples, or returns `OutOfMemory`.
pub(super) fn buffer<T: Copy + Default>(len: usize) -> Result<Vec<T>, ImageError> {
    let mut samples = Vec::new();
    samples
        .try_reserve_exact(len)
        .map_err(|_| ImageError::OutOfMemory {
            bytes: (len as u64).saturating_mul(size_of::<T>() as u64),
        })?;
    samples.resize(len, T::default());
    Ok(samples)
}

impl Pixels {
    /// Returns `BadRequest` if the number of samples does not match the sides, or is 0.
    pub(super) fn check(&self) -> Result<(), ImageError> {
        let (width, height, channels) = (self.width, self.height, self.color.channels());
        let len = match &self.samples {
            Samples::Eight(samples) => samples.len(),
            Samples::Sixteen(samples) => samples.len(),
        };
        let expected = u128::from(width) * u128::from(height) * channels as u128;
        if expected == 0 || expected != len as u128 {
            let reason = format!(
                "{len} samples, but {width}x{height} pixels of {channels} channels are {expected}"
            );
            return Err(ImageError::BadRequest { reason });
        }
        Ok(())
    }

    /// Returns the size of the samples, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match &self.samples {
            Samples::Eight(samples) => samples.len() as u64,
            Samples::Sixteen(samples) => size_of_val(&samples[..]) as u64,
        }
    }

    /// Returns this picture with the rows of `below` appended. Both must have the same width, colour model and depth.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn followed_by(mut self, below: Self) -> Result<Self, ImageError> {
        fn append<T: Copy>(samples: &mut Vec<T>, below: &[T]) -> Result<(), ImageError> {
            let bytes = size_of_val(below) as u64;
            let more = samples.try_reserve_exact(below.len());
            more.map_err(|_| ImageError::OutOfMemory { bytes })?;
            samples.extend_from_slice(below);
            Ok(())
        }
        match (&mut self.samples, &below.samples) {
            (Samples::Eight(samples), Samples::Eight(below)) => append(samples, below)?,
            (Samples::Sixteen(samples), Samples::Sixteen(below)) => append(samples, below)?,
            _ => {}
        }
        self.height += below.height;
        Ok(self)
    }

    /// Returns this picture without its first `count` rows.
    pub(super) fn without_rows(mut self, count: u32) -> Self {
        let samples = count as usize * self.width as usize * self.color.channels();
        match &mut self.samples {
            Samples::Eight(all) => drop(all.drain(..samples)),
            Samples::Sixteen(all) => drop(all.drain(..samples)),
        }
        self.height -= count;
        self
    }

    /// Returns the samples of a picture with 8 bits per sample; empty for other pictures.
    pub(super) fn eight_bits(&self) -> &[u8] {
        match &self.samples {
            Samples::Eight(samples) => samples,
            Samples::Sixteen(_) => &[],
        }
    }

    /// Makes each pixel transparent that equals the pixel of `other` at the same position. Both pictures have 8-bit
    /// RGBA.
    pub(super) fn hide_equal(&mut self, other: &Pixels) {
        if let Samples::Eight(samples) = &mut self.samples {
            let pixels = samples.as_chunks_mut::<4>().0.iter_mut();
            let pairs = pixels.zip(other.eight_bits().as_chunks::<4>().0);
            for (pixel, _) in pairs.filter(|(pixel, other)| *pixel == *other) {
                *pixel = [0; 4];
            }
        }
    }

    /// Applies an EXIF orientation.
    pub(super) fn oriented(self, orientation: Orientation) -> Result<Self, ImageError> {
        if orientation == Orientation::NoTransforms {
            return Ok(self);
        }
        let channels = self.color.channels();
        let sides = (self.width as usize, self.height as usize);
        let samples = match &self.samples {
            Samples::Eight(samples) => Samples::Eight(turn(samples, sides, channels, orientation)?),
            Samples::Sixteen(samples) => {
                Samples::Sixteen(turn(samples, sides, channels, orientation)?)
            }
        };
        let (width, height) = if swaps_sides(orientation) {
            (self.height, self.width)
        } else {
            (self.width, self.height)
        };
        Ok(Self {
            width,
            height,
            samples,
            ..self
        })
    }

    /// Scales samples of narrow range to full range. In narrow range, black and white are 16 and 235 in 8 bits, and 256
    /// times that in 16 bits (H.273). Alpha has full range already.
    pub(super) fn widened(mut self) -> Self {
        const BLACK: f32 = 16.0;
        const WHITE: f32 = 235.0;
        let channels = self.color.channels();
        let colors = channels - usize::from(self.color.has_alpha());
        // `unit` is the size of a step of 8 bits.
        let scaled = |sample: f32, unit: f32, most: f32| {
            (((sample / unit - BLACK) / (WHITE - BLACK)).clamp(0.0, 1.0) * most).round()
        };
        match &mut self.samples {
            Samples::Eight(samples) => {
                for pixel in samples.chunks_exact_mut(channels) {
                    let pixel = pixel[..colors].iter_mut();
                    pixel.for_each(|sample| *sample = scaled((*sample).into(), 1.0, 255.0) as u8);
                }
            }
            Samples::Sixteen(samples) => {
                for pixel in samples.chunks_exact_mut(channels) {
                    let pixel = pixel[..colors].iter_mut();
                    pixel.for_each(|sample| {
                        *sample = scaled((*sample).into(), 256.0, 65_535.0) as u16
                    });
                }
            }
        }
        self
    }

    /// Rounds to eight bits per sample.
    pub(super) fn into_eight_bits(self) -> Self {
        let samples = match self.samples {
            Samples::Eight(samples) => samples,
            Samples::Sixteen(samples) => samples.iter().map(|&s| narrow(s)).collect(),
        };
        Self {
            samples: Samples::Eight(samples),
            ..self
        }
    }

    /// Blends pixels with alpha over a colour. The result has 8 bits and no alpha. Grey pixels use the first number of
    /// the colour. Pixels without alpha do not change.
    pub(super) fn flattened_over(self, background: [u8; 3]) -> Self {
        let color = match self.color {
            Color::GrayAlpha => Color::Gray,
            Color::Rgba => Color::Rgb,
            _ => return self,
        };
        let pixels = self.into_eight_bits();
        let Samples::Eight(samples) = &pixels.samples else {
            return pixels;
        };
        let channels = pixels.color.channels();
        let over = |pixel: &[u8]| {
            let alpha = u32::from(pixel[channels - 1]);
            let mut flat = [0; 3];
            let both = pixel[..channels - 1].iter().zip(background.map(u32::from));
            for (flat, (&sample, behind)) in flat.iter_mut().zip(both) {
                *flat = ((u32::from(sample) * alpha + behind * (255 - alpha) + 127) / 255) as u8;
            }
            flat.into_iter().take(channels - 1)
        };
        let samples = samples.chunks_exact(channels).flat_map(over).collect();
        Self {
            color,
            samples: Samples::Eight(samples),
            ..pixels
        }
    }

    /// Returns whether no pixel is transparent, not even in part.
    pub(super) fn is_opaque(&self) -> bool {
        fn is_full<T: PartialEq>(samples: &[T], channels: usize, most: &T) -> bool {
            let mut pixels = samples.chunks_exact(channels);
            pixels.all(|pixel| pixel.last() == Some(most))
        }
        let channels = self.color.channels();
        !self.color.has_alpha()
            || match &self.samples {
                Samples::Eight(samples) => is_full(samples, channels, &u8::MAX),
                Samples::Sixteen(samples) => is_full(samples, channels, &u16::MAX),
            }
    }

    /// Drops the alpha of 8-bit RGBA if all pixels are opaque; otherwise returns the pixels as they are.
    pub(super) fn without_full_alpha(mut self) -> Self {
        let (Color::Rgba, Samples::Eight(samples)) = (self.color, &mut self.samples) else {
            return self;
        };
        let pixels = samples.as_chunks::<4>().0;
        if pixels.iter().any(|pixel| pixel[3] != u8::MAX) {
            return self;
        }
        let count = pixels.len();
        for pixel in 1..count {
            samples.copy_within(pixel * 4..pixel * 4 + 3, pixel * 3);
        }
        samples.truncate(count * 3);
        self.color = Color::Rgb;
        self
    }

    /// Undoes the multiplication of colours by alpha.
    pub(super) fn divide_by_alpha(&mut self) {
        let channels = self.color.channels();
        if !self.color.has_alpha() {
            return;
        }
        match &mut self.samples {
            Samples::Eight(samples) => divide_by_last(samples, channels, u8::MAX),
            Samples::Sixteen(samples) => divide_by_last(samples, channels, u16::MAX),
        }
    }

    /// Turns grey into RGB or RGBA.
    pub(super) fn into_rgb(self) -> Self {
        let (color, channels) = match self.color {
            Color::Gray => (Color::Rgb, &[0, 0, 0][..]),
            Color::GrayAlpha => (Color::Rgba, &[0, 0, 0, 1][..]),
            _ => return self,
        };
        self.rearranged(color, channels)
    }

    /// Turns RGB whose channels are equal into grey.
    pub(super) fn into_grey(self) -> Self {
        match self.color {
            Color::Rgb => self.rearranged(Color::Gray, &[0]),
            Color::Rgba => self.rearranged(Color::GrayAlpha, &[0, 3]),
            _ => self,
        }
    }

    /// Adds an opaque alpha channel if there is none.
    pub(super) fn with_alpha(self) -> Self {
        let (color, channels) = match self.color {
            Color::Gray => (Color::GrayAlpha, &[0, OPAQUE][..]),
            Color::Rgb => (Color::Rgba, &[0, 1, 2, OPAQUE][..]),
            _ => return self,
        };
        self.rearranged(color, channels)
    }

    /// Converts to another colour model by copying channels. `channels` has, for each channel of the result, the index
    /// of the channel in these pixels, or [`OPAQUE`].
    fn rearranged(self, color: Color, channels: &[usize]) -> Self {
        fn pick<T: Copy>(samples: &[T], own: usize, channels: &[usize], opaque: T) -> Vec<T> {
            let mut out = Vec::with_capacity(samples.len() / own * channels.len());
            for pixel in samples.chunks_exact(own) {
                let picked = channels.iter().map(|&at| pixel.get(at).copied());
                out.extend(picked.map(|sample| sample.unwrap_or(opaque)));
            }
            out
        }
        let own = self.color.channels();
        let samples = match &self.samples {
            Samples::Eight(samples) => Samples::Eight(pick(samples, own, channels, u8::MAX)),
            Samples::Sixteen(samples) => Samples::Sixteen(pick(samples, own, channels, u16::MAX)),
        };
        Self {
            color,
            samples,
            ..self
        }
    }
}

/// Stands for the index of a channel that the pixels lack: full alpha.
const OPAQUE: usize = usize::MAX;

/// Scales 16 bits to 8, rounded.
pub(super) fn narrow(sample: u16) -> u8 {
    ((u32::from(sample) * 255 + 32_767) / 65_535) as u8
}

/// Returns whether the orientation swaps width and height.
pub(super) const fn swaps_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

fn turn<T: Copy + Default>(
    source: &[T],
    (width, height): (usize, usize),
    channels: usize,
    orientation: Orientation,
) -> Result<Vec<T>, ImageError> {
    let mut out = buffer(source.len())?;
    let (out_width, out_height) = if swaps_sides(orientation) {
        (height, width)
    } else {
        (width, height)
    };
    for y in 0..out_height {
        for x in 0..out_width {
            // The stored position of the pixel that is displayed at (x, y).
            let (from_x, from_y) = match orientation {
                Orientation::NoTransforms => (x, y),
                Orientation::FlipHorizontal => (width - 1 - x, y),
                Orientation::Rotate180 => (width - 1 - x, height - 1 - y),
                Orientation::FlipVertical => (x, height - 1 - y),
                Orientation::Rotate90FlipH => (y, x),
                Orientation::Rotate90 => (y, height - 1 - x),
                Orientation::Rotate270FlipH => (width - 1 - y, height - 1 - x),
                Orientation::Rotate270 => (width - 1 - y, x),
            };
            let from = (from_y * width + from_x) * channels;
            let to = (y * out_width + x) * channels;
            out[to..to + channels].copy_from_slice(&source[from..from + channels]);
        }
    }
    Ok(out)
}
