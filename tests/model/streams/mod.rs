//! Streams on real workers: order, bounds, windows, ends, and losses when a worker dies.

pub mod ends;
pub mod windows;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use arenite::stream::{Handle, Stream, StreamError, Windows};
use arenite::{Array, Backoff, JobOptions, OnFailure, Priority};

use crate::harness::{
    ABORTED, Diary, Gate, Lab, hang, late, note, step, tests, through, wait_until,
};

tests![
    unordered_results_overtake_a_slow_one,
    a_slow_item_holds_back_the_source,
    jobs_of_a_stage_are_bounded,
    memory_is_flat_for_any_length_of_the_source,
    flat_mapped_items_are_bounded,
    a_crash_costs_one_item,
    a_crash_stops_the_stream_at_its_item,
    a_hang_in_a_stage_ends_at_its_deadline,
    stages_have_priorities,
    workers_killed_from_outside_cost_the_items_that_they_ran,
    a_killed_worker_costs_a_stream_with_retries_nothing,
];

fn add(n: u64, more: u64) -> u64 {
    n + more
}

fn unordered_results_overtake_a_slow_one() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let path = gate.path();
    let items = (0..50u64).map(|n| (if n == 0 { path.clone() } else { String::new() }, n));
    let stream = Stream::new(items)
        .unordered()
        .stage_with(through, |(gate, n)| ((), (gate, n)));
    let mut run = stream.run(&lab);
    let mut seen = BTreeSet::new();
    step("all but the one at the gate");
    while seen.len() < 49 {
        seen.insert(run.next().unwrap().unwrap().1);
    }
    assert!(!seen.contains(&0));
    gate.open();
    step("the slow one");
    assert_eq!(run.next().unwrap().unwrap().1, 0);
    assert!(run.next().is_none());
}

/// Paths of gates, or nothing, with a number.
type Items<'a> = Box<dyn Iterator<Item = (String, u64)> + Send + 'a>;

/// Runs a stream of this many items, the first of which waits at a gate. The gate opens when `stands` returns true for
/// the number of items that were pulled, and the number of jobs. Returns the results of the stream.
fn behind_a_gate<R: Send>(
    count: u64,
    run: impl FnOnce(&Lab, Items<'_>) -> Vec<R> + Send,
    stands: impl Fn(usize, usize) -> bool,
) -> Vec<R> {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let (pulled, path) = (AtomicUsize::new(0), gate.path());
    let items = (0..count).map(|n| {
        pulled.fetch_add(1, SeqCst);
        (if n == 0 { path.clone() } else { String::new() }, n)
    });
    thread::scope(|s| {
        let results = s.spawn(|| run(&lab, Box::new(items)));
        let held = gate.meet();
        wait_until("everything else waits for the item at the gate", || {
            let stats = lab.stats();
            stands(pulled.load(SeqCst), stats.open + stats.queued)
        });
        drop(held);
        step("the rest of the stream");
        results.join().unwrap()
    })
}

/// While one item is slow, others are taken up to the bound.
fn a_slow_item_holds_back_the_source() {
    let run = |lab: &Lab, items: Items<'_>| {
        let stream = Stream::new(items)
            .in_flight(10)
            .stage_with(through, |(gate, n)| (n, (gate, n)))
            .stage_with(add, |(kept, n)| (kept, (n, 1)));
        stream.run(lab).map(Result::unwrap).collect()
    };
    let results = behind_a_gate(500, run, |pulled, jobs| pulled == 10 && jobs == 1);
    assert!(results.into_iter().eq((0..500).map(|n| (n, n + 1))));
}

/// Although two workers are ready.
fn jobs_of_a_stage_are_bounded() {
    let run = |lab: &Lab, items: Items<'_>| {
        let stream = Stream::new(items)
            .stage_with(through, |(gate, n)| ((), (gate, n)))
            .jobs(1);
        stream.run(lab).map(|n| n.unwrap().1).collect()
    };
    let results = behind_a_gate(20, run, |pulled, jobs| {
        assert_eq!(pulled, 1);
        jobs == 1
    });
    assert!(results.into_iter().eq(0..20));
}

/// 105 MB of frames, and results of the same size, through an arena of 64 MiB.
fn memory_is_flat_for_any_length_of_the_source() {
    fn invert(frame: &Array<u8>) -> Array<u8> {
        Array::from_fn(frame.shape(), |i| !frame[i])
    }
    fn sum(frame: &[u8]) -> u64 {
        frame.iter().map(|&x| u64::from(x)).sum()
    }
    const FRAME: usize = 1 << 18;
    let lab = Lab::with(2, |builder| builder.capacity(64 << 20));
    let frames = (0..).map(|n| {
        let mut frame = lab.zeros::<u8>(FRAME).expect("what was used is free again");
        frame[0] = n as u8;
        frame.seal()
    });
    let stream = Stream::new(frames)
        .in_flight(6)
        .stage(invert, ())
        .stage(sum, ())
        .window(Windows::count(10))
        .unwrap()
        .fold(|| 0, |sum, frame| *sum += frame);
    for (window, sum) in stream.run(&lab).take(40).enumerate() {
        let firsts: u64 = (0..10)
            .map(|i| (255 - (10 * window + i) % 256) as u64)
            .sum();
        assert_eq!(sum.unwrap().value, 10 * 255 * (FRAME as u64 - 1) + firsts);
    }
    // Each frame may exist twice, before and after a stage; and workers have memory granted ahead.
    let most = lab.stats().arena.high_water;
    assert!(most <= 16 << 20, "{most} bytes were in use");
    lab.assert_in_use(0);
}

/// One file gives many frames, which are bounded like the items of a source.
fn flat_mapped_items_are_bounded() {
    let lab = Lab::new(2);
    let stream = Stream::new(0..3u64)
        .bytes_in_flight(2 << 16, |_| 1 << 20)
        .flat_map(|file| (0..50).map(move |n| 50 * file + n))
        .map(|n| lab.from_slice(&vec![n as u8; 1 << 16]).unwrap())
        .bytes_in_flight(2 << 16, |block| block.len() as u64)
        .stage(|block: &[u8]| u64::from(block[7]), ());
    let handle = stream.handle();
    let mut run = stream.run(&lab);
    for n in 0..150 {
        assert_eq!(run.next().unwrap().unwrap(), n);
    }
    assert!(run.next().is_none());
    // Two blocks, and the file that they come from.
    let most = handle.stats().most_in_flight;
    assert!(most <= 3, "{most}");
}

fn fragile(n: u64) -> u64 {
    if n % 50 == 7 {
        std::process::abort();
    }
    n
}

fn a_crash_costs_one_item() {
    let lab = Lab::new(2);
    let letters = RefCell::new(Vec::new());
    let stream = Stream::new(0..200u64)
        .on_failure(OnFailure::GoOn)
        .stage(add, (0,))
        .stage(fragile, ())
        .dead_letters(|letter| letters.borrow_mut().push(letter))
        .stage(add, (1000,));
    let handle = stream.handle();
    let found: Vec<_> = stream.run(&lab).map(Result::unwrap).collect();
    let others = (0..200).filter(|n| n % 50 != 7);
    assert!(found.into_iter().eq(others.map(|n| n + 1000)));
    let letters = letters.into_inner();
    assert!(
        letters
            .iter()
            .map(|letter| letter.args)
            .eq([7, 57, 107, 157])
    );
    for letter in &letters {
        let place = (letter.stage, letter.index as u64);
        assert_eq!(place, (Some(2), letter.args));
        assert_eq!(*letter.error.kind(), ABORTED);
    }
    let stats = handle.stats();
    let ended = (stats.failed, stats.delivered, stats.in_flight);
    assert_eq!(ended, (4, 196, 0));
    lab.assert_in_use(0);
}

fn a_crash_stops_the_stream_at_its_item() {
    let lab = Lab::new(2);
    let pulled = Cell::new(0);
    let endless = (0u64..).inspect(|_| pulled.set(pulled.get() + 1));
    let mut run = Stream::new(endless)
        .stage(add, (1,))
        .stage(fragile, ())
        .run(&lab);
    for n in 1..7 {
        assert_eq!(run.next().unwrap().unwrap(), n);
    }
    let error = run.next().unwrap().unwrap_err();
    let StreamError::Job {
        stage: 2,
        sequence: 6,
        error,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(*error.kind(), ABORTED);
    assert!(run.next().is_none());
    assert!(pulled.get() <= 6 + 16, "{}", pulled.get());
    lab.assert_in_use(0);
}

fn hangs_at(n: u64, bad: u64) -> u64 {
    if n == bad {
        hang();
    }
    n
}

/// Enough for jobs that do not hang, on a busy machine.
const LIMIT: Duration = Duration::from_millis(400);

/// One item hangs at each attempt: it is a dead letter after two deadlines and the pause in between.
fn a_hang_in_a_stage_ends_at_its_deadline() {
    let lab = Lab::new(2);
    let pause = Duration::from_millis(150);
    let mut letters = Vec::new();
    let stream = Stream::new(0..40u64)
        .on_failure(OnFailure::GoOn)
        .stage(add, (0,))
        .stage(hangs_at, (7,))
        .options(
            &JobOptions::new()
                .deadline(LIMIT)
                .retries(1)
                .backoff(Backoff::new(pause, pause)),
        )
        .dead_letters(|letter| letters.push(letter))
        .stage(add, (1000,));
    let handle = stream.handle();
    let began = Instant::now();
    step("a stream in which one item hangs");
    let found: Vec<_> = stream.run(&lab).map(Result::unwrap).collect();
    let took = began.elapsed();
    let others = (0..40).filter(|&n| n != 7);
    assert!(found.into_iter().eq(others.map(|n| n + 1000)));
    assert!(
        took >= 2 * LIMIT + pause,
        "two attempts and a pause, in {took:?}"
    );
    let [letter] = &letters[..] else {
        panic!("{letters:?}");
    };
    assert_eq!((letter.stage, letter.args), (Some(2), 7));
    assert_eq!(*letter.error.kind(), late(LIMIT));
    assert_eq!(letter.error.attempt(), 2);
    assert_eq!(letter.error.deaths(), [late(LIMIT)]);
    let stats = handle.stats();
    assert_eq!((stats.failed, stats.delivered, stats.in_flight), (1, 39, 0));
    lab.assert_in_use(0);
}

/// While a job waits at a gate: jobs of another caller, and those of a stage with high or low priority.
fn stages_have_priorities() {
    fn noted(diary: &str, n: u64) -> u64 {
        note(diary, n);
        n
    }
    let lab = Lab::new(1);
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        let file = Diary::new();
        let diary = &*file.path();
        let gate = Gate::new();
        let running = lab.submit(through, (&gate.path(), 0));
        let held = gate.meet();
        let before: Vec<_> = (0..3).map(|n| lab.submit(noted, (diary, n))).collect();
        thread::scope(|s| {
            let lab = &lab;
            let streamed = s.spawn(move || {
                let stage = Stream::new([10u64, 11]).stage_with(noted, |n| ((), (diary, n)));
                let run = stage
                    .options(&JobOptions::new().priority(priority))
                    .run(lab);
                run.map(|value| value.unwrap().1).collect::<Vec<_>>()
            });
            wait_until("both items wait behind the gate", || {
                let stats = lab.stats();
                stats.open + stats.queued == 6
            });
            let after = lab.submit(noted, (diary, 20));
            drop(held);
            step("the jobs behind the gate");
            assert_eq!(streamed.join().unwrap(), [10, 11]);
            after.wait().unwrap();
        });
        running.wait().unwrap();
        for (n, job) in (0..).zip(before) {
            assert_eq!(job.wait(), Ok(n));
        }
        let order = file.numbers();
        match priority {
            Priority::High => assert_eq!(order, [10, 11, 0, 1, 2, 20]),
            Priority::Normal => assert_eq!(order, [0, 1, 2, 10, 11, 20]),
            Priority::Low => assert_eq!(order, [0, 1, 2, 20, 10, 11]),
        }
    }
    lab.assert_in_use(0);
}

fn busy(n: u64) -> u64 {
    (0..20_000).fold(n, |n, i| std::hint::black_box(n + i) - i)
}

/// The number of workers killed while a stream runs.
const KILLS: usize = 8;

/// Lets the killing thread end, also if the stream fails.
struct Over<'a>(&'a AtomicUsize);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(1, SeqCst);
    }
}

/// Kills workers, each after some results, until there were enough deaths; then drains the stream, which is endless.
fn kill_now_and_then(lab: &Lab, delivered: &AtomicUsize, over: &AtomicUsize, handle: &Handle) {
    for kills in 0..KILLS {
        wait_until("more results", || {
            delivered.load(SeqCst) >= 100 * (kills + 1) || over.load(SeqCst) > 0
        });
        if over.load(SeqCst) == 0 {
            lab.replace(kills % 2);
        }
    }
    handle.drain();
}

fn workers_killed_from_outside_cost_the_items_that_they_ran() {
    let lab = Lab::new(2);
    let (delivered, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut letters = Vec::new();
    let mut found = Vec::new();
    let stream = Stream::new(0u64..)
        .on_failure(OnFailure::GoOn)
        .stage(busy, ())
        .dead_letters(|letter| letters.push(letter));
    let handle = stream.handle();
    let stats = thread::scope(|s| {
        s.spawn(|| kill_now_and_then(&lab, &delivered, &over, &handle));
        let _ended = Over(&over);
        let note = |n| {
            found.push(n);
            delivered.fetch_add(1, SeqCst);
        };
        stream.for_each(&lab, note).unwrap()
    });
    assert_eq!(lab.stats().restarts(), KILLS as u64);
    let costs = format!("{KILLS} deaths cost {letters:?}");
    assert!(stats.failed as usize <= KILLS, "{costs}");
    // No item is lost silently, and none is delivered twice.
    let lost: BTreeSet<_> = letters.iter().map(|letter| letter.args).collect();
    assert_eq!(lost.len(), stats.failed as usize);
    let kept = (0..stats.taken).filter(|n| !lost.contains(n));
    assert!(found.into_iter().eq(kept), "{costs}");
    lab.assert_in_use(0);
}

fn a_killed_worker_costs_a_stream_with_retries_nothing() {
    let lab = Lab::new(2);
    let (delivered, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let stream = Stream::new(0u64..)
        .stage(busy, ())
        .options(&JobOptions::new().retries(3))
        .stage(busy, ())
        .options(&JobOptions::new().retries(3));
    let handle = stream.handle();
    let mut expected = 0u64..;
    let stats = thread::scope(|s| {
        s.spawn(|| kill_now_and_then(&lab, &delivered, &over, &handle));
        let _ended = Over(&over);
        let next = |n| {
            assert_eq!(Some(n), expected.next());
            delivered.fetch_add(1, SeqCst);
        };
        stream.for_each(&lab, next).unwrap()
    });
    assert_eq!(lab.stats().restarts(), KILLS as u64);
    assert_eq!((stats.delivered, stats.failed), (stats.taken, 0));
}
