//! A worker that is killed at each of its points, in its first, second and last job.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arenite::points::{Fault, Point, Side};
use arenite::{Array, Sandbox};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::arrays;
use crate::board::{board, locked, points};
use crate::harness::{
    Answers, Invariant, KILLED, Lab, builder, named, send_signal, step, tests, wait_until,
};
use crate::model;
use crate::passings::{Nth, Saw, each};
use crate::reduced;
use crate::retained;
use crate::scene::{self, ASKED, Kind, LENT, Played, Policy, Scene, has_begun};

tests![
    before_it_is_ready,
    for_ever_before_a_job,
    for_ever_without_a_job,
    spares_for_ever
];

pub const RETRIED: Policy = Policy {
    retries: 2,
    deadline: None,
};

/// Returns a trial for each point.
pub fn trials() -> Vec<Trial> {
    let mut all = tests();
    for point in played() {
        all.push(named(format!("workers::{}", point.name), || {
            at(Kind::Plain, point, Policy::NONE)
        }));
    }
    for point in played().filter(|point| point.step() != "stop") {
        all.push(named(format!("workers::retried::{}", point.name), || {
            at(Kind::Plain, point, RETRIED)
        }));
    }
    // With a spare that takes over: at each step from the claim of a job on.
    let is_of_a_job = |point: &&Point| !matches!(point.step(), "attach" | "stop");
    for point in played().filter(is_of_a_job) {
        all.push(named(format!("workers::spared::{}", point.name), || {
            at(Kind::Spared, point, RETRIED)
        }));
    }
    all
}

/// Returns the points that a worker passes in the scene, at its start or at its end.
pub fn played() -> impl Iterator<Item = &'static Point> {
    points(Side::Worker).filter(|point| {
        !model::owns(point)
            && !reduced::owns(point)
            && !retained::owns(point)
            && !arrays::owns(point)
    })
}

/// Number of passings of each point.
pub type Passings = HashMap<&'static str, u64>;

/// Until now.
pub fn passed() -> Passings {
    let all = points(Side::Worker);
    all.map(|point| (point.name, board().passed(point.name)))
        .collect()
}

/// Returns the passings in a scene without deaths, up to its last result.
fn passings(kind: Kind) -> &'static Passings {
    static PASSINGS: [OnceLock<Passings>; 3] = [const { OnceLock::new() }; 3];
    PASSINGS[kind as usize].get_or_init(|| {
        let (mut before, mut all) = (Passings::new(), Passings::new());
        play(
            kind,
            Policy::NONE,
            false,
            |_| before = passed(),
            |_, played| all = played.passed.clone(),
        );
        all.iter_mut().for_each(|(name, all)| *all -= before[name]);
        all
    })
}

/// Runs the scene on a new engine and checks the invariant. Calls `arm` before the first job and `judge` with the results.
pub fn play(
    kind: Kind,
    policy: Policy,
    replace: bool,
    arm: impl FnOnce(&Lab),
    judge: impl FnOnce(&Lab, &Played),
) {
    let invariant = Invariant::before();
    let scene = Scene::new(kind);
    let spares = usize::from(kind == Kind::Spared);
    wait_until("spares are ready", || count_spares(&scene.lab) == spares);
    arm(&scene.lab);
    let played = scene.play(policy, |lab| {
        if replace {
            lab.replace(0);
        }
    });
    judge(&scene.lab, &played);
    board().disarm();
    invariant.ends(scene.lab).unwrap();
}

/// Number of spares that are ready.
fn count_spares(lab: &Lab) -> usize {
    let workers = lab.stats().workers;
    workers.iter().filter(|worker| worker.spare).count()
}

/// Returns whether a death at this point loses a running job.
pub fn costs_a_job(point: &Point) -> bool {
    matches!(
        point.step(),
        "run" | "lend" | "allocate" | "publish" | "cancel"
    ) || point.name == "claim.taken"
}

pub fn at(kind: Kind, point: &'static Point, policy: Policy) {
    match point.step() {
        "attach" => return while_starting(kind, point, policy),
        "stop" => return while_stopping(point),
        _ => {}
    }
    let all = passings(kind)[point.name];
    each(
        point.name,
        all,
        &[Nth::First, Nth::Second, Nth::Last],
        |passing, what| killed_at(kind, point, policy, passing, what),
    );
}

/// Checks that a death in a started job is visible: the job is lost, or has started again.
fn expect_visible(point: &Point, visible: u32, cost: u32) -> Result<(), String> {
    match has_begun(point) && visible != cost {
        true => Err(format!(
            "{cost} deaths in a job, of which {visible} are visible"
        )),
        false => Ok(()),
    }
}

/// Runs a scene in which a worker is killed at the `nth` passing.
fn killed_at(
    kind: Kind,
    point: &'static Point,
    policy: Policy,
    nth: u64,
    what: &str,
) -> Result<Saw, String> {
    let before = Cell::new(0);
    let (mut passed, mut killed, mut verdict) = (0, 0, Ok(()));
    play(
        kind,
        policy,
        false,
        |_| {
            before.set(board().passed(point.name));
            board().arm(point.name, Fault::Kill, nth..nth + 1);
        },
        |lab, played| {
            passed = played.passed[point.name] - before.get();
            killed = board().done(point.name).0;
            wait_until(&format!("the death is noticed ({what})"), || {
                lab.stats().restarts() == u64::from(killed)
            });
            let cost = u32::from(costs_a_job(point)) * killed;
            verdict = judge(played, policy, killed, cost)
                .and_then(|visible| expect_visible(point, visible, cost));
            let asked = &played.answers[ASKED.start as usize..ASKED.end as usize];
            let ended = asked.iter().filter(|answer| answer.is_ok()).count();
            if point.step() == "cancel" && ended + killed as usize != asked.len() {
                verdict = Err("it was asked to end, and ran again".into());
            }
        },
    );
    verdict.map(|()| Saw {
        passed,
        deaths: killed,
    })
}

/// Checks the results after `deaths`, of which `cost` hit a running job; returns how many of these are visible.
pub fn judge(played: &Played, policy: Policy, deaths: u32, cost: u32) -> Result<u32, String> {
    // Without the last jobs, in a sandbox.
    let reference = &Scene::reference()[..played.answers.len()];
    let answers = Answers::compare(played.answers.iter().cloned(), reference)?;
    let once = |job| ASKED.contains(&job) || LENT.contains(&job);
    scene::judge(&answers, &played.began, policy.retries, deaths, cost, once)
}

/// A replacement worker dies once, twice, three times before it is ready.
fn while_starting(kind: Kind, point: &'static Point, policy: Policy) {
    for times in 1..=3u32 {
        let what = format!("{}, {times} times", point.name);
        play(
            kind,
            policy,
            true,
            |_| board().arm(point.name, Fault::Kill, 1..u64::from(times) + 1),
            |_, played| {
                assert_eq!(board().done(point.name).0, times, "{what}");
                judge(played, policy, 0, 0).unwrap_or_else(|why| panic!("{what}: {why}"));
            },
        );
    }
}

/// Workers that die while they stop.
fn while_stopping(point: &'static Point) {
    let invariant = Invariant::before();
    let lab = Lab::new(3);
    assert_eq!(lab.submit(|| 7u8, ()).wait().unwrap(), 7);
    invariant.holds(&lab, 0).unwrap();
    board().arm(point.name, Fault::Kill, 1..4);
    step("a shutdown in which every worker dies");
    lab.into_inner().shutdown();
    assert_eq!(board().done(point.name).0, 3);
    board().disarm();
    invariant.nothing_left().unwrap();
}

/// The first worker of an engine dies: `build` returns the cause and leaves nothing.
fn before_it_is_ready() {
    let attach = |point: &&Point| point.step() == "attach" && point.name != "attach.ready";
    let free = points(Side::Worker).filter(attach);
    let free = free.map(|point| (point, Sandbox::Off));
    let locked = locked(Side::Worker).map(|point| (point, Sandbox::Strict));
    for (point, sandbox) in free.chain(locked) {
        let invariant = Invariant::before();
        board().arm(point.name, Fault::Kill, 1..u64::MAX);
        step(format!("an engine whose workers die at {}", point.name));
        let built = builder(2, 64 << 20).sandbox(sandbox).build();
        board().disarm();
        let error = built.expect_err("no worker can be ready").to_string();
        assert!(error.contains("SIGKILL"), "{}: {error}", point.name);
        invariant.nothing_left().unwrap();
    }
}

/// Returns an engine whose worker has passed the points of its start: `attach.ready` comes after the engine knows that it is ready.
fn started() -> Lab {
    let lab = Lab::new(1);
    assert_eq!(lab.submit(|| 7u8, ()).wait().unwrap(), 7);
    lab
}

/// All workers die before they run a job, one after the other: waiting callers get an error, and jobs succeed as soon as workers
/// live again.
fn for_ever_before_a_job() {
    for point in ["attach.ready", "claim.taken", "run.read"] {
        for (retries, jobs) in [(0, 3), (2, 1)] {
            let invariant = Invariant::before();
            let lab = started();
            let array = lab.from_slice(&scene::input()).unwrap();
            board().arm(point, Fault::Kill, 1..u64::MAX);
            // The next worker has to be ready first.
            send_signal(lab.pid(0), Signal::SIGKILL);
            wait_until("it is gone", || lab.stats().restarts() > 0);
            let open: Vec<_> = (0..jobs)
                .map(|job| {
                    let sum = |input: &Array<u32>, job| scene::sum_of(input, job);
                    lab.job(sum, (&array, job)).retries(retries).submit()
                })
                .collect();
            for job in open {
                step(format!("an answer although every worker dies at {point}"));
                let error = job.wait().unwrap_err();
                assert_eq!(*error.kind(), KILLED, "{point}: {error}");
                assert_eq!(error.attempt(), retries + 1, "{point}: {error}");
            }
            assert!(board().done(point).0 >= jobs * (retries + 1), "{point}");
            board().disarm();
            drop(array);
            invariant.ends(lab).unwrap();
        }
    }
}

/// Killing each idle worker as soon as it is ready does not occupy a core, and an engine that is being built does not wait forever
/// for the moment when all are ready.
fn for_ever_without_a_job() {
    let invariant = Invariant::before();
    let lab = started();
    board().arm("attach.ready", Fault::Kill, 1..u64::MAX);
    let began = Instant::now();
    send_signal(lab.pid(0), Signal::SIGKILL);
    wait_until("it was killed again and again", || {
        lab.stats().restarts() > 48
    });
    // After 24 deaths: eight pauses of 10 ms, of 20 ms and of 40 ms each.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(560), "{took:?}");
    board().disarm();
    invariant.holds(&lab, 0).unwrap();
    lab.into_inner().shutdown();

    board().arm("attach.ready", Fault::Kill, 1..u64::MAX);
    step("an engine whose workers die as soon as they are ready");
    let built = builder(16, 64 << 20)
        .start_timeout(Duration::from_secs(3600))
        .build();
    board().disarm();
    match built {
        // All were ready at some moment.
        Ok(engine) => drop(engine),
        Err(error) => assert!(error.to_string().contains("SIGKILL"), "{error}"),
    }
    invariant.nothing_left().unwrap();
}

/// Each spare dies at the same point of its start, while the worker works and after it has ended: it costs nothing, and the
/// next job runs as soon as a worker lives.
fn spares_for_ever() {
    for point in points(Side::Worker).filter(|point| point.step() == "attach") {
        let invariant = Invariant::before();
        let lab = Lab::with(1, |builder| builder.spares(1));
        wait_until("a spare is ready", || count_spares(&lab) == 1);
        let dies = |times| {
            let before = board().done(point.name).0;
            wait_until(&format!("deaths at {}", point.name), || {
                board().done(point.name).0 >= before + times
            });
        };
        let (working, spare) = match lab.stats().workers.as_slice() {
            [one, other] if other.spare => (one.pid, other.pid),
            [one, other] => (other.pid, one.pid),
            workers => panic!("{workers:?}"),
        };
        assert_eq!(lab.submit(std::process::id, ()).wait().unwrap(), working);
        board().arm(point.name, Fault::Kill, 1..u64::MAX);
        // It may have died at the point already, if that is `attach.ready`.
        let _ = kill(Pid::from_raw(spare as i32), Signal::SIGKILL);
        dies(2);
        assert_eq!(lab.submit(std::process::id, ()).wait().unwrap(), working);
        send_signal(working as i32, Signal::SIGKILL);
        dies(1);
        board().disarm();
        step("a job in the first worker that starts");
        // `attach.ready` is passed by workers that may have got the job.
        let job = lab.job(std::process::id, ()).retries(5).submit();
        let next = job.wait().unwrap();
        assert!(next != working && next != spare, "{}", point.name);
        wait_until("a spare is ready", || count_spares(&lab) == 1);
        invariant.ends(lab).unwrap();
    }
}
