//! A JPEG at one eighth of its size, without decoding what an eighth does not show.
//!
//! At this scale a block is one pixel: its mean, the first of its 64 coefficients. libjpeg still
//! decodes the other 63 one by one, and that is most of a thumbnail's time. Here they are skipped,
//! several per look into a table, because where a symbol ends is known without its value. Only
//! chroma of 4:2:0 keeps its coefficients: it has half the pixels, so that its blocks yield 2×2.
//!
//! The pixels are bit for bit those of libjpeg (a test compares them). What is not the most common
//! kind of file (sequential, Huffman-coded, one scan, grey or YCbCr in 4:4:4, 4:2:2 or 4:2:0), and
//! what is broken in any way, is `None`: libjpeg then decodes it, or says what is wrong.

use super::super::pixels::{Color, Pixels, Samples};
use super::super::resample::take_buffer;
use super::huffman::{BLOCKS, Bits, Skips, Table};

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

/// Where in zigzag order each coefficient lies in its block, row by row.
#[rustfmt::skip]
const NATURAL: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// One colour component: how it is coded, and its plane as far as it is decoded.
#[derive(Debug)]
struct Component {
    id: u8,
    /// Blocks per MCU, across and down.
    across: usize,
    down: usize,
    quant_table: usize,
    quant: [u16; 64],
    dc_table: usize,
    ac_table: usize,
    /// How to skip the coefficients; `None` if a block yields 2×2 pixels instead of one.
    skips: Option<Skips>,
    last_dc: i32,
    stride: usize,
    plane: Vec<u8>,
}

/// The header, as far as it is needed.
#[derive(Debug, Default)]
struct Header {
    width: usize,
    height: usize,
    restart: usize,
    quant: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    components: Vec<Component>,
}

/// The whole picture at one eighth, or `None` if it is not of the kind this is made for.
pub(super) fn decode(input: &[u8]) -> Option<Eighth> {
    let (mut header, data) = parse(input)?;
    let grey = header.components.len() == 1;
    if grey {
        // A scan of one component has one block per MCU, whatever its sampling says.
        let only = &mut header.components[0];
        (only.across, only.down) = (1, 1);
    }
    let (most_across, most_down) = (header.components[0].across, header.components[0].down);
    let others = &header.components[1..];
    if !matches!((most_across, most_down), (1, 1) | (2, 1) | (2, 2))
        || others.iter().any(|c| (c.across, c.down) != (1, 1))
    {
        return None;
    }
    debug_assert!(most_across * most_down + others.len() <= BLOCKS);
    let double = (most_across, most_down) == (2, 2);
    let shown_as_one = if double { 1 } else { header.components.len() };
    for component in &mut header.components[..shown_as_one] {
        component.skips = Some(header.ac[component.ac_table].as_ref()?.skips());
    }
    let mcus_across = header.width.div_ceil(8 * most_across);
    let mcus_down = header.height.div_ceil(8 * most_down);
    for component in &mut header.components {
        let scale = if component.skips.is_none() { 2 } else { 1 };
        component.stride = mcus_across * component.across * scale;
        let rows = mcus_down * component.down * scale;
        component.plane = vec![0; component.stride * rows];
    }
    scan(&mut header, data, mcus_across, mcus_down)?;
    finished(&header, most_across)
}

/// Reads segments up to the scan's data; only what [`decode`] takes gets through.
fn parse(input: &[u8]) -> Option<(Header, &[u8])> {
    let mut header = Header::default();
    let mut at = 2;
    loop {
        if *input.get(at)? != 0xff {
            return None;
        }
        let marker = *input.get(at + 1)?;
        if marker == 0xff {
            at += 1;
            continue;
        }
        let length = usize::from(u16::from_be_bytes([
            *input.get(at + 2)?,
            *input.get(at + 3)?,
        ]));
        let segment = input.get(at + 4..at + 2 + length)?;
        at += 2 + length;
        match marker {
            0xdb => read_quantization(segment, &mut header.quant)?,
            0xc4 => read_huffman(segment, &mut header)?,
            0xc0 | 0xc1 if header.components.is_empty() => read_frame(segment, &mut header)?,
            0xdd => {
                header.restart = usize::from(u16::from_be_bytes(segment.try_into().ok()?));
            }
            0xda => {
                read_scan(segment, &mut header)?;
                return Some((header, &input[at..]));
            }
            // Application data and comments.
            0xe0..=0xef | 0xfe => {}
            _ => return None,
        }
    }
}

fn read_quantization(mut segment: &[u8], tables: &mut [Option<[u16; 64]>; 4]) -> Option<()> {
    while let Some((&head, rest)) = segment.split_first() {
        let wide = head >> 4 != 0;
        let values = rest.get(..if wide { 128 } else { 64 })?;
        let mut table = [0; 64];
        for (index, &place) in NATURAL.iter().enumerate() {
            table[usize::from(place)] = if wide {
                u16::from_be_bytes([values[2 * index], values[2 * index + 1]])
            } else {
                values[index].into()
            };
        }
        *tables.get_mut(usize::from(head & 15))? = Some(table);
        segment = &rest[values.len()..];
    }
    Some(())
}

fn read_huffman(mut segment: &[u8], header: &mut Header) -> Option<()> {
    while let Some((&head, rest)) = segment.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>()?;
        let symbols = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(symbols)?;
        let tables = match head >> 4 {
            0 => &mut header.dc,
            1 => &mut header.ac,
            _ => return None,
        };
        *tables.get_mut(usize::from(head & 15))? = Some(Table::new(counts, symbols)?);
        segment = rest;
    }
    Some(())
}

fn read_frame(segment: &[u8], header: &mut Header) -> Option<()> {
    let (&[8, h1, h0, w1, w0, count], parts) = segment.split_first_chunk::<6>()? else {
        return None;
    };
    header.height = usize::from(u16::from_be_bytes([h1, h0]));
    header.width = usize::from(u16::from_be_bytes([w1, w0]));
    let (parts, rest) = parts.as_chunks::<3>();
    if !matches!(count, 1 | 3) || parts.len() != usize::from(count) || !rest.is_empty() {
        return None;
    }
    for &[id, sampling, table] in parts {
        header.components.push(Component {
            id,
            across: usize::from(sampling >> 4),
            down: usize::from(sampling & 15),
            quant_table: table.into(),
            // The tables are looked up when the scan begins and they must be there.
            quant: [0; 64],
            dc_table: 0,
            ac_table: 0,
            skips: None,
            last_dc: 0,
            stride: 0,
            plane: Vec::new(),
        });
    }
    (header.width > 0 && header.height > 0).then_some(())
}

fn read_scan(segment: &[u8], header: &mut Header) -> Option<()> {
    let (&count, rest) = segment.split_first()?;
    let (parts, spectrum) = rest.split_at_checked(2 * usize::from(count))?;
    if usize::from(count) != header.components.len() || spectrum != [0, 63, 0] || count == 0 {
        return None;
    }
    for (component, part) in header.components.iter_mut().zip(parts.chunks_exact(2)) {
        let (dc, ac) = (usize::from(part[1] >> 4), usize::from(part[1] & 15));
        if part[0] != component.id || header.dc.get(dc)?.is_none() || header.ac.get(ac)?.is_none() {
            return None;
        }
        (component.dc_table, component.ac_table) = (dc, ac);
        component.quant = (*header.quant.get(component.quant_table)?)?;
    }
    Some(())
}

/// Decodes the scan into the components' planes.
fn scan(header: &mut Header, data: &[u8], mcus_across: usize, mcus_down: usize) -> Option<()> {
    let Header {
        restart,
        dc,
        ac,
        components,
        ..
    } = header;
    let mut bits = Bits::new(data);
    let mut until_restart = *restart;
    for row in 0..mcus_down {
        for column in 0..mcus_across {
            if *restart > 0 {
                if until_restart == 0 {
                    bits.restart()?;
                    components.iter_mut().for_each(|c| c.last_dc = 0);
                    until_restart = *restart;
                }
                until_restart -= 1;
            }
            bits.begin_mcu();
            for component in components.iter_mut() {
                let dc = dc[component.dc_table].as_ref()?;
                let ac = ac[component.ac_table].as_ref()?;
                for y in 0..component.down {
                    for x in 0..component.across {
                        let x = column * component.across + x;
                        let y = row * component.down + y;
                        component.block(&mut bits, dc, ac, x, y)?;
                    }
                }
            }
        }
    }
    bits.ended_within_data().then_some(())
}

impl Component {
    /// Decodes one block and writes its pixel, or its four, to the plane.
    #[inline]
    fn block(&mut self, bits: &mut Bits, dc: &Table, ac: &Table, x: usize, y: usize) -> Option<()> {
        let difference = bits.dc_difference(dc)?;
        // As wide as libjpeg keeps it.
        self.last_dc = i32::from(self.last_dc.wrapping_add(difference) as i16);
        let mean = |dc: i32| level((i64::from(dc) + 4) >> 3);
        let first = self.last_dc * i32::from(self.quant[0]);
        if let Some(skips) = &self.skips {
            bits.skip_ac(ac, skips)?;
            self.plane[y * self.stride + x] = mean(first);
            return Some(());
        }
        let mut block = [0i16; 64];
        let flat = bits.ac(ac, &mut block, &NATURAL)?;
        let four = if flat {
            [[mean(first); 2]; 2]
        } else {
            block[0] = self.last_dc as i16;
            two_by_two(&block, &self.quant)
        };
        let at = 2 * y * self.stride + 2 * x;
        self.plane[at..at + 2].copy_from_slice(&four[0]);
        self.plane[at + self.stride..at + self.stride + 2].copy_from_slice(&four[1]);
        Some(())
    }
}

/// A sample from what the transform yields around zero.
#[inline]
fn level(value: i64) -> u8 {
    (value + 128).clamp(0, 255) as u8
}

/// The inverse transform to 2×2 pixels, in libjpeg's arithmetic (jidctred.c): 13 bits of fraction,
/// two more between the passes.
fn two_by_two(block: &[i16; 64], quant: &[u16; 64]) -> [[u8; 2]; 2] {
    /// Weights of rows (or columns) 1, 3, 5 and 7; the even ones cancel out.
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

/// The planes as pixels.
fn finished(header: &Header, most_across: usize) -> Option<Eighth> {
    let (width, height) = (header.width.div_ceil(8), header.height.div_ceil(8));
    let [luma, chroma @ ..] = header.components.as_slice() else {
        return None;
    };
    let channels = header.components.len();
    let mut samples = take_buffer(width * height * channels).ok()?;
    let row_of = |component: &Component, y: usize| y * component.stride;
    let [blue, red] = chroma else {
        for (y, out) in samples.chunks_exact_mut(width).enumerate() {
            let at = row_of(luma, y);
            out.copy_from_slice(&luma.plane[at..at + width]);
        }
        return Some(Eighth {
            width,
            height,
            channels,
            samples,
        });
    };
    // 4:2:2 has one chroma pixel for two: it is repeated. The others have one each.
    let repeat = if blue.skips.is_none() { 1 } else { most_across };
    for (y, out) in samples.chunks_exact_mut(width * 3).enumerate() {
        let luma = &luma.plane[row_of(luma, y)..][..width];
        let blue = &blue.plane[row_of(blue, y)..][..width.div_ceil(repeat)];
        let red = &red.plane[row_of(red, y)..][..width.div_ceil(repeat)];
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
