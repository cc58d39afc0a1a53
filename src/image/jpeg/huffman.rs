//! Huffman codes of a JPEG scan, for a reader that mostly skips.

/// How many bits a first look takes in. Longer codes are rare by construction.
const LOOK: u32 = 12;

/// A Huffman table, in three forms.
pub(super) struct Table {
    /// By the next `LOOK` bits: length of the code (high byte) and symbol; 0 if the code is longer.
    codes: Box<[u16; 1 << LOOK]>,
    /// By the next `LOOK` bits: as many whole symbols as begin and have their code in them.
    skips: Box<[Skip; 1 << LOOK]>,
    /// By length: the largest code, and what to add to a code for its symbol's index.
    longest: [(i32, i32); 17],
    symbols: Vec<u8>,
}

/// Several symbols at once: their bits with values, the coefficients they stand for.
#[derive(Debug, Clone, Copy, Default)]
struct Skip {
    /// 0 if not even the first symbol's code fits.
    bits: u8,
    coefficients: u8,
    /// Whether the last one ends the block.
    end: bool,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table of {} symbols", self.symbols.len())
    }
}

/// Whether an AC symbol ends its block, how many coefficients it stands for, and how many bits of
/// value follow it.
#[inline]
fn ac_symbol(symbol: u8) -> (bool, u32, u32) {
    let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
    (size == 0 && zeros != 15, zeros + 1, size)
}

impl Table {
    /// From the number of codes of each length 1 to 16 and the symbols in their order; `None` if
    /// that is no code.
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
            if code > 1 << length {
                return None;
            }
            if code > first {
                longest[length as usize].0 = code - 1;
            }
            code <<= 1;
        }
        let mut table = Self {
            codes,
            skips: Box::new([Skip::default(); 1 << LOOK]),
            longest,
            symbols: symbols.to_vec(),
        };
        for look in 0..1usize << LOOK {
            table.skips[look] = table.skip(look);
        }
        Some(table)
    }

    fn skip(&self, look: usize) -> Skip {
        let mut skip = Skip::default();
        let mut bits = 0;
        let mut coefficients = 0;
        while bits < LOOK && !skip.end {
            let entry = self.codes[(look << bits) & ((1 << LOOK) - 1)];
            let length = u32::from(entry >> 8);
            if length == 0 || bits + length > LOOK {
                break;
            }
            let (end, advance, size) = ac_symbol(entry as u8);
            // A value may reach beyond what is looked at: it is not looked at anyway.
            bits += length + if end { 0 } else { size };
            coefficients += if end { 0 } else { advance };
            skip = Skip {
                bits: bits as u8,
                coefficients: coefficients as u8,
                end,
            };
        }
        skip
    }
}

/// The bits of a scan, stuffing removed. Reading beyond the end yields zeros and is noticed by
/// [`ended_within_data`](Self::ended_within_data).
pub(super) struct Bits<'a> {
    /// What follows the present stretch: begins with a marker, or is empty.
    rest: &'a [u8],
    /// The stretch up to the next marker, unstuffed, and `PADDING` zeros.
    bytes: Vec<u8>,
    /// The next byte to take in.
    at: usize,
    /// The next bits, first one highest.
    window: u64,
    /// How many of them there are.
    filled: u32,
    /// The number of the next restart marker, 0 to 7.
    next_restart: u8,
}

const PADDING: usize = 16;

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        let mut bits = Self {
            rest: data,
            bytes: Vec::new(),
            at: 0,
            window: 0,
            filled: 0,
            next_restart: 0,
        };
        bits.take_stretch();
        bits
    }

    /// Unstuffs up to the next marker or the end.
    fn take_stretch(&mut self) {
        const CHUNK: usize = 32;
        let source = self.rest;
        self.bytes.clear();
        let mut at = 0;
        loop {
            // Most chunks have no 0xff: looked at and copied as a whole.
            while let Some(chunk) = source[at..].first_chunk::<CHUNK>()
                && !chunk
                    .iter()
                    .fold(false, |found, &byte| found | (byte == 0xff))
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
                // Fill bytes before a marker.
                Some([0xff, 0xff]) => at += 1,
                Some([0xff, _]) => break,
                _ if at + 1 >= source.len() => {
                    // The last byte, if it is not half of a marker.
                    self.bytes
                        .extend(source[at..].iter().filter(|&&byte| byte != 0xff));
                    at = source.len();
                    break;
                }
                _ => {}
            }
        }
        self.rest = &source[at..];
        self.bytes.extend_from_slice(&[0; PADDING]);
        (self.at, self.window, self.filled) = (0, 0, 0);
    }

    /// Goes on behind the restart marker that must come next.
    pub(super) fn restart(&mut self) -> Option<()> {
        if !self.ended_within_data() {
            return None;
        }
        let (marker, rest) = self.rest.split_first_chunk::<2>()?;
        if *marker != [0xff, 0xd0 + self.next_restart] {
            return None;
        }
        self.next_restart = (self.next_restart + 1) % 8;
        self.rest = rest;
        self.take_stretch();
        Some(())
    }

    /// Whether no more bits were used than there are, up to the next marker.
    pub(super) fn ended_within_data(&self) -> bool {
        let used = self.at * 8 - self.filled as usize;
        used <= (self.bytes.len() - PADDING) * 8
    }

    /// At least 56 bits in the window, as long as there are bytes.
    #[inline]
    fn refill(&mut self) {
        if let Some(next) = self.bytes[self.at..].first_chunk::<8>() {
            self.window |= u64::from_be_bytes(*next) >> self.filled;
            self.at += ((63 - self.filled) >> 3) as usize;
            self.filled |= 56;
        } else {
            // Only zeros follow, and there are already more of them than bits could be missing.
            self.filled = 63;
            self.at = self.bytes.len();
        }
    }

    #[inline]
    fn consume(&mut self, count: u32) {
        self.window <<= count;
        self.filled -= count;
    }

    #[inline]
    fn look(&self) -> usize {
        (self.window >> (64 - LOOK)) as usize
    }

    /// The next symbol. At least 16 bits must be in the window.
    #[inline]
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

    /// A value of `size` bits, 1 to 16: its highest bit tells its sign.
    #[inline]
    fn value(&mut self, size: u32) -> i32 {
        let raw = (self.window >> (64 - size)) as i32;
        self.consume(size);
        if raw >> (size - 1) == 0 {
            raw - (1 << size) + 1
        } else {
            raw
        }
    }

    /// By how much the mean of a block differs from the last one's.
    #[inline]
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

    /// Skips the 63 other coefficients of a block.
    #[inline]
    pub(super) fn skip_ac(&mut self, table: &Table) -> Option<()> {
        let mut next = 1;
        while next < 64 {
            if self.filled < 32 {
                self.refill();
            }
            let skip = table.skips[self.look()];
            let after = next + u32::from(skip.coefficients);
            // A stretch that fills the block may hold symbols of the next one: not taken at once.
            if skip.bits != 0 && (after < 64 || (after == 64 && !skip.end)) {
                self.consume(skip.bits.into());
                if skip.end {
                    return Some(());
                }
                next = after;
                continue;
            }
            let (end, advance, size) = ac_symbol(self.symbol(table)?);
            if end {
                return Some(());
            }
            self.consume(size);
            next += advance;
        }
        (next == 64).then_some(())
    }

    /// Decodes the 63 other coefficients into `block`, by `places`; whether all of them are zero.
    #[inline]
    pub(super) fn ac(
        &mut self,
        table: &Table,
        block: &mut [i16; 64],
        places: &[u8; 64],
    ) -> Option<bool> {
        let mut next = 1;
        let mut flat = true;
        while next < 64 {
            if self.filled < 32 {
                self.refill();
            }
            let (end, advance, size) = ac_symbol(self.symbol(table)?);
            if end {
                break;
            }
            next += advance as usize;
            if next > 64 {
                return None;
            }
            if size > 0 {
                let value = self.value(size);
                block[usize::from(places[next - 1])] = value as i16;
                flat = false;
            }
        }
        Some(flat)
    }
}
