//! What fails of an array: row by row, or by the chunk.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, Engine, JobErrorKind};
use arenite::{DeadLetter, Report};

use crate::harness::{Lab, step, tests};

tests![
    one_row_that_fails_costs_no_other,
    rows_that_fail_far_apart_and_side_by_side,
    rows_of_many_elements,
    a_row_that_ends_its_worker,
    lanes_do_not_put_the_blame_on_neighbours,
    where_all_fail_each_is_told,
    where_all_end_their_workers_few_are_lost,
    what_concerns_the_whole_array_is_told_by_the_chunk,
    a_chunk_whose_worker_dies_is_reported,
];

const LEN: usize = 100_000;

/// All are one more than their index, and those that failed are named alone and zero.
fn check(report: &Report<Array<u32>, Array<u32>>, failed: &[usize]) {
    let named: Vec<_> = report
        .failures()
        .iter()
        .map(|letter| letter.index())
        .collect();
    assert_eq!(named, failed);
    for letter in report.failures() {
        assert_eq!(letter.args()[..], [letter.index() as u32]);
    }
    for (index, &value) in report.values().iter().enumerate() {
        let expected = if failed.contains(&index) {
            0
        } else {
            index as u32 + 1
        };
        assert_eq!(value, expected, "element {index}");
    }
}

fn one_row_that_fails_costs_no_other() {
    fn picky(x: u32) -> u32 {
        assert_ne!(x, 61_234, "the one");
        x + 1
    }
    let check_with = |engine: &Engine| {
        let input = engine.from_fn(LEN, |i| i as u32).unwrap();
        let report = engine.par(&input).report().map(picky).unwrap();
        check(&report, &[61_234]);
        let [letter] = report.failures() else {
            panic!("{report}");
        };
        let panicked = letter.error().kind();
        assert!(
            matches!(panicked, JobErrorKind::Panicked { message, .. } if message.contains("the one")),
            "{panicked:?}"
        );
        let text = report.to_string();
        let first = format!("1 of {LEN} rows failed\n  row 61234: ");
        assert!(text.starts_with(&first), "{text}");
        let (_, mut letters) = report.into_parts();
        // A letter's arguments are rows of the input, which can be sent again.
        let again = letters.remove(0).into_args();
        assert_eq!(
            engine.par(&again).map(|x: u32| x + 1).unwrap()[..],
            [61_235]
        );
        let all = engine.par(&input).report().map(|x: u32| x + 1).unwrap();
        check(&all, &[]);
    };
    check_with(&Engine::inline());
    for workers in [2, 3] {
        step(format!("{workers} workers"));
        let lab = Lab::new(workers);
        check_with(&lab);
        let input = lab.from_fn(LEN, |i| i as u32).unwrap();
        let report = lab.par(&input).report().map(picky).unwrap();
        let backtrace = report.failures()[0].backtrace().unwrap();
        assert!(backtrace.contains("picky"), "{backtrace}");
        assert_eq!(lab.stats().restarts(), 0, "no worker has died of a panic");
        drop((report, input));
        lab.assert_in_use(0);
    }
}

fn rows_that_fail_far_apart_and_side_by_side() {
    fn picky(x: u32) -> u32 {
        assert!(![0, 20_000, 20_001, 99_999].contains(&x));
        x + 1
    }
    let lab = Lab::new(2);
    let input = lab.from_fn(LEN, |i| i as u32).unwrap();
    let report = lab.par(&input).report().map(picky).unwrap();
    check(&report, &[0, 20_000, 20_001, 99_999]);
}

fn rows_of_many_elements() {
    let lab = Lab::new(2);
    let rows = 30_000;
    let input = lab.from_fn([rows, 4], |i| i as u32).unwrap();
    let report = lab.par(&input).report().map(|x: u32| {
        // The third of its row.
        assert_ne!(x, 4 * 21_234 + 2);
        x + 1
    });
    let report = report.unwrap();
    let [letter] = report.failures() else {
        panic!("{report}");
    };
    assert_eq!(letter.index(), 21_234);
    assert_eq!(letter.args().shape().rows(), 1);
    assert_eq!(letter.args()[..], input[4 * 21_234..4 * 21_235]);
    assert_eq!(report.values().shape(), input.shape());
    for (row, values) in report.values().chunks(4).enumerate() {
        let first = row as u32 * 4 + 1;
        let expected = [first, first + 1, first + 2, first + 3];
        let failed = row == 21_234;
        assert_eq!(values, if failed { [0; 4] } else { expected }, "row {row}");
    }
}

fn a_row_that_ends_its_worker() {
    fn poison(x: u32) -> u32 {
        if x == 33_333 {
            std::process::abort();
        }
        x + 1
    }
    let lab = Lab::new(2);
    let input = lab.from_fn(LEN, |i| i as u32).unwrap();
    let report = lab.par(&input).report().map(poison).unwrap();
    check(&report, &[33_333]);
    let error = report.failures()[0].error();
    assert_eq!(*error.kind(), JobErrorKind::Signal(6));
    // It is zero, as `check` has seen, and nobody is to be told otherwise.
    assert!(error.unspecified_rows().is_empty(), "{error}");
    assert!(!report.to_string().contains("unspecified"), "{report}");
    assert!(lab.stats().restarts() > 1, "once at each halving");
    drop((report, input));
    lab.assert_in_use(0);
}

/// Rows that run beside one that ends their worker are lost with it, or seem to have done it.
fn lanes_do_not_put_the_blame_on_neighbours() {
    /// Elements of a row, which is a chunk by itself where there are few.
    const ROW: usize = 20_000;
    /// Rows that this worker is at.
    static AT_WORK: AtomicUsize = AtomicUsize::new(0);
    /// Until then, or for so long that a row which may run beside this one does. Where others want the cores, each yield may take a
    /// slice of theirs.
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
        let report = lab.par(&input).report().map(poison).unwrap();
        let failed = report.failures().iter().map(DeadLetter::index);
        assert_eq!(failed.collect::<Vec<_>>(), bad, "{report}");
        for (row, values) in report.values().chunks(ROW).enumerate() {
            let first = (row * ROW) as u32 + 1;
            let expected = if bad.contains(&row) { 0 } else { first };
            assert_eq!(values[0], expected, "row {row}");
        }
    }
}

fn where_all_fail_each_is_told() {
    let lab = Lab::new(2);
    let input = lab.from_fn(30, |i| i as u32).unwrap();
    let report = lab
        .par(&input)
        .report()
        .map(|x: u32| -> u32 { panic!("{x}") });
    let report = report.unwrap();
    check(&report, &(0..30).collect::<Vec<_>>());
    for letter in report.failures() {
        let own = letter.index().to_string();
        assert!(
            matches!(letter.error().kind(), JobErrorKind::Panicked { message, .. } if *message == own),
            "{letter}"
        );
    }
    let text = report.to_string();
    assert!(
        text.starts_with("30 of 30 rows failed\n  row 0: "),
        "{text}"
    );
    assert!(text.ends_with("\n  and 20 more"), "{text}");
    step("each ends its worker");
    let input = input.rows(0..5);
    let report = lab
        .par(&input)
        .report()
        .map(|_: u32| -> u32 { std::process::abort() });
    check(&report.unwrap(), &[0, 1, 2, 3, 4]);
}

/// Nobody learns anything from a death for each row.
fn where_all_end_their_workers_few_are_lost() {
    let lab = Lab::new(2);
    let input = lab.from_fn(LEN, |i| i as u32).unwrap();
    let report = lab
        .par(&input)
        .report()
        .map(|_: u32| -> u32 { std::process::abort() });
    let report = report.unwrap();
    let mut next = 0;
    for letter in report.failures() {
        assert_eq!(letter.index(), next);
        next += letter.args().len();
        assert_eq!(*letter.error().kind(), JobErrorKind::Signal(6));
    }
    assert_eq!(next, LEN, "each row is in one of them");
    assert!(report.values().iter().all(|&value| value == 0));
    // Chunks, and their halves.
    let restarts = lab.stats().restarts();
    assert!(restarts <= 7 * 8, "{restarts}");
    assert!(report.failures().len() <= 4 * 8, "{restarts}");
}

fn what_concerns_the_whole_array_is_told_by_the_chunk() {
    let lab = Lab::new(2);
    let private = Array::from_fn(LEN, |i| i as u32);
    let report = lab.par(&private).report().map(|x: u32| x + 1).unwrap();
    assert!(report.failures().len() <= 8, "{report}");
    let rows = |letter: &DeadLetter<Array<u32>>| letter.args().len();
    assert_eq!(report.failures().iter().map(rows).sum::<usize>(), LEN);
    for letter in report.failures() {
        assert_eq!(*letter.error().kind(), JobErrorKind::ForeignArray);
    }
    assert!(report.values().iter().all(|&x| x == 0));
    assert!(report.to_string().contains("\n  rows 0.."), "{report}");
}

fn a_chunk_whose_worker_dies_is_reported() {
    let lab = Lab::new(2);
    let input = lab.from_fn(400_000, |i| i as u32).unwrap();
    let report = lab
        .par(&input)
        .report()
        .apply(|from: &[u32], to: &mut [u32]| {
            to.fill(7);
            if from.contains(&200_000) {
                std::process::abort();
            }
        });
    let report = report.unwrap();
    let [letter] = report.failures() else {
        panic!("{report}");
    };
    assert_eq!(letter.error().kind(), &JobErrorKind::Signal(6));
    let failed = letter.index()..letter.index() + letter.args().len();
    assert!(failed.contains(&200_000));
    let (values, _) = report.into_parts();
    for (index, &value) in values.iter().enumerate() {
        assert_eq!(
            value,
            if failed.contains(&index) { 0 } else { 7 },
            "{index}"
        );
    }
}
