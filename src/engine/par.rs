//! Whole arrays in chunks: one call for a million elements.

use std::sync::Arc;

use super::{Engine, JobError, JobErrorKind, Place, ScopedJob};
use crate::array::{Array, ArrayMut, Element, Shape};
use crate::kernel::conjure;
use crate::supervisor::Failed;
use crate::sys::HUGE;

/// Chunks per worker: enough to even out, and few enough that each is worth its trip.
const CHUNKS_PER_WORKER: usize = 4;
/// Less input than this, in bytes, is not cut any further.
const SMALLEST_CHUNK: usize = 64 * 1024;

impl Engine {
    /// An array of the same shape, whose elements `f` computes from those of `a`, chunk by chunk: it
    /// gets slices of equal length. The chunks are cut along the leading axis. What `f` does not write is unspecified, and so is
    /// what it would read from there.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let numbers = engine.from_slice(&[1i64, 2, 3])?;
    /// let squares = engine.par_apply(&numbers, |from: &[i64], to: &mut [i64]| {
    ///     for (to, from) in to.iter_mut().zip(from) {
    ///         *to = from * from;
    ///     }
    /// })?;
    /// assert_eq!(squares[..], [1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: `a` is not in this engine's arena, there is no room, or a chunk failed.
    pub fn par_apply<T, U, F>(&self, a: &Array<T>, f: F) -> Result<Array<U>, JobError>
    where
        T: Element,
        U: Element,
        F: Fn(&[T], &mut [U]) + Copy + Send + 'static,
    {
        // `f` is a name for its type, here and below: it has no bytes.
        let _ = f;
        let shape = a.shape();
        let mut out = self.output::<U>(shape, std::any::type_name::<F>())?;
        let rows = self.rows_per_chunk(shape, size_of::<T>().max(size_of::<U>()));
        if !self.lends() {
            self.apply_by_copy::<T, U, F>(a, rows, &mut out)?;
            return Ok(out.seal());
        }
        self.scope(|s| {
            for tile in out.tiles_mut(rows) {
                let part = a.rows(tile.rows());
                s.submit(apply::<T, U, F>, (part, tile));
            }
        })?;
        Ok(out.seal())
    }

    /// An array of the same shape, whose elements are `f` of those of `a`.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let numbers = engine.from_slice(&[1i64, 2, 3])?;
    /// assert_eq!(engine.par_map(&numbers, |x| x * x)?[..], [1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`par_apply`](Engine::par_apply).
    #[doc(alias("par_iter", "prange"))]
    pub fn par_map<T, U, F>(&self, a: &Array<T>, f: F) -> Result<Array<U>, JobError>
    where
        T: Element,
        U: Element,
        F: Fn(T) -> U + Copy + Send + 'static,
    {
        // A name for its type: it has no bytes.
        let _ = f;
        self.par_apply(a, |from: &[T], to: &mut [U]| {
            let f = conjure::<F>();
            for (to, &from) in to.iter_mut().zip(from) {
                *to = f(from);
            }
        })
    }

    /// Changes an array in place, chunk by chunk.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let mut numbers = engine.zeros::<i64>(3)?;
    /// engine.par_apply_mut(&mut numbers, |part: &mut [i64]| part.fill(7))?;
    /// assert_eq!(numbers[..], [7, 7, 7]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`]: the array is not in this engine's arena, or a chunk failed. Then some chunks may
    /// be changed and others not.
    pub fn par_apply_mut<T, F>(&self, a: &mut ArrayMut<T>, f: F) -> Result<(), JobError>
    where
        T: Element,
        F: Fn(&mut [T]) + Copy + Send + 'static,
    {
        let _ = f;
        let rows = self.rows_per_chunk(a.shape(), size_of::<T>());
        self.scope(|s| {
            for tile in a.tiles_mut(rows) {
                s.submit(apply_mut::<T, F>, (tile,));
            }
        })
    }

    /// Whether workers may write into arrays of the supervisor.
    pub(super) fn lends(&self) -> bool {
        self.shared().is_none_or(|shared| !shared.is_strict())
    }

    /// Chunks of the result are arrays of their own first.
    fn apply_by_copy<T, U, F>(
        &self,
        a: &Array<T>,
        rows: usize,
        out: &mut ArrayMut<U>,
    ) -> Result<(), JobError>
    where
        T: Element,
        U: Element,
        F: Fn(&[T], &mut [U]) + Copy + Send + 'static,
    {
        let all = a.shape().rows();
        let starts = (0..all).step_by(rows);
        let parts = self.scope(|s| {
            let part = |start: usize| a.rows(start..all.min(start + rows));
            let jobs: Vec<_> = starts
                .map(|start| s.submit(apply_fresh::<T, U, F>, (part(start),)))
                .collect();
            let parts = jobs.into_iter().map(ScopedJob::wait);
            parts.collect::<Result<Vec<Array<U>>, _>>()
        })??;
        let mut rest: &mut [U] = out;
        for part in &parts {
            let (to, after) = rest.split_at_mut(part.len());
            to.copy_from_slice(part);
            rest = after;
        }
        Ok(())
    }

    /// Memory for a result that will be written whole.
    pub(super) fn output<U: Element>(
        &self,
        shape: Shape,
        kernel: &'static str,
    ) -> Result<ArrayMut<U>, JobError> {
        let out = self.unfilled(shape);
        out.map_err(|full| Failed::new(JobErrorKind::ArenaFull(full), kernel, 0).into())
    }

    pub(super) fn rows_per_chunk(&self, shape: Shape, element: usize) -> usize {
        let workers = match &self.place {
            Place::Workers(workers) => Arc::clone(&workers.shared).workers(),
            Place::Inline => 1,
        };
        let rows = shape.rows().max(1);
        let row_bytes = shape.row_len().unwrap_or(1).saturating_mul(element).max(1);
        let by_count = rows.div_ceil(workers * CHUNKS_PER_WORKER);
        let by_size = SMALLEST_CHUNK.div_ceil(row_bytes);
        let chunk = by_count.max(by_size).min(rows);
        // Whole pages where rows allow it, so that chunks share none; and for a large array whole huge
        // pages, which are opened and closed at one stroke.
        let chunk_bytes = chunk.saturating_mul(row_bytes);
        let whole = rows.saturating_mul(row_bytes);
        let unit = if chunk_bytes >= HUGE / 4 && whole >= 2 * HUGE {
            HUGE
        } else {
            4096
        };
        match unit.checked_rem(row_bytes) {
            Some(0) => chunk.next_multiple_of(unit / row_bytes).min(rows),
            _ => chunk,
        }
    }
}

pub(super) fn apply<T: Element, U: Element, F: Fn(&[T], &mut [U]) + Copy + 'static>(
    from: &[T],
    to: &mut [U],
) {
    conjure::<F>()(from, to);
}

pub(super) fn apply_fresh<T: Element, U: Element, F: Fn(&[T], &mut [U]) + Copy + 'static>(
    from: &[T],
) -> Array<U> {
    let mut to = ArrayMut::unfilled(from.len());
    conjure::<F>()(from, &mut to);
    to.seal()
}

fn apply_mut<T: Element, F: Fn(&mut [T]) + Copy + 'static>(part: &mut [T]) {
    conjure::<F>()(part);
}
