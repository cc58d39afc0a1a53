//! Values match a plain recursion, and each job has its own random numbers.

use std::collections::HashSet;

use arenite::stream::Stream;
use arenite::{Array, ArrayMut, Bytes, Engine, Spawn, Trace, call};
use rand::Rng;

use super::{around, fib};
use crate::harness::{Diary, Gate, Lab, note, step, tests, wait_until};

tests![
    a_tree_of_thousands_of_nodes,
    values_of_every_kind_are_passed_on,
    a_spawn_chain_may_be_deeper_than_the_number_of_workers,
    a_continuation_may_spawn_again_without_limit,
    spawning_kernels_run_in_every_kind_of_call,
    random_numbers_depend_on_the_position,
    spawned_jobs_are_counted,
    spawned_jobs_run_without_a_waiting_thread,
    the_trace_has_all_spawned_jobs,
];

/// A tree whose shape depends only on its random numbers.
fn tree(n: u64, depth: u32) -> Spawn<u64> {
    if depth == 0 {
        return n.wrapping_mul(n).into();
    }
    let below = (0..n % 5).map(|at| call(tree, (n * 7 + at, depth - 1)));
    Spawn::new(gathered, (n, below.collect::<Vec<_>>()))
}

fn gathered(n: u64, parts: &[u64]) -> u64 {
    parts
        .iter()
        .fold(n, |all, part| all.wrapping_mul(31) ^ part)
}

fn plain_tree(n: u64, depth: u32, nodes: &mut u64) -> u64 {
    *nodes += 1;
    if depth == 0 {
        return n.wrapping_mul(n);
    }
    let below: Vec<_> = (0..n % 5)
        .map(|at| plain_tree(n * 7 + at, depth - 1, nodes))
        .collect();
    gathered(n, &below)
}

fn a_tree_of_thousands_of_nodes() {
    let mut nodes = 0;
    let expected = plain_tree(4, 9, &mut nodes);
    assert!(nodes > 2_000, "{nodes} nodes");
    for workers in [1, 2, 7] {
        step(format!("{workers} workers"));
        let lab = Lab::new(workers);
        assert_eq!(lab.submit(tree, (4, 9)).wait().unwrap(), expected);
        assert_eq!(lab.submit(fib, (15,)).wait().unwrap(), 610);
        lab.assert_in_use(0);
    }
    assert_eq!(
        Engine::inline().submit(tree, (4, 9)).wait().unwrap(),
        expected
    );
}

fn values_of_every_kind_are_passed_on() {
    fn ramp(n: usize) -> Array<u32> {
        Array::from_fn([n, 2], |i| i as u32)
    }
    fn owned(n: usize) -> ArrayMut<u32> {
        let mut array = ArrayMut::zeros(n);
        array.fill(3);
        array
    }
    fn text(n: usize) -> String {
        "ä".repeat(n)
    }
    fn bytes(n: usize) -> Bytes {
        vec![0xff; n].into()
    }
    #[allow(clippy::too_many_arguments, reason = "eight is what a kernel may have")]
    fn unpack(
        ramp: &Array<u32>,
        given: &[u32],
        mut owned: ArrayMut<u32>,
        text: &str,
        parts: &[Array<u32>],
        empty: &[u64],
        bytes: &Bytes,
        word: &Bytes,
    ) -> Array<u32> {
        assert_eq!(
            (ramp.shape().dims().len(), ramp.len(), ramp[5]),
            (2, 2_000, 5)
        );
        assert_eq!(given, [2, 3]);
        assert!(owned.iter().all(|&x| x == 3) && owned.len() == 5_000);
        assert_eq!((text.len(), &**word), (2_000, &b"plain"[..]));
        let lens: Vec<_> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lens, [2, 4, 0]);
        assert!(empty.is_empty());
        assert_eq!(**bytes, [0xff; 500]);
        owned[0] = ramp[7] + parts[1][3];
        owned.seal()
    }
    fn all(values: &Array<u32>, fresh: bool) -> Spawn<Array<u32>> {
        let own = Array::from_slice(&[9u32, 2, 3, 9]);
        let given = if fresh {
            own.rows(1..3)
        } else {
            values.rows(1..3)
        };
        let parts = [1usize, 2, 0].map(|n| call(ramp, (n,)));
        Spawn::new(
            unpack,
            (
                call(ramp, (1_000usize,)),
                given,
                call(owned, (5_000usize,)),
                call(text, (1_000usize,)),
                Vec::from(parts),
                Vec::from([(); 0].map(|()| call(|n: u64| n, (0,)))),
                call(bytes, (500usize,)),
                b"plain".to_vec(),
            ),
        )
    }
    fn lists(n: usize) -> Spawn<f32> {
        fn thirds(n: usize) -> Vec<bool> {
            (0..n).map(|at| at % 3 == 0).collect()
        }
        fn weigh(flags: Vec<bool>, more: Vec<bool>, weights: &[f32]) -> f32 {
            flags.iter().chain(&more).filter(|&&flag| flag).count() as f32 * weights[1]
        }
        let flags = call(thirds, (n,));
        Spawn::new(weigh, (flags, vec![true, false], [1.0, 2.0]))
    }
    /// Changes its argument and an array of its own in place.
    fn in_place(mut given: ArrayMut<u32>) -> Spawn<ArrayMut<u32>> {
        given[0] = 1;
        let mut small = ArrayMut::<u32>::zeros(3);
        small[2] = 5;
        fn add(mut a: ArrayMut<u32>, by: u32) -> ArrayMut<u32> {
            a.iter_mut().for_each(|x| *x += by);
            a
        }
        fn both(mut a: ArrayMut<u32>, b: ArrayMut<u32>, c: &[Array<u32>]) -> ArrayMut<u32> {
            a[1] = b.iter().sum::<u32>() + c[0][0];
            a
        }
        let one = Array::from_slice(&[100u32]);
        Spawn::new(
            both,
            (call(add, (given, 10)), call(add, (small, 1)), vec![one]),
        )
    }
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        assert_eq!(engine.submit(lists, (1_000,)).wait().unwrap(), 335.0 * 2.0);
        let values = engine.from_slice(&[1u32, 2, 3, 4]).unwrap();
        for fresh in [true, false] {
            let all = engine.submit(all, (&values, fresh)).wait().unwrap();
            assert_eq!((all.len(), all[0], all[1]), (5_000, 7 + 3, 3));
        }
        for len in [10, 100_000] {
            let given = engine.zeros::<u32>(len).unwrap();
            let done = engine.submit(in_place, (given,)).wait().unwrap();
            assert_eq!(done[..3], [11, 8 + 100, 10]);
        }
    }
    lab.assert_in_use(0);
}

fn deeper(n: u32) -> Spawn<u64> {
    match n {
        0 => 0.into(),
        _ => Spawn::new(|below: u64| below + 1, (call(deeper, (n - 1,)),)),
    }
}

fn a_spawn_chain_may_be_deeper_than_the_number_of_workers() {
    for workers in [1, 2] {
        let lab = Lab::new(workers);
        assert_eq!(lab.submit(deeper, (5_000,)).wait().unwrap(), 5_000);
        lab.assert_in_use(0);
    }
    let lab = Lab::with(1, |builder| builder.lanes(3));
    assert_eq!(lab.submit(deeper, (500,)).wait().unwrap(), 500);
    assert_eq!(
        Engine::inline().submit(deeper, (9_000,)).wait().unwrap(),
        9_000
    );
}

fn countdown(n: u32, sum: u64) -> Spawn<u64> {
    match n {
        0 => sum.into(),
        _ => Spawn::new(countdown, (n - 1, call(|sum: u64| sum + 2, (sum,)))),
    }
}

fn a_continuation_may_spawn_again_without_limit() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        // More often than the limit of depth.
        assert_eq!(
            engine.submit(countdown, (11_000, 0)).wait().unwrap(),
            22_000
        );
    }
    lab.assert_in_use(0);
}

fn spawning_kernels_run_in_every_kind_of_call() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        step("map");
        let values = engine.map(fib, (0..12u64).map(|n| (n,)));
        let values: Result<Vec<_>, _> = values.collect();
        assert_eq!(values.unwrap(), [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]);
        let unordered: u64 = engine
            .map(fib, (0..12u64).map(|n| (n,)))
            .unordered()
            .map(|(_, value)| value.unwrap())
            .sum();
        assert_eq!(unordered, 232);
        step("a chain");
        let chain = engine.job(|n: u64| n + 1, (9u64,)).then(fib, ());
        assert_eq!(chain.submit().wait().unwrap(), 55);
        step("jobs of jobs");
        let n = engine.submit(|n: u64| n + 2, (8u64,));
        let spawned = engine.submit(fib, (&n,));
        let after = engine.submit(|n: u64| n * 2, (&spawned,));
        let last = engine.submit(fib, (engine.submit(|| 6u64, ()),));
        assert_eq!((after.wait().unwrap(), last.wait().unwrap()), (110, 8));
        step("a scope");
        let sums = engine.scope(|s| {
            let jobs: Vec<_> = (8..10u64).map(|n| s.submit(fib, (n,))).collect();
            jobs.into_iter().map(|job| job.wait().unwrap()).sum::<u64>()
        });
        assert_eq!(sums.unwrap(), 55);
        step("a stream");
        let mut expected = [0, 1, 3, 8, 21].into_iter();
        let stream = Stream::new([0u64, 1, 2, 3, 4]);
        stream
            .stage(|n: u64| 2 * n, ())
            .stage(fib, ())
            .for_each(engine, |value| assert_eq!(expected.next(), Some(value)))
            .unwrap();
        assert_eq!(expected.next(), None);
        step("a kernel that may fail first");
        fn checked(n: u64) -> Result<Spawn<u64>, String> {
            let n = n.checked_sub(1).ok_or("too small")?;
            Ok(Spawn::new(|n: u64| n + 1, (call(checked, (n,)),)))
        }
        let error = engine.submit(checked, (3,)).wait().unwrap_err();
        assert!(error.to_string().contains("too small"), "{error}");
        assert_eq!(
            engine
                .submit(
                    |n: u64| -> Result<Spawn<u64>, String> { Ok(n.into()) },
                    (7,)
                )
                .wait()
                .unwrap(),
            7
        );
    }
    step("a future");
    let value = smol::block_on(async { lab.submit(fib, (12,)).await });
    assert_eq!(value.unwrap(), 144);
    lab.assert_in_use(0);
}

fn draws(depth: u32) -> Spawn<u64> {
    let mine = arenite::rng().next_u64();
    if depth == 0 {
        return mine.into();
    }
    let below = (0..3).map(|_| call(draws, (depth - 1,)));
    let mix = |mine: u64, parts: &[u64]| {
        let all = parts
            .iter()
            .fold(mine, |all, part| all.wrapping_mul(31) ^ part);
        all ^ arenite::rng().next_u64()
    };
    Spawn::new(mix, (mine, below.collect::<Vec<_>>()))
}

fn random_numbers_depend_on_the_position() {
    let seeded = |workers| Lab::with(workers, |builder| builder.seed(7));
    let run = |engine: &Engine| {
        let map = engine.map(draws, (0..3u32).map(|depth| (depth,)));
        let mut drawn: Vec<u64> = map.map(Result::unwrap).collect();
        drawn.push(engine.submit(draws, (4,)).wait().unwrap());
        drawn.push(engine.submit(draws, (1,)).wait().unwrap());
        drawn
    };
    let alone = run(&Engine::builder().seed(7).inline());
    assert_eq!(alone.iter().collect::<HashSet<_>>().len(), 5);
    for workers in [1, 2, 7] {
        assert_eq!(run(&seeded(workers)), alone, "{workers} workers");
    }
    // Each of them has its own numbers, including the continuation.
    fn apart() -> Spawn<bool> {
        let draw = || arenite::rng().next_u64();
        let all_differ = |mine: u64, parts: &[u64]| {
            let mut all: HashSet<u64> = parts.iter().copied().collect();
            all.extend([mine, arenite::rng().next_u64()]);
            all.len() == parts.len() + 2
        };
        let parts = [(); 100].map(|()| call(|| arenite::rng().next_u64(), ()));
        Spawn::new(all_differ, (draw(), Vec::from(parts)))
    }
    assert!(seeded(2).submit(apart, ()).wait().unwrap());
}

fn spawned_jobs_are_counted() {
    let lab = Lab::new(2);
    // As many calls as a plain recursion, and one addition per spawning call.
    let calls = |n: u64| (1..=n).fold((1u64, 1u64), |(a, b), _| (b, a + b + 1)).0;
    for engine in [&*lab, &Engine::inline()] {
        assert_eq!(engine.submit(fib, (10,)).wait().unwrap(), 55);
        let progress = engine.progress();
        let (all, adds) = (calls(10), calls(10) / 2);
        assert_eq!(progress.submitted, all + adds);
        assert_eq!(
            (progress.done, progress.failed, progress.left()),
            (all + adds, 0, 0)
        );
        let of = |name: &str| {
            let kernels = progress
                .kernels
                .iter()
                .filter(|kernel| kernel.name.ends_with(name));
            kernels.map(|kernel| kernel.calls).collect::<Vec<_>>()
        };
        assert_eq!(of("spawn::fib"), [all]);
        assert_eq!(of("{{closure}}"), [adds]);
    }
    // While they run, the spawning job waits.
    let gate = Gate::new();
    let job = lab.submit(around, (&gate.path(),));
    let held = gate.meet();
    wait_until("one runs and one waits", || {
        let progress = lab.progress();
        progress.running == 1 && progress.waiting == 1
    });
    drop(held);
    job.wait().unwrap();
    assert_eq!(lab.progress().left(), 0);
}

fn spawned_jobs_run_without_a_waiting_thread() {
    fn noted(depth: u32, path: &str) -> Spawn<bool> {
        if depth == 0 {
            note(path, "ran");
            return true.into();
        }
        let below = || call(noted, (depth - 1, path));
        let both = |path: &str, _: bool, _: bool| {
            note(path, "ran");
            true
        };
        Spawn::new(both, (path, below(), below()))
    }
    let lab = Lab::new(2);
    let diary = Diary::new();
    let path = diary.path();
    let job = lab.submit(noted, (5, &path));
    wait_until("all have run, without a waiting thread", || {
        diary.lines().len() == 63
    });
    job.wait().unwrap();
    lab.submit(noted, (5, &path)).detach();
    wait_until("all have run, without a handle", || {
        diary.lines().len() == 126
    });
    lab.assert_in_use(0);
}

fn the_trace_has_all_spawned_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace.json");
    let lab = Lab::with(2, |builder| builder.trace(Trace::to(&file)));
    assert_eq!(lab.submit(fib, (8,)).wait().unwrap(), 21);
    let submitted = lab.progress().submitted;
    let written = lab.write_trace().unwrap().unwrap();
    assert_eq!(written.attempts, submitted);
    let text = std::fs::read_to_string(&file).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    let events = whole["traceEvents"].as_array().unwrap();
    let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).count();
    // An arrow to each call but the first, and one from each child to the continuation.
    let calls = 67;
    assert_eq!(of("s"), (calls - 1) + (calls - 1));
}
