//! Failures of spawned jobs, and killed workers.

use std::time::Duration;

use arenite::{
    Array, ArrayMut, Backoff, Engine, FailedDependency, JobErrorKind, JobLimit, Spawn, call,
};

use super::{end, fails, fib};
use crate::harness::{
    ABORTED, Diary, Gate, KILLED, Lab, cause_of, note, pass, step, tests, wait_until,
};

tests![
    a_recursion_without_an_end_is_an_error,
    a_failed_child_is_the_failure_of_the_job,
    a_continuation_may_fail,
    other_children_are_cancelled_when_one_fails,
    a_job_that_changes_an_array_is_not_retried,
    spawned_jobs_inherit_retries,
    spawning_with_too_many_arrays_is_an_error,
    spawning_with_too_much_text_is_an_error,
];

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
            let JobErrorKind::Dependency(FailedDependency::Child { cause, .. }) = error.kind()
            else {
                panic!("{error}");
            };
            let limit = |depth, open| depth == 10_001 || open > 1 << 18;
            assert!(
                matches!(**cause, JobErrorKind::Limit(JobLimit::Spawned { depth, open }) if limit(depth, open)),
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
            let JobErrorKind::Dependency(FailedDependency::Child { kernel, cause, job }) =
                error.kind()
            else {
                panic!("{error}");
            };
            assert!(job.is_none() || *job != error.job(), "{error}");
            match kind {
                0 => {
                    assert_eq!(**cause, JobErrorKind::Returned("7 is wrong".into()));
                    assert!(kernel.ends_with("fails"), "{kernel}");
                }
                1 => assert!(
                    matches!(&**cause, JobErrorKind::Panicked { message, .. } if message == "a broken leaf")
                ),
                _ => assert_eq!(**cause, ABORTED),
            }
        }
    }
    lab.assert_in_use(0);
}

fn a_continuation_may_fail() {
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
        assert_eq!(*cause_of(&error), JobErrorKind::Returned("not 13".into()));
    }
    lab.assert_in_use(0);
}

fn other_children_are_cancelled_when_one_fails() {
    fn at_gate(gate: &str) -> Result<u64, String> {
        pass(gate);
        Err("opened".into())
    }
    fn patient(path: &str) -> u64 {
        note(path, "ran");
        while !arenite::cancelled() {
            std::thread::yield_now();
        }
        note(path, "ran");
        1
    }
    fn deaf(path: &str) -> u64 {
        note(path, "ran");
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
    for listens in [true, false] {
        // A kernel that polls cancellation has enough time.
        let grace = Duration::from_millis(if listens { 600_000 } else { 50 });
        let lab = Lab::with(2, |builder| builder.grace(grace));
        let diary = Diary::new();
        let path = diary.path();
        let gate = Gate::new();
        let job = lab.submit(outer, (&gate.path(), &path, listens));
        let held = gate.meet();
        wait_until("the other one runs", || diary.lines().len() == 1);
        drop(held);
        let error = job.wait().unwrap_err();
        assert_eq!(*cause_of(&error), JobErrorKind::Returned("opened".into()));
        assert_eq!(diary.lines().len(), if listens { 2 } else { 1 });
        let restarts = |worker| lab.stats().workers[worker as usize].restarts;
        assert_eq!(restarts(0) + restarts(1), u64::from(!listens));
        lab.assert_in_use(0);
    }
}

fn a_job_that_changes_an_array_is_not_retried() {
    fn change(mut values: ArrayMut<u32>, gate: &str) -> Array<u32> {
        values[0] += 1;
        pass(gate);
        values.seal()
    }
    fn outer(gate: &str) -> Spawn<u32> {
        let values = ArrayMut::<u32>::zeros(10);
        Spawn::new(|values: &[u32]| values[0], (call(change, (values, gate)),))
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
    assert_eq!(*cause_of(&error), KILLED);
    let job = lab.job(outer, (&gate.path(),)).retries(5).submit();
    gate.open();
    assert_eq!(job.wait().unwrap(), 1);
    lab.assert_in_use(0);
}

/// The options of a job apply to all jobs spawned below it.
fn spawned_jobs_inherit_retries() {
    fn leaf(gate: &str) -> u32 {
        pass(gate);
        7
    }
    fn change(mut values: ArrayMut<u32>, gate: &str) -> Spawn<u32> {
        values[0] += 1;
        Spawn::new(|x: u32| x, (call(leaf, (gate,)),))
    }
    fn outer(gate: &str) -> Spawn<u32> {
        let values = ArrayMut::<u32>::zeros(10);
        Spawn::new(|x: u32| x + 1, (call(change, (values, gate)),))
    }
    let lab = Lab::new(1);
    let gate = Gate::new();
    let job = lab
        .job(outer, (&gate.path(),))
        .retries(1)
        .backoff(Backoff::NONE)
        .submit();
    let held = gate.meet();
    end(lab.pid(0));
    drop(held);
    lab.await_restart(0, 1);
    gate.open();
    assert_eq!(job.wait().unwrap(), 8);
    lab.assert_in_use(0);
}

fn spawning_with_too_many_arrays_is_an_error() {
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
    assert!(error.to_string().contains("the limit is 4096"), "{error}");
    lab.assert_in_use(0);
}

fn spawning_with_too_much_text_is_an_error() {
    fn outer(each: usize) -> Spawn<u64> {
        let part = || call(|text: &str| text.len() as u64, ("x".repeat(each),));
        Spawn::new(|a: u64, b: u64| a + b, (part(), part()))
    }
    let lab = Lab::with(1, |builder| builder.capacity(512 << 20));
    assert_eq!(lab.submit(outer, (1 << 20,)).wait().unwrap(), 2 << 20);
    let error = lab.submit(outer, (40 << 20,)).wait().unwrap_err();
    let JobErrorKind::Returned(text) = error.kind() else {
        panic!("{error}");
    };
    assert!(text.text().contains("the limit is"), "{text}");
    assert_eq!(lab.stats().restarts(), 0);
    lab.assert_in_use(0);
}
