//! Streams and maps of any length do not grow the memory of the program or its workers.

use std::time::Duration;

use arenite::stream::{Stream, StreamError, Window, Windows};

use crate::harness::{self, Lab, step, tests};

tests![
    items_through_a_stage_and_a_window_take_no_memory,
    windows_of_time_take_no_memory,
];

/// Max growth after the start: less than the smallest block leaked per window would add up to.
const MAX: u64 = 1 << 20;
/// Items of each stream; they take some seconds in a debug build.
const ITEMS: u64 = 400_000;

/// Private bytes of this process and of an engine's workers.
pub fn private_bytes(lab: &Lab) -> u64 {
    let workers = lab.stats().workers;
    let pids = workers.iter().map(|worker| worker.pid);
    pids.chain([std::process::id()])
        .map(|pid| harness::private_bytes(pid).unwrap())
        .sum()
}

fn mix(n: u64, by: u32) -> u64 {
    n ^ u64::from(by)
}

fn items_through_a_stage_and_a_window_take_no_memory() {
    fn total(numbers: &[u64]) -> u64 {
        numbers.iter().sum()
    }
    const WINDOW: u64 = 8;
    let lab = Lab::new(2);
    let sums = Stream::new(0..ITEMS)
        .in_flight(512)
        .stage(mix, (5,))
        .window(Windows::count(WINDOW as usize))
        .unwrap()
        .kernel(total, ());
    let mut run = sums.run(&lab);
    let mut sum = |most: usize| {
        let some = run.by_ref().take(most);
        some.map(|sum| sum.unwrap().value).sum::<u64>()
    };
    step("the first windows, which fill all buffers");
    let mut all = sum(5000);
    let before = private_bytes(&lab);
    let mut most = 0;
    for part in 1..ITEMS / WINDOW / 5000 {
        step(format!("part {part} of the others"));
        all += sum(5000);
        most = most.max(private_bytes(&lab));
    }
    assert_eq!(sum(1), 0, "no more items");
    assert_eq!(all, (0..ITEMS).map(|n| mix(n, 5)).sum::<u64>());
    let grown = most.saturating_sub(before);
    println!("{grown} bytes more than at the beginning");
    assert!(grown < MAX, "{grown} bytes more than at the beginning");
    drop(run);
    lab.assert_in_use(0);
}

fn windows_of_time_take_no_memory() {
    let lab = Lab::new(2);
    let ms = Duration::from_millis;
    let stream = Stream::new(0..ITEMS)
        .in_flight(512)
        .event_time(|&n| ms(n))
        .watermark(ms(20))
        .stage(mix, (5,))
        .window(Windows::sliding(ms(20), ms(10)))
        .unwrap()
        .fold(|| 0u64, |count, _| *count += 1);
    let mut run = stream.run(&lab);
    step("the first windows");
    let count = |window: Result<Window<(), u64>, StreamError>| window.unwrap().value;
    let mut all: u64 = run.by_ref().take(2000).map(count).sum();
    let before = private_bytes(&lab);
    step("all the others");
    let mut most = 0;
    for (n, window) in run.by_ref().enumerate() {
        all += count(window);
        if n % 2000 == 0 {
            step(format!("the windows from {n} on"));
            most = most.max(private_bytes(&lab));
        }
    }
    // Each item is in two windows, except the first ten.
    assert_eq!(all, 2 * ITEMS - 10);
    let grown = most.saturating_sub(before);
    println!("{grown} bytes more than at the beginning");
    assert!(grown < MAX, "{grown} bytes more than at the beginning");
    drop(run);
    lab.assert_in_use(0);
}
