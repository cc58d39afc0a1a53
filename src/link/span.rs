//! Durations in nanoseconds as 32 bits, so that state cells stay dense.
//!
//! The upper five bits are the number of bits by which the other 27 are shifted left. Durations up to 134 ms are exact;
//! longer ones, up to nine years, have eight digits. Any word is a duration below 2⁵⁸ ns.

const DIGITS: u32 = 27;
const MAX_SHIFT: u32 = (1 << (u32::BITS - DIGITS)) - 1;

/// Packs a duration, rounded down. A duration that is too long becomes the longest that fits.
#[inline]
pub(super) fn pack(ns: u64) -> u32 {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(DIGITS);
    if shift > MAX_SHIFT {
        return u32::MAX;
    }
    shift << DIGITS | (ns >> shift) as u32
}

#[inline]
pub(super) fn unpack(word: u32) -> u64 {
    u64::from(word & ((1 << DIGITS) - 1)) << (word >> DIGITS)
}

#[cfg(all(test, not(arenite_loom)))]
mod tests {
    use super::*;

    #[test]
    fn short_durations_are_exact_and_long_ones_accurate_to_eight_digits() {
        for ns in [0, 1, 999, (1 << 27) - 1] {
            assert_eq!(unpack(pack(ns)), ns);
        }
        for bits in 27..58 {
            for ns in [1u64 << bits, (1 << bits) + 12_345, (2 << bits) - 1] {
                let read = unpack(pack(ns));
                assert!(
                    read <= ns && ns - read <= ns >> 26,
                    "{ns} was read as {read}"
                );
            }
        }
    }

    #[test]
    fn too_long_durations_saturate() {
        let most = unpack(u32::MAX);
        assert_eq!(most, ((1 << 27) - 1) << 31);
        for ns in [1 << 58, u64::MAX] {
            assert_eq!(unpack(pack(ns)), most);
        }
    }
}
