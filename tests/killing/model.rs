//! Workers killed at each step of jobs that take values and of actors, and the scenario of a supervisor killed at its
//! own.

use std::sync::OnceLock;
use std::time::Duration;

use arenite::points::{Fault, Point, Side};
use arenite::{
    Actor, Array, Backoff, Engine, FailedDependency, JobError, JobErrorKind, WorkerExit,
};
use libtest_mimic::Trial;

use crate::board::{board, points};
use crate::harness::{
    Diary, Gate, Invariant, KILLED, Lab, children, late, named, pass, step, wait_until,
};
use crate::passings::{Nth, Saw, each};
use crate::programs;
use crate::scene::{self, begin};
use crate::workers::{Passings, passed};

/// Steps of a worker that only actors have.
pub fn owns(point: &Point) -> bool {
    point.step() == "state"
}

/// Steps of every job at which these jobs and those of actors are killed too.
const COMMON: [&str; 7] = [
    "claim.taken",
    "run.entered",
    "run.returned",
    "publish.settled",
    "publish.filled",
    "complete.stored",
    "complete.rung",
];

pub fn trials() -> Vec<Trial> {
    let all = || {
        let mine = |point: &&Point| owns(point) || COMMON.contains(&point.name);
        points(Side::Worker).filter(mine)
    };
    let once = all().map(|point| named(format!("model::{}", point.name), move || at(point, 0)));
    let again = all().map(|point| {
        named(format!("model::retried::{}", point.name), move || {
            at(point, 2)
        })
    });
    once.chain(again).collect()
}

fn killed(why: &JobErrorKind) -> bool {
    match why {
        // The state was lost with a worker that was killed in another job.
        JobErrorKind::Lost(WorkerExit::OtherJob { cause: culprit, .. }) => killed(culprit),
        why => *why == KILLED,
    }
}

// ---- jobs of jobs -----------------------------------------------------------------------------------------------

fn make(log: &str, node: u32, len: usize) -> Array<u32> {
    begin(log, node);
    Array::from_fn(len, |i| i as u32 * 7)
}

fn scale(log: &str, node: u32, values: &Array<u32>) -> Array<u32> {
    begin(log, node);
    Array::from_fn(values.shape(), |i| values[i].wrapping_mul(node))
}

fn add(log: &str, node: u32, a: &[u32], b: &[u32]) -> Array<u32> {
    begin(log, node);
    Array::from_fn(a.len(), |i| a[i].wrapping_add(b[i]))
}

fn next(log: &str, node: u32, x: u64) -> u64 {
    begin(log, node);
    x * 3 + u64::from(node)
}

fn refuse(log: &str, node: u32, x: u64) -> Result<u64, String> {
    begin(log, node);
    Err(format!("{x} is not good enough"))
}

/// The last element of [`Values`].
const REFUSED: usize = 3;

/// The values: an array whose intermediates are freed, the ends of two chains, and a job that fails.
type Values = [Result<Vec<u8>, JobError>; 4];

/// A diamond of jobs, a chain, a chain that ends in an array, and a job that returns an error.
fn jobs_of_jobs(engine: &Engine, log: &str, retries: u32) -> Values {
    macro_rules! node {
        ($kernel:expr, $inputs:expr) => {
            if retries == 0 {
                engine.submit($kernel, $inputs)
            } else {
                let job = engine.job($kernel, $inputs).retries(retries);
                job.backoff(Backoff::NONE).submit()
            }
        };
    }
    let base = node!(make, (log, 1, 20_000));
    let left = node!(scale, (log, 2, &base));
    let right = node!(scale, (log, 3, &base));
    let both = node!(add, (log, 4, &left, &right));
    let mut number = node!(next, (log, 5, 1));
    for n in 6..9 {
        number = node!(next, (log, n, &number));
    }
    let first = node!(make, (log, 9, 3_000));
    let long = node!(scale, (log, 10, &first));
    let refused = node!(refuse, (log, 11, &number));
    let hour = Duration::from_secs(3600);
    let after = engine
        .job(next, (log, 12, &refused))
        .deadline(hour)
        .submit();
    drop((base, left, right, first, refused));
    step("jobs of jobs");
    let (both, number, long, after) = (both.wait(), number.wait(), long.wait(), after.wait());
    let bytes = |array: Array<u32>| scene::bytes(&array);
    let number_bytes = |x: u64| x.to_le_bytes().to_vec();
    [
        both.map(bytes),
        number.map(number_bytes),
        long.map(bytes),
        after.map(number_bytes),
    ]
}

/// Checks that each value is right or lost to a death, and that no node ran twice. `cost` of the `deaths` hit a node: without
/// retries a value is lost.
fn judge_jobs(values: &Values, log: &Diary, retries: u32, deaths: u32, hit: u32) {
    let reference = jobs_of_jobs(&Engine::inline(), &Diary::new().path(), 0);
    let mut lost = 0;
    for (at, (value, expected)) in values.iter().zip(&reference).enumerate() {
        let error = match (value, expected) {
            (Ok(value), Ok(expected)) => {
                assert!(value == expected, "value {at} is wrong");
                continue;
            }
            (Ok(_), Err(_)) => panic!("value {at} cannot be there"),
            (Err(error), _) => error,
        };
        let cause = match error.kind() {
            JobErrorKind::Dependency(FailedDependency::Input { cause, .. }) => cause,
            own => own,
        };
        if at == REFUSED && !killed(cause) {
            assert!(matches!(cause, JobErrorKind::Returned(_)), "{error}");
            continue;
        }
        assert!(killed(cause) && retries == 0, "value {at}: {error}");
        lost += 1;
    }
    // The last depends on one of the others.
    assert!(
        lost == 0 || deaths > 0 && lost <= 2,
        "{deaths} deaths cost {lost} values"
    );
    let is_once = lost > 0 || retries > 0 || hit == 0;
    assert!(is_once, "a node that its worker died of ran again");
    if retries == 0 {
        let mut began = log.numbers();
        began.sort_unstable();
        assert!(
            began.is_sorted_by(|a, b| a < b),
            "a node ran twice: {began:?}"
        );
    }
}

// ---- actors ------------------------------------------------------------------------------------------------

struct List(Vec<u64>);

impl List {
    fn new(first: &Array<u64>) -> Self {
        Self(first.to_vec())
    }

    fn push(&mut self, x: u64) -> u64 {
        self.0.push(x);
        self.0.len() as u64
    }

    fn seen(&self) -> Array<u64> {
        Array::from_slice(&self.0)
    }

    fn restore(saved: &Array<u64>, _: &Array<u64>) -> Self {
        Self(saved.to_vec())
    }

    fn abort(&mut self) {
        std::process::abort();
    }

    fn pass(&mut self, gate: &str) {
        pass(gate);
    }
}

const CALLS: u64 = 9;
const EVERY: u64 = 2;

/// An actor that survives its worker, and one that does not.
fn actors(engine: &Engine) -> [Actor<List>; 2] {
    let first = engine.from_slice(&[1_000u64]).unwrap();
    let kept = engine
        .actor(List::new, (first.clone(),))
        .checkpoint(EVERY, List::seen, List::restore)
        .start();
    [kept, engine.actor(List::new, (first,)).start()]
}

/// The results of an actor's calls.
struct CallReplies {
    answered: Vec<u64>,
    lost: Vec<(u64, JobErrorKind)>,
}

/// Calls both actors in turns, without waiting.
fn call(actors: &[Actor<List>; 2]) -> [CallReplies; 2] {
    let both = |x| {
        actors
            .iter()
            .map(move |list| (x, list.call(List::push, (x,))))
    };
    let calls: Vec<_> = (0..CALLS).flat_map(both).collect();
    step("calls of two actors");
    let mut replies = [(); 2].map(|()| CallReplies {
        answered: Vec::new(),
        lost: Vec::new(),
    });
    for (at, (x, call)) in calls.into_iter().enumerate() {
        let replies = &mut replies[at % 2];
        match call.wait() {
            Ok(_) => replies.answered.push(x),
            Err(error) => replies.lost.push((x, error.kind().clone())),
        }
    }
    replies
}

/// Checks that the state contains the calls that returned, in order, except for the reported number of forgotten calls.
fn judge_actor(list: &Actor<List>, replies: &CallReplies, checkpoints: bool, deaths: u32) {
    for (x, why) in &replies.lost {
        let JobErrorKind::Dependency(FailedDependency::Actor { cause, .. }) = why else {
            panic!("call {x}: {why:?}");
        };
        assert!(killed(cause), "call {x}: {why:?}");
    }
    let status = list.status();
    if let Some(why) = &status.lost {
        assert!(deaths > 0, "{why:?}");
        // Without checkpoints, or in the kernel that creates the state.
        let started = replies.answered.is_empty();
        assert!(
            !checkpoints || started,
            "{why:?} after {:?}",
            replies.answered
        );
        return;
    }
    let left = list.call(List::seen, ()).wait().unwrap();
    assert_eq!(left[0], 1_000);
    let left = &left[1..];
    let status = list.status();
    assert!(left.is_sorted_by(|a, b| a < b), "{left:?}");
    let is_answered = left.iter().all(|x| replies.answered.contains(x));
    assert!(is_answered, "{left:?}");
    let forgotten = replies.answered.len() as u64 - left.len() as u64;
    assert_eq!(status.forgotten, forgotten, "{status:?}");
    assert!(forgotten <= EVERY * status.restarts, "{status:?}");
    assert!(status.restarts <= u64::from(deaths), "{status:?}");
    let lost = &replies.lost;
    assert!(lost.len() as u64 <= status.restarts, "{lost:?}");
}

// ---- workers that die --------------------------------------------------------------------------------------

/// Steps at which a state is dropped: only at its end.
const LATE: &str = "state.dropped";

/// What is done at which point, and when.
#[derive(Clone, Copy)]
pub struct Fate {
    pub point: &'static Point,
    pub passing: u64,
    pub deed: Fault,
}

impl Fate {
    fn is_late(self) -> bool {
        self.point.name == LATE
    }

    fn arm(self) {
        let nth = self.passing..self.passing + 1;
        board().arm(self.point.name, self.deed, nth);
    }

    fn deaths(self) -> u32 {
        match self.deed {
            Fault::Kill => board().done(self.point.name).0,
            Fault::Stop => 0,
        }
    }
}

/// Runs jobs that take each other's values and then two actors on an engine with one worker, and checks the invariant.
/// Returns how often each point was passed while a death could hit them, and the number of deaths.
pub fn play(retries: u32, fate: Option<Fate>) -> (Passings, u32) {
    let log = Diary::new();
    let invariant = Invariant::before();
    let lab = Lab::new(1);
    let deaths = || fate.map_or(0, Fate::deaths);
    let await_order = || {
        // After all jobs of the worker, except those that were requeued by a death.
        lab.job(|| (), ()).retries(1).submit().wait().unwrap();
        board().disarm();
        wait_until("the death is noticed", || {
            lab.stats().workers[0].restarts == u64::from(deaths())
        });
    };
    let before = passed();
    if let Some(fate) = fate {
        // The point has not been passed yet, so the count starts here.
        fate.arm();
        if fate.is_late() {
            board().disarm();
        }
    }
    let values = jobs_of_jobs(&lab, &log.path(), retries);
    // Its last result was the end of its last node.
    let costs = fate.is_some_and(|fate| ["claim.taken", "run.entered"].contains(&fate.point.name));
    let hit = if costs { deaths() } else { 0 };
    let actors = actors(&lab);
    let replies = call(&actors);
    // Read before the engine ends: later deaths do not affect these jobs.
    let mut passings = passed();
    await_order();
    passings
        .iter_mut()
        .for_each(|(name, passed)| *passed -= before[name]);
    judge_jobs(&values, &log, retries, deaths(), hit);
    let lists = actors.iter().zip(&replies).zip([true, false]);
    lists.for_each(|((list, replies), checkpoints)| {
        judge_actor(list, replies, checkpoints, deaths())
    });
    drop(values);
    let late = board().passed(LATE);
    if let Some(fate) = fate.filter(|fate| fate.is_late()) {
        fate.arm();
    }
    step("two actors to end");
    drop(actors);
    await_order();
    passings.insert(LATE, board().passed(LATE) - late);
    invariant.ends(lab).unwrap();
    (passings, deaths())
}

/// Runs the scenario without deaths: each step is taken. For tests that read the board.
pub fn undisturbed() {
    play(0, None);
}

fn at(point: &'static Point, retries: u32) {
    static PASSINGS: [OnceLock<Passings>; 2] = [OnceLock::new(), OnceLock::new()];
    // Nodes with retries are not fused into chains, so there are more jobs.
    let passings = PASSINGS[usize::from(retries > 0)].get_or_init(|| play(retries, None).0);
    let which = [Nth::First, Nth::Second, Nth::Middle, Nth::Last];
    each(point.name, passings[point.name], &which, |passing, _| {
        let deed = Fault::Kill;
        let fate = Fate {
            point,
            passing,
            deed,
        };
        let (passings, deaths) = play(retries, Some(fate));
        let passed = passings[point.name];
        Ok(Saw { passed, deaths })
    });
}

/// Stops the worker of a call at a point until the deadline: the call is lost with its worker, and the actor continues without it.
/// Returns false if no worker passed the point before.
pub fn stopped_too_long(point: &'static Point) -> bool {
    const LIMIT: Duration = Duration::from_millis(80);
    let invariant = Invariant::before();
    let lab = Lab::new(1);
    let actors = actors(&lab);
    for replies in call(&actors) {
        assert_eq!(replies.answered.len() as u64, CALLS);
    }
    board().arm(point.name, Fault::Stop, 1..2);
    step(format!("a call that is stopped at {}", point.name));
    let pushed = actors[0].call_within(LIMIT, List::push, (CALLS,)).wait();
    let (stopped, victim) = board().done(point.name);
    board().disarm();
    if stopped > 0 {
        let error = pushed.unwrap_err();
        let JobErrorKind::Dependency(FailedDependency::Actor { cause, .. }) = error.kind() else {
            panic!("{error}");
        };
        assert_eq!(**cause, late(LIMIT), "{error}");
        assert!(!children().contains(&victim), "it is still there");
        let seen = actors[0].call(List::seen, ()).wait().unwrap();
        assert!(!seen.contains(&CALLS), "{seen:?}");
        assert_eq!(actors[0].status().restarts, 1);
        wait_until("the other one is lost", || {
            actors[1].status().lost.is_some()
        });
    }
    drop(actors);
    invariant.ends(lab).unwrap();
    stopped > 0
}

// ---- for supervisors that die ------------------------------------------------------------------------------

/// The scenario of a supervisor: jobs of jobs, and two actors of which one survives the death of a worker.
pub fn live() {
    let engine = Engine::builder().workers(1).capacity(64 << 20).build();
    let engine = engine.expect("an engine can be built");
    let values = jobs_of_jobs(&engine, &Diary::new().path(), 0);
    assert!(values[..REFUSED].iter().all(Result::is_ok));
    let actors = actors(&engine);
    for replies in call(&actors) {
        assert_eq!(replies.answered.len() as u64, CALLS);
    }
    wait_until("there are checkpoints", || {
        actors[0].status().checkpoints > 0
    });
    // More calls than a lane takes in advance.
    let (gate, board) = (Gate::new(), programs::board());
    let before = board.passed("call.retained");
    let held = actors[0].call(List::pass, (&gate.path(),));
    let mut calls = Vec::new();
    while board.passed("call.retained") == before {
        assert!(calls.len() < 10_000, "no call waits for room");
        calls.push(actors[0].call(List::push, (1,)));
    }
    gate.open();
    held.wait().unwrap();
    assert!(calls.into_iter().all(|call| call.wait().is_ok()));
    let error = actors[0].call(List::abort, ()).wait().unwrap_err();
    assert!(error.to_string().contains("SIGABRT"), "{error}");
    wait_until("one has gone on, and one is lost", || {
        actors[0].status().restarts == 1 && actors[1].status().lost.is_some()
    });
    let seen = actors[0].call(List::seen, ()).wait().unwrap();
    assert_eq!(seen[0], 1_000);
    drop((seen, actors));
    engine.shutdown();
}
