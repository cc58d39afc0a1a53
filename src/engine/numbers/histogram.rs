//! Counts of elements by value.

use std::panic::panic_any;

use super::super::{JobError, JobErrorKind, JobLimit, Par};
use super::{Number, RETRIES, chunks};
use crate::arena::ArenaFull;
use crate::array::{Array, ArrayMut};
use crate::engine::answers::{broken_reply, expect_len};
use crate::kernel::SplitArgs;
use crate::supervisor::{Failed, JobOptions};

/// The result of [`Par::histogram`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Histogram {
    /// The number of elements in each bin.
    pub counts: Vec<u64>,
    /// The lower edges of the bins, followed by the upper edge of the last bin: one more than there are bins.
    pub edges: Vec<f64>,
}

impl<T: Number> Par<'_, T> {
    /// Counts the elements in each of `bins` bins of equal width between `low` and `high`.
    ///
    /// As in numpy, a bin contains its lower edge and not its upper edge; the last bin contains both. Elements outside
    /// all bins, and NaN, are not counted. Elements are compared as `f64`, so integers beyond 2⁵³ are rounded first.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let values = engine.from_slice(&[0.0, 0.4, 1.0, 2.5, 4.0, 9.0])?;
    /// let histogram = engine.par(&values).histogram(4, (0.0, 4.0))?;
    /// assert_eq!(histogram.counts, [2, 1, 1, 1]);
    /// assert_eq!(histogram.edges, [0.0, 1.0, 2.0, 3.0, 4.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: the array is not in this engine's arena, there is no room for the counts, or workers died
    /// repeatedly.
    ///
    /// # Panics
    /// If there are no bins, or more than fit the address space; if `low` is not below `high`, or `low`, `high` or the
    /// width is not finite.
    #[track_caller]
    pub fn histogram(&self, bins: usize, (low, high): (f64, f64)) -> Result<Histogram, JobError> {
        assert!(bins > 0, "a histogram of 0 bins");
        assert!(
            low < high && (high - low).is_finite(),
            "a histogram from {low} to {high}: the range must be finite, its lower end first"
        );
        let rest = (bins as u64, low, high);
        assert!(
            bins < isize::MAX as usize / size_of::<u64>(),
            "a histogram of {bins} bins: more than memory holds"
        );
        // The vectors are reserved first, so that a failure costs nothing. They are written only after the arena had
        // room for the counts of a chunk.
        let (mut counts, mut edges) = room(bins)
            .and_then(|counts: Vec<u64>| Ok((counts, room(bins + 1)?)))
            .map_err(|full| {
                let kind = JobErrorKind::Limit(JobLimit::Arena(full));
                JobError::from(Failed::new(kind, "histogram", 0))
            })?;
        let step = chunks::elements::<T>(self.array.len());
        let calls = chunks::flat(self.array, step).map(|first| SplitArgs(first, rest));
        for part in self
            .engine
            .map(count::<T>, calls)
            .options(&JobOptions::new().retries(RETRIES))
        {
            let part = part?;
            expect_len("histogram", &part, bins)?;
            counts.resize(bins, 0);
            for (all, &count) in counts.iter_mut().zip(part.iter()) {
                let sum = all.checked_add(count);
                *all =
                    sum.ok_or_else(|| broken_reply("histogram", "more elements than there are"))?;
            }
        }
        // An empty array has no chunk, so `counts` is still empty.
        counts.resize(bins, 0);
        put_edges(&mut edges, bins, low, high);
        Ok(Histogram { counts, edges })
    }
}

/// Returns an empty vector with room for `len` values.
fn room<T>(len: usize) -> Result<Vec<T>, ArenaFull> {
    let mut all = Vec::new();
    let bytes = len.saturating_mul(size_of::<T>()) as u64;
    match all.try_reserve_exact(len) {
        Ok(()) => Ok(all),
        Err(_) => Err(ArenaFull::private(bytes)),
    }
}

fn put_edges(edges: &mut Vec<f64>, bins: usize, low: f64, high: f64) {
    let width = (high - low) / bins as f64;
    edges.extend((0..bins).map(|i| low + i as f64 * width));
    edges.push(high);
}

/// Returns the edges of the bins. Called in a kernel: if there is no room, the kernel's `catch_unwind` guard reports
/// the error with its numbers.
fn edges(bins: usize, low: f64, high: f64) -> Vec<f64> {
    let mut edges = room(bins + 1).unwrap_or_else(|full| panic_any(full));
    put_edges(&mut edges, bins, low, high);
    edges
}

fn count<T: Number>(x: &[T], bins: u64, low: f64, high: f64) -> Array<u64> {
    let bins = bins as usize;
    // The counts are allocated before the edges, because the arena refuses too many bins. The edges take the same
    // amount of private memory, which could trigger the OOM killer.
    let mut counts = ArrayMut::zeros(bins);
    let edges = edges(bins, low, high);
    let per_unit = bins as f64 / (high - low);
    for x in x.iter().map(|x| x.as_f64()) {
        if !(low..=high).contains(&x) {
            continue;
        }
        let guess = (((x - low) * per_unit) as usize).min(bins - 1);
        // The guess may be off by one, or by more if bins are narrower than the spacing of numbers. So the edges
        // decide.
        let is_in = |bin: &usize| edges[*bin] <= x && (bin + 1 == bins || x < edges[bin + 1]);
        let near = [guess, guess.saturating_sub(1), (guess + 1).min(bins - 1)];
        let bin = near.into_iter().find(is_in).unwrap_or_else(|| {
            let behind = edges[..bins].partition_point(|&edge| edge <= x);
            behind - 1
        });
        counts[bin] += 1;
    }
    counts.seal()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Engine;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        #[test]
        fn the_edges_decide(
            x in prop::collection::vec(-3.0f64..3.0, 0..200),
            bins in 1usize..50,
            low in -2.0f64..0.0,
            width in 0.001f64..4.0,
        ) {
            let high = low + width;
            let edges = edges(bins, low, high);
            // The values include numbers that are equal to edges.
            let x: Vec<f64> = x.into_iter().chain(edges.iter().copied()).collect();
            let expected: Vec<u64> = (0..bins)
                .map(|bin| {
                    let inside = |x: &&f64| {
                        edges[bin] <= **x && (**x < edges[bin + 1] || (bin + 1 == bins && **x == high))
                    };
                    x.iter().filter(inside).count() as u64
                })
                .collect();
            prop_assert_eq!(&count(&x, bins as u64, low, high)[..], &expected[..]);
        }
    }

    /// The returned edges decide, even if several edges are equal, or the number of bins per unit is not finite.
    #[test]
    fn bins_narrower_than_numbers_are_dense() {
        for (bins, low, high) in [
            (100, 0.0, 1e-307),
            (1000, 1e9, 1e9 + 1e-5),
            (7, -1e300, 1e300),
        ] {
            let edges = edges(bins, low, high);
            let x: Vec<f64> = (0..=64)
                .map(|i| low + (high - low) * f64::from(i) / 64.0)
                .collect();
            let mut expected = vec![0; bins];
            for x in &x {
                let bin = (0..bins).rev().find(|&bin| edges[bin] <= *x);
                let bin = bin.expect("it is not below the first edge");
                expected[bin] += 1;
            }
            assert_eq!(count(&x, bins as u64, low, high)[..], expected[..]);
        }
    }

    fn of(bins: usize, range: (f64, f64)) {
        let _ = Engine::inline()
            .par(&Array::from_slice(&[1.0]))
            .histogram(bins, range);
    }

    #[test]
    #[should_panic(expected = "a histogram of 0 bins")]
    fn without_bins() {
        of(0, (0.0, 1.0));
    }

    #[test]
    #[should_panic(expected = "more than memory holds")]
    fn with_more_bins_than_there_are_addresses() {
        of(usize::MAX / 8, (0.0, 1.0));
    }

    #[test]
    #[should_panic(expected = "a histogram from 1 to 1")]
    fn without_width() {
        of(1, (1.0, 1.0));
    }

    #[test]
    #[should_panic(expected = "must be finite")]
    fn without_end() {
        of(1, (0.0, f64::INFINITY));
    }

    #[test]
    #[should_panic(expected = "from NaN")]
    fn from_nowhere() {
        of(1, (f64::NAN, 1.0));
    }
}
