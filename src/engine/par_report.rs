//! Whole arrays in chunks, of which some may fail.

use std::fmt;
use std::ops::Range;

use super::par::{apply, apply_fresh};
use super::{DeadLetter, Engine, JobError};
use crate::array::{Array, ArrayMut, Element};
use crate::kernel::conjure;

/// What came of the chunks of an array: see [`Engine::par_apply_report`].
#[derive(Clone, Debug)]
pub struct ParReport<T: Element, U: Element> {
    values: Array<U>,
    failures: Vec<DeadLetter<Array<T>>>,
}

impl<T: Element, U: Element> ParReport<T, U> {
    /// The result. Rows of chunks that failed are zero.
    pub fn values(&self) -> &Array<U> {
        &self.values
    }

    /// The chunks that failed, in order: [`index`](DeadLetter::index) is the first row, the arguments are the rows of the
    /// input, without a copy.
    pub fn failures(&self) -> &[DeadLetter<Array<T>>] {
        &self.failures
    }

    /// The result, and the chunks that failed.
    pub fn into_parts(self) -> (Array<U>, Vec<DeadLetter<Array<T>>>) {
        (self.values, self.failures)
    }
}

impl<T: Element, U: Element> fmt::Display for ParReport<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: usize = self
            .failures
            .iter()
            .map(|letter| letter.args().shape().rows())
            .sum();
        write!(f, "{rows} of {} rows failed", self.values.shape().rows())?;
        for letter in &self.failures {
            let first = letter.index();
            let end = first + letter.args().shape().rows();
            write!(f, "\n  rows {first}..{end}: {}", letter.error())?;
        }
        Ok(())
    }
}

impl<T: Element + fmt::Debug, U: Element + fmt::Debug> std::error::Error for ParReport<T, U> {}

impl Engine {
    /// As [`par_apply`](Engine::par_apply), but a chunk that fails does not throw the others' results away: it is reported,
    /// with its rows of the input and the error.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let numbers = engine.from_slice(&[4u32, 9, 16])?;
    /// let report = engine.par_apply_report(&numbers, |from: &[u32], to: &mut [u32]| {
    ///     for (to, from) in to.iter_mut().zip(from) {
    ///         *to = from.isqrt();
    ///     }
    /// })?;
    /// assert!(report.failures().is_empty());
    /// assert_eq!(report.values()[..], [2, 3, 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: there is no room for the result.
    pub fn par_apply_report<T, U, F>(&self, a: &Array<T>, f: F) -> Result<ParReport<T, U>, JobError>
    where
        T: Element,
        U: Element,
        F: Fn(&[T], &mut [U]) + Copy + Send + 'static,
    {
        // `f` is a name for its type: it has no bytes.
        let _ = f;
        let mut out = self.output::<U>(a.shape(), std::any::type_name::<F>())?;
        let failed = if self.lends() {
            self.apply_in_place::<T, U, F>(a, &mut out)
        } else {
            self.apply_and_copy::<T, U, F>(a, &mut out)
        };
        // What a dead worker has left there is unspecified.
        let row = a.shape().row_len().unwrap_or(0);
        for (rows, _) in &failed {
            out[rows.start * row..rows.end * row].fill(U::zeroed());
        }
        let letters = failed.into_iter().map(|(rows, error)| {
            let first = rows.start;
            DeadLetter::new(first, a.rows(rows), error)
        });
        Ok(ParReport {
            failures: letters.collect(),
            values: out.seal(),
        })
    }

    /// As [`par_map`](Engine::par_map), but with a report: see [`par_apply_report`](Engine::par_apply_report). Elements
    /// share a chunk, so one that panics costs its neighbours.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let numbers = engine.from_slice(&[1u32, 0])?;
    /// let report = engine.par_map_report(&numbers, |x: u32| 100 / x)?;
    /// let [failure] = report.failures() else { panic!("{report}") };
    /// assert_eq!((failure.index(), failure.args()[..].to_vec()), (0, vec![1, 0]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`par_apply_report`](Engine::par_apply_report).
    pub fn par_map_report<T, U, F>(&self, a: &Array<T>, f: F) -> Result<ParReport<T, U>, JobError>
    where
        T: Element,
        U: Element,
        F: Fn(T) -> U + Copy + Send + 'static,
    {
        // A name for its type: it has no bytes.
        let _ = f;
        self.par_apply_report(a, |from: &[T], to: &mut [U]| {
            let f = conjure::<F>();
            for (to, &from) in to.iter_mut().zip(from) {
                *to = f(from);
            }
        })
    }

    fn apply_in_place<T, U, F>(
        &self,
        a: &Array<T>,
        out: &mut ArrayMut<U>,
    ) -> Vec<(Range<usize>, JobError)>
    where
        T: Element,
        U: Element,
        F: Fn(&[T], &mut [U]) + Copy + Send + 'static,
    {
        let rows = self.rows_per_chunk(a.shape(), size_of::<T>().max(size_of::<U>()));
        let (failed, _) = self.scope_collect(|s| {
            let jobs: Vec<_> = out
                .tiles_mut(rows)
                .map(|tile| {
                    let rows = tile.rows();
                    let part = a.rows(rows.clone());
                    (rows, s.submit(apply::<T, U, F>, (part, tile)))
                })
                .collect();
            let failed = jobs
                .into_iter()
                .filter_map(|(rows, job)| Some((rows, job.wait().err()?)));
            failed.collect()
        });
        failed
    }

    /// Chunks of the result are arrays of their own first.
    fn apply_and_copy<T, U, F>(
        &self,
        a: &Array<T>,
        out: &mut ArrayMut<U>,
    ) -> Vec<(Range<usize>, JobError)>
    where
        T: Element,
        U: Element,
        F: Fn(&[T], &mut [U]) + Copy + Send + 'static,
    {
        let (all, row) = (a.shape().rows(), a.shape().row_len().unwrap_or(0));
        let rows = self.rows_per_chunk(a.shape(), size_of::<T>().max(size_of::<U>()));
        let starts = (0..all).step_by(rows);
        let (failed, _) = self.scope_collect(|s| {
            let jobs: Vec<_> = starts
                .map(|start| {
                    let rows = start..all.min(start + rows);
                    (
                        rows.clone(),
                        s.submit(apply_fresh::<T, U, F>, (a.rows(rows),)),
                    )
                })
                .collect();
            let mut failed = Vec::new();
            for (rows, job) in jobs {
                match job.wait() {
                    Ok(part) => out[rows.start * row..rows.end * row].copy_from_slice(&part),
                    Err(error) => failed.push((rows, error)),
                }
            }
            failed
        });
        failed
    }
}
