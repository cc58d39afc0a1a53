//! Reports on the failures of a map, and retries.

use arenite::{Backoff, Engine, JobErrorKind, JobOptions, OnFailure};

use super::{backtrace_of, odd, square};
use crate::harness::{Diary, Gate, KILLED, Lab, note_after, pass, step, tests};

tests![
    on_failure_decides_whether_a_map_stops,
    a_report_names_each_failure,
    dead_letters_are_sent_again,
    errors_are_retried_on_request,
    deaths_and_errors_both_count_as_attempts,
];

fn on_failure_decides_whether_a_map_stops() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        let map = || engine.map(odd, (1..).map(|n| (n,)));
        let on = map().on_failure(OnFailure::GoOn).take(1000);
        assert_eq!(on.filter(Result::is_err).count(), 101);
        let mut stopped = map().on_failure(OnFailure::Stop);
        let results: Vec<_> = stopped.by_ref().collect();
        assert_eq!(results.len(), 10);
        assert!(results[..9].iter().all(Result::is_ok));
        let error = results[9].as_ref().unwrap_err();
        let why = JobErrorKind::Returned("10 ends in 0".into());
        assert_eq!(*error.kind(), why);
        assert!(stopped.next().is_none(), "it is fused");
        let results: Vec<_> = map().on_failure(OnFailure::Stop).unordered().collect();
        let failed = results.iter().filter(|(_, result)| result.is_err()).count();
        assert_eq!((failed, results.last().unwrap().1.is_err()), (1, true));
        let stopped = map().on_failure(OnFailure::Stop).report();
        assert_eq!((stopped.values.len(), stopped.failures.len()), (10, 1));
    }
    lab.assert_idle();
}

fn a_report_names_each_failure() {
    let lab = Lab::new(2);
    let report = lab.map(odd, (1..=30).map(|n| (n,))).report();
    let failed: Vec<_> = report.failures.iter().map(|letter| letter.index).collect();
    assert_eq!(failed, [9, 12, 19, 29]);
    for (index, value) in report.values.iter().enumerate() {
        let expected = (!failed.contains(&index)).then_some(index as u64 + 1);
        assert_eq!(*value, expected);
    }
    for letter in &report.failures {
        assert_eq!(letter.args, (letter.index as u64 + 1,));
        assert_eq!(
            (letter.error.attempt(), letter.error.deaths().len()),
            (1, 0)
        );
    }
    let panicked = &report.failures[1];
    let backtrace = backtrace_of(panicked).unwrap();
    assert!(backtrace.contains("odd"), "{backtrace}");
    assert!(backtrace_of(&report.failures[0]).is_none());
    let text = report.to_string();
    assert!(
        text.starts_with("4 of 30 items failed\n  item 9: job"),
        "{text}"
    );
    let report = report.into_values().unwrap_err();
    let values = report.values;
    assert_eq!(values.into_iter().flatten().count(), 26);
    let all = lab.map(square, (0..3).map(|n| (n,))).report().into_values();
    assert_eq!(all.unwrap(), [0, 1, 4]);
}

fn dead_letters_are_sent_again() {
    fn last(values: &[u8], from: u64) -> Result<u8, String> {
        let from = from as usize;
        values
            .get(from)
            .copied()
            .ok_or_else(|| format!("nothing at {from}"))
    }
    let lab = Lab::new(2);
    let arrays: Vec<_> = (1..=4u8)
        .map(|n| lab.from_slice(&vec![n; n.into()]).unwrap())
        .collect();
    let report = lab
        .map(last, arrays.iter().map(|a| (a.clone(), 2)))
        .report();
    drop(arrays);
    let (mut values, letters) = (report.values, report.failures);
    assert_eq!(values, [None, None, Some(3), Some(4)]);
    // The letters hold their inputs.
    let again: Vec<_> = letters.iter().map(|letter| letter.index).collect();
    let items = letters.into_iter().map(|letter| (letter.args.0, 0));
    for (index, value) in again.into_iter().zip(lab.map(last, items)) {
        values[index] = Some(value.unwrap());
    }
    assert_eq!(values, [1, 2, 3, 4].map(Some));
    lab.assert_in_use(0);
}

/// A server that is busy the first `times` times, counted by lines in a file.
fn busy(diary: &str, times: u64) -> Result<u64, String> {
    let before = note_after(diary, "asked") as u64;
    if before < times {
        return Err(format!("busy {before}"));
    }
    Ok(before)
}

fn returned(n: u64) -> JobErrorKind {
    JobErrorKind::Returned(format!("busy {n}").into())
}

fn errors_are_retried_on_request() {
    let lab = Lab::new(2);
    let fresh = |count: usize| -> (Vec<Diary>, Vec<String>) {
        let diaries: Vec<_> = (0..count).map(|_| Diary::new()).collect();
        let paths = diaries.iter().map(Diary::path).collect();
        (diaries, paths)
    };
    // By default an `Err` is the answer, and without retries the option has no effect. Otherwise it takes enough
    // retries, which may be more than there may be deaths.
    for (times, retries, on_request, attempts) in [
        (2, 5, false, 1),
        (1, 0, true, 1),
        (2, 5, true, 3),
        (9, 9, true, 10),
        (100, 2, true, 3),
    ] {
        let diary = Diary::new();
        let path = diary.path();
        let job = lab.job(busy, (&path, times)).retries(retries);
        let job = if on_request { job.retry_errors() } else { job };
        match job.backoff(Backoff::NONE).keep_args().submit().wait() {
            Ok(value) => assert_eq!((value, attempts), (times, times + 1)),
            Err(letter) => {
                // The last error is the answer, with those before it.
                assert!(attempts <= times, "{letter}");
                assert_eq!(*letter.error.kind(), returned(attempts - 1));
                let before: Vec<_> = (0..attempts - 1).map(returned).collect();
                assert_eq!(letter.error.deaths(), before);
                assert_eq!(u64::from(letter.error.attempt()), attempts);
                assert_eq!(letter.args, (&path, times));
            }
        }
        assert_eq!(diary.lines().len() as u64, attempts);
    }
    // In a map, each item on its own.
    let (_diaries, paths) = fresh(3);
    let items = paths.into_iter().zip([0, 2, 100]);
    let twice = JobOptions::new().retries(2).retry_errors();
    let map = lab.map(busy, items);
    let report = map.options(&twice.backoff(Backoff::NONE)).report();
    assert_eq!(report.values, [Some(0), Some(2), None]);
    let [letter] = &report.failures[..] else {
        panic!("{report}")
    };
    assert_eq!((letter.index, letter.error.attempt()), (2, 3));
    // A job whose value another one takes, after the successful attempt; and a stage.
    let (_diaries, paths) = fresh(2);
    let job = lab.job(busy, (&paths[0], 1)).retries(1);
    let job = job.retry_errors().submit();
    assert_eq!(lab.submit(square, (job,)).wait(), Ok(1));
    let mut letters = Vec::new();
    let stream = arenite::stream::Stream::new([1u64, 100])
        .on_failure(OnFailure::GoOn)
        .stage_with(busy, |times| (times, (paths[1].clone(), times)))
        .options(&JobOptions::new().retries(1).retry_errors())
        .jobs(1)
        .dead_letters(|letter| letters.push(letter));
    let values: Vec<_> = stream.run(&lab).map(Result::unwrap).collect();
    assert_eq!(values, [(1, 1)]);
    let [letter] = &letters[..] else {
        panic!("{letters:?}")
    };
    assert_eq!((letter.args, letter.error.attempt()), (100, 2));
    assert_eq!(lab.stats().restarts(), 0, "no worker has died of an error");
    lab.assert_in_use(0);
}

/// The first attempt returns an error, the second kills its worker, the third returns a value.
fn deaths_and_errors_both_count_as_attempts() {
    fn hard(diary: &str, gate: &str) -> Result<u64, String> {
        match busy(diary, 1)? {
            1 => {
                pass(gate);
                Err("it was to be killed there".into())
            }
            n => Ok(n),
        }
    }
    let lab = Lab::new(1);
    for retries in [1, 2] {
        let diary = Diary::new();
        let path = diary.path();
        let gate = Gate::new();
        let job = lab.job(hard, (path, gate.path())).retries(retries);
        let job = job.retry_errors().backoff(Backoff::NONE).submit();
        let held = gate.meet();
        lab.replace(0);
        drop(held);
        step("its result");
        match job.wait() {
            Ok(value) => assert_eq!((value, retries), (2, 2)),
            Err(error) => {
                assert_eq!(retries, 1, "{error}");
                assert_eq!((error.kind(), error.attempt()), (&KILLED, 2));
                assert_eq!(error.deaths(), [returned(0)]);
            }
        }
    }
    lab.assert_in_use(0);
}
