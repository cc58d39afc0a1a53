//! Array handles that outlive their job: the job fails, and its memory is not used again while that worker exists.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use arenite::{Array, ArrayMut, JobErrorKind};

use crate::harness::{Lab, children, tests};

tests![
    in_a_static,
    a_clone_of_a_part_in_a_static,
    on_a_thread,
    forgotten,
    made_by_the_job_itself,
    exclusive_ones,
    one_that_a_thread_writes_to,
    as_many_as_there_are,
    in_a_chain,
    in_a_job_that_fails_anyway,
    what_ends_in_time_is_no_escape,
    jobs_behind_one_are_done_by_the_next_worker,
];

static KEPT: Mutex<Vec<Array<u8>>> = Mutex::new(Vec::new());

/// Runs a job that lets handles escape, and looks at what follows.
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
        assert_eq!(*error.kind(), JobErrorKind::Escaped { count }, "{error}");
        assert!(error.to_string().contains("outlived"), "{error}");
        // The memory is free for others now, and nobody writes there any more.
        let next = lab.submit(made, (100_000, 7)).wait().unwrap();
        assert!(next.iter().all(|&x| x == 7));
        assert_eq!(lab.stats().workers[0].restarts, restarts + 1);
    }
}

fn made(len: usize, value: u8) -> Array<u8> {
    Array::from_fn(len, |_| value)
}

fn in_a_static() {
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

fn a_clone_of_a_part_in_a_static() {
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

fn on_a_thread() {
    fn hand_over(values: &Array<u8>) -> u64 {
        let values = values.clone();
        let (ready, started) = channel();
        std::thread::spawn(move || {
            ready.send(()).unwrap();
            loop {
                // It would notice if the memory were given to somebody else.
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

fn forgotten() {
    fn forget(values: &Array<u8>) {
        std::mem::forget(values.clone());
    }
    let lab = Lab::new(1);
    let values = lab.from_slice(&[1u8; 10]).unwrap();
    assert_escape(&lab, 1, |lab| lab.submit(forget, (&values,)));
    drop(values);
    lab.assert_in_use(0);
}

fn made_by_the_job_itself() {
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

fn exclusive_ones() {
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

/// Its pages stay open until the process has ended, or the thread would end it before anybody hears why. Those beside it take a
/// while to close.
fn one_that_a_thread_writes_to() {
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

fn as_many_as_there_are() {
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

fn in_a_chain() {
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

fn in_a_job_that_fails_anyway() {
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

fn what_ends_in_time_is_no_escape() {
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

fn jobs_behind_one_are_done_by_the_next_worker() {
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
                *error.kind() == JobErrorKind::Escaped { count: 1 } && n % 10 == 0,
                "{n}: {error}"
            ),
        }
    }
    drop(values);
    lab.assert_in_use(0);
}
