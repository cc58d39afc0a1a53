//! Sums, scans, histograms and reductions: the same bits for any number of workers, also when one is killed.

use std::thread;
use std::time::Duration;

use arenite::par::Number;
use arenite::{Array, ArrayMut, Engine, JobErrorKind, JobLimit, Spawn, call};

use crate::harness::{ABORTED, Gate, Lab, assert_kind, pass, step, tests};

tests![
    the_same_bits_for_any_number_of_workers,
    sums_of_all_types,
    results_out_of_range_are_errors,
    empty_inputs,
    argmax_returns_the_first_of_equals,
    nan_propagates,
    running_totals,
    an_overflowing_running_total_is_an_error,
    counts_in_bins,
    too_many_bins_for_the_arena_are_an_error,
    too_many_bins_for_the_program_are_an_error,
    a_scan_names_the_worker_that_died,
    a_reduction_combines_rows,
    a_reduction_of_small_chunks_is_few_jobs,
    a_slow_chunk_of_a_reduction_holds_up_no_other,
    a_reduction_of_texts_shows_its_tree,
    a_reduction_names_what_failed,
    a_reduction_whose_kernels_spawn,
    reductions_leave_nothing_behind,
];

/// Numbers of very different magnitude, so that each order of addition gives other bits.
fn noise(len: usize) -> impl Iterator<Item = f32> {
    (0..len as u32).map(|i| {
        let mixed = (i ^ 0x9e37).wrapping_mul(0x85eb_ca6b);
        (mixed as f32 - 2e9) / (1 << (mixed % 23)) as f32
    })
}

fn array(engine: &Engine, len: usize) -> Array<f32> {
    let mut noise = noise(len);
    engine.from_fn(len, |_| noise.next().unwrap()).unwrap()
}

/// All results that depend on the order of addition.
fn figures(engine: &Engine) -> Vec<u32> {
    let mut bits = Vec::new();
    for len in [1, 511, 513, 20_000, 300_001] {
        let a = array(engine, len);
        bits.push(engine.par(&a).sum().unwrap().to_bits());
        bits.push((engine.par(&a).mean().unwrap() as f32).to_bits());
        let cumulative = engine.par(&a).cumsum().unwrap();
        bits.extend(cumulative.iter().step_by(1009).map(|x| x.to_bits()));
        let by_hand = engine.par(&a).scan(|a: f32, b: f32| a + b).unwrap();
        assert_eq!(by_hand[len - 1].to_bits(), cumulative[len - 1].to_bits());
        let reduced = engine.par(&a).reduce(plain_sum, (), |a: f32, b: f32| a + b);
        bits.push(reduced.unwrap().to_bits());
    }
    bits
}

fn plain_sum(x: &[f32]) -> f32 {
    x.iter().sum()
}

fn the_same_bits_for_any_number_of_workers() {
    let alone = figures(&Engine::inline());
    for workers in [1, 2, 7] {
        step(format!("{workers} workers"));
        let lab = Lab::new(workers);
        // Chunks are fixed; the workers that run them vary.
        for _ in 0..3 {
            assert_eq!(figures(&lab), alone, "{workers} workers");
        }
        lab.assert_in_use(0);
    }
    // The order does matter for these numbers.
    let sum: f32 = noise(300_001).sum();
    let backwards: f32 = noise(300_001).collect::<Vec<_>>().iter().rev().sum();
    assert_ne!(sum.to_bits(), backwards.to_bits());
}

fn sums_of_all_types() {
    fn check<T: Number + TryFrom<i32>>(lab: &Lab) -> T::Sum
    where
        T::Error: std::fmt::Debug,
    {
        let of = |x: usize| T::try_from(x as i32).unwrap();
        let a = lab.from_fn([300, 1000], |i| of(i % 100)).unwrap();
        let par = || lab.par(&a);
        assert_eq!(par().mean().unwrap(), 49.5);
        assert!(par().min().unwrap().is_some_and(|x| x == of(0)));
        assert!(par().max().unwrap().is_some_and(|x| x == of(99)));
        assert_eq!(par().argmin().unwrap(), Some(0));
        assert_eq!(par().argmax().unwrap(), Some(99));
        par().sum().unwrap()
    }
    let lab = Lab::new(2);
    let signed = [check::<i8>, check::<i16>, check::<i32>, check::<i64>];
    assert_eq!(signed.map(|check| check(&lab)), [14_850_000_i64; 4]);
    let unsigned = [check::<u8>, check::<u16>, check::<u32>, check::<u64>];
    assert_eq!(unsigned.map(|check| check(&lab)), [14_850_000_u64; 4]);
    let tenths = lab.from_fn(1 << 20, |_| 0.1f64).unwrap();
    assert!((lab.par(&tenths).sum().unwrap() - 104_857.6).abs() < 1e-9);
    lab.assert_in_use(tenths.len() as u64 * 8);
}

fn results_out_of_range_are_errors() {
    let lab = Lab::new(2);
    let large = lab.from_fn(100_000, |_| i64::MAX).unwrap();
    let error = lab.par(&large).sum().unwrap_err();
    assert!(error.to_string().contains("out of range of i64"), "{error}");
    assert_eq!(lab.par(&large).mean().unwrap(), i64::MAX as f64);
    let back = lab.from_fn(100_001, |i| [u64::MAX, 0][i % 2]).unwrap();
    assert!(lab.par(&back).sum().is_err());
    // Intermediate results may be out of range.
    let back = |i| if i < 50_000 { i64::MAX } else { -i64::MAX };
    let back = lab.from_fn(100_000, back).unwrap();
    assert_eq!(lab.par(&back).sum().unwrap(), 0);
}

fn empty_inputs() {
    let lab = Lab::new(2);
    let shapes = [arenite::Shape::from(0), [0, 5].into(), [5, 0].into()];
    for (shape, parts) in shapes.into_iter().zip([0, 0, 4]) {
        let none = lab.zeros::<f32>(shape).unwrap().seal();
        let par = || lab.par(&none);
        assert_eq!(par().sum().unwrap(), 0.0);
        assert!(par().mean().unwrap().is_nan());
        assert_eq!(par().min().unwrap(), None);
        assert_eq!(par().argmax().unwrap(), None);
        assert_eq!(par().cumsum().unwrap().shape(), shape);
        let histogram = par().histogram(3, (0.0, 1.0)).unwrap();
        assert_eq!(histogram.counts, [0; 3]);
        let sum = par().reduce(plain_sum, (), |a: f32, b: f32| a + b);
        assert_eq!(sum.unwrap(), 0.0);
        assert_eq!(none.partitions(4).count(), parts, "{shape:?}");
        assert!(none.partitions(4).all(|part| part.is_empty()));
    }
    lab.assert_in_use(0);
}

fn argmax_returns_the_first_of_equals() {
    let lab = Lab::new(3);
    // In several chunks.
    let mut a = lab.zeros::<i32>([1000, 500]).unwrap();
    for at in [30_000, 200_000, 499_999] {
        a[at] = 5;
        a[at - 1] = -5;
    }
    let a = a.seal();
    assert_eq!(lab.par(&a).argmax().unwrap(), Some(30_000));
    assert_eq!(lab.par(&a).argmin().unwrap(), Some(29_999));
    assert_eq!(
        (lab.par(&a).min().unwrap(), lab.par(&a).max().unwrap()),
        (Some(-5), Some(5))
    );
}

fn nan_propagates() {
    let lab = Lab::new(2);
    let mut a = lab.zeros::<f64>(300_000).unwrap();
    (a[7], a[8]) = (f64::INFINITY, f64::NEG_INFINITY);
    (a[250_000], a[270_000]) = (f64::NAN, f64::NAN);
    let a = a.seal();
    assert!(lab.par(&a).min().unwrap().is_some_and(f64::is_nan));
    assert!(lab.par(&a).max().unwrap().is_some_and(f64::is_nan));
    assert_eq!(lab.par(&a).argmin().unwrap(), Some(250_000));
    assert_eq!(lab.par(&a).argmax().unwrap(), Some(250_000));
    let counts = lab.par(&a).histogram(2, (0.0, 1.0)).unwrap().counts;
    assert_eq!(counts, [299_996, 0]);
}

fn running_totals() {
    let lab = Lab::new(2);
    let bytes = lab.from_fn([100, 3000], |i| (i % 251) as u8).unwrap();
    let sums = lab.par(&bytes).cumsum().unwrap();
    assert_eq!(sums.shape(), bytes.shape());
    let mut expected = 0;
    for (sum, &byte) in sums.iter().zip(bytes.iter()) {
        expected += u64::from(byte);
        assert_eq!(*sum, expected);
    }
    // Associative but not commutative: the last nonzero value.
    let last = |a: u16, b: u16| if b == 0 { a } else { b };
    let ends = |i: usize| i % 5000 == 4999;
    let sparse = |i| if ends(i) { (i / 5000) as u16 + 1 } else { 0 };
    let sparse = lab.from_fn(200_000, sparse).unwrap();
    let filled = lab.par(&sparse).scan(last).unwrap();
    let mut each = filled.iter().enumerate();
    assert!(each.all(|(i, &x)| usize::from(x) == (i + 1) / 5000));
    drop((bytes, sums, sparse, filled));
    lab.assert_in_use(0);
}

fn an_overflowing_running_total_is_an_error() {
    let lab = Lab::new(2);
    let cumsum = |of: fn(usize) -> i64| {
        let steps = lab.from_fn(100_000, of).unwrap();
        lab.par(&steps).cumsum()
    };
    const HALF: i64 = 1 << 62;
    let overs: [fn(usize) -> i64; 2] = [
        |i| if i > 99_990 { HALF / 2 } else { 0 },
        // An element out of range, although later ones are in range.
        |i| match i {
            10_000 | 10_001 => HALF,
            90_000 => -HALF,
            _ => 0,
        },
    ];
    for over in overs {
        let error = cumsum(over).unwrap_err();
        assert!(error.to_string().contains("out of range of i64"), "{error}");
    }
    // The total of a chunk is out of range, but no element of the result is.
    let sums = cumsum(|i| match i {
        0 => -HALF,
        50_000 | 50_001 => HALF,
        _ => 0,
    });
    let sums = sums.unwrap();
    let some = [0, 49_999, 50_000, 99_999].map(|i: usize| sums[i]);
    assert_eq!(some, [-HALF, -HALF, 0, HALF]);
    drop(sums);
    // A panic of the program's operation is an error as for any kernel.
    let steps = lab.from_fn(100_000, |i| i as i64).unwrap();
    let panics = |_: i64, _: i64| panic!("no more");
    let error = lab.par(&steps).scan(panics).unwrap_err();
    assert_kind!(error, JobErrorKind::Panicked { message, .. } if message == "no more");
    drop(steps);
    lab.assert_in_use(0);
}

fn counts_in_bins() {
    let lab = Lab::new(3);
    let values = lab.from_fn(500_000, |i| (i % 1000) as i16).unwrap();
    let histogram = lab.par(&values).histogram(5, (100.0, 600.0)).unwrap();
    // The last bin includes its upper edge.
    assert_eq!(histogram.counts, [50_000, 50_000, 50_000, 50_000, 50_500]);
    assert_eq!(histogram.edges, [100.0, 200.0, 300.0, 400.0, 500.0, 600.0]);
    let inline = Engine::inline();
    let same = inline.par(&values).histogram(5, (100.0, 600.0));
    assert_eq!(same.unwrap(), histogram);
    drop(values);
    lab.assert_in_use(0);
}

/// The error comes from the arena, before a worker allocates private memory for them.
fn too_many_bins_for_the_arena_are_an_error() {
    let lab = Lab::with(1, |builder| {
        builder.capacity(64 << 20).memory_limit(64 << 20)
    });
    let a = array(&lab, 1000);
    let error = lab.par(&a).histogram(64 << 20, (0.0, 1.0)).unwrap_err();
    assert_kind!(error, JobErrorKind::Limit(JobLimit::Arena(full)) if full.requested == 512 << 20);
    assert_eq!(lab.stats().restarts(), 0);
}

/// Allocating them would abort the program: they exceed the address space.
fn too_many_bins_for_the_program_are_an_error() {
    let lab = Lab::new(1);
    let inline = Engine::inline();
    let none = Array::from_slice(&[]);
    for bins in [1 << 45, 1 << 58] {
        for (engine, a) in [(&*lab, array(&lab, 1000)), (&inline, none.clone())] {
            let error = engine.par(&a).histogram(bins, (0.0, 1.0)).unwrap_err();
            assert_kind!(
                error,
                JobErrorKind::Limit(JobLimit::Arena(full)) if full.requested == 8 * bins as u64
            );
        }
        let some = Array::from_slice(&[0.5f32]);
        inline.par(&some).histogram(bins, (0.0, 1.0)).unwrap_err();
    }
    assert_eq!(lab.stats().restarts(), 0);
}

/// A kernel of the program is not run twice.
fn a_scan_names_the_worker_that_died() {
    fn last(a: u32, b: u32) -> u32 {
        if b == 7 {
            std::process::abort();
        }
        a.max(b)
    }
    let lab = Lab::new(2);
    let inline = Engine::inline();
    // Killed in the middle it computes totals; at the end it writes the result.
    for at in [10_000, 99_999] {
        let one = |i| if i == at { 7 } else { (i % 5) as u32 };
        let numbers = lab.from_fn(100_000, one).unwrap();
        let error = lab.par(&numbers).scan(last).unwrap_err();
        assert_eq!((error.kind(), error.attempt()), (&ABORTED, 1), "{error}");
        assert!(error.kernel().contains("last"), "{error}");
        // The next call succeeds.
        let without = lab.from_fn(100_000, |i| (i % 5) as u32).unwrap();
        let scanned = lab.par(&without).scan(last).unwrap();
        assert_eq!(scanned[..], inline.par(&without).scan(last).unwrap()[..]);
    }
    lab.assert_in_use(0);
}

fn a_reduction_combines_rows() {
    fn column_sums(rows: &Array<f64>, by: f64) -> ArrayMut<f64> {
        let mut sums = ArrayMut::zeros(rows.shape()[1]);
        for row in rows.chunks(sums.len()) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += by * x);
        }
        sums
    }
    fn add(mut left: ArrayMut<f64>, right: ArrayMut<f64>) -> ArrayMut<f64> {
        left.iter_mut().zip(right.iter()).for_each(|(a, b)| *a += b);
        left
    }
    let lab = Lab::new(2);
    let table = lab.from_fn([50_000, 7], |i| (i % 7) as f64).unwrap();
    let sums = lab.par(&table).reduce(column_sums, (0.5,), add).unwrap();
    assert_eq!(sums[..], [0.0, 25e3, 50e3, 75e3, 100e3, 125e3, 150e3]);
    let here = Engine::inline()
        .par(&table)
        .reduce(column_sums, (0.5,), add)
        .unwrap();
    assert_eq!(here[..], sums[..]);
    drop((table, sums, here));
    lab.assert_in_use(0);
}

/// Quick chunks are computed and combined in one job; the tree is the same.
fn a_reduction_of_small_chunks_is_few_jobs() {
    const CHUNKS: usize = 250;
    fn first(chunk: &[u64], scale: f32) -> f32 {
        scale * (chunk[0] as f32).sqrt()
    }
    fn mix(a: f32, b: f32) -> f32 {
        a * 0.7 + b
    }
    let reduced = |engine: &Engine| {
        let numbers = engine.from_fn(CHUNKS << 13, |i| i as u64).unwrap();
        let value = engine.par(&numbers).reduce(first, (1.1,), mix);
        value.unwrap().to_bits()
    };
    let alone = reduced(&Engine::inline());
    for workers in [1, 2, 7] {
        let lab = Lab::new(workers);
        for round in 0..10 {
            assert_eq!(reduced(&lab), alone, "{workers} workers, round {round}");
        }
        let jobs: u64 = lab.stats().kernels.iter().map(|kernel| kernel.calls).sum();
        println!("{workers} workers: {} jobs for {CHUNKS} chunks", jobs / 10);
        // The number depends on the load; without fusion there would be a job per chunk and pair.
        assert!(jobs < 10 * (2 * CHUNKS - 1) as u64, "{jobs} jobs");
        lab.assert_in_use(0);
    }
}

/// The first of many chunks ends when the last one runs.
fn a_slow_chunk_of_a_reduction_holds_up_no_other() {
    const CHUNKS: usize = 40;
    fn number(chunk: &[u64], first: &str, last: &str) -> u64 {
        match chunk[0] as usize >> 13 {
            0 => pass(first),
            n if n == CHUNKS - 1 => pass(last),
            // Slow enough that few jobs are kept in flight.
            _ => thread::sleep(Duration::from_millis(2)),
        }
        chunk[0] >> 13
    }
    let lab = Lab::new(2);
    let numbers = lab.from_fn(CHUNKS << 13, |i| i as u64).unwrap();
    let (first, last) = (Gate::new(), Gate::new());
    let (held, opens) = (first.path(), last.path());
    let args = (held.as_str(), opens.as_str());
    let total = thread::scope(|threads| {
        let reduced = threads.spawn(|| {
            lab.par(&numbers)
                .reduce(number, args, |a: u64, b: u64| a + b)
        });
        step("the first chunk runs");
        let met = first.meet();
        step("the last chunk runs");
        drop(last.meet());
        drop(met);
        reduced.join().unwrap().unwrap()
    });
    assert_eq!(total, (CHUNKS * (CHUNKS - 1) / 2) as u64);
    drop(numbers);
    lab.assert_in_use(0);
}

/// Each chunk reads its arguments again, on several lanes of a worker.
fn a_reduction_of_texts_shows_its_tree() {
    fn name(chunk: &[u64], parts: &[Array<u8>], end: &str) -> String {
        let index = (chunk[0] >> 13) as usize;
        format!("{}{index}{end}", parts[index % parts.len()][0])
    }
    fn pair(left: &str, right: &str) -> String {
        format!("({left} {right})")
    }
    let tree = |engine: &Engine, chunks: usize| {
        let numbers = engine.from_fn(chunks << 13, |i| i as u64).unwrap();
        let parts: Vec<_> = [3u8, 5]
            .map(|n| engine.from_slice(&[n]).unwrap())
            .into_iter()
            .collect();
        engine
            .par(&numbers)
            .reduce(name, (&parts, "!"), pair)
            .unwrap()
    };
    let inline = Engine::inline();
    assert_eq!(tree(&inline, 7), "(((30! 51!) (32! 53!)) ((34! 55!) 36!))");
    for (workers, lanes) in [(1, 1), (2, 3)] {
        let lab = Lab::with(workers, |builder| builder.lanes(lanes));
        for chunks in [1, 2, 3, 7, 64, 77, 200] {
            assert_eq!(tree(&lab, chunks), tree(&inline, chunks));
        }
        lab.assert_in_use(0);
    }
}

fn a_reduction_names_what_failed() {
    fn first(chunk: &[u64], bad: u64) -> Result<u64, String> {
        match chunk[0] {
            n if n == bad => Err(format!("{n} is bad")),
            n => Ok(n),
        }
    }
    fn largest(a: u64, b: u64) -> u64 {
        assert!(b <= 150 << 13, "{a} and {b} do not go together");
        a.max(b)
    }
    for engine in [Engine::inline(), Lab::new(1).into_inner()] {
        let numbers = engine.from_fn(250 << 13, |i| i as u64).unwrap();
        let error = engine
            .par(&numbers)
            .reduce(first, (100 << 13,), largest)
            .unwrap_err();
        let expected = JobErrorKind::Returned("819200 is bad".into());
        assert_eq!(*error.kind(), expected, "{error}");
        assert!(error.kernel().contains("first"), "{error}");
        let error = engine
            .par(&numbers)
            .reduce(first, (1,), largest)
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("do not go together"), "{error}");
        assert!(error.kernel().contains("largest"), "{error}");
        drop(numbers);
        engine.shutdown();
    }
}

fn a_reduction_whose_kernels_spawn() {
    fn plain(chunk: &[u64]) -> u64 {
        chunk[0]
    }
    fn spawns(chunk: &Array<u64>) -> Spawn<u64> {
        Spawn::new(|n: u64| n + 1, (call(plain, (chunk.clone(),)),))
    }
    fn add(a: u64, b: u64) -> u64 {
        a + b
    }
    fn add_later(a: u64, b: u64) -> Spawn<u64> {
        Spawn::new(add, (call(add, (a, 0)), call(add, (b, 0))))
    }
    for engine in [Engine::inline(), Lab::new(2).into_inner()] {
        let numbers = engine.from_fn(40 << 13, |i| i as u64).unwrap();
        let par = || engine.par(&numbers);
        let expected: u64 = (0..40).map(|n| n << 13).sum();
        assert_eq!(par().reduce(plain, (), add), Ok(expected));
        assert_eq!(par().reduce(spawns, (), add), Ok(expected + 40));
        assert_eq!(par().reduce(plain, (), add_later), Ok(expected));
        drop(numbers);
        engine.shutdown();
    }
}

/// Intermediate results are freed once combined.
fn reductions_leave_nothing_behind() {
    fn large(_: &[u8]) -> Array<u64> {
        Array::zeros(1 << 17)
    }
    fn one(a: &[u64], _: &[u64]) -> Array<u64> {
        Array::from_slice(a)
    }
    // All results together have 320 MiB; the arena has 256.
    let lab = Lab::new(2);
    let bytes = lab.zeros::<u8>(320 << 16).unwrap().seal();
    assert_eq!(
        lab.par(&bytes).reduce(large, (), one).unwrap().len(),
        1 << 17
    );
    fn fails(_: &[u8]) -> Result<Array<u64>, String> {
        Err("not today".into())
    }
    let error = lab.par(&bytes).reduce(fails, (), one).unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Returned("not today".into()));
    drop(bytes);
    lab.assert_in_use(0);
}
