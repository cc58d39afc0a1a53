//! Iterators that wait for their items.

use std::cell::{Cell, RefCell};
use std::iter;
use std::time::{Duration, Instant};

use super::{square, through};
use crate::harness::{Diary, Gate, Lab, note, step, tests, wait_until};

tests![
    a_job_begins_while_its_iterator_waits_for_the_next_item,
    what_has_ended_comes_before_the_next_item,
    many_items_that_come_at_once,
];

fn noted(diary: &str, n: u32) -> u32 {
    note(diary, n);
    n
}

/// A crawler, say: what comes next depends on what has run.
fn a_job_begins_while_its_iterator_waits_for_the_next_item() {
    let lab = Lab::new(2);
    for at_once in [1, 5] {
        step(format!("{at_once} at a time, in order"));
        let diary = Diary::new();
        let items = || {
            let (path, before) = (diary.path(), diary.numbers().len());
            let diary = &diary;
            (0..60u32).map(move |n| {
                if n.is_multiple_of(at_once) {
                    let all = before + n as usize;
                    wait_until("all before it have run", || diary.numbers().len() == all);
                }
                (path.clone(), n)
            })
        };
        let values = lab.map(noted, items()).map(Result::unwrap);
        assert!(values.eq(0..60));
        step(format!("{at_once} at a time, as they end"));
        let values = lab.map(noted, items()).unordered();
        let values = values.map(|(index, value)| value.unwrap() == index as u32);
        assert!(values.eq(iter::repeat_n(true, 60)));
    }
    lab.assert_in_use(0);
}

/// An iterator that was seen to be slow is not asked while there is something to give.
fn what_has_ended_comes_before_the_next_item() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let (pulled, held) = (Cell::new(0), RefCell::new(None));
    let items = (0u64..).map(|n| {
        pulled.set(n + 1);
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
        match n {
            1 => *held.borrow_mut() = Some(gate.meet()),
            // Others are under way when the first one ends.
            2 => *held.borrow_mut() = None,
            _ => {}
        }
        (if n == 0 { gate.path() } else { String::new() }, n)
    });
    let mut map = lab.map(through, items);
    assert_eq!(map.next().unwrap().unwrap(), 0);
    wait_until("all that is under way has ended", || lab.stats().open == 0);
    let asked = pulled.get();
    assert!(asked >= 3, "{asked} items");
    for n in 1..asked {
        assert_eq!(map.next().unwrap().unwrap(), n);
    }
    assert_eq!(pulled.get(), asked);
    drop(map);
    lab.assert_in_use(0);
}

/// One by one at first, then in numbers, and one by one again behind a pause.
fn many_items_that_come_at_once() {
    let lab = Lab::new(2);
    let items = (0..3000u64).map(|n| {
        let asked = Instant::now();
        while n % 1000 == 999 && asked.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        }
        (n,)
    });
    let squares = lab.map(square, items).map(Result::unwrap);
    assert!(squares.eq((0..3000).map(square)));
    lab.assert_in_use(0);
}
