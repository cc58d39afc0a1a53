//! Streams and maps of any length do not grow the memory of the program or its workers.

use std::time::Duration;

use arenite::stream::{Stream, Windows};

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
fn private_bytes(lab: &Lab) -> u64 {
    let workers = lab.stats().workers;
    let pids = workers.iter().map(|worker| worker.pid);
    pids.chain([std::process::id()])
        .map(|pid| harness::private_bytes(pid).unwrap())
        .sum()
}

/// Checks that memory does not grow while the parts of a stream or map pass, after a first one, which fills all
/// buffers. `part` returns the sum of the values of a part, or nothing at the end. Returns the sum of all.
pub fn sum_of_parts(lab: &Lab, max: u64, mut part: impl FnMut() -> Option<u64>) -> u64 {
    step("the first part, which fills all buffers");
    let mut all = part().unwrap();
    let (before, mut most) = (private_bytes(lab), 0);
    for n in 1.. {
        step(format!("part {n} of the others"));
        let Some(sum) = part() else { break };
        all = all.wrapping_add(sum);
        most = most.max(private_bytes(lab));
    }
    let grown = most.saturating_sub(before);
    println!("{grown} bytes more than at the beginning");
    assert!(grown < max, "{grown} bytes more than at the beginning");
    all
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
        .items()
        .stage_with(total, |window| ((), (window.value,)));
    let mut run = sums.run(&lab).map(|sum| sum.unwrap().1);
    let all = sum_of_parts(&lab, MAX, || run.by_ref().take(5000).reduce(|a, b| a + b));
    assert_eq!(all, (0..ITEMS).map(|n| mix(n, 5)).sum::<u64>());
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
    let mut run = stream.run(&lab).map(|window| window.unwrap().value);
    let all = sum_of_parts(&lab, MAX, || run.by_ref().take(2000).reduce(|a, b| a + b));
    // Each item is in two windows, except the first ten.
    assert_eq!(all, 2 * ITEMS - 10);
    drop(run);
    lab.assert_in_use(0);
}
