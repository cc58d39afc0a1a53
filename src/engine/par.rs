//! Whole arrays in chunks: one call for a million elements.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

use super::answers::expect_len;
use super::{Engine, JobError, JobErrorKind};
use crate::array::{Array, ArrayMut, Element, Shape, TileMut};
use crate::kernel::{Arg, Extra, ExtraArg, Nothing, Param, kernel_name, zst_value};
use crate::supervisor::Failed;
use crate::sys::{HUGE, PAGE};
use crate::worker::each;

/// Chunks per worker: enough to even out, and few enough that each is worth its trip.
const CHUNKS_PER_WORKER: usize = 4;
/// Less input than this, in bytes, is not cut any further.
const SMALLEST_CHUNK: usize = 64 * 1024;

impl Engine {
    /// An array of the same shape, whose elements `f` computes from those of `a`, chunk by chunk: it
    /// gets slices of equal length. The chunks are cut along the leading axis, and how long they are depends on the number of
    /// workers; so does what `f` draws from [`rng`](crate::rng). What `f` needs beside them is passed by
    /// [`par_apply_with`](Engine::par_apply_with). What `f` does not write is unspecified, and so is what it would
    /// read from there. Like all that begin with `par_`, it blocks its thread, as [`sum`](Engine::sum) does.
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
        self.work_on::<T, U, Nothing, ApplyEach<F>>(a, Nothing)
    }

    /// An array of the same shape, whose elements are `f` of those of `a`. What an element draws from [`rng`](crate::rng)
    /// depends on its index, and not on the number of workers. What `f` needs beside the element, such as a factor or a table, is
    /// passed by [`par_map_with`](Engine::par_map_with), since `f` can capture nothing. It blocks its thread, as
    /// [`sum`](Engine::sum) does.
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
        let _ = f;
        self.work_on_each::<T, U, Nothing, MapEach<F>>(a, Nothing)
    }

    /// Changes an array in place, chunk by chunk. How long the chunks are depends on the number of workers, and so does what `f`
    /// draws from [`rng`](crate::rng). What `f` needs beside them is passed by
    /// [`par_apply_mut_with`](Engine::par_apply_mut_with).
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
    /// [`JobError`]: the array is not in this engine's arena, a chunk failed (then some chunks may be changed and others not), or the
    /// workers are locked down and are lent nothing ([`NoLending`](super::JobErrorKind::NoLending)).
    pub fn par_apply_mut<T, F>(&self, a: &mut ArrayMut<T>, f: F) -> Result<(), JobError>
    where
        T: Element,
        F: Fn(&mut [T]) + Copy + Send + 'static,
    {
        let _ = f;
        self.change::<T, Nothing, ChangeEach<F>>(a, Nothing)
    }

    /// Has `W` change an array chunk by chunk.
    pub(super) fn change<T, P, W>(
        &self,
        a: &mut ArrayMut<T>,
        with: impl for<'e> Arg<'e, P> + Clone,
    ) -> Result<(), JobError>
    where
        T: Element,
        P: Param + 'static,
        W: Change<T, P>,
    {
        let rows = self.rows_per_chunk(a.shape(), size_of::<T>());
        self.scope(|s| {
            for tile in a.tiles_mut(rows) {
                s.submit(apply_mut::<T, P, W>, (tile, ExtraArg(with.clone())));
            }
        })
    }

    /// An array of the same shape, that `W` makes chunk by chunk.
    pub(super) fn work_on<T, U, P, W>(
        &self,
        a: &Array<T>,
        with: impl for<'e> Arg<'e, P> + Clone,
    ) -> Result<Array<U>, JobError>
    where
        T: Element,
        U: Element,
        P: Param + 'static,
        W: Work<T, U, P>,
    {
        let mut out = self.output::<U>(a.shape(), kernel_name::<W>())?;
        let chunks = self.chunks::<T, U>(a.shape());
        if self.lends() {
            self.scope(|s| {
                let mut tiles = out.tiles_mut(1);
                for rows in chunks {
                    let part = a.rows(rows.clone());
                    let args = (part, tiles.at(rows), s.series(), ExtraArg(with.clone()));
                    s.submit(apply::<T, U, P, W>, args);
                }
            })
            .map_err(JobError::with_no_unspecified_rows)?;
            return Ok(out.seal());
        }
        // Chunks of the result are arrays of their own first.
        let row = a.shape().row_len().unwrap_or(0);
        let parts = self.scope(|s| {
            let jobs: Vec<_> = chunks
                .map(|rows| {
                    let first = (rows.start * row) as u64;
                    let part = a.rows(rows.clone());
                    let args = (part, first, s.series(), ExtraArg(with.clone()));
                    (rows, s.submit(apply_fresh::<T, U, P, W>, args))
                })
                .collect();
            let parts = jobs.into_iter().map(|(rows, job)| Ok((rows, job.wait()?)));
            parts.collect::<Result<Vec<(_, Array<U>)>, JobError>>()
        })??;
        for (rows, part) in &parts {
            place::<U, W>(&mut out, rows, row, part)?;
        }
        Ok(out.seal())
    }

    /// The same for `W` that sees no rows, but elements: chunks are cut wherever it is right for their length.
    pub(super) fn work_on_each<T, U, P, W>(
        &self,
        a: &Array<T>,
        with: impl for<'e> Arg<'e, P> + Clone,
    ) -> Result<Array<U>, JobError>
    where
        T: Element,
        U: Element,
        P: Param + 'static,
        W: Work<T, U, P>,
    {
        let flat = a
            .clone()
            .reshape(a.len())
            .expect("the same elements in a row");
        let out = self.work_on::<T, U, P, W>(&flat, with)?;
        Ok(out.reshape(a.shape()).expect("as many elements"))
    }

    /// Whether workers may write into arrays of the supervisor.
    pub(super) fn lends(&self) -> bool {
        self.shared().is_none_or(|shared| !shared.is_strict())
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

    /// The rows of each chunk.
    pub(super) fn chunks<T, U>(
        &self,
        shape: Shape,
    ) -> impl Iterator<Item = Range<usize>> + use<T, U> {
        let all = shape.rows();
        let rows = self.rows_per_chunk(shape, size_of::<T>().max(size_of::<U>()));
        (0..all)
            .step_by(rows)
            .map(move |start| start..all.min(start + rows))
    }

    fn rows_per_chunk(&self, shape: Shape, element: usize) -> usize {
        let workers = self.shared().map_or(1, |shared| shared.workers());
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
            PAGE
        };
        match unit.checked_rem(row_bytes) {
            Some(0) => chunk.next_multiple_of(unit / row_bytes).min(rows),
            _ => chunk,
        }
    }
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within {
    /// The number of its first element.
    first: u64,
    /// The call's number.
    series: u64,
}

/// Copies what a job made of these rows, each of so many elements, to its place in the whole. How much that is says a worker,
/// which may have been taken over.
pub(super) fn place<U: Element, F>(
    whole: &mut [U],
    rows: &Range<usize>,
    row: usize,
    part: &[U],
) -> Result<(), JobError> {
    let to = &mut whole[rows.start * row..rows.end * row];
    expect_len(kernel_name::<F>(), part, to.len())?;
    to.copy_from_slice(part);
    Ok(())
}

/// What is done with a chunk. Types that do so have no values: they stand for a function of the program.
pub(super) trait Work<T, U, P: Param>: 'static {
    fn run(from: &[T], to: &mut [U], within: Within, with: P::At<'_>);
}

/// `f` is given the chunk.
pub(super) struct ApplyEach<F>(PhantomData<F>);

impl<T, U, F: Fn(&[T], &mut [U]) + Copy + 'static> Work<T, U, Nothing> for ApplyEach<F> {
    fn run(from: &[T], to: &mut [U], _: Within, Nothing: Nothing) {
        zst_value::<F>()(from, to);
    }
}

/// `f` is given each element.
pub(super) struct MapEach<F>(PhantomData<F>);

impl<T: Element, U: Element, F: Fn(T) -> U + Copy + 'static> Work<T, U, Nothing> for MapEach<F> {
    fn run(from: &[T], to: &mut [U], within: Within, Nothing: Nothing) {
        map_all(from, to, within, zst_value::<F>());
    }
}

/// What is done with a chunk in place.
pub(super) trait Change<T, P: Param>: 'static {
    fn run(part: &mut [T], with: P::At<'_>);
}

struct ChangeEach<F>(PhantomData<F>);

impl<T, F: Fn(&mut [T]) + Copy + 'static> Change<T, Nothing> for ChangeEach<F> {
    fn run(part: &mut [T], Nothing: Nothing) {
        zst_value::<F>()(part);
    }
}

pub(super) fn apply<T: Element, U: Element, P: Param, W: Work<T, U, P>>(
    from: &[T],
    mut to: TileMut<'_, U>,
    series: u64,
    with: Extra<'_, P>,
) {
    let rows = to.rows();
    let row = from.len() / rows.len().max(1);
    let first = (rows.start * row) as u64;
    W::run(from, &mut to, Within { first, series }, with.0);
}

pub(super) fn apply_fresh<T: Element, U: Element, P: Param, W: Work<T, U, P>>(
    from: &[T],
    first: u64,
    series: u64,
    with: Extra<'_, P>,
) -> Array<U> {
    let mut to = ArrayMut::unfilled(from.len());
    W::run(from, &mut to, Within { first, series }, with.0);
    to.seal()
}

/// Each element of a chunk, with the random numbers that are its own.
pub(super) fn map_all<T: Element, U: Element>(
    from: &[T],
    to: &mut [U],
    within: Within,
    f: impl Fn(T) -> U,
) {
    each(within.series, |at| {
        map_each(from, to, within.first, at, f);
    });
}

/// Not inlined, because as parameters the slices are known not to have the cell among their elements: where nobody looks at
/// it, it is written once in the end, and the loop is what it would be without.
#[inline(never)]
fn map_each<T: Element, U: Element>(
    from: &[T],
    to: &mut [U],
    first: u64,
    at: &Cell<u64>,
    f: impl Fn(T) -> U,
) {
    let mut index = first;
    for (to, &from) in to.iter_mut().zip(from) {
        at.set(index);
        index = index.wrapping_add(1);
        *to = f(from);
    }
}

fn apply_mut<T: Element, P: Param, W: Change<T, P>>(part: &mut [T], with: Extra<'_, P>) {
    W::run(part, with.0);
}
