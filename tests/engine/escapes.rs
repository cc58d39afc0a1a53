//! Array handles that outlive their job: the job fails, and its memory is not reused while that worker exists.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use arenite::{Array, ArrayMut, JobErrorKind, WorkerExit};

use crate::harness::{Lab, assert_kind, children, tests};

tests![
    an_array_in_a_static_escapes,
    a_sub_array_in_a_static_escapes,
    an_array_on_a_thread_escapes,
    a_forgotten_array_escapes,
    an_array_made_by_the_job_escapes,
    an_exclusive_array_escapes,
    an_array_written_by_a_thread_escapes,
    all_escaped_handles_are_counted,
    an_escape_in_a_chain_fails_the_job,
    an_escape_in_a_failing_job,
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
        assert!(error.to_string().contains("outlived"), "{error}");
        // The memory can be reused now: no process writes there any more.
        let next = lab.submit(made, (100_000, 7)).wait().unwrap();
        assert!(next.iter().all(|&x| x == 7));
        assert_eq!(lab.stats().workers[0].restarts, restarts + 1);
    }
}

fn made(len: usize, value: u8) -> Array<u8> {
    Array::from_fn(len, |_| value)
}

fn an_array_in_a_static_escapes() {
    fn keep(values: &Array<u8>) {
        KEPT.lock().unwrap().push(values.clone());
    }
    let lab = Lab::new(1);
    let values = lab.from_slice(&[1u8; 1000]).unwrap();
    assert_escape(&lab, 1, |lab| lab.submit(keep, (&values,)));
    assert_escape(&lab, 1, |lab| {
        lab.submit(keep, (lab.from_slice(&[1]).unwrap(),))
    });
    drop(values);
    lab.assert_in_use(0);
}

fn a_sub_array_in_a_static_escapes() {
    fn keep(values: &Array<u8>) -> Array<u8> {
        KEPT.lock().unwrap().push(values.rows(1..2));
        values.clone()
    }
    let lab = Lab::new(1);
    let values = lab.from_fn([3, 100_000], |i| i as u8).unwrap();
    assert_escape(&lab, 1, |lab| lab.submit(keep, (&values,)));
    assert!(values.iter().enumerate().all(|(i, &x)| x == i as u8));
    drop(values);
    lab.assert_in_use(0);
}

fn an_array_on_a_thread_escapes() {
    fn hand_over(values: &Array<u8>) -> u64 {
        let values = values.clone();
        let (ready, started) = channel();
        std::thread::spawn(move || {
            ready.send(()).unwrap();
            loop {
                // Detects that the memory was handed out again.
                assert!(
                    values.iter().all(|&x| x == 3),
                    "memory was reused under a living handle"
                );
                std::thread::yield_now();
            }
        });
        started.recv().unwrap();
        5
    }
    let lab = Lab::new(1);
    assert_escape(&lab, 1, |lab| {
        lab.submit(hand_over, (lab.from_slice(&[3u8; 100_000]).unwrap(),))
    });
    lab.assert_in_use(0);
}

fn a_forgotten_array_escapes() {
    fn forget(values: &Array<u8>) {
        std::mem::forget(values.clone());
    }
    let lab = Lab::new(1);
    let values = lab.from_slice(&[1u8; 10]).unwrap();
    assert_escape(&lab, 1, |lab| lab.submit(forget, (&values,)));
    drop(values);
    lab.assert_in_use(0);
}

fn an_array_made_by_the_job_escapes() {
    fn keep_own(len: usize) -> Array<u8> {
        let own = Array::from_fn(len, |i| i as u8);
        KEPT.lock().unwrap().push(own.clone());
        own
    }
    fn forget_own(len: usize) {
        std::mem::forget(ArrayMut::<u8>::zeros(len));
    }
    let lab = Lab::new(1);
    for len in [5, 1 << 20] {
        assert_escape(&lab, 1, |lab| lab.submit(keep_own, (len,)));
        assert_escape(&lab, 1, |lab| lab.submit(forget_own, (len,)));
    }
    lab.assert_in_use(0);
}

fn an_exclusive_array_escapes() {
    static MUT: Mutex<Vec<ArrayMut<u8>>> = Mutex::new(Vec::new());
    fn keep(values: ArrayMut<u8>) {
        MUT.lock().unwrap().push(values);
    }
    let lab = Lab::new(1);
    assert_escape(&lab, 1, |lab| {
        lab.submit(keep, (lab.zeros::<u8>(100_000).unwrap(),))
    });
    lab.assert_in_use(0);
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
    let lab = Lab::new(1);
    for _ in 0..10 {
        assert_escape(&lab, 1, |lab| {
            let [a, b, c, d, e] = [(); 5].map(|()| lab.zeros::<u8>(1 << 20).unwrap());
            lab.submit(hand_over, (a, b, c, d, e))
        });
    }
    lab.assert_in_use(0);
}

fn all_escaped_handles_are_counted() {
    fn keep(a: &Array<u8>, times: usize) {
        KEPT.lock()
            .unwrap()
            .extend(std::iter::repeat_n(a, times).cloned());
    }
    let lab = Lab::new(1);
    let values = lab.from_slice(&[1u8]).unwrap();
    assert_escape(&lab, 1000, |lab| lab.submit(keep, (&values, 1000)));
    drop(values);
    lab.assert_in_use(0);
}

fn an_escape_in_a_chain_fails_the_job() {
    fn keep(values: &Array<u8>) -> u64 {
        KEPT.lock().unwrap().push(values.clone());
        1
    }
    let lab = Lab::new(1);
    assert_escape(&lab, 1, |lab| {
        lab.job(made, (1000, 1)).then(keep, ()).submit()
    });
    lab.assert_in_use(0);
}

fn an_escape_in_a_failing_job() {
    fn keep_and_panic(values: &Array<u8>) {
        KEPT.lock().unwrap().push(values.clone());
        panic!("and this");
    }
    let lab = Lab::new(1);
    let values = lab.from_slice(&[1u8]).unwrap();
    assert_escape(&lab, 1, |lab| lab.submit(keep_and_panic, (&values,)));
    drop(values);
    lab.assert_in_use(0);
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
    let lab = Lab::new(1);
    let values = lab.from_slice(&[2u8; 100]).unwrap();
    for _ in 0..100 {
        assert_eq!(lab.submit(borrow, (&values,)).wait().unwrap(), 200);
    }
    assert_eq!(lab.stats().workers[0].restarts, 0);
    drop(values);
    lab.assert_in_use(0);
}

fn jobs_behind_an_escape_run_on_the_next_worker() {
    fn keep_some(values: &Array<u8>, n: u32) -> u32 {
        if n.is_multiple_of(10) {
            KEPT.lock().unwrap().push(values.clone());
        }
        n
    }
    let lab = Lab::new(2);
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
    drop(values);
    lab.assert_in_use(0);
}
