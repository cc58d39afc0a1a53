//! Element types that can be summed and searched, and the algorithms within one slice.

use std::ops::Range;

use crate::array::Element;
use crate::kernel::Scalar;

/// The number of elements of a leaf of the tree of sums.
const BLOCK: usize = 512;
/// The number of accumulators of a block: enough to keep a processor's adders busy.
const LANES: usize = 16;

/// Element types of [`Par::sum`](crate::par::Par::sum) and similar methods: integers of 8 to 64 bits, `f32` and `f64`.
/// This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a number that can be summed up",
    note = "numbers: `i8` to `i64`, `u8` to `u64`, `f32`, `f64`; for other elements: `Par::reduce` with a kernel of your own"
)]
pub trait Number: Element + Scalar + PartialOrd + sealed::Sealed {
    /// The type of a sum: `i64` or `u64` for integers, as in numpy; the same type for `f32` and `f64`.
    type Sum: Element + Scalar + PartialOrd + std::fmt::Debug;
    /// A partial sum.
    #[doc(hidden)]
    type Partial: Scalar;
    /// Returns the sum of at most [`BLOCK`] numbers.
    #[doc(hidden)]
    fn block(x: &[Self]) -> Self::Partial;
    #[doc(hidden)]
    fn add(a: Self::Partial, b: Self::Partial) -> Self::Partial;
    /// Converts a partial sum into the sum. Returns `None` if it is out of range.
    #[doc(hidden)]
    fn finish(sum: Self::Partial) -> Option<Self::Sum>;
    #[doc(hidden)]
    fn to_f64(sum: Self::Partial) -> f64;
    #[doc(hidden)]
    fn widen(self) -> Self::Sum;
    /// Adds two sums. Returns `None` if the result is out of range.
    #[doc(hidden)]
    fn add_sums(a: Self::Sum, b: Self::Sum) -> Option<Self::Sum>;
    /// Adds two partial sums and wraps around: a partial sum may be out of range although the whole sum is not.
    #[doc(hidden)]
    fn add_parts(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    #[doc(hidden)]
    fn as_f64(self) -> f64;
    #[doc(hidden)]
    fn is_nan(self) -> bool;
    #[doc(hidden)]
    const ZERO: Self::Partial;
}

mod sealed {
    #[allow(unnameable_types, reason = "sealed on purpose")]
    pub trait Sealed {}
}

/// Adds at most [`BLOCK`] numbers to the lanes in turn. Then adds the upper half of the lanes to the lower half, until
/// one lane is left.
#[inline]
fn in_lanes<T: Copy, A: Copy>(
    x: &[T],
    zero: A,
    widen: impl Fn(T) -> A,
    add: impl Fn(A, A) -> A,
) -> A {
    let mut lanes = [zero; LANES];
    let mut rows = x.chunks_exact(LANES);
    for row in &mut rows {
        for (lane, &x) in lanes.iter_mut().zip(row) {
            *lane = add(*lane, widen(x));
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rows.remainder()) {
        *lane = add(*lane, widen(x));
    }
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = add(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

macro_rules! whole {
    ($($t:ty, in $wide:ty, to $sum:ty;)+) => { $(
        impl sealed::Sealed for $t {}
        impl Number for $t {
            type Sum = $sum;
            type Partial = i128;
            #[inline]
            fn block(x: &[Self]) -> i128 {
                // The sum of 512 numbers does not overflow this type.
                in_lanes(x, 0, <$wide>::from, <$wide>::wrapping_add).into()
            }
            #[inline]
            fn add(a: i128, b: i128) -> i128 {
                // The sum of an array is in range, but a compromised worker may send any number.
                a.saturating_add(b)
            }
            fn finish(sum: i128) -> Option<$sum> {
                sum.try_into().ok()
            }
            fn to_f64(sum: i128) -> f64 {
                sum as f64
            }
            #[inline]
            fn widen(self) -> $sum {
                self.into()
            }
            #[inline]
            fn add_sums(a: $sum, b: $sum) -> Option<$sum> {
                a.checked_add(b)
            }
            #[inline]
            fn add_parts(a: $sum, b: $sum) -> $sum {
                a.wrapping_add(b)
            }
            #[inline]
            fn as_f64(self) -> f64 {
                self as f64
            }
            #[inline]
            fn is_nan(self) -> bool {
                false
            }
            const ZERO: i128 = 0;
        }
    )+ };
}
whole! {
    i8, in i32, to i64;
    i16, in i32, to i64;
    i32, in i64, to i64;
    i64, in i128, to i64;
    u8, in u32, to u64;
    u16, in u32, to u64;
    u32, in u64, to u64;
    u64, in i128, to u64;
}

macro_rules! floating {
    ($($t:ty)+) => { $(
        impl sealed::Sealed for $t {}
        impl Number for $t {
            type Sum = $t;
            type Partial = $t;
            #[inline]
            fn block(x: &[Self]) -> $t {
                in_lanes(x, 0.0, |x| x, |a, b| a + b)
            }
            #[inline]
            fn add(a: $t, b: $t) -> $t {
                a + b
            }
            fn finish(sum: $t) -> Option<$t> {
                Some(sum)
            }
            fn to_f64(sum: $t) -> f64 {
                sum.into()
            }
            #[inline]
            fn widen(self) -> $t {
                self
            }
            #[inline]
            fn add_sums(a: $t, b: $t) -> Option<$t> {
                Some(a + b)
            }
            #[inline]
            fn add_parts(a: $t, b: $t) -> $t {
                a + b
            }
            #[inline]
            fn as_f64(self) -> f64 {
                self.into()
            }
            #[inline]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            const ZERO: $t = 0.0;
        }
    )+ };
}
floating!(f32 f64);

/// Adds leaves in a tree. The left subtree of a tree of `n` leaves has as many leaves as the largest power of two below
/// `n`.
pub(super) fn tree<P>(
    leaves: Range<usize>,
    leaf: &impl Fn(usize) -> P,
    add: &impl Fn(P, P) -> P,
) -> P {
    let left = leaves.len().next_power_of_two() / 2;
    if left == 0 || leaves.len() == 1 {
        return leaf(leaves.start);
    }
    let middle = leaves.start + left;
    let (left, right) = (leaves.start..middle, middle..leaves.end);
    add(tree(left, leaf, add), tree(right, leaf, add))
}

/// Returns the sum of a slice.
pub(super) fn sum<T: Number>(x: &[T]) -> T::Partial {
    let block = |i: usize| T::block(&x[i * BLOCK..x.len().min((i + 1) * BLOCK)]);
    match x.len().div_ceil(BLOCK) {
        0 => T::ZERO,
        blocks => tree(0..blocks, &block, &T::add),
    }
}

/// Returns true if `b`, which comes later, replaces `a`. A NaN replaces every number.
#[inline]
pub(super) fn beats<T: Number, const LARGEST: bool>(b: T, a: T) -> bool {
    (if LARGEST { b > a } else { b < a }) || (b.is_nan() && !a.is_nan())
}

/// Returns the smallest or largest element of a slice that is not empty.
pub(super) fn extreme<T: Number, const LARGEST: bool>(x: &[T]) -> T {
    let mut lanes = [x[0]; LANES];
    let mut nan = [false; LANES];
    let mut take = |row: &[T]| {
        for ((lane, nan), &x) in lanes.iter_mut().zip(&mut nan).zip(row) {
            let better = if LARGEST { x > *lane } else { x < *lane };
            *lane = if better { x } else { *lane };
            *nan |= x.is_nan();
        }
    };
    let mut rows = x.chunks_exact(LANES);
    (&mut rows).for_each(&mut take);
    take(rows.remainder());
    if nan.contains(&true)
        && let Some(&nan) = x.iter().find(|x| x.is_nan())
    {
        return nan;
    }
    let pick = |a, b| if beats::<T, LARGEST>(b, a) { b } else { a };
    lanes.into_iter().reduce(pick).unwrap_or(x[0])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sum in the order that the README specifies.
    fn specified_sum(x: &[f32]) -> f32 {
        if x.len() <= BLOCK {
            let mut lanes = [0.0; LANES];
            x.iter()
                .enumerate()
                .for_each(|(i, x)| lanes[i % LANES] += x);
            for half in [8, 4, 2, 1] {
                (0..half).for_each(|i| lanes[i] += lanes[i + half]);
            }
            return lanes[0];
        }
        let blocks = x.len().div_ceil(BLOCK);
        let mut left = 1;
        while left * 2 < blocks {
            left *= 2;
        }
        let (left, right) = x.split_at(left * BLOCK);
        specified_sum(left) + specified_sum(right)
    }

    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / 7e7 - 20.0
        };
        (0..len).map(|_| next()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        #[test]
        fn a_sum_has_the_specified_order(len in 0usize..20_000, seed: u32) {
            let x = noise(len, seed);
            prop_assert_eq!(sum(&x).to_bits(), specified_sum(&x).to_bits());
        }

        /// So the size of chunks does not affect the result.
                #[test]
        fn chunks_of_whole_subtrees_give_the_same_bits(len in 1usize..50_000, seed: u32, power in 0u32..6) {
            let x = noise(len, seed);
            let parts: Vec<f32> = x.chunks(BLOCK << power).map(sum).collect();
            let whole = tree(0..parts.len(), &|i| parts[i], &|a, b| a + b);
            prop_assert_eq!(whole.to_bits(), sum(&x).to_bits());
        }

        #[test]
        fn whole_numbers_are_exact(x in prop::collection::vec(any::<i64>(), 0..3000)) {
            prop_assert_eq!(sum(&x), x.iter().map(|&x| i128::from(x)).sum::<i128>());
            let narrow: Vec<i8> = x.iter().map(|&x| x as i8).collect();
            prop_assert_eq!(sum(&narrow), narrow.iter().map(|&x| i128::from(x)).sum::<i128>());
            let bytes: Vec<u16> = x.iter().map(|&x| x as u16).collect();
            prop_assert_eq!(sum(&bytes), bytes.iter().map(|&x| i128::from(x)).sum::<i128>());
            let wide: Vec<u64> = x.iter().map(|&x| x as u64).collect();
            prop_assert_eq!(sum(&wide), wide.iter().map(|&x| i128::from(x)).sum::<i128>());
        }

        #[test]
        fn the_smallest_and_the_largest(x in prop::collection::vec(any::<i16>(), 1..200)) {
            prop_assert_eq!(Some(extreme::<_, false>(&x)), x.iter().copied().min());
            prop_assert_eq!(Some(extreme::<_, true>(&x)), x.iter().copied().max());
        }
    }

    #[test]
    fn the_largest_values_of_each_type_do_not_overflow_a_block() {
        assert_eq!(sum(&[u8::MAX; BLOCK]), 512 * 255);
        assert_eq!(sum(&[i16::MIN; BLOCK]), 512 * i128::from(i16::MIN));
        assert_eq!(sum(&[u32::MAX; 1000]), 1000 * i128::from(u32::MAX));
        assert_eq!(sum(&[i64::MIN; 1000]), 1000 * i128::from(i64::MIN));
        assert_eq!(sum(&[u64::MAX; 1000]), 1000 * i128::from(u64::MAX));
        assert_eq!(i64::finish(1 << 63), None);
        assert_eq!(u64::finish(1 << 63), Some(1 << 63));
        assert_eq!(u64::finish(-1), None);
    }

    #[test]
    fn a_nan_is_the_smallest_and_the_largest() {
        for at in [0, 5, 16, 40] {
            let mut x = noise(41, 3);
            x[at] = f32::NAN;
            assert!(extreme::<_, false>(&x).is_nan() && extreme::<_, true>(&x).is_nan());
        }
        assert!(beats::<_, true>(f32::NAN, 1.0) && !beats::<_, true>(1.0, f32::NAN));
        assert!(!beats::<_, false>(f32::NAN, f32::NAN));
    }

    #[test]
    fn errors_stay_small() {
        let x = vec![0.1f32; 1 << 20];
        let error = (f64::from(sum(&x)) / (f64::from(0.1f32) * x.len() as f64) - 1.0).abs();
        assert!(error < 1e-6, "{error}");
        // Adding from left to right has a far larger error.
        assert!((f64::from(x.iter().sum::<f32>()) / 104_857.6 - 1.0).abs() > 1e-4);
    }
}
