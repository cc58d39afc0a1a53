//! The number of jobs that a map keeps in flight depends on the measured time of its kernel.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Gate, Lab, pass, step, tests, wait_until};

tests![a_kernel_that_becomes_slow_has_fewer_under_way,];

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

/// The same kernel on the same engine; only its measured time changes.
fn a_kernel_that_becomes_slow_has_fewer_under_way() {
    let lab = Lab::new(1);
    for micros in [0, 2000, 0] {
        step(format!("a kernel that takes {micros} µs"));
        known(&lab, micros, |expected| match micros {
            0 => expected < Duration::from_micros(50),
            _ => expected > Duration::from_millis(1),
        });
        // Enough to keep a lane busy for a millisecond, but not more than a lane holds.
        let range = if micros == 0 { 20..=256 } else { 2..=2 };
        let (open, pulled) = under_way(&lab, *range.start());
        assert!(
            range.contains(&open) && pulled >= open,
            "{open} of {pulled}"
        );
        assert!(range.contains(&pulled), "{pulled}");
    }
    lab.assert_in_use(0);
}
