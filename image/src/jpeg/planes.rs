//! Decodes a JPEG at 2 to 8 eighths of its size, each component at its own scale.
//!
//! The result is resized afterwards, so enlarging chroma to the size of luma first, as libjpeg does, gains nothing.
//! Here chroma keeps its pixels and is resized separately. The inverse transform is also compiled for AVX2; mozjpeg
//! built without an assembler uses no vector instructions.
//!
//! Samples equal libjpeg's up to rounding (a test compares them), except at two and four eighths, where libjpeg
//! averages neighbours.

use super::super::error::ImageError;
use super::super::meta::{Chroma, Levels};
use super::super::pixels::{Color, Pixels, Samples};
use super::super::resample::take_buffer;
use super::super::size::Region;
use super::frame::{Block, Frame, TRANSPOSED};
use super::huffman::{Bits, Values};
use super::inverse::{SIDE, Square, flat, inverse};

/// Samples of luma, or of Cb and Cr interleaved.
struct Plane {
    /// The number of pixels per side of a block.
    side: usize,
    /// The number of samples per pixel.
    channels: usize,
    width: usize,
    height: usize,
    /// The number of samples per row, padded to whole MCUs.
    stride: usize,
    samples: Vec<u8>,
}

/// How a component is decoded.
struct Decoding {
    /// The dequantization factors, column by column.
    quant: [f32; 64],
    values: Values,
}

/// Decodes luma at `eighths`, 2 to 8, and chroma, if any, with at most as many pixels. `regions` of the picture become
/// the results. `None` if this module does not support the file; an error if memory cannot be allocated.
pub(super) fn decode(
    input: &[u8],
    eighths: u32,
    regions: &[Region],
) -> Result<Option<(Pixels, Option<Chroma>)>, ImageError> {
    let Some((frame, data)) = Frame::read(input) else {
        return Ok(None);
    };
    let decodings = frame.components.iter().enumerate().map(|(number, c)| {
        Some(Decoding {
            quant: std::array::from_fn(|index| {
                f32::from(c.quant[index % SIDE * SIDE + index / SIDE])
            }),
            values: frame.ac(number)?.values(),
        })
    });
    let Some(decodings) = decodings.collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let (across, down) = frame.sampling();
    let side = eighths as usize;
    let luma = Plane::new(&frame, side, 1, (across, down))?;
    // Chroma gets as many pixels as luma, if it has them. The direction with less subsampling limits the scale.
    let chroma_side = (side * across.min(down)).min(SIDE);
    let chroma = match frame.components.len() {
        1 => None,
        _ => Some(Plane::new(&frame, chroma_side, 2, (1, 1))?),
    };
    let mut scan = Scan {
        decodings: &decodings,
        luma,
        chroma,
        blue: [[0; SIDE]; SIDE],
    };
    let done = frame.scan(
        data,
        #[inline(always)]
        |block, bits| scan.block(&block, bits),
    );
    if done.is_none() {
        return Ok(None);
    }
    let luma = scan.luma.trimmed();
    let pixels = Pixels {
        width: luma.width as u32,
        height: luma.height as u32,
        color: Color::Gray,
        samples: Samples::Eight(luma.samples),
    };
    let scale = |blocks: usize| chroma_side as f64 / (SIDE * blocks) as f64;
    let chroma = scan.chroma.map(|plane| {
        let plane = plane.trimmed();
        let sides = (plane.width as u32, plane.height as u32);
        let scaled = |region: &Region| region.scaled((scale(across), scale(down)), sides);
        Chroma {
            width: sides.0,
            height: sides.1,
            pairs: plane.samples,
            levels: Levels::Full,
            regions: regions.iter().map(scaled).collect(),
        }
    });
    Ok(Some((pixels, chroma)))
}

impl Plane {
    /// Creates the plane for components with this number of blocks per MCU, across and down.
    fn new(
        frame: &Frame,
        side: usize,
        channels: usize,
        blocks: (usize, usize),
    ) -> Result<Self, ImageError> {
        let most = frame.sampling();
        let scaled = |whole: usize, blocks: usize, most: usize| {
            (whole * side * blocks).div_ceil(SIDE * most)
        };
        let (width, rows) = frame.padded(blocks, side);
        let stride = width * channels;
        Ok(Self {
            side,
            channels,
            width: scaled(frame.width, blocks.0, most.0),
            height: scaled(frame.height, blocks.1, most.1),
            stride,
            samples: take_buffer(stride * rows)?,
        })
    }

    /// Writes N × N samples from offset `at` on.
    #[inline(always)]
    fn put<const N: usize>(&mut self, at: usize, square: &Square) -> Option<()> {
        for (row, from) in square.iter().enumerate().take(N) {
            let into = self.samples.get_mut(at + row * self.stride..)?;
            let into = into.first_chunk_mut::<N>()?;
            into.copy_from_slice(&from[..N]);
        }
        Some(())
    }

    /// Writes N × N pairs from offset `at` on.
    #[inline(always)]
    fn put_pairs<const N: usize>(
        &mut self,
        at: usize,
        firsts: &Square,
        seconds: &Square,
    ) -> Option<()> {
        for row in 0..N {
            let into = self.samples.get_mut(at + row * self.stride..)?;
            let pairs = into.get_mut(..2 * N)?.as_chunks_mut::<2>().0;
            for (column, pair) in pairs.iter_mut().enumerate() {
                *pair = [firsts[row][column], seconds[row][column]];
            }
        }
        Some(())
    }

    /// Removes the padding beyond the picture that the last MCUs have.
    fn trimmed(mut self) -> Self {
        let row = self.width * self.channels;
        if row < self.stride {
            for y in 1..self.height {
                let from = y * self.stride;
                self.samples.copy_within(from..from + row, y * row);
            }
        }
        self.samples.truncate(row * self.height);
        self.stride = row;
        self
    }
}

/// The planes under construction.
struct Scan<'a> {
    decodings: &'a [Decoding],
    luma: Plane,
    chroma: Option<Plane>,
    /// The last block of Cb, until the block of Cr is decoded.
    blue: Square,
}

impl Scan<'_> {
    #[inline(always)]
    fn block(&mut self, block: &Block<'_>, bits: &mut Bits<'_>) -> Option<()> {
        let side = match block.component {
            0 => self.luma.side,
            _ => self.chroma.as_ref()?.side,
        };
        match side {
            2 => self.shown::<2>(block, bits),
            3 => self.shown::<3>(block, bits),
            4 => self.shown::<4>(block, bits),
            5 => self.shown::<5>(block, bits),
            6 => self.shown::<6>(block, bits),
            7 => self.shown::<7>(block, bits),
            8 => self.shown::<8>(block, bits),
            _ => None,
        }
    }

    /// Decodes a block to N × N samples.
    #[inline(always)]
    fn shown<const N: usize>(&mut self, block: &Block<'_>, bits: &mut Bits<'_>) -> Option<()> {
        /// Coefficients up to this index, in zigzag order, are in the first four rows and columns.
        const IN_FOUR: usize = 9;
        let Decoding { quant, values } = self.decodings.get(block.component)?;
        let mut coefficients = [0; 64];
        let last = bits.ac(block.ac, values, &mut coefficients, &TRANSPOSED)?;
        coefficients[0] = block.dc as i16;
        let square = match last {
            0 => flat(f32::from(coefficients[0]) * quant[0]),
            1..=IN_FOUR => inverse::<N, 4>(&coefficients, quant),
            _ => inverse::<N, SIDE>(&coefficients, quant),
        };
        let plane = match block.component {
            0 => &mut self.luma,
            _ => self.chroma.as_mut()?,
        };
        let at = block.y * N * plane.stride + block.x * N * plane.channels;
        match block.component {
            0 => plane.put::<N>(at, &square),
            1 => {
                self.blue = square;
                Some(())
            }
            _ => plane.put_pairs::<N>(at, &self.blue, &square),
        }
    }
}
