//! Decodes a JPEG at one eighth of its size, without decoding what an eighth does not show.
//!
//! At this scale a block becomes one pixel: its mean, the DC coefficient. libjpeg still decodes the other 63
//! coefficients one by one, which takes most of a thumbnail's time. Here they are skipped, several per table lookup:
//! the end of a symbol is known without its value. Only chroma of 4:2:0 needs its coefficients: it has half the pixels
//! per side, so its blocks become 2×2 pixels.
//!
//! The pixels equal those of libjpeg bit for bit (a test compares them).

use super::super::pixels::{Color, Pixels, Samples};
use super::super::resample::take_buffer;
use super::frame::{Block, Frame, NATURAL};
use super::huffman::{Bits, Skips, Values};

/// Decoded pixels, grey (1 channel) or YCbCr (3).
#[derive(Debug)]
pub(super) struct Eighth {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) samples: Vec<u8>,
}

impl Eighth {
    pub(super) fn into_pixels(self) -> Pixels {
        Pixels {
            width: self.width as u32,
            height: self.height as u32,
            color: match self.channels {
                1 => Color::Gray,
                _ => Color::YCbCr,
            },
            samples: Samples::Eight(self.samples),
        }
    }
}

/// One colour component during decoding.
struct Plane {
    /// How to read the AC coefficients of a block.
    ac: Ac,
    stride: usize,
    samples: Vec<u8>,
}

enum Ac {
    /// AC coefficients are skipped: a block becomes one pixel.
    Skipped(Skips),
    /// AC coefficients are decoded: a block becomes 2×2 pixels.
    Read(Values),
}

impl Ac {
    /// Returns the number of pixels per side of a block.
    fn side(&self) -> usize {
        match self {
            Self::Skipped(_) => 1,
            Self::Read(_) => 2,
        }
    }
}

impl Plane {
    /// Decodes one block and writes its pixel or pixels.
    #[inline(always)]
    fn block(&mut self, block: &Block<'_>, bits: &mut Bits<'_>, quant: &[u16; 64]) -> Option<()> {
        let mean = level((i64::from(block.dc * i32::from(quant[0])) + 4) >> 3);
        let values = match &self.ac {
            Ac::Skipped(skips) => {
                bits.skip_ac(block.ac, skips)?;
                self.samples[block.y * self.stride + block.x] = mean;
                return Some(());
            }
            Ac::Read(values) => values,
        };
        let mut coefficients = [0i16; 64];
        let last = bits.ac(block.ac, values, &mut coefficients, &NATURAL)?;
        let four = if last == 0 {
            [[mean; 2]; 2]
        } else {
            coefficients[0] = block.dc as i16;
            two_by_two(&coefficients, quant)
        };
        let at = 2 * block.y * self.stride + 2 * block.x;
        self.samples[at..at + 2].copy_from_slice(&four[0]);
        self.samples[at + self.stride..at + self.stride + 2].copy_from_slice(&four[1]);
        Some(())
    }
}

/// Decodes the whole picture at one eighth. `None` if this module does not support the file.
pub(super) fn decode(input: &[u8]) -> Option<Eighth> {
    let (frame, data) = Frame::read(input)?;
    let is_double = frame.sampling() == (2, 2);
    let mut planes = Vec::new();
    for (number, component) in frame.components.iter().enumerate() {
        let ac = frame.ac(number)?;
        let coding = match number > 0 && is_double {
            true => Ac::Read(ac.values()),
            false => Ac::Skipped(ac.skips()),
        };
        let blocks = (component.across, component.down);
        let (stride, rows) = frame.padded(blocks, coding.side());
        planes.push(Plane {
            ac: coding,
            stride,
            samples: vec![0; stride * rows],
        });
    }
    frame.scan(
        data,
        #[inline(always)]
        |block, bits| {
            let plane = planes.get_mut(block.component)?;
            plane.block(&block, bits, &frame.components[block.component].quant)
        },
    )?;
    finished(&frame, &planes)
}

/// Converts a result of the transform, which is centred on zero, to a sample.
#[inline(always)]
fn level(value: i64) -> u8 {
    (value + 128).clamp(0, 255) as u8
}

/// Computes the inverse transform to 2×2 pixels, with the arithmetic of libjpeg (jidctred.c): 13 fraction bits, and two
/// more between the two passes.
#[inline(always)]
fn two_by_two(block: &[i16; 64], quant: &[u16; 64]) -> [[u8; 2]; 2] {
    /// The weights of rows (or columns) 1, 3, 5 and 7. Rows and columns 2, 4 and 6 cancel out.
    const ODD: [(usize, i64); 4] = [(7, -5906), (5, 6967), (3, -10_426), (1, 29_692)];
    const COLUMNS: [usize; 5] = [0, 1, 3, 5, 7];
    let rounded = |value: i64, bits: u32| (value + (1 << (bits - 1))) >> bits;
    let mut rows = [[0i64; 8]; 2];
    for column in COLUMNS {
        let at = |row: usize| {
            let index = row * 8 + column;
            i64::from(block[index]) * i64::from(quant[index])
        };
        let even = at(0) << 15;
        let odd: i64 = ODD.iter().map(|&(row, weight)| at(row) * weight).sum();
        rows[0][column] = rounded(even + odd, 13);
        rows[1][column] = rounded(even - odd, 13);
    }
    let half = |row: [i64; 8]| {
        let even = row[0] << 15;
        let odd: i64 = ODD
            .iter()
            .map(|&(column, weight)| row[column] * weight)
            .sum();
        [
            level(rounded(even + odd, 20)),
            level(rounded(even - odd, 20)),
        ]
    };
    [half(rows[0]), half(rows[1])]
}

/// Combines the planes to pixels.
fn finished(frame: &Frame, planes: &[Plane]) -> Option<Eighth> {
    let (width, height) = (frame.width.div_ceil(8), frame.height.div_ceil(8));
    let (luma, chroma) = planes.split_first()?;
    let channels = planes.len();
    let mut samples = take_buffer(width * height * channels).ok()?;
    let row_of = |plane: &Plane, y: usize| y * plane.stride;
    let [blue, red] = chroma else {
        for (y, out) in samples.chunks_exact_mut(width).enumerate() {
            let at = row_of(luma, y);
            out.copy_from_slice(&luma.samples[at..at + width]);
        }
        return Some(Eighth {
            width,
            height,
            channels,
            samples,
        });
    };
    // 4:2:2 has one chroma pixel for two pixels: it is repeated. Other files have one chroma pixel for each pixel.
    let repeat = frame.sampling().0 / blue.ac.side();
    for (y, out) in samples.chunks_exact_mut(width * 3).enumerate() {
        let luma = &luma.samples[row_of(luma, y)..][..width];
        let blue = &blue.samples[row_of(blue, y)..][..width.div_ceil(repeat)];
        let red = &red.samples[row_of(red, y)..][..width.div_ceil(repeat)];
        for (x, (pixel, &luma)) in out.chunks_exact_mut(3).zip(luma).enumerate() {
            pixel.copy_from_slice(&[luma, blue[x / repeat], red[x / repeat]]);
        }
    }
    Some(Eighth {
        width,
        height,
        channels,
        samples,
    })
}
