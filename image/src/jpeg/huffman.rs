//! Huffman codes of a JPEG scan. One table lookup skips several symbols, or reads a symbol with its value.

use super::markers::MAX_PADDING;

/// The number of bits per lookup of one symbol. Longer codes are rare by construction.
const LOOK: u32 = 10;
/// The number of bits per lookup of several symbols. More bits save steps until the table, 16 KiB here, no longer fits
/// the L1 cache together with the other data.
const FAR_LOOK: u32 = 13;

/// A Huffman table, in two forms.
pub(super) struct Table {
    /// For each value of the next `LOOK` bits: length of the code (high byte) and symbol (low byte). 0 if the code is
    /// longer.
    codes: Box<[u16; 1 << LOOK]>,
    /// For each length: the largest code, and the difference between the index of a symbol and its code.
    longest: [(i32, i32); 17],
    symbols: Vec<u8>,
}

/// For each value of the next `FAR_LOOK` bits: the symbols whose codes are within these bits, with their values.
pub(super) struct Skips(Box<[Skip; 1 << FAR_LOOK]>);

/// The number of bits per lookup of a symbol with its value.
const VALUE_LOOK: u32 = 10;

/// The number of lookups per full window: each takes at most `VALUE_LOOK` bits, except the last, whose code and value
/// may have any length.
const LOOKS: u32 = 1 + (56 - 31) / VALUE_LOOK;

/// For each value of the next `VALUE_LOOK` bits: a symbol with its value, if both are within these bits.
pub(super) struct Values(Box<[Value; 1 << VALUE_LOOK]>);

/// A symbol and its value: the length of both in the low 8 bits, the number of coefficients to advance in the next 8,
/// and the value in the bits above. 0 if symbol and value do not fit in a lookup.
#[derive(Clone, Copy, Default)]
struct Value(u32);

impl Value {
    /// An advance beyond all coefficients: the symbol ends the block.
    const END: u32 = 64;

    #[inline(always)]
    fn bits(self) -> u32 {
        self.0 & 0xff
    }

    #[inline(always)]
    fn advance(self) -> u32 {
        self.0 >> 8 & 0xff
    }

    #[inline(always)]
    fn value(self) -> i16 {
        (self.0 >> 16) as i16
    }
}

/// Several symbols, in 16 bits: the total length in the low 5 bits, in the next bit whether the last symbol ends the
/// block, and above that the number of coefficients. 0 if not even the first symbol's code fits.
#[derive(Clone, Copy, Default)]
struct Skip(u16);

impl Skip {
    const END: u16 = 1 << 5;

    /// Returns the total length in bits, values included: at most 13 + 15.
    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.0 & 31)
    }

    #[inline(always)]
    fn ends(self) -> bool {
        self.0 & Self::END != 0
    }

    /// Returns the number of coefficients that the symbols encode.
    #[inline(always)]
    fn coefficients(self) -> u32 {
        u32::from(self.0 >> 6)
    }
}

impl std::fmt::Debug for Skips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Skips of {} entries", self.0.len())
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table of {} symbols", self.symbols.len())
    }
}

/// Decomposes an AC symbol: whether it ends its block, the number of coefficients that it encodes, and the number of
/// bits of the value that follows.
#[inline(always)]
fn ac_symbol(symbol: u8) -> (bool, u32, u32) {
    let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
    (size == 0 && zeros != 15, zeros + 1, size)
}

impl Table {
    /// Builds the table from the number of codes of each length from 1 to 16, and the symbols in order. `None` if
    /// counts and symbols are not those of a valid code.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut codes = Box::new([0u16; 1 << LOOK]);
        let mut longest = [(-1, 0); 17];
        let (mut code, mut index) = (0i32, 0);
        for (length, &count) in (1u32..).zip(counts) {
            let first = code;
            longest[length as usize].1 = index as i32 - code;
            for &symbol in symbols.get(index..index + usize::from(count))? {
                if length <= LOOK {
                    let start = (code as usize) << (LOOK - length);
                    let entry = (length as u16) << 8 | u16::from(symbol);
                    codes
                        .get_mut(start..start + (1 << (LOOK - length)))?
                        .fill(entry);
                }
                code += 1;
            }
            index += usize::from(count);
            // A code of all ones is invalid.
            if code > first && code >= 1 << length {
                return None;
            }
            if code > first {
                longest[length as usize].0 = code - 1;
            }
            code <<= 1;
        }
        Some(Self {
            codes,
            longest,
            symbols: symbols.to_vec(),
        })
    }

    /// Returns the first symbol in `look`, which has `FAR_LOOK` bits, and the length of its code. Only the first
    /// `known` bits are data.
    fn first(&self, look: usize, known: u32) -> Option<(u8, u32)> {
        let entry = self.codes[look >> (FAR_LOOK - LOOK)];
        if entry != 0 {
            let length = u32::from(entry >> 8);
            return (length <= known).then_some((entry as u8, length));
        }
        (LOOK + 1..=known).find_map(|length| {
            let code = (look >> (FAR_LOOK - length)) as i32;
            let (largest, offset) = self.longest[length as usize];
            let index = usize::try_from(code + offset).ok()?;
            (code <= largest).then(|| self.symbols.get(index).map(|&symbol| (symbol, length)))?
        })
    }

    /// Builds the table for reading values.
    pub(super) fn values(&self) -> Values {
        let mut values = Box::new([Value::default(); 1 << VALUE_LOOK]);
        for (look, entry) in values.iter_mut().enumerate() {
            let Some((symbol, length)) = self.first(look << (FAR_LOOK - VALUE_LOOK), VALUE_LOOK)
            else {
                continue;
            };
            let (end, advance, size) = ac_symbol(symbol);
            if end {
                *entry = Value(length | Value::END << 8);
            } else if length + size <= VALUE_LOOK {
                let raw = (look >> (VALUE_LOOK - length - size)) & ((1 << size) - 1);
                let value = signed(raw as i32, size);
                *entry = Value((length + size) | advance << 8 | (value as u32) << 16);
            }
        }
        Values(values)
    }

    /// Builds the table for skipping.
    pub(super) fn skips(&self) -> Skips {
        let mut skips = Box::new([Skip::default(); 1 << FAR_LOOK]);
        for (look, skip) in skips.iter_mut().enumerate() {
            *skip = self.skip(look);
        }
        Skips(skips)
    }

    fn skip(&self, look: usize) -> Skip {
        let mut skip = Skip::default();
        let mut bits = 0;
        let mut coefficients = 0;
        while bits < FAR_LOOK && !skip.ends() {
            let rest = (look << bits) & ((1 << FAR_LOOK) - 1);
            let Some((symbol, length)) = self.first(rest, FAR_LOOK - bits) else {
                break;
            };
            let (end, advance, size) = ac_symbol(symbol);
            // The value may extend beyond these bits, since it is not read.
            bits += length + if end { 0 } else { size };
            coefficients += if end { 0 } else { advance };
            let end = if end { Skip::END } else { 0 };
            skip = Skip(bits as u16 | end | (coefficients as u16) << 6);
        }
        skip
    }
}

/// The bits of a scan, with stuffing removed. Reads beyond the end return zeros;
/// [`ended_within_data`](Self::ended_within_data) detects such reads.
pub(super) struct Bits<'a> {
    /// Input that is still stuffed. When all bytes up to the next marker are unstuffed, it starts with that marker or
    /// is empty.
    rest: &'a [u8],
    /// Unstuffed bytes, one piece at a time, so that they stay in the L1 cache and memory does not grow with the file.
    bytes: Vec<u8>,
    /// If an MCU starts after this offset, another piece must be unstuffed first. `WHOLE` when everything up to the
    /// marker is unstuffed and followed by `PADDING` zeros.
    enough: usize,
    /// The offset of the next byte that goes to the window.
    at: usize,
    /// The next bits, with the first bit highest.
    window: u64,
    /// The number of valid bits in the window.
    filled: u32,
    /// The number of the next restart marker, 0 to 7.
    next_restart: u8,
}

const WHOLE: usize = usize::MAX;
const PADDING: usize = 16;
/// The number of bytes per piece.
const PIECE: usize = 16 << 10;
/// The maximum number of blocks of an MCU.
pub(super) const BLOCKS: usize = 6;
/// The maximum number of bytes of an MCU (64 codes and values of 16 and 15 bits per block), plus the window before and
/// after it.
const MCU: usize = BLOCKS * 64 * 31 / 8 + 2 * WINDOW;
const WINDOW: usize = size_of::<u64>();

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        let mut bits = Self {
            rest: data,
            bytes: Vec::new(),
            enough: 0,
            at: 0,
            window: 0,
            filled: 0,
            next_restart: 0,
        };
        bits.unstuff();
        bits
    }

    /// Ensures that the bytes of an MCU are unstuffed. Must be called before each MCU of at most [`BLOCKS`] blocks.
    #[inline(always)]
    pub(super) fn begin_mcu(&mut self) {
        if self.at > self.enough {
            self.unstuff();
        }
    }

    /// Unstuffs another piece, up to the next marker or the end. Discards bytes that were read already.
    #[cold]
    fn unstuff(&mut self) {
        const CHUNK: usize = 32;
        // `ended_within_data` counts the bits in the window back from `at`.
        let read = self.at.saturating_sub(WINDOW);
        self.bytes.drain(..read);
        self.at -= read;
        let source = self.rest;
        let mut at = 0;
        let whole = loop {
            if self.bytes.len() >= PIECE {
                break false;
            }
            // Most chunks contain no 0xff and are copied whole.
            while let Some(chunk) = source[at..].first_chunk::<CHUNK>()
                && !chunk
                    .iter()
                    .fold(false, |found, &byte| found | (byte == 0xff))
                && self.bytes.len() < PIECE
            {
                self.bytes.extend_from_slice(chunk);
                at += CHUNK;
            }
            let end = (at + CHUNK).min(source.len());
            let plain = source[at..end].iter().position(|&byte| byte == 0xff);
            let until = plain.map_or(end, |plain| at + plain);
            self.bytes.extend_from_slice(&source[at..until]);
            at = until;
            match source.get(at..at + 2) {
                Some([0xff, 0]) => {
                    self.bytes.push(0xff);
                    at += 2;
                }
                // A fill byte before a marker.
                Some([0xff, 0xff]) => at += 1,
                Some([0xff, _]) => break true,
                _ if at + 1 >= source.len() => {
                    // The last byte, unless it may be half of a marker.
                    self.bytes
                        .extend(source[at..].iter().filter(|&&byte| byte != 0xff));
                    at = source.len();
                    break true;
                }
                _ => {}
            }
        };
        self.rest = &source[at..];
        if whole {
            self.bytes.extend_from_slice(&[0; PADDING]);
            self.enough = WHOLE;
        } else {
            self.enough = self.bytes.len() - MCU;
        }
    }

    /// Continues after the next restart marker. `None` if the next marker is not that one, or if the data before it
    /// was not read to its end.
    pub(super) fn restart(&mut self) -> Option<()> {
        if !self.ended_with_data() {
            return None;
        }
        let (marker, rest) = self.rest.split_first_chunk::<2>()?;
        if *marker != [0xff, 0xd0 + self.next_restart] {
            return None;
        }
        self.next_restart = (self.next_restart + 1) % 8;
        self.rest = rest;
        self.bytes.clear();
        (self.at, self.window, self.filled) = (0, 0, 0);
        self.unstuff();
        Some(())
    }

    /// Returns whether the scan is complete: its data was read to its end, and the end marker or the end of the file
    /// follows.
    pub(super) fn ended_whole(&mut self) -> bool {
        self.ended_with_data() && (self.rest.is_empty() || self.rest.starts_with(&[0xff, 0xd9]))
    }

    /// Returns whether the data before the next marker was read to its end, except for padding, and not beyond it.
    /// Bytes that are left over show that codes before them were misread.
    fn ended_with_data(&mut self) -> bool {
        // More data may follow, or the marker.
        self.begin_mcu();
        let rest = self.used().div_ceil(8)..self.bytes.len() - PADDING;
        let rest = self.bytes.get(rest).filter(|_| self.enough == WHOLE);
        rest.is_some_and(|rest| rest.len() <= MAX_PADDING && rest.iter().all(|&byte| byte == 0))
    }

    /// Returns whether only bits of the data before the next marker were read.
    pub(super) fn ended_within_data(&self) -> bool {
        self.enough != WHOLE || self.used().div_ceil(8) <= self.bytes.len() - PADDING
    }

    /// Returns the number of bits that were read.
    fn used(&self) -> usize {
        self.at * 8 - self.filled as usize
    }

    /// Fills the window to at least 56 bits, while there are bytes.
    #[inline(always)]
    fn refill(&mut self) {
        (self.window, self.filled, self.at) =
            refilled(&self.bytes, self.window, self.filled, self.at);
    }

    #[inline(always)]
    fn consume(&mut self, count: u32) {
        self.window <<= count;
        self.filled -= count;
    }

    #[inline(always)]
    fn look(&self) -> usize {
        (self.window >> (64 - LOOK)) as usize
    }

    /// Reads a symbol. The window must hold at least 16 bits.
    #[inline(always)]
    fn symbol(&mut self, table: &Table) -> Option<u8> {
        let entry = table.codes[self.look()];
        if entry != 0 {
            self.consume(u32::from(entry >> 8));
            return Some(entry as u8);
        }
        self.long_symbol(table)
    }

    #[cold]
    fn long_symbol(&mut self, table: &Table) -> Option<u8> {
        for length in LOOK + 1..=16 {
            let code = (self.window >> (64 - length)) as i32;
            let (largest, offset) = table.longest[length as usize];
            if code <= largest {
                self.consume(length);
                let index = usize::try_from(code + offset).ok()?;
                return table.symbols.get(index).copied();
            }
        }
        None
    }

    /// Reads a value of `size` bits, 1 to 16. The highest bit gives the sign.
    #[inline(always)]
    fn value(&mut self, size: u32) -> i32 {
        let raw = (self.window >> (64 - size)) as i32;
        self.consume(size);
        signed(raw, size)
    }

    /// Reads the difference between a block's DC coefficient and that of the previous block.
    #[inline(always)]
    pub(super) fn dc_difference(&mut self, table: &Table) -> Option<i32> {
        if self.filled < 32 {
            self.refill();
        }
        match self.symbol(table)? {
            0 => Some(0),
            size @ 1..=15 => Some(self.value(size.into())),
            _ => None,
        }
    }

    /// Skips the 63 AC coefficients of a block.
    #[inline(always)]
    pub(super) fn skip_ac(&mut self, table: &Table, skips: &Skips) -> Option<()> {
        // Local copies stay in registers: this is the innermost loop of a thumbnail.
        let (mut window, mut filled, mut at) = (self.window, self.filled, self.at);
        let mut next = 1;
        while next < 64 {
            if filled < 32 {
                (window, filled, at) = refilled(&self.bytes, window, filled, at);
            }
            let skip = skips.0[(window >> (64 - FAR_LOOK)) as usize];
            let after = next + skip.coefficients();
            // An entry that fills the block may include symbols of the next block: read one symbol at a time instead.
            if skip.0 != 0 && (after < 64 || (after == 64 && !skip.ends())) {
                window <<= skip.bits();
                filled -= skip.bits();
                next = after;
                if skip.ends() {
                    next = 64;
                }
                continue;
            }
            (self.window, self.filled, self.at) = (window, filled, at);
            let (end, advance, size) = ac_symbol(self.symbol(table)?);
            if end {
                return Some(());
            }
            self.consume(size);
            (window, filled, at) = (self.window, self.filled, self.at);
            next += advance;
        }
        (self.window, self.filled, self.at) = (window, filled, at);
        (next == 64).then_some(())
    }

    /// Decodes the 63 AC coefficients into `block`, at `positions`. Returns the index, in zigzag order, of the last
    /// nonzero coefficient.
    #[inline(always)]
    pub(super) fn ac(
        &mut self,
        table: &Table,
        values: &Values,
        block: &mut [i16; 64],
        positions: &[u8; 64],
    ) -> Option<usize> {
        let (mut window, mut filled, mut at) = (self.window, self.filled, self.at);
        let mut next = 1;
        let mut last = 0;
        'block: while next < 64 {
            (window, filled, at) = refilled(&self.bytes, window, filled, at);
            for _ in 0..LOOKS {
                let entry = values.0[(window >> (64 - VALUE_LOOK)) as usize];
                if entry.0 == 0 {
                    (self.window, self.filled, self.at) = (window, filled, at);
                    let (end, advance, size) = ac_symbol(self.symbol(table)?);
                    if end {
                        return Some(last);
                    }
                    next += advance as usize;
                    if next > 64 {
                        return None;
                    }
                    if size > 0 {
                        let value = self.value(size);
                        block[usize::from(positions[next - 1])] = value as i16;
                        last = next - 1;
                    }
                    (window, filled, at) = (self.window, self.filled, self.at);
                    continue 'block;
                }
                window <<= entry.bits();
                filled -= entry.bits();
                next += entry.advance() as usize;
                let Some(&position) = positions.get(next - 1) else {
                    // Beyond the last coefficient: either the end of the block or an error.
                    if entry.advance() != Value::END {
                        return None;
                    }
                    break 'block;
                };
                block[usize::from(position & 63)] = entry.value();
                last = next - 1;
                if next == 64 {
                    break 'block;
                }
            }
        }
        (self.window, self.filled, self.at) = (window, filled, at);
        Some(last)
    }
}

/// Returns the value that `size` bits encode. The first bit gives the sign.
#[inline(always)]
fn signed(raw: i32, size: u32) -> i32 {
    if size > 0 && raw >> (size - 1) == 0 {
        raw - (1 << size) + 1
    } else {
        raw
    }
}

/// Refills a window. Returns the window, the number of its bits and the next offset.
#[inline(always)]
fn refilled(bytes: &[u8], window: u64, filled: u32, at: usize) -> (u64, u32, usize) {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(next) => (
            window | u64::from_be_bytes(*next) >> filled,
            filled | 56,
            at + ((63 - filled) >> 3) as usize,
        ),
        // Only padding zeros follow, and the window has zeros behind its bits: they count as filled.
        None => (window, 63, bytes.len()),
    }
}
