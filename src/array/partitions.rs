//! Parts of an array along its leading axis.

use std::iter::FusedIterator;

use super::{Array, Element};

impl<T: Element> Array<T> {
    /// Splits the array along the leading axis into `n` parts, in order and without copying: each part is a handle to
    /// the same memory.
    ///
    /// Row counts differ by at most one, larger parts first. No part is empty, so there are fewer than `n` parts if the
    /// array has fewer than `n` rows.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    ///
    /// Runs a kernel on each part, with another array that all of them read (a *broadcast*):
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn above(part: &[u32], limits: &[u32]) -> u64 {
    ///     part.iter().zip(limits.iter().cycle()).filter(|(value, limit)| value > limit).count() as u64
    /// }
    ///
    /// let table = engine.from_fn([10, 2], |i| i as u32)?;
    /// let limits = engine.from_slice(&[4, 11])?;
    /// let parts = table.partitions(3);
    /// let counts = engine.map(above, parts.map(|part| (part, &limits)));
    /// assert_eq!(counts.collect::<Result<Vec<_>, _>>()?, [1, 4, 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn partitions(&self, n: usize) -> impl ExactSizeIterator<Item = Array<T>> + Clone + use<T> {
        assert!(n > 0, "an array in 0 parts");
        Partitions {
            rest: self.clone(),
            left: n.min(self.shape().rows()),
        }
    }
}

/// Iterator over the parts of an array, returned by [`Array::partitions`].
#[must_use = "iterators are lazy"]
#[derive(Clone)]
struct Partitions<T: Element> {
    /// The rows that are in no part yet.
    rest: Array<T>,
    left: usize,
}

impl<T: Element> Iterator for Partitions<T> {
    type Item = Array<T>;

    fn next(&mut self) -> Option<Array<T>> {
        if self.left == 0 {
            return None;
        }
        let rows = self.rest.shape().rows().div_ceil(self.left);
        let part = self.rest.rows(..rows);
        self.rest = self.rest.rows(rows..);
        self.left -= 1;
        Some(part)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Element> ExactSizeIterator for Partitions<T> {}
impl<T: Element> FusedIterator for Partitions<T> {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        #[test]
        fn parts_cover_the_array_in_order_with_nearly_equal_sizes(rows in 0usize..200, n in 1usize..40) {
            let table = Array::from_fn([rows, 3], |i| i as u32);
            let parts = table.partitions(n);
            prop_assert_eq!(parts.len(), n.min(rows));
            let sizes: Vec<usize> = parts.clone().map(|part| part.shape().rows()).collect();
            // Like `numpy.array_split`, but without empty parts.
            let expected: Vec<usize> = (0..n)
                .map(|i| rows / n + usize::from(i < rows % n))
                .filter(|&rows| rows > 0)
                .collect();
            prop_assert_eq!(sizes, expected);
            let mut own = table.copy();
            let exclusive = own.partitions_mut(n).map(|part| (part.rows().len(), part.to_vec()));
            let expected = parts.clone().map(|part| (part.shape().rows(), part.to_vec()));
            prop_assert_eq!(exclusive.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            let joined: Vec<u32> = parts.flat_map(|part| part.to_vec()).collect();
            prop_assert_eq!(&joined[..], &table[..]);
        }
    }

    #[test]
    fn parts_share_the_arrays_memory() {
        let table = Array::from_fn([7, 2], |i| i as u32);
        let mut at = table.as_ptr();
        for part in table.partitions(3) {
            assert_eq!(part.as_ptr(), at);
            at = part.as_ptr_range().end;
        }
        assert_eq!(at, table.as_ptr_range().end);
    }

    #[test]
    #[should_panic(expected = "an array in 0 parts")]
    fn zero_parts_panic() {
        let _ = Array::<u8>::zeros(3).partitions(0);
    }
}
