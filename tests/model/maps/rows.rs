//! Failures in arrays: by row, or by chunk.

use super::backtrace_of;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, Engine, JobErrorKind, Rejection};
use arenite::{DeadLetter, Report};

use crate::harness::{ABORTED, Lab, rejected, step, tests};

tests![
    a_failed_row_costs_no_other,
    failing_rows_far_apart_and_adjacent,
    a_row_that_kills_its_worker_is_named,
    neighbouring_lanes_are_not_blamed,
    if_all_rows_fail_each_is_reported,
    a_kernel_that_always_crashes_stops_early,
    failures_of_whole_array_kernels_are_reported_by_chunk,
];

const LEN: usize = 100_000;

/// Checks that each value is its index plus one, and that exactly the failed rows are named and zero.
fn check(report: &Report<Array<u32>, Array<u32>>, failed: &[usize]) {
    let named: Vec<_> = report.failures.iter().map(|letter| letter.index).collect();
    assert_eq!(named, failed);
    for letter in &report.failures {
        assert_eq!(letter.args[..], [letter.index as u32]);
    }
    for (index, &value) in report.values.iter().enumerate() {
        let expected = if failed.contains(&index) {
            0
        } else {
            index as u32 + 1
        };
        assert_eq!(value, expected, "element {index}");
    }
}

fn a_failed_row_costs_no_other() {
    fn picky(x: u32) -> u32 {
        assert_ne!(x, 61_234, "the one");
        x + 1
    }
    let check_with = |engine: &Engine| {
        let input = engine.from_fn(LEN, |i| i as u32).unwrap();
        let report = engine.par(&input).map_report(picky).unwrap();
        check(&report, &[61_234]);
        let [letter] = &report.failures[..] else {
            panic!("{report}");
        };
        let panicked = letter.error.kind();
        assert!(
            matches!(panicked, JobErrorKind::Panicked { message, .. } if message.contains("the one")),
            "{panicked:?}"
        );
        let text = report.to_string();
        let first = format!("1 of {LEN} rows failed\n  row 61234: ");
        assert!(text.starts_with(&first), "{text}");
        let mut letters = report.failures;
        // The arguments of a letter are rows of the input, and can be sent again.
        let again = letters.remove(0).args;
        assert_eq!(
            engine.par(&again).map(|x: u32| x + 1).unwrap()[..],
            [61_235]
        );
        let all = engine.par(&input).map_report(|x: u32| x + 1).unwrap();
        check(&all, &[]);
    };
    check_with(&Engine::inline());
    for workers in [2, 3] {
        step(format!("{workers} workers"));
        let lab = Lab::new(workers);
        check_with(&lab);
        let input = lab.from_fn(LEN, |i| i as u32).unwrap();
        let report = lab.par(&input).map_report(picky).unwrap();
        let backtrace = backtrace_of(&report.failures[0]).unwrap();
        assert!(backtrace.contains("picky"), "{backtrace}");
        assert_eq!(lab.stats().restarts(), 0, "no worker has died of a panic");
        drop((report, input));
        lab.assert_in_use(0);
    }
}

fn failing_rows_far_apart_and_adjacent() {
    fn picky(x: u32) -> u32 {
        assert!(![0, 20_000, 20_001, 99_999].contains(&x));
        x + 1
    }
    let lab = Lab::new(2);
    let input = lab.from_fn(LEN, |i| i as u32).unwrap();
    let report = lab.par(&input).map_report(picky).unwrap();
    check(&report, &[0, 20_000, 20_001, 99_999]);
}

fn a_row_that_kills_its_worker_is_named() {
    fn poison(x: u32) -> u32 {
        if x == 33_333 {
            std::process::abort();
        }
        x + 1
    }
    let lab = Lab::new(2);
    let input = lab.from_fn(LEN, |i| i as u32).unwrap();
    let report = lab.par(&input).map_report(poison).unwrap();
    check(&report, &[33_333]);
    let error = &report.failures[0].error;
    assert_eq!(*error.kind(), ABORTED);
    // It is zero (see `check`), so it is not reported as unspecified.
    assert!(error.unspecified_rows().is_empty(), "{error}");
    assert!(!report.to_string().contains("unspecified"), "{report}");
    assert!(lab.stats().restarts() > 1, "once at each halving");
    drop((report, input));
    lab.assert_in_use(0);
}

/// Rows that run in other lanes of a killed worker are lost with it, or might be blamed.
fn neighbouring_lanes_are_not_blamed() {
    /// Elements of a row. So few rows are a chunk each.
    const ROW: usize = 20_000;
    /// The number of rows that this worker is running.
    static AT_WORK: AtomicUsize = AtomicUsize::new(0);
    /// Waits until then, or long enough that another lane has begun its row. On a busy machine each yield may take a
    /// time slice.
    fn linger(until: impl Fn() -> bool) {
        let start = Instant::now();
        (0..20_000)
            .take_while(|_| !until() && start.elapsed() < Duration::from_millis(500))
            .for_each(|_| thread::yield_now());
    }
    fn poison(x: u32) -> u32 {
        if (x as usize).is_multiple_of(ROW) {
            AT_WORK.fetch_add(1, Relaxed);
            linger(|| AT_WORK.load(Relaxed) > 1);
            if [1, 6].contains(&(x as usize / ROW)) {
                std::process::abort();
            }
            linger(|| false);
            AT_WORK.fetch_sub(1, Relaxed);
        }
        x + 1
    }
    let lab = Lab::with(1, |builder| builder.lanes(4));
    for (rows, bad) in [(4, &[1][..]), (8, &[1, 6])] {
        step(format!("{rows} rows"));
        let input = lab.from_fn([rows, ROW], |i| i as u32).unwrap();
        let report = lab.par(&input).map_report(poison).unwrap();
        let failed = report.failures.iter().map(|letter| letter.index);
        assert_eq!(failed.collect::<Vec<_>>(), bad, "{report}");
        for (row, values) in report.values.chunks(ROW).enumerate() {
            let first = (row * ROW) as u32 + 1;
            let expected = if bad.contains(&row) { 0 } else { first };
            assert_eq!(values[0], expected, "row {row}");
        }
    }
}

fn if_all_rows_fail_each_is_reported() {
    let lab = Lab::new(2);
    let input = lab.from_fn(30, |i| i as u32).unwrap();
    let report = lab
        .par(&input)
        .map_report(|x: u32| -> u32 { panic!("{x}") });
    let report = report.unwrap();
    check(&report, &(0..30).collect::<Vec<_>>());
    for letter in &report.failures {
        let own = letter.index.to_string();
        assert!(
            matches!(letter.error.kind(), JobErrorKind::Panicked { message, .. } if *message == own),
            "{letter}"
        );
    }
    let text = report.to_string();
    assert!(
        text.starts_with("30 of 30 rows failed\n  row 0: "),
        "{text}"
    );
    assert!(text.ends_with("\n  and 20 more"), "{text}");
    step("each kills its worker");
    let input = input.rows(0..5);
    let report = lab
        .par(&input)
        .map_report(|_: u32| -> u32 { std::process::abort() });
    check(&report.unwrap(), &[0, 1, 2, 3, 4]);
}

/// One death per row would not add information.
fn a_kernel_that_always_crashes_stops_early() {
    let lab = Lab::new(2);
    let input = lab.from_fn(LEN, |i| i as u32).unwrap();
    let report = lab
        .par(&input)
        .map_report(|_: u32| -> u32 { std::process::abort() });
    let report = report.unwrap();
    let mut next = 0;
    for letter in &report.failures {
        assert_eq!(letter.index, next);
        next += letter.args.len();
        assert_eq!(*letter.error.kind(), ABORTED);
    }
    assert_eq!(next, LEN, "each row is in one of them");
    assert!(report.values.iter().all(|&value| value == 0));
    // Chunks and their halves.
    let restarts = lab.stats().restarts();
    assert!(restarts <= 7 * 8, "{restarts}");
    assert!(report.failures.len() <= 4 * 8, "{restarts}");
}

fn failures_of_whole_array_kernels_are_reported_by_chunk() {
    let lab = Lab::new(2);
    let private = Array::from_fn(LEN, |i| i as u32);
    let report = lab.par(&private).map_report(|x: u32| x + 1).unwrap();
    assert!(report.failures.len() <= 8, "{report}");
    let rows = |letter: &DeadLetter<Array<u32>>| letter.args.len();
    assert_eq!(report.failures.iter().map(rows).sum::<usize>(), LEN);
    for letter in &report.failures {
        assert_eq!(*letter.error.kind(), rejected(Rejection::ForeignArray));
    }
    assert!(report.values.iter().all(|&x| x == 0));
    assert!(report.to_string().contains("\n  rows 0.."), "{report}");
}
