//! Iterative algorithms: rounds copy nothing, because inputs and scratch values stay in the workers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arenite::{Array, Engine, JobErrorKind, JobOptions, WorkerExit};

use crate::harness::{Lab, assert_kind, step, tests};

tests![
    scratch_is_made_once_per_worker,
    scratch_ends_with_its_worker,
    a_panic_costs_the_value_and_not_the_worker,
    an_array_cannot_be_stored_in_scratch,
    inputs_and_scratch_do_not_move_between_rounds,
    rounds_copy_nothing,
];

/// The number of values made in this process.
static MADE: AtomicU64 = AtomicU64::new(0);

struct Table(Vec<u64>);

fn table() -> arenite::Scratch<Table> {
    arenite::scratch(|| {
        MADE.fetch_add(1, Relaxed);
        Table(vec![0; 1000])
    })
}

/// The number of values made by this process, and the number of jobs that have used the current one.
fn count(_: u64) -> [u64; 2] {
    let mut table = table();
    table.0[0] += 1;
    [MADE.load(Relaxed), table.0[0]]
}

fn scratch_is_made_once_per_worker() {
    let lab = Lab::new(3);
    let mut most = 0;
    for round in 0..20 {
        let counts = lab.map(count, (0..50u64).map(|n| (n,)));
        for [made, uses] in counts.map(Result::unwrap) {
            assert_eq!(made, 1, "round {round}");
            most = most.max(uses);
        }
    }
    let jobs: u64 = lab.stats().workers.iter().map(|worker| worker.jobs).sum();
    assert!(
        most >= jobs / 3,
        "one of three has had a third of {jobs}: {most}"
    );
    lab.assert_in_use(0);
}

fn scratch_ends_with_its_worker() {
    let lab = Lab::new(1);
    let uses = |lab: &Lab| lab.submit(count, (0,)).wait().unwrap();
    assert_eq!([uses(&lab), uses(&lab)], [[1, 1], [1, 2]]);
    lab.replace(0);
    assert_eq!([uses(&lab), uses(&lab)], [[1, 1], [1, 2]]);
    let lab = Lab::with(1, |builder| builder.recycle_after_jobs(3));
    let seen: Vec<u64> = (0..7).map(|_| uses(&lab)[1]).collect();
    assert_eq!(seen, [1, 2, 3, 1, 2, 3, 1]);
}

fn a_panic_costs_the_value_and_not_the_worker() {
    fn spoils() {
        let mut table = table();
        table.0.clear();
        panic!("half done");
    }
    let lab = Lab::new(1);
    assert_eq!(lab.submit(count, (0,)).wait().unwrap(), [1, 1]);
    let error = lab.failure_of(lab.submit(spoils, ()));
    assert_kind!(error, JobErrorKind::Panicked { .. });
    assert_eq!(lab.submit(count, (0,)).wait().unwrap(), [2, 1]);
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn an_array_cannot_be_stored_in_scratch() {
    fn keeps(values: &Array<u64>) -> u64 {
        let kept = arenite::scratch(|| values.clone());
        kept[0]
    }
    let lab = Lab::new(1);
    let values = lab.from_slice(&[5u64]).unwrap();
    let error = lab.failure_of(lab.submit(keeps, (&values,)));
    assert_kind!(error, JobErrorKind::Lost(WorkerExit::Escaped { count: 1 }));
    drop(values);
    assert_eq!(lab.submit(count, (0,)).wait().unwrap(), [1, 1]);
    lab.assert_in_use(0);
}

/// Identifies the memory of a slice: the inode of the mapped file, and the offset in it. Equal in two processes means
/// the same memory.
fn memory_of(values: &[f64]) -> [u64; 2] {
    let at = values.as_ptr().addr() as u64;
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let found = maps.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (start, end) = words[0].split_once('-')?;
        let (start, inode) = (hex(start), words[4].parse().unwrap());
        let is_it = (start..hex(end)).contains(&at);
        is_it.then(|| [inode, hex(words[2]) + at - start])
    });
    found.expect("it is mapped")
}

/// The process id, the memory of the arguments, and the address of the scratch value.
fn places(part: &[f64], model: &Array<f64>) -> [u64; 6] {
    let mut buffer = arenite::scratch(Vec::<f64>::new);
    buffer.clear();
    buffer.extend_from_slice(part);
    let ([a, b], [c, d]) = (memory_of(part), memory_of(model));
    let scratch = buffer.as_ptr().addr() as u64;
    [std::process::id().into(), a, b, c, d, scratch]
}

fn inputs_and_scratch_do_not_move_between_rounds() {
    let lab = Lab::new(2);
    let numbers = lab.from_fn(100_000, |i| i as f64).unwrap();
    let model = lab.from_fn(10_000, |i| i as f64).unwrap();
    let parts: Vec<_> = numbers.partitions(8).collect();
    let expected: Vec<_> = parts.iter().map(|part| memory_of(part)).collect();
    assert_ne!(expected[0][0], 0, "shared memory has an inode");
    let mut scratch: HashMap<u64, u64> = HashMap::new();
    let mut round = 0;
    while round < 20 || scratch.len() < 2 {
        step(format!("round {round}, {} workers came", scratch.len()));
        let given = parts.iter().map(|part| (part, &model));
        for (seen, expected) in lab.map(places, given).zip(&expected) {
            let [worker, a, b, c, d, buffer] = seen.unwrap();
            assert_eq!([a, b], *expected, "a part, in round {round}");
            assert_eq!([c, d], memory_of(&model), "the model, in round {round}");
            let first = *scratch.entry(worker).or_insert(buffer);
            assert_eq!(first, buffer, "scratch, in round {round}");
        }
        round += 1;
    }
    assert!(!scratch.contains_key(&std::process::id().into()));
}

/// Newton's method for many square roots: each round reads the numbers and the result of the previous round.
fn improve(numbers: &[f64], roots: &[f64]) -> Array<f64> {
    let mut buffer = arenite::scratch(Vec::<f64>::new);
    buffer.clear();
    buffer.extend(numbers.iter().zip(roots).map(|(n, x)| (x + n / x) / 2.0));
    Array::from_slice(&buffer)
}

fn round(engine: &Engine, numbers: &Array<f64>, roots: &[Array<f64>]) -> Vec<Array<f64>> {
    let parts = numbers.partitions(roots.len()).zip(roots);
    let map = engine
        .map(improve, parts)
        .options(&JobOptions::new().retries(5));
    map.collect::<Result<_, _>>().unwrap()
}

fn start(lab: &Lab) -> (Array<f64>, Vec<Array<f64>>) {
    let numbers = lab.from_fn(100_000, |i| i as f64 + 1.0).unwrap();
    let first = lab.from_fn(100_000, |_| 300.0).unwrap();
    let roots = first.partitions(8).collect();
    (numbers, roots)
}

fn rounds_copy_nothing() {
    let lab = Lab::new(2);
    let (numbers, mut roots) = start(&lab);
    roots = round(&lab, &numbers, &roots);
    let after_one = lab.stats().arena.in_use;
    for _ in 0..20 {
        roots = round(&lab, &numbers, &roots);
        // The results of a round reuse the memory of earlier ones.
        let now = lab.stats().arena.in_use;
        assert!(
            now <= 2 * after_one,
            "{now} bytes, {after_one} after one round"
        );
    }
    let roots = roots.iter().flat_map(|part| part.iter());
    assert!(
        numbers
            .iter()
            .zip(roots)
            .all(|(n, x)| (x * x - n).abs() < 1e-6)
    );
}
