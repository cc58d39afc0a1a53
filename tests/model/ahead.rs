//! The number of jobs that a map keeps in flight depends on the measured time of its kernel.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Gate, Lab, pass, tests, wait_until};

tests![
    a_kernel_known_to_be_quick_has_many_under_way,
    a_kernel_known_to_be_slow_has_two_under_way,
    a_kernel_that_becomes_slow_has_fewer_under_way,
];

/// Lanes of the engines in these tests: one worker, one lane.
const LANES: usize = 1;

/// Waits at the gate, if any, then works for `micros`.
fn work(gate: &str, micros: u64) {
    if !gate.is_empty() {
        pass(gate);
    }
    let (began, long) = (Instant::now(), Duration::from_micros(micros));
    while began.elapsed() < long {
        std::hint::spin_loop();
    }
}

fn measured(lab: &Lab) -> Duration {
    let kernels = lab.stats().kernels;
    let work = kernels.iter().find(|kernel| kernel.name.contains("work"));
    work.unwrap().expected
}

/// Runs the kernel until the engine's expectation satisfies `is_known`.
fn known(lab: &Lab, micros: u64, is_known: impl Fn(Duration) -> bool) {
    wait_until(&format!("{micros} µs are expected"), || {
        let some = lab.map(work, (0..64).map(|_| (String::new(), micros)));
        some.for_each(|ended| ended.unwrap());
        is_known(measured(lab))
    });
}

/// Returns the number of jobs in flight while the first one waits at a gate, once there are `as_soon_as`; and the
/// number of items pulled when it has ended.
fn under_way(lab: &Lab, as_soon_as: usize) -> (usize, usize) {
    let gate = Gate::new();
    let (pulled, path) = (AtomicUsize::new(0), gate.path());
    thread::scope(|s| {
        let pulled = &pulled;
        let first = s.spawn(move || {
            let items = (0..).map(|n| {
                pulled.fetch_add(1, SeqCst);
                (if n == 0 { path.clone() } else { String::new() }, 0)
            });
            let mut map = lab.map(work, items).unordered();
            let (index, ended) = map.next().unwrap();
            ended.unwrap();
            assert_eq!(index, 0, "a lane runs one after the other");
            // No item is pulled after the first answer is taken.
            pulled.load(SeqCst)
        });
        let held = gate.meet();
        let open = || {
            let stats = lab.stats();
            stats.open + stats.queued
        };
        wait_until("this number is in flight", || open() >= as_soon_as);
        let open = open();
        drop(held);
        (open, first.join().unwrap())
    })
}

fn a_kernel_known_to_be_quick_has_many_under_way() {
    let lab = Lab::new(1);
    known(&lab, 0, |expected| expected < Duration::from_micros(50));
    // Enough to keep a lane busy for a millisecond.
    let (open, pulled) = under_way(&lab, 20 * LANES);
    assert!(open >= 20 * LANES && pulled >= open, "{open} of {pulled}");
    assert!(pulled <= 256, "{pulled}: more than a lane holds");
    lab.assert_in_use(0);
}

fn a_kernel_known_to_be_slow_has_two_under_way() {
    let lab = Lab::new(1);
    known(&lab, 2000, |expected| expected > Duration::from_millis(1));
    let (open, pulled) = under_way(&lab, 2 * LANES);
    assert_eq!((open, pulled), (2 * LANES, 2 * LANES));
    lab.assert_in_use(0);
}

/// The same kernel on the same engine; only its measured time changes.
fn a_kernel_that_becomes_slow_has_fewer_under_way() {
    let lab = Lab::new(1);
    known(&lab, 0, |expected| expected < Duration::from_micros(50));
    let (quick, _) = under_way(&lab, 20 * LANES);
    known(&lab, 2000, |expected| expected > Duration::from_millis(1));
    let (slow, pulled) = under_way(&lab, 2 * LANES);
    assert_eq!((slow, pulled), (2 * LANES, 2 * LANES));
    known(&lab, 0, |expected| expected < Duration::from_micros(50));
    let (again, _) = under_way(&lab, 20 * LANES);
    assert!(quick >= 20 * LANES && again >= 20 * LANES);
    lab.assert_in_use(0);
}
