#![doc = include_str!("README.md")]

mod chunks;
mod histogram;
mod number;
mod reduce;
mod scan;

use std::any::type_name;

pub use histogram::Histogram;
pub use number::Number;

use super::answers::broken_reply;
use super::{JobError, JobErrorKind, Par};
use crate::array::Array;
use crate::kernel::{Args, Kernel, Params, Reply};
use crate::supervisor::{Failed, JobOptions};
use number::{beats, extreme, tree};

/// How often a chunk is retried that was lost with its worker.
const RETRIES: u32 = 2;

impl<T: Number> Par<'_, T> {
    /// Returns the sum of all elements.
    ///
    /// `f32` and `f64` are added pairwise, in an order that depends only on the number of elements: the result has the
    /// same bits for any number of workers, and its rounding error grows with the logarithm of the length. Integers are
    /// added exactly, and return an `i64` or `u64`.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let pixels = engine.from_fn([100, 100], |i| (i % 256) as u8)?;
    /// assert_eq!(engine.par(&pixels).sum()?, 1_273_080_u64);
    ///
    /// let tenths = engine.from_fn(1 << 20, |_| 0.1f32)?;
    /// let sum = engine.par(&tenths).sum()?;
    /// assert!((sum - 104_857.6).abs() < 0.1, "{sum}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: the array is not in this engine's arena, workers died repeatedly, or the sum of 64-bit numbers
    /// does not fit 64 bits.
    pub fn sum(&self) -> Result<T::Sum, JobError> {
        T::finish(self.total()?).ok_or_else(|| {
            refused(
                format!("the sum is out of range of {}", type_name::<T::Sum>()),
                "sum",
            )
        })
    }

    /// Returns the mean of all elements: their [`sum`](Par::sum), divided as `f64`. NaN for an empty array.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let values = engine.from_slice(&[1u8, 2, 6])?;
    /// assert_eq!(engine.par(&values).mean()?, 3.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Like [`sum`](Par::sum), except that no sum is out of range.
    pub fn mean(&self) -> Result<f64, JobError> {
        Ok(T::to_f64(self.total()?) / self.array.len() as f64)
    }

    /// Returns the smallest element, or NaN if the array contains NaN; `None` for an empty array.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let values = engine.from_slice(&[3.5, -1.0, 2.0])?;
    /// let values = engine.par(&values);
    /// assert_eq!((values.min()?, values.argmin()?), (Some(-1.0), Some(1)));
    /// assert_eq!((values.max()?, values.argmax()?), (Some(3.5), Some(0)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: the array is not in this engine's arena, or workers died repeatedly.
    pub fn min(&self) -> Result<Option<T>, JobError> {
        self.extreme::<false>()
    }

    /// Returns the largest element, or NaN if the array contains NaN; `None` for an empty array.
    ///
    /// # Errors
    /// Like [`min`](Par::min).
    pub fn max(&self) -> Result<Option<T>, JobError> {
        self.extreme::<true>()
    }

    /// Returns the index of the smallest element in row-major order: the first of equal elements, or the first NaN.
    /// `None` for an empty array.
    ///
    /// # Errors
    /// Like [`min`](Par::min).
    pub fn argmin(&self) -> Result<Option<usize>, JobError> {
        self.arg_extreme::<false>()
    }

    /// Returns the index of the largest element in row-major order: the first of equal elements, or the first NaN.
    /// `None` for an empty array.
    ///
    /// # Errors
    /// Like [`min`](Par::min).
    pub fn argmax(&self) -> Result<Option<usize>, JobError> {
        self.arg_extreme::<true>()
    }

    fn total(&self) -> Result<T::Partial, JobError> {
        let parts = self.parts(sum_of::<T>)?;
        Ok(match parts.len() {
            0 => T::ZERO,
            // The blocks of a chunk are a whole subtree, so the result is that of the tree over all blocks.
            chunks => tree(0..chunks, &|i| parts[i], &T::add),
        })
    }

    fn extreme<const LARGEST: bool>(&self) -> Result<Option<T>, JobError> {
        let parts = self.parts(extreme_of::<T, LARGEST>)?;
        let pick = |a, b| if beats::<T, LARGEST>(b, a) { b } else { a };
        Ok(parts.into_iter().reduce(pick))
    }

    fn arg_extreme<const LARGEST: bool>(&self) -> Result<Option<usize>, JobError> {
        let len = self.array.len();
        let step = chunks::elements::<T>(len);
        let parts = self.parts(arg_extreme_of::<T, LARGEST>)?;
        let mut best: Option<(T, usize)> = None;
        for (start, (value, index)) in (0..len).step_by(step).zip(parts) {
            let within = step.min(len - start);
            let index = usize::try_from(index).ok().filter(|&index| index < within);
            let index =
                index.ok_or_else(|| broken_reply("arg_extreme", "an element beyond its chunk"))?;
            if best.is_none_or(|(best, _)| beats::<T, LARGEST>(value, best)) {
                best = Some((value, start + index));
            }
        }
        Ok(best.map(|(_, index)| index))
    }

    /// Returns the result of `kernel` for each chunk, in order.
    fn parts<F, P, R>(&self, kernel: F) -> Result<Vec<R::Out>, JobError>
    where
        F: Kernel<P, R>,
        P: Params,
        R: Reply,
        (Array<T>,): Args<'static, P>,
    {
        let step = chunks::elements::<T>(self.array.len());
        let chunks = chunks::flat(self.array, step).map(|chunk| (chunk,));
        self.engine
            .map(kernel, chunks)
            .options(&JobOptions::new().retries(RETRIES))
            .collect()
    }
}

fn sum_of<T: Number>(x: &[T]) -> T::Partial {
    number::sum(x)
}

fn extreme_of<T: Number, const LARGEST: bool>(x: &[T]) -> T {
    extreme::<T, LARGEST>(x)
}

fn arg_extreme_of<T: Number, const LARGEST: bool>(x: &[T]) -> (T, u64) {
    let best = extreme::<T, LARGEST>(x);
    let is_best = |x: &T| *x == best || (best.is_nan() && x.is_nan());
    let index = x.iter().position(is_best).unwrap_or_default();
    (best, index as u64)
}

/// Returns an error for a call whose jobs have all succeeded.
fn refused(why: String, of: &'static str) -> JobError {
    Failed::new(JobErrorKind::Returned(why.into()), of, 0).into()
}
