//! Dead letters with arguments, in every order of a map's results.

use super::backtrace_of;
use arenite::engine::Map;
use arenite::{Array, Backoff, DeadLetter, Engine, JobOptions, OnFailure, Report};
use smol::stream::StreamExt;

use crate::harness::{ABORTED, Gate, Lab, block_on, pass, step, tests, wait_until};

tests![
    failures_come_with_their_arguments,
    a_killed_worker_is_one_letter,
    a_dead_letter_does_not_wait_for_a_slow_item,
    dropping_a_map_early_frees_everything,
    stopping_frees_all_but_the_arguments_in_the_letter,
    other_tasks_run_while_a_report_is_awaited,
];

/// Bytes of each item.
const EACH: u64 = 4096;

/// The values or letters of items, each with its index.
type Results<A> = Vec<(usize, Result<u64, DeadLetter<A>>)>;

/// Checks the results of a map in every way that keeps arguments.
fn each_way<I>(map: impl Fn() -> Map<I, u64>, check: impl Fn(Results<I::Item>))
where
    I: Iterator<Item: Clone>,
{
    step("results in order");
    check(map().keep_args().enumerate().collect());
    step("results as they end");
    check(map().keep_args().unordered().collect());
    step("a stream in order");
    check(block_on(map().keep_args().stream().enumerate().collect()));
    step("a stream of results as they end");
    check(block_on(map().keep_args().unordered().stream().collect()));
    step("a report, also in `async` code");
    let later: Report<_, _> = block_on(map().keep_args().stream().collect());
    for report in [map().report(), later] {
        let (values, letters) = (report.values, report.failures);
        let letters = letters
            .into_iter()
            .map(|letter| (letter.index, Err(letter)));
        let values = values.into_iter().enumerate();
        let values = values.filter_map(|(index, value)| Some((index, Ok(value?))));
        check(values.chain(letters).collect());
    }
}

/// Returns the letters among the results of `items` items, in order. All other values must equal their index.
fn letters_of<A>(items: usize, mut results: Results<A>) -> Vec<DeadLetter<A>> {
    results.sort_by_key(|&(index, _)| index);
    assert!(results.iter().map(|&(index, _)| index).eq(0..items));
    let letters = results.into_iter().filter_map(|(index, result)| {
        let letter = result.map(|value| assert_eq!(value, index as u64)).err()?;
        assert_eq!(letter.index, index);
        Some(letter)
    });
    letters.collect()
}

fn failures_come_with_their_arguments() {
    fn first_of(values: &[u64], gap: u64) -> Result<u64, String> {
        match values[0] {
            113 => panic!("unlucky"),
            n if n % gap == 7 => Err(format!("{n} is no good")),
            n => Ok(n),
        }
    }
    let lab = Lab::new(2);
    for (engine, in_workers) in [(&*lab, true), (&Engine::inline(), false)] {
        let items = || (0..300).map(|n| (engine.from_slice(&[n]).unwrap(), 100));
        each_way(
            || engine.map(first_of, items()),
            |results| {
                let letters = letters_of(300, results);
                let failed = letters.iter().map(|letter| letter.index);
                assert!(failed.eq([7, 107, 113, 207]));
                for letter in letters {
                    let n = letter.index as u64;
                    assert_eq!((&letter.args.0[..], letter.args.1), (&[n][..], 100));
                    assert_eq!(
                        (letter.error.attempt(), letter.error.deaths().len()),
                        (1, 0)
                    );
                    // Workers send the backtrace of a panic.
                    assert_eq!(backtrace_of(&letter).is_some(), n == 113 && in_workers);
                }
            },
        );
    }
    lab.assert_in_use(0);
}

fn a_killed_worker_is_one_letter() {
    fn poison(n: u64) -> u64 {
        if n == 30 {
            std::process::abort();
        }
        n
    }
    let lab = Lab::new(2);
    let map = || {
        let map = lab.map(poison, (0..80).map(|n| (n,)));
        map.options(&JobOptions::new().retries(1).backoff(Backoff::NONE))
    };
    each_way(map, |results| {
        let letters = letters_of(80, results);
        let [letter] = &letters[..] else {
            panic!("{letters:?}")
        };
        assert_eq!((letter.args, letter.error.attempt()), ((30,), 2));
        assert_eq!(letter.error.kind(), &ABORTED);
        assert_eq!(letter.error.deaths(), [ABORTED]);
    });
    lab.assert_in_use(0);
}

/// A gate or command, and values.
type Item = (String, Array<u64>);

/// Fails, waits at its gate, or returns the number of the item.
fn at(gate: &str, values: &[u64]) -> Result<u64, &'static str> {
    match gate {
        "fails" => return Err("as requested"),
        "" => {}
        gate => pass(gate),
    }
    Ok(values[0])
}

/// Makes items, of which one fails and some wait at a gate.
fn items<'a>(
    lab: &'a Lab,
    count: u64,
    fails: u64,
    stands: impl Fn(u64) -> bool + 'a,
    gate: &Gate,
) -> impl Iterator<Item = Item> + 'a {
    let gate = gate.path();
    (0..count).map(move |n| {
        let command = match n {
            n if n == fails => "fails",
            n if stands(n) => &gate,
            _ => "",
        };
        let values = lab.from_fn(EACH as usize / 8, |_| n).unwrap();
        (command.to_owned(), values)
    })
}

fn a_dead_letter_does_not_wait_for_a_slow_item() {
    let lab = Lab::new(2);
    let in_use = || {
        let stats = lab.stats();
        let granted: u64 = stats.workers.iter().map(|worker| worker.granted).sum();
        stats.arena.in_use - granted
    };
    let gate = Gate::new();
    let map = || {
        let map = lab.map(at, items(&lab, 100, 50, |n| n == 0, &gate));
        map.keep_args().unordered()
    };
    step("all but the first, which waits at the gate");
    let mut results = map();
    check_all_but_the_first(results.by_ref().take(99).collect(), in_use);
    gate.open();
    let (index, value) = results.next().unwrap();
    assert_eq!((index, value.unwrap()), (0, 0));
    assert!(results.next().is_none());
    step("the same as a stream");
    let mut results = map().stream();
    let first = block_on((&mut results).take(99).collect::<Vec<_>>());
    check_all_but_the_first(first, in_use);
    gate.open();
    let (index, value) = block_on(results.next()).unwrap();
    assert_eq!((index, value.unwrap()), (0, 0));
    assert!(block_on(results.next()).is_none());
    lab.assert_in_use(0);
}

/// Checks that only the arguments in the letter are left of items that have ended.
fn check_all_but_the_first(results: Results<Item>, in_use: impl Fn() -> u64) {
    let mut indices: Vec<_> = results.iter().map(|&(index, _)| index).collect();
    indices.sort_unstable();
    assert!(indices.into_iter().eq(1..100));
    let mut letters = results.into_iter().filter_map(|(_, result)| result.err());
    let letter = letters.next().unwrap();
    assert!(letters.next().is_none());
    assert_eq!((letter.index, letter.args.1[0]), (50, 50));
    wait_until("the items of the gate and of the letter are left", || {
        in_use() == 2 * EACH
    });
    drop(letter);
    wait_until("the item at the gate is left", || in_use() == EACH);
}

/// At most one for each of two workers.
fn only_running_jobs_are_left(lab: &Lab) {
    wait_until("only running jobs are left", || {
        let stats = lab.stats();
        stats.queued == 0 && stats.open <= 2
    });
}

fn dropping_a_map_early_frees_everything() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    step("the first, which fails, while the others wait at the gate");
    let map = || {
        let map = lab.map(at, items(&lab, 60, 0, |n| n > 0, &gate));
        map.keep_args()
    };
    let is_dropped = |letter: DeadLetter<Item>| {
        only_running_jobs_are_left(&lab);
        gate.release_all(|| lab.stats().open == 0);
        lab.assert_in_use(EACH);
        assert_eq!(letter.args.1[..], [0; EACH as usize / 8]);
        drop(letter);
        lab.assert_in_use(0);
    };
    // Each map is dropped at the end of its statement.
    let first = map().next();
    is_dropped(first.unwrap().unwrap_err());
    let first = map().unordered().next();
    is_dropped(first.unwrap().1.unwrap_err());
    let first = block_on(map().stream().next());
    is_dropped(first.unwrap().unwrap_err());
    let first = block_on(map().unordered().stream().next());
    is_dropped(first.unwrap().1.unwrap_err());
}

fn stopping_frees_all_but_the_arguments_in_the_letter() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let map = || lab.map(at, items(&lab, 60, 0, |n| n > 0, &gate));
    let stopped = || map().on_failure(OnFailure::Stop).keep_args();
    let is_over = |letter: DeadLetter<Item>| {
        only_running_jobs_are_left(&lab);
        gate.release_all(|| lab.stats().open == 0);
        lab.assert_in_use(EACH);
        assert_eq!(letter.args.1[0], 0);
    };
    let mut in_order = stopped();
    is_over(in_order.next().unwrap().unwrap_err());
    let mut as_they_end = stopped().unordered();
    is_over(as_they_end.next().unwrap().1.unwrap_err());
    // Both maps are alive, at their ends.
    assert!(in_order.next().is_none() && as_they_end.next().is_none());
    lab.assert_in_use(0);
}

fn other_tasks_run_while_a_report_is_awaited() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let map = lab.map(at, items(&lab, 50, 3, |n| n == 0, &gate));
    let report = map.keep_args().stream().collect::<Report<_, _>>();
    step("a report whose job waits at a gate that another task opens");
    let (report, ()) = block_on(smol::future::zip(report, async { gate.open() }));
    assert_eq!((report.values.len(), report.failures.len()), (50, 1));
    assert_eq!(
        report.values[..5],
        [Some(0), Some(1), Some(2), None, Some(4)]
    );
    drop(report);
    lab.assert_in_use(0);
}
