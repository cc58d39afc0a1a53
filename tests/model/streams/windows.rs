//! Windows of streams: their contents, memory, and losses.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use arenite::stream::{Stream, Windows};
use arenite::{Array, JobErrorKind, JobLimit, JobOptions, OnFailure};

use super::add;
use crate::harness::{Lab, tests, wait_until};

tests![
    a_window_is_passed_without_a_copy,
    windows_of_an_unordered_stream_are_complete,
    a_window_after_an_idle_stage_ends_with_the_source,
    a_crash_costs_one_window,
    a_window_without_room_is_a_dead_letter,
    very_many_open_sessions,
];

fn a_window_is_passed_without_a_copy() {
    fn firsts(frames: &[Array<u64>], more: u64) -> Array<u64> {
        Array::from_fn(frames.len(), |i| frames[i][0] + more)
    }
    let lab = Lab::new(2);
    let frames = (0..100u64).map(|n| (n, lab.from_slice(&[n; 512]).unwrap()));
    let windows = Stream::new(frames)
        .event_time(|&(n, _)| Duration::from_millis(10 * n))
        .watermark(Duration::ZERO)
        .map(|(_, frame)| frame)
        .window(Windows::sliding(
            Duration::from_millis(200),
            Duration::from_millis(100),
        ))
        .unwrap()
        .items()
        .stage_with(firsts, |window| (window.span, (window.value, 1000)));
    let windows: Vec<_> = windows.run(&lab).map(Result::unwrap).collect();
    assert_eq!(windows.len(), 10);
    for (k, (span, values)) in (0..).zip(&windows) {
        let start = span.as_ref().unwrap().start;
        assert_eq!(start, Duration::from_millis(100 * k));
        let expected = (10 * k..(10 * k + 20).min(100)).map(|n| n + 1000);
        assert!(values.iter().copied().eq(expected), "{values:?}");
    }
    drop(windows);
    lab.assert_in_use(0);
}

/// Items may overtake each other; watermarks do not overtake items.
fn windows_of_an_unordered_stream_are_complete() {
    fn uneven(n: u64) -> u64 {
        (0..if n.is_multiple_of(5) { 50_000 } else { 10 })
            .fold(n, |n, i| std::hint::black_box(n + i) - i)
    }
    let lab = Lab::new(3);
    let windows = Stream::new(0..2000u64)
        .event_time(|&n| Duration::from_millis(n))
        .watermark(Duration::ZERO)
        .unordered()
        .stage(uneven, ())
        .window(Windows::tumbling(Duration::from_millis(20)))
        .unwrap()
        .items();
    let mut run = windows.run(&lab);
    for k in 0..100 {
        let window = run.next().unwrap().unwrap();
        assert_eq!(window.span.unwrap().start, Duration::from_millis(20 * k));
        let items = BTreeSet::from_iter(window.value);
        assert!(items.into_iter().eq(20 * k..20 * k + 20));
    }
    assert!(run.next().is_none());
    assert_eq!(run.stats().late, 0);
}

fn a_window_after_an_idle_stage_ends_with_the_source() {
    let lab = Lab::new(1);
    let none = Stream::new(Vec::<u64>::new())
        .stage(add, (1,))
        .window(Windows::count(2))
        .unwrap()
        .items();
    assert!(none.run(&lab).next().is_none());
    // All items have passed, and no more come.
    let (more, items) = std::sync::mpsc::channel();
    let mut run = Stream::spawn(items)
        .stage(add, (1,))
        .window(Windows::count(2))
        .unwrap()
        .items()
        .run(&lab);
    (1..=3).for_each(|n| more.send(n).unwrap());
    assert_eq!(run.next().unwrap().unwrap().value, [2, 3]);
    thread::scope(|threads| {
        threads.spawn(|| {
            wait_until("the third has passed", || {
                let kernels = lab.stats().kernels.into_iter();
                kernels.map(|kernel| kernel.calls).sum::<u64>() == 3
            });
            drop(more);
        });
        assert_eq!(run.next().unwrap().unwrap().value, [4]);
    });
    assert!(run.next().is_none());
}

fn a_crash_costs_one_window() {
    fn total(numbers: &[u64]) -> u64 {
        if numbers.contains(&57) {
            std::process::abort();
        }
        numbers.iter().sum()
    }
    let lab = Lab::new(2);
    let mut letters = Vec::new();
    let sums = Stream::new(0..100u64)
        .on_failure(OnFailure::GoOn)
        .stage(add, (0,))
        .window(Windows::count(10))
        .unwrap()
        .items()
        .stage_with(total, |window| ((), (window.value,)))
        .options(&JobOptions::new().retries(1))
        .dead_letters(|letter| letters.push(letter));
    let sums: Vec<_> = sums.run(&lab).map(|sum| sum.unwrap().1).collect();
    let others = (0..10).filter(|&k| k != 5);
    assert!(sums.into_iter().eq(others.map(|k| 100 * k + 45)));
    let [letter] = &letters[..] else {
        panic!("{letters:?}");
    };
    assert!(letter.args.value.iter().copied().eq(50..60));
    assert_eq!((letter.stage, letter.index), (Some(2), 5));
    assert_eq!(
        (letter.error.attempt(), letter.error.deaths().len()),
        (2, 1)
    );
    lab.assert_in_use(0);
}

/// A full window exceeds the arena; the last one, which is not full, fits.
fn a_window_without_room_is_a_dead_letter() {
    fn total(numbers: &[u64]) -> u64 {
        numbers.iter().sum()
    }
    const EACH: u64 = 600_000;
    let lab = Lab::with(1, |builder| builder.capacity(4 << 20));
    let mut letters = Vec::new();
    let sums = Stream::new(0..2 * EACH + 10)
        .on_failure(OnFailure::GoOn)
        .window(Windows::count(EACH as usize))
        .unwrap()
        .items()
        .stage_with(total, |window| ((), (window.value,)))
        .dead_letters(|letter| letters.push(letter));
    let handle = sums.handle();
    let sums: Vec<_> = sums.run(&lab).map(|sum| sum.unwrap().1).collect();
    assert_eq!(sums, [(2 * EACH..2 * EACH + 10).sum::<u64>()]);
    assert_eq!((letters.len(), handle.stats().failed), (2, 2));
    for (k, letter) in (0..).zip(&letters) {
        assert_eq!((letter.stage, letter.index as u64), (Some(1), k));
        let values = letter.args.value.iter().copied();
        assert!(values.eq(EACH * k..EACH * (k + 1)));
        let JobErrorKind::Limit(JobLimit::Arena(full)) = letter.error.kind() else {
            panic!("{letter}");
        };
        // Two words of the call are in the same block.
        assert_eq!(full.requested, 8 * EACH + 16);
    }
    lab.assert_in_use(0);
}

/// The cost of an item does not depend on the number of open sessions.
fn very_many_open_sessions() {
    const ITEMS: u32 = 200_000;
    let engine = arenite::Engine::inline();
    let second = Duration::from_secs(1);
    let stream = Stream::new(0..ITEMS)
        .event_time(|&n| 2 * n * second)
        // Only the end of the stream closes them.
        .watermark_by(|_| None)
        .window(Windows::session(second))
        .unwrap()
        .fold(
            || 0u32,
            |count, _| *count += 1,
            |count, more| *count += more,
        );
    let windows = stream.run(&engine).map(Result::unwrap);
    assert_eq!(
        windows.filter(|window| window.value == 1).count(),
        ITEMS as usize
    );
}
