//! LZW in the variant of TIFF: codes of 9 to 12 bits, the highest bit first, where the width grows one code early.
//!
//! Each string of the table is already in the output: it is the string of the previous code with the byte after that
//! string. So the table contains positions in the output.

const CLEAR: usize = 256;
const END: usize = 257;
const FIRST: usize = 258;
const FEWEST_BITS: u32 = 9;
const MAX_BITS: u32 = 12;
/// The maximum number of codes in the table.
const MAX_CODES: usize = (1 << MAX_BITS) - FIRST;

/// The position in the output of a string of the table.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    len: usize,
}

impl Place {
    /// Returns the string extended by the byte after it.
    const fn and_a_byte(self) -> Self {
        Self {
            len: self.len + 1,
            ..self
        }
    }
}

/// Decodes until `out` is full, or the data or its codes end. Returns the number of bytes written, and whether all
/// codes were in the table.
pub(super) fn decode(mut data: &[u8], out: &mut [u8]) -> (usize, bool) {
    // Not an array, which would be initialised first: most strips are short.
    let mut table = Vec::with_capacity(MAX_CODES);
    let mut width = FEWEST_BITS;
    let mut before: Option<Place> = None;
    let (mut bits, mut count) = (0u64, 0);
    let mut written = 0;
    while written < out.len() {
        if count < width {
            // Add as many bytes as the word has room for.
            if let Some((word, rest)) = data.split_first_chunk::<4>() {
                bits = bits << 32 | u64::from(u32::from_be_bytes(*word));
                count += 32;
                data = rest;
            } else if let Some((&byte, rest)) = data.split_first() {
                bits = bits << 8 | u64::from(byte);
                count += 8;
                data = rest;
                continue;
            } else {
                break;
            }
        }
        count -= width;
        let code = (bits >> count) as usize & ((1 << width) - 1);
        match code {
            CLEAR => {
                table.clear();
                (width, before) = (FEWEST_BITS, None);
                continue;
            }
            END => break,
            _ => {}
        }
        let start = written;
        if code < CLEAR {
            out[written] = code as u8;
            written += 1;
        } else {
            let known = match before {
                Some(before) if code == FIRST + table.len() => before.and_a_byte(),
                _ => match table.get(code - FIRST) {
                    Some(known) => *known,
                    None => return (written, false),
                },
            };
            let Place { start: from, len } = known;
            let end = out.len().min(written + len);
            repeat(out, from, written..end);
            written = end;
        }
        if let Some(before) = before
            && table.len() < MAX_CODES
        {
            table.push(before.and_a_byte());
            // The width grows one code early.
            if FIRST + table.len() + 1 >= 1 << width && width < MAX_BITS {
                width += 1;
            }
        }
        before = Some(Place {
            start,
            len: written - start,
        });
    }
    (written, true)
}

/// Copies bytes of `out`, from offset `from` on, to the range `into`. Source and target may overlap.
fn repeat(out: &mut [u8], from: usize, into: std::ops::Range<usize>) {
    const STEP: usize = 8;
    let (start, len) = (into.start, into.len());
    // Most strings are short. Bytes written beyond the end of a string are overwritten later.
    if len <= 2 * STEP && start - from >= STEP && start + 2 * STEP <= out.len() {
        for at in [0, STEP] {
            out.copy_within(from + at..from + at + STEP, start + at);
        }
    } else if start - from >= len {
        out.copy_within(from..from + len, start);
    } else {
        for at in 0..len {
            out[start + at] = out[from + at];
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::codec::by_weezl;
    use super::*;

    /// Decodes with `weezl`. An invalid code after the last byte does not count.
    fn expected(data: &[u8], out: &mut [u8]) -> (usize, bool) {
        let decoder = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
        let (written, is_valid) = by_weezl(decoder, data, out);
        (written, is_valid || written == out.len())
    }

    #[test]
    fn whole_and_spoilt_data_is_decoded_as_by_weezl() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for case in 0..3000 {
            // Long runs, noise, and what is between.
            let (values, len) = ([1, 2, 5, 256][case % 4], random(20_000) as usize);
            let plain: Vec<u8> = (0..len).map(|_| random(values) as u8).collect();
            let mut encoder =
                weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
            let mut data = encoder.encode(&plain).unwrap();
            if case % 8 >= 4 {
                for _ in 0..random(4) {
                    let at = random(data.len() as u64) as usize;
                    data[at] ^= 1 << random(8);
                }
                data.truncate(data.len() - random(data.len() as u64 / 2 + 1) as usize);
            }
            let room = len + random(40) as usize;
            let (mut seen, mut wanted) = (vec![0; room], vec![0; room]);
            let (of_seen, of_wanted) = (decode(&data, &mut seen), expected(&data, &mut wanted));
            assert_eq!(of_seen, of_wanted, "case {case}");
            assert!(seen[..of_seen.0] == wanted[..of_seen.0], "case {case}");
            assert!(case % 8 >= 4 || seen[..len] == plain, "case {case}");
        }
    }
}
