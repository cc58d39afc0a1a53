//! Divides arrays into chunks, and runs one job for each chunk.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

use crate::array::{Array, ArrayMut, Element, Shape, TileMut};
use crate::engine::answers::expect_len;
use crate::engine::{Engine, JobError, JobErrorKind, JobLimit, Scope, ScopedJob};
use crate::kernel::{Arg, Extra, ExtraArg, Nothing, Param, kernel_name, zst_value};
use crate::supervisor::Failed;
use crate::sys::{HUGE, PAGE};
use crate::worker::for_each_element;

/// The number of chunks per worker: enough to balance the load, and few enough that each chunk is worth a job.
const CHUNKS_PER_WORKER: usize = 4;
/// The minimum size of a chunk, in bytes of input.
const SMALLEST_CHUNK: usize = 64 * 1024;

impl Engine {
    /// Changes an array in place by running `W` on each chunk.
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

    /// Returns an array of the same shape, of which `W` computes each chunk.
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
        let chunks = self.chunks::<T, U>(a.shape()).map(|rows| (rows, false));
        let ends = self.scope(|s| s.run_parts::<T, U, P, W>(a, &with, &mut out, chunks));
        let ends = ends.map_err(JobError::with_no_unspecified_rows)?;
        ends.into_iter().collect::<Result<(), JobError>>()?;
        Ok(out.seal())
    }

    /// Like [`work_on`](Self::work_on), for a `W` that works on single elements: the end of a chunk need not be the end
    /// of a row.
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

    /// Returns true if workers may write into arrays of the supervisor. Sandboxed workers may not.
    pub(in crate::engine) fn lends(&self) -> bool {
        self.supervisor()
            .is_none_or(|shared| !shared.is_sandboxed())
    }

    /// Allocates memory for a result. The caller has to write all of it.
    pub(in crate::engine) fn output<U: Element>(
        &self,
        shape: Shape,
        kernel: &'static str,
    ) -> Result<ArrayMut<U>, JobError> {
        let out = self.uninit(shape);
        out.map_err(|full| {
            Failed::new(JobErrorKind::Limit(JobLimit::Arena(full)), kernel, 0).into()
        })
    }

    /// Divides an array of this shape into chunks, and returns the range of rows of each. `T` is the element type of
    /// the input, `U` that of the result: the larger one sets the chunk size.
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
        let workers = self
            .supervisor()
            .map_or(1, |shared| shared.active_workers());
        let rows = shape.rows().max(1);
        let row_bytes = shape.row_len().unwrap_or(1).saturating_mul(element).max(1);
        let by_count = rows.div_ceil(workers * CHUNKS_PER_WORKER);
        let by_size = SMALLEST_CHUNK.div_ceil(row_bytes);
        let chunk = by_count.max(by_size).min(rows);
        // If the size of a row allows it, a chunk consists of whole pages, so that chunks share no page. In a large
        // array it consists of whole huge pages, so that each chunk is lent and taken back in one step.
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

impl<'env> Scope<'env> {
    /// Runs `W` for ranges of rows of `a`, each in a job of its own, which needs a worker without other jobs if the
    /// flag is set. Writes the results into `out`. Returns how each job ended.
    pub(super) fn run_parts<T, U, P, W>(
        &self,
        a: &Array<T>,
        with: &(impl for<'e> Arg<'e, P> + Clone),
        out: &'env mut ArrayMut<U>,
        parts: impl Iterator<Item = (Range<usize>, bool)>,
    ) -> Vec<Result<(), JobError>>
    where
        T: Element,
        U: Element,
        P: Param + 'static,
        W: Work<T, U, P>,
    {
        let (series, with) = (self.series(), || ExtraArg(with.clone()));
        if self.lends() {
            let mut tiles = out.tiles(1);
            let jobs = parts.map(|(rows, exclusive)| {
                let args = (a.rows(rows.clone()), tiles.at(rows), series, with());
                self.submit_with(&self.exclusive(exclusive), apply::<T, U, P, W>, args)
            });
            let jobs: Vec<_> = jobs.collect();
            return jobs.into_iter().map(ScopedJob::wait).collect();
        }
        // Sandboxed workers return each part as an array of its own, which is copied into the result.
        let row = a.shape().row_len().unwrap_or(0);
        let jobs = parts.map(|(rows, exclusive)| {
            let first = (rows.start * row) as u64;
            let args = (a.rows(rows.clone()), first, series, with());
            let job = self.submit_with(&self.exclusive(exclusive), apply_fresh::<T, U, P, W>, args);
            (rows, job)
        });
        let jobs: Vec<_> = jobs.collect();
        let ends = jobs.into_iter();
        ends.map(|(rows, job)| place::<U, W>(out, &rows, row, &job.wait()?))
            .collect()
    }
}

/// The position of a chunk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Within {
    /// The index of the chunk's first element.
    first: u64,
    /// The series of the random numbers that the chunk's elements draw.
    series: u64,
}

/// Copies the result for `rows`, each of `row` elements, into the whole array. Checks the length of the result, which
/// the worker has sent.
fn place<U: Element, F>(
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

/// Computes a chunk. Types that implement this trait have no values: each stands for a function of the program.
pub(super) trait Work<T, U, P: Param>: 'static {
    fn run(from: &[T], to: &mut [U], within: Within, with: P::At<'_>);
}

/// Calls `F` with the chunk.
pub(super) struct ApplyEach<F>(PhantomData<F>);

impl<T, U, F: Fn(&[T], &mut [U]) + Copy + 'static> Work<T, U, Nothing> for ApplyEach<F> {
    fn run(from: &[T], to: &mut [U], _: Within, Nothing: Nothing) {
        zst_value::<F>()(from, to);
    }
}

/// Calls `F` with each element.
pub(super) struct MapEach<F>(PhantomData<F>);

impl<T: Element, U: Element, F: Fn(T) -> U + Copy + 'static> Work<T, U, Nothing> for MapEach<F> {
    fn run(from: &[T], to: &mut [U], within: Within, Nothing: Nothing) {
        map_all(from, to, within, zst_value::<F>());
    }
}

/// Changes a chunk in place.
pub(super) trait Change<T, P: Param>: 'static {
    fn run(part: &mut [T], with: P::At<'_>);
}

/// Calls `F` with the chunk.
pub(super) struct ChangeEach<F>(PhantomData<F>);

impl<T, F: Fn(&mut [T]) + Copy + 'static> Change<T, Nothing> for ChangeEach<F> {
    fn run(part: &mut [T], Nothing: Nothing) {
        zst_value::<F>()(part);
    }
}

fn apply<T: Element, U: Element, P: Param, W: Work<T, U, P>>(
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

fn apply_fresh<T: Element, U: Element, P: Param, W: Work<T, U, P>>(
    from: &[T],
    first: u64,
    series: u64,
    with: Extra<'_, P>,
) -> Array<U> {
    let mut to = ArrayMut::uninit(from.len());
    W::run(from, &mut to, Within { first, series }, with.0);
    to.seal()
}

/// Calls `f` with each element of a chunk. Each element draws its own random numbers.
pub(super) fn map_all<T: Element, U: Element>(
    from: &[T],
    to: &mut [U],
    within: Within,
    f: impl Fn(T) -> U,
) {
    for_each_element(within.series, |at| {
        map_each(from, to, within.first, at, f);
    });
}

/// Not inlined, because the compiler knows only of parameters that the slices do not alias the cell. If `f` draws no
/// random numbers, the cell is then written once, at the end, and the loop has no extra cost.
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
