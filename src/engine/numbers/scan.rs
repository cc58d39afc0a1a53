//! Running totals.

use std::any::type_name;
use std::marker::PhantomData;

use super::super::{Engine, JobError, ScopedJob};
use super::{Number, chunks};
use crate::array::{Array, ArrayMut, Element, Shape};
use crate::engine::answers::expect_len;
use crate::kernel::zst_value;

impl Engine {
    /// An array of the same shape whose element `i`, in row-major order, is `f` of the elements up to and including
    /// number `i`: `f(f(f(a[0], a[1]), a[2]), …)`, as if it went from left to right.
    ///
    /// It does not: chunks run side by side, so `f` has to be associative. Where it is that only nearly, as the addition of
    /// floating-point numbers, the result depends on the shape and the element type, and not on the number of workers. `f` can
    /// capture nothing, and is passed nothing else: what it needs has to be in the elements, as a pair of numbers for instance.
    /// It blocks its thread, as [`sum`](Engine::sum) does.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let heights = engine.from_slice(&[3, 1, 4, 1, 5, 9, 2])?;
    /// let highest_so_far = engine.scan(&heights, |a: i32, b: i32| a.max(b))?;
    /// assert_eq!(highest_so_far[..], [3, 3, 4, 4, 5, 9, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: `a` is not in this engine's arena, there is no room, or a chunk failed. `f` is the program's own, so a
    /// chunk whose worker dies is not tried again: that is its failure.
    #[doc(alias = "accumulate")]
    pub fn scan<T, F>(&self, a: &Array<T>, f: F) -> Result<Array<T>, JobError>
    where
        T: Element,
        F: Fn(T, T) -> T + Copy + Send + 'static,
    {
        // A name for its type: it has no bytes.
        let _ = f;
        self.scan_by::<By<T, F>>(a, 0)
    }

    /// The cumulative sum: an array of the same shape whose element `i`, in row-major order, is the sum of the elements up
    /// to and including number `i`.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let steps = engine.from_slice(&[200u8, 100, 0, 1])?;
    /// assert_eq!(engine.cumsum(&steps)?[..], [200u64, 300, 300, 301]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The same bits for any number of workers, and where some of them die: such chunks are tried again. Within a chunk
    /// numbers are added one after the other, so the last element can differ from [`sum`](Engine::sum), which adds
    /// pairwise, by rounding.
    ///
    /// # Errors
    /// [`JobError`]: `a` is not in this engine's arena, there is no room, workers died again and again, or a sum of 64-bit
    /// numbers does not fit 64 bits.
    pub fn cumsum<T: Number>(&self, a: &Array<T>) -> Result<Array<T::Sum>, JobError> {
        self.scan_by::<Sums<T>>(a, super::RETRIES)
    }

    fn scan_by<S: Scan>(&self, a: &Array<S::From>, retries: u32) -> Result<Array<S::To>, JobError> {
        let step = chunks::elements::<S::From>(a.len());
        let parts: Vec<Array<S::From>> = chunks::flat(a, step).collect();
        let before = self.before::<S>(&parts, retries)?;
        let mut out = self.output::<S::To>(a.len().into(), type_name::<S>())?;
        // The result for the first chunk has nothing before it.
        let before = |index: usize| before.rows(index.saturating_sub(1)..index);
        if self.lends() {
            self.scope(|s| {
                for (tile, (index, part)) in out.tiles_mut(step).zip(parts.into_iter().enumerate())
                {
                    let args = (part, before(index), tile);
                    s.job(fill::<S>, args).writes_all(retries).submit();
                }
            })
            .map_err(JobError::with_no_unspecified_rows)?;
        } else {
            let results = self.scope(|s| {
                let parts = parts.into_iter().enumerate();
                let jobs: Vec<_> = parts
                    .map(|(index, part)| {
                        let args = (part, before(index));
                        s.job(fresh::<S>, args).writes_all(retries).submit()
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

    /// What stands before each chunk but the first.
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
        let totals = self.map(total::<S>, calls).retries(retries);
        for (to, total) in each.iter_mut().zip(totals) {
            let total = total?;
            expect_len(type_name::<S>(), &total, 1)?;
            *to = total[0];
        }
        let args = (each.seal(),);
        // A call of its own: one that is counted among the jobs of the program would move their random numbers.
        let seed = self.seeds.series().seed(0);
        let running = self.job(running::<S>, args).retries(retries).seed(seed);
        let before = running.submit().wait()?;
        expect_len(type_name::<S>(), &before, but_last.len())?;
        Ok(before)
    }
}

/// An operation with running results. A name: it has no values.
trait Scan: 'static {
    type From: Element;
    type To: Element;
    fn first(element: Self::From) -> Self::To;
    fn join(left: Self::To, right: Self::To) -> Result<Self::To, String>;
    /// Of elements that are no results by themselves.
    fn join_parts(left: Self::To, right: Self::To) -> Result<Self::To, String> {
        Self::join(left, right)
    }
}

/// The program's own.
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
    /// The total of a chunk may be out of range where no element of the result is. What is lost beyond 64 bits comes back with
    /// the totals in front of it; and where it does not, the elements that are out of range are found.
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

/// Writes all of `to`, which is not what it reads: after a death in the middle it can be done again.
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
    let mut to = ArrayMut::unfilled(part.len());
    fill::<S>(part, before, &mut to)?;
    Ok(to.seal())
}
