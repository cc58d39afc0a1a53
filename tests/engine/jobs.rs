//! One job: waiting, polling, detaching, dropping, chaining.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use arenite::{Array, Engine, JobError, JobErrorKind, JobOptions, WorkerExit, as_completed};

use crate::harness::{
    Calls, Gate, Lab, assert_kind, assert_says, at_gates, pass, step, tests, wait_until,
};

tests![
    a_label_is_in_every_error_of_its_job,
    a_wait_with_a_limit_leaves_the_job_running,
    a_dropped_job_that_has_not_begun_never_starts,
    a_dropped_running_job_is_not_killed,
    a_future_wakes_the_last_waker,
    as_completed_yields_jobs_as_they_end,
    as_completed_accepts_more_jobs,
    dropping_as_completed_cancels_the_rest,
    a_chain_stays_in_one_worker,
    a_chain_ends_with_its_first_failure,
    a_value_is_taken_once,
];

fn a_label_is_in_every_error_of_its_job() {
    fn abort() {
        std::process::abort();
    }
    fn fails() -> Result<(), String> {
        Err("no".to_owned())
    }
    let lab = Lab::with(1, |builder| builder.lanes(2));
    let labelled = |error: JobError| {
        assert_eq!(error.label(), Some("a \u{1b}[31m\"job\""), "{error}");
        // Whatever the label contains, a terminal shows it literally.
        let text = error.to_string();
        assert_says(&text, r#""a \u{1b}[31m\"job\"""#);
        error
    };
    let label = "a \u{1b}[31m\"job\"";
    labelled(lab.failure_of(lab.job(fails, ()).label(label).submit()));
    let died = labelled(lab.failure_of(lab.job(abort, ()).retries(1).label(label).submit()));
    assert_eq!((died.attempt(), died.deaths().len()), (2, 1));
    let chain = lab
        .job(|| 1u32, ())
        .label(label)
        .then(|_: u32| -> u32 { panic!("no") }, ());
    labelled(lab.failure_of(chain.submit()));
    let error = lab.scope(|s| {
        s.submit_with(&JobOptions::new().label(label), abort, ());
    });
    labelled(error.unwrap_err());
    step("one that runs beside another that dies, one that is cancelled, one that never runs");
    let gate = Gate::new();
    let beside = lab.job(pass, (&gate.path(),)).label(label).submit();
    let held = gate.meet();
    lab.error_of(abort, ());
    let lost = labelled(lab.failure_of(beside));
    assert_kind!(lost, JobErrorKind::Lost(WorkerExit::OtherJob { .. }));
    drop(held);
    let (hold, held) = at_gates(2, |gate| lab.submit(pass, (gate,)));
    let cancelled = lab.job(fails, ()).label(label).try_submit().unwrap();
    cancelled.cancel();
    labelled(lab.failure_of(cancelled));
    let last = lab.job(fails, ()).label(label).submit();
    drop(held);
    hold.into_iter().for_each(|job| job.wait().unwrap());
    labelled(lab.failure_of(last));
    // One without a label.
    assert_eq!(lab.error_of(fails, ()).label(), None);
    let inline = Engine::inline();
    labelled(
        inline
            .job(fails, ())
            .label(label)
            .submit()
            .wait()
            .unwrap_err(),
    );
}

fn touch(path: &str) {
    std::fs::write(path, "").expect("a file can be made");
}

fn gated(gate: &str, value: u32) -> u32 {
    pass(gate);
    value
}

fn a_wait_with_a_limit_leaves_the_job_running() {
    let lab = Lab::balanced(1);
    let gate = Gate::new();
    let mut job = lab.submit(gated, (&gate.path(), 5));
    let queued = lab.submit(|| 6u32, ());
    let held = gate.meet();
    assert!(job.wait_timeout(Duration::ZERO).is_none());
    assert!(job.wait_timeout(Duration::from_millis(3)).is_none());
    assert!(!job.is_done() && !queued.is_done());
    drop(held);
    wait_until("both are done", || job.is_done() && queued.is_done());
    let long = Duration::from_secs(3600);
    assert_eq!(job.wait_timeout(long), Some(Ok(5)));
    assert_eq!(queued.wait().unwrap(), 6);
}

fn a_dropped_job_that_has_not_begun_never_starts() {
    let lab = Lab::balanced(1);
    let (gate, folder) = (Gate::new(), tempfile::tempdir().unwrap());
    let path = |n: usize| {
        folder
            .path()
            .join(n.to_string())
            .to_str()
            .unwrap()
            .to_owned()
    };
    let input = lab.zeros::<u8>(1 << 20).unwrap().seal();
    fn read_and_touch(_: &Array<u8>, path: &str) {
        touch(path);
    }
    let running = lab.submit(gated, (&gate.path(), 5));
    let held = gate.meet();
    // Some of them are in slots of the link already, the others are queued.
    let jobs: Vec<_> = (0..300)
        .map(|n| lab.submit(read_and_touch, (&input, &path(n))))
        .collect();
    for (n, job) in jobs.into_iter().enumerate() {
        if n % 3 == 0 { job.detach() } else { drop(job) }
    }
    drop(held);
    assert_eq!(running.wait().unwrap(), 5);
    lab.assert_idle();
    for n in 0..300 {
        assert_eq!(Path::new(&path(n)).exists(), n % 3 == 0, "job {n}");
    }
}

fn a_dropped_running_job_is_not_killed() {
    fn slow_reader(gate: &str, values: &Array<u8>) -> Array<u8> {
        pass(gate);
        values.copy().seal()
    }
    let lab = Lab::balanced(1);
    let gate = Gate::new();
    let job = lab.submit(
        slow_reader,
        (&gate.path(), lab.zeros::<u8>(1 << 20).unwrap().seal()),
    );
    let held = gate.meet();
    drop(job);
    assert!(
        lab.stats().arena.in_use > 1 << 20,
        "what a running job reads stays"
    );
    drop(held);
    lab.assert_idle();
}

fn a_future_wakes_the_last_waker() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut job = lab.submit(gated, (&gate.path(), 5));
    let held = gate.meet();
    let first = Arc::new(Count(0.into()));
    let second = Arc::new(Count(0.into()));
    let mut poll = |count: &Arc<Count>| {
        let waker = Waker::from(Arc::clone(count));
        pin!(&mut job)
            .poll(&mut Context::from_waker(&waker))
            .map(Result::unwrap)
    };
    assert_eq!(poll(&first), Poll::Pending);
    assert_eq!(poll(&second), Poll::Pending);
    drop(held);
    wait_until("the second waker is called", || {
        second.0.load(std::sync::atomic::Ordering::SeqCst) > 0
    });
    assert_eq!(first.0.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(poll(&second), Poll::Ready(5));
}

fn as_completed_yields_jobs_as_they_end() {
    let lab = Lab::balanced(2);
    let gates = [Gate::new(), Gate::new()];
    let jobs = [
        lab.submit(gated, (&gates[0].path(), 0)),
        lab.submit(gated, (&gates[1].path(), 1)),
    ];
    let held = gates[0].meet();
    gates[1].open();
    let mut completed = as_completed(jobs);
    assert_eq!(completed.len(), 2);
    step("the second job, which ends first");
    let (index, value) = completed.next().unwrap();
    assert_eq!((index, value.unwrap()), (1, 1));
    drop(held);
    let (index, value) = completed.next().unwrap();
    assert_eq!((index, value.unwrap()), (0, 0));
    assert!(completed.next().is_none());
    // And many of them, with failures.
    let jobs = (0..2000u32).map(|n| {
        lab.submit(
            |n: u32| if n % 10 == 3 { Err("three") } else { Ok(n) },
            (n,),
        )
    });
    let mut seen = vec![false; 2000];
    for (index, value) in as_completed(jobs) {
        assert!(
            !std::mem::replace(&mut seen[index], true),
            "each comes once"
        );
        assert_eq!(value.is_err(), index % 10 == 3);
    }
    assert!(seen.iter().all(|&seen| seen));
}

fn as_completed_accepts_more_jobs() {
    let lab = Lab::balanced(2);
    let gate = Gate::new();
    let mut open = as_completed([lab.submit(gated, (&gate.path(), 0))]);
    let held = gate.meet();
    assert!(open.next_timeout(Duration::ZERO).is_none());
    assert!(open.next_timeout(Duration::from_millis(5)).is_none());
    assert_eq!(open.len(), 1, "it is not over");
    assert_eq!(open.push(lab.submit(|n: u32| n, (1,))), 1);
    let (index, value) = open.next_timeout(Duration::MAX).unwrap();
    assert_eq!((index, value.unwrap()), (1, 1));
    drop(held);
    assert_eq!(open.next().unwrap().0, 0);
    assert!(open.next().is_none() && open.next_timeout(Duration::MAX).is_none());
    step("after the end it goes on");
    assert_eq!(open.push(lab.submit(|n: u32| n, (2,))), 2);
    let (index, value) = open.next().unwrap();
    assert_eq!((index, value.unwrap()), (2, 2));
    assert!(open.next().is_none());
}

fn dropping_as_completed_cancels_the_rest() {
    let lab = Lab::balanced(1);
    let gate = Gate::new();
    let mut jobs = vec![
        lab.submit(|_: &str, n: u32| n, ("", 0)),
        lab.submit(gated, (&gate.path(), 1)),
    ];
    jobs.extend((2..100).map(|n| lab.submit(|_: &str, n: u32| n, ("", n))));
    let mut completed = as_completed(jobs);
    assert_eq!(completed.next().unwrap().0, 0);
    let held = gate.meet();
    drop(completed);
    let stats = lab.stats();
    assert_eq!(
        stats.open + stats.queued,
        1,
        "only the one at the gate: {stats:?}"
    );
    drop(held);
}

fn a_chain_stays_in_one_worker() {
    fn double(values: &Array<u32>) -> Array<u32> {
        Array::from_fn(values.shape(), |i| values[i] * 2)
    }
    fn add(values: &Array<u32>, n: u32) -> (Array<u32>, u32) {
        (
            Array::from_fn(values.shape(), |i| values[i] + n),
            std::process::id(),
        )
    }
    fn total(values: &[u32], start: u64) -> u64 {
        start + values.iter().map(|&x| u64::from(x)).sum::<u64>()
    }
    let lab = Lab::balanced(2);
    let values = lab.from_slice(&[1u32, 2, 3]).unwrap();
    let (sums, pid) = lab
        .job(double, (&values,))
        .then(add, (10,))
        .submit()
        .wait()
        .unwrap();
    assert_eq!(sums[..], [12, 14, 16]);
    assert!([lab.pid(0), lab.pid(1)].contains(&(pid as i32)));
    let chained = lab
        .job(double, (&values,))
        .then(double, ())
        .then(total, (100,))
        .submit();
    assert_eq!(chained.wait().unwrap(), 124);
}

fn a_chain_ends_with_its_first_failure() {
    fn refuse(n: u32) -> Result<u32, String> {
        if n == 0 { Err("zero".into()) } else { Ok(n) }
    }
    fn burst(n: u32) -> u32 {
        assert!(n < 10, "too large");
        n
    }
    let lab = Lab::new(1);
    let error = lab.failure_of(lab.job(refuse, (0,)).then(burst, ()).submit());
    assert_eq!(*error.kind(), JobErrorKind::Returned("zero".into()));
    let error = lab.failure_of(
        lab.job(refuse, (11,))
            .then(burst, ())
            .then(refuse, ())
            .submit(),
    );
    assert_kind!(error, JobErrorKind::Panicked { message, .. } if message == "too large");
    assert_eq!(
        lab.job(refuse, (9,))
            .then(burst, ())
            .then(refuse, ())
            .submit()
            .wait()
            .unwrap(),
        9
    );
}

fn a_value_is_taken_once() {
    let lab = Lab::new(1);
    let mut job = lab.submit(|| 5u32, ());
    step("the first time");
    assert_eq!(
        job.wait_timeout(Duration::from_secs(3600))
            .unwrap()
            .unwrap(),
        5
    );
    assert!(job.is_done());
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.wait()));
    let text = *again.unwrap_err().downcast::<&str>().unwrap();
    assert_says(&text, "taken before");
    lab.assert_idle();
}
