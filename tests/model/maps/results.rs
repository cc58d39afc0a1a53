//! Results of a map: with index, in order of completion, and without retaining memory.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, Engine};
use nix::time::{ClockId, clock_gettime};

use super::{ASKED, Watched, square};
use crate::flat::sum_of_parts;
use crate::harness::{Lab, panicked, step, tests, wait_until};

tests![
    a_slow_first_item_is_waited_for_without_spinning,
    unordered_is_lazy_and_leaves_nothing,
    a_million_small_items_take_no_memory,
    unclaimed_results_do_not_fill_the_arena,
    a_panicking_validity_check_fails_one_result,
    a_validity_check_that_calls_its_engine_is_an_error,
];

fn a_slow_first_item_is_waited_for_without_spinning() {
    fn maybe_slow(millis: u64) -> u64 {
        thread::sleep(Duration::from_millis(millis));
        millis
    }
    let lab = Lab::new(2);
    // Known to be short, so that the caller sleeps for many results at a time.
    assert_eq!(lab.map(maybe_slow, (0..5000).map(|_| (0,))).count(), 5000);
    let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    let slow = (0..5000).map(|n| (if n == 0 { 200 } else { 0 },));
    let mut results = lab.map(maybe_slow, slow);
    let (started, before) = (Instant::now(), used());
    assert_eq!(results.next().unwrap().unwrap(), 200);
    let (took, used) = (started.elapsed(), Duration::from(used() - before));
    assert!(used < took / 2, "the caller used {used:?} of {took:?}");
    assert_eq!(results.count(), 4999);
    lab.assert_in_use(0);
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
    let mut seen = BTreeSet::new();
    for taken in 1..10_000 {
        let (index, value) = map.next().unwrap();
        assert_eq!(value.unwrap(), (index * index) as u64);
        assert!(seen.insert(index), "{index} twice");
        assert!(
            pulled.get() - taken <= 512,
            "{} ahead",
            pulled.get() - taken
        );
    }
    drop(map);
    assert_eq!(lab.map(square, (0..0).map(|n| (n,))).unordered().count(), 0);
    lab.assert_in_use(0);
}

fn a_million_small_items_take_no_memory() {
    fn mix(a: u64, b: u32, c: u8) -> u64 {
        a ^ u64::from(b) ^ u64::from(c)
    }
    let lab = Lab::new(2);
    let items = || (0..1_000_000u64).map(|n| (n, n as u32, n as u8));
    let mut map = lab.map(mix, items()).map(Result::unwrap);
    // Nine bytes per item would be eight megabytes.
    let sum = sum_of_parts(&lab, 4 << 20, || {
        assert!(lab.stats().untaken <= 512);
        map.by_ref().take(20_000).reduce(u64::wrapping_add)
    });
    let expected = items().map(|(a, b, c)| mix(a, b, c));
    assert_eq!(sum, expected.fold(0, u64::wrapping_add));
    drop(map);
    lab.assert_in_use(0);
}

fn unclaimed_results_do_not_fill_the_arena() {
    // Quick for the size of its result.
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
        // Takes no result until all sent jobs have ended.
        if expected % 50 == 0 {
            wait_until("nothing runs", || {
                let stats = lab.stats();
                stats.open + stats.queued == 0
            });
        }
    }
    drop(map);
    for (n, array) in lab.map(large, (0..300).map(|n| (n,))).unordered() {
        assert_eq!(array.unwrap()[0], n as u64);
    }
    lab.assert_in_use(0);
}

fn a_panicking_validity_check_fails_one_result() {
    let lab = Lab::new(2);
    let fold = |n: u32| (Array::from_slice(&[n]), Watched(n));
    let values: Vec<_> = lab.map(fold, (0..10_u32).map(|n| (n,))).collect();
    assert_eq!(values.len(), 10);
    for (n, value) in (0..10).zip(values) {
        match value {
            Ok((array, watched)) => assert_eq!((array[0], watched), (n, Watched(n))),
            Err(error) => {
                let (message, ..) = panicked(error.kind());
                assert!(n == 3 && message.contains("not checked"), "{error}");
            }
        }
    }
    assert_eq!(lab.stats().restarts(), 0, "no worker was replaced");
    lab.assert_in_use(0);
}

/// The call would wait for the thread that it runs on.
fn a_validity_check_that_calls_its_engine_is_an_error() {
    let engine = Engine::builder().workers(1).capacity(64 << 20).build();
    let engine = Arc::new(engine.unwrap());
    *ASKED.lock().unwrap() = Arc::downgrade(&engine);
    step("a job whose value is compared with its own engine");
    let answers = [4, 5].map(|n| engine.submit(Watched, (n,)).wait());
    *ASKED.lock().unwrap() = Weak::new();
    let [Ok(Watched(4)), Err(error)] = &answers else {
        panic!("{answers:?}")
    };
    let (message, ..) = panicked(error.kind());
    assert!(message.contains("calls an engine"), "{error}");
    assert_eq!(engine.submit(Watched, (5,)).wait().unwrap(), Watched(5));
    Arc::into_inner(engine).unwrap().shutdown();
}
