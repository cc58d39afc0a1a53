//! The inverse transform of a block to N × N samples, N ≤ 8.
//!
//! Sample k of N in one direction is the sum over the coefficients u of ½ C(u) cos((2k + 1) u π / 2N), with C(0) = √½
//! and C(u) = 1 otherwise: the transform of ITU T.81, A.3.3, evaluated at N points instead of 8. Coefficients from N on
//! would alias, and are dropped. Points k and N - 1 - k have the same even terms, and odd terms that differ only in
//! sign. One direction is computed for all eight columns (or rows) at once, in loops that the compiler vectorizes.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The maximum number of coefficients and of samples per side.
pub(super) const SIDE: usize = 8;

/// Samples of a block, row by row.
pub(super) type Square = [[u8; SIDE]; SIDE];

/// The rows or columns of a block.
type Rows = [[f32; SIDE]; SIDE];

/// Returns cos(x), for a table computed at compile time.
const fn cosine(x: f64) -> f64 {
    // Reduced to -π to π, where twelve terms leave an error below 10⁻⁹.
    let turns = (x / (2.0 * PI) + 0.5) as i64;
    let x = x - turns as f64 * 2.0 * PI;
    let (mut sum, mut term, mut n) = (1.0, 1.0, 1);
    while n <= 12 {
        term *= -x * x / ((2 * n - 1) * (2 * n)) as f64;
        sum += term;
        n += 1;
    }
    sum
}

/// Returns the weights, by point and coefficient.
const fn weights<const N: usize>() -> Rows {
    let mut weights = [[0.0; SIDE]; SIDE];
    let mut k = 0;
    while k < N {
        let mut u = 0;
        while u < N {
            let scale = if u == 0 { FRAC_1_SQRT_2 } else { 1.0 };
            let angle = ((2 * k + 1) * u) as f64 * PI / (2 * N) as f64;
            weights[k][u] = (0.5 * scale * cosine(angle)) as f32;
            u += 1;
        }
        k += 1;
    }
    weights
}

struct Of<const N: usize>;

impl<const N: usize> Of<N> {
    const WEIGHTS: Rows = weights::<N>();
}

/// Transforms the first M coefficients of `from[u][lane]` to N points, for all lanes.
#[inline(always)]
fn one_way<const N: usize, const M: usize>(from: &Rows) -> Rows {
    let mut into = [[0.0; SIDE]; SIDE];
    for k in 0..N.div_ceil(2) {
        let weights = &Of::<N>::WEIGHTS[k];
        let (mut even, mut odd) = ([0.0; SIDE], [0.0; SIDE]);
        for u in 0..M.min(N) {
            let sum = if u % 2 == 0 { &mut even } else { &mut odd };
            for lane in 0..SIDE {
                sum[lane] += from[u][lane] * weights[u];
            }
        }
        for lane in 0..SIDE {
            into[k][lane] = even[lane] + odd[lane];
            into[N - 1 - k][lane] = even[lane] - odd[lane];
        }
    }
    into
}

#[inline(always)]
fn transposed(rows: &Rows) -> Rows {
    let mut turned = [[0.0; SIDE]; SIDE];
    for (y, row) in rows.iter().enumerate() {
        for (x, &value) in row.iter().enumerate() {
            turned[x][y] = value;
        }
    }
    turned
}

/// Computes the N × N samples of a block whose nonzero coefficients are in the first M rows and columns. Coefficients
/// and factors are stored by columns, samples by rows. Samples outside N × N are unspecified.
#[inline(always)]
pub(super) fn inverse<const N: usize, const M: usize>(
    block: &[i16; 64],
    quant: &[f32; 64],
) -> Square {
    let mut columns = [[0.0; SIDE]; SIDE];
    let (block, quant) = (block.as_chunks::<SIDE>().0, quant.as_chunks::<SIDE>().0);
    for u in 0..M.min(N) {
        for lane in 0..SIDE {
            columns[u][lane] = f32::from(block[u][lane]) * quant[u][lane];
        }
    }
    let rows = transposed(&one_way::<N, M>(&columns));
    let rows = one_way::<N, M>(&rows);
    let mut samples = [[0; SIDE]; SIDE];
    for row in 0..N {
        for lane in 0..SIDE {
            samples[row][lane] = level(rows[row][lane]);
        }
    }
    samples
}

/// Computes the samples of a block that has only a DC coefficient, dequantized.
#[inline(always)]
pub(super) fn flat(first: f32) -> Square {
    [[level(first / 8.0); SIDE]; SIDE]
}

/// Converts a result of the transform, which is centred on zero, to a sample.
#[inline(always)]
fn level(value: f32) -> u8 {
    /// Adding this rounds to an integer, which is then in the lowest byte: from 2²³ on, the last binary place of an
    /// `f32` is 1.
    const WHOLE: f32 = (1 << 23) as f32;
    let value = value + 128.0;
    // Not `clamp`, which also handles NaN.
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    (value + WHOLE).to_bits() as u8
}
