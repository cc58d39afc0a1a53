//! Arrays in which some rows may fail.

use std::ops::Range;

use super::chunks::Work;
use crate::array::{Array, ArrayMut, Element};
use crate::engine::seeds::Series;
use crate::engine::{
    DeadLetter, Engine, JobError, JobErrorKind, JobLimit, Report, WorkerExit, scope,
};
use crate::kernel::{Arg, Param, kernel_name};

/// The maximum number of failed parts that are halved again. If more parts fail, the failure does not concern single
/// rows, and each part costs a job and an error with its backtrace.
const MAX_PARTS: usize = 10_000;
/// The maximum number of lost workers up to which failed parts are halved again.
const MAX_DEATHS: usize = 200;
/// If all parts of a pass, at least this number and at least half of the array, have ended their workers, then further
/// parts are expected to do so, too.
const ENOUGH_DEATHS: usize = 16;

/// Rows without values, each range with its error.
type Failures = Vec<(Range<usize>, JobError)>;

impl Engine {
    /// Computes all rows that can be computed, and reports the others.
    pub(super) fn report_rows<T, U, P, W>(
        &self,
        a: &Array<T>,
        with: impl for<'e> Arg<'e, P> + Clone,
    ) -> Result<Report<Array<T>, Array<U>>, JobError>
    where
        T: Element,
        U: Element,
        P: Param + 'static,
        W: Work<T, U, P>,
    {
        let mut out = self.output::<U>(a.shape(), kernel_name::<W>())?;
        let chunks: Vec<_> = self.chunks::<T, U>(a.shape()).collect();
        let series = self.seeds.series();
        let pass = |parts: &[Part]| self.pass::<T, U, P, W>(&series, a, &with, &mut out, parts);
        let failed = narrow(chunks, pass);
        // Rows that failed are zeroed, because a dead worker may have written some of them.
        let row = a.shape().row_len().unwrap_or(0);
        for (rows, _) in &failed {
            out[rows.start * row..rows.end * row].fill(U::zeroed());
        }
        let letters = failed.into_iter().map(|(rows, error)| {
            let args = a.rows(rows.clone());
            DeadLetter::of_rows(rows, args, error.with_no_unspecified_rows())
        });
        let letters = letters.collect();
        Ok(Report::of_rows(out.seal(), letters))
    }

    /// Runs a job for each part. Parts are in order, and so are the returned failures.
    fn pass<T, U, P, W>(
        &self,
        series: &Series,
        a: &Array<T>,
        with: &(impl for<'e> Arg<'e, P> + Clone),
        out: &mut ArrayMut<U>,
        parts: &[Part],
    ) -> Failures
    where
        T: Element,
        U: Element,
        P: Param + 'static,
        W: Work<T, U, P>,
    {
        let all = scope::Failures::All(Vec::new());
        let rows = parts.iter().map(|part| (part.rows.clone(), part.exclusive));
        let (ends, _) = self.run_scope(series.clone(), all, |s| {
            s.run_parts::<T, U, P, W>(a, with, out, rows)
        });
        let ends = parts.iter().zip(ends);
        ends.filter_map(|(part, end)| Some((part.rows.clone(), end.err()?)))
            .collect()
    }
}

/// The rows of one job.
struct Part {
    rows: Range<usize>,
    /// Whether the job needs a worker without other jobs.
    exclusive: bool,
}

impl Part {
    /// The parts of the first pass.
    fn all(chunks: Vec<Range<usize>>) -> Vec<Self> {
        let first = |rows| Self {
            rows,
            exclusive: false,
        };
        chunks.into_iter().map(first).collect()
    }
}

/// Runs all chunks, and failed parts again in halves, down to single rows.
fn narrow(chunks: Vec<Range<usize>>, mut pass: impl FnMut(&[Part]) -> Failures) -> Failures {
    let rows_of = |parts: &[Part]| parts.iter().map(|part| part.rows.len()).sum::<usize>();
    let mut parts = Part::all(chunks);
    let whole = rows_of(&parts);
    let (mut final_failures, mut doubtful) = (Vec::new(), Vec::new());
    let mut deaths = 0;
    while !parts.is_empty() {
        let failed = pass(&parts);
        let died = deaths_in(&failed);
        deaths += died;
        let all_died = died == parts.len() && died >= ENOUGH_DEATHS && rows_of(&parts) >= whole / 2;
        let is_enough = failed.len() > MAX_PARTS || deaths > MAX_DEATHS || all_died;
        parts.clear();
        for (rows, error) in failed {
            let exclusive = ends_a_worker(&error);
            let middle = rows.start + rows.len() / 2;
            if is_enough || concerns_all_rows(&error) || rows.len() == 1 && is_certain(&error) {
                final_failures.push((rows, error));
            } else if rows.len() == 1 {
                doubtful.push((Part { rows, exclusive }, error));
            } else {
                let halves = [rows.start..middle, middle..rows.end];
                parts.extend(halves.map(|rows| Part { rows, exclusive }));
            }
        }
    }
    // For these rows, another job may have ended the worker or used up the memory. So each row runs once more, one at a
    // time.
    for (part, error) in doubtful {
        if deaths > MAX_DEATHS {
            final_failures.push((part.rows, error));
            continue;
        }
        let failed = pass(&[part]);
        deaths += deaths_in(&failed);
        final_failures.extend(failed);
    }
    final_failures.sort_by_key(|(rows, _)| rows.start);
    final_failures
}

/// Returns an upper bound on the number of workers that these failures ended. With several lanes, one death fails
/// several jobs.
fn deaths_in(failed: &Failures) -> usize {
    let lost = |error: &JobError| {
        matches!(
            error.kind(),
            JobErrorKind::Lost(WorkerExit::OtherJob { .. })
        )
    };
    let died = |error: &JobError| ends_a_worker(error) && !lost(error);
    failed.iter().filter(|(_, error)| died(error)).count()
}

/// Returns true if the job's worker has ended, because of this job or another one.
fn ends_a_worker(error: &JobError) -> bool {
    !error.kind().ended_in_worker() && !concerns_all_rows(error)
}

/// Returns true if any other rows would fail in the same way.
fn concerns_all_rows(error: &JobError) -> bool {
    use JobErrorKind::{Cancelled, NoWorkers, Rejected, ShutDown};
    matches!(
        error.kind(),
        Cancelled | Rejected(_) | NoWorkers(_) | ShutDown
    )
}

/// Returns true if the failure cannot come from another job of the same worker.
fn is_certain(error: &JobError) -> bool {
    error.lost_jobs().is_empty()
        && !matches!(
            error.kind(),
            JobErrorKind::Limit(JobLimit::Arena(_) | JobLimit::ArenaShare(_))
                | JobErrorKind::Lost(WorkerExit::OtherJob { .. })
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Rejection;
    use crate::supervisor::Failed;

    fn error(kind: JobErrorKind) -> JobError {
        Failed::new(kind, "kernel", 0).into()
    }

    /// Runs two chunks of `rows` rows, in which the `bad` rows fail. Returns the failures and the number of parts in
    /// each pass.
    fn narrowed(
        rows: usize,
        bad: impl Fn(usize) -> bool,
        kind: JobErrorKind,
    ) -> (Vec<(usize, usize)>, Vec<usize>) {
        let mut passes = Vec::new();
        let chunks = vec![0..rows / 2, rows / 2..rows];
        let failed = narrow(chunks, |parts| {
            assert!(parts.is_sorted_by(|a, b| a.rows.end <= b.rows.start));
            let exclusive = !passes.is_empty() && ends_a_worker(&error(kind.clone()));
            assert!(parts.iter().all(|part| part.exclusive == exclusive));
            passes.push(parts.len());
            let rows = parts.iter().map(|part| part.rows.clone());
            let failed = rows.filter(|rows| rows.clone().any(&bad));
            failed.map(|rows| (rows, error(kind.clone()))).collect()
        });
        let failed = failed.iter().map(|(rows, _)| (rows.start, rows.end));
        (failed.collect(), passes)
    }

    #[test]
    fn halving_finds_each_failing_row() {
        let (failed, passes) = narrowed(
            1000,
            |row| row == 700,
            JobErrorKind::Lost(WorkerExit::Signal(6)),
        );
        assert_eq!(failed, [(700, 701)]);
        assert_eq!(passes, [2; 10]);
        let bad = [0, 1, 2, 499, 500, 999];
        let (failed, _) = narrowed(
            1000,
            |row| bad.contains(&row),
            JobErrorKind::Lost(WorkerExit::Signal(6)),
        );
        assert_eq!(failed, bad.map(|row| (row, row + 1)));
        let (failed, passes) = narrowed(37, |_| true, JobErrorKind::Returned("no".into()));
        assert_eq!(failed.len(), 37);
        assert_eq!(passes.iter().sum::<usize>(), 2 * 37 - 2);
    }

    #[test]
    fn failures_that_concern_all_rows_are_not_halved() {
        for kind in [
            JobErrorKind::Cancelled,
            JobErrorKind::Rejected(Rejection::ForeignArray),
            JobErrorKind::NoWorkers("none".into()),
            JobErrorKind::ShutDown,
        ] {
            let (failed, passes) = narrowed(1000, |row| row < 10, kind);
            assert_eq!((failed, passes), (vec![(0, 500)], vec![2]));
        }
    }

    #[test]
    fn a_single_row_runs_again_only_if_another_job_may_have_failed_it() {
        let lost = JobErrorKind::Lost(WorkerExit::OtherJob {
            job: Some(1),
            cause: Box::new(JobErrorKind::Lost(WorkerExit::Signal(6))),
        });
        for (kind, passes) in [
            (lost, vec![2, 1]),
            (JobErrorKind::Lost(WorkerExit::Signal(6)), vec![2]),
        ] {
            assert_eq!(narrowed(2, |row| row == 1, kind), (vec![(1, 2)], passes));
        }
    }

    #[test]
    fn the_number_of_lost_workers_is_bounded() {
        let (failed, passes) = narrowed(1000, |_| true, JobErrorKind::Lost(WorkerExit::Signal(6)));
        assert_eq!((failed.len(), passes), (16, vec![2, 4, 8, 16]));
        let (failed, passes) = narrowed(
            1 << 20,
            |row| row % 8 == 0,
            JobErrorKind::Lost(WorkerExit::Signal(6)),
        );
        assert_eq!((failed.len(), passes.len()), (16, 4));
        let bad: Vec<_> = (0..30).map(|nth| nth * nth * 1000).collect();
        let (failed, passes) = narrowed(
            1 << 20,
            |row| bad.contains(&row),
            JobErrorKind::Lost(WorkerExit::Signal(6)),
        );
        assert!(
            passes.iter().sum::<usize>() < 2 * (MAX_DEATHS + bad.len()),
            "{passes:?}"
        );
        assert_eq!(failed.len(), bad.len(), "a piece each: they lie far apart");
    }

    /// Without the limit, each of a million rows would have an error with a backtrace.
    #[test]
    fn halving_stops_where_too_many_parts_fail() {
        let (failed, passes) = narrowed(1 << 20, |_| true, JobErrorKind::Returned("no".into()));
        assert_eq!(failed.len(), 1 << 14);
        assert_eq!(
            failed.iter().map(|(start, end)| end - start).sum::<usize>(),
            1 << 20
        );
        assert_eq!(passes.last(), Some(&(1 << 14)));
    }
}
