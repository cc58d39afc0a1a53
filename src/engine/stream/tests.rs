//! Tests of the driver, without workers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;

use proptest::prelude::*;

use super::*;
use crate::engine::{JobError, JobErrorKind};

fn square(n: u64) -> u64 {
    n * n
}

fn odd(n: u64) -> Result<u64, String> {
    match n % 2 {
        1 => Ok(n),
        _ => Err(format!("{n} is even")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
    /// Any stream yields the same items as iterators would, and exceeds none of its limits.
    #[test]
    fn streams_are_iterators(
        length in 0u64..100,
        in_flight in 1usize..10,
        jobs in 1usize..4,
        queue in 1usize..4,
        ordered: bool,
        every in 1u64..5,
    ) {
        let engine = Engine::inline();
        let mut stream = Stream::new(0..length).in_flight(in_flight);
        if !ordered {
            stream = stream.unordered();
        }
        let stream = stream
            .stage(square, ()).jobs(jobs).queue(queue)
            .filter(move |n| n % every == 0)
            .flat_map(|n| [n, n + 1])
            .stage(|n: u64, more: u64| n + more, (100,)).queue(queue);
        let mut run = stream.run(&engine);
        let mut found = Vec::new();
        while let Some(value) = run.next() {
            found.push(value.unwrap());
            prop_assert!(run.stats().in_flight <= 2 * in_flight + 1);
        }
        let expected: Vec<_> = (0..length).map(square).filter(|n| n % every == 0).flat_map(|n| [n + 100, n + 101]).collect();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
        let stats = run.stats();
        prop_assert_eq!((stats.taken, stats.in_flight, stats.bytes_in_flight), (length, 0, 0));
    }
}

#[test]
fn items_that_come_of_one_draw_their_own_numbers() {
    use rand::Rng;
    let engine = Engine::builder().seed(1).inline();
    let draw = |_: u64| crate::rng().next_u64();
    let stream = Stream::new(0..10u64).flat_map(|n| [n; 3]).stage(draw, ());
    let drawn = stream.run(&engine).map(Result::unwrap);
    let drawn: std::collections::HashSet<_> = drawn.collect();
    assert_eq!(drawn.len(), 30);
}

#[test]
fn nothing_happens_before_somebody_asks() {
    let (engine, pulled) = (Engine::inline(), Cell::new(0));
    let source = (0..100u64).inspect(|_| pulled.set(pulled.get() + 1));
    let stream = Stream::new(source).in_flight(3).stage(square, ());
    assert_eq!(pulled.get(), 0);
    let mut run = stream.run(&engine);
    assert_eq!(pulled.get(), 0);
    assert_eq!(run.next().unwrap().unwrap(), 0);
    assert!((1..=4).contains(&pulled.get()));
    drop(run);
    assert!(pulled.get() <= 4);
}

#[test]
fn a_failure_is_the_last_result_and_keeps_its_order() {
    let engine = Engine::inline();
    let stream = || Stream::new([1u64, 3, 4, 5]).stage(odd, ());
    // A stream stops with and without this setting: its default is not that of the enum.
    for stream in [stream(), stream().on_failure(OnFailure::Stop)] {
        let mut run = stream.run(&engine);
        assert_eq!(run.next().unwrap().unwrap(), 1);
        assert_eq!(run.next().unwrap().unwrap(), 3);
        let error = run.next().unwrap().unwrap_err();
        assert!(
            matches!(
                &error,
                StreamError::Job {
                    stage: 1,
                    sequence: 2,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains("4 is even"), "{error}");
        assert!(run.next().is_none());
        assert_eq!(run.stats().failed, 1);
    }
}

#[test]
fn skipped_items_are_counted_and_become_dead_letters() {
    let engine = Engine::inline();
    let letters = RefCell::new(Vec::new());
    let stream = Stream::fallible((0..10u64).map(|n| if n == 5 { Err("five") } else { Ok(n) }))
        .on_failure(OnFailure::GoOn)
        .stage(odd, ())
        .dead_letters(|letter| letters.borrow_mut().push(letter));
    let handle = stream.handle();
    let found: Vec<_> = stream.run(&engine).map(Result::unwrap).collect();
    assert_eq!(found, [1, 3, 7, 9]);
    let letters = letters.take();
    assert_eq!(
        letters.iter().map(|letter| letter.args).collect::<Vec<_>>(),
        [0, 2, 4, 6, 8]
    );
    assert!(
        letters
            .iter()
            .all(|letter| (letter.stage, letter.error.attempt()) == (Some(1), 1))
    );
    assert_eq!(letters[3].index, 6);
    let stats = handle.stats();
    assert_eq!((stats.taken, stats.failed, stats.delivered), (10, 6, 4));
}

#[test]
fn a_dead_letter_has_stage_index_and_error() {
    fn panics(n: u64) -> u64 {
        match n {
            2 => panic!("two is too many"),
            n => n,
        }
    }
    let engine = Engine::inline();
    let mut letters = Vec::new();
    let last = Stream::new([1u64, 2])
        .stage(square, ())
        .map(|n| n / n.isqrt())
        .stage(panics, ())
        .dead_letters(|letter| letters.push(letter))
        .run(&engine)
        .find_map(Result::err)
        .unwrap();
    let [letter] = &letters[..] else {
        panic!("{letters:?}")
    };
    assert_eq!((letter.stage, letter.index), (Some(2), 1));
    assert_eq!(
        (letter.error.attempt(), letter.error.deaths()),
        (1, &[][..])
    );
    assert_eq!(letter.to_string(), last.to_string());
    let failed = StreamError::Job {
        stage: 2,
        sequence: 1,
        error: letter.error.clone(),
    };
    assert_eq!(last, failed);
    assert!(letter.to_string().contains("two is too many"), "{letter}");
    // The stack of a panic on the calling thread is not recorded.
    assert!(matches!(letter.error.kind(), JobErrorKind::Panicked { .. }));
    // The text of the letter contains the error, so its source is not printed again.
    assert!(letter.to_string().ends_with(&letter.error.to_string()));
    assert!(std::error::Error::source(letter).is_none());
    assert_eq!(JobError::from(letter.clone()), letter.error);
    assert_eq!(letter.clone().args, 2);
}

#[test]
fn a_source_that_fails_stops_the_stream() {
    let engine = Engine::inline();
    let source = (0..).map(|n: u64| if n < 2 { Ok(n) } else { Err("unplugged") });
    let mut run = Stream::fallible(source).stage(square, ()).run(&engine);
    assert_eq!(run.next().unwrap().unwrap(), 0);
    assert_eq!(run.next().unwrap().unwrap(), 1);
    let error = run.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the source, at item 2: unplugged");
    assert!(run.next().is_none());
}

#[test]
fn draining_finishes_what_was_taken_and_stopping_does_not() {
    let engine = Engine::inline();
    let endless = || {
        Stream::new(0u64..)
            .in_flight(4)
            .stage(square, ())
            .window(Windows::count(3))
            .unwrap()
            .fold(|| 0, |count, _| *count += 1)
    };
    let mut run = endless().run(&engine);
    assert_eq!(run.next().unwrap().unwrap().value, 3);
    run.handle().drain();
    let rest: u64 = (&mut run).map(|window| window.unwrap().value).sum();
    assert_eq!(3 + rest, run.stats().taken);

    let mut run = endless().run(&engine);
    run.next().unwrap().unwrap();
    run.handle().stop();
    assert!(run.next().is_none());
    assert_eq!(run.stats().in_flight, 0);
    // A handle may be used before anything runs.
    let stream = endless();
    stream.handle().drain();
    assert_eq!(stream.run(&engine).count(), 0);
}

#[test]
fn a_stream_stops_while_flat_map_expands_an_endless_item() {
    let engine = Engine::inline();
    let stream = Stream::new([1u64]).flat_map(|_| 0u64..).filter(|_| false);
    let mut run = stream.run(&engine);
    let handle = run.handle();
    let stops = std::thread::spawn(move || {
        while handle.stats().taken == 0 {
            std::thread::yield_now();
        }
        handle.stop();
    });
    assert!(run.next().is_none());
    stops.join().unwrap();
}

#[test]
fn a_source_thread_pulls_no_more_items_than_may_be_in_flight() {
    let (engine, asked) = (Engine::inline(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let source = (0..200u64).inspect(move |_| {
        count.fetch_add(1, SeqCst);
    });
    let mut run = Stream::spawn(source)
        .in_flight(2)
        .stage(square, ())
        .run(&engine);
    for n in 0..200 {
        assert_eq!(run.next().unwrap().unwrap(), square(n as u64));
        // The item of this result has just left the stream.
        let ahead = asked.load(SeqCst) - n;
        assert!(ahead <= 2, "{ahead} were asked for");
    }
    assert!(run.next().is_none());
    assert!(run.stats().most_in_flight <= 2);
}

#[test]
fn draining_does_not_wait_for_a_blocked_source() {
    let engine = Engine::inline();
    let (ask, asked) = channel();
    let (give, given) = channel::<u64>();
    let source = std::iter::from_fn(move || {
        ask.send(()).ok()?;
        given.recv().ok()
    });
    let stream = Stream::spawn(source).stage(square, ());
    let handle = stream.handle();
    std::thread::scope(|s| {
        let give = give.clone();
        s.spawn(move || {
            for n in 0..5 {
                asked.recv().unwrap();
                give.send(n).unwrap();
            }
            // The iterator waits for a sixth item, which never comes.
            asked.recv().unwrap();
            handle.drain();
        });
        let found: Vec<_> = stream.run(&engine).map(Result::unwrap).collect();
        assert_eq!(found, [0, 1, 4, 9, 16]);
    });
    drop(give);
}

#[test]
fn a_failing_source_thread_stops_the_stream_or_loses_an_item() {
    let engine = Engine::inline();
    let stream = || {
        let source = (0..5u64).map(|n| if n == 2 { Err("a bad frame") } else { Ok(n) });
        Stream::spawn_fallible(source)
    };
    let mut run = stream().stage(square, ()).run(&engine);
    assert_eq!(run.next().unwrap().unwrap(), 0);
    assert_eq!(run.next().unwrap().unwrap(), 1);
    let error = run.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the source, at item 2: a bad frame");
    assert!(run.next().is_none());
    let stream = stream().on_failure(OnFailure::GoOn).stage(square, ());
    let mut run = stream.run(&engine);
    assert!((&mut run).map(Result::unwrap).eq([0, 1, 9, 16]));
    assert_eq!((run.stats().taken, run.stats().failed), (5, 1));
}

#[test]
fn the_smallest_bound_on_bytes_holds() {
    let engine = Engine::inline();
    for (first, second) in [(30, 1000), (1000, 30)] {
        let stream = Stream::new(0..20u64)
            .bytes_in_flight(first, |_| 10)
            .bytes_in_flight(second, |_| 10)
            .stage(square, ());
        let handle = stream.handle();
        assert_eq!(stream.run(&engine).count(), 20);
        assert_eq!(handle.stats().most_in_flight, 3);
    }
}

#[test]
#[should_panic(expected = "no byte in flight")]
fn a_bound_of_0_bytes_panics() {
    let _ = Stream::new(0u64..).bytes_in_flight(0, |_| 1);
}

#[test]
#[should_panic(expected = "the camera fell down")]
fn a_panic_of_a_source_thread_reaches_the_consumer() {
    let source = (0u64..).inspect(|n| assert!(*n < 3, "the camera fell down"));
    let engine = Engine::inline();
    Stream::spawn(source)
        .stage(square, ())
        .run(&engine)
        .for_each(drop);
}

#[test]
fn a_caught_panic_ends_the_stream() {
    let engine = Engine::inline();
    let stream = Stream::new(0u64..)
        .filter(|n| {
            assert!(*n < 3, "the camera fell down");
            true
        })
        .stage(square, ());
    let mut run = stream.run(&engine);
    let mut next = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.next()));
    let last = std::iter::from_fn(|| Some(next())).find(Result::is_err);
    last.unwrap().unwrap_err();
    assert!(next().unwrap().is_none());
    assert_eq!(run.stats().in_flight, 0);
}
