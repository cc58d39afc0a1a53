//! Array handles that outlive their job in an engine that allows it: the worker goes on, and the memory stays in use
//! until the last handle is gone or the process ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use arenite::{Array, ArrayMut, JobErrorKind};

use crate::harness::{Calls, Dice, Lab, assert_says, seeds, tests, wait_until};

tests![
    an_input_is_retained_until_it_is_dropped,
    an_array_of_the_job_is_retained_and_writable,
    one_array_of_many_is_retained,
    handles_without_bytes_retain_nothing,
    a_retained_array_can_be_returned_later,
    failures_and_chains_retain_too,
    many_arrays_are_retained,
    what_a_thread_drops_while_its_worker_sleeps,
    code_before_arrays_are_retained,
    recycling_frees_what_was_retained,
    a_full_arena_names_what_is_retained,
    actors_retain_what_they_were_given,
    lanes_hand_arrays_to_each_other,
];

pub static KEPT: Mutex<Vec<Array<u8>>> = Mutex::new(Vec::new());
static OWN: Mutex<Vec<ArrayMut<u8>>> = Mutex::new(Vec::new());

const LARGE: usize = 100_000;

pub fn lab(workers: usize) -> Lab {
    Lab::with(workers, |builder| builder.retain_escaped(|| {}))
}

pub fn keep(values: &Array<u8>) {
    KEPT.lock().unwrap().push(values.clone());
}

/// The sum of all that is retained.
fn sum() -> u64 {
    let kept = KEPT.lock().unwrap();
    let sums = kept.iter().flat_map(|values| values.iter());
    sums.map(|&x| u64::from(x)).sum()
}

pub fn forget() {
    KEPT.lock().unwrap().clear();
    OWN.lock().unwrap().clear();
}

fn retained(lab: &Lab) -> u64 {
    lab.stats().retained()
}

/// Nothing is retained, no worker has ended, and no memory is in use.
pub fn assert_clean(lab: &Lab) {
    wait_until("nothing is retained", || retained(lab) == 0);
    assert_eq!(lab.stats().restarts(), 0);
    lab.assert_in_use(0);
}

fn an_input_is_retained_until_it_is_dropped() {
    let lab = lab(1);
    for len in [1, LARGE] {
        let values = lab.from_slice(&vec![1u8; len]).unwrap();
        lab.value_of(keep, (&values,));
        assert!(retained(&lab) >= len as u64);
        let values = values.try_into_mut().expect_err("a worker reads it");
        drop(values);
        assert!(retained(&lab) >= len as u64);
        assert!(lab.stats().arena.in_use >= len as u64);
        assert_eq!(lab.value_of(sum, ()), len as u64);
        lab.value_of(forget, ());
        assert_eq!(retained(&lab), 0);
    }
    // Several handles to the same array.
    let values = lab.from_slice(&vec![1u8; LARGE]).unwrap();
    for _ in 0..5 {
        lab.value_of(keep, (&values,));
        assert!(retained(&lab) < 2 * LARGE as u64);
    }
    lab.value_of(forget, ());
    assert!(values.try_into_mut().is_ok());
    assert_clean(&lab);
}

/// Empty parts of an array outlive the array. The memory where they began is granted again meanwhile.
fn handles_without_bytes_retain_nothing() {
    fn make(len: usize) -> Array<u8> {
        Array::from_fn(len, |i| i as u8)
    }
    fn keep_all(parts: &[Array<u8>]) {
        KEPT.lock().unwrap().extend_from_slice(parts);
    }
    fn give(which: usize) -> (Array<u8>, Array<u8>) {
        (KEPT.lock().unwrap()[which].clone(), make(2000))
    }
    let lab = lab(1);
    for len in [80_000, 400_000, 1_600_000] {
        let whole = lab.value_of(make, (len,));
        let parts: Vec<_> = (0..64)
            .map(|part| part * len / 64 + 3)
            .map(|at| whole.rows(at..at))
            .collect();
        lab.value_of(keep_all, (parts,));
        drop(whole);
        assert_eq!(retained(&lab), 0);
        for round in 0..500 {
            let (empty, full) = lab.value_of(give, (round % 64,));
            assert!(empty.is_empty() && full[1999] == 1999_usize as u8);
        }
        lab.value_of(forget, ());
    }
    assert_clean(&lab);
}

fn an_array_of_the_job_is_retained_and_writable() {
    fn make(len: usize, value: u8) {
        let _dropped = Array::from_fn(len, |_| 9u8);
        let mut own = ArrayMut::<u8>::zeros(len);
        let between = Array::from_fn(len, |_| 9u8);
        KEPT.lock().unwrap().push(Array::from_fn(len, |_| value));
        own.fill(value);
        drop(between);
        OWN.lock().unwrap().push(own);
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
    fn fresh(len: usize) -> Array<u8> {
        Array::from_fn(len, |_| 77)
    }
    let lab = lab(1);
    for len in [5, 5000, LARGE, 3 << 20] {
        lab.value_of(make, (len, 1));
        let one = retained(&lab);
        assert!(
            (2 * len as u64..2 * len as u64 + 2 * 4096).contains(&one),
            "{one} of {len}"
        );
        // Their memory is not given to other jobs.
        for _ in 0..20 {
            assert!(lab.value_of(fresh, (len,)).iter().all(|&x| x == 77));
        }
        assert_eq!(lab.value_of(sum, ()), len as u64);
        assert_eq!(lab.value_of(add_one, ()), 2 * len as u64);
        assert_eq!(lab.value_of(add_one, ()), 3 * len as u64);
        lab.value_of(forget, ());
        assert_eq!(retained(&lab), 0);
    }
    assert_clean(&lab);
}

fn one_array_of_many_is_retained() {
    fn keep_one(values: &[Array<u8>], at: usize) {
        KEPT.lock().unwrap().push(values[at].clone());
    }
    let lab = lab(1);
    let values: Vec<_> = (0..14)
        .map(|i| lab.from_slice(&vec![i; LARGE]).unwrap())
        .collect();
    lab.value_of(keep_one, (&values, 3));
    let one = retained(&lab);
    assert!((LARGE as u64..2 * LARGE as u64).contains(&one), "{one}");
    for (i, values) in values.into_iter().enumerate() {
        assert_eq!(values.try_into_mut().is_err(), i == 3);
    }
    assert_eq!(lab.value_of(sum, ()), 3 * LARGE as u64);
    lab.value_of(forget, ());
    assert_clean(&lab);
}

/// Without a copy: the memory in use does not grow.
fn a_retained_array_can_be_returned_later() {
    fn make(len: usize) {
        KEPT.lock().unwrap().push(Array::from_fn(len, |i| i as u8));
    }
    fn first() -> Array<u8> {
        KEPT.lock().unwrap()[0].clone()
    }
    let lab = lab(1);
    let input = lab.from_slice(&vec![3u8; LARGE]).unwrap();
    lab.value_of(keep, (input,));
    let before = lab.stats().arena.in_use;
    let again: Vec<_> = (0..10).map(|_| lab.value_of(first, ())).collect();
    assert!(
        again
            .iter()
            .all(|again| again.len() == LARGE && again[LARGE - 1] == 3)
    );
    assert_eq!(lab.stats().arena.in_use, before);
    lab.value_of(forget, ());
    assert_eq!(retained(&lab), 0);
    assert_eq!(again[0][7], 3);
    drop(again);
    for len in [100, LARGE] {
        lab.value_of(make, (len,));
        let again = lab.value_of(first, ());
        lab.value_of(forget, ());
        assert!(again.iter().enumerate().all(|(i, &x)| x == i as u8));
    }
    assert_clean(&lab);
}

fn failures_and_chains_retain_too() {
    fn refuse(values: &Array<u8>, text: usize) -> Result<u8, String> {
        keep(values);
        Err("x".repeat(text))
    }
    fn panic(values: &Array<u8>) {
        keep(values);
        panic!("{}", "y".repeat(300));
    }
    fn exhaust(values: &Array<u8>) -> Array<u8> {
        keep(values);
        Array::zeros(1 << 40)
    }
    fn made(len: usize, value: u8) -> Array<u8> {
        Array::from_fn(len, |_| value)
    }
    fn keep_and_count(values: &Array<u8>) -> u64 {
        keep(values);
        values.len() as u64
    }
    let lab = lab(1);
    for round in 1..4 {
        let values = lab.from_slice(&[1u8; 1000]).unwrap();
        for text in [0, 10, 1000] {
            let error = lab.error_of(refuse, (&values, text));
            assert_eq!(
                *error.kind(),
                JobErrorKind::Returned("x".repeat(text).into())
            );
        }
        let error = lab.error_of(panic, (&values,));
        assert_says(&error, &"y".repeat(300));
        let error = lab.error_of(exhaust, (&values,));
        assert_says(&error, "the arena is full");
        let chain = lab.job(made, (1000, 1)).then(keep_and_count, ()).submit();
        assert_eq!(chain.wait().unwrap(), 1000);
        drop(values);
        assert_eq!(lab.value_of(sum, ()), 6000 * round);
    }
    lab.value_of(forget, ());
    assert_clean(&lab);
}

/// More than a slot can name, and more releases than the link has room for.
fn many_arrays_are_retained() {
    fn keep_all(values: &[Array<u8>]) -> u64 {
        KEPT.lock().unwrap().extend(values.iter().cloned());
        let own = (0..values.len()).map(|i| Array::from_slice(&[i as u8]));
        KEPT.lock().unwrap().extend(own);
        values.len() as u64
    }
    let lab = lab(1);
    for count in [6, 7, 100, 2000] {
        let values: Vec<_> = (0..count)
            .map(|_| lab.from_slice(&[1u8; 10]).unwrap())
            .collect();
        assert_eq!(lab.value_of(keep_all, (&values,)), count);
        drop(values);
        assert_eq!(retained(&lab), 2 * 64 * count);
        lab.value_of(forget, ());
        wait_until("all are released", || retained(&lab) == 0);
    }
    assert_clean(&lab);
}

fn what_a_thread_drops_while_its_worker_sleeps() {
    fn hand_over(values: &Array<u8>, go: &str) {
        let (values, go) = (values.clone(), go.to_owned());
        let (ready, started) = channel();
        std::thread::spawn(move || {
            ready.send(()).unwrap();
            while !std::path::Path::new(&go).exists() {
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
            drop(values);
            std::fs::remove_file(go).unwrap();
        });
        started.recv().unwrap();
    }
    let lab = lab(1);
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let values = lab.from_slice(&[1u8; LARGE]).unwrap();
    lab.value_of(hand_over, (values, go.to_str().unwrap()));
    assert!(retained(&lab) >= LARGE as u64);
    std::fs::File::create(&go).unwrap();
    wait_until("the thread has dropped it", || !go.exists());
    // A full arena wakes the worker, which looks.
    wait_until("the drop is reported", || {
        lab.zeros::<u8>(1 << 40).unwrap_err();
        retained(&lab) == 0
    });
    assert_clean(&lab);
}

fn code_before_arrays_are_retained() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    fn clear() {
        CALLS.fetch_add(1, Ordering::Relaxed);
        KEPT.lock().unwrap().clear();
        // Its own arrays are private.
        OWN.lock().unwrap().push(ArrayMut::zeros(10));
        assert!(CALLS.load(Ordering::Relaxed) < 3, "a panic is printed");
    }
    fn calls() -> u32 {
        CALLS.load(Ordering::Relaxed)
    }
    let lab = Lab::with(1, |builder| builder.retain_escaped(clear));
    let values = lab.from_slice(&[1u8; LARGE]).unwrap();
    for round in 1..5 {
        lab.value_of(keep, (&values,));
        assert_eq!(retained(&lab), 0);
        assert_eq!(lab.value_of(calls, ()), round);
    }
    assert!(values.try_into_mut().is_ok());
    assert_clean(&lab);
}

fn recycling_frees_what_was_retained() {
    let lab = Lab::balanced_with(1, |builder| {
        builder.retain_escaped(|| {}).recycle_after_jobs(3)
    });
    for _ in 0..12 {
        lab.value_of(keep, (lab.from_slice(&[1u8; LARGE]).unwrap(),));
        assert!(retained(&lab) <= 3 * (LARGE as u64 + 4096));
    }
    wait_until("the last one is recycled", || lab.stats().recycled() == 4);
    assert_eq!((retained(&lab), lab.stats().restarts()), (0, 0));
}

fn a_full_arena_names_what_is_retained() {
    let lab = Lab::with(1, |builder| {
        builder.retain_escaped(|| {}).capacity(16 << 20)
    });
    let full = lab.zeros::<u8>(64 << 20).unwrap_err();
    assert_eq!(full.retained, 0);
    assert!(!full.to_string().contains("retain"), "{full}");
    lab.value_of(keep, (lab.from_slice(&vec![1u8; 8 << 20]).unwrap(),));
    let full = lab.zeros::<u8>(12 << 20).unwrap_err();
    assert!((8 << 20..9 << 20).contains(&full.retained), "{full}");
    let text = format!("workers retain {} bytes", full.retained);
    assert_says(&full, &text);
    // In a kernel too.
    let error = lab.error_of(|| Array::<u8>::zeros(12 << 20), ());
    assert_says(&error, &text);
    lab.value_of(forget, ());
    lab.zeros::<u8>(12 << 20).unwrap();
    assert_clean(&lab);
}

fn actors_retain_what_they_were_given() {
    struct Table {
        first: Array<u8>,
        others: Vec<Array<u8>>,
    }
    fn start(first: &Array<u8>, second: &Array<u8>) -> Table {
        keep(second);
        Table {
            first: first.clone(),
            others: Vec::new(),
        }
    }
    fn add(table: &mut Table, more: &Array<u8>) -> u64 {
        table.others.push(more.clone());
        let all = table.others.iter().chain([&table.first]);
        all.map(|values| values.len() as u64).sum()
    }
    fn first(table: &Table) -> Array<u8> {
        table.first.clone()
    }
    let lab = lab(1);
    let values: Vec<_> = (1..6)
        .map(|i| lab.from_slice(&vec![i; LARGE]).unwrap())
        .collect();
    for _ in 0..3 {
        let actor = lab.actor(start, (&values[0], &values[1])).start();
        for (i, value) in (2..).zip(&values[2..]) {
            let sum = actor.call(add, (value,)).wait().unwrap();
            assert_eq!(sum, i * LARGE as u64);
        }
        let one = LARGE.next_multiple_of(4096) as u64;
        assert_eq!(retained(&lab), 5 * one);
        assert_eq!(actor.call(first, ()).wait().unwrap()[..], values[0][..]);
        drop(actor);
        wait_until("the state is gone", || retained(&lab) == one);
        assert_eq!(lab.value_of(sum, ()), 2 * LARGE as u64);
        lab.value_of(forget, ());
        assert_eq!(retained(&lab), 0);
    }
    drop(values);
    assert_clean(&lab);
}

/// What a job of one lane has left, jobs of others change, seal, make exclusive again, return and drop. The bytes of an
/// array are equal at all times.
fn lanes_hand_arrays_to_each_other() {
    fn take<T>(shelf: &Mutex<Vec<T>>, dice: &mut Dice) -> Option<T> {
        let mut shelf = shelf.lock().unwrap();
        let at = dice.below(shelf.len().max(1) as u64) as usize;
        (at < shelf.len()).then(|| shelf.swap_remove(at))
    }
    fn is_whole(values: &[u8]) -> bool {
        values.iter().all(|value| *value == values[0])
    }
    fn mix(seed: u64, given: &Array<u8>) -> Option<Array<u8>> {
        let mut dice = Dice::new(seed);
        let own = |own| OWN.lock().unwrap().push(own);
        keep(given);
        for _ in 0..5 {
            let value = dice.below(256) as u8;
            match dice.below(6) {
                0 => own(ArrayMut::from_fn(1 + dice.below(100_000) as usize, |_| {
                    value
                })),
                1 | 2 => {
                    let Some(mut changed) = take(&OWN, &mut dice) else {
                        continue;
                    };
                    assert!(is_whole(&changed), "exclusive");
                    changed.fill(value);
                    match value % 2 {
                        0 => own(changed),
                        _ => keep(&changed.seal()),
                    }
                }
                3 => drop(take(&KEPT, &mut dice)),
                _ => {
                    let Some(sealed) = take(&KEPT, &mut dice) else {
                        continue;
                    };
                    assert!(is_whole(&sealed), "sealed");
                    match sealed.try_into_mut() {
                        Ok(mut changed) => {
                            changed.fill(value);
                            own(changed);
                        }
                        Err(sealed) => keep(&sealed.rows(..sealed.len().div_ceil(2))),
                    }
                }
            }
        }
        take(&KEPT, &mut dice).filter(|array| is_whole(array))
    }
    /// Takes longer than a wake-up, so that such jobs are worth other workers than the first.
    fn forget_slowly() {
        forget();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1) {}
    }
    let lab = Lab::with(2, |builder| builder.retain_escaped(|| {}).lanes(3));
    for seed in seeds(2) {
        let mut results = vec![lab.from_slice(&[0; LARGE]).unwrap()];
        for round in 0..20 {
            let jobs: Vec<_> = (0..30)
                .map(|job| {
                    let given = &results[job as usize % results.len()];
                    lab.submit(mix, (seed ^ (round << 32 | job), given))
                })
                .collect();
            results.extend(jobs.into_iter().filter_map(|job| job.wait().unwrap()));
            assert!(results.iter().all(|result| is_whole(result)));
            results.drain(1..results.len().saturating_sub(20).max(1));
        }
    }
    // A lane notices what another has dropped when it looks.
    wait_until("all lanes of both workers have looked", || {
        let jobs: Vec<_> = (0..12).map(|_| lab.submit(forget_slowly, ())).collect();
        jobs.into_iter().for_each(|job| job.wait().unwrap());
        lab.zeros::<u8>(1 << 40).unwrap_err();
        retained(&lab) == 0
    });
    assert_clean(&lab);
}
