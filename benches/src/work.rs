//! The work of the cases, as plain functions on slices. Every system of a case does the same work.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arenite_resample::{
    FilterType, Image, ImageRef, PixelType, ResizeAlg, ResizeOptions, Resizer, resize,
};

/// Bytes of a small page.
pub const PAGE: usize = 4096;
/// Width of a picture of the case `images-64`.
pub const IMAGE_WIDTH: u32 = 2112;
/// Height of a picture of the case `images-64`.
pub const IMAGE_HEIGHT: u32 = 1584;
/// Bytes of a picture of the case `images-64`, 3 bytes per pixel: 10.04 MB.
pub const IMAGE_BYTES: usize = IMAGE_WIDTH as usize * IMAGE_HEIGHT as usize * 3;
/// Edge of a small picture.
pub const THUMB_EDGE: u32 = 224;
/// Bytes of a small picture.
pub const THUMB_BYTES: usize = THUMB_EDGE as usize * THUMB_EDGE as usize * 3;

/// Does the work of a no-op job: one number in, one number out, so that both directions carry data.
#[must_use]
pub fn noop(x: u64) -> u64 {
    x.wrapping_add(1)
}

/// Uses the processor until this returns true.
pub(crate) fn burn(ended: impl Fn() -> bool) {
    let mut turns = 0_u64;
    while !ended() {
        turns = black_box(turns).wrapping_add(1);
    }
}

/// Reads one cache line of every page, and returns the sum of the first words.
#[must_use]
pub fn touch(bytes: &[u8]) -> u64 {
    bytes
        .chunks(PAGE)
        .map(first_word)
        .fold(0, u64::wrapping_add)
}

/// Reads all bytes, and returns the sum of all words.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let whole = words
        .iter()
        .map(|word| u64::from_ne_bytes(*word))
        .fold(0, u64::wrapping_add);
    whole.wrapping_add(first_word(rest))
}

fn first_word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let n = bytes.len().min(8);
    word[..n].copy_from_slice(&bytes[..n]);
    u64::from_ne_bytes(word)
}

/// Adds up numbers in the order of `Engine::sum`, so that results are equal bit by bit. Blocks of 512 numbers are the
/// leaves of a tree. The number of blocks in the left half of a tree is the largest power of two below the number of
/// all its blocks. Within a block, 16 accumulators are used in turns.
#[must_use]
pub fn pairwise_sum(numbers: &[f32]) -> f32 {
    const BLOCK: usize = 512;
    const ACCUMULATORS: usize = 16;
    if numbers.len() > BLOCK {
        let blocks = numbers.len().div_ceil(BLOCK);
        let (left, right) = numbers.split_at(blocks.next_power_of_two() / 2 * BLOCK);
        return pairwise_sum(left) + pairwise_sum(right);
    }
    let mut sums = [0.0; ACCUMULATORS];
    let (rows, rest) = numbers.as_chunks::<ACCUMULATORS>();
    for row in rows {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += x;
    }
    let mut half = ACCUMULATORS / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

/// The number of coordinates of a point in the case `kmeans`.
pub const DIMENSIONS: usize = 16;
/// Number of centres in the case `kmeans`.
pub const GROUPS: usize = 8;
/// The centres of a round, ordered by dimension and then by group, so that vector instructions compare all groups at
/// once.
pub const CENTRES: [f32; DIMENSIONS * GROUPS] = centres();
/// For each group, the sum of its points and their number.
pub type Sums = [f64; GROUPS * (DIMENSIONS + 1)];

const fn centres() -> [f32; DIMENSIONS * GROUPS] {
    let mut centres = [0.0; DIMENSIONS * GROUPS];
    let mut i = 0;
    while i < centres.len() {
        centres[i] = (i * 97 % 256) as f32;
        i += 1;
    }
    centres
}

/// For each centre, sums the points to which this centre is the nearest.
#[must_use]
pub fn nearest(points: &[f32], centres: &[f32; DIMENSIONS * GROUPS]) -> Sums {
    let (centres, _) = centres.as_chunks::<GROUPS>();
    let mut sums = [0.0; GROUPS * (DIMENSIONS + 1)];
    for point in points.as_chunks::<DIMENSIONS>().0 {
        let mut distances = [0.0; GROUPS];
        for (x, centres) in point.iter().zip(centres) {
            for (distance, centre) in distances.iter_mut().zip(centres) {
                *distance += (x - centre) * (x - centre);
            }
        }
        let mut best = 0;
        for group in 1..GROUPS {
            if distances[group] < distances[best] {
                best = group;
            }
        }
        let sums = &mut sums[best * (DIMENSIONS + 1)..][..=DIMENSIONS];
        for (sum, x) in sums.iter_mut().zip(point) {
            *sum += f64::from(*x);
        }
        sums[DIMENSIONS] += 1.0;
    }
    sums
}

/// Adds up two results of [`nearest`].
#[must_use]
pub fn add_sums(a: Sums, b: Sums) -> Sums {
    std::array::from_fn(|i| a[i] + b[i])
}

/// Squares `x` into `out`, element by element.
pub fn square(x: &[i64], out: &mut [i64]) {
    for (x, out) in x.iter().zip(out) {
        *out = x.wrapping_mul(*x);
    }
}

/// Shrinks an RGB picture of [`IMAGE_WIDTH`] × [`IMAGE_HEIGHT`] to 224×224 into `out` by averaging areas.
///
/// Averaging is the fastest algorithm in real use, so the time to move the pixels is visible.
///
/// # Panics
/// If the slices are not as long as pictures of these sizes.
pub fn shrink(pixels: &[u8], out: &mut [u8]) {
    thread_local! {
        static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
    }
    let source = ImageRef::new(IMAGE_WIDTH, IMAGE_HEIGHT, pixels, PixelType::U8x3)
        .expect("a picture of the case has this size");
    let mut target = Image::from_slice_u8(THUMB_EDGE, THUMB_EDGE, out, PixelType::U8x3)
        .expect("a small picture has this size");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Box));
    RESIZER.with_borrow_mut(|resizer| {
        resize(resizer, &source, &mut target, &options)
            .expect("both pictures have the same pixel type");
    });
}

/// Spins for this number of turns. Calls with the same number do the same work, however long it takes.
pub fn spin(turns: u64) -> u64 {
    let mut x = black_box(turns);
    for _ in 0..turns {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    black_box(x)
}

/// Returns the number of turns of [`spin`] that take a microsecond on this machine, as the maximum of several
/// measurements. They are made only once per program, so that all systems of a case have the same work.
#[must_use]
pub fn turns_per_microsecond() -> f64 {
    const TURNS: u64 = 1_000_000;
    static FOUND: OnceLock<f64> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let fastest = (0..20)
            .map(|_| {
                let start = Instant::now();
                spin(TURNS);
                start.elapsed()
            })
            .min()
            .unwrap_or(Duration::from_millis(1));
        TURNS as f64 / fastest.as_secs_f64() / 1e6
    })
}

/// A generator of pseudo-random numbers (splitmix64), so that every run has the same input.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts the sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns `len` random bytes.
    #[must_use]
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = self.next_u64().to_ne_bytes();
        }
        for byte in rest {
            *byte = self.next_u64() as u8;
        }
        bytes
    }

    /// Puts `items` in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = (self.next_u64() % (last as u64 + 1)) as usize;
            items.swap(last, other);
        }
    }
}
