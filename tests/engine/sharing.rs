//! Arrays to which several processes have handles: each shows its value, whatever safe code does with the others. Random
//! programs are in `model::handles`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use arenite::{Array, ArrayMut, Spawn, call};

use crate::harness::{Calls, are_all, filled, tests, wait_until};
use crate::retained::{KEPT, assert_clean, forget, keep, lab};

tests![
    a_returned_array_stays_as_it_is,
    a_retained_exclusive_array_can_be_returned,
    the_last_handle_in_a_worker_can_be_returned,
];

/// Small and large chunks, and chunks of the arena.
const SIZES: [usize; 12] = [
    1,
    63,
    64,
    4095,
    4097,
    60_000,
    65_535,
    65_536,
    65_537,
    (2 << 20) - 1,
    2 << 20,
    (2 << 20) + 1,
];

fn bytes(len: usize, value: u8) -> Array<u8> {
    filled(len, value).seal()
}

/// Writes to each array that this process has retained, where that is possible. Returns how many it wrote to.
fn write_to_all(value: u8) -> usize {
    let mut written = 0;
    let kept = std::mem::take(&mut *KEPT.lock().unwrap());
    let changed = kept.into_iter().map(|array| match array.try_into_mut() {
        Ok(mut array) => {
            array.fill(value);
            written += 1;
            array.seal()
        }
        Err(shared) => shared,
    });
    *KEPT.lock().unwrap() = changed.collect();
    written
}

fn a_returned_array_stays_as_it_is() {
    fn whole(len: usize) -> Array<u8> {
        let array = bytes(len, 1);
        KEPT.lock().unwrap().push(array.clone());
        array
    }
    fn part(len: usize) -> Array<u8> {
        let array = bytes(len, 1);
        KEPT.lock().unwrap().push(array.clone());
        array.rows(len / 3..len / 2 + 1)
    }
    /// The rest of what it returns a part of.
    fn rest(len: usize) -> Array<u8> {
        let array = bytes(len, 1);
        KEPT.lock().unwrap().push(array.rows(len / 2..));
        array.rows(..len / 2 + 1)
    }
    fn several(len: usize) -> (Option<Array<u8>>, Vec<Array<u8>>) {
        let array = bytes(len, 1);
        let parts = vec![array.rows(..len / 2), array.clone()];
        KEPT.lock().unwrap().extend(parts.iter().cloned());
        (Some(array.rows(len / 2..)), parts)
    }
    fn exclusive(len: usize) -> ArrayMut<u8> {
        let array = bytes(len, 1);
        let part = array.rows(..len / 2);
        drop(part);
        array.try_into_mut().expect("it is the only handle")
    }
    let lab = lab(1);
    for len in SIZES {
        let mut all = vec![
            lab.value_of(whole, (len,)),
            lab.value_of(part, (len,)),
            lab.value_of(rest, (len,)),
            lab.value_of(exclusive, (len,)).seal(),
        ];
        let (one, more) = lab.value_of(several, (len,));
        all.extend(more);
        all.extend(one);
        let slices: Vec<&[u8]> = all.iter().map(|array| &array[..]).collect();
        assert_eq!(lab.value_of(write_to_all, (99,)), 0, "{len}");
        for slice in slices {
            assert!(are_all(slice, 1), "{len}");
        }
        lab.value_of(forget, ());
    }
    assert_clean(&lab);
}

/// As the only handle, also if the worker has many others.
fn a_retained_exclusive_array_can_be_returned() {
    static NAMED: Mutex<BTreeMap<usize, ArrayMut<u8>>> = Mutex::new(BTreeMap::new());
    fn make(len: usize, others: usize) {
        let mut named = NAMED.lock().unwrap();
        named.insert(0, filled(len, 1));
        named.extend((1..=others).map(|at| (at, filled(10, 2))));
        named.insert(usize::MAX, filled(len, 1));
    }
    fn give(name: usize) -> ArrayMut<u8> {
        NAMED.lock().unwrap().remove(&name).unwrap()
    }
    fn keep(name: usize, array: ArrayMut<u8>) {
        NAMED.lock().unwrap().insert(name, array);
    }
    fn clear() {
        NAMED.lock().unwrap().clear();
    }
    fn spawn(name: usize) -> Spawn<u64> {
        Spawn::new(|n: u64| n, (call(add_one, (give(name),)),))
    }
    fn add_one(mut array: ArrayMut<u8>) -> u64 {
        array.iter_mut().for_each(|x| *x += 1);
        array.iter().map(|&x| u64::from(x)).sum()
    }
    let lab = lab(1);
    for len in [0, 10, 65_536, 3 << 20] {
        for others in [0, 500] {
            lab.value_of(make, (len, others));
            for name in [usize::MAX, 0] {
                let mut given = lab.value_of(give, (name,));
                assert!(are_all(&given, 1));
                given.fill(7);
                // What has moved into a job is one of many as well.
                lab.value_of(keep, (name, given));
                let given = lab.value_of(give, (name,));
                assert!(are_all(&given, 7));
            }
            lab.value_of(make, (len, others));
            for name in [usize::MAX, 0] {
                let sum = lab.value_of(spawn, (name,));
                assert_eq!(sum, 2 * len as u64);
            }
            lab.value_of(clear, ());
            wait_until("all are released", || lab.stats().retained() == 0);
        }
    }
    assert_clean(&lab);
}

/// At whichever moment the engine looks at what the worker reports.
fn the_last_handle_in_a_worker_can_be_returned() {
    fn give() -> Array<u8> {
        KEPT.lock().unwrap().pop().unwrap()
    }
    let lab = lab(1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                lab.stats();
            }
        });
        for round in 0..3000 {
            let array = lab.from_slice(&[round as u8; 100]).unwrap();
            lab.value_of(keep, (array,));
            let given = lab.submit(give, ()).wait();
            let shows = given.map(|given| are_all(&given, round as u8));
            if shows != Ok(true) {
                is_over.store(true, Ordering::Relaxed);
                panic!("round {round}: {shows:?}");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_clean(&lab);
}
