//! Decoding of fax (ITU-T T.4 and T.6), with the code tables of the `fax` crate: Huffman-coded rows, Group 3 in one and
//! two dimensions, and Group 4.

use std::convert::Infallible;

use fax::maps::{Mode, black, mode, white};
use fax::{BitReader, ByteReader};

/// The coding of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fax {
    /// Rows of runs. Each row begins at a byte.
    Huffman,
    /// Rows of runs, or of changes from the row above if the bit after an end of line says so.
    Group3 { two_dimensional: bool },
    /// Rows of changes from the row above.
    Group4,
}

/// The code of an end of line.
const END_OF_LINE: u16 = 1;
const END_BITS: u8 = 12;

/// Appended to the data, because the lookup of a code reads beyond the last code. No end of line starts with ones.
const PADDING: [u8; 2] = [0xff; 2];
const PADDING_BITS: u8 = 16;

/// Decodes up to `rows` rows of `width` pixels. Set bits are black runs. Returns fewer rows if the data ends or, except
/// in Group 3, is invalid; and whether all codes of these rows are valid.
pub(super) fn decode(data: &[u8], width: usize, rows: usize, fax: Fax) -> (Vec<u8>, bool) {
    let padded = data.iter().chain(&PADDING).copied().map(Ok);
    let Ok(mut bits) = ByteReader::<_>::new(padded);
    let mut out = Vec::with_capacity(width.div_ceil(8) * rows);
    // The positions at which the row above changes colour. The first change is to black.
    let mut above = Vec::new();
    let mut is_valid = true;
    for _ in 0..rows {
        let row = match fax {
            Fax::Huffman => {
                let row = runs(&mut bits, width);
                let rest = bits.bits_to_byte_boundary();
                let _ = bits.consume(rest);
                row
            }
            Fax::Group3 { two_dimensional } => {
                let ended = skip_to_row(&mut bits);
                let is_flat = match two_dimensional && ended {
                    true => {
                        let flat = bits.peek(1) != Some(0);
                        let _ = bits.consume(1);
                        flat
                    }
                    false => !two_dimensional,
                };
                // Six ends of line in a row end the data.
                if ended && bits.peek(END_BITS) == Some(END_OF_LINE) {
                    break;
                }
                let row = match is_flat {
                    true => runs(&mut bits, width),
                    false => changes(&mut bits, width, &above),
                };
                row.or_else(|| {
                    let row = resumed(&mut bits, &above)?;
                    is_valid = false;
                    Some(row)
                })
            }
            Fax::Group4 => changes(&mut bits, width, &above),
        };
        let Some(mut row) = row else { break };
        if bits.peek(PADDING_BITS).is_none() {
            // The last code of the row is truncated.
            break;
        }
        is_valid &= row.last().is_none_or(|&end| end <= width);
        row.iter_mut().for_each(|end| *end = width.min(*end));
        paint(&row, width, &mut out);
        above = row;
    }
    (out, is_valid)
}

type Bits<'a, R> = &'a mut ByteReader<R>;

/// Consumes fill bits and an end of line. Returns whether there was an end of line.
fn skip_to_row<R: Iterator<Item = Result<u8, Infallible>>>(bits: Bits<'_, R>) -> bool {
    // No code of a run starts with eleven zeros.
    if bits.peek(END_BITS - 1) != Some(0) {
        return false;
    }
    while bits.peek(1) == Some(0) {
        let _ = bits.consume(1);
    }
    let ended = bits.peek(1).is_some();
    let _ = bits.consume(1);
    ended
}

/// Skips to the next end of line after an invalid code, and returns a copy of the row above. `None` at the end of the
/// data.
fn resumed<R: Iterator<Item = Result<u8, Infallible>>>(
    bits: Bits<'_, R>,
    above: &[usize],
) -> Option<Vec<usize>> {
    while bits.peek(END_BITS - 1)? != 0 {
        let _ = bits.consume(1);
    }
    Some(above.to_vec())
}

/// Reads the length of a run: any number of make-up codes, and a terminating code.
fn run<R: Iterator<Item = Result<u8, Infallible>>>(
    bits: Bits<'_, R>,
    is_black: bool,
) -> Option<usize> {
    let mut sum = 0;
    loop {
        let part = match is_black {
            true => black::decode(bits)?,
            false => white::decode(bits)?,
        };
        sum += usize::from(part);
        if part < 64 {
            return Some(sum);
        }
    }
}

/// Decodes a row of runs. Returns the positions at which it changes colour; the last may be beyond the row.
fn runs<R: Iterator<Item = Result<u8, Infallible>>>(
    bits: Bits<'_, R>,
    width: usize,
) -> Option<Vec<usize>> {
    let mut row = Vec::new();
    let (mut at, mut is_black) = (0, false);
    while at < width {
        at += run(bits, is_black)?;
        row.push(at);
        is_black = !is_black;
    }
    Some(row)
}

/// Decodes a row of changes from the row above. The last may be beyond the row.
fn changes<R: Iterator<Item = Result<u8, Infallible>>>(
    bits: Bits<'_, R>,
    width: usize,
    above: &[usize],
) -> Option<Vec<usize>> {
    let mut row: Vec<usize> = Vec::new();
    let (mut at, mut is_black, mut is_start) = (0, false, true);
    while at < width {
        // In the row above: the first change to the other colour to the right of this position, and the change after
        // it.
        let mut next = above.partition_point(|&change| change < at || change == at && !is_start);
        if next % 2 != usize::from(is_black) {
            next += 1;
        }
        let change = |index: usize| above.get(index).copied().unwrap_or(width);
        let (first, second) = (change(next), change(next + 1));
        match mode::decode(bits)? {
            Mode::Pass => at = second,
            Mode::Vertical(offset) => {
                at = first.checked_add_signed(isize::from(offset))?;
                if at > width || row.last().is_some_and(|&last| at < last) {
                    return None;
                }
                row.push(at);
                is_black = !is_black;
            }
            Mode::Horizontal => {
                for color in [is_black, !is_black] {
                    at += run(bits, color)?;
                    row.push(at);
                }
            }
            Mode::Extension | Mode::EOF => return None,
        }
        is_start = false;
    }
    Some(row)
}

/// Appends a row with its black runs set.
fn paint(row: &[usize], width: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + width.div_ceil(8), 0);
    let line = &mut out[start..];
    for run in row.chunks(2) {
        let (from, to) = (run[0], run.get(1).copied().unwrap_or(width));
        for x in from..to {
            line[x / 8] |= 0x80 >> (x % 8);
        }
    }
}
