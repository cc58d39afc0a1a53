//! Compares windows with reference implementations on lists.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::super::{Stream, StreamError, WindowError};
use super::*;
use crate::engine::Engine;

type Items = Vec<(u32, u8)>;
/// The key, start and end of each window, and the positions of its items.
type Found = Vec<(u8, u32, u32, Vec<usize>)>;

fn millis(n: u32) -> Duration {
    Duration::from_millis(u64::from(n))
}

/// Returns the windows of items with a time and a key, and which items are late.
fn windows<const MERGES: bool>(
    items: &Items,
    lateness: u32,
    windows: Windows<MERGES>,
) -> (Found, Vec<usize>) {
    let late = Rc::new(RefCell::new(Vec::new()));
    let source: Vec<_> = items.iter().copied().enumerate().collect();
    let to = Rc::clone(&late);
    let engine = Engine::inline();
    let stream = Stream::new(source)
        .event_time(|&(_, (at, _))| millis(at))
        .watermark(millis(lateness))
        .window(windows)
        .unwrap()
        .by_key(|&(_, (_, key))| key)
        .late(move |(index, _)| to.borrow_mut().push(index))
        .items();
    let handle = stream.handle();
    let found = stream
        .run(&engine)
        .map(|window| {
            let Window { key, span, value } = window.unwrap();
            let span = span.unwrap_or_default();
            let (start, end) = (span.start.as_millis() as u32, span.end.as_millis() as u32);
            let indices = value.into_iter().map(|(index, _)| index).collect();
            (key, start, end, indices)
        })
        .collect();
    let late = late.take();
    let stats = handle.stats();
    assert_eq!(stats.late, late.len() as u64);
    assert_eq!((stats.in_flight, stats.held_by_windows), (0, 0));
    (found, late)
}

/// Returns the watermark before each item, and after the last item.
fn marks(items: &Items, lateness: u32) -> Vec<u32> {
    let mut mark = 0;
    let mut marks = vec![0];
    for &(at, _) in items {
        mark = mark.max(at.saturating_sub(lateness));
        marks.push(mark);
    }
    marks
}

/// Returns windows of `length` at each multiple of `step`. Each has the items that arrived before it closed.
fn reference_sliding(items: &Items, lateness: u32, length: u32, step: u32) -> (Found, Vec<usize>) {
    let marks = marks(items, lateness);
    let mut found = Found::new();
    let mut seen = vec![false; items.len()];
    let last = items.iter().map(|&(at, _)| at).max().unwrap_or(0);
    for start in (0..=last).step_by(step as usize) {
        let end = start + length;
        let mut by_key = BTreeMap::<u8, Vec<usize>>::new();
        for (index, &(at, key)) in items.iter().enumerate() {
            if (start..end).contains(&at) && marks[index] < end {
                by_key.entry(key).or_default().push(index);
                seen[index] = true;
            }
        }
        found.extend(
            by_key
                .into_iter()
                .map(|(key, indices)| (key, start, end, indices)),
        );
    }
    (
        found,
        (0..items.len()).filter(|&index| !seen[index]).collect(),
    )
}

/// Returns sessions, found by sorting all items after each arrival.
fn reference_sessions(items: &Items, lateness: u32, gap: u32) -> (Found, Vec<usize>) {
    let marks = marks(items, lateness);
    let (mut found, mut late) = (Found::new(), Vec::new());
    let mut pending: Vec<usize> = Vec::new();
    for index in 0..=items.len() {
        let over = index == items.len();
        if !over {
            let (at, key) = items[index];
            let mut open = pending.iter().map(|&other| items[other]);
            let joins = open.any(|(other, of)| of == key && other.abs_diff(at) < gap);
            if at + gap <= marks[index] && !joins {
                late.push(index);
            } else {
                pending.push(index);
            }
        }
        let mark = if over { u32::MAX } else { marks[index + 1] };
        let mut sorted = std::mem::take(&mut pending);
        sorted.sort_by_key(|&index| (items[index].1, items[index].0));
        for session in sorted.chunk_by(|&a, &b| {
            let (a, b) = (items[a], items[b]);
            a.1 == b.1 && b.0 - a.0 < gap
        }) {
            let (start, key) = items[session[0]];
            let end = items[session[session.len() - 1]].0 + gap;
            let mut indices = session.to_vec();
            indices.sort_unstable();
            match end <= mark {
                true => found.push((key, start, end, indices)),
                false => pending.extend(indices),
            }
        }
    }
    (found, late)
}

fn sorted(mut found: Found) -> Found {
    found.sort();
    found
}

fn ends(found: &Found) -> Vec<u32> {
    found.iter().map(|window| window.2).collect()
}

fn items() -> impl Strategy<Value = Items> {
    prop::collection::vec((0u32..120, 0u8..3), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
    #[test]
    fn windows_in_time_match_a_reference(
        items in items(),
        lateness in 0u32..60,
        step in 1u32..20,
        times in 1u32..5,
        more in 0u32..20,
    ) {
        let length = step * times + more % step;
        let rule = Windows::sliding(millis(length), millis(step));
        let (found, late) = windows(&items, lateness, rule);
        // Windows are returned in the order in which they end.
        prop_assert!(ends(&found).is_sorted());
        let (expected, expected_late) = reference_sliding(&items, lateness, length, step);
        prop_assert_eq!(sorted(found), sorted(expected));
        prop_assert_eq!(late, expected_late);
    }

    #[test]
    fn sessions_match_a_reference(
        items in items(),
        lateness in 0u32..60,
        gap in 1u32..30,
    ) {
        let (found, late) = windows(&items, lateness, Windows::session(millis(gap)));
        prop_assert!(ends(&found).is_sorted());
        let (expected, expected_late) = reference_sessions(&items, lateness, gap);
        prop_assert_eq!(sorted(found), sorted(expected));
        prop_assert_eq!(late, expected_late);
    }

    #[test]
    fn windows_by_count_match_a_reference(
        items in items(),
        step in 1usize..6,
        more in 0usize..6,
    ) {
        let length = step + more;
        let (found, late) = windows(&items, 0, Windows::count_sliding(length, step));
        prop_assert_eq!(late, Vec::<usize>::new());
        for key in 0..3 {
            let of_key: Vec<_> = (0..items.len()).filter(|&index| items[index].1 == key).collect();
            let expected: Vec<_> = (0..of_key.len())
                .step_by(step)
                .map(|start| of_key[start..of_key.len().min(start + length)].to_vec())
                .collect();
            let of_key = found.iter().filter(|window| window.0 == key);
            let found: Vec<_> = of_key.map(|window| window.3.clone()).collect();
            prop_assert_eq!(found, expected);
        }
    }

    /// A fold gets the same items as a list.
    #[test]
    fn folds_match_folded_lists(items in items(), lateness in 0u32..60, gap in 1u32..30) {
        let (engine, length) = (Engine::inline(), millis(gap));
        let timed = || {
            Stream::new(items.clone())
                .event_time(|&(at, _)| millis(at))
                .watermark(millis(lateness))
        };
        let sum = |items: Vec<(u32, u8)>| items.iter().map(|&(at, _)| at).sum::<u32>();
        let add = |sum: &mut u32, (at, _): (u32, u8)| *sum += at;

        let lists = timed().window(Windows::tumbling(length)).unwrap().items();
        let folds = timed().window(Windows::tumbling(length)).unwrap().fold(|| 0, add);
        let lists: Vec<_> = lists.run(&engine).map(|w| sum(w.unwrap().value)).collect();
        let folds: Vec<_> = folds.run(&engine).map(|w| w.unwrap().value).collect();
        prop_assert_eq!(lists, folds);

        let lists = timed().window(Windows::session(length)).unwrap().items();
        let folds = timed().window(Windows::session(length)).unwrap();
        let folds = folds.fold(|| 0, add, |sum, later| *sum += later);
        let lists: Vec<_> = lists.run(&engine).map(|w| sum(w.unwrap().value)).collect();
        let folds: Vec<_> = folds.run(&engine).map(|w| w.unwrap().value).collect();
        prop_assert_eq!(lists, folds);
    }
}

#[test]
fn invalid_windows_are_refused_when_they_are_built() {
    let second = Duration::from_secs(1);
    let plain = || Stream::new(0u32..3);
    let timed = || plain().event_time(|&at| millis(at));
    let marked = || timed().watermark(second);
    let why = |refused: Result<Windowed<'_, _, _, false>, WindowError>| refused.unwrap_err();

    let tumbling = Windows::tumbling(second);
    assert_eq!(why(plain().window(tumbling)), WindowError::NoEventTime);
    assert_eq!(why(timed().window(tumbling)), WindowError::NoWatermark);
    assert!(marked().window(tumbling).is_ok());
    // The event times are set again, so the earlier watermarks do not apply.
    let again = marked().event_time(|&at| millis(at)).window(tumbling);
    assert_eq!(why(again), WindowError::NoWatermark);
    // A watermark without event times closes nothing.
    let untold = plain().watermark(second).window(tumbling);
    assert_eq!(why(untold), WindowError::NoEventTime);
    assert_eq!(
        timed().window(Windows::session(second)).unwrap_err(),
        WindowError::NoWatermark
    );

    let none = Duration::ZERO;
    assert_eq!(
        why(marked().window(Windows::tumbling(none))),
        WindowError::Empty
    );
    assert_eq!(why(plain().window(Windows::count(0))), WindowError::Empty);
    assert_eq!(
        marked().window(Windows::session(none)).unwrap_err(),
        WindowError::Empty
    );
    for step in [none, 2 * second] {
        let stepping = marked().window(Windows::sliding(second, step));
        assert_eq!(why(stepping), WindowError::BadStep);
    }

    // Windows by count have no time.
    let pairs = marked().window(Windows::count(2)).unwrap().items();
    assert_eq!(
        pairs.window(tumbling).unwrap_err(),
        WindowError::NoEventTime
    );
}

#[test]
fn windows_are_delivered_as_soon_as_they_close() {
    let engine = Engine::inline();
    let taken_for_one = |stream: Stream<'_, Window<(), Vec<u32>>>| {
        let mut run = stream.run(&engine);
        run.next().unwrap().unwrap();
        run.stats().taken
    };
    let full = Stream::new(0u32..).window(Windows::count_sliding(5, 2));
    assert_eq!(taken_for_one(full.unwrap().items()), 5);
    let timed = || {
        Stream::new(0u32..)
            .event_time(|&at| millis(at))
            .watermark(millis(3))
    };
    // The item at 13 ms sets the watermark to 10 ms: earlier items are late.
    let over = timed().window(Windows::tumbling(millis(10)));
    assert_eq!(taken_for_one(over.unwrap().items()), 14);
    let pause = Stream::new([0u32, 1, 2, 20, 21])
        .event_time(|&at| millis(at))
        .watermark(millis(3))
        .window(Windows::session(millis(5)));
    assert_eq!(taken_for_one(pause.unwrap().items()), 4);
}

#[test]
fn windows_of_windows() {
    let engine = Engine::inline();
    let seconds = Stream::new(0u32..60)
        .event_time(|&at| millis(100 * at))
        .watermark(Duration::ZERO)
        .window(Windows::tumbling(Duration::from_secs(1)))
        .unwrap()
        .fold(|| 0, |count, _| *count += 1);
    let threes = seconds
        .window(Windows::tumbling(Duration::from_secs(3)))
        .unwrap()
        .items();
    let sums: Vec<_> = threes
        .run(&engine)
        .map(|three| {
            let three = three.unwrap();
            let counts: Vec<_> = three.value.iter().map(|second| second.value).collect();
            (three.span.unwrap().start.as_secs(), counts)
        })
        .collect();
    assert_eq!(sums, [(0, vec![10; 3]), (3, vec![10; 3])]);
}

#[test]
fn a_stuck_watermark_is_an_error_and_memory_stays_bounded() {
    let engine = Engine::inline();
    let stuck = || {
        Stream::new(0u32..)
            .event_time(|&at| millis(at))
            .watermark_by(|_| None)
    };
    let hour = Windows::tumbling(Duration::from_secs(3600));
    let mut lists = stuck()
        .window(hour)
        .unwrap()
        .max_items(100)
        .items()
        .run(&engine);
    let error = lists.next().unwrap().unwrap_err();
    assert!(
        matches!(error, StreamError::WindowsFull { limit: 100 }),
        "{error}"
    );
    assert!(lists.next().is_none());
    assert!((101..200).contains(&lists.stats().taken));

    // In a fold, each window counts as one item.
    let folded = stuck().window(Windows::tumbling(millis(10))).unwrap();
    let mut folded = folded.max_items(100).fold(|| (), |(), _| ()).run(&engine);
    folded.next().unwrap().unwrap_err();
    assert!((1001..1100).contains(&folded.stats().taken));
}

/// An error that waits for a slow window ahead of it must not make the driver spin.
#[test]
fn a_failed_window_step_takes_no_more_items() {
    let engine = Engine::inline();
    let taken = Rc::new(RefCell::new(0));
    let count = Rc::clone(&taken);
    let mut run = Stream::new([0u32])
        .flat_map(move |_| {
            let count = Rc::clone(&count);
            (0u32..).inspect(move |_| *count.borrow_mut() += 1)
        })
        .event_time(|&at| millis(at))
        .watermark_by(|_| None)
        .window(Windows::tumbling(Duration::from_secs(3600)))
        .unwrap()
        .max_items(100)
        .items()
        .run(&engine);
    run.next().unwrap().unwrap_err();
    assert_eq!(*taken.borrow(), 101);
}

#[test]
fn a_folded_window_counts_no_bytes_of_its_items() {
    fn bytes_of_two<F: Fill<u32>>(fill: F) -> u64 {
        let mut open = OpenWindows::new(Rule::Count { length: 2, step: 2 }, fill);
        for n in 0..2 {
            assert_eq!(open.add(&(), n, 10, 0, 0, 100), Ok(()));
        }
        open.close_full(&()).unwrap().0.bytes
    }
    let folding = Folding {
        begin: || 0,
        step: |sum: &mut u32, n| *sum += n,
        join: |sum: &mut u32, later| *sum += later,
    };
    assert_eq!(bytes_of_two(folding), 0);
    assert_eq!(bytes_of_two(Collect), 20);
}

#[test]
fn an_item_in_too_many_windows_is_refused_before_they_are_opened() {
    let hour = Duration::from_secs(3600);
    let opened = Rc::new(RefCell::new(0));
    let count = Rc::clone(&opened);
    let engine = Engine::inline();
    let mut run = Stream::new([2 * hour])
        .event_time(|&at| at)
        .watermark(Duration::ZERO)
        .window(Windows::sliding(hour, millis(1)))
        .unwrap()
        .max_items(1000)
        .fold(move || *count.borrow_mut() += 1, |(), _| {})
        .run(&engine);
    let error = run.next().unwrap().unwrap_err();
    assert!(
        matches!(error, StreamError::WindowsFull { limit: 1000 }),
        "{error}"
    );
    assert_eq!(*opened.borrow(), 1001);
}

#[test]
fn windows_by_count_lose_no_items_at_their_limit() {
    let engine = Engine::inline();
    let windows = Stream::new(0..10u32)
        .window(Windows::count_sliding(4, 1))
        .unwrap()
        .max_items(6)
        .items()
        .run(&engine);
    let whole: Vec<_> = windows
        .take(7)
        .map(|window| window.unwrap().value)
        .collect();
    let expected: Vec<Vec<u32>> = (0..7).map(|first| (first..first + 4).collect()).collect();
    assert_eq!(whole, expected);
}

#[test]
#[should_panic(expected = "set max_items to at least 1")]
fn a_limit_of_0_items_in_windows_panics() {
    let windows = Stream::new(0..10u32).window(Windows::count(4)).unwrap();
    let _ = windows.max_items(0);
}
