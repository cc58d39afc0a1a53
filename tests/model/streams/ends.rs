//! The ends of streams: drained, stopped, dropped by the consumer, or without workers.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use arenite::stream::{Stream, StreamError, Windows};
use arenite::{Engine, JobErrorKind, OnFailure};
use nix::sys::signal::Signal;

use super::busy;
use crate::harness::{Env, Gate, Lab, assert_kind, send_signal, step, tests, wait_until};
use crate::narrow::{measure, narrow, three_mib, zeros};

tests![
    draining_from_another_thread_finishes_what_was_taken,
    a_stream_without_results_can_be_stopped,
    stopping_cancels_items_in_flight,
    a_stream_waiting_for_admission_can_be_stopped,
    a_slow_consumer_does_not_block_admission,
    a_dead_letter_does_not_block_admission,
    stages_waiting_for_admission_are_woken_by_each_end,
    dropping_the_consumer_cancels_items_in_flight,
    an_engine_that_cannot_restart_workers_ends_the_stream,
];

fn draining_from_another_thread_finishes_what_was_taken() {
    let lab = Lab::new(2);
    let stream = Stream::new(0u64..)
        .stage(busy, ())
        .window(Windows::count(7))
        .unwrap()
        .fold(|| 0u64, |count, _| *count += 1);
    let handle = stream.handle();
    thread::scope(|s| {
        s.spawn(|| {
            wait_until("20 windows", || handle.stats().windows >= 20);
            handle.drain();
        });
        let mut counted = 0;
        let stats = stream
            .for_each(&lab, |window| counted += window.value)
            .unwrap();
        assert_eq!(counted, stats.taken);
        assert_eq!((stats.in_flight, stats.held_by_windows), (0, 0));
    });
    lab.assert_in_use(0);
}

fn a_stream_without_results_can_be_stopped() {
    let engine = Engine::inline();
    for apart in [true, false] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let source = (0u64..).inspect(move |n| {
            if *n == 10_000 {
                sender.send(()).unwrap();
            }
        });
        let stream = if apart {
            Stream::spawn(source)
        } else {
            Stream::new(source)
        };
        let stream = stream.filter(|_| false);
        let handle = stream.handle();
        thread::scope(|threads| {
            threads.spawn(move || {
                receiver.recv().unwrap();
                handle.stop();
            });
            step("the end of a stream that gives nothing");
            assert_eq!(stream.run(&engine).count(), 0);
        });
    }
}

fn stopping_cancels_items_in_flight() {
    fn until_cancelled(n: u64) -> u64 {
        while n > 0 && !arenite::cancelled() {
            std::hint::spin_loop();
        }
        n
    }
    let lab = Lab::new(2);
    let stream = Stream::new(0u64..).stage(until_cancelled, ());
    let handle = stream.handle();
    thread::scope(|s| {
        s.spawn(|| {
            wait_until("both workers hang", || {
                let stats = handle.stats();
                stats.delivered == 1 && stats.in_flight == 16
            });
            handle.stop();
        });
        step("the stream to be stopped");
        assert!(stream.run(&lab).map(Result::unwrap).eq([0]));
    });
    assert_eq!(handle.stats().in_flight, 0);
    // Running items were cancelled.
    lab.assert_in_use(0);
}

fn a_stream_waiting_for_admission_can_be_stopped() {
    let lab = narrow(2);
    let gate = Gate::new();
    let holds = lab.submit(measure, (three_mib(&lab), &gate.path()));
    let held = gate.meet();
    let items = (0..).map(|_| (three_mib(&lab), ""));
    let stream = Stream::new(items).stage_with(measure, |args| ((), args));
    let handle = stream.handle();
    thread::scope(|threads| {
        threads.spawn(|| {
            wait_until("its first job waits", || handle.stats().in_flight == 1);
            handle.stop();
        });
        step("the stream to be stopped");
        assert_eq!(stream.run(&lab).count(), 0);
    });
    // It was the first in the admission queue, and has left it.
    assert!(!holds.is_done());
    drop(held);
    assert_eq!(holds.wait(), Ok(3 << 20));
    let next = lab.submit(measure, (three_mib(&lab), ""));
    assert_eq!(next.wait(), Ok(3 << 20));
    lab.assert_in_use(0);
}

fn a_slow_consumer_does_not_block_admission() {
    let lab = narrow(2);
    let gate = Gate::new();
    let gates = [String::new(), gate.path(), String::new()];
    let items = gates.into_iter().map(|gate| (three_mib(&lab), gate));
    let stream = Stream::new(items).stage_with(measure, |args| ((), args));
    let mut run = stream.run(&lab);
    assert_eq!(run.next().unwrap().unwrap().1, 3 << 20);
    let held = gate.meet();
    // The third does not fit beside the second; only its stream waits for it, and is not polled now. It was not pulled yet
    // if the first ended at once.
    assert!(matches!(run.stats().in_flight, 1 | 2));
    let small = lab.zeros::<u8>(8).unwrap().seal();
    let small = lab.job(measure, (small, "")).try_submit();
    assert_eq!(small.expect("no job waits").wait(), Ok(8));
    drop(held);
    assert_eq!(run.map(Result::unwrap).count(), 2);
    lab.assert_in_use(0);
}

fn a_dead_letter_does_not_block_admission() {
    fn opened(bytes: &[u8], gate: &str) -> Result<u64, String> {
        measure(bytes, gate);
        Err("opened".into())
    }
    let lab = narrow(2);
    lab.submit(opened, (zeros(&lab, 1), "")).wait().unwrap_err();
    let (gate, last) = (Gate::new(), Gate::new());
    let holds = lab.submit(measure, (zeros(&lab, 800), &last.path()));
    let held_last = last.meet();
    // The second item does not fit beside the other job, and waits when the first fails.
    let items = [(gate.path(), 2800), (String::new(), 3500)];
    let items = items.map(|(gate, kib)| (zeros(&lab, kib), gate));
    let letters = AtomicUsize::new(0);
    let stream = Stream::new(items)
        .on_failure(OnFailure::GoOn)
        .stage_with(opened, |args| ((), args))
        .dead_letters(|letter| {
            let small = lab.job(measure, (zeros(&lab, 1), "")).try_submit();
            assert_eq!(small.expect("no job waits").wait(), Ok(1024));
            assert_eq!(letter.index, letters.fetch_add(1, SeqCst));
        });
    thread::scope(|threads| {
        threads.spawn(|| {
            drop(gate.meet());
            wait_until("the first letter", || letters.load(SeqCst) == 1);
            drop(held_last);
        });
        assert_eq!(stream.run(&lab).count(), 0);
    });
    assert_eq!(letters.load(SeqCst), 2);
    assert_eq!(holds.wait(), Ok(800 << 10));
    lab.assert_in_use(0);
}

/// The first stage is admitted while the second does not fit yet; the second is woken nevertheless.
fn stages_waiting_for_admission_are_woken_by_each_end() {
    let lab = Lab::with(3, |builder| builder.max_in_flight_bytes(4 << 20));
    assert_eq!(lab.submit(measure, (zeros(&lab, 1), "")).wait(), Ok(1024));
    let gates = [(); 4].map(|()| Gate::new());
    let large = lab.submit(measure, (zeros(&lab, 2500), &gates[0].path()));
    let held_large = gates[0].meet();
    let small = lab.submit(measure, (zeros(&lab, 1200), &gates[1].path()));
    let held_small = gates[1].meet();
    let paths = gates.each_ref().map(Gate::path);
    // For each stage: the bytes and the gate.
    let items = [
        [(1, String::new()), (2000, paths[3].clone())],
        [(1000, paths[2].clone()), (1, String::new())],
    ];
    let items = items.map(|stages| stages.map(|(kib, gate)| (zeros(&lab, kib), gate)));
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::scope(|threads| {
        let lab = &lab;
        threads.spawn(move || {
            let stream = Stream::new(items)
                .stage_with(measure, |[first, second]| (second, first))
                .stage_with(measure, |(second, _)| ((), second));
            sender.send(stream.handle()).unwrap();
            let lens: Vec<_> = stream.run(lab).map(|len| len.unwrap().1).collect();
            assert_eq!(lens, [2000 << 10, 1 << 10]);
        });
        let handle = receiver.recv().unwrap();
        wait_until("both wait", || {
            handle.stats().in_flight == 2 && lab.stats().open + lab.stats().queued == 2
        });
        drop(held_small);
        let held_first = gates[2].meet();
        drop(held_large);
        step("the second stage, while the first runs");
        drop(gates[3].meet());
        drop(held_first);
    });
    assert_eq!(large.wait(), Ok(2500 << 10));
    assert_eq!(small.wait(), Ok(1200 << 10));
    lab.assert_in_use(0);
}

fn dropping_the_consumer_cancels_items_in_flight() {
    let lab = Lab::new(2);
    let blocks = (0..).map(|n| lab.from_slice(&vec![n; 1 << 12]).unwrap());
    let stream = Stream::new(blocks).stage(|block: &[u64]| busy(block[0]), ());
    assert!(stream.run(&lab).take(20).map(Result::unwrap).eq(0..20));
    lab.assert_in_use(0);
}

fn an_engine_that_cannot_restart_workers_ends_the_stream() {
    const BROKEN: &str = "ARENITE_TEST_STREAM_BROKEN";
    fn start_unless_broken() {
        let path = std::env::var(BROKEN).unwrap();
        assert!(!std::path::Path::new(&path).exists(), "the drive is gone");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken");
    let _env = Env::set(BROKEN, &path);
    let lab = Lab::with(1, |builder| builder.on_worker_start(start_unless_broken));
    let stream = Stream::new(0u64..)
        .on_failure(OnFailure::GoOn)
        .stage(busy, ());
    let mut run = stream.run(&lab);
    assert_eq!(run.next().unwrap().unwrap(), 0);
    std::fs::write(&path, "").unwrap();
    send_signal(lab.pid(0), Signal::SIGKILL);
    step("the stream to end");
    let last = run.find_map(Result::err).expect("an error is the last");
    let StreamError::Job { error, .. } = &last else {
        panic!("{last}");
    };
    assert_kind!(*error, JobErrorKind::NoWorkers(_));
    assert!(run.next().is_none());
}
