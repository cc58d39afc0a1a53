//! Jobs as arguments of other jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use arenite::raw::{Buffer, Buffers, Received};
use arenite::{
    Array, ArrayMut, Backoff, Bytes, Engine, FailedDependency, Job, JobError, JobErrorKind,
    Limiter, Priority, Rejection, Sandbox, WorkerExit,
};

use crate::harness::{
    Dice, Gate, Lab, assert_kind, assert_says, at_gates, expect_in_use, pass, seeds, step, tests,
};

tests![
    a_job_takes_values_of_each_kind,
    a_job_takes_lists_of_jobs,
    an_exclusive_array_moves_from_job_to_job,
    values_stay_for_handles_and_for_jobs,
    values_are_freed_after_their_last_use,
    a_failure_names_the_way_to_its_root,
    a_cancelled_input_cancels_what_takes_it,
    a_dropped_handle_does_not_cancel_an_input,
    an_input_that_no_one_takes_any_more_is_cancelled,
    options_hold_for_jobs_with_inputs,
    a_worker_that_dies_is_no_loss_with_retries,
    the_value_of_an_actors_call_is_taken,
    calls_of_an_actor_take_values_in_their_order,
    an_actor_ends_after_calls_that_wait_for_values,
    values_for_other_languages_are_taken,
    jobs_of_another_engine_are_refused,
    inline_jobs_give_the_same,
    a_chain_of_ten_thousand_ends,
    one_value_is_taken_ten_thousand_times,
    an_engine_that_drains_runs_what_it_accepted,
    random_programs_give_what_plain_data_gives,
];

fn count(n: u64) -> Array<u64> {
    Array::from_fn(n as usize, |i| i as u64)
}

fn sum(values: &[u64]) -> u64 {
    values.iter().sum()
}

fn add(left: u64, right: u64) -> u64 {
    left.wrapping_add(right)
}

fn fails() -> Result<u64, String> {
    Err("no such file".to_owned())
}

fn gated(gate: &str, value: u64) -> u64 {
    pass(gate);
    value
}

fn dies() -> u64 {
    std::process::abort()
}

fn a_job_takes_values_of_each_kind() {
    for lab in [
        Lab::new(2),
        Lab::with(2, |builder| builder.sandbox(Sandbox::Strict)),
    ] {
        let array = lab.submit(count, (1000,));
        let number = lab.submit(sum, (&array,));
        let borrowed = lab.submit(
            |a: &Array<u64>, n: u64| a.len() as u64 + n,
            (&array, &number),
        );
        assert_eq!(borrowed.wait().unwrap(), 1000 + 499_500);
        let text = lab.submit(|n: u64| "ab".repeat(n as usize), (50_000u64,));
        let long = lab.submit(
            |text: &str, end: &str| text.len() + end.len(),
            (&text, "end"),
        );
        let bytes = lab.submit(|text: &str| Bytes::from(text.as_bytes()), (&text,));
        let list = lab.submit(|n: u64| vec![n; 5], (&number,));
        let all = lab.submit(
            |list: Vec<u64>, bytes: &Bytes, more: &[u64]| list[4] + bytes.len() as u64 + more[3],
            (&list, &bytes, vec![1u64, 2, 3, 4]),
        );
        assert_eq!(
            (long.wait().unwrap(), all.wait().unwrap()),
            (100_003, 499_500 + 100_000 + 4)
        );
        // By value, and an array of the program beside it.
        let given = lab.from_slice(&[7u64, 8]).unwrap();
        let both = |a: &[u64], b: &[u64], c: &Array<u64>| a.len() + b.len() + c.len();
        let both = lab.submit(both, (&given, lab.submit(count, (10,)), array));
        assert_eq!(both.wait().unwrap(), 1012);
        assert_eq!(text.wait().unwrap().len(), 100_000);
    }
}

fn a_job_takes_lists_of_jobs() {
    fn lengths(parts: &[Array<u64>], by: u64) -> Vec<u64> {
        parts.iter().map(|part| part.len() as u64 * by).collect()
    }
    let lab = Lab::new(2);
    let (gate, held) = {
        let gate = Gate::new();
        let held = lab.submit(gated, (&gate.path(), 3));
        (gate.meet(), held)
    };
    let jobs: Vec<Job<Array<u64>>> = (0..100).map(|n| lab.submit(count, (n,))).collect();
    let expected: Vec<u64> = (0..100).map(|n| 3 * n).collect();
    let borrowed = lab.submit(lengths, (&jobs, &held));
    let some = lab.submit(lengths, (vec![&jobs[7], &jobs[7], &jobs[2]], 1));
    let owned = lab.submit(lengths, (jobs, held));
    drop(gate);
    assert_eq!(some.wait().unwrap(), [7, 7, 2]);
    assert_eq!(borrowed.wait().unwrap(), expected);
    assert_eq!(owned.wait().unwrap(), expected);
}

fn an_exclusive_array_moves_from_job_to_job() {
    fn zeros(n: u64) -> ArrayMut<u64> {
        ArrayMut::zeros(n as usize)
    }
    fn raise(mut values: ArrayMut<u64>) -> ArrayMut<u64> {
        values.iter_mut().for_each(|x| *x += 1);
        values
    }
    let lab = Lab::new(2);
    let mut job = lab.submit(zeros, (100_000,));
    for _ in 0..5 {
        job = lab.submit(raise, (job,));
    }
    assert!(job.wait().unwrap().iter().all(|&x| x == 5));
}

fn values_stay_for_handles_and_for_jobs() {
    let lab = Lab::new(2);
    let array = lab.submit(count, (5000,));
    let gate = Gate::new();
    let late = lab.submit(
        |gate: &str, a: &[u64]| {
            pass(gate);
            a.len()
        },
        (&gate.path(), &array),
    );
    let held = gate.meet();
    let again = lab.submit(sum, (&array,));
    // The handle takes the value while a job waits for it.
    assert_eq!(array.wait().unwrap().len(), 5000);
    assert_eq!(again.wait().unwrap(), 5000 * 4999 / 2);
    drop(held);
    assert_eq!(late.wait().unwrap(), 5000);
}

fn values_are_freed_after_their_last_use() {
    let lab = Lab::new(2);
    let array = lab.submit(count, (500_000,));
    let job = lab.submit(sum, (&array,));
    drop(array);
    job.wait().unwrap();
    let never = lab.submit(sum, (lab.submit(count, (500_000,)),));
    drop(never);
    let failed = lab.submit(
        add,
        (
            lab.submit(fails, ()),
            lab.submit(sum, (lab.submit(count, (9000,)),)),
        ),
    );
    failed.wait().unwrap_err();
    expect_in_use(&lab, 0).unwrap();
}

fn inputs_of(error: &JobError) -> (Vec<Option<u64>>, u64, JobErrorKind) {
    match error.kind() {
        JobErrorKind::Dependency(FailedDependency::Input {
            path,
            omitted,
            cause,
            ..
        }) => (
            path.iter().map(|input| input.job).collect(),
            *omitted,
            (**cause).clone(),
        ),
        kind => panic!("{kind:?}"),
    }
}

fn a_failure_names_the_way_to_its_root() {
    let lab = Lab::new(2);
    let root = lab.submit(fails, ());
    let root_id = root.id();
    let first = lab.submit(add, (&root, 1));
    let second = lab.submit(add, (2, &first));
    let ids = [first.id(), root_id].to_vec();
    let error = second.wait().unwrap_err();
    let (path, omitted, cause) = inputs_of(&error);
    assert_eq!((path, omitted), (ids, 0));
    assert_eq!(cause, JobErrorKind::Returned("no such file".into()));
    assert_eq!(error.origin().unwrap(), &root.wait().unwrap_err());
    assert_says(&error, "which takes that of job");
    assert_says(&error, "no such file");
    step("a long way is cut, and a job that takes a failed job fails at once");
    let mut job = lab.submit(fails, ());
    let root_id = job.id();
    for _ in 0..20 {
        job = lab.submit(add, (job, 1));
    }
    let (path, omitted, _) = inputs_of(&job.wait().unwrap_err());
    assert_eq!((path.len(), path[7], omitted), (8, root_id, 12));
    step("a worker that died");
    let died = lab.submit(dies, ());
    let error = lab.submit(add, (&died, 1)).wait().unwrap_err();
    let (_, _, cause) = inputs_of(&error);
    assert_eq!(cause, JobErrorKind::Lost(WorkerExit::Signal(6)));
    assert_eq!(
        error.origin().unwrap().worker(),
        died.wait().unwrap_err().worker()
    );
}

fn a_cancelled_input_cancels_what_takes_it() {
    let lab = Lab::balanced(1);
    let (busy, held) = at_gates(1, |gate| lab.submit(pass, (gate,)));
    let input = lab.submit(add, (1, 2));
    let takes = lab.submit(add, (&input, 1));
    let other = lab.submit(add, (4, 5));
    let also = lab.submit(add, (&takes, &other));
    input.cancel();
    let (_, _, cause) = inputs_of(&also.wait().unwrap_err());
    assert_eq!(cause, JobErrorKind::Cancelled);
    inputs_of(&takes.wait().unwrap_err());
    drop(held);
    assert_eq!(other.wait().unwrap(), 9);
    assert_kind!(input.wait().unwrap_err(), JobErrorKind::Cancelled);
    busy.into_iter().for_each(|job| job.wait().unwrap());
    step("a job that waits is cancelled itself, or by its scope");
    let (busy, held) = at_gates(1, |gate| lab.submit(pass, (gate,)));
    let input = lab.submit(add, (1, 2));
    let takes = lab.submit(add, (&input, 1));
    takes.cancel();
    assert_kind!(takes.wait().unwrap_err(), JobErrorKind::Cancelled);
    let scoped = lab.scope(|s| {
        let job = s.submit(add, (&input, 1));
        s.cancel();
        job.wait()
    });
    assert!(scoped.is_err());
    drop(held);
    busy.into_iter().for_each(|job| job.wait().unwrap());
    assert_eq!(input.wait().unwrap(), 3);
}

fn a_dropped_handle_does_not_cancel_an_input() {
    let lab = Lab::balanced(1);
    let (busy, held) = at_gates(1, |gate| lab.submit(pass, (gate,)));
    let input = lab.submit(add, (1, 2));
    let takes = lab.submit(add, (&input, 1));
    let detached = lab.submit(add, (&input, 2));
    drop(input);
    detached.detach();
    drop(held);
    assert_eq!(takes.wait().unwrap(), 4);
    busy.into_iter().for_each(|job| job.wait().unwrap());
}

fn an_input_that_no_one_takes_any_more_is_cancelled() {
    let lab = Lab::balanced(1);
    let (busy, held) = at_gates(1, |gate| lab.submit(pass, (gate,)));
    let chain = lab.submit(add, (lab.submit(add, (lab.submit(add, (1, 2)), 3)), 4));
    let before = lab.progress();
    drop(chain);
    let after = lab.progress();
    assert_eq!(
        after.cancelled - before.cancelled,
        3,
        "{before:?} {after:?}"
    );
    drop(held);
    busy.into_iter().for_each(|job| job.wait().unwrap());
}

fn options_hold_for_jobs_with_inputs() {
    let lab = Lab::new(2);
    let input = lab.submit(count, (10,));
    let late = lab.job(
        |_: &[u64]| -> () {
            loop {
                std::thread::park();
            }
        },
        (&input,),
    );
    let error: JobError = late
        .deadline(Duration::from_millis(50))
        .label("late")
        .submit()
        .wait()
        .unwrap_err();
    assert_eq!(error.label(), Some("late"));
    let limiter = Limiter::new().concurrency(1);
    let jobs: Vec<_> = (0..20u64)
        .map(|n| {
            lab.job(add, (lab.submit(sum, (&input,)), n))
                .limit(&limiter)
                .priority(Priority::High)
                .submit()
        })
        .collect();
    let sums: Vec<u64> = jobs.into_iter().map(|job| job.wait().unwrap()).collect();
    assert_eq!(sums, (0..20).map(|n| 45 + n).collect::<Vec<_>>());
    let chained = lab
        .job(sum, (&input,))
        .then(add, (lab.submit(sum, (&input,)),))
        .submit();
    assert_eq!(chained.wait().unwrap(), 90);
    let mapped = lab.map(add, (0..50u64).map(|n| (lab.submit(add, (n, 1)), n)));
    let sums: Vec<u64> = mapped.collect::<Result<_, _>>().unwrap();
    assert_eq!(sums, (0..50).map(|n| 2 * n + 1).collect::<Vec<_>>());
    let lab = Lab::with(2, |builder| builder.max_in_flight_bytes(1 << 20));
    let mut job = lab.submit(count, (1000,));
    for _ in 0..50 {
        job = lab.submit(|values: &Array<u64>| Array::from_slice(&values[..]), (job,));
    }
    assert_eq!(job.wait().unwrap().len(), 1000);
}

fn a_worker_that_dies_is_no_loss_with_retries() {
    fn dies_once(path: &str, values: &[u64]) -> u64 {
        if std::fs::File::options()
            .write(true)
            .create_new(true)
            .open(path)
            .is_ok()
        {
            std::process::abort();
        }
        values.iter().sum()
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("once").display().to_string();
    let lab = Lab::new(1);
    let input = lab.submit(count, (10,));
    let job = lab
        .job(dies_once, (&*path, &input))
        .retries(1)
        .backoff(Backoff::NONE)
        .submit();
    let next = lab.submit(add, (&job, 1));
    drop((input, job));
    assert_eq!(next.wait().unwrap(), 46);
}

/// A call keeps its place in the line of its actor, whatever becomes of its handle.
fn the_value_of_an_actors_call_is_taken() {
    fn raise(state: &mut u64, gate: &str) -> u64 {
        if !gate.is_empty() {
            pass(gate);
        }
        *state += 1;
        *state
    }
    let lab = Lab::new(2);
    let actor = lab.actor(|| 0u64, ()).start();
    let gate = Gate::new();
    let first = actor.call(raise, (&gate.path(),));
    let held = gate.meet();
    let mut sums = Vec::new();
    for n in 0..300 {
        sums.push((n, lab.submit(add, (actor.call(raise, ("",)), n))));
        let call = actor.call(raise, ("",));
        drop(lab.submit(add, (&call, n)));
        call.detach();
    }
    drop(held);
    assert_eq!(first.wait().unwrap(), 1);
    for (n, sum) in sums {
        assert_eq!(sum.wait().unwrap(), 2 + 2 * n + n, "{n}");
    }
    assert_eq!(actor.call(raise, ("",)).wait().unwrap(), 602);
}

fn push(list: &mut Vec<u64>, value: u64) -> u64 {
    list.push(value);
    list.len() as u64
}

/// The first call waits for a value, so all that is cancelled has not begun.
fn calls_of_an_actor_take_values_in_their_order() {
    for seed in seeds(30) {
        let mut dice = Dice::new(seed);
        let lab = Lab::new(2);
        let actor = lab.actor(Vec::<u64>::new, ()).start();
        let gate = Gate::new();
        let slow = lab.submit(gated, (&gate.path(), 0));
        let held = gate.meet();
        let mut calls = vec![Some(actor.call(push, (&slow,)))];
        // The list, and for each call the length that it returns, unless it fails.
        let (mut list, mut lens) = (vec![0], vec![Some(1)]);
        for n in 1..2 + dice.below(60) {
            let waiting = || lab.submit(add, (&slow, n));
            let (call, value) = match dice.below(5) {
                0 => (actor.call(push, (n,)), Some(n)),
                1 => (actor.call(push, (&lab.submit(fails, ()),)), None),
                // The value of an earlier call goes through a job that runs elsewhere.
                2 if let Some(Some(earlier)) = calls.last() => {
                    let job = lab.submit(add, (earlier, 1000));
                    let len = lens.last().copied().flatten();
                    (actor.call(push, (&job,)), len.map(|len| len + 1000))
                }
                3 => {
                    let job = waiting();
                    job.cancel();
                    (actor.call(push, (&job,)), None)
                }
                _ => (actor.call(push, (&waiting(),)), Some(n)),
            };
            let end = dice.below(6);
            let value = value.filter(|_| end > 1);
            list.extend(value);
            lens.push(value.map(|_| list.len() as u64));
            calls.push(match end {
                0 => None,
                1 => {
                    call.cancel();
                    Some(call)
                }
                _ => Some(call),
            });
        }
        drop(held);
        for (at, (call, len)) in calls.into_iter().zip(lens).enumerate() {
            let Some(call) = call else { continue };
            assert_eq!(call.wait().ok(), len, "seed {seed}, call {at}");
        }
        let got = actor.call(|list: &Vec<u64>| list.clone(), ());
        assert_eq!(got.wait().unwrap(), list, "seed {seed}");
        drop(actor);
        drop(slow);
        expect_in_use(&lab, 0).unwrap();
    }
}

fn an_actor_ends_after_calls_that_wait_for_values() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let slow = lab.submit(gated, (&gate.path(), 5));
    let held = gate.meet();
    let actor = lab.actor(Vec::<u64>::new, ()).start();
    let calls: Vec<_> = (0..3).map(|_| actor.call(push, (&slow,))).collect();
    drop(actor);
    drop(held);
    let lens: Vec<u64> = calls.into_iter().map(|call| call.wait().unwrap()).collect();
    assert_eq!(lens, [1, 2, 3]);
    // A start takes no job.
    let refused = lab.actor(|x: u64| vec![x], (&slow,)).start();
    let error = refused.call(push, (1,)).wait().unwrap_err();
    assert_says(&error, "is a job");
}

fn values_for_other_languages_are_taken() {
    fn make(n: u64) -> Result<(u64, Bytes, Vec<Array<u8>>), String> {
        if n == 0 {
            return Err("nothing to make".to_owned());
        }
        let arrays = (0..n % 5).map(|i| Array::from_slice(&[i as u8; 5000]));
        Ok((n, vec![n as u8; n as usize].into(), arrays.collect()))
    }
    fn read(buffers: Buffers<'_>) -> u64 {
        let count = |buffer| match buffer {
            Received::Value((n, bytes, arrays)) => {
                assert!(bytes.iter().all(|&byte| byte == n as u8));
                let first = arrays.iter().map(|array| u64::from(array[4999]));
                n + bytes.len() as u64 + first.sum::<u64>()
            }
            Received::Read(array) => 1_000_000 * array.len() as u64,
            Received::Write(_) => panic!("nothing is lent"),
        };
        buffers.map(count).sum()
    }
    let sandboxed = Lab::with(2, |builder| builder.sandbox(Sandbox::Strict));
    let inline = Engine::inline();
    for engine in [&*Lab::new(2), &*sandboxed, &inline] {
        let (small, large) = (engine.submit(make, (3,)), engine.submit(make, (70_004,)));
        let own = engine.from_slice(&[1u8, 2]).unwrap();
        let buffers = vec![
            Buffer::value(&small),
            Buffer::read(own),
            Buffer::value(&large),
            Buffer::value(&small),
        ];
        let expected = 2 * (6 + 3) + 2 * 70_004 + 6 + 2_000_000;
        assert_eq!(engine.submit(read, (buffers,)).wait().unwrap(), expected);
        let bad = engine.submit(make, (0,));
        let error = engine.submit(read, (vec![Buffer::value(&bad)],)).wait();
        assert_says(&error.unwrap_err(), "nothing to make");
    }
    let job = sandboxed.submit(make, (1,));
    let error = inline.submit(read, (vec![Buffer::value(&job)],)).wait();
    assert_says(&error.unwrap_err(), "another engine");
}

fn jobs_of_another_engine_are_refused() {
    let (lab, other) = (Lab::new(1), Lab::new(1));
    let foreign = other.submit(add, (1, 2));
    let error = lab.submit(add, (&foreign, 1)).wait().unwrap_err();
    assert_kind!(error, JobErrorKind::Rejected(Rejection::ForeignJob));
    let inline = Engine::inline();
    let error = inline.submit(add, (&foreign, 1)).wait().unwrap_err();
    assert_says(&error, "another engine");
    assert_eq!(foreign.wait().unwrap(), 3);
    // An inline job has ended: numbers are passed on.
    let number = inline.submit(add, (1, 2));
    assert_eq!(lab.submit(add, (&number, 1)).wait().unwrap(), 4);
}

fn inline_jobs_give_the_same() {
    let inline = Engine::inline();
    let array = inline.submit(count, (10,));
    let total = inline.submit(sum, (&array,));
    assert_eq!(inline.submit(add, (&total, &total)).wait().unwrap(), 90);
    let failed = inline.submit(fails, ());
    let error = inline.submit(add, (&failed, 1)).wait().unwrap_err();
    let (path, _, cause) = inputs_of(&error);
    assert_eq!(
        (path, cause),
        (vec![None], JobErrorKind::Returned("no such file".into()))
    );
    let error = inline
        .scope(|s| s.submit(add, (&failed, 1)).wait())
        .unwrap_err();
    assert!(error.to_string().contains("no such file"));
    let mapped: Vec<_> = inline.map(add, [(&total, 1), (&failed, 1)]).collect();
    assert_eq!(mapped[0], Ok(46));
    inputs_of(mapped[1].as_ref().unwrap_err());
    assert_eq!(array.wait().unwrap().len(), 10);
}

fn a_chain_of_ten_thousand_ends() {
    let lab = Lab::new(2);
    let mut job = lab.submit(add, (0, 0));
    for _ in 0..10_000 {
        job = lab.submit(add, (job, 1));
    }
    assert_eq!(job.wait().unwrap(), 10_000);
    step("one that fails, one that is dropped");
    let (busy, held) = at_gates(2, |gate| lab.submit(pass, (gate,)));
    let mut jobs = [lab.submit(fails, ()), lab.submit(fails, ())];
    for _ in 0..10_000 {
        jobs = jobs.map(|job| lab.submit(|n: u64| Ok::<_, String>(n), (job,)));
    }
    let [failed, dropped] = jobs;
    drop(dropped);
    drop(held);
    let (_, omitted, _) = inputs_of(&failed.wait().unwrap_err());
    assert_eq!(omitted, 10_000 - 8);
    busy.into_iter().for_each(|job| job.wait().unwrap());
}

fn one_value_is_taken_ten_thousand_times() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let input = lab.submit(gated, (&gate.path(), 5));
    let held = gate.meet();
    let jobs: Vec<_> = (0..10_000).map(|n| lab.submit(add, (&input, n))).collect();
    drop(input);
    drop(held);
    for (job, n) in jobs.into_iter().zip(0..) {
        assert_eq!(job.wait().unwrap(), 5 + n);
    }
}

fn an_engine_that_drains_runs_what_it_accepted() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let input = lab.submit(gated, (&gate.path(), 5));
    let held = gate.meet();
    let jobs: Vec<_> = (0..10).map(|n| lab.submit(add, (&input, n))).collect();
    let engine = lab.into_inner();
    let ends = std::thread::spawn(move || engine.shutdown());
    drop(held);
    ends.join().unwrap();
    for (job, n) in jobs.into_iter().zip(0..) {
        assert_eq!(job.wait().unwrap(), 5 + n);
    }
}

/// Jobs that take each other's values at random; some fail, some handles are dropped, some values are taken early.
fn random_programs_give_what_plain_data_gives() {
    fn combine(parts: &[Array<u64>], scalar: u64, how: u64) -> Result<Array<u64>, String> {
        match how {
            0 => Err(format!("{scalar} is wrong")),
            1 => std::process::abort(),
            _ => {
                let sum: u64 = parts
                    .iter()
                    .flat_map(|part| part.iter())
                    .fold(0, |sum, &x| sum.wrapping_add(x));
                Ok(Array::from_fn(1 + (scalar % 50) as usize, |i| {
                    sum ^ scalar ^ i as u64
                }))
            }
        }
    }
    for seed in seeds(20) {
        let mut dice = Dice::new(seed);
        let lab = Lab::with(2, |builder| builder.quarantine_after(10_000));
        let size = 2 + dice.below(200) as usize;
        let mut jobs: Vec<Option<Job<Array<u64>>>> = Vec::new();
        // The value, or the roots of its failure.
        let mut model: Vec<Result<Vec<u64>, BTreeSet<usize>>> = Vec::new();
        for at in 0..size {
            let open: Vec<usize> = (0..at).filter(|&i| jobs[i].is_some()).collect();
            let takes: Vec<usize> = (0..dice.below(4))
                .filter(|_| !open.is_empty())
                .map(|_| open[dice.below(open.len() as u64) as usize])
                .collect();
            let how = dice.below(40);
            let scalar = dice.below(1000);
            let inputs: Vec<&Job<Array<u64>>> =
                takes.iter().filter_map(|&i| jobs[i].as_ref()).collect();
            let job = lab.submit(combine, (inputs, scalar, how));
            let roots: BTreeSet<usize> = takes
                .iter()
                .filter_map(|&i| model[i].as_ref().err())
                .flatten()
                .copied()
                .collect();
            model.push(match (roots.is_empty(), how) {
                (false, _) => Err(roots),
                (true, 0 | 1) => Err([at].into()),
                (true, _) => {
                    let all = takes
                        .iter()
                        .filter_map(|&i| model[i].as_ref().ok())
                        .flatten();
                    let sum: u64 = all.fold(0, |sum: u64, &x| sum.wrapping_add(x));
                    Ok((0..=scalar % 50)
                        .map(|i| sum ^ scalar ^ i)
                        .take(1 + (scalar % 50) as usize)
                        .collect())
                }
            });
            jobs.push(Some(job));
            if dice.below(5) == 0
                && let Some(&old) = open.get(dice.below(open.len().max(1) as u64) as usize)
                && let Some(job) = jobs[old].take()
            {
                match dice.below(3) {
                    0 => drop(job),
                    1 => job.detach(),
                    _ => assert_eq!(job.wait().is_ok(), model[old].is_ok(), "{seed} {old}"),
                }
            }
        }
        for (at, job) in jobs.into_iter().enumerate() {
            let Some(job) = job else { continue };
            match (job.wait(), &model[at]) {
                (Ok(value), Ok(expected)) => assert_eq!(value[..], expected[..], "{seed} {at}"),
                (Err(_), Err(_)) => {}
                (got, expected) => panic!("seed {seed}, job {at}: {got:?}, not {expected:?}"),
            }
        }
        expect_in_use(&lab, 0).unwrap();
    }
}
