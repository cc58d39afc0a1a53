//! Large amounts of memory, many arrays, and no leaks.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use arenite::engine::BuildError;
use arenite::{Array, ArrayMut, JobErrorKind, JobLimit};

use crate::harness::{
    Calls, Lab, are_all, assert_says, at_gates, builder, filled, pass, step, tests, wait_until,
};

tests![
    a_full_arena_at_submit,
    jobs_that_take_all_they_get_leave_others_a_share,
    a_worker_reaches_its_limit_in_the_arena,
    one_job_takes_the_whole_arena,
    a_hundred_thousand_live_arrays,
    ten_thousand_arrays_again_and_again,
    results_again_and_again,
    a_job_that_makes_and_drops_arrays_for_long,
    trim_returns_memory_to_the_system,
    memory_without_use_returns_to_the_system,
    every_backing,
];

fn a_full_arena_at_submit() {
    fn len(text: &str) -> usize {
        text.len()
    }
    let lab = Lab::balanced_with(1, |builder| builder.capacity(16 << 20));
    // Everything, to the last page.
    let mut all = Vec::new();
    for size in [1 << 20, 4096] {
        while let Ok(array) = lab.zeros::<u8>(size) {
            all.push(array);
        }
    }
    let long = "x".repeat(10_000);
    let error = lab.error_of(len, (&long,));
    let JobErrorKind::Limit(JobLimit::Arena(full)) = error.kind() else {
        panic!("{error}")
    };
    assert!(full.requested >= 10_000 && full.free < 10_000, "{full:?}");
    // What fits into a slot needs no arena memory.
    assert_eq!(lab.value_of(len, ("short",)), 5);
    all.clear();
    assert_eq!(lab.value_of(len, (&long,)), 10_000);
}

/// Takes arena memory in pieces until it gets no more, then waits. Returns how much it had.
fn hog(gate: &str, piece: usize) -> u64 {
    let mut all = Vec::new();
    while let Ok(mut array) = ArrayMut::<u8>::try_zeros(piece) {
        array.fill(1);
        all.push(array);
    }
    pass(gate);
    (all.len() * piece) as u64
}

fn made(len: usize) -> Array<u8> {
    Array::zeros(len)
}

fn jobs_that_take_all_they_get_leave_others_a_share() {
    const CAPACITY: usize = 64 << 20;
    for (workers, lanes, hogs) in [(2, 1, 1), (4, 1, 1), (4, 1, 3), (2, 2, 1)] {
        step(format!("{hogs} jobs of {workers} workers"));
        let lab = Lab::balanced_with(workers, |builder| {
            builder.capacity(CAPACITY as u64).lanes(lanes)
        });
        let (jobs, held) = at_gates(hogs, |gate| lab.submit(hog, (gate, 256 << 10)));
        // On the worker, or lane, that is left.
        let share = CAPACITY / 4 / workers;
        for len in [400_000, share / 2] {
            assert_eq!(lab.value_of(made, (len,)).len(), len);
        }
        drop(held);
        let taken: u64 = jobs.into_iter().map(|job| job.wait().unwrap()).sum();
        // Nearly all that the share leaves.
        let least = (CAPACITY / 4 * 3 - (hogs << 20)) as u64;
        assert!(
            (least..(CAPACITY - share / 2) as u64).contains(&taken),
            "{taken} of {CAPACITY} bytes"
        );
    }
}

/// The limit holds over all lanes of a worker, and results that were returned do not count.
fn a_worker_reaches_its_limit_in_the_arena() {
    const LIMIT: u64 = 8 << 20;
    for lanes in [1, 2] {
        let lab = Lab::balanced_with(2, |builder| {
            builder
                .capacity(64 << 20)
                .lanes(lanes)
                .max_arena_per_worker(LIMIT)
        });
        let error = lab.error_of(made, (9 << 20,));
        let JobErrorKind::Limit(JobLimit::ArenaShare(full)) = error.kind() else {
            panic!("{error}")
        };
        assert_eq!(
            (full.requested, full.worker_share(), full.limit()),
            (9 << 20, Some(LIMIT), None)
        );
        let text = error.to_string();
        for part in ["8388608", "9437184", "max_arena_per_worker"] {
            assert_says(&text, part);
        }
        let (jobs, held) = at_gates(2 * lanes, |gate| lab.submit(hog, (gate, 64 << 10)));
        drop(held);
        let taken: u64 = jobs.into_iter().map(|job| job.wait().unwrap()).sum();
        assert!(
            (LIMIT..=2 * LIMIT).contains(&taken),
            "{taken} bytes of two workers"
        );
        let all: Vec<_> = (0..8).map(|_| lab.value_of(made, (6 << 20,))).collect();
        assert!(all.iter().all(|array| array.len() == 6 << 20));
    }
    for fraction in [0.0, -1.0, 1e-9, 1.1, f64::NAN] {
        let builder = builder(1, 64 << 20);
        let error = builder
            .max_arena_fraction_per_worker(fraction)
            .build()
            .unwrap_err();
        assert!(
            matches!(
                error,
                BuildError::BadLimit {
                    limit: "max_arena_per_worker",
                    ..
                }
            ),
            "{error}"
        );
    }
}

/// Where the others need nothing, or the program says so.
fn one_job_takes_the_whole_arena() {
    const CAPACITY: u64 = 64 << 20;
    let most = (CAPACITY - (4 << 20)) as usize;
    let lab = Lab::with(1, |builder| builder.capacity(CAPACITY));
    assert_eq!(lab.value_of(made, (most,)).len(), most);
    let lab = Lab::with(2, |builder| builder.capacity(CAPACITY));
    assert_eq!(lab.value_of(made, (most / 8 * 7,)).len(), most / 8 * 7);
    for whole in [CAPACITY, u64::MAX] {
        let lab = Lab::with(2, |builder| {
            builder.capacity(CAPACITY).max_arena_per_worker(whole)
        });
        assert_eq!(lab.value_of(made, (most,)).len(), most);
    }
}

fn a_hundred_thousand_live_arrays() {
    fn sum(values: &[u32]) -> u32 {
        values.iter().sum()
    }
    let lab = Lab::balanced(2);
    let arrays: Vec<_> = (0..100_000u32)
        .map(|n| lab.from_slice(&[n, 1]).unwrap())
        .collect();
    assert!(lab.stats().arena.blocks >= 100_000);
    for (n, array) in arrays.iter().enumerate().step_by(997) {
        assert_eq!(array[..], [n as u32, 1]);
    }
    for (n, sum) in (0..100_000).zip(lab.map(sum, arrays.iter().map(|array| (array,)))) {
        assert_eq!(sum.unwrap(), n + 1);
    }
    // Half of them made by workers.
    let made: Vec<_> = lab
        .map(|n: u32| Array::from_slice(&[n]), (0..50_000).map(|n| (n,)))
        .map(Result::unwrap)
        .collect();
    assert!(made.iter().zip(0..).all(|(array, n)| array[..] == [n]));
}

fn ten_thousand_arrays_again_and_again() {
    let lab = Lab::balanced(1);
    let round = |size: usize| {
        for n in 0..10_000usize {
            let bytes = &[n as u8; 1100][..size + n % 100];
            let array = lab.from_slice(bytes).unwrap();
            assert_eq!(array[..], *bytes);
        }
    };
    round(1000);
    let committed = lab.stats().arena.committed;
    for _ in 0..20 {
        round(1000);
    }
    assert_eq!(
        lab.stats().arena.committed,
        committed,
        "committed memory is flat"
    );
    // In batches, so that results are reordered.
    let many = || {
        let mut live = std::collections::VecDeque::new();
        for n in 0..10_000usize {
            live.push_back(lab.zeros::<u8>(100 + n % 7 * 1000).unwrap());
            if n % 3 == 2 {
                live.swap_remove_back(live.len() / 2);
                live.pop_front();
            }
            live.truncate(500);
        }
    };
    many();
    let committed = lab.stats().arena.committed;
    (0..10).for_each(|_| many());
    assert_eq!(
        lab.stats().arena.committed,
        committed,
        "committed memory is flat"
    );
}

fn results_again_and_again() {
    fn sealed(len: usize, value: u8) -> Array<u8> {
        filled(len, value).seal()
    }
    let lab = Lab::balanced(2);
    let round = |len: usize| {
        let results = lab.map(sealed, (0..10_000usize).map(|n| (len + n % 100, n as u8)));
        for (n, array) in results.enumerate() {
            let array = array.unwrap();
            assert_eq!(
                (array.len(), array[0], array[array.len() - 1]),
                (len + n % 100, n as u8, n as u8)
            );
        }
    };
    // The arena keeps some memory that it once needed, but no more, however much passes through it: here 500 MB.
    const KEPT: u64 = 40 << 20;
    for len in [1, 1000, 4000] {
        (0..10).for_each(|_| round(len));
        let now = lab.stats().arena;
        assert!(
            now.committed <= KEPT,
            "committed with results of {len} bytes: {now:?}"
        );
    }
}

/// It uses about what it holds at one time, and its result may be anywhere in that.
fn a_job_that_makes_and_drops_arrays_for_long() {
    fn churned(steps: usize, len: usize) -> (Array<u8>, ArrayMut<u8>, Array<u8>) {
        let mut live = std::collections::VecDeque::new();
        for step in 0..steps {
            let len = len + step * 7919 % len;
            live.push_back((step, filled(len, step as u8)));
            if live.len() > 4 {
                let (step, old) = live.pop_front().unwrap();
                assert!(are_all(&old, step as u8), "{step} was changed");
            }
        }
        let mut last = live.into_iter().map(|(_, array)| array);
        let mut next = || last.next().unwrap();
        let (first, _, third, fourth) = (next(), next(), next(), next());
        (first.seal(), fourth, third.seal())
    }
    const STEPS: usize = 400;
    for lanes in [1, 3] {
        let lab = Lab::balanced_with(1, |builder| builder.capacity(64 << 20).lanes(lanes));
        for len in [1000, 70_000, 200_000] {
            let results = lab.map(churned, (0..2 * lanes).map(|_| (STEPS, len)));
            for result in results {
                let (first, fourth, third) = result.unwrap();
                for (back, array) in [(4, &first), (2, &third), (1, &fourth.seal())] {
                    let step = STEPS - back;
                    assert_eq!(array.len(), len + step * 7919 % len);
                    assert!(are_all(array, step as u8), "{step} of {len}");
                }
            }
        }
    }
}

fn trim_returns_memory_to_the_system() {
    let lab = Lab::balanced(1);
    let large = lab.zeros::<u8>(64 << 20).unwrap();
    let kept = lab.from_slice(&[5u8; 100]).unwrap();
    let with = lab.stats().arena.committed;
    assert!(with >= 64 << 20);
    drop(large);
    let given = lab.trim();
    assert!(given >= 60 << 20, "{given} bytes");
    assert!(lab.stats().arena.committed <= with - given);
    assert_eq!(kept[..], [5; 100]);
    assert_eq!(
        lab.zeros::<u8>(64 << 20)
            .unwrap()
            .iter()
            .filter(|&&x| x != 0)
            .count(),
        0
    );
}

/// Without a call: the engine is idle.
fn memory_without_use_returns_to_the_system() {
    // As Linux counts it, in the memory files of this program.
    let committed = || -> u64 {
        let files = fs::read_dir("/proc/self/fd").unwrap();
        let regions = files.filter_map(|file| {
            let path = file.ok()?.path();
            let is_region = fs::read_link(&path)
                .is_ok_and(|name| name.to_string_lossy().starts_with("/memfd:arenite-region"));
            is_region.then(|| fs::metadata(&path).map_or(0, |meta| 512 * meta.blocks()))
        });
        regions.sum()
    };
    let lab = Lab::new(1);
    let kept = lab.from_slice(&[5u8; 100]).unwrap();
    drop(lab.zeros::<u8>(64 << 20).unwrap());
    assert!(committed() >= 64 << 20, "it may be needed again");
    wait_until("memory returns", || committed() < 8 << 20);
    assert_eq!(kept[..], [5; 100]);
    assert!(committed() >= lab.stats().arena.in_use);
}

fn every_backing() {
    use arenite::Backing;
    fn double(values: &Array<u16>) -> Array<u16> {
        Array::from_fn(values.shape(), |i| values[i] * 2)
    }
    for backing in [
        Backing::Auto,
        Backing::Named,
        Backing::Memfd,
        Backing::Sealed,
    ] {
        let lab = Lab::balanced_with(2, |builder| builder.backing(backing));
        for len in [3usize, 1_000_000] {
            let values = lab.from_fn(len, |i| i as u16 % 1000).unwrap();
            let doubled = lab.value_of(double, (&values,));
            assert!(
                doubled.iter().zip(values.iter()).all(|(&a, &b)| a == 2 * b),
                "{backing:?}"
            );
        }
    }
}
