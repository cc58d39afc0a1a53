//! Nanoseconds in 32 bits, so that a slot's state and what comes of most jobs stay dense.
//!
//! The upper five bits say by how many places the others are shifted: exact up to 134 ms, beyond that to eight digits, up to
//! nine years. Any word means a time below 2⁵⁸ ns.

const DIGITS: u32 = 27;
const MOST_SHIFT: u32 = (1 << (u32::BITS - DIGITS)) - 1;

/// Rounded down; what is longer than fits is the longest that does.
#[inline]
pub(super) fn pack(ns: u64) -> u32 {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(DIGITS);
    if shift > MOST_SHIFT {
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
    fn short_times_are_exact_and_long_ones_nearly() {
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
    fn what_is_too_long_is_the_longest() {
        let most = unpack(u32::MAX);
        assert_eq!(most, ((1 << 27) - 1) << 31);
        for ns in [1 << 58, u64::MAX] {
            assert_eq!(unpack(pack(ns)), most);
        }
    }
}
