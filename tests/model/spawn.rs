//! Kernels that spawn jobs: the same value as a plain recursion, on any number of workers, whatever dies meanwhile.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use arenite::rand::Rng;
use arenite::{
    Array, ArrayMut, Backoff, Engine, Graph, JobErrorKind, Limiter, Priority, Spawn, call,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Gate, Lab, pass, step, tests, wait_until};

tests![
    a_sort_gives_what_a_plain_sort_gives,
    a_tree_of_thousands_of_nodes,
    values_of_every_kind_are_passed_on,
    a_chain_that_is_deeper_than_there_are_workers,
    what_goes_on_may_spawn_again_for_ever,
    a_recursion_without_an_end_is_an_error,
    it_works_wherever_kernels_run,
    nobody_has_to_wait_for_it,
    a_failed_child_is_the_failure_of_the_job,
    what_goes_on_may_fail_as_well,
    others_are_given_up_when_one_fails,
    a_child_with_retries_survives_its_worker,
    what_changes_an_array_is_not_tried_again,
    deaths_change_no_value,
    cancelling_ends_all_of_it,
    dropping_it_ends_all_of_it,
    a_scope_that_fails_leaves_nothing,
    limits_admission_and_priority_leave_nobody_waiting,
    shutdown_finishes_it_and_dropping_the_engine_ends_it,
    random_numbers_belong_to_the_place,
    each_is_counted_as_a_job,
    a_job_that_sends_too_many_arrays_says_so,
];

/// Sends SIGKILL.
fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

fn numbers(len: usize) -> Vec<i64> {
    let mut x = 1u64;
    let next = |_| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 33) as i64 - (1 << 30)
    };
    (0..len).map(next).collect()
}

fn sort(values: &Array<i64>, leaf: usize) -> Spawn<Array<i64>> {
    if values.len() <= leaf {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        return Array::from_slice(&sorted).into();
    }
    let half = values.len() / 2;
    let (left, right) = (values.rows(..half), values.rows(half..));
    Spawn::new(merge, (call(sort, (left, leaf)), call(sort, (right, leaf))))
}

fn merge(left: &[i64], right: &[i64]) -> Array<i64> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        merged.extend(if a <= b { left.next() } else { right.next() });
    }
    merged.extend(left.chain(right));
    Array::from_slice(&merged)
}

fn fib(n: u64) -> Spawn<u64> {
    if n < 2 {
        return n.into();
    }
    Spawn::new(
        |a: u64, b: u64| a + b,
        (call(fib, (n - 1,)), call(fib, (n - 2,))),
    )
}

fn a_sort_gives_what_a_plain_sort_gives() {
    let plain = numbers(20_000);
    let mut expected = plain.clone();
    expected.sort_unstable();
    for workers in [1, 2, 7] {
        step(format!("{workers} workers"));
        let lab = Lab::new(workers);
        let values = lab.from_slice(&plain).unwrap();
        let sorted = lab.submit(sort, (&values, 100)).wait().unwrap();
        assert!(sorted[..] == expected, "{workers} workers");
        drop((sorted, values));
        lab.assert_in_use(0);
        lab.assert_idle();
    }
    let engine = Engine::inline();
    let values = engine.from_slice(&plain).unwrap();
    let sorted = engine.submit(sort, (&values, 100)).wait().unwrap();
    assert!(sorted[..] == expected);
}

/// A tree whose shape follows from its numbers alone.
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
        lab.assert_idle();
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
    fn unpack(
        ramp: &Array<u32>,
        given: &[u32],
        mut owned: ArrayMut<u32>,
        text: &str,
        parts: &[Array<u32>],
        empty: &[u64],
        word: &str,
    ) -> Array<u32> {
        assert_eq!((ramp.shape().rank(), ramp.len(), ramp[5]), (2, 2_000, 5));
        assert_eq!(given, [2, 3]);
        assert!(owned.iter().all(|&x| x == 3) && owned.len() == 5_000);
        assert_eq!((text.len(), word), (2_000, "plain"));
        let lens: Vec<_> = parts.iter().map(|part| part.len()).collect();
        assert_eq!(lens, [2, 4, 0]);
        assert!(empty.is_empty());
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
                "plain",
            ),
        )
    }
    /// What it was given, and what it has made, in place.
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

fn a_chain_that_is_deeper_than_there_are_workers() {
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

fn what_goes_on_may_spawn_again_for_ever() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        // More often than jobs may be deep.
        assert_eq!(
            engine.submit(countdown, (11_000, 0)).wait().unwrap(),
            22_000
        );
    }
    lab.assert_in_use(0);
    lab.assert_idle();
}

fn a_recursion_without_an_end_is_an_error() {
    fn endless(n: u32) -> Spawn<u32> {
        Spawn::new(|n: u32| n, (call(endless, (n + 1,)),))
    }
    fn wider(n: u32) -> Spawn<u32> {
        let both = [n, n].map(|n| call(wider, (n + 1,)));
        Spawn::new(|_: &[u32]| 0, (Vec::from(both),))
    }
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        let jobs = [engine.submit(endless, (0,)), engine.submit(wider, (0,))];
        for job in jobs {
            let error = job.wait().unwrap_err();
            let JobErrorKind::ChildFailed { cause, .. } = error.kind() else {
                panic!("{error}");
            };
            let limit = |depth, open| depth == 10_001 || open > 1 << 18;
            assert!(
                matches!(**cause, JobErrorKind::SpawnLimit { depth, open } if limit(depth, open)),
                "{error}"
            );
            assert!(
                error.to_string().contains("does its recursion end?"),
                "{error}"
            );
        }
    }
    assert_eq!(lab.submit(fib, (10,)).wait().unwrap(), 55);
    lab.assert_in_use(0);
    lab.assert_idle();
}

fn it_works_wherever_kernels_run() {
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
        step("a graph");
        let mut graph = Graph::new();
        let n = graph.add(|n: u64| n + 2, (8u64,));
        let spawned = graph.add(fib, (&n,));
        let after = graph.add(|n: u64| n * 2, (&spawned,));
        let six = graph.add(|| 6u64, ());
        let last = graph.add(fib, (six,));
        assert_eq!(
            graph.run(engine, (&after, &last)).unwrap().wait().unwrap(),
            (110, 8)
        );
        step("a scope");
        let sums = engine.scope(|s| {
            let jobs: Vec<_> = (8..10u64).map(|n| s.submit(fib, (n,))).collect();
            jobs.into_iter().map(|job| job.wait().unwrap()).sum::<u64>()
        });
        assert_eq!(sums.unwrap(), 55);
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

/// A file that kernels write to.
fn notebook() -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

fn note(path: &str) {
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.write_all(b"x").unwrap();
}

fn notes(path: &str) -> usize {
    std::fs::read(path).unwrap().len()
}

fn nobody_has_to_wait_for_it() {
    fn noted(depth: u32, path: &str) -> Spawn<()> {
        match depth {
            0 => {
                note(path);
                ().into()
            }
            _ => Spawn::new(
                |path: &str, _: bool, _: bool| note(path),
                (
                    path,
                    call(below, (depth - 1, path)),
                    call(below, (depth - 1, path)),
                ),
            ),
        }
    }
    fn below(depth: u32, path: &str) -> Spawn<bool> {
        match depth {
            0 => {
                note(path);
                true.into()
            }
            _ => Spawn::new(
                |path: &str, _: bool, _: bool| {
                    note(path);
                    true
                },
                (
                    path,
                    call(below, (depth - 1, path)),
                    call(below, (depth - 1, path)),
                ),
            ),
        }
    }
    let lab = Lab::new(2);
    let (_file, path) = notebook();
    let job = lab.submit(noted, (5, &path));
    wait_until("all have run, and nobody asked", || notes(&path) == 63);
    job.wait().unwrap();
    lab.submit(noted, (5, &path)).detach();
    wait_until("all have run, and nobody can ask", || notes(&path) == 126);
    lab.assert_in_use(0);
}

fn fails(n: u32) -> Result<u64, String> {
    Err(format!("{n} is wrong"))
}

fn spawns_one_that_fails(depth: u32, kind: u32) -> Spawn<u64> {
    let good = call(fib, (6,));
    if depth > 0 {
        let bad = call(spawns_one_that_fails, (depth - 1, kind));
        return Spawn::new(|a: u64, b: u64| a + b, (good, bad));
    }
    let bad = match kind {
        0 => call(fails, (7,)),
        1 => call(|_: u32| -> u64 { panic!("a broken leaf") }, (7,)),
        _ => call(|_: u32| -> u64 { std::process::abort() }, (7,)),
    };
    Spawn::new(|a: u64, b: u64| a + b, (good, bad))
}

fn a_failed_child_is_the_failure_of_the_job() {
    let lab = Lab::new(2);
    for (engine, kinds) in [(&*lab, 0..3), (&Engine::inline(), 0..2)] {
        for kind in kinds {
            step(format!("kind {kind}"));
            let error = engine
                .submit(spawns_one_that_fails, (3, kind))
                .wait()
                .unwrap_err();
            assert!(error.kernel().contains("spawns_one_that_fails"), "{error}");
            let JobErrorKind::ChildFailed { kernel, cause, job } = error.kind() else {
                panic!("{error}");
            };
            assert_ne!(*job, error.job().max(1), "{error}");
            match kind {
                0 => {
                    assert_eq!(**cause, JobErrorKind::Returned("7 is wrong".into()));
                    assert!(kernel.ends_with("fails"), "{kernel}");
                }
                1 => assert!(
                    matches!(&**cause, JobErrorKind::Panicked { message, .. } if message == "a broken leaf")
                ),
                _ => assert_eq!(**cause, JobErrorKind::Signal(6)),
            }
        }
    }
    lab.assert_in_use(0);
    lab.assert_idle();
}

fn what_goes_on_may_fail_as_well() {
    fn outer(n: u32) -> Spawn<Result<u64, String>> {
        fn refuse(a: u64) -> Result<u64, String> {
            Err(format!("not {a}"))
        }
        match n {
            0 => Err("at once".to_owned()).into(),
            _ => Spawn::new(refuse, (call(fib, (7,)),)),
        }
    }
    let lab = Lab::new(1);
    for engine in [&*lab, &Engine::inline()] {
        let error = engine.submit(outer, (0,)).wait().unwrap_err();
        assert_eq!(*error.kind(), JobErrorKind::Returned("at once".into()));
        let error = engine.submit(outer, (1,)).wait().unwrap_err();
        assert!(
            matches!(error.kind(), JobErrorKind::ChildFailed { cause, .. }
                if **cause == JobErrorKind::Returned("not 13".into())),
            "{error}"
        );
    }
    lab.assert_in_use(0);
}

fn others_are_given_up_when_one_fails() {
    fn at_gate(gate: &str) -> Result<u64, String> {
        pass(gate);
        Err("opened".into())
    }
    fn patient(path: &str) -> u64 {
        note(path);
        while !arenite::cancelled() {
            std::thread::yield_now();
        }
        note(path);
        1
    }
    fn deaf(path: &str) -> u64 {
        note(path);
        loop {
            std::thread::park();
        }
    }
    fn outer(gate: &str, path: &str, listens: bool) -> Spawn<u64> {
        let other = if listens {
            call(patient, (path,))
        } else {
            call(deaf, (path,))
        };
        let later = (0..1_000).map(|_| call(|_: &str| -> u64 { 1 }, (path,)));
        let all = [call(at_gate, (gate,)), other].into_iter().chain(later);
        Spawn::new(
            |parts: &[u64]| parts.iter().sum::<u64>(),
            (all.collect::<Vec<_>>(),),
        )
    }
    let lab = Lab::with(2, |builder| builder.grace(Duration::from_millis(50)));
    for listens in [true, false] {
        let (_file, path) = notebook();
        let gate = Gate::new();
        let job = lab.submit(outer, (&gate.path(), &path, listens));
        let held = gate.meet();
        wait_until("the other one runs", || notes(&path) == 1);
        drop(held);
        let error = job.wait().unwrap_err();
        assert!(
            matches!(error.kind(), JobErrorKind::ChildFailed { cause, .. }
                if **cause == JobErrorKind::Returned("opened".into())),
            "{error}"
        );
        assert_eq!(notes(&path), if listens { 2 } else { 1 });
        let restarts = |worker| lab.stats().workers[worker as usize].restarts;
        assert_eq!(restarts(0) + restarts(1), u64::from(!listens));
        lab.assert_idle();
    }
    lab.assert_in_use(0);
}

fn gated(gate: &str, values: &Array<u32>) -> Array<u32> {
    pass(gate);
    Array::from_fn(values.shape(), |i| values[i] + 1)
}

fn around(gate: &str) -> Spawn<u64> {
    let made = Array::from_fn(1_000, |i| i as u32);
    let through = call(gated, (gate, &made));
    Spawn::new(
        |n: u64, made: &[u32], through: &[u32]| {
            n + made
                .iter()
                .chain(through)
                .map(|&x| u64::from(x))
                .sum::<u64>()
        },
        (call(fib, (10,)), made, through),
    )
}

fn a_child_with_retries_survives_its_worker() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let job = lab
        .job(around, (&gate.path(),))
        .retries(2)
        .backoff(Backoff::NONE)
        .submit();
    for restarts in 1..=2 {
        let held = gate.meet();
        end(lab.pid(0));
        // The one that was killed does not go on from here.
        drop(held);
        lab.await_restart(0, restarts);
    }
    gate.open();
    assert_eq!(job.wait().unwrap(), 55 + 2 * 499_500 + 1_000);
    lab.assert_in_use(0);

    // Without, it is over.
    let job = lab.submit(around, (&gate.path(),));
    let held = gate.meet();
    end(lab.pid(0));
    let error = job.wait().unwrap_err();
    drop(held);
    let JobErrorKind::ChildFailed { kernel, cause, .. } = error.kind() else {
        panic!("{error}");
    };
    assert_eq!(**cause, JobErrorKind::Signal(9));
    assert!(kernel.ends_with("gated"), "{kernel}");
    lab.assert_in_use(0);
    lab.assert_idle();
}

fn what_changes_an_array_is_not_tried_again() {
    fn change(mut values: ArrayMut<u32>, gate: &str) -> ArrayMut<u32> {
        values[0] += 1;
        pass(gate);
        values
    }
    fn outer(gate: &str) -> Spawn<u32> {
        let values = ArrayMut::<u32>::zeros(10);
        Spawn::new(
            |values: &[u32]| values[0],
            (call(changed, (call_of(values, gate), gate)),),
        )
    }
    // The value of a call cannot be passed to another one, so it is sealed on the way.
    fn call_of(values: ArrayMut<u32>, _: &str) -> ArrayMut<u32> {
        values
    }
    fn changed(values: ArrayMut<u32>, gate: &str) -> Array<u32> {
        change(values, gate).seal()
    }
    let lab = Lab::new(1);
    let gate = Gate::new();
    let job = lab
        .job(outer, (&gate.path(),))
        .retries(5)
        .backoff(Backoff::NONE)
        .submit();
    let held = gate.meet();
    end(lab.pid(0));
    let error = job.wait().unwrap_err();
    drop(held);
    assert!(
        matches!(error.kind(), JobErrorKind::ChildFailed { cause, .. } if **cause == JobErrorKind::Signal(9)),
        "{error}"
    );
    let job = lab.job(outer, (&gate.path(),)).retries(5).submit();
    gate.open();
    assert_eq!(job.wait().unwrap(), 1);
    lab.assert_in_use(0);
}

fn deaths_change_no_value() {
    let plain = numbers(5_000);
    let mut expected = plain.clone();
    expected.sort_unstable();
    let lab = Lab::new(2);
    let values = lab.from_slice(&plain).unwrap();
    let over = Mutex::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for round in 0..8 {
                lab.replace(round % 2);
            }
            *over.lock().unwrap() = true;
        });
        while !*over.lock().unwrap() {
            let job = lab
                .job(sort, (&values, 20))
                .retries(50)
                .backoff(Backoff::NONE);
            let sorted = job.submit().wait().unwrap();
            assert!(sorted[..] == expected);
        }
    });
    drop(values);
    lab.assert_in_use(0);
    lab.assert_idle();
}

fn cancelling_ends_all_of_it() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    step("asked, while a child runs");
    let job = lab.submit(around, (&gate.path(),));
    let held = gate.meet();
    job.cancel();
    assert!(!job.is_done(), "a child runs still");
    drop(held);
    assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::Cancelled);
    lab.assert_in_use(0);
    step("now, while a child runs");
    let restarts = || -> u64 {
        lab.stats()
            .workers
            .iter()
            .map(|worker| worker.restarts)
            .sum()
    };
    let before = restarts();
    let job = lab.submit(around, (&gate.path(),));
    let held = gate.meet();
    job.cancel_now();
    assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::Cancelled);
    drop(held);
    lab.assert_idle();
    assert_eq!(restarts() - before, 1, "the worker of the child was ended");
    step("deep");
    let job = lab.submit(deep_around, (2_000, &gate.path()));
    let held = gate.meet();
    job.cancel();
    drop(held);
    assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::Cancelled);
    step("while it spawns");
    for _ in 0..50 {
        let job = lab.submit(fib, (12,));
        job.cancel();
        match job.wait() {
            Ok(value) => assert_eq!(value, 144),
            Err(error) => assert_eq!(*error.kind(), JobErrorKind::Cancelled),
        }
    }
    lab.assert_in_use(0);
    lab.assert_idle();
}

fn deep_around(depth: u32, gate: &str) -> Spawn<u64> {
    match depth {
        0 => Spawn::new(|n: u64| n, (call(around, (gate,)),)),
        _ => Spawn::new(|n: u64| n, (call(deep_around, (depth - 1, gate)),)),
    }
}

fn dropping_it_ends_all_of_it() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let job = lab.submit(deep_around, (100, &gate.path()));
    let held = gate.meet();
    drop(job);
    drop(held);
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    lab.assert_idle();
    lab.assert_in_use(0);
    for _ in 0..50 {
        drop(lab.submit(fib, (10,)));
    }
    lab.assert_in_use(0);
    let mut graph = Graph::new();
    let node = graph.add(deep_around, (5, &gate.path()));
    let running = graph.run(&lab, &node).unwrap();
    let held = gate.meet();
    drop(running);
    drop(held);
    lab.assert_idle();
    lab.assert_in_use(0);
}

fn a_scope_that_fails_leaves_nothing() {
    fn deaf(gate: &str) -> u64 {
        pass(gate);
        loop {
            std::thread::park();
        }
    }
    fn outer(gate: &str) -> Spawn<u64> {
        Spawn::new(|n: u64| n, (call(deaf, (gate,)),))
    }
    let lab = Lab::with(2, |builder| builder.grace(Duration::from_millis(50)));
    let gate = Gate::new();
    let result = lab.scope(|s| {
        let _job = s.submit(outer, (&gate.path(),));
        gate.open();
        s.submit(fails, (3,)).wait().unwrap_err();
    });
    let error = result.unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Returned("3 is wrong".into()));
    lab.assert_idle();
    lab.assert_in_use(0);
}

fn limits_admission_and_priority_leave_nobody_waiting() {
    step("a limiter of one");
    let lab = Lab::new(2);
    let limiter = Limiter::builder().concurrency(1).build();
    let job = lab.job(fib, (9,)).limit(&limiter).submit();
    assert_eq!(job.wait().unwrap(), 34);
    step("a priority");
    let gate = Gate::new();
    let held_up = lab.submit(around, (&gate.path(),));
    let job = lab.job(fib, (9,)).priority(Priority::High).submit();
    let deadline = lab
        .job(fib, (9,))
        .deadline(Duration::from_secs(60))
        .submit();
    gate.open();
    assert_eq!(job.wait().unwrap(), 34);
    assert_eq!(deadline.wait().unwrap(), 34);
    held_up.wait().unwrap();
    lab.assert_in_use(0);
    step("a ceiling that holds one job");
    let lab = Lab::with(2, |builder| builder.admission(600));
    let jobs: Vec<_> = (0..4).map(|_| lab.submit(fib, (8,))).collect();
    for job in jobs {
        assert_eq!(job.wait().unwrap(), 21);
    }
    assert_eq!(lab.stats().admitted, 0);
    step("lanes, where jobs with a deadline are alone");
    let lab = Lab::with(2, |builder| builder.lanes(3));
    let job = lab
        .job(fib, (8,))
        .deadline(Duration::from_secs(60))
        .submit();
    assert_eq!(job.wait().unwrap(), 21);
    lab.assert_in_use(0);
}

fn shutdown_finishes_it_and_dropping_the_engine_ends_it() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let (_file, path) = notebook();
    fn noted(gate: &str, path: &str) -> Spawn<()> {
        Spawn::new(
            |path: &str, _: u64| note(path),
            (path, call(around, (gate,))),
        )
    }
    lab.submit(noted, (&gate.path(), &path)).detach();
    let job = lab.submit(around, (&gate.path(),));
    let held = gate.meet();
    let engine = lab.into_inner();
    std::thread::scope(|threads| {
        threads.spawn(|| engine.shutdown());
        drop(held);
        gate.release_all(|| notes(&path) == 1 && job.is_done());
    });
    assert_eq!(job.wait().unwrap(), 55 + 2 * 499_500 + 1_000);

    let lab = Lab::new(2);
    let job = lab.submit(deep_around, (20, &gate.path()));
    let held = gate.meet();
    drop(lab);
    drop(held);
    assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::ShutDown);
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

fn random_numbers_belong_to_the_place() {
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
    // Also after a death in the middle.
    fn draws_at(gate: &str) -> Spawn<u64> {
        fn leaf(gate: &str) -> u64 {
            pass(gate);
            arenite::rng().next_u64()
        }
        Spawn::new(
            |a: u64, b: u64| a ^ b,
            (call(leaf, (gate,)), call(draws, (2,))),
        )
    }
    let gate = Gate::new();
    let drawn = [false, true].map(|dies| {
        let lab = seeded(1);
        let job = lab
            .job(draws_at, (gate.path(),))
            .retries(1)
            .backoff(Backoff::NONE)
            .submit();
        if dies {
            let held = gate.meet();
            end(lab.pid(0));
            drop(held);
            lab.await_restart(0, 1);
        }
        gate.open();
        job.wait().unwrap()
    });
    assert_eq!(drawn[0], drawn[1]);
}

fn each_is_counted_as_a_job() {
    let lab = Lab::new(2);
    // As many calls as a plain recursion has, and one that adds for each that spawns.
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
    // While they run, the job that spawned them waits.
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

fn a_job_that_sends_too_many_arrays_says_so() {
    fn outer(many: usize) -> Spawn<u64> {
        let parts = (0..many).map(|n| {
            call(
                |x: &[u32]| u64::from(x[0]),
                (Array::from_slice(&[n as u32]),),
            )
        });
        Spawn::new(
            |parts: &[u64]| parts.iter().sum::<u64>(),
            (parts.collect::<Vec<_>>(),),
        )
    }
    let lab = Lab::new(2);
    assert_eq!(
        lab.submit(outer, (4_000,)).wait().unwrap(),
        4_000 * 3_999 / 2
    );
    let error = lab.submit(outer, (4_097,)).wait().unwrap_err();
    assert!(error.to_string().contains("4096 is the most"), "{error}");
    lab.assert_in_use(0);
}
