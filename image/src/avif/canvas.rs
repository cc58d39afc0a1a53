//! Converts the planes of AV1 to interleaved pixels: enlarges chroma, and applies matrix and range (H.273).

use super::super::error::ImageError;
use super::super::format::Format;
use super::boxes::corrupt;
use super::container::{CodePoints, Config};
use super::picture::{Picture, Plane, Sample};

/// Pixels under construction: rows of samples with interleaved channels.
pub(super) struct Canvas<'a, T> {
    pub(super) samples: &'a mut [T],
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
}

/// A sample of decoded pixels: 8 or 16 bits with full range.
pub(super) trait Output: Copy + Default {
    const MAX: f32;

    /// Rounds to the nearest sample. Values beyond the range become the nearest end of it.
    fn rounded(value: f32) -> Self;
}

impl Output for u8 {
    const MAX: f32 = 255.0;

    fn rounded(value: f32) -> Self {
        (value + 0.5) as Self
    }
}

impl Output for u16 {
    const MAX: f32 = 65_535.0;

    fn rounded(value: f32) -> Self {
        (value + 0.5) as Self
    }
}

/// How luma and chroma are converted to colours.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Matrix {
    /// The channels are green, blue and red.
    Identity,
    /// For red, green and blue: the factors by which the two chroma values are added to luma.
    Sums([[f32; 2]; 3]),
}

impl Matrix {
    /// Returns the matrix for these code points.
    fn of(points: CodePoints) -> Result<Self, ImageError> {
        // The weights of red and blue in luma.
        let (red, blue) = match (points.matrix, points.primaries) {
            (0, _) => return Ok(Self::Identity),
            (1, _) | (12, 1) => (0.2126, 0.0722),
            // If the matrix is not specified, most other programs use this matrix.
            (2 | 5 | 6, _) => (0.299, 0.114),
            (4, _) => (0.30, 0.11),
            (7, _) => (0.212, 0.087),
            (9, _) | (12, 9) => (0.2627, 0.0593),
            // YCgCo: green and orange.
            (8, _) => return Ok(Self::Sums([[-1.0, 1.0], [1.0, 0.0], [-1.0, -1.0]])),
            (other, _) => {
                let reason = format!("colours by matrix {other}");
                return Err(ImageError::variety(Format::Avif, reason));
            }
        };
        let green = 1.0 - red - blue;
        let (of_red, of_blue) = (2.0 * (1.0 - red), 2.0 * (1.0 - blue));
        let in_green = [-of_blue * blue / green, -of_red * red / green];
        Ok(Self::Sums([[0.0, of_red], in_green, [of_blue, 0.0]]))
    }
}

/// Converts values of a plane to values of the output: `(number - zero) * scale`.
#[derive(Debug, Clone, Copy)]
struct Range {
    zero: f32,
    scale: f32,
}

impl Range {
    /// Returns the conversion of luma: black becomes 0, white becomes `most`.
    fn of_luma(depth: u8, is_full: bool, most: f32) -> Self {
        let step = f32::from(1u16 << (depth - 8));
        match is_full {
            true => Self {
                zero: 0.0,
                scale: most / (step * 256.0 - 1.0),
            },
            false => Self {
                zero: 16.0 * step,
                scale: most / (219.0 * step),
            },
        }
    }

    /// Returns the conversion of chroma: no difference becomes 0, the largest difference becomes half of `most`. The
    /// input values were multiplied by `times`.
    fn of_chroma(depth: u8, is_full: bool, most: f32, times: f32) -> Self {
        let step = f32::from(1u16 << (depth - 8));
        let whole = if is_full {
            step * 256.0 - 1.0
        } else {
            224.0 * step
        };
        Self {
            zero: 128.0 * step * times,
            scale: most / (whole * times),
        }
    }

    fn apply(self, number: f32) -> f32 {
        (number - self.zero) * self.scale
    }
}

/// The factor by which enlarged chroma values are multiplied: weights are quarters in both directions.
const QUARTERS: f32 = 16.0;

impl<T: Output> Canvas<'_, T> {
    /// Draws a picture, in colour or grey, at an offset in pixels, as far as it lies inside the canvas. Alpha does not
    /// change.
    pub(super) fn draw<S: Sample>(
        &mut self,
        picture: &Picture,
        offset: (usize, usize),
        points: CodePoints,
        config: Config,
    ) -> Result<(), ImageError> {
        let luma = plane::<S>(picture, 0)?;
        if config.is_grey {
            return self.draw_channel(luma, 0, offset, (config.depth, points.is_full));
        }
        let (blue, red) = (plane::<S>(picture, 1)?, plane::<S>(picture, 2)?);
        let matrix = Matrix::of(points)?;
        let shifts = picture.chroma_shifts();
        if matrix == Matrix::Identity && shifts != (0, 0) {
            return Err(corrupt(
                "channels of red, green and blue with different sides",
            ));
        }
        let of_luma = Range::of_luma(config.depth, points.is_full, T::MAX);
        let of_chroma = Range::of_chroma(config.depth, points.is_full, T::MAX, QUARTERS);
        let (mut blues, mut reds) = (Enlarged::new(shifts), Enlarged::new(shifts));
        let channels = self.channels;
        for (y, row) in self.rows(offset).enumerate() {
            let Some(lumas) = luma.row(y) else {
                break;
            };
            blues.fill(blue, y);
            reds.fill(red, y);
            let numbers = lumas.iter().zip(blues.row()).zip(reds.row());
            for (pixel, ((&luma, &blue), &red)) in row.chunks_exact_mut(channels).zip(numbers) {
                let luma = of_luma.apply(luma.into() as f32);
                let colors = match matrix {
                    Matrix::Identity => {
                        let [blue, red] = [blue, red].map(|n| of_luma.apply(n as f32 / QUARTERS));
                        [red, luma, blue]
                    }
                    Matrix::Sums(sums) => {
                        let [blue, red] = [blue, red].map(|n| of_chroma.apply(n as f32));
                        sums.map(|[of_blue, of_red]| luma + of_blue * blue + of_red * red)
                    }
                };
                for (sample, color) in pixel.iter_mut().zip(colors) {
                    *sample = T::rounded(color);
                }
            }
        }
        Ok(())
    }

    /// Draws a picture as the alpha channel.
    pub(super) fn draw_alpha<S: Sample>(
        &mut self,
        picture: &Picture,
        offset: (usize, usize),
        (depth, is_full): (u8, bool),
    ) -> Result<(), ImageError> {
        let luma = plane::<S>(picture, 0)?;
        self.draw_channel(luma, self.channels - 1, offset, (depth, is_full))
    }

    fn draw_channel<S: Sample>(
        &mut self,
        plane: Plane<'_, S>,
        channel: usize,
        offset: (usize, usize),
        (depth, is_full): (u8, bool),
    ) -> Result<(), ImageError> {
        let range = Range::of_luma(depth, is_full, T::MAX);
        let channels = self.channels;
        for (y, row) in self.rows(offset).enumerate() {
            let Some(numbers) = plane.row(y) else {
                break;
            };
            let samples = row.iter_mut().skip(channel).step_by(channels);
            for (sample, &number) in samples.zip(numbers) {
                *sample = T::rounded(range.apply(number.into() as f32));
            }
        }
        Ok(())
    }

    /// Returns the part of each row to the right of the offset, from the offset's row on.
    fn rows(&mut self, (left, top): (usize, usize)) -> impl Iterator<Item = &mut [T]> {
        let start = left.min(self.width) * self.channels;
        let rows = self.samples.chunks_exact_mut(self.width * self.channels);
        let rows = rows.take(self.height).skip(top);
        rows.map(move |row| &mut row[start..])
    }
}

fn plane<S: Sample>(picture: &Picture, number: usize) -> Result<Plane<'_, S>, ImageError> {
    let plane = picture.plane(number);
    plane.ok_or_else(|| corrupt("its picture lacks a channel"))
}

/// A row of chroma at the width of luma, with values multiplied by 16. A chroma sample is in the middle of its pixels,
/// so the two chroma samples nearest to a pixel are one quarter and three quarters of a chroma sample away.
struct Enlarged {
    shifts: (u32, u32),
    /// The row at its stored width, with values multiplied by 4.
    narrow: Vec<u32>,
    wide: Vec<u32>,
}

impl Enlarged {
    const fn new(shifts: (u32, u32)) -> Self {
        Self {
            shifts,
            narrow: Vec::new(),
            wide: Vec::new(),
        }
    }

    fn row(&self) -> &[u32] {
        &self.wide
    }

    /// Computes the row for row `y` of luma.
    fn fill<S: Sample>(&mut self, plane: Plane<'_, S>, y: usize) {
        let near = y >> self.shifts.1;
        let far = match (self.shifts.1, y % 2) {
            (0, _) => near,
            (_, 0) => near.saturating_sub(1),
            _ => near + 1,
        };
        let near = plane.row(near).unwrap_or_default();
        let far = plane.row(far).unwrap_or(near);
        let both = near.iter().zip(far);
        self.narrow.clear();
        self.narrow
            .extend(both.map(|(&near, &far)| 3 * near.into() + far.into()));
        self.wide.clear();
        if self.shifts.0 == 0 {
            self.wide
                .extend(self.narrow.iter().map(|number| 4 * number));
            return;
        }
        let mut before = self.narrow.first().copied().unwrap_or_default();
        for (at, &number) in self.narrow.iter().enumerate() {
            let after = self.narrow.get(at + 1).copied().unwrap_or(number);
            self.wide.extend([3 * number + before, 3 * number + after]);
            before = number;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_the_range_become_its_ends() {
        assert_eq!((u8::rounded(-3.0), u8::rounded(300.0)), (0, 255));
        assert_eq!((u8::rounded(1.4), u8::rounded(1.6)), (1, 2));
        let limited = Range::of_luma(10, false, 255.0);
        assert_eq!((limited.apply(64.0), limited.apply(940.0)), (0.0, 255.0));
        let full = Range::of_luma(12, true, 65_535.0);
        assert!((full.apply(4095.0) - 65_535.0).abs() < 0.1);
        let chroma = Range::of_chroma(8, false, 1.0, QUARTERS);
        assert_eq!(
            (
                chroma.apply(128.0 * QUARTERS),
                chroma.apply(240.0 * QUARTERS)
            ),
            (0.0, 0.5)
        );
    }

    #[test]
    fn chroma_leaves_luma_as_it_is() {
        let points = |matrix| CodePoints {
            primaries: 1,
            transfer: 13,
            matrix,
            is_full: true,
        };
        for (matrix, [red, blue]) in [
            (1, [0.2126, 0.0722]),
            (2, [0.299, 0.114]),
            (9, [0.2627, 0.0593]),
        ] {
            let Ok(Matrix::Sums([in_red, in_green, in_blue])) = Matrix::of(points(matrix)) else {
                panic!("{matrix}");
            };
            for at in 0..2 {
                let green = 1.0 - red - blue;
                let sum = red * in_red[at] + green * in_green[at] + blue * in_blue[at];
                assert!(sum.abs() < 1e-6, "{matrix}: {sum}");
            }
        }
        for matrix in [3, 10, 11, 13, 14, 255] {
            assert!(Matrix::of(points(matrix)).is_err(), "{matrix}");
        }
    }
}
