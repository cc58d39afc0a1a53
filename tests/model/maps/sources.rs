//! Iterators that block before their items.

use std::cell::{Cell, RefCell};
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use arenite::Array;

use super::square;
use crate::harness::{Diary, Gate, Lab, note, pass, step, tests, through, wait_until};

tests![
    a_job_begins_while_its_iterator_waits_for_the_next_item,
    ended_results_come_before_the_next_item,
    jobs_sent_for_a_blocked_iterator_are_cancelled_with_the_map,
    jobs_that_an_iterator_waits_for_are_admitted_in_turn,
];

fn noted(diary: &str, n: u32) -> u32 {
    note(diary, n);
    n
}

/// For example a crawler, whose next items depend on earlier results.
fn a_job_begins_while_its_iterator_waits_for_the_next_item() {
    let lab = Lab::new(2);
    // After sixteen items that come at once, items are sent in batches; the last case exceeds a batch.
    for (at_once, items) in [(1, 60), (5, 60), (100, 400), (1000, 3000)] {
        step(format!("{at_once} at a time, in order"));
        let diary = Diary::new();
        let calls = || {
            let (path, before) = (diary.path(), diary.numbers().len());
            let diary = &diary;
            (0..items).map(move |n: u32| {
                if n.is_multiple_of(at_once) {
                    let all = before + n as usize;
                    wait_until("all before it have run", || diary.numbers().len() == all);
                }
                (path.clone(), n)
            })
        };
        let values = lab.map(noted, calls()).map(Result::unwrap);
        assert!(values.eq(0..items));
        step(format!("{at_once} at a time, unordered"));
        let values = lab.map(noted, calls()).unordered();
        let values = values.map(|(index, value)| value.unwrap() == index as u32);
        assert!(values.eq(iter::repeat_n(true, items as usize)));
    }
    lab.assert_in_use(0);
}

/// A slow iterator is not asked while there are results to return.
fn ended_results_come_before_the_next_item() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let jobs = || -> u64 { lab.stats().workers.iter().map(|worker| worker.jobs).sum() };
    let before = jobs();
    let (pulled, held) = (Cell::new(0), RefCell::new(None));
    let items = (0u64..).map(|n| {
        pulled.set(n + 1);
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
        match n {
            1 => *held.borrow_mut() = Some(gate.meet()),
            // Others are in flight when the first one ends.
            2 => *held.borrow_mut() = None,
            _ => {}
        }
        (if n == 0 { gate.path() } else { String::new() }, n)
    });
    let mut map = lab.map(through, items);
    assert_eq!(map.next().unwrap().unwrap(), 0);
    // The monitor sends those that the iterator has written, and not sent.
    let asked = pulled.get();
    wait_until("all jobs asked for have ended", || jobs() - before == asked);
    assert!(asked >= 3, "{asked} items");
    for n in 1..asked {
        assert_eq!(map.next().unwrap().unwrap(), n);
    }
    assert_eq!(pulled.get(), asked);
    drop(map);
    lab.assert_in_use(0);
}

/// The iterator waits for jobs that the monitor has sent, and never returns.
fn jobs_sent_for_a_blocked_iterator_are_cancelled_with_the_map() {
    let lab = Lab::new(2);
    for held in [false, true] {
        let (diary, gate) = (Diary::new(), Gate::new());
        let mut meeting = None;
        let mut map = lab.map(
            |diary: &str, gate: &str, n: u32| {
                note(diary, n);
                if n == 40 && !gate.is_empty() {
                    pass(gate);
                }
                n
            },
            (0..200u32).map(|n| {
                if n == 50 {
                    match held {
                        // One of them runs while the map is dropped.
                        true => meeting = Some(gate.meet()),
                        false => {
                            wait_until("all before it have run", || diary.numbers().len() == 50);
                        }
                    }
                    panic!("no item {n}");
                }
                let gate = if held { gate.path() } else { String::new() };
                (diary.path(), gate, n)
            }),
        );
        let ended = catch_unwind(AssertUnwindSafe(|| while map.next().is_some() {}));
        assert!(ended.is_err());
        drop(map);
        drop(meeting);
        wait_until("running jobs have ended", || lab.stats().open == 0);
        assert_eq!(lab.submit(square, (7,)).wait().unwrap(), 49);
        assert_eq!(lab.stats().untaken, 0);
        lab.assert_in_use(0);
    }
}

/// Other jobs always wait for admission.
fn jobs_that_an_iterator_waits_for_are_admitted_in_turn() {
    let lab = Lab::with(1, |builder| builder.max_in_flight_bytes(1 << 20));
    let zeros = |len: usize| Array::<u8>::zeros(len);
    let over = AtomicBool::new(false);
    let jobs = [const { AtomicU64::new(0) }; 4];
    let all_have_had_theirs = || {
        let before = jobs.each_ref().map(|jobs| jobs.load(SeqCst));
        wait_until("each of the others has had its turn", || {
            let now = jobs.iter().map(|jobs| jobs.load(SeqCst));
            now.zip(before).all(|(now, before)| now > before)
        });
    };
    thread::scope(|threads| {
        for jobs in &jobs {
            threads.spawn(|| {
                while !over.load(SeqCst) {
                    // Two of them exceed the admission limit.
                    lab.submit(zeros, (600 << 10,)).wait().unwrap();
                    jobs.fetch_add(1, SeqCst);
                }
            });
        }
        all_have_had_theirs();
        let diary = Diary::new();
        let calls = (0..30u32).map(|n| {
            if n.is_multiple_of(6) {
                wait_until("all before it have run", || {
                    diary.numbers().len() == n as usize
                });
            }
            (diary.path(), n)
        });
        let values = lab.map(noted, calls).map(Result::unwrap);
        let all = values.eq(0..30);
        all_have_had_theirs();
        over.store(true, SeqCst);
        assert!(all);
    });
    lab.assert_in_use(0);
}
