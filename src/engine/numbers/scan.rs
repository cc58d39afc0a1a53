//! Running totals.

use std::any::type_name;
use std::marker::PhantomData;

use super::super::{Engine, JobError, Par, ScopedJob};
use super::{Number, chunks};
use crate::array::{Array, ArrayMut, Element, Shape};
use crate::engine::answers::expect_len;
use crate::kernel::zst_value;
use crate::supervisor::JobOptions;

impl<T: Element> Par<'_, T> {
    /// Returns the running results of `f`: an array of the same shape whose element `i`, in row-major order, combines
    /// the elements up to and including number `i` by `f`, as if from left to right: `f(f(f(a[0], a[1]), a[2]), …)`.
    ///
    /// Chunks run in parallel, so `f` has to be associative. If it is only approximately associative, like the addition
    /// of floating-point numbers, then the result depends on the shape and the element type, and not on the number of
    /// workers. `f` cannot capture anything; data that it needs must be in the elements, for example as a pair of
    /// numbers.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let heights = engine.from_slice(&[3, 1, 4, 1, 5, 9, 2])?;
    /// let highest_so_far = engine.par(&heights).scan(|a: i32, b: i32| a.max(b))?;
    /// assert_eq!(highest_so_far[..], [3, 3, 4, 4, 5, 9, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: the array is not in this engine's arena, there is no room, or a chunk failed. A chunk whose worker
    /// dies is not retried, because `f` may have side effects.
    #[doc(alias = "accumulate")]
    pub fn scan<F>(&self, f: F) -> Result<Array<T>, JobError>
    where
        F: Fn(T, T) -> T + Copy + Send + 'static,
    {
        // Only the type of `f` is used: its value has no bytes.
        let _ = f;
        self.engine.scan_by::<By<T, F>>(self.array, 0)
    }

    /// Returns the cumulative sum: an array of the same shape whose element `i`, in row-major order, is the sum of the
    /// elements up to and including number `i`.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let steps = engine.from_slice(&[200u8, 100, 0, 1])?;
    /// assert_eq!(engine.par(&steps).cumsum()?[..], [200u64, 300, 300, 301]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The result has the same bits for any number of workers, even if some workers die: their chunks are retried.
    /// Within a chunk, numbers are added from left to right, so the last element can differ by rounding from
    /// [`sum`](Par::sum), which adds pairwise.
    ///
    /// # Errors
    /// [`JobError`]: the array is not in this engine's arena, there is no room, workers died repeatedly, or a sum of
    /// 64-bit numbers does not fit 64 bits.
    pub fn cumsum(&self) -> Result<Array<T::Sum>, JobError>
    where
        T: Number,
    {
        self.engine.scan_by::<Sums<T>>(self.array, super::RETRIES)
    }
}

impl Engine {
    fn scan_by<S: Scan>(&self, a: &Array<S::From>, retries: u32) -> Result<Array<S::To>, JobError> {
        let step = chunks::elements::<S::From>(a.len());
        let parts: Vec<Array<S::From>> = chunks::flat(a, step).collect();
        let before = self.before::<S>(&parts, retries)?;
        let mut out = self.output::<S::To>(a.len().into(), type_name::<S>())?;
        // The first chunk has no preceding result, so the range is empty.
        let before = |index: usize| before.rows(index.saturating_sub(1)..index);
        if self.lends() {
            self.scope(|s| {
                for (tile, (index, part)) in out.tiles_mut(step).zip(parts.into_iter().enumerate())
                {
                    let args = (part, before(index), tile);
                    s.submit_with(&s.writes_all(retries), fill::<S>, args);
                }
            })
            .map_err(JobError::with_no_unspecified_rows)?;
        } else {
            let results = self.scope(|s| {
                let parts = parts.into_iter().enumerate();
                let jobs: Vec<_> = parts
                    .map(|(index, part)| {
                        let args = (part, before(index));
                        s.submit_with(&s.writes_all(retries), fresh::<S>, args)
                    })
                    .collect();
                let results = jobs.into_iter().map(ScopedJob::wait);
                results.collect::<Result<Vec<_>, _>>()
            })??;
            for (tile, result) in out.chunks_mut(step).zip(&results) {
                expect_len(type_name::<S>(), result, tile.len())?;
                tile.copy_from_slice(result);
            }
        }
        Ok(out.seal().reshape(a.shape()).expect("as many elements"))
    }

    /// Returns the running result at the end of each chunk except the last.
    fn before<S: Scan>(
        &self,
        parts: &[Array<S::From>],
        retries: u32,
    ) -> Result<Array<S::To>, JobError> {
        let but_last = &parts[..parts.len().saturating_sub(1)];
        let mut each = self.output::<S::To>(Shape::from(but_last.len()), type_name::<S>())?;
        if but_last.is_empty() {
            return Ok(each.seal());
        }
        let calls = but_last.iter().map(|part| (part,));
        let totals = self
            .map(total::<S>, calls)
            .options(&JobOptions::new().retries(retries));
        for (to, total) in each.iter_mut().zip(totals) {
            let total = total?;
            expect_len(type_name::<S>(), &total, 1)?;
            *to = total[0];
        }
        let args = (each.seal(),);
        // This job has a seed of its own: if it were counted as a job of the program, it would change the random
        // numbers of other jobs.
        let seed = self.seeds.series().seed(0);
        let running = self.job(running::<S>, args).retries(retries).seed(seed);
        let before = running.submit().wait()?;
        expect_len(type_name::<S>(), &before, but_last.len())?;
        Ok(before)
    }
}

/// An operation with running results. Types that implement this trait have no values.
trait Scan: 'static {
    type From: Element;
    type To: Element;
    fn first(element: Self::From) -> Self::To;
    fn join(left: Self::To, right: Self::To) -> Result<Self::To, String>;
    /// Joins the totals of two chunks. Unlike the result of `join`, this result is not an element of the resulting
    /// array.
    fn join_parts(left: Self::To, right: Self::To) -> Result<Self::To, String> {
        Self::join(left, right)
    }
}

/// The operation that joins elements by the function `F` of the program.
struct By<T, F>(PhantomData<fn(T) -> F>);

impl<T: Element, F: Fn(T, T) -> T + Copy + 'static> Scan for By<T, F> {
    type From = T;
    type To = T;
    #[inline]
    fn first(element: T) -> T {
        element
    }
    #[inline]
    fn join(left: T, right: T) -> Result<T, String> {
        Ok(zst_value::<F>()(left, right))
    }
}

struct Sums<T>(PhantomData<fn(T)>);

impl<T: Number> Scan for Sums<T> {
    type From = T;
    type To = T::Sum;
    #[inline]
    fn first(element: T) -> T::Sum {
        element.widen()
    }
    #[inline]
    fn join(left: T::Sum, right: T::Sum) -> Result<T::Sum, String> {
        T::add_sums(left, right).ok_or_else(|| {
            format!(
                "{left:?} + {right:?} is out of range of {}",
                type_name::<T::Sum>()
            )
        })
    }
    /// Wraps around, because the total of a chunk may be out of range although no element of the result is: adding the
    /// preceding totals then wraps back. If an element is out of range, [`join`](Scan::join) detects it.
    #[inline]
    fn join_parts(left: T::Sum, right: T::Sum) -> Result<T::Sum, String> {
        Ok(T::add_parts(left, right))
    }
}

fn total<S: Scan>(part: &[S::From]) -> Result<Array<S::To>, String> {
    let (&first, rest) = part.split_first().ok_or("an empty chunk")?;
    let mut sum = S::first(first);
    for &element in rest {
        sum = S::join_parts(sum, S::first(element))?;
    }
    Ok(Array::from_slice(&[sum]))
}

fn running<S: Scan>(totals: &[S::To]) -> Result<Array<S::To>, String> {
    let mut running = ArrayMut::from_slice(totals);
    for i in 1..running.len() {
        running[i] = S::join_parts(running[i - 1], running[i])?;
    }
    Ok(running.seal())
}

/// Writes all of `to` and does not read it, so a chunk whose worker died can run again.
fn fill<S: Scan>(part: &[S::From], before: &[S::To], to: &mut [S::To]) -> Result<(), String> {
    let mut sum = before.first().copied();
    for (to, &element) in to.iter_mut().zip(part) {
        let element = S::first(element);
        *to = match sum {
            None => element,
            Some(sum) => S::join(sum, element)?,
        };
        sum = Some(*to);
    }
    Ok(())
}

fn fresh<S: Scan>(part: &[S::From], before: &[S::To]) -> Result<Array<S::To>, String> {
    let mut to = ArrayMut::uninit(part.len());
    fill::<S>(part, before, &mut to)?;
    Ok(to.seal())
}
