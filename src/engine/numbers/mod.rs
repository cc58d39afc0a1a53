#![doc = include_str!("README.md")]

mod chunks;
mod histogram;
mod number;
mod reduce;
mod scan;

use std::any::type_name;

pub use histogram::Histogram;
pub use number::Number;

use super::answers::lie;
use super::{Engine, JobError, JobErrorKind};
use crate::array::Array;
use crate::kernel::{Args, Kernel, Params, Reply};
use crate::supervisor::Failed;
use number::{beats, extreme, tree};

/// How often a chunk is tried again that was lost with its worker.
const RETRIES: u32 = 2;

impl Engine {
    /// The sum of all elements.
    ///
    /// `f32` and `f64` are added pairwise, in an order that depends on the number of elements alone: the result has the
    /// same bits whatever the number of workers is, and a rounding error that grows with the logarithm of the length.
    /// Whole numbers are added exactly, and give an `i64` or `u64`.
    ///
    /// It blocks its thread until the result is there, as do `mean`, `min` and all others that take a whole array. In `async`
    /// code they belong where blocking is allowed (`spawn_blocking` of tokio, `unblock` of smol), as a
    /// [scope](Engine::scope) does.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let pixels = engine.from_fn([100, 100], |i| (i % 256) as u8)?;
    /// assert_eq!(engine.sum(&pixels)?, 1_273_080_u64);
    ///
    /// let tenths = engine.from_fn(1 << 20, |_| 0.1f32)?;
    /// let sum = engine.sum(&tenths)?;
    /// assert!((sum - 104_857.6).abs() < 0.1, "{sum}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: `a` is not in this engine's arena, workers died again and again, or the sum of 64-bit numbers does
    /// not fit 64 bits.
    pub fn sum<T: Number>(&self, a: &Array<T>) -> Result<T::Sum, JobError> {
        T::finish(self.total(a)?).ok_or_else(|| {
            refused(
                format!("the sum is out of range of {}", type_name::<T::Sum>()),
                "sum",
            )
        })
    }

    /// The mean of all elements: their [`sum`](Engine::sum), divided as `f64`. NaN where there are none.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let values = engine.from_slice(&[1u8, 2, 6])?;
    /// assert_eq!(engine.mean(&values)?, 3.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`sum`](Engine::sum), but no sum is out of range.
    pub fn mean<T: Number>(&self, a: &Array<T>) -> Result<f64, JobError> {
        Ok(T::to_f64(self.total(a)?) / a.len() as f64)
    }

    /// The smallest element, or NaN if there is one; `None` where there are no elements.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let values = engine.from_slice(&[3.5, -1.0, 2.0])?;
    /// assert_eq!(engine.min(&values)?, Some(-1.0));
    /// assert_eq!(engine.max(&values)?, Some(3.5));
    /// assert_eq!(engine.argmin(&values)?, Some(1));
    /// assert_eq!(engine.argmax(&values)?, Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: `a` is not in this engine's arena, or workers died again and again.
    pub fn min<T: Number>(&self, a: &Array<T>) -> Result<Option<T>, JobError> {
        self.extreme::<T, false>(a)
    }

    /// The largest element, or NaN if there is one; `None` where there are no elements.
    ///
    /// # Errors
    /// As [`min`](Engine::min).
    pub fn max<T: Number>(&self, a: &Array<T>) -> Result<Option<T>, JobError> {
        self.extreme::<T, true>(a)
    }

    /// The index of the smallest element in row-major order: the first of those that are equal, or the first NaN.
    /// `None` where there are no elements.
    ///
    /// # Errors
    /// As [`min`](Engine::min).
    pub fn argmin<T: Number>(&self, a: &Array<T>) -> Result<Option<usize>, JobError> {
        self.arg_extreme::<T, false>(a)
    }

    /// The index of the largest element in row-major order: the first of those that are equal, or the first NaN. `None`
    /// where there are no elements.
    ///
    /// # Errors
    /// As [`min`](Engine::min).
    pub fn argmax<T: Number>(&self, a: &Array<T>) -> Result<Option<usize>, JobError> {
        self.arg_extreme::<T, true>(a)
    }

    fn total<T: Number>(&self, a: &Array<T>) -> Result<T::Partial, JobError> {
        let parts = self.parts(a, sum_of::<T>)?;
        Ok(match parts.len() {
            0 => T::ZERO,
            // Chunks are subtrees, so this is the tree over all blocks.
            chunks => tree(0..chunks, &|i| parts[i], &T::add),
        })
    }

    fn extreme<T: Number, const LARGEST: bool>(&self, a: &Array<T>) -> Result<Option<T>, JobError> {
        let parts = self.parts(a, extreme_of::<T, LARGEST>)?;
        let pick = |a, b| if beats::<T, LARGEST>(b, a) { b } else { a };
        Ok(parts.into_iter().reduce(pick))
    }

    fn arg_extreme<T: Number, const LARGEST: bool>(
        &self,
        a: &Array<T>,
    ) -> Result<Option<usize>, JobError> {
        let step = chunks::elements::<T>(a.len());
        let parts = self.parts(a, arg_extreme_of::<T, LARGEST>)?;
        let mut best: Option<(T, usize)> = None;
        for (start, (value, index)) in (0..a.len()).step_by(step).zip(parts) {
            let within = step.min(a.len() - start);
            let index = usize::try_from(index).ok().filter(|&index| index < within);
            let index = index.ok_or_else(|| lie("arg_extreme", "an element beyond its chunk"))?;
            if best.is_none_or(|(best, _)| beats::<T, LARGEST>(value, best)) {
                best = Some((value, start + index));
            }
        }
        Ok(best.map(|(_, index)| index))
    }

    /// What a kernel makes of each chunk, in order.
    fn parts<T, F, P, R>(&self, a: &Array<T>, kernel: F) -> Result<Vec<R::Out>, JobError>
    where
        T: Number,
        F: Kernel<P, R>,
        P: Params,
        R: Reply,
        (Array<T>,): Args<'static, P>,
    {
        let step = chunks::elements::<T>(a.len());
        let chunks = chunks::flat(a, step).map(|chunk| (chunk,));
        self.map(kernel, chunks).retries(RETRIES).collect()
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

/// A failure of a whole call, none of whose jobs has failed.
fn refused(why: String, of: &'static str) -> JobError {
    Failed::new(JobErrorKind::Returned(why), of, 0).into()
}
