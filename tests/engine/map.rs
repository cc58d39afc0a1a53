//! A kernel over an iterator: order, laziness, and stopping early.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use arenite::{Array, OnFailure, Rejection};

use crate::harness::{Calls, Gate, Lab, pass, rejected, step, tests, through, wait_until};

tests![
    nothing_runs_before_the_map_is_iterated,
    items_are_pulled_as_they_are_needed,
    a_slow_item_stops_pulling,
    more_jobs_are_in_flight_behind_a_slow_item,
    large_results_do_not_accumulate_behind_a_slow_item,
    items_of_tiny_jobs_leave_room_in_the_arena,
    a_foreign_array_fails_its_item,
    a_panicking_iterator_leaves_the_engine_usable,
    size_hint_is_that_of_the_items,
    size_hint_of_a_map_that_stops_at_failures,
];

/// Maximum number of items in flight and pulled ahead, however short their jobs: twice the slots of a link.
const MAX_AHEAD: usize = 512;

fn square(n: u64) -> u64 {
    n * n
}

fn nothing_runs_before_the_map_is_iterated() {
    let lab = Lab::new(1);
    let pulled = Cell::new(0);
    let items = (0..10u64).map(|n| {
        pulled.set(pulled.get() + 1);
        (n,)
    });
    let map = lab.map(square, items);
    assert_eq!((pulled.get(), lab.stats().kernels.len()), (0, 0));
    drop(map);
    assert_eq!(pulled.get(), 0);
}

fn items_are_pulled_as_they_are_needed() {
    let lab = Lab::new(2);
    let pulled = Cell::new(0usize);
    let items = (0..).map(|n| {
        pulled.set(pulled.get() + 1);
        (n,)
    });
    let mut most = 0;
    for (taken, value) in lab.map(square, items).take(50_000).enumerate() {
        assert_eq!(value.unwrap(), (taken * taken) as u64);
        most = most.max(pulled.get() - taken);
    }
    assert!(most <= MAX_AHEAD + 1, "{most} items were pulled ahead");
    assert_eq!(lab.map(square, (0..0).map(|n| (n,))).count(), 0);
    assert_eq!(lab.map(square, [(3,)]).next().unwrap().unwrap(), 9);
    lab.assert_idle();
}

/// While one item is slow, those after it are pulled up to a bound.
fn a_slow_item_stops_pulling() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let pulled = AtomicUsize::new(0);
    let items = (0..3000u64).map(|n| {
        pulled.fetch_add(1, SeqCst);
        (if n == 0 { gate.path() } else { String::new() }, n)
    });
    thread::scope(|s| {
        let lab = &lab;
        let map = s.spawn(move || {
            lab.map(through, items)
                .map(Result::unwrap)
                .collect::<Vec<_>>()
        });
        let held = gate.meet();
        // Everything that was pulled ends, except the job at the gate; results after it wait.
        let (looks, before) = (Cell::new(0), Cell::new(0));
        wait_until(
            "only the gate holds, and nothing is pulled any more",
            || {
                let stats = lab.stats();
                let now = pulled.load(SeqCst);
                let stands = before.replace(now) == now && stats.open + stats.queued == 1;
                looks.set(if stands { looks.get() + 1 } else { 0 });
                looks.get() == 20
            },
        );
        let ahead = pulled.load(SeqCst);
        assert!(ahead <= MAX_AHEAD, "{ahead} items were pulled ahead");
        drop(held);
        step("the rest of the map");
        assert!(map.join().unwrap().into_iter().eq(0..3000));
    });
    assert_eq!(pulled.load(SeqCst), 3000);
}

/// Jobs that take a millisecond, or wait at a gate if they have one.
fn long(gate: &str, bytes: &[u8]) -> u64 {
    match gate {
        "" => thread::sleep(Duration::from_millis(1)),
        _ => pass(gate),
    }
    bytes.len() as u64
}

/// Teaches the engine how long these jobs take.
fn learn(lab: &Lab) {
    let nothing = lab.zeros::<u8>(0).unwrap().seal();
    // Not a duration measured on a busy machine.
    wait_until("they are known to be short", || {
        let lens = lab.map(long, (0..20).map(|_| (String::new(), nothing.clone())));
        assert!(lens.map(Result::unwrap).all(|len| len == 0));
        let kernels = lab.stats().kernels;
        let long = kernels.iter().find(|kernel| kernel.name.ends_with("long"));
        long.is_some_and(|long| long.expected < Duration::from_millis(5))
    });
}

/// Items of which the first waits at a gate, and one other at another.
fn with_gates(lab: &Lab, gates: [(usize, String); 2]) -> impl Iterator<Item = (String, Array<u8>)> {
    (0..40).map(move |n| {
        let gate = gates.iter().find(|(at, _)| *at == n);
        let bytes = lab.zeros::<u8>(1 << 20).expect("there is room").seal();
        (gate.map_or(String::new(), |(_, gate)| gate.clone()), bytes)
    })
}

/// Two jobs of a millisecond per worker keep it busy, but more are needed where results wait for an earlier one.
fn more_jobs_are_in_flight_behind_a_slow_item() {
    let lab = Lab::balanced_with(2, |builder| builder.capacity(1 << 30));
    learn(&lab);
    let (first, other) = (Gate::new(), Gate::new());
    let items = with_gates(&lab, [(0, first.path()), (5, other.path())]);
    thread::scope(|s| {
        let map = s.spawn(|| lab.map(long, items).map(Result::unwrap).sum::<u64>());
        let held = first.meet();
        step("the fifth behind the first runs");
        other.open();
        drop(held);
        assert_eq!(map.join().unwrap(), 40 << 20);
    });
}

/// If the arena has no room for more, no more are sent.
fn large_results_do_not_accumulate_behind_a_slow_item() {
    let lab = Lab::balanced_with(2, |builder| builder.capacity(64 << 20));
    learn(&lab);
    let gate = Gate::new();
    let pulled = AtomicUsize::new(0);
    let items = with_gates(&lab, [(0, gate.path()), (usize::MAX, String::new())]);
    let items = items.inspect(|_| {
        pulled.fetch_add(1, SeqCst);
    });
    thread::scope(|s| {
        let map = s.spawn(|| lab.map(long, items).map(Result::unwrap).sum::<u64>());
        let held = gate.meet();
        wait_until("only the gate holds", || {
            let stats = lab.stats();
            pulled.load(SeqCst) >= 4 && stats.open + stats.queued == 1
        });
        assert_eq!(pulled.load(SeqCst), 4, "two per worker");
        drop(held);
        assert_eq!(map.join().unwrap(), 40 << 20);
    });
}

/// Many tiny jobs are in flight, unless their arrays would fill the arena.
fn items_of_tiny_jobs_leave_room_in_the_arena() {
    fn quick(gate: &str, bytes: &[u8]) -> u64 {
        if !gate.is_empty() {
            pass(gate);
        }
        bytes.len() as u64
    }
    let lab = Lab::balanced_with(2, |builder| builder.capacity(64 << 20));
    let nothing = lab.zeros::<u8>(0).unwrap().seal();
    let lens = lab.map(quick, (0..2000).map(|_| (String::new(), nothing.clone())));
    assert!(lens.map(Result::unwrap).all(|len| len == 0));
    for keeps in [false, true] {
        let gate = Gate::new();
        let pulled = AtomicUsize::new(0);
        let items = (0..200).map(|n| {
            pulled.fetch_add(1, SeqCst);
            let gate = if n == 0 { gate.path() } else { String::new() };
            let bytes = lab.zeros::<u8>(1 << 20).expect("there is room");
            (gate, bytes.seal())
        });
        thread::scope(|s| {
            let map = s.spawn(|| {
                let map = lab.map(quick, items);
                match keeps {
                    false => map.map(Result::unwrap).sum::<u64>(),
                    true => map.keep_args().map(Result::unwrap).sum(),
                }
            });
            let held = gate.meet();
            wait_until("only the gate holds", || {
                let stats = lab.stats();
                pulled.load(SeqCst) >= 8 && stats.open + stats.queued == 1
            });
            let pulled = pulled.load(SeqCst);
            assert!(pulled <= 16, "a quarter of the arena: {pulled}");
            drop(held);
            assert_eq!(map.join().unwrap(), 200 << 20);
        });
    }
}

/// An argument that cannot be sent is one failing item.
fn a_foreign_array_fails_its_item() {
    fn len(values: &[u8]) -> usize {
        values.len()
    }
    let lab = Lab::balanced(2);
    let arrays = [
        lab.from_slice(&[1u8]).unwrap(),
        Array::from_slice(&[1, 2]),
        lab.from_slice(&[1, 2, 3]).unwrap(),
    ];
    let lengths: Vec<_> = lab.map(len, arrays.map(|array| (array,))).collect();
    assert_eq!((lengths[0].clone(), lengths[2].clone()), (Ok(1), Ok(3)));
    assert_eq!(
        *lengths[1].as_ref().unwrap_err().kind(),
        rejected(Rejection::ForeignArray)
    );
}

fn a_panicking_iterator_leaves_the_engine_usable() {
    fn len(values: &[u8]) -> usize {
        values.len()
    }
    let lab = Lab::balanced(2);
    let items = (1..100usize).map(|n| {
        assert!(n < 50, "no more");
        (lab.zeros::<u8>(n).unwrap().seal(),)
    });
    let mut map = lab.map(len, items);
    let mut seen = 0;
    let result = catch_unwind(AssertUnwindSafe(|| {
        for len in map.by_ref() {
            seen += 1;
            assert_eq!(len.unwrap(), seen);
        }
    }));
    assert!(
        result
            .unwrap_err()
            .downcast_ref::<&str>()
            .is_some_and(|text| *text == "no more")
    );
    drop(map);
    assert_eq!(lab.value_of(|| 5u8, ()), 5);
}

fn size_hint_is_that_of_the_items() {
    let lab = Lab::new(1);
    let mut map = lab.map(square, (0..100).map(|n| (n,)));
    assert_eq!(map.size_hint(), (100, Some(100)));
    map.next().unwrap().unwrap();
    assert_eq!(map.size_hint(), (99, Some(99)));
    assert_eq!(map.count(), 99);
}

/// It ends with its first failure, which may be the next result.
fn size_hint_of_a_map_that_stops_at_failures() {
    fn invert(n: u32) -> Result<u32, String> {
        1_u32.checked_div(n).ok_or_else(|| "nothing".into())
    }
    let lab = Lab::new(1);
    for (items, results) in [([1, 0, 2], 2), ([0, 1, 2], 1), ([1, 2, 3], 3)] {
        let items = items.map(|n| (n,));
        let mut map = lab.map(invert, items).on_failure(OnFailure::Stop);
        for left in (1..=results).rev() {
            let (low, high) = map.size_hint();
            assert!(
                low == 1 && high.is_some_and(|high| high >= left),
                "{high:?}"
            );
            assert!(map.next().is_some());
        }
        assert_eq!(map.size_hint(), (0, Some(0)));
        assert!(map.next().is_none());
    }
}
