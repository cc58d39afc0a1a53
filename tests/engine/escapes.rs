//! Array handles that outlive their job: the job fails, and its memory is not reused while that worker exists.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use arenite::{Array, ArrayMut, JobErrorKind, WorkerExit};

use crate::harness::{Calls, Lab, assert_kind, assert_says, children, tests};

tests![
    handles_that_outlive_their_job_are_counted,
    an_array_written_by_a_thread_escapes,
    handles_dropped_in_time_do_not_escape,
    jobs_behind_an_escape_run_on_the_next_worker,
];

static KEPT: Mutex<Vec<Array<u8>>> = Mutex::new(Vec::new());

/// Runs a job whose handles escape, and checks the consequences.
fn assert_escape<R: Send + std::fmt::Debug + 'static>(
    lab: &Lab,
    count: u64,
    submit: impl Fn(&Lab) -> arenite::Job<R>,
) {
    for _ in 0..3 {
        let (pid, restarts) = (lab.pid(0), lab.stats().workers[0].restarts);
        let error = lab.failure_of(submit(lab));
        assert!(
            !children().contains(&pid),
            "worker {pid} exists although its job is answered"
        );
        assert_kind!(error, JobErrorKind::Lost(WorkerExit::Escaped { count: n }) if *n == count);
        assert_says(&error, "outlived");
        // The memory can be reused now: no process writes there any more.
        let next = lab.value_of(made, (100_000, 7));
        assert!(next.iter().all(|&x| x == 7));
        assert_eq!(lab.stats().workers[0].restarts, restarts + 1);
    }
}

fn made(len: usize, value: u8) -> Array<u8> {
    Array::from_fn(len, |_| value)
}

fn keep(values: &Array<u8>) -> u64 {
    KEPT.lock().unwrap().push(values.clone());
    1
}

fn keep_part(values: &Array<u8>) -> Array<u8> {
    KEPT.lock().unwrap().push(values.rows(1..2));
    values.clone()
}

fn keep_many(values: &Array<u8>, times: usize) {
    let handles = std::iter::repeat_n(values, times).cloned();
    KEPT.lock().unwrap().extend(handles);
}

fn keep_own(len: usize) -> Array<u8> {
    let own = Array::from_fn(len, |i| i as u8);
    KEPT.lock().unwrap().push(own.clone());
    own
}

fn keep_exclusive(values: ArrayMut<u8>) {
    static MUT: Mutex<Vec<ArrayMut<u8>>> = Mutex::new(Vec::new());
    MUT.lock().unwrap().push(values);
}

fn keep_and_panic(values: &Array<u8>) {
    keep(values);
    panic!("and this");
}

/// Passes it to a thread that detects when its memory is handed out again.
fn hand_over(values: &Array<u8>) -> u64 {
    let values = values.clone();
    let (ready, started) = channel();
    std::thread::spawn(move || {
        ready.send(()).unwrap();
        while values.iter().all(|&x| x == 3) {
            std::thread::yield_now();
        }
        panic!("memory was reused under a living handle");
    });
    started.recv().unwrap();
    5
}

fn handles_that_outlive_their_job_are_counted() {
    let lab = Lab::balanced(1);
    let values = lab.from_fn([3, 100_000], |i| i as u8).unwrap();
    assert_escape(&lab, 1, |lab| lab.submit(keep, (&values,)));
    assert_escape(&lab, 1, |lab| {
        lab.submit(keep, (lab.from_slice(&[1]).unwrap(),))
    });
    assert_escape(&lab, 1, |lab| lab.submit(keep_part, (&values,)));
    assert_escape(&lab, 1000, |lab| lab.submit(keep_many, (&values, 1000)));
    assert_escape(&lab, 1, |lab| lab.submit(keep_and_panic, (&values,)));
    assert_escape(&lab, 1, |lab| {
        lab.job(made, (1000, 1)).then(keep, ()).submit()
    });
    assert_escape(&lab, 1, |lab| {
        lab.submit(hand_over, (lab.from_slice(&[3u8; 100_000]).unwrap(),))
    });
    assert_escape(&lab, 1, |lab| {
        lab.submit(keep_exclusive, (lab.zeros::<u8>(100_000).unwrap(),))
    });
    let forget = |values: &Array<u8>| std::mem::forget(values.clone());
    assert_escape(&lab, 1, |lab| lab.submit(forget, (&values,)));
    let forget_own = |len: usize| std::mem::forget(ArrayMut::<u8>::zeros(len));
    for len in [5, 1 << 20] {
        assert_escape(&lab, 1, |lab| lab.submit(keep_own, (len,)));
        assert_escape(&lab, 1, |lab| lab.submit(forget_own, (len,)));
    }
    assert!(values.iter().enumerate().all(|(i, &x)| x == i as u8));
}

/// Its pages stay open until the process has ended; otherwise the thread would end it before the error arrives. Closing
/// the pages around it takes a while.
fn an_array_written_by_a_thread_escapes() {
    type Values = ArrayMut<u8>;
    fn hand_over(mut values: Values, _: Values, _: Values, _: Values, _: Values) {
        let (ready, started) = channel();
        std::thread::spawn(move || {
            ready.send(()).unwrap();
            for round in (0_u8..8).cycle() {
                values.fill(round);
            }
        });
        started.recv().unwrap();
    }
    let lab = Lab::balanced(1);
    for _ in 0..10 {
        assert_escape(&lab, 1, |lab| {
            let [a, b, c, d, e] = [(); 5].map(|()| lab.zeros::<u8>(1 << 20).unwrap());
            lab.submit(hand_over, (a, b, c, d, e))
        });
    }
}

fn handles_dropped_in_time_do_not_escape() {
    fn borrow(values: &Array<u8>) -> u64 {
        KEPT.lock().unwrap().push(values.clone());
        let sum = std::thread::scope(|s| {
            let parts = [values.rows(..50), values.rows(50..)];
            let sums =
                parts.map(|part| s.spawn(move || part.iter().map(|&x| u64::from(x)).sum::<u64>()));
            sums.map(|sum| sum.join().unwrap()).iter().sum()
        });
        KEPT.lock().unwrap().clear();
        sum
    }
    let lab = Lab::balanced(1);
    let values = lab.from_slice(&[2u8; 100]).unwrap();
    for _ in 0..100 {
        assert_eq!(lab.value_of(borrow, (&values,)), 200);
    }
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn jobs_behind_an_escape_run_on_the_next_worker() {
    fn keep_some(values: &Array<u8>, n: u32) -> u32 {
        if n.is_multiple_of(10) {
            KEPT.lock().unwrap().push(values.clone());
        }
        n
    }
    let lab = Lab::balanced(2);
    let values = lab.from_slice(&[1u8]).unwrap();
    let jobs: Vec<_> = (0..100)
        .map(|n| lab.submit(keep_some, (&values, n)))
        .collect();
    for (n, job) in (0..).zip(jobs) {
        match job.wait() {
            Ok(value) => assert!(value == n && n % 10 != 0),
            Err(error) => assert!(
                *error.kind() == JobErrorKind::Lost(WorkerExit::Escaped { count: 1 })
                    && n % 10 == 0,
                "{n}: {error}"
            ),
        }
    }
}
