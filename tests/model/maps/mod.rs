//! A kernel over an iterator: in order and as they end, stopping and going on, reports, waiting for any and for all.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, Backoff, Engine, JobErrorKind, OnFailure};
use bytemuck::{CheckedBitPattern, NoUninit};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::flat::private_bytes;
use crate::harness::{Diary, Gate, Lab, note_after, pass, step, tests, wait_until};

tests![
    all_results_come_with_their_index,
    a_slow_item_holds_up_no_other,
    a_slow_item_at_the_front_is_slept_for,
    a_death_in_the_middle_is_one_result,
    unordered_is_lazy_and_leaves_nothing,
    a_million_small_items_take_no_memory,
    results_free_their_bytes_as_they_are_used,
    results_that_nobody_takes_fill_no_arena,
    a_failure_stops_or_does_not,
    stopping_gives_up_what_is_under_way,
    a_report_names_each_failure,
    dead_letters_are_sent_again,
    a_worker_that_dies_is_in_the_report,
    a_job_with_its_arguments,
    the_first_of_several_jobs,
    the_first_of_several_engines,
    all_of_several_jobs,
    a_death_among_several_jobs,
    waiting_takes_nothing,
    waiting_for_any_leaves_tasks_waiting,
    a_check_that_panics_is_one_result,
    errors_are_tried_again_where_that_is_said,
    a_death_and_an_error_are_attempts_alike,
    the_same_without_workers,
    chunks_that_fail_are_reported,
    a_chunk_whose_worker_dies_is_reported,
];

fn square(n: u64) -> u64 {
    n * n
}

/// A gate in front of those items that have one.
fn through(gate: &str, n: u64) -> u64 {
    if !gate.is_empty() {
        pass(gate);
    }
    n
}

fn all_results_come_with_their_index() {
    const ITEMS: u64 = 20_000;
    let lab = Lab::new(2);
    let mut seen = vec![false; ITEMS as usize];
    for (index, value) in lab.map(square, (0..ITEMS).map(|n| (n,))).unordered() {
        assert_eq!(value.unwrap(), (index * index) as u64);
        assert!(!std::mem::replace(&mut seen[index], true), "{index} twice");
    }
    assert!(seen.into_iter().all(|seen| seen));
    assert_eq!(lab.map(square, (0..0).map(|n| (n,))).unordered().count(), 0);
    lab.assert_in_use(0);
}

fn a_slow_item_holds_up_no_other() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let items = (0..100).map(|n| (if n == 0 { gate.path() } else { String::new() }, n));
    let mut map = lab.map(through, items).unordered();
    step("all but the first, which stands at the gate");
    let mut others: Vec<_> = map.by_ref().take(99).map(|(index, _)| index).collect();
    others.sort_unstable();
    assert!(others.into_iter().eq(1..100));
    gate.open();
    let (index, value) = map.next().unwrap();
    assert_eq!((index, value.unwrap()), (0, 0));
    assert!(map.next().is_none());
    lab.assert_idle();
}

fn a_slow_item_at_the_front_is_slept_for() {
    fn maybe_slow(millis: u64) -> u64 {
        thread::sleep(Duration::from_millis(millis));
        millis
    }
    let lab = Lab::new(2);
    // Known to be short, so that the caller sleeps for many at a time.
    assert_eq!(lab.map(maybe_slow, (0..5000).map(|_| (0,))).count(), 5000);
    let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    let slow = (0..20_000).map(|n| (if n % 5000 == 0 { 200 } else { 0 },));
    let mut results = lab.map(maybe_slow, slow);
    let (started, before) = (Instant::now(), used());
    assert_eq!(results.next().unwrap().unwrap(), 200);
    let (took, used) = (started.elapsed(), Duration::from(used() - before));
    assert!(used < took / 2, "the caller used {used:?} of {took:?}");
    assert_eq!(results.count(), 19_999);
    lab.assert_in_use(0);
}

fn a_death_in_the_middle_is_one_result() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let items = (0..200).map(|n| (if n == 70 { gate.path() } else { String::new() }, n));
    let mut map = lab.map(through, items).unordered();
    let mut died = Vec::new();
    thread::scope(|s| {
        s.spawn(|| {
            let held = gate.meet();
            // Whichever worker stands at the gate: the other one has nothing to do any more, or runs another item.
            wait_until("only one job is left", || {
                let stats = lab.stats();
                stats.open + stats.queued == 1
            });
            let stats = lab.stats();
            let worker = stats.workers.iter().position(|worker| worker.open > 0);
            let pid = lab.pid(worker.unwrap());
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            wait_until("it is gone", || lab.stats().restarts() > 0);
            drop(held);
        });
        step("199 values and a death");
        for (index, value) in &mut map {
            match value {
                Ok(value) => assert_eq!(value, index as u64),
                Err(error) => died.push((index, error.kind().clone())),
            }
        }
    });
    assert_eq!(died, [(70, JobErrorKind::Signal(9))]);
    lab.assert_idle();
}

fn unordered_is_lazy_and_leaves_nothing() {
    let lab = Lab::new(2);
    let pulled = Cell::new(0usize);
    let items = (0..).map(|n| {
        pulled.set(pulled.get() + 1);
        (n,)
    });
    let mut map = lab.map(square, items).unordered();
    assert_eq!(pulled.get(), 0);
    for taken in 1..10_000 {
        map.next().unwrap().1.unwrap();
        assert!(
            pulled.get() - taken <= 512,
            "{} ahead",
            pulled.get() - taken
        );
    }
    drop(map);
    lab.assert_idle();
    lab.assert_in_use(0);
}

fn a_million_small_items_take_no_memory() {
    fn mix(a: u64, b: u32, c: u8) -> u64 {
        a ^ u64::from(b) ^ u64::from(c)
    }
    let lab = Lab::new(2);
    let items = || (0..1_000_000u64).map(|n| (n, n as u32, n as u8));
    let mut map = lab.map(mix, items());
    step("the first thousands, which fill what there is to fill");
    let mut sum = map
        .by_ref()
        .take(20_000)
        .map(Result::unwrap)
        .fold(0, u64::wrapping_add);
    let before = private_bytes(&lab);
    step("the rest of a million");
    let mut most = 0;
    for (n, value) in map.enumerate() {
        sum = sum.wrapping_add(value.unwrap());
        if n % 100_000 == 0 {
            most = most.max(private_bytes(&lab));
            assert!(lab.stats().untaken <= 512);
        }
    }
    let expected = items()
        .map(|(a, b, c)| mix(a, b, c))
        .fold(0, u64::wrapping_add);
    assert_eq!(sum, expected);
    // Eight megabytes would be nine bytes per item.
    let grown = most.max(private_bytes(&lab)).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more than at the beginning");
    lab.assert_in_use(0);
}

fn results_free_their_bytes_as_they_are_used() {
    fn fresh(n: u8) -> Array<u8> {
        let mut array = arenite::ArrayMut::zeros(1 << 20);
        array.fill(n);
        array.seal()
    }
    // 500 MiB of results through an arena of 64 MiB.
    let lab = Lab::with(2, |builder| builder.capacity(64 << 20));
    for (n, array) in lab.map(fresh, (0..500).map(|n| (n as u8,))).enumerate() {
        assert_eq!(array.unwrap()[77], n as u8);
    }
    for (n, array) in lab.map(fresh, (0..500).map(|n| (n as u8,))).unordered() {
        assert_eq!(array.unwrap()[77], n as u8);
    }
    lab.assert_in_use(0);
}

fn results_that_nobody_takes_fill_no_arena() {
    // As quick as it can be for what it returns.
    fn large(n: u64) -> Array<u64> {
        let mut array = arenite::ArrayMut::zeros(1 << 17);
        array[0] = n;
        array.seal()
    }
    let lab = Lab::with(2, |builder| builder.capacity(64 << 20));
    lab.submit(large, (0,)).wait().unwrap();
    let mut map = lab.map(large, (0..300).map(|n| (n,)));
    for expected in 0..300 {
        let array = map.next().unwrap().unwrap();
        assert_eq!(array[0], expected);
        drop(array);
        // Nobody asks for more until all that was sent has ended.
        if expected % 50 == 0 {
            wait_until("nothing runs", || {
                let stats = lab.stats();
                stats.open + stats.queued == 0
            });
        }
    }
    drop(map);
    lab.assert_in_use(0);
}

fn odd(n: u64) -> Result<u64, String> {
    match n {
        13 => panic!("unlucky"),
        n if n.is_multiple_of(10) => Err(format!("{n} ends in 0")),
        n => Ok(n),
    }
}

fn a_failure_stops_or_does_not() {
    let lab = Lab::new(2);
    let map = || lab.map(odd, (1..).map(|n| (n,)));
    let on = map().on_failure(OnFailure::GoOn).take(1000);
    assert_eq!(on.filter(Result::is_err).count(), 101);
    let mut stopped = map().on_failure(OnFailure::Stop);
    let results: Vec<_> = stopped.by_ref().collect();
    assert_eq!(results.len(), 10);
    assert!(results[..9].iter().all(Result::is_ok));
    let error = results[9].as_ref().unwrap_err();
    assert_eq!(error.kind(), &JobErrorKind::Returned("10 ends in 0".into()));
    assert!(stopped.next().is_none(), "it stays at its end");
    let results: Vec<_> = map().on_failure(OnFailure::Stop).unordered().collect();
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    assert_eq!((failed, results.last().unwrap().1.is_err()), (1, true));
    lab.assert_idle();
}

fn stopping_gives_up_what_is_under_way() {
    fn fail_at(gate: &str, n: u64) -> Result<u64, String> {
        match n {
            0 => Err("the first one".into()),
            n => Ok(through(gate, n)),
        }
    }
    let lab = Lab::new(2);
    let gate = Gate::new();
    let items = (0..50).map(|n| (gate.path(), n));
    let mut map = lab
        .map(fail_at, items)
        .on_failure(OnFailure::Stop)
        .unordered();
    step("the failure, while others stand at the gate");
    assert!(map.next().unwrap().1.is_err());
    assert!(map.next().is_none());
    // One job per worker stands at the gate at most; nothing else is left.
    wait_until("only running jobs are left", || {
        let stats = lab.stats();
        stats.queued == 0 && stats.open <= 2
    });
    gate.release_all(|| lab.stats().open == 0);
    lab.assert_idle();
}

fn a_report_names_each_failure() {
    let lab = Lab::new(2);
    let report = lab.map(odd, (1..=30).map(|n| (n,))).report();
    let failed: Vec<_> = report
        .failures()
        .iter()
        .map(|letter| letter.index())
        .collect();
    assert_eq!(failed, [9, 12, 19, 29]);
    for (index, value) in report.values().iter().enumerate() {
        let expected = (!failed.contains(&index)).then_some(index as u64 + 1);
        assert_eq!(*value, expected);
    }
    for letter in report.failures() {
        assert_eq!(letter.args(), &(letter.index() as u64 + 1,));
        assert_eq!((letter.attempts(), letter.deaths().len()), (1, 0));
    }
    let panicked = &report.failures()[1];
    let backtrace = panicked.backtrace().unwrap();
    assert!(backtrace.contains("odd"), "{backtrace}");
    assert!(report.failures()[0].backtrace().is_none());
    let text = report.to_string();
    assert!(
        text.starts_with("4 of 30 items failed\n  item 9: job"),
        "{text}"
    );
    let report = report.into_values().unwrap_err();
    let (values, _) = report.into_parts();
    assert_eq!(values.into_iter().flatten().count(), 26);
    let all = lab.map(square, (0..3).map(|n| (n,))).report().into_values();
    assert_eq!(all.unwrap(), [0, 1, 4]);
    let stopped = lab
        .map(odd, (1..).map(|n| (n,)))
        .on_failure(OnFailure::Stop)
        .report();
    assert_eq!((stopped.values().len(), stopped.failures().len()), (10, 1));
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
    let (mut values, letters) = report.into_parts();
    assert_eq!(values, [None, None, Some(3), Some(4)]);
    // Their inputs are still there, because the letters hold them.
    let again: Vec<_> = letters.iter().map(|letter| letter.index()).collect();
    let items = letters.into_iter().map(|letter| (letter.into_args().0, 0));
    for (index, value) in again.into_iter().zip(lab.map(last, items)) {
        values[index] = Some(value.unwrap());
    }
    assert_eq!(values, [1, 2, 3, 4].map(Some));
    lab.assert_in_use(0);
}

fn a_worker_that_dies_is_in_the_report() {
    fn poison(n: u64) -> u64 {
        if n == 3 {
            std::process::abort();
        }
        n
    }
    let lab = Lab::new(2);
    let report = lab
        .map(poison, (0..8).map(|n| (n,)))
        .retries(1)
        .backoff(arenite::Backoff::NONE)
        .report();
    let [letter] = report.failures() else {
        panic!("{report}");
    };
    assert_eq!(
        (letter.index(), letter.args(), letter.attempts()),
        (3, &(3,), 2)
    );
    assert_eq!(letter.error().kind(), &JobErrorKind::Signal(6));
    assert_eq!(letter.deaths(), [JobErrorKind::Signal(6)]);
    assert_eq!(report.values().iter().flatten().count(), 7);
}

fn a_job_with_its_arguments() {
    fn die(values: &[u8]) -> u8 {
        assert!(!values.is_empty());
        std::process::abort();
    }
    let lab = Lab::new(1);
    let values = lab.from_slice(&[1u8, 2]).unwrap();
    step("a job that dies");
    let letter = lab.job(die, (values,)).keep_args().wait().unwrap_err();
    assert_eq!(letter.args().0[..], [1, 2]);
    assert_eq!(letter.error().kind(), &JobErrorKind::Signal(6));
    assert_eq!(lab.job(square, (3,)).keep_args().wait().unwrap(), 9);
    drop(letter);
    lab.assert_in_use(0);
}

fn the_first_of_several_jobs() {
    let lab = Lab::new(3);
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let mut jobs: Vec<_> = (0..)
        .zip(&gates)
        .map(|(n, gate)| lab.submit(through, (gate.path(), n)))
        .collect();
    assert_eq!(arenite::wait_any(&mut jobs, Some(Duration::ZERO)), None);
    let held: Vec<_> = gates.iter().map(Gate::meet).collect();
    assert_eq!(
        arenite::wait_any(&mut jobs, Some(Duration::from_millis(1))),
        None
    );
    let mut held = held.into_iter();
    let (first, second) = (held.next(), held.next());
    thread::scope(|s| {
        let opener = s.spawn(move || drop(second));
        step("the second job, whose gate is open");
        assert_eq!(arenite::wait_any(&mut jobs, None), Some(1));
        opener.join().unwrap();
    });
    // One that has ended is found at once, also beside others.
    assert_eq!(arenite::wait_any(&mut jobs, None), Some(1));
    jobs.remove(1).wait().unwrap();
    drop(first);
    assert_eq!(arenite::wait_any(&mut jobs, None), Some(0));
    drop(held);
    assert!(arenite::wait_all(&jobs, None));
    assert_eq!(
        arenite::wait_any(&mut Vec::<arenite::Job<u64>>::new(), None),
        None
    );
}

fn the_first_of_several_engines() {
    let labs = [Lab::new(1), Lab::new(1)];
    let gates = [Gate::new(), Gate::new()];
    let mut jobs: Vec<_> = labs
        .iter()
        .zip(&gates)
        .map(|(lab, gate)| lab.submit(through, (gate.path(), 7)))
        .collect();
    let held: Vec<_> = gates.iter().map(Gate::meet).collect();
    thread::scope(|s| {
        s.spawn(|| {
            wait_until("a job is in each", || {
                labs.iter().all(|lab| lab.stats().open == 1)
            });
            // The worker of the second engine dies: that is an end as well.
            labs[1].replace(0);
        });
        step("the job of the second engine");
        assert_eq!(arenite::wait_any(&mut jobs, None), Some(1));
    });
    drop(held);
    jobs.pop().unwrap().wait().unwrap_err();
    assert_eq!(jobs.pop().unwrap().wait().unwrap(), 7);
}

fn all_of_several_jobs() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let mut jobs: Vec<_> = (0..500).map(|n| lab.submit(square, (n,))).collect();
    jobs.push(lab.submit(through, (gate.path(), 0)));
    let held = gate.meet();
    assert!(!arenite::wait_all(&jobs, Some(Duration::from_millis(1))));
    drop(held);
    step("all of them");
    assert!(arenite::wait_all(&jobs, None));
    assert!(jobs.iter().all(arenite::Job::is_done));
    for (n, job) in (0..500).zip(jobs) {
        assert_eq!(job.wait().unwrap(), n * n);
    }
}

/// A worker is killed among jobs that somebody waits for in each way there is: it is an end like any other.
fn a_death_among_several_jobs() {
    let lab = Lab::new(2);
    for way in ["as they end", "any", "all"] {
        step(format!("a worker dies, and somebody waits for jobs: {way}"));
        let gates = [Gate::new(), Gate::new()];
        let gate = |n: usize| gates.get(n).map_or(String::new(), Gate::path);
        let mut jobs: Vec<_> = (0..20)
            .map(|n| lab.submit(through, (gate(n), n as u64)))
            .collect();
        let mut held = gates.each_ref().map(Gate::meet).into_iter();
        // One of the two workers that stand at a gate; the other one goes on when this one is gone.
        thread::scope(|s| {
            s.spawn(|| {
                lab.replace(0);
                drop(held.next());
                drop(held.next());
            });
            let ends = match way {
                "as they end" => {
                    let mut ends: Vec<_> = arenite::as_completed(jobs.drain(..)).collect();
                    ends.sort_by_key(|&(index, _)| index);
                    ends
                }
                "any" => {
                    let mut ends = Vec::new();
                    let mut left: Vec<_> = jobs.drain(..).enumerate().collect();
                    while let Some(at) =
                        arenite::wait_any(left.iter_mut().map(|(_, job)| job), None)
                    {
                        let (index, job) = left.remove(at);
                        assert!(job.is_done());
                        ends.push((index, job.wait()));
                    }
                    ends.sort_by_key(|&(index, _)| index);
                    ends
                }
                _ => {
                    assert!(arenite::wait_all(&jobs, None));
                    let ended = jobs.drain(..).map(|job| {
                        assert!(job.is_done());
                        job.wait()
                    });
                    ended.enumerate().collect()
                }
            };
            assert!(ends.iter().map(|&(index, _)| index).eq(0..20), "each once");
            let (values, failed): (Vec<_>, Vec<_>) =
                ends.into_iter().partition(|(_, answer)| answer.is_ok());
            let [(index, Err(error))] = &failed[..] else {
                panic!("{failed:?}");
            };
            assert!(*index < 2, "one that ran");
            assert_eq!(*error.kind(), JobErrorKind::Signal(9));
            for (index, value) in values {
                assert_eq!(value.unwrap(), index as u64);
            }
        });
    }
    lab.assert_in_use(0);
}

/// A server that is busy so often, by the lines in a file.
fn busy(diary: &str, times: u64) -> Result<u64, String> {
    let before = note_after(diary, "asked") as u64;
    if before < times {
        return Err(format!("busy {before}"));
    }
    Ok(before)
}

fn returned(n: u64) -> JobErrorKind {
    JobErrorKind::Returned(format!("busy {n}"))
}

fn errors_are_tried_again_where_that_is_said() {
    let lab = Lab::new(2);
    // Not said: an `Err` is the answer.
    let diary = Diary::new();
    let path = diary.path();
    let job = lab.job(busy, (&path, 2)).retries(5).submit();
    assert_eq!(*lab.failure_of(job).kind(), returned(0));
    assert_eq!(diary.lines().len(), 1);
    // Said, and often enough.
    let diary = Diary::new();
    let path = diary.path();
    let job = lab.job(busy, (&path, 2)).retries(5).retry_errors();
    assert_eq!(job.backoff(Backoff::NONE).submit().wait(), Ok(2));
    assert_eq!(diary.lines().len(), 3);
    // More often than a worker may die of a job: nobody has died.
    let diary = Diary::new();
    let path = diary.path();
    let job = lab.job(busy, (&path, 9)).retries(9).retry_errors();
    assert_eq!(job.backoff(Backoff::NONE).submit().wait(), Ok(9));
    // Said, and not often enough: the last error is the answer, with those before it.
    let diary = Diary::new();
    let path = diary.path();
    let job = lab.job(busy, (&path, 100)).retries(2).retry_errors();
    let letter = job.backoff(Backoff::NONE).keep_args().wait().unwrap_err();
    assert_eq!(
        (letter.error().kind(), letter.attempts()),
        (&returned(2), 3)
    );
    assert_eq!(letter.deaths(), [returned(0), returned(1)]);
    assert_eq!(letter.args(), &(&path, 100));
    assert_eq!(diary.lines().len(), 3);
    // Without retries it says nothing.
    let diary = Diary::new();
    let path = diary.path();
    let job = lab.job(busy, (&path, 1)).retry_errors().submit();
    assert_eq!(lab.failure_of(job).attempt(), 1);
    // A map: each item for itself.
    let diaries = [(); 3].map(|()| Diary::new());
    let items = diaries
        .iter()
        .zip([0, 2, 100])
        .map(|(diary, times)| (diary.path(), times));
    let map = lab.map(busy, items).retries(2).retry_errors();
    let report = map.backoff(Backoff::NONE).report();
    assert_eq!(report.values(), [Some(0), Some(2), None]);
    let [letter] = report.failures() else {
        panic!("{report}")
    };
    assert_eq!((letter.index(), letter.attempts()), (2, 3));
    // A node, whose dependent waits for the attempt that goes well.
    let diary = Diary::new();
    let path = diary.path();
    let mut graph = arenite::Graph::new();
    let node = graph.job(busy, (&path, 1)).retries(1).retry_errors().add();
    let next = graph.add(square, (&node,));
    assert_eq!(graph.run(&lab, &next).unwrap().wait(), Ok(1));
    // A stage.
    let diary = Diary::new();
    let path = diary.path();
    let mut letters = Vec::new();
    let stream = arenite::stream::Stream::new([1u64, 100])
        .on_failure(OnFailure::GoOn)
        .stage_with(busy, |times| (times, (path.clone(), times)))
        .retries(1)
        .retry_errors()
        .jobs(1)
        .dead_letters(|letter| letters.push(letter));
    let values: Vec<_> = stream.run(&lab).map(Result::unwrap).collect();
    assert_eq!(values, [(1, 1)]);
    let [letter] = &letters[..] else {
        panic!("{letters:?}")
    };
    assert_eq!((letter.input(), letter.attempts()), (&100, 2));
    assert_eq!(lab.stats().restarts(), 0, "no worker has died of an error");
    lab.assert_in_use(0);
}

/// The first attempt ends in an error, the second with its worker, the third with a value.
fn a_death_and_an_error_are_attempts_alike() {
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
        step("what comes of it");
        match job.wait() {
            Ok(value) => assert_eq!((value, retries), (2, 2)),
            Err(error) => {
                assert_eq!(retries, 1, "{error}");
                assert_eq!(
                    (error.kind(), error.attempt()),
                    (&JobErrorKind::Signal(9), 2)
                );
                assert_eq!(error.deaths(), [returned(0)]);
            }
        }
    }
    lab.assert_in_use(0);
}

fn waiting_takes_nothing() {
    let lab = Lab::new(1);
    let mut jobs = [lab.submit(odd, (10,))];
    assert_eq!(arenite::wait_any(&mut jobs, None), Some(0));
    assert!(arenite::wait_all(&jobs, None));
    let [job] = jobs;
    assert!(job.wait().is_err());
}

fn waiting_for_any_leaves_tasks_waiting() {
    struct Tells(AtomicBool);
    impl Wake for Tells {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut job = lab.submit(through, (&gate.path(), 7));
    let told = Arc::new(Tells(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&told));
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut job).poll(&mut context).is_pending());
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        assert_eq!(arenite::wait_any([&mut job], Some(limit)), None);
    }
    assert!(!told.0.load(SeqCst));
    gate.open();
    wait_until("the task is told", || told.0.load(SeqCst));
    assert_eq!(job.wait().unwrap(), 7);
}

/// A number that is looked at by code of its own.
#[derive(Clone, Copy, Debug, PartialEq, NoUninit)]
#[repr(transparent)]
pub(crate) struct Watched(pub(crate) u32);

// SAFETY: as for `u32`: any bits are one.
unsafe impl CheckedBitPattern for Watched {
    type Bits = u32;
    fn is_valid_bit_pattern(bits: &u32) -> bool {
        assert_ne!(*bits, 3, "three is not looked at");
        true
    }
}

impl arenite::Scalar for Watched {}

fn a_check_that_panics_is_one_result() {
    let lab = Lab::new(2);
    let fold = |n: u32| (Array::from_slice(&[n]), Watched(n));
    let values: Vec<_> = lab.map(fold, (0..10_u32).map(|n| (n,))).collect();
    assert_eq!(values.len(), 10);
    for (n, value) in (0..10).zip(values) {
        match value {
            Ok((array, watched)) => assert_eq!((array[0], watched), (n, Watched(n))),
            Err(error) => {
                let JobErrorKind::Panicked { message, .. } = error.kind() else {
                    panic!("{error}")
                };
                assert!(n == 3 && message.contains("not looked at"), "{error}");
            }
        }
    }
    assert_eq!(lab.stats().restarts(), 0, "nobody lied");
    lab.assert_in_use(0);
}

fn the_same_without_workers() {
    let lab = Lab::new(2);
    let engines: [&Engine; 2] = [&lab, &Engine::inline()];
    let [with, without] = engines.map(|engine| {
        let calls = AtomicUsize::new(0);
        let items = (1..=30).map(|n| {
            calls.fetch_add(1, SeqCst);
            (n,)
        });
        let report = engine.map(odd, items).report();
        let failed: Vec<_> = report
            .failures()
            .iter()
            .map(|letter| letter.index())
            .collect();
        let mut ended: Vec<_> = engine
            .map(square, (0..9).map(|n| (n,)))
            .unordered()
            .map(|(index, _)| index)
            .collect();
        ended.sort_unstable();
        let stopped = engine
            .map(odd, (1..).map(|n| (n,)))
            .on_failure(OnFailure::Stop)
            .count();
        let mut jobs: Vec<_> = (0..3).map(|n| engine.submit(square, (n,))).collect();
        assert!(arenite::wait_any(&mut jobs, None).is_some());
        assert!(arenite::wait_all(&jobs, None));
        (
            report.values().to_vec(),
            failed,
            ended,
            stopped,
            calls.into_inner(),
        )
    });
    assert_eq!(with, without);
}

fn chunks_that_fail_are_reported() {
    let lab = Lab::new(2);
    let rows = 100_000;
    let input = lab.from_fn([rows, 4], |i| i as u32).unwrap();
    let bad = 61_234;
    let report = lab.par_map_report(&input, |x: u32| {
        assert_ne!(x, 4 * 61_234);
        x + 1
    });
    let report = report.unwrap();
    let [letter] = report.failures() else {
        panic!("{report}");
    };
    let first = letter.index();
    let failed = first..first + letter.args().shape().rows();
    assert!(failed.contains(&bad) && failed.len() < rows);
    assert_eq!(letter.args()[..], input[first * 4..failed.end * 4]);
    assert!(letter.backtrace().unwrap().contains("chunks_that_fail"));
    for (row, values) in report.values().chunks(4).enumerate() {
        let expected = if failed.contains(&row) {
            0
        } else {
            row as u32 * 4 + 1
        };
        assert_eq!(values[0], expected, "row {row}");
    }
    assert!(
        report
            .to_string()
            .starts_with(&format!("{} of {rows} rows failed", failed.len()))
    );
    let (_, letters) = report.into_parts();
    assert_eq!(letters.len(), 1);
    let all = lab.par_map_report(&input, |x: u32| x + 1).unwrap();
    assert_eq!((all.failures().len(), all.values()[9]), (0, 10));
}

fn a_chunk_whose_worker_dies_is_reported() {
    let lab = Lab::new(2);
    let input = lab.from_fn(400_000, |i| i as u32).unwrap();
    let report = lab.par_apply_report(&input, |from: &[u32], to: &mut [u32]| {
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
