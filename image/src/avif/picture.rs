//! A decoded picture: channels of samples, in memory of the decoder.

use std::ptr::NonNull;

use super::super::error::ImageError;
use super::boxes::corrupt;
use super::container::{CodePoints, Config};
use super::{av1, hevc};

/// The owner of the samples. It is dropped with the picture.
pub(super) enum Owner {
    Av1(#[expect(dead_code, reason = "owns the samples")] av1::Frame),
    Hevc(#[expect(dead_code, reason = "owns the samples")] hevc::Frame),
}

/// A decoded picture.
pub(super) struct Picture {
    _owner: Owner,
    /// For each channel, the first sample and the number of bytes from row to row.
    channels: [Option<(NonNull<u8>, isize)>; 3],
    sides: (i32, i32),
    config: Config,
    /// How often the sides of chroma are halved, across and down.
    chroma_shifts: (u32, u32),
    /// How numbers are converted to colours, according to the data itself.
    code_points: CodePoints,
}

/// The samples of one channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane<'a, T> {
    samples: &'a [T],
    stride: usize,
    width: usize,
}

/// A stored sample: 8 bits, or 10 or 12 bits in 16.
pub(super) trait Sample: Copy + Into<u32> + 'static {}

impl Sample for u8 {}
impl Sample for u16 {}

impl<'a, T> Plane<'a, T> {
    /// Returns row `y`; `None` below the last row.
    pub(super) fn row(&self, y: usize) -> Option<&'a [T]> {
        let start = y.checked_mul(self.stride)?;
        self.samples.get(start..)?.get(..self.width)
    }
}

impl Picture {
    /// Creates a picture whose samples are in memory of `owner`.
    ///
    /// # Safety
    /// Each channel has the rows and samples that `sides` says; those of chroma are halved by `chroma_shifts` and
    /// rounded up. Samples are bytes if `config.depth` is 8, otherwise words of 16 bits. They are initialised, and no
    /// code writes them as long as `owner` lives.
    pub(super) unsafe fn new(
        owner: Owner,
        channels: [Option<(NonNull<u8>, isize)>; 3],
        sides: (i32, i32),
        config: Config,
        chroma_shifts: (u32, u32),
        code_points: CodePoints,
    ) -> Self {
        Self {
            _owner: owner,
            channels,
            sides,
            config,
            chroma_shifts,
            code_points,
        }
    }

    /// Returns the picture if it has these sides and this configuration.
    ///
    /// # Errors
    /// If the picture has other sides, or other samples than the configuration says.
    pub(super) fn checked(
        self,
        (width, height): (u32, u32),
        config: Config,
    ) -> Result<Self, ImageError> {
        let sides = self.sides;
        if (i64::from(sides.0), i64::from(sides.1)) != (i64::from(width), i64::from(height)) {
            let reason = format!(
                "its picture has {}x{} pixels, and its header says {width}x{height}",
                sides.0, sides.1
            );
            return Err(corrupt(&reason));
        }
        if self.config != config {
            return Err(corrupt(
                "its picture has other samples than its header says",
            ));
        }
        Ok(self)
    }

    pub(super) const fn chroma_shifts(&self) -> (u32, u32) {
        self.chroma_shifts
    }

    pub(super) const fn code_points(&self) -> CodePoints {
        self.code_points
    }

    /// Returns a channel: 0 is luma, 1 and 2 are chroma. `None` if the picture lacks the channel, or its samples have
    /// another size.
    pub(super) fn plane<T: Sample>(&self, number: usize) -> Option<Plane<'_, T>> {
        let bytes = if self.config.depth == 8 { 1 } else { 2 };
        let &(start, stride) = self.channels.get(number)?.as_ref()?;
        let (start, stride) = (start.cast::<T>(), usize::try_from(stride).ok()?);
        if size_of::<T>() != bytes || !start.is_aligned() || stride % bytes != 0 {
            return None;
        }
        let (across, down) = match number {
            0 => (0, 0),
            _ => self.chroma_shifts,
        };
        let shrunk = |side: i32, shift: u32| {
            usize::try_from(side)
                .ok()
                .map(|side| (side + (1 << shift) - 1) >> shift)
        };
        let (width, height) = (shrunk(self.sides.0, across)?, shrunk(self.sides.1, down)?);
        let stride = stride / bytes;
        if width == 0 || height == 0 || width > stride {
            return None;
        }
        // SAFETY: the caller of `new` guarantees it, for the sample size that was checked above. The picture is
        // borrowed, and with it the owner of the samples.
        let samples =
            unsafe { std::slice::from_raw_parts(start.as_ptr(), stride * (height - 1) + width) };
        Some(Plane {
            samples,
            stride,
            width,
        })
    }
}
