//! Samples of a strip or tile: predictors undone, and each scaled to 8 or 16 bits.

/// How a sample is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unsigned,
    /// Two's complement. Black is 0; smaller values are black too.
    Signed,
    /// Black is 0 and white is 1.
    Float,
}

/// The samples of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) bits: usize,
    pub(super) kind: Kind,
    pub(super) is_big_endian: bool,
    /// The distance between samples of the same channel, in samples.
    pub(super) step: usize,
}

/// How samples are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Predictor {
    None,
    /// From the previous sample.
    Horizontal,
    /// From the previous byte of the row, whose bytes are sorted by significance: first the highest of all samples.
    Float,
}

impl Row {
    /// Undoes the prediction in a row.
    pub(super) fn unpredict(&self, row: &mut [u8], predictor: Predictor) {
        let bytes = self.bits / 8;
        match predictor {
            Predictor::None => {}
            Predictor::Horizontal if bytes == 1 => {
                let sum = |[one]: [u8; 1], [other]: [u8; 1]| [one.wrapping_add(other)];
                self.sum_words(row, sum);
            }
            Predictor::Horizontal if bytes == 2 && self.is_big_endian => {
                let sum =
                    |one, other| u16::from_be_bytes(one).wrapping_add(u16::from_be_bytes(other));
                self.sum_words(row, |one, other| sum(one, other).to_be_bytes());
            }
            Predictor::Horizontal if bytes == 2 => {
                let sum =
                    |one, other| u16::from_le_bytes(one).wrapping_add(u16::from_le_bytes(other));
                self.sum_words(row, |one, other| sum(one, other).to_le_bytes());
            }
            Predictor::Horizontal => {
                let whole = row.len() / bytes * bytes;
                for at in (self.step * bytes..whole).step_by(bytes) {
                    let before = self.whole(&row[at - self.step * bytes..][..bytes]);
                    let sum = self.whole(&row[at..][..bytes]).wrapping_add(before);
                    let big = sum.to_be_bytes();
                    let sum = &big[8 - bytes..];
                    match self.is_big_endian {
                        true => row[at..at + bytes].copy_from_slice(sum),
                        false => {
                            let target = row[at..at + bytes].iter_mut();
                            target
                                .zip(sum.iter().rev())
                                .for_each(|(to, from)| *to = *from);
                        }
                    }
                }
            }
            Predictor::Float => {
                for at in self.step..row.len() {
                    row[at] = row[at].wrapping_add(row[at - self.step]);
                }
                let sorted = row.to_vec();
                let count = row.len() / bytes;
                for (index, sample) in row.chunks_exact_mut(bytes).enumerate() {
                    for (weight, to) in sample.iter_mut().enumerate() {
                        // The most significant bytes come first.
                        let weight = match self.is_big_endian {
                            true => weight,
                            false => bytes - 1 - weight,
                        };
                        *to = sorted[weight * count + index];
                    }
                }
            }
        }
    }

    /// Adds to each sample the previous sample of the same channel. For usual numbers of channels the sums are in
    /// registers.
    fn sum_words<const BYTES: usize>(
        &self,
        row: &mut [u8],
        sum: impl Fn([u8; BYTES], [u8; BYTES]) -> [u8; BYTES],
    ) {
        let words = row.as_chunks_mut::<BYTES>().0;
        match self.step {
            1 => sum_pixels::<1, BYTES>(words, sum),
            3 => sum_pixels::<3, BYTES>(words, sum),
            4 => sum_pixels::<4, BYTES>(words, sum),
            step => {
                for at in step..words.len() {
                    words[at] = sum(words[at], words[at - step]);
                }
            }
        }
    }

    /// Reads a number of up to eight bytes.
    fn whole(&self, bytes: &[u8]) -> u64 {
        let add = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        match self.is_big_endian {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        }
    }

    /// Returns the bits of sample `index` of the row. The sample must exist.
    pub(super) fn raw(&self, row: &[u8], index: usize) -> u64 {
        if self.bits.is_multiple_of(8) {
            let bytes = self.bits / 8;
            return self.whole(&row[index * bytes..][..bytes]);
        }
        let (start, end) = (index * self.bits, (index + 1) * self.bits);
        let all = row[start / 8..end.div_ceil(8)].iter();
        let all = all.fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        all >> (end.div_ceil(8) * 8 - end) & self.most()
    }

    /// Returns the largest number with these bits.
    pub(super) const fn most(&self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// Returns a sample of the row as a fraction: 0 is black, 1 is white.
    pub(super) fn share(&self, row: &[u8], index: usize) -> f64 {
        self.share_of(self.raw(row, index))
    }

    /// Returns the fraction that these bits stand for.
    pub(super) fn share_of(&self, raw: u64) -> f64 {
        match self.kind {
            Kind::Unsigned => raw as f64 / self.most() as f64,
            Kind::Signed => {
                let sign = 1 << (self.bits - 1);
                if raw & sign != 0 {
                    return 0.0;
                }
                raw as f64 / (sign - 1).max(1) as f64
            }
            Kind::Float => {
                let number = match self.bits {
                    16 => half(raw as u16),
                    24 => f64::from(f32::from_bits((raw as u32) << 8)),
                    32 => f64::from(f32::from_bits(raw as u32)),
                    _ => f64::from_bits(raw),
                };
                // NaN counts as black.
                if number > 0.0 { number.min(1.0) } else { 0.0 }
            }
        }
    }
}

fn sum_pixels<const STEP: usize, const BYTES: usize>(
    words: &mut [[u8; BYTES]],
    sum: impl Fn([u8; BYTES], [u8; BYTES]) -> [u8; BYTES],
) {
    let mut before = [[0; BYTES]; STEP];
    for pixel in words.as_chunks_mut::<STEP>().0 {
        for (word, before) in pixel.iter_mut().zip(&mut before) {
            *before = sum(*word, *before);
            *word = *before;
        }
    }
}

/// Converts a floating-point number of 16 bits: a sign, 5 bits of exponent and 10 of mantissa.
fn half(bits: u16) -> f64 {
    let mantissa = f64::from(bits & 0x3ff);
    let number = match bits >> 10 & 0x1f {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa > 0.0 => f64::NAN,
        31 => f64::INFINITY,
        exponent => (1024.0 + mantissa) * 2f64.powi(i32::from(exponent) - 25),
    };
    if bits >> 15 == 0 { number } else { -number }
}
