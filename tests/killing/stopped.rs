//! A worker that is stopped at each of its points, and continued later.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use arenite::points::{Fault, Point, Side};
use arenite::{Engine, JobErrorKind, JobLimit, Sandbox};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::board::{board, locked, points};
use crate::harness::{
    Answers, Invariant, Lab, builder, children, named, send_signal, state_of, step, tests,
    wait_until,
};
use crate::model::{self, Fate};
use crate::passings::AGAIN;
use crate::reduced;
use crate::scene::{Kind, Played, Policy, Scene};
use crate::workers::{judge, play, played};

/// Returns trials for each point of a running worker.
pub fn trials() -> Vec<Trial> {
    let started = |point: &&&Point| point.step() != "attach" && point.step() != "stop";
    let mut all = tests();
    let free = played().filter(|point| point.step() != "stop");
    let free = free.map(|point| (Kind::Plain, point));
    // In a sandboxed worker that replaces another.
    let locked = locked(Side::Worker).map(|point| (Kind::Sandboxed, point));
    for (kind, point) in free.chain(locked) {
        all.push(named(
            format!("stopped::let_go::{}", point.name),
            move || let_go(kind, point),
        ));
    }
    for point in played().filter(|point| started(&point)) {
        all.push(named(format!("stopped::too_long::{}", point.name), || {
            too_long(point)
        }));
        all.push(named(
            format!("stopped::in_between::{}", point.name),
            || in_between(point),
        ));
    }
    for point in points(Side::Worker).filter(|point| model::owns(point) || reduced::owns(point)) {
        all.push(named(format!("stopped::let_go::{}", point.name), || {
            let_go_elsewhere(point)
        }));
    }
    // Of these, only calls can have a deadline: a node with one is not part of a chain, and a reduction allows none.
    for name in ["state.lent", "state.called"] {
        all.push(named(format!("stopped::too_long::{name}"), move || {
            let point = points(Side::Worker).find(|point| point.name == name);
            let point = point.expect("there is such a point");
            until_stopped(point, || model::stopped_too_long(point));
        }));
    }
    all
}

tests![
    while_it_obeys,
    until_the_start_takes_too_long,
    until_another_start_takes_too_long,
];

/// Waits until a worker has been stopped at the point, or the scene has ended without; returns its process id. On a busy machine it
/// may exceed its deadline before it is noticed.
fn await_stop(point: &Point, over: &AtomicBool) -> Option<i32> {
    let stopped = || {
        let (done, pid) = board().done(point.name);
        (done > 0 && state_of(pid) == Some('T')).then_some(pid)
    };
    wait_until(&format!("a worker is stopped at {}", point.name), || {
        let is_over = over.load(Relaxed);
        stopped().is_some() || is_over
    });
    stopped()
}

/// Runs a scene until a worker was stopped in it; `scene` returns whether one was.
fn until_stopped(point: &Point, scene: impl Fn() -> bool) {
    assert!((0..AGAIN).any(|_| scene()), "{} was not passed", point.name);
}

/// Runs the scene while `meanwhile` handles the stopped worker. `judge` gets the results.
fn once_stopped(
    kind: Kind,
    point: &'static Point,
    (policy, respawn): (Policy, bool),
    then: impl Fn(i32) + Sync,
    judge: impl Fn(&Lab, &Played),
) {
    until_stopped(point, || {
        let over = AtomicBool::new(false);
        let mut stopped = 0;
        thread::scope(|threads| {
            play(
                kind,
                policy,
                respawn,
                |_| {
                    board().arm(point.name, Fault::Stop, 1..2);
                    threads.spawn(|| await_stop(point, &over).map(&then));
                },
                |lab, played| {
                    board().disarm();
                    over.store(true, Relaxed);
                    stopped = board().done(point.name).0;
                    judge(lab, played);
                },
            );
        });
        stopped == 1
    });
}

/// Without a deadline, its jobs wait, and succeed when it continues.
fn let_go(kind: Kind, point: &'static Point) {
    let respawn = point.step() == "attach";
    let go_on = |pid| send_signal(pid, Signal::SIGCONT);
    once_stopped(
        kind,
        point,
        (Policy::NONE, respawn),
        go_on,
        |lab, played| {
            assert_eq!(lab.stats().workers[0].restarts, u64::from(respawn));
            judge(played, Policy::NONE, 0, 0).unwrap();
        },
    );
}

/// In a graph, an actor or a reduction: all of it waits, and succeeds when the worker continues.
fn let_go_elsewhere(point: &'static Point) {
    until_stopped(point, || {
        let over = AtomicBool::new(false);
        let fate = Fate {
            point,
            passing: 1,
            deed: Fault::Stop,
        };
        thread::scope(|threads| {
            // No worker has been stopped at the point yet.
            board().arm(point.name, Fault::Stop, 0..0);
            threads.spawn(|| await_stop(point, &over).map(|pid| send_signal(pid, Signal::SIGCONT)));
            if reduced::owns(point) {
                board().arm(point.name, Fault::Stop, 1..2);
                reduced::undisturbed();
                board().disarm();
            } else {
                model::play(0, Some(fate));
            }
            over.store(true, Relaxed);
        });
        board().done(point.name).0 == 1
    });
}

/// A start takes less than this, however busy the machine is.
const LATE: Duration = Duration::from_secs(60);

/// The first workers of an engine stop at the point: they are killed at their deadline, and `build` returns an error.
fn until_the_start_takes_too_long() {
    const SOON: Duration = Duration::from_millis(100);
    let free = starting().map(|point| (point, Sandbox::Off));
    let locked = locked(Side::Worker).map(|point| (point, Sandbox::Strict));
    // A worker has to reach the point by then, on a possibly busy machine.
    let mut limit = SOON;
    for (point, sandbox) in free.chain(locked) {
        while !stopped_at_start(point, sandbox, limit) {
            assert!(limit < LATE, "{} was not passed", point.name);
            limit *= 2;
        }
    }
}

/// Returns whether a worker was stopped at the point within the time limit of its start; `build` fails either way.
fn stopped_at_start(point: &Point, sandbox: Sandbox, limit: Duration) -> bool {
    let invariant = Invariant::before();
    board().arm(point.name, Fault::Stop, 1..u64::MAX);
    step(format!("an engine whose workers stop at {}", point.name));
    let built = builder(2, 64 << 20)
        .sandbox(sandbox)
        .start_timeout(limit)
        .build();
    let stopped = board().done(point.name).0;
    board().disarm();
    let error = built.expect_err("no worker can be ready").to_string();
    assert!(
        error.contains(&format!("{limit:?}")),
        "{}: {error}",
        point.name
    );
    invariant.nothing_left().unwrap();
    stopped > 0
}

/// A replacement worker stops at the point: it is killed at its deadline, and one more is started.
fn until_another_start_takes_too_long() {
    const SOON: Duration = Duration::from_millis(200);
    let names = ["attach.adopted", "attach.prepared"];
    let free = starting().filter(|point| names.contains(&point.name));
    let free = free.map(|point| (point, Sandbox::Off));
    let locked = locked(Side::Worker).map(|point| (point, Sandbox::Strict));
    // Undisturbed starts have to succeed by then, too.
    let mut limit = SOON;
    for (point, sandbox) in free.chain(locked) {
        while !stopped_at_another_start(point, sandbox, limit) {
            assert!(limit < LATE, "{} was not passed", point.name);
            limit *= 2;
        }
    }
}

/// Returns whether the replacement was stopped at the point, and all undisturbed starts were in time. The stopped one has ended when
/// the engine works again.
fn stopped_at_another_start(point: &Point, sandbox: Sandbox, limit: Duration) -> bool {
    let invariant = Invariant::before();
    let builder = Engine::builder().workers(1).capacity(64 << 20);
    let builder = builder.sandbox(sandbox).start_timeout(limit);
    let lab = match builder.build() {
        Ok(engine) => Lab::of(engine),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(&format!("{limit:?}")), "{text}");
            return false;
        }
    };
    board().arm(point.name, Fault::Stop, 1..2);
    send_signal(lab.pid(0), Signal::SIGKILL);
    let job = lab.submit(|| 7u8, ());
    step(format!("a worker that stops at {}", point.name));
    let answer = job.wait();
    let (stopped, victim) = board().done(point.name);
    board().disarm();
    let in_time = match answer {
        Ok(7) if stopped == 1 => {
            assert!(!children().contains(&victim), "it is still there");
            match invariant.holds(&lab, 0) {
                // A new worker was late.
                Err(why) if why.contains("no worker can be started") => false,
                other => other.is_ok() || panic!("{other:?}"),
            }
        }
        Ok(other) => {
            assert_eq!((other, stopped), (7, 0));
            false
        }
        Err(error) => {
            let late = matches!(error.kind(), JobErrorKind::NoWorkers(_));
            assert!(late, "{error}");
            false
        }
    };
    lab.into_inner().shutdown();
    invariant.nothing_left().unwrap();
    in_time
}

/// Steps of a worker before it is ready.
fn starting() -> impl Iterator<Item = &'static Point> {
    let attach = |point: &&Point| point.step() == "attach" && point.name != "attach.ready";
    points(Side::Worker).filter(attach)
}

/// A worker that is stopped during its exit is killed after the grace period.
fn while_it_obeys() {
    // Both have to reach the point by then, on a possibly busy machine.
    let mut grace = Duration::from_millis(100);
    for point in points(Side::Worker).filter(|point| point.step() == "stop") {
        loop {
            let invariant = Invariant::before();
            let lab = Lab::with(2, |builder| builder.grace(grace));
            assert_eq!(lab.submit(|| 7u8, ()).wait().unwrap(), 7);
            board().arm(point.name, Fault::Stop, 1..3);
            step(format!(
                "a shutdown in which every worker stops at {}",
                point.name
            ));
            lab.into_inner().shutdown();
            let stopped = board().done(point.name).0;
            board().disarm();
            invariant.nothing_left().unwrap();
            if stopped == 2 {
                break;
            }
            assert!(grace < LATE, "{stopped} came by {}", point.name);
            grace *= 2;
        }
    }
}

/// Undisturbed jobs may be late, too: each late job costs its worker.
const LIMIT: Duration = Duration::from_millis(80);
const POLICY: Policy = Policy {
    retries: 0,
    deadline: Some(LIMIT),
};

/// Checks that each late job cost one worker.
fn judge_late(lab: &Lab, answers: &Answers) {
    answers
        .cost_at_most(
            usize::MAX,
            |why| matches!(why, JobErrorKind::Limit(JobLimit::Deadline { limit }) if *limit == LIMIT),
        )
        .unwrap();
    wait_until("every late job has cost a worker", || {
        lab.stats().workers[0].restarts == answers.failed.len() as u64
    });
}

/// The worker stays stopped: at the deadline it is killed, and other jobs succeed.
fn too_long(point: &'static Point) {
    until_stopped(point, || {
        let mut stopped = 0;
        play(
            Kind::Plain,
            POLICY,
            false,
            |_| board().arm(point.name, Fault::Stop, 1..2),
            |lab, played| {
                let victim;
                (stopped, victim) = board().done(point.name);
                let reference = Scene::reference();
                let answers = Answers::compare(played.answers.iter().cloned(), reference).unwrap();
                let late = !answers.failed.is_empty();
                assert!(late || stopped == 0, "no job was late");
                judge_late(lab, &answers);
                assert!(!children().contains(&victim), "it is still there");
            },
        );
        stopped == 1
    });
}

/// The worker continues at about its deadline: its completion is in time or ignored.
fn in_between(point: &'static Point) {
    // From 10 ms before to 10 ms after, depending on the point.
    let at = arenite::points::index(point.name) as u64 * 7 % 21;
    let wait = LIMIT + Duration::from_millis(at) - Duration::from_millis(10);
    let go_on = |victim| {
        let began = Instant::now();
        while began.elapsed() < wait {
            thread::park_timeout(wait.saturating_sub(began.elapsed()));
        }
        // Fails if it has been killed.
        let _ = kill(Pid::from_raw(victim), Signal::SIGCONT);
    };
    once_stopped(Kind::Plain, point, (POLICY, false), go_on, |lab, played| {
        let reference = Scene::reference();
        let answers = Answers::compare(played.answers.iter().cloned(), reference).unwrap();
        judge_late(lab, &answers);
    });
}
