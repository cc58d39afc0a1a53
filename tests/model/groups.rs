//! Task groups: no job outlives its scope, and cancelled jobs stop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use arenite::{ArrayMut, Engine, JobError, JobErrorKind};
use nix::sys::signal::Signal;

use crate::harness::{
    self, ABORTED, Gate, KILLED, Lab, expect_figure, pass, send_signal, step, tests, through,
    wait_until,
};

tests![
    a_cancelled_scope_stops_running_and_waiting_jobs,
    a_kernel_that_polls_cancellation_keeps_its_worker,
    a_failure_stops_running_jobs,
    a_panicking_scope_stops_running_jobs,
    a_cancelled_scope_does_not_wait_for_admission,
    a_scope_that_collects_runs_everything,
    a_scope_that_collects_survives_the_death_of_a_worker,
    a_scope_that_collects_can_be_cancelled,
    the_grace_period_of_an_ended_scope_does_not_affect_the_next,
    another_thread_cancels_a_scope,
    an_error_of_the_closure_stops_running_jobs,
    the_first_failure_is_the_error_of_a_scope,
    failures_that_follow_from_the_first_are_not_the_error_of_a_scope,
];

const GRACE: Duration = Duration::from_millis(50);

fn impatient(workers: usize) -> Lab {
    Lab::with(workers, |builder| builder.grace(GRACE))
}

/// Hangs without polling cancellation.
fn hang(gate: &str) {
    through(gate, 0);
    harness::hang();
}

/// Passes the gate and waits until it is cancelled.
fn listen(gate: &str) {
    pass(gate);
    while !arenite::cancelled() {
        thread::yield_now();
    }
}

fn fail(gate: &str) -> Result<(), &'static str> {
    pass(gate);
    Err("first")
}

/// Asserts that all jobs have ended, and that both workers were replaced.
fn assert_both_replaced(lab: &Lab) {
    let stats = lab.stats();
    assert_eq!((stats.open, stats.queued, stats.untaken), (0, 0, 0));
    wait_until("both workers are replaced", || lab.stats().restarts() == 2);
}

fn a_cancelled_scope_stops_running_and_waiting_jobs() {
    let lab = impatient(2);
    let (gate, other) = (Gate::new(), Gate::new());
    let mut since = Instant::now();
    let result = lab.scope(|s| {
        s.submit(hang, (gate.path(),));
        s.submit(hang, (other.path(),));
        (0..998).for_each(|_| drop(s.submit(hang, ("",))));
        drop((gate.meet(), other.meet()));
        step("a scope of 1,000 jobs to end after it was cancelled");
        since = Instant::now();
        s.cancel();
    });
    let took = since.elapsed();
    assert_eq!(*result.unwrap_err().kind(), JobErrorKind::Cancelled);
    assert!(took >= GRACE, "running jobs have {GRACE:?}, not {took:?}");
    println!("1,000 jobs were stopped after {took:?}, with {GRACE:?} of grace");
    let promised = GRACE + Duration::from_millis(100);
    expect_figure("1,000 jobs were stopped after", took, promised);
    assert_both_replaced(&lab);
    assert_eq!(lab.submit(|x: u32| x + 1, (1,)).wait().unwrap(), 2);
    lab.assert_in_use(0);
}

fn a_kernel_that_polls_cancellation_keeps_its_worker() {
    fn obeys(gate: &str) -> u32 {
        listen(gate);
        7
    }
    // The grace period is unlimited.
    let lab = Lab::with(1, |builder| builder.grace(Duration::MAX));
    let gate = Gate::new();
    let result = lab.scope(|s| {
        let job = s.submit(obeys, (gate.path(),));
        gate.open();
        s.cancel();
        job.wait()
    });
    assert_eq!(
        result.unwrap(),
        Ok(7),
        "the value of the method is the answer"
    );
    assert_eq!(lab.stats().restarts(), 0);
    // Its workers have the same time to end.
    struct Ends(String);
    impl Drop for Ends {
        fn drop(&mut self) {
            std::fs::write(&self.0, "").unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dropped");
    let actor = lab
        .actor(|path: &str| Ends(path.into()), (file.to_str().unwrap(),))
        .start();
    actor.call(|_: &Ends| (), ()).wait().unwrap();
    let _kept = actor;
    lab.into_inner().shutdown();
    assert!(file.exists());
}

fn a_failure_stops_running_jobs() {
    let lab = impatient(2);
    let (fails, hangs) = (Gate::new(), Gate::new());
    let mut out = lab.zeros::<u8>(100_000).unwrap();
    let result = lab.scope(|s| {
        s.submit(fail, (fails.path(),));
        s.submit(
            |bytes: &mut [u8], gate: &str| -> () {
                pass(gate);
                loop {
                    for byte in bytes.iter_mut() {
                        *byte = byte.wrapping_add(1);
                    }
                }
            },
            (&mut out, hangs.path()),
        );
        hangs.open();
        fails.open();
        step("the scope to end with the worker of the job that hangs");
    });
    let error = result.unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Returned("first".into()));
    // The array is back, and no worker writes to it.
    out.fill(5);
    assert!((0..100).all(|_| out.iter().all(|&byte| byte == 5)));
    assert_eq!(lab.stats().restarts(), 1);
    drop(out);
    lab.assert_in_use(0);
}

fn a_panicking_scope_stops_running_jobs() {
    let lab = impatient(1);
    let gate = Gate::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        lab.scope(|s| {
            s.submit(hang, (gate.path(),));
            gate.open();
            step("a scope to end that panicked");
            panic!("in the scope");
        })
    }));
    let text = *panicked.unwrap_err().downcast::<&str>().unwrap();
    assert_eq!(text, "in the scope");
    assert_eq!(lab.stats().open, 0);
}

fn a_cancelled_scope_does_not_wait_for_admission() {
    let lab = Lab::with(2, |builder| builder.max_in_flight_bytes(1 << 20));
    let gate = Gate::new();
    // Larger than the ceiling: no other job is admitted meanwhile.
    let large = lab.zeros::<u8>(2 << 20).unwrap();
    let first = lab.submit(
        |_: ArrayMut<u8>, gate: &str| pass(gate),
        (large, gate.path()),
    );
    let held = gate.meet();
    let admitted = lab.stats().admitted;
    let result = lab.scope(|s| {
        let canceller = s.canceller();
        let cancels = thread::spawn(move || canceller.cancel());
        step("a scope that is cancelled to end, while no job is admitted");
        s.submit(halve, (2,));
        cancels.join().unwrap();
    });
    assert_eq!(*result.unwrap_err().kind(), JobErrorKind::Cancelled);
    assert_eq!(lab.stats().admitted, admitted);
    drop(held);
    first.wait().unwrap();
    assert_eq!(lab.submit(halve, (2,)).wait().unwrap(), 1);
    lab.assert_in_use(0);
}

fn halve(x: u32) -> Result<u32, String> {
    match x % 3 {
        0 => Err(format!("{x} is a fizz")),
        1 => panic!("{x} is too much"),
        _ => Ok(x / 2),
    }
}

fn halves(engine: &Engine) -> (Vec<u32>, Vec<JobError>) {
    engine.scope_collect(|s| {
        let jobs: Vec<_> = (0..30).map(|x| s.submit(halve, (x,))).collect();
        // Errors of jobs that are not waited for are kept as well.
        let waited = jobs.into_iter().skip(10);
        waited.filter_map(|job| job.wait().ok()).collect()
    })
}

fn a_scope_that_collects_runs_everything() {
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        let (values, errors) = halves(engine);
        let expected = (10..30).filter(|x| x % 3 == 2).map(|x| x / 2);
        assert!(values.into_iter().eq(expected));
        assert_eq!(errors.len(), 20);
        for (error, x) in errors.iter().zip((0..30).filter(|x| x % 3 != 2)) {
            let text = error.to_string();
            assert!(text.contains(&format!("{x} is ")), "{text} for {x}");
        }
    }
}

fn a_scope_that_collects_survives_the_death_of_a_worker() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut out = lab.zeros::<u8>(50).unwrap();
    let (values, errors) = lab.scope_collect(|s| {
        let victim = s.submit(hang, (gate.path(),));
        let jobs = out
            .tiles_mut(1)
            .map(|tile| s.submit(|tile: &mut [u8]| tile.fill(1), (tile,)));
        let jobs: Vec<_> = jobs.collect();
        let held = gate.meet();
        send_signal(lab.pid(0), Signal::SIGKILL);
        drop(held);
        drop(victim);
        jobs.into_iter()
            .map(|job| job.wait())
            .filter(Result::is_ok)
            .count()
    });
    assert_eq!(values, 50, "queued jobs ran");
    assert_eq!(errors.len(), 1);
    assert_eq!(*errors[0].kind(), KILLED);
    assert!(out.iter().all(|&x| x == 1));
}

fn a_scope_that_collects_can_be_cancelled() {
    let lab = impatient(1);
    let gate = Gate::new();
    let ((), errors) = lab.scope_collect(|s| {
        s.submit(hang, (gate.path(),));
        (0..99).for_each(|_| drop(s.submit(hang, ("",))));
        gate.open();
        s.cancel();
    });
    assert_eq!(errors.len(), 100);
    let cancelled = |error: &JobError| *error.kind() == JobErrorKind::Cancelled;
    assert!(errors.iter().all(cancelled));
}

fn another_thread_cancels_a_scope() {
    let lab = impatient(2);
    let gate = Gate::new();
    let ended = lab.scope_try(|s| {
        let running = s.submit(hang, (gate.path(),));
        drop(gate.meet());
        let canceller = s.canceller();
        let other = thread::spawn(move || canceller.cancel());
        step("a job to end whose scope another thread cancels");
        let error = running.wait().unwrap_err();
        assert_eq!(*error.kind(), JobErrorKind::Cancelled);
        other.join().unwrap();
        // A later job never begins, and is not the failure that cancelled the others.
        s.submit(hang, ("",));
        Err::<(), _>(Trouble::Own("stopped"))
    });
    assert_eq!(ended, Err(Trouble::Own("stopped")));
    for engine in [&*lab, &Engine::inline()] {
        let ended = engine.scope(|s| {
            let canceller = s.canceller();
            thread::spawn(move || canceller.cancel()).join().unwrap();
            s.submit(|x: u32| x + 1, (1,)).wait()
        });
        assert_eq!(*ended.unwrap_err().kind(), JobErrorKind::Cancelled);
        // A canceller that outlives its scope does not affect the next one.
        let kept = engine.scope(|s| s.canceller()).unwrap();
        let ended = engine.scope(|s| {
            kept.cancel();
            s.submit(|x: u32| x + 1, (1,)).wait()
        });
        assert_eq!(ended.unwrap().unwrap(), 2);
    }
    lab.assert_in_use(0);
}

/// An error of the closure of a scope, such as a missing file.
#[derive(Debug, PartialEq)]
enum Trouble {
    Own(&'static str),
    Job(JobErrorKind),
}

impl From<JobError> for Trouble {
    fn from(error: JobError) -> Self {
        Self::Job(error.kind().clone())
    }
}

fn an_error_of_the_closure_stops_running_jobs() {
    let lab = impatient(2);
    let gates = [Gate::new(), Gate::new()];
    let mut out = lab.zeros::<u8>(10).unwrap();
    let ended = lab.scope_try(|s| {
        for gate in &gates {
            s.submit(hang, (gate.path(),));
        }
        for tile in out.tiles_mut(1) {
            s.submit(|tile: &mut [u8]| tile.fill(1), (tile,));
        }
        gates.iter().for_each(Gate::open);
        step("a scope to end whose jobs hang, and whose closure has failed");
        Err::<(), _>(Trouble::Own("no such file"))
    });
    assert_eq!(ended, Err(Trouble::Own("no such file")));
    assert!(out.iter().all(|&x| x == 0), "waiting jobs never began");
    assert_both_replaced(&lab);
    // Without a failure it is an ordinary scope.
    let sum = lab.scope_try(|s| Ok::<_, Trouble>(s.submit(|x: u32| x + 1, (1,)).wait()?));
    assert_eq!(sum, Ok(2));
    drop(out);
    lab.assert_in_use(0);
}

fn the_first_failure_is_the_error_of_a_scope() {
    let lab = impatient(2);
    let gate = Gate::new();
    // A death comes before the error that the closure returns because of it.
    let ended = lab.scope_try(|s| {
        let victim = s.submit(hang, (gate.path(),));
        let held = gate.meet();
        send_signal(lab.pid(lab.busy_worker()), Signal::SIGKILL);
        wait_until("the death is seen", || lab.stats().restarts() == 1);
        drop((held, victim));
        Err::<(), _>(Trouble::Own("too late"))
    });
    assert_eq!(ended, Err(Trouble::Job(KILLED)));
    for engine in [&*lab, &Engine::inline()] {
        // `?` would return the error of a job that was cancelled because of the other one.
        let ended = engine.scope_try(|s| {
            s.submit(halve, (3,)).wait().unwrap_err();
            s.submit(halve, (2,)).wait()?;
            Ok::<_, Trouble>(())
        });
        let first = JobErrorKind::Returned("3 is a fizz".into());
        assert_eq!(ended, Err(Trouble::Job(first.clone())));
        // An unobserved failure counts, even if the closure returns a value.
        let ended = engine.scope_try(|s| {
            s.submit(halve, (3,));
            Ok::<_, Trouble>(())
        });
        assert_eq!(ended, Err(Trouble::Job(first)));
        // Cancelled by hand, then failed by the closure.
        let ended = engine.scope_try(|s| {
            s.cancel();
            s.submit(halve, (2,));
            Err::<(), _>(Trouble::Own("enough"))
        });
        assert_eq!(ended, Err(Trouble::Own("enough")));
        let ended = engine.scope_try(|s| {
            s.cancel();
            s.submit(halve, (2,));
            Ok::<_, Trouble>(())
        });
        assert_eq!(ended, Err(Trouble::Job(JobErrorKind::Cancelled)));
    }
}

/// Not even if they are failures of jobs that were submitted earlier.
fn failures_that_follow_from_the_first_are_not_the_error_of_a_scope() {
    fn until_cancelled(gate: &str) -> Result<(), &'static str> {
        listen(gate);
        Err("stopped early")
    }
    let lab = Lab::new(2);
    let gates = [Gate::new(), Gate::new()];
    let result = lab.scope(|s| {
        s.submit(until_cancelled, (gates[0].path(),));
        s.submit(fail, (gates[1].path(),));
        gates.iter().for_each(Gate::open);
        step("a scope to end whose second job has failed");
    });
    let first = JobErrorKind::Returned("first".into());
    assert_eq!(*result.unwrap_err().kind(), first);
    // A job that is lost with the worker of another one.
    let lab = Lab::with(1, |builder| builder.lanes(2));
    let gate = Gate::new();
    let result = lab.scope(|s| {
        s.submit(hang, (gate.path(),));
        let held = gate.meet();
        let aborts = s.submit(|| -> () { std::process::abort() }, ());
        step("a scope to end whose second job has ended the worker of the first");
        drop((aborts, held));
    });
    assert_eq!(*result.unwrap_err().kind(), ABORTED);
    lab.assert_in_use(0);
}

/// The grace period of one scope does not apply to jobs of the next.
fn the_grace_period_of_an_ended_scope_does_not_affect_the_next() {
    // Grows until the job ends in time on a busy machine.
    let mut grace = GRACE;
    let lab = loop {
        let lab = Lab::with(1, |builder| builder.grace(grace));
        step(format!("a scope that ends within {grace:?}"));
        let gate = Gate::new();
        let result = lab.scope(|s| {
            s.submit(pass, (gate.path(),));
            let held = gate.meet();
            s.cancel();
            drop(held);
        });
        match result {
            Ok(()) => break lab,
            Err(error) => assert_eq!(*error.kind(), JobErrorKind::Cancelled),
        }
        grace *= 2;
    };
    let (job, held) = lab.hold();
    let since = Instant::now();
    wait_until("the period of the first scope is over", || {
        since.elapsed() > 2 * grace
    });
    drop(held);
    job.wait().unwrap();
    assert_eq!(lab.stats().restarts(), 0);
}
