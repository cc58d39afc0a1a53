//! Divides arrays into chunks. The division depends only on shape and element type.

use crate::array::{Array, Element, Shape};

/// The approximate number of chunks of a large array.
const CHUNKS: usize = 256;
/// The minimum size of a chunk in bytes.
const SMALLEST: usize = 64 * 1024;
/// The maximum size of a chunk in bytes.
const LARGEST: usize = 4 << 20;

/// Returns the approximate size in bytes of each chunk, for an array of `bytes` bytes.
fn chunk_bytes(bytes: usize) -> usize {
    bytes.div_ceil(CHUNKS).clamp(SMALLEST, LARGEST)
}

/// Returns the number of elements of a chunk, a power of two, for an array of `len` elements.
pub(super) fn elements<T>(len: usize) -> usize {
    let size = size_of::<T>().max(1);
    let fit = chunk_bytes(len.saturating_mul(size)) / size;
    fit.max(1).next_power_of_two()
}

/// Returns the number of steps of the leading axis in a chunk, at least one.
pub(super) fn rows<T>(shape: Shape) -> usize {
    let row = shape.bytes::<T>().unwrap_or(0) / shape.rows().max(1);
    let row = row.max(1);
    (chunk_bytes(row.saturating_mul(shape.rows())) / row).max(1)
}

/// Returns the chunks of an array that is regarded as one row of elements, in order. Each has `step` elements; the last
/// may have fewer.
pub(super) fn flat<T: Element>(a: &Array<T>, step: usize) -> impl Iterator<Item = Array<T>> {
    let len = a.len();
    let flat = a.clone().reshape(len).expect("the same elements in a row");
    (0..len)
        .step_by(step)
        .map(move |start| flat.rows(start..len.min(start + step)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_arrays_have_at_least_256_chunks_and_small_ones_few() {
        assert_eq!(elements::<f32>(0), 16 * 1024);
        assert_eq!(elements::<f32>(1_000_000), 16 * 1024);
        assert_eq!(elements::<u8>(16 << 20), 64 * 1024);
        assert_eq!(elements::<f32>(1 << 28), 1 << 20);
        assert_eq!(elements::<f64>(1 << 40), 1 << 19);
        assert_eq!(elements::<[u8; 12]>(1), 8192);
        assert_eq!(elements::<[u8; 1 << 20]>(10), 1);
        assert_eq!(elements::<()>(10), 64 * 1024);
    }

    #[test]
    fn chunks_are_whole_rows() {
        assert_eq!(rows::<f32>(Shape::from([1_250_000, 16])), 4882);
        assert_eq!(rows::<u8>(Shape::from([10, 1 << 20])), 1);
        assert_eq!(rows::<u8>(Shape::from([10, 3])), 21845);
        assert_eq!(rows::<u8>(Shape::from([0, 3])), 65536);
        assert_eq!(rows::<u8>(Shape::from([5, 0])), 65536);
    }

    #[test]
    fn chunks_cover_the_array() {
        let a = Array::from_fn([3, 7], |i| i);
        let flat: Vec<_> = flat(&a, 4).map(|chunk| chunk.to_vec()).collect();
        assert_eq!(flat.concat()[..], a[..]);
        assert_eq!(flat.len(), 6);
        let none = Array::<u8>::zeros([0, 7]);
        assert_eq!(self::flat(&none, 4).count(), 0);
    }
}
