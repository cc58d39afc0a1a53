//! Arrays to which several processes have handles: each shows its value, whatever safe code does with the others.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use arenite::{Array, ArrayMut, Spawn, call};

use crate::harness::{Lab, are_all, filled, tests, wait_until};

tests![
    a_returned_array_stays_as_it_is,
    what_was_retained_first_and_returned_later_stays_as_it_is,
    an_actor_that_copies_on_write_changes_no_snapshot,
    a_checkpoint_stays_as_it_is,
    arguments_of_spawned_jobs_stay_as_they_are,
    an_array_that_moved_into_a_job_stays_writable,
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

static KEPT: Mutex<Vec<Array<u8>>> = Mutex::new(Vec::new());
static OWN: Mutex<Vec<ArrayMut<u8>>> = Mutex::new(Vec::new());

fn lab(workers: usize) -> Lab {
    Lab::with(workers, |builder| builder.retain_escaped(|| {}))
}

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
        Err(shared) => shared.into_array(),
    });
    *KEPT.lock().unwrap() = changed.collect();
    written
}

fn forget() {
    KEPT.lock().unwrap().clear();
    OWN.lock().unwrap().clear();
}

fn assert_clean(lab: &Lab) {
    lab.submit(forget, ()).wait().unwrap();
    wait_until("nothing is retained", || lab.stats().retained() == 0);
    lab.assert_in_use(0);
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
            lab.submit(whole, (len,)).wait().unwrap(),
            lab.submit(part, (len,)).wait().unwrap(),
            lab.submit(rest, (len,)).wait().unwrap(),
            lab.submit(exclusive, (len,)).wait().unwrap().seal(),
        ];
        let (one, more) = lab.submit(several, (len,)).wait().unwrap();
        all.extend(more);
        all.extend(one);
        let slices: Vec<&[u8]> = all.iter().map(|array| &array[..]).collect();
        assert_eq!(lab.submit(write_to_all, (99,)).wait().unwrap(), 0, "{len}");
        for slice in slices {
            assert!(are_all(slice, 1), "{len}");
        }
        lab.submit(forget, ()).wait().unwrap();
    }
    assert_clean(&lab);
}

fn what_was_retained_first_and_returned_later_stays_as_it_is() {
    fn make(len: usize) {
        KEPT.lock().unwrap().push(bytes(len, 1));
    }
    fn give(from: usize, to: usize) -> Array<u8> {
        KEPT.lock().unwrap()[0].rows(from..to)
    }
    fn given(array: &Array<u8>) {
        KEPT.lock().unwrap().push(array.clone());
    }
    let lab = lab(1);
    for len in SIZES {
        for (from, to) in [(0, len), (len / 3, len / 2 + 1), (len, len)] {
            lab.submit(make, (len,)).wait().unwrap();
            // No other process has a handle yet.
            assert_eq!(lab.submit(write_to_all, (2,)).wait().unwrap(), 1, "{len}");
            let given = lab.submit(give, (from, to)).wait().unwrap();
            let slice = &given[..];
            let written = lab.submit(write_to_all, (99,)).wait().unwrap();
            assert!(written == 0 || slice.is_empty(), "{len}");
            assert!(slice.iter().all(|&x| x == 2), "{len}");
            lab.submit(forget, ()).wait().unwrap();
        }
        let input = lab.from_slice(&vec![3u8; len]).unwrap();
        lab.submit(given, (&input,)).wait().unwrap();
        assert_eq!(lab.submit(write_to_all, (99,)).wait().unwrap(), 0);
        assert!(are_all(&input, 3));
        let input = input
            .try_into_mut()
            .expect_err("a worker retains it")
            .into_array();
        lab.submit(forget, ()).wait().unwrap();
        input.try_into_mut().expect("it is the only handle");
    }
    assert_clean(&lab);
}

struct Count {
    cells: Array<u64>,
}

impl Count {
    fn new(len: usize) -> Count {
        Count {
            cells: Array::zeros(len),
        }
    }
    fn add(&mut self) -> u64 {
        let cells = std::mem::replace(&mut self.cells, Array::zeros(0));
        let mut cells = cells.try_into_mut().unwrap_or_else(|shared| shared.copy());
        cells[0] += 1;
        self.cells = cells.seal();
        self.cells[0]
    }
    fn add_and_show(&mut self) -> Array<u64> {
        self.add();
        self.cells.clone()
    }
    fn save(&self) -> Array<u64> {
        self.cells.clone()
    }
    fn restore(saved: &Array<u64>, _: usize) -> Count {
        Count {
            cells: saved.clone(),
        }
    }
    fn crash(&mut self) {
        std::process::abort();
    }
}

fn an_actor_that_copies_on_write_changes_no_snapshot() {
    let lab = lab(1);
    for len in [8, 10_000] {
        let actor = lab.actor(Count::new, (len,)).start();
        let shown: Vec<_> = (0..10)
            .map(|_| actor.call(Count::add_and_show, ()).wait().unwrap())
            .collect();
        let values: Vec<_> = shown.iter().map(|shown| shown[0]).collect();
        assert_eq!(values, (1..11).collect::<Vec<_>>());
    }
    wait_until("the states are gone", || lab.stats().retained() == 0);
    assert_clean(&lab);
}

fn a_checkpoint_stays_as_it_is() {
    let lab = lab(1);
    for len in [8, 10_000] {
        let actor = lab
            .actor(Count::new, (len,))
            .checkpoint(3, Count::save, Count::restore)
            .start();
        for round in 0..3 {
            // Of 5 calls 3 are saved.
            for n in 1..6 {
                let value = actor.call(Count::add, ()).wait().unwrap();
                assert_eq!(value, 3 * round + n);
            }
            lab.failure_of(actor.call(Count::crash, ()));
        }
    }
    wait_until("the states are gone", || lab.stats().retained() == 0);
    assert_clean(&lab);
}

fn arguments_of_spawned_jobs_stay_as_they_are() {
    fn root(len: usize) -> Spawn<u64> {
        let array = bytes(len, 1);
        KEPT.lock().unwrap().push(array.clone());
        let calls = (
            call(leaf, (array.clone(),)),
            call(leaf, (array.rows(len / 2..),)),
        );
        Spawn::new(|left: u64, right: u64| left + right, calls)
    }
    fn leaf(array: &Array<u8>) -> u64 {
        // The kernel that spawned it has ended, maybe in this process.
        write_to_all(99);
        array.iter().map(|&x| u64::from(x)).sum()
    }
    let lab = lab(2);
    for len in [64, 4097, 65_536, 200_000] {
        for _ in 0..5 {
            let sum = lab.submit(root, (len,)).wait().unwrap();
            assert_eq!(sum, (len + len - len / 2) as u64);
        }
        wait_until("both workers have dropped all", || {
            let jobs = [(); 4].map(|()| lab.submit(forget, ()));
            jobs.into_iter().for_each(|job| job.wait().unwrap());
            lab.stats().retained() == 0
        });
    }
    lab.assert_in_use(0);
}

/// No other process has a handle to it.
fn an_array_that_moved_into_a_job_stays_writable() {
    fn keep(array: ArrayMut<u8>) {
        OWN.lock().unwrap().push(array);
    }
    fn keep_sealed(array: ArrayMut<u8>) {
        KEPT.lock().unwrap().push(array.seal());
    }
    fn keep_and_return(array: ArrayMut<u8>) -> Array<u8> {
        let array = array.seal();
        KEPT.lock().unwrap().push(array.clone());
        array
    }
    fn add_one() -> u64 {
        let mut own = OWN.lock().unwrap();
        own.iter_mut()
            .for_each(|array| array.iter_mut().for_each(|x| *x += 1));
        own.iter()
            .flat_map(|array| array.iter())
            .map(|&x| u64::from(x))
            .sum()
    }
    fn make(len: usize) -> ArrayMut<u8> {
        filled(len, 1)
    }
    let lab = lab(1);
    for len in SIZES {
        // In the program's memory, and in the worker's.
        for made in [
            lab.zeros::<u8>(len).unwrap(),
            lab.submit(make, (len,)).wait().unwrap(),
        ] {
            let value = u64::from(made[0]);
            lab.submit(keep, (made,)).wait().unwrap();
            // Opens and closes pages around it.
            let other = lab.submit(make, (len,)).wait().unwrap();
            lab.submit(keep_sealed, (other,)).wait().unwrap();
            for round in 1..3 {
                let sum = lab.submit(add_one, ()).wait().unwrap();
                assert_eq!(sum, (value + round) * len as u64);
                assert_eq!(lab.submit(write_to_all, (5,)).wait().unwrap(), 1);
            }
            lab.submit(forget, ()).wait().unwrap();

            let shared = lab.submit(make, (len,)).wait().unwrap();
            let shared = lab.submit(keep_and_return, (shared,)).wait().unwrap();
            let slice = &shared[..];
            assert_eq!(lab.submit(write_to_all, (99,)).wait().unwrap(), 0);
            assert!(are_all(slice, 1));
            lab.submit(forget, ()).wait().unwrap();
        }
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
            lab.submit(make, (len, others)).wait().unwrap();
            for name in [usize::MAX, 0] {
                let mut given = lab.submit(give, (name,)).wait().unwrap();
                assert!(are_all(&given, 1));
                given.fill(7);
                // What has moved into a job is one of many as well.
                lab.submit(keep, (name, given)).wait().unwrap();
                let given = lab.submit(give, (name,)).wait().unwrap();
                assert!(are_all(&given, 7));
            }
            lab.submit(make, (len, others)).wait().unwrap();
            for name in [usize::MAX, 0] {
                let sum = lab.submit(spawn, (name,)).wait().unwrap();
                assert_eq!(sum, 2 * len as u64);
            }
            lab.submit(clear, ()).wait().unwrap();
            wait_until("all are released", || lab.stats().retained() == 0);
        }
    }
    assert_clean(&lab);
}

/// At whichever moment the engine looks at what the worker reports.
fn the_last_handle_in_a_worker_can_be_returned() {
    fn keep(array: &Array<u8>) {
        KEPT.lock().unwrap().push(array.clone());
    }
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
            lab.submit(keep, (array,)).wait().unwrap();
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
