//! Actors and jobs that take values of jobs in sandboxed workers: honest ones, and what a hostile one costs.

use std::fs::File;

use arenite::{
    Actor, Array, ArrayMut, FailedDependency, Job, JobError, JobErrorKind, Rejection, WorkerExit,
};

use crate::harness::{
    ABORTED, Calls, Lab, assert_kind, assert_says, rejected, step, tests, wait_until,
};
use crate::lab::{denied, remember, spoil, strict};

tests![
    an_array_changed_in_place_stays_within_its_chain,
    a_hostile_method_costs_what_its_worker_has,
    a_hostile_start_and_a_hostile_checkpoint,
    a_hostile_job_costs_what_takes_its_value,
    values_cannot_be_changed_once_they_are_taken_over,
];

/// State: the array it was given, and the number of calls.
struct Model {
    weights: Array<u32>,
    seen: Vec<u32>,
}

impl Model {
    fn new(weights: &Array<u32>) -> Self {
        Self {
            weights: weights.clone(),
            seen: Vec::new(),
        }
    }

    fn weigh(&mut self, x: u32) -> u32 {
        self.seen.push(x);
        self.weights.iter().map(|w| w * x).sum()
    }

    fn seen(&self) -> Array<u32> {
        Array::from_slice(&self.seen)
    }

    fn restore(seen: &Array<u32>, weights: &Array<u32>) -> Self {
        Self {
            weights: weights.clone(),
            seen: seen.to_vec(),
        }
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Number of files and sockets that could be opened.
    fn look_around(&mut self) -> u32 {
        let files = ["/etc/passwd", "/proc/self/maps", "/dev/null"];
        let files = files.iter().filter(|path| File::open(path).is_ok()).count();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").is_ok();
        files as u32 + u32::from(socket)
    }

    fn fork(&mut self) {
        fork();
    }
}

fn fork() {
    // SAFETY: an attack, which ends this process.
    unsafe { libc::fork() };
}

fn models(lab: &Lab) -> [Actor<Model>; 2] {
    let weights = lab.from_slice(&[1u32, 2, 3]).unwrap();
    let kept = lab.actor(Model::new, (weights.clone(),));
    let kept = kept.checkpoint(2, Model::seen, Model::restore).start();
    [kept, lab.actor(Model::new, (weights,)).start()]
}

fn lost<R: Send + std::fmt::Debug + 'static>(call: Job<R>) -> (JobErrorKind, u64, bool, String) {
    step("a call that cannot be answered");
    let error: JobError = call.wait().unwrap_err();
    match error.kind() {
        JobErrorKind::Dependency(FailedDependency::Actor {
            cause,
            forgotten,
            restarted,
        }) => {
            let text = error.to_string();
            ((**cause).clone(), *forgotten, *restarted, text)
        }
        _ => panic!("{error}"),
    }
}

fn ramp(n: usize) -> Array<u32> {
    Array::from_fn(n, |i| i as u32)
}

fn scale(values: &Array<u32>, by: u32) -> Array<u32> {
    Array::from_fn(values.shape(), |i| values[i] * by)
}

fn an_array_changed_in_place_stays_within_its_chain() {
    fn first(n: usize) -> ArrayMut<u32> {
        ArrayMut::from_fn(n, |i| i as u32)
    }
    fn double(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
        values.iter_mut().for_each(|x| *x *= 2);
        values
    }
    let lab = strict(1);
    let chain = lab.job(first, (1000,)).then(double, ()).then(double, ());
    let values = chain.then(double, ()).submit().wait();
    assert!(values.unwrap().iter().zip(0..).all(|(&x, i)| x == i * 8));
    let first = lab.submit(first, (1000,));
    let error = lab.submit(double, (first,)).wait().unwrap_err();
    assert_eq!(*error.kind(), rejected(Rejection::Lending), "{error}");
}

fn a_hostile_method_costs_what_its_worker_has() {
    let lab = strict(2);
    let [kept, plain] = models(&lab);
    // In the same worker as the first one, and in the other one.
    let [kept_too, plain_too] = models(&lab);
    let pid = |model: &Actor<Model>| model.call(Model::pid, ()).wait().unwrap();
    assert_eq!((pid(&kept), pid(&plain)), (pid(&kept_too), pid(&plain_too)));
    assert_ne!(pid(&kept), pid(&plain));
    // Files and sockets are refused without further cost.
    assert_eq!(kept.call(Model::look_around, ()).wait().unwrap(), 0);
    for model in [&kept, &plain, &kept_too, &plain_too] {
        model.call(Model::weigh, (1,)).wait().unwrap();
    }
    let (why, _, restarted, text) = lost(kept.call(Model::fork, ()));
    assert_eq!((why, restarted), (denied("clone"), true));
    assert_says(&text, "clone");
    // The actor in the same worker continues as well; the other worker is not affected.
    wait_until("the one beside it has gone on", || {
        kept_too.status().restarts == 1
    });
    assert_eq!(kept_too.call(Model::weigh, (2,)).wait().unwrap(), 12);
    for model in [&plain, &plain_too] {
        let seen = model.call(Model::seen, ()).wait().unwrap();
        assert_eq!(seen[..], [1]);
    }
    // Without checkpoints, both actors in that worker are lost.
    let (why, forgotten, restarted, _) = lost(plain.call(Model::fork, ()));
    assert_eq!((why, restarted), (denied("clone"), false));
    assert!(forgotten > 0);
    let (why, ..) = lost(plain_too.call(Model::seen, ()));
    assert!(
        matches!(&why, JobErrorKind::Lost(WorkerExit::OtherJob { cause: culprit, .. }) if **culprit == denied("clone")),
        "{why:?}"
    );
    assert_eq!(lab.value_of(ramp, (10,))[9], 9);
}

fn a_hostile_start_and_a_hostile_checkpoint() {
    fn start() -> Vec<u32> {
        fork();
        Vec::new()
    }
    fn push(list: &mut Vec<u32>, x: u32) -> u64 {
        list.push(x);
        list.len() as u64
    }
    #[allow(clippy::ptr_arg, reason = "a method takes the state as it is")]
    fn save(list: &Vec<u32>) -> Array<u32> {
        if list.len() > 2 {
            fork();
        }
        Array::from_slice(list)
    }
    fn restore(saved: &Array<u32>) -> Vec<u32> {
        saved.to_vec()
    }
    let lab = strict(2);
    let list = lab.actor(start, ()).start();
    let (why, forgotten, restarted, _) = lost(list.call(push, (1,)));
    assert_eq!((why, forgotten, restarted), (denied("clone"), 0, false));
    let list = lab.actor(Vec::new, ());
    let list = list.checkpoint(2, save, restore).start();
    for x in 1..=4 {
        assert_eq!(list.call(push, (x,)).wait().unwrap(), u64::from(x));
    }
    // The second checkpoint kills the worker, so the first one is restored.
    wait_until("it has gone on", || list.status().restarts == 1);
    assert_eq!(list.call(push, (5,)).wait().unwrap(), 3);
    let status = list.status();
    assert_eq!((status.forgotten, status.checkpoints), (2, 1));
}

fn a_hostile_job_costs_what_takes_its_value() {
    fn hostile(x: u32) -> u32 {
        fork();
        x
    }
    fn next(x: u32) -> u32 {
        x + 1
    }
    fn look_around(x: u32) -> Result<u32, String> {
        let file = File::open("/etc/passwd").map_err(|error| error.to_string());
        file.map(|_| x)
    }
    let lab = strict(2);
    // In the middle of a chain, at its start, and alone.
    for (before, after) in [(3, 3), (0, 2), (0, 0)] {
        let mut x = lab.submit(|| 1u32, ());
        for _ in 0..before {
            x = lab.submit(next, (x,));
        }
        let apart = lab.job(next, (&x,)).retries(2).submit();
        x = lab.submit(hostile, (x,));
        for _ in 0..after {
            x = lab.submit(next, (x,));
        }
        let waits = lab.job(next, (&x,)).retries(2).submit();
        let beside = lab.submit(|n: usize| ramp(n), (30_000,));
        let beside = lab.submit(scale, (beside, 3));
        step("jobs with a hostile one among them");
        let (x, waits, apart, beside) = (x.wait(), waits.wait(), apart.wait(), beside.wait());
        let error = x.unwrap_err();
        let error = if after == 0 {
            &error
        } else {
            error.origin().unwrap()
        };
        assert_eq!(*error.kind(), denied("clone"), "{error}");
        assert!(error.kernel().ends_with("hostile"), "{error}");
        let error = waits.unwrap_err();
        assert_kind!(
            error,
            JobErrorKind::Dependency(FailedDependency::Input { cause, path, .. })
                if **cause == denied("clone") && path.last().unwrap().kernel.ends_with("hostile")
        );
        assert_says(&error, "clone");
        assert_eq!(apart.unwrap(), before + 2);
        assert!(beside.unwrap().iter().zip(0..).all(|(&x, i)| x == i * 3));
    }
    // Opening a file is refused: the job reports that, and its worker lives.
    wait_until("each has cost a worker", || lab.stats().restarts() == 3);
    let x = lab.submit(|| 1u32, ());
    let error = lab.submit(look_around, (x,)).wait().unwrap_err();
    assert_kind!(error, JobErrorKind::Returned(_));
    assert_eq!(lab.stats().restarts(), 3);
}

/// Values for other jobs, and checkpoints, are stored where their worker cannot write.
fn values_cannot_be_changed_once_they_are_taken_over() {
    const LEN: usize = 20_000;
    fn make() -> Array<u32> {
        remember(ramp(LEN))
    }
    fn sum(spoiled: bool, values: &Array<u32>) -> u64 {
        assert!(spoiled);
        values.iter().map(|&x| u64::from(x)).sum()
    }
    let lab = strict(1);
    let values = lab.submit(make, ());
    // It runs once the values are taken over.
    let spoiled = lab.submit(|_: &[u32]| spoil(LEN), (&values,));
    let sum = lab.submit(sum, (&spoiled, &values));
    let expected = (0..LEN as u64).sum::<u64>();
    assert_eq!(sum.wait().unwrap(), expected);

    fn save(_: &u32) -> Array<u32> {
        make()
    }
    fn restore(saved: &Array<u32>) -> u32 {
        saved.iter().zip(0..).filter(|&(&x, i)| x == i).count() as u32
    }
    fn touch(state: &mut u32, spoils: bool) -> u32 {
        assert!(!spoils || spoil(LEN));
        *state
    }
    fn abort(_: &u32) {
        std::process::abort();
    }
    let state = lab.actor(|| 1u32, ());
    let state = state.checkpoint(1, save, restore).start();
    assert_eq!(state.call(touch, (false,)).wait().unwrap(), 1);
    wait_until("it is saved", || state.status().checkpoints > 0);
    assert_eq!(state.call(touch, (true,)).wait().unwrap(), 1);
    let (why, ..) = lost(state.call(abort, ()));
    assert_eq!(why, ABORTED);
    assert_eq!(state.call(touch, (false,)).wait().unwrap(), LEN as u32);
}
