//! Whole arrays of which some rows may fail.

use std::fmt;
use std::ops::Range;

use super::par::{ApplyEach, MapEach, Work, apply, apply_fresh, place};
use super::seeds::Series;
use super::{DeadLetter, Engine, JobError, JobErrorKind};
use crate::array::{Array, ArrayMut, Element};
use crate::kernel::{ExtraArg, Nothing, kernel_name};

/// Failures that a report writes out.
const SHOWN: usize = 10;
/// Pieces that fail at once and are still cut any further: beyond that it is no longer about single rows, and each piece costs
/// a job and an error with its backtrace.
const MOST: usize = 10_000;
/// Workers that it may cost until nothing is cut any further.
const MOST_DEATHS: usize = 200;
/// So many pieces, of at least half of the array, have each ended their worker: the others will, too.
const ALL: usize = 16;

/// What came of the rows of an array: see [`Engine::par_map_report`] and [`Engine::par_apply_report`].
#[derive(Clone)]
pub struct ParReport<T: Element, U: Element> {
    values: Array<U>,
    failures: Vec<DeadLetter<Array<T>>>,
}

impl<T: Element, U: Element> ParReport<T, U> {
    /// The result. Rows that failed are zero.
    pub fn values(&self) -> &Array<U> {
        &self.values
    }

    /// What failed, in order: [`index`](DeadLetter::index) is the first row, the arguments are the rows of the input, without
    /// a copy. From [`par_map_report`](Engine::par_map_report) that is one row each time, but for what it says itself; from
    /// [`par_apply_report`](Engine::par_apply_report) those of a chunk.
    pub fn failures(&self) -> &[DeadLetter<Array<T>>] {
        &self.failures
    }

    /// The result, and what failed.
    pub fn into_parts(self) -> (Array<U>, Vec<DeadLetter<Array<T>>>) {
        (self.values, self.failures)
    }
}

impl<T: Element, U: Element> fmt::Display for ParReport<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = |letter: &DeadLetter<Array<T>>| letter.args().shape().rows();
        let failed: usize = self.failures.iter().map(rows).sum();
        write!(f, "{failed} of {} rows failed", self.values.shape().rows())?;
        for letter in self.failures.iter().take(SHOWN) {
            let first = letter.index();
            match rows(letter) {
                1 => write!(f, "\n  row {first}")?,
                rows => write!(f, "\n  rows {first}..{}", first + rows)?,
            }
            write!(f, ": {}", letter.error())?;
        }
        match self.failures.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// As that of a [`JobError`]: `{:?}` is the text, `{:#?}` shows the parts.
impl<T: Element + fmt::Debug, U: Element + fmt::Debug> fmt::Debug for ParReport<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("ParReport")
            .field("values", &self.values)
            .field("failures", &self.failures)
            .finish()
    }
}

impl<T: Element + fmt::Debug, U: Element + fmt::Debug> std::error::Error for ParReport<T, U> {}

/// Rows that have no values, and why.
type Failures = Vec<(Range<usize>, JobError)>;

impl Engine {
    /// As [`par_apply`](Engine::par_apply), but a chunk that fails does not throw the others' results away: it is reported,
    /// with its rows of the input and the error. `f` sees a whole chunk, so nobody can tell which of its rows did it; where `f`
    /// is about one element at a time, [`par_map_report`](Engine::par_map_report) does.
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
        // `f` is a name for its type, here and below: it has no bytes.
        let _ = f;
        self.report::<T, U, ApplyEach<F>>(a, false)
    }

    /// As [`par_map`](Engine::par_map), but a row that fails does not throw the others' results away: it is reported, with
    /// its input and the error. A row is a step of the leading axis; of an array with one axis, an element.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let numbers = engine.from_slice(&[1u32, 0, 5])?;
    /// let report = engine.par_map_report(&numbers, |x: u32| 100 / x)?;
    /// assert_eq!(report.values()[..], [100, 0, 20]);
    /// let [failure] = report.failures() else { panic!("{report}") };
    /// assert_eq!((failure.index(), failure.args()[0]), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Rows share a job at first. The rows of one that fails are run again in two halves, and so on until single rows are
    /// left: so `f` may see an element several times. A row that panics costs two jobs at each halving, and one that ends its
    /// worker costs a worker each time: some 14 for one among 100,000 numbers. With several [lanes](super::Builder::lanes) what
    /// ended a worker runs again in a worker of its own, as a job with a deadline does, which waits until one has nothing else to do.
    ///
    /// There is an end to it, and then there are failures of several rows: where more than 10,000 pieces fail at once, or more
    /// than 200 workers were lost, or pieces of half of the array all end their workers; and where it is of no use, as when `a` is not in this engine's
    /// arena.
    ///
    /// What an element draws from [`rng`](crate::rng) depends on its index, at each attempt.
    ///
    /// # Errors
    /// As [`par_apply_report`](Engine::par_apply_report).
    pub fn par_map_report<T, U, F>(&self, a: &Array<T>, f: F) -> Result<ParReport<T, U>, JobError>
    where
        T: Element,
        U: Element,
        F: Fn(T) -> U + Copy + Send + 'static,
    {
        let _ = f;
        self.report::<T, U, MapEach<F>>(a, true)
    }

    /// Down to single rows, or by the chunk.
    fn report<T, U, W>(&self, a: &Array<T>, single: bool) -> Result<ParReport<T, U>, JobError>
    where
        T: Element,
        U: Element,
        W: Work<T, U, Nothing>,
    {
        let mut out = self.output::<U>(a.shape(), kernel_name::<W>())?;
        let chunks: Vec<_> = self.chunks::<T, U>(a.shape()).collect();
        let series = self.seeds.series();
        let mut pass = |parts: &[Part]| self.pass::<T, U, W>(series, a, &mut out, parts);
        let failed = if single {
            narrow(chunks, pass)
        } else {
            pass(&Part::all(chunks))
        };
        // What a dead worker has left there is unspecified, until now.
        let row = a.shape().row_len().unwrap_or(0);
        for (rows, _) in &failed {
            out[rows.start * row..rows.end * row].fill(U::zeroed());
        }
        let letters = failed.into_iter().map(|(rows, error)| {
            let first = rows.start;
            DeadLetter::new(first, a.rows(rows), error.with_no_unspecified_rows())
        });
        Ok(ParReport {
            failures: letters.collect(),
            values: out.seal(),
        })
    }

    /// Runs a job for each of these parts, which are in order; returns those that failed, in order.
    fn pass<T, U, W>(
        &self,
        series: Series,
        a: &Array<T>,
        out: &mut ArrayMut<U>,
        parts: &[Part],
    ) -> Failures
    where
        T: Element,
        U: Element,
        W: Work<T, U, Nothing>,
    {
        let with_rows = |ends: Vec<Option<JobError>>| {
            let ends = parts.iter().zip(ends);
            ends.filter_map(|(part, end)| Some((part.rows.clone(), end?)))
                .collect()
        };
        if self.lends() {
            let ends = self.scope_in(series, |s| {
                let mut tiles = out.tiles_mut(1);
                let jobs = parts.iter().map(|Part { rows, alone }| {
                    let tile = tiles.at(rows.clone());
                    let args = (a.rows(rows.clone()), tile, s.series(), ExtraArg(Nothing));
                    s.job(apply::<T, U, Nothing, W>, args)
                        .alone(*alone)
                        .submit()
                });
                let jobs: Vec<_> = jobs.collect();
                jobs.into_iter().map(|job| job.wait().err()).collect()
            });
            return with_rows(ends);
        }
        let row = a.shape().row_len().unwrap_or(0);
        // Parts of the result are arrays of their own first.
        let ends = self.scope_in(series, |s| {
            let jobs = parts.iter().map(|Part { rows, alone }| {
                let first = (rows.start * row) as u64;
                let args = (a.rows(rows.clone()), first, s.series(), ExtraArg(Nothing));
                s.job(apply_fresh::<T, U, Nothing, W>, args)
                    .alone(*alone)
                    .submit()
            });
            let jobs: Vec<_> = jobs.collect();
            let mut ends = Vec::with_capacity(jobs.len());
            for (part, job) in parts.iter().zip(jobs) {
                let placed = job
                    .wait()
                    .and_then(|values| place::<U, W>(out, &part.rows, row, &values));
                ends.push(placed.err());
            }
            ends
        });
        with_rows(ends)
    }
}

/// Rows for one job.
struct Part {
    rows: Range<usize>,
    /// Nothing is to run beside it in its worker.
    alone: bool,
}

impl Part {
    /// For a first time.
    fn all(chunks: Vec<Range<usize>>) -> Vec<Self> {
        let first = |rows| Self { rows, alone: false };
        chunks.into_iter().map(first).collect()
    }
}

/// Has all chunks run, and what fails of them again in halves, until single rows are left.
fn narrow(chunks: Vec<Range<usize>>, mut pass: impl FnMut(&[Part]) -> Failures) -> Failures {
    let rows_of = |parts: &[Part]| parts.iter().map(|part| part.rows.len()).sum::<usize>();
    let mut parts = Part::all(chunks);
    let whole = rows_of(&parts);
    let (mut ended, mut doubtful) = (Vec::new(), Vec::new());
    let mut deaths = 0;
    while !parts.is_empty() {
        let failed = pass(&parts);
        let died = deaths_in(&failed);
        deaths += died;
        let all = died == parts.len() && died >= ALL && rows_of(&parts) >= whole / 2;
        let enough = failed.len() > MOST || deaths > MOST_DEATHS || all;
        parts.clear();
        for (rows, error) in failed {
            let alone = ends_a_worker(&error);
            let middle = rows.start + rows.len() / 2;
            if enough || is_of_all(&error) || rows.len() == 1 && is_of_its_own(&error) {
                ended.push((rows, error));
            } else if rows.len() == 1 {
                doubtful.push((Part { rows, alone }, error));
            } else {
                let halves = [rows.start..middle, middle..rows.end];
                parts.extend(halves.map(|rows| Part { rows, alone }));
            }
        }
    }
    // Others may have done it, or taken the room: each of these once more, and no other of them beside it.
    for (part, error) in doubtful {
        if deaths > MOST_DEATHS {
            ended.push((part.rows, error));
            continue;
        }
        let failed = pass(&[part]);
        deaths += deaths_in(&failed);
        ended.extend(failed);
    }
    ended.sort_by_key(|(rows, _)| rows.start);
    ended
}

/// Workers that these may have cost, at most: in several lanes one death may fail several.
fn deaths_in(failed: &Failures) -> usize {
    let lost = |error: &JobError| matches!(error.kind(), JobErrorKind::LostWith { .. });
    let died = |error: &JobError| ends_a_worker(error) && !lost(error);
    failed.iter().filter(|(_, error)| died(error)).count()
}

/// Its worker ended with it, or because of it.
fn ends_a_worker(error: &JobError) -> bool {
    use JobErrorKind::{ArenaFull, Panicked, Returned};
    !matches!(error.kind(), ArenaFull(_) | Panicked { .. } | Returned(_)) && !is_of_all(error)
}

/// Any other rows would fail like that.
fn is_of_all(error: &JobError) -> bool {
    use JobErrorKind::{Cancelled, ForeignArray, ForeignKernel, NoLending, NoWorkers, ShutDown};
    matches!(
        error.kind(),
        Cancelled | ForeignArray | ForeignKernel | NoLending | NoWorkers(_) | ShutDown
    )
}

/// It cannot have been because of what ran beside it.
fn is_of_its_own(error: &JobError) -> bool {
    use JobErrorKind::{ArenaFull, LostWith};
    error.beside().is_empty() && !matches!(error.kind(), ArenaFull(_) | LostWith { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Failed;

    fn error(kind: JobErrorKind) -> JobError {
        Failed::new(kind, "kernel", 0).into()
    }

    /// What fails of so many rows in two chunks where these rows do; how many parts there were in each pass.
    fn narrowed(
        rows: usize,
        bad: impl Fn(usize) -> bool,
        kind: JobErrorKind,
    ) -> (Vec<(usize, usize)>, Vec<usize>) {
        let mut passes = Vec::new();
        let chunks = vec![0..rows / 2, rows / 2..rows];
        let failed = narrow(chunks, |parts| {
            assert!(parts.is_sorted_by(|a, b| a.rows.end <= b.rows.start));
            let alone = !passes.is_empty() && ends_a_worker(&error(kind.clone()));
            assert!(parts.iter().all(|part| part.alone == alone));
            passes.push(parts.len());
            let rows = parts.iter().map(|part| part.rows.clone());
            let failed = rows.filter(|rows| rows.clone().any(&bad));
            failed.map(|rows| (rows, error(kind.clone()))).collect()
        });
        let failed = failed.iter().map(|(rows, _)| (rows.start, rows.end));
        (failed.collect(), passes)
    }

    #[test]
    fn halves_lead_to_each_row_that_fails() {
        let (failed, passes) = narrowed(1000, |row| row == 700, JobErrorKind::Signal(6));
        assert_eq!(failed, [(700, 701)]);
        assert_eq!(passes, [2; 10]);
        let bad = [0, 1, 2, 499, 500, 999];
        let (failed, _) = narrowed(1000, |row| bad.contains(&row), JobErrorKind::Signal(6));
        assert_eq!(failed, bad.map(|row| (row, row + 1)));
        let (failed, passes) = narrowed(37, |_| true, JobErrorKind::Returned("no".into()));
        assert_eq!(failed.len(), 37);
        assert_eq!(passes.iter().sum::<usize>(), 2 * 37 - 2);
    }

    #[test]
    fn what_concerns_all_rows_is_not_cut() {
        for kind in [
            JobErrorKind::Cancelled,
            JobErrorKind::ForeignArray,
            JobErrorKind::NoWorkers("none".into()),
            JobErrorKind::ShutDown,
        ] {
            let (failed, passes) = narrowed(1000, |row| row < 10, kind);
            assert_eq!((failed, passes), (vec![(0, 500)], vec![2]));
        }
    }

    #[test]
    fn a_single_row_runs_again_only_if_others_may_have_done_it() {
        let lost = JobErrorKind::LostWith {
            job: 1,
            culprit: Box::new(JobErrorKind::Signal(6)),
        };
        for (kind, passes) in [(lost, vec![2, 1]), (JobErrorKind::Signal(6), vec![2])] {
            assert_eq!(narrowed(2, |row| row == 1, kind), (vec![(1, 2)], passes));
        }
    }

    #[test]
    fn deaths_are_not_spent_without_end() {
        let (failed, passes) = narrowed(1000, |_| true, JobErrorKind::Signal(6));
        assert_eq!((failed.len(), passes), (16, vec![2, 4, 8, 16]));
        let (failed, passes) = narrowed(1 << 20, |row| row % 8 == 0, JobErrorKind::Signal(6));
        assert_eq!((failed.len(), passes.len()), (16, 4));
        let bad: Vec<_> = (0..30).map(|nth| nth * nth * 1000).collect();
        let (failed, passes) = narrowed(1 << 20, |row| bad.contains(&row), JobErrorKind::Signal(6));
        assert!(
            passes.iter().sum::<usize>() < 2 * (MOST_DEATHS + bad.len()),
            "{passes:?}"
        );
        assert_eq!(failed.len(), bad.len(), "a piece each: they lie far apart");
    }

    /// Or each of a million rows would be an error with a backtrace.
    #[test]
    fn where_too_much_fails_it_is_not_cut_any_further() {
        let (failed, passes) = narrowed(1 << 20, |_| true, JobErrorKind::Returned("no".into()));
        assert_eq!(failed.len(), 1 << 14);
        assert_eq!(
            failed.iter().map(|(start, end)| end - start).sum::<usize>(),
            1 << 20
        );
        assert_eq!(passes.last(), Some(&(1 << 14)));
    }
}
