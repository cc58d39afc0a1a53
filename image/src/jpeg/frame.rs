//! The frame of the most common JPEGs: sequential, Huffman-coded, one scan, grey or YCbCr in 4:4:4, 4:2:2 or 4:2:0.
//!
//! For all other files, and for broken ones, the functions return `None`: libjpeg then decodes them or reports the
//! error. This includes files in which anything but the end follows the scan, which only libjpeg reads.

use super::huffman::{BLOCKS, Bits, Table};
use super::markers::segments;
use super::vectors::vectorized;

/// For each coefficient in zigzag order, its row-major position in a block.
#[rustfmt::skip]
pub(super) const NATURAL: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// For each coefficient in zigzag order, its column-major position in a block.
pub(super) const TRANSPOSED: [u8; 64] = {
    let mut transposed = NATURAL;
    let mut index = 0;
    while index < transposed.len() {
        transposed[index] = NATURAL[index] % 8 * 8 + NATURAL[index] / 8;
        index += 1;
    }
    transposed
};

/// The maximum number of colour components.
pub(super) const COMPONENTS: usize = 3;

/// The coding of one colour component.
#[derive(Debug)]
pub(super) struct Component {
    id: u8,
    /// The number of blocks per MCU, across and down.
    pub(super) across: usize,
    pub(super) down: usize,
    quant_table: usize,
    /// The quantization factors, row by row.
    pub(super) quant: [u16; 64],
    dc_table: usize,
    ac_table: usize,
}

/// The headers, as far as they are needed.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    restart: usize,
    quant: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    /// Luma, and in a colour picture Cb and Cr.
    pub(super) components: Vec<Component>,
}

/// A block whose AC coefficients come next in the data.
pub(super) struct Block<'a> {
    /// The index of the component.
    pub(super) component: usize,
    /// The position in the component, in blocks.
    pub(super) x: usize,
    pub(super) y: usize,
    /// The DC coefficient, before dequantization.
    pub(super) dc: i32,
    /// The code of the AC coefficients.
    pub(super) ac: &'a Table,
}

impl Frame {
    /// Reads the frame of a file. Returns the frame and the data of the scan.
    pub(super) fn read(input: &[u8]) -> Option<(Self, &[u8])> {
        let (mut frame, data) = parse(input)?;
        let (first, others) = frame.components.split_first_mut()?;
        if others.is_empty() {
            // A scan of one component has one block per MCU, whatever its sampling factors are.
            (first.across, first.down) = (1, 1);
        }
        if !matches!((first.across, first.down), (1, 1) | (2, 1) | (2, 2))
            || others.iter().any(|c| (c.across, c.down) != (1, 1))
        {
            return None;
        }
        debug_assert!(first.across * first.down + others.len() <= BLOCKS);
        Some((frame, data))
    }

    /// Returns the number of luma blocks per chroma block, across and down.
    pub(super) fn sampling(&self) -> (usize, usize) {
        (self.components[0].across, self.components[0].down)
    }

    /// Returns the number of MCUs, across and down.
    pub(super) fn mcus(&self) -> (usize, usize) {
        let (across, down) = self.sampling();
        (
            self.width.div_ceil(8 * across),
            self.height.div_ceil(8 * down),
        )
    }

    /// Returns width and height of a component in samples, padded to whole MCUs. `blocks` is its number of blocks per
    /// MCU (across, down), `side` the number of samples per side of a block.
    pub(super) fn padded(&self, blocks: (usize, usize), side: usize) -> (usize, usize) {
        let (across, down) = self.mcus();
        (across * blocks.0 * side, down * blocks.1 * side)
    }

    /// Returns the code of a component's AC coefficients.
    pub(super) fn ac(&self, component: usize) -> Option<&Table> {
        self.ac[self.components[component].ac_table].as_ref()
    }

    /// Visits all blocks in the order of the data. `block`, which must be `#[inline(always)]`, reads the AC
    /// coefficients of each block.
    pub(super) fn scan(
        &self,
        data: &[u8],
        block: impl FnMut(Block<'_>, &mut Bits<'_>) -> Option<()>,
    ) -> Option<()> {
        vectorized(
            #[inline(always)]
            || self.each_block(data, block),
        )
    }

    #[inline(always)]
    fn each_block(
        &self,
        data: &[u8],
        mut block: impl FnMut(Block<'_>, &mut Bits<'_>) -> Option<()>,
    ) -> Option<()> {
        let (mcus_across, mcus_down) = self.mcus();
        let mut bits = Bits::new(data);
        let mut until_restart = self.restart;
        let mut last_dc = [0i32; COMPONENTS];
        for row in 0..mcus_down {
            // A file that announces many more blocks than it has must not cost more time than one row of blocks.
            if !bits.ended_within_data() {
                return None;
            }
            for column in 0..mcus_across {
                if self.restart > 0 {
                    if until_restart == 0 {
                        bits.restart()?;
                        last_dc = [0; COMPONENTS];
                        until_restart = self.restart;
                    }
                    until_restart -= 1;
                }
                bits.begin_mcu();
                for (number, component) in self.components.iter().enumerate() {
                    let dc = self.dc[component.dc_table].as_ref()?;
                    let ac = self.ac[component.ac_table].as_ref()?;
                    for y in 0..component.down {
                        for x in 0..component.across {
                            let last = &mut last_dc[number];
                            // Coefficients have 16 bits.
                            let sum = last.wrapping_add(bits.dc_difference(dc)?);
                            *last = i32::from(sum as i16);
                            let next = Block {
                                component: number,
                                x: column * component.across + x,
                                y: row * component.down + y,
                                dc: *last,
                                ac,
                            };
                            block(next, &mut bits)?;
                        }
                    }
                }
            }
        }
        bits.ended_whole().then_some(())
    }
}

/// Reads the segments up to the data of the scan. Returns `None` for any segment that [`Frame::read`] does not accept.
fn parse(input: &[u8]) -> Option<(Frame, &[u8])> {
    let mut frame = Frame::default();
    for segment in segments(input).take_while(|segment| segment.is_regular) {
        let content = segment.content;
        match segment.marker {
            0xdb => read_quantization(content, &mut frame.quant)?,
            0xc4 => read_huffman(content, &mut frame)?,
            0xc0 | 0xc1 if frame.components.is_empty() => read_frame(content, &mut frame)?,
            0xdd => {
                frame.restart = usize::from(u16::from_be_bytes(content.try_into().ok()?));
            }
            0xda => {
                read_scan(content, &mut frame)?;
                return Some((frame, &input[segment.end..]));
            }
            // Application data and comments.
            0xe0..=0xef | 0xfe => {}
            _ => return None,
        }
    }
    None
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

fn read_huffman(mut segment: &[u8], frame: &mut Frame) -> Option<()> {
    while let Some((&head, rest)) = segment.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>()?;
        let symbols = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(symbols)?;
        let tables = match head >> 4 {
            0 => &mut frame.dc,
            1 => &mut frame.ac,
            _ => return None,
        };
        // A DC difference has at most 15 bits.
        if head >> 4 == 0 && symbols.iter().any(|&size| size > 15) {
            return None;
        }
        *tables.get_mut(usize::from(head & 15))? = Some(Table::new(counts, symbols)?);
        segment = rest;
    }
    Some(())
}

fn read_frame(segment: &[u8], frame: &mut Frame) -> Option<()> {
    let (&[8, h1, h0, w1, w0, count], parts) = segment.split_first_chunk::<6>()? else {
        return None;
    };
    frame.height = usize::from(u16::from_be_bytes([h1, h0]));
    frame.width = usize::from(u16::from_be_bytes([w1, w0]));
    let (parts, rest) = parts.as_chunks::<3>();
    if !matches!(count, 1 | 3) || parts.len() != usize::from(count) || !rest.is_empty() {
        return None;
    }
    for &[id, sampling, table] in parts {
        frame.components.push(Component {
            id,
            across: usize::from(sampling >> 4),
            down: usize::from(sampling & 15),
            quant_table: table.into(),
            // Set when the scan begins: only then must the tables exist.
            quant: [0; 64],
            dc_table: 0,
            ac_table: 0,
        });
    }
    (frame.width > 0 && frame.height > 0).then_some(())
}

fn read_scan(segment: &[u8], frame: &mut Frame) -> Option<()> {
    let (&count, rest) = segment.split_first()?;
    let (parts, spectrum) = rest.split_at_checked(2 * usize::from(count))?;
    if usize::from(count) != frame.components.len() || spectrum != [0, 63, 0] || count == 0 {
        return None;
    }
    for (component, part) in frame.components.iter_mut().zip(parts.chunks_exact(2)) {
        let (dc, ac) = (usize::from(part[1] >> 4), usize::from(part[1] & 15));
        if part[0] != component.id || frame.dc.get(dc)?.is_none() || frame.ac.get(ac)?.is_none() {
            return None;
        }
        (component.dc_table, component.ac_table) = (dc, ac);
        component.quant = (*frame.quant.get(component.quant_table)?)?;
    }
    Some(())
}
