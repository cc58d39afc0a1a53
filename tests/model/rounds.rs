//! Iterative algorithms: a round costs its jobs and nothing else, because workers keep what they have.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arenite::{Array, Engine, JobErrorKind};

use crate::harness::{Lab, tests};

tests![
    scratch_is_made_once_per_worker,
    scratch_ends_with_its_worker,
    a_panic_costs_the_value_and_not_the_worker,
    an_array_cannot_be_kept,
    rounds_copy_nothing,
    a_round_outlives_a_killed_worker,
];

/// How often a value was made in this process.
static MADE: AtomicU64 = AtomicU64::new(0);

struct Table(Vec<u64>);

fn table() -> arenite::Scratch<Table> {
    arenite::scratch(|| {
        MADE.fetch_add(1, Relaxed);
        Table(vec![0; 1000])
    })
}

/// How many values this process has made, and how many jobs have used the one that it has.
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
    assert!(matches!(error.kind(), JobErrorKind::Panicked { .. }));
    assert_eq!(lab.submit(count, (0,)).wait().unwrap(), [2, 1]);
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn an_array_cannot_be_kept() {
    fn keeps(values: &Array<u64>) -> u64 {
        let kept = arenite::scratch(|| values.clone());
        kept[0]
    }
    let lab = Lab::new(1);
    let values = lab.from_slice(&[5u64]).unwrap();
    let error = lab.failure_of(lab.submit(keeps, (&values,)));
    assert_eq!(*error.kind(), JobErrorKind::Escaped { count: 1 });
    drop(values);
    assert_eq!(lab.submit(count, (0,)).wait().unwrap(), [1, 1]);
    lab.assert_in_use(0);
}

/// Newton's method for many square roots: each round reads the numbers and what the round before made.
fn improve(numbers: &[f64], roots: &[f64]) -> Array<f64> {
    let mut buffer = arenite::scratch(Vec::<f64>::new);
    buffer.clear();
    buffer.extend(numbers.iter().zip(roots).map(|(n, x)| (x + n / x) / 2.0));
    Array::from_slice(&buffer)
}

fn round(engine: &Engine, numbers: &Array<f64>, roots: &[Array<f64>]) -> Vec<Array<f64>> {
    let parts = numbers.partitions(roots.len()).zip(roots);
    let map = engine.map(improve, parts).retries(5);
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
        // The results of a round take the room of those of the round before.
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

fn a_round_outlives_a_killed_worker() {
    let lab = Lab::new(2);
    let (numbers, mut roots) = start(&lab);
    let (_, mut undisturbed) = start(&lab);
    for step in 0..10 {
        undisturbed = round(&lab, &numbers, &undisturbed);
        roots = std::thread::scope(|threads| {
            threads.spawn(|| lab.replace(step % 2));
            round(&lab, &numbers, &roots)
        });
    }
    let bits = |parts: &[Array<f64>]| -> Vec<u64> {
        parts
            .iter()
            .flat_map(|part| part.iter().map(|x| x.to_bits()))
            .collect()
    };
    assert_eq!(bits(&roots), bits(&undisturbed));
}
