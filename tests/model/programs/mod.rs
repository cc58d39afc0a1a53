//! Random programs: on workers that are killed and stopped at random moments, they get what they get on an inline
//! engine, which shares no scheduler, no memory and no protocol with them.
//!
//! A job may be lost only with its worker, and each worker takes no more than one job of each lane along. A job with
//! retries is never lost, no other job begins twice, and nothing is left behind.

mod kernels;
mod player;
mod verdict;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use arenite::{Engine, Guard, Limiter, Sandbox};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::player::{Player, Rules};
use self::verdict::{Story, Weather, judge};
use crate::harness::runs::{Order, Seen};
use crate::harness::{Diary, Dice, Invariant, Lab, asked, case, expect_in_use, named};

/// The kinds of programs, by the names of their trials.
const KINDS: [(&str, Kind); 7] = [
    ("programs_on_workers", calm),
    ("programs_whose_workers_are_killed", killed),
    ("programs_whose_workers_are_stopped", stopped),
    ("programs_with_kernels_that_die", deadly),
    ("programs_in_several_lanes", in_lanes),
    ("programs_in_sandboxed_workers", sandboxed),
    ("programs_of_several_threads", threaded),
];

pub fn tests() -> Vec<libtest_mimic::Trial> {
    let trial =
        |(name, kind): (&str, Kind)| named(format!("programs::{name}"), move || play_some(kind));
    KINDS.map(trial).into()
}

/// How a program is played.
#[derive(Clone, Debug)]
struct Plan {
    rules: Rules,
    workers: usize,
    lanes: usize,
    spares: usize,
    /// The maximum number of workers to kill.
    kills: u64,
    /// Whether workers are stopped and continued.
    stops: bool,
    /// The number of threads that each play a program on the same engine.
    threads: u64,
    /// Replaces workers after this number of jobs, unless 0.
    recycled_after: u64,
    in_flight: Option<u64>,
    guard: Guard,
}

impl Plan {
    /// A plan without faults, with settings drawn from these dice.
    fn any(dice: &mut Dice) -> Self {
        let rules = Rules {
            acts: 60,
            draws: true,
            sandboxed: false,
            deadly: false,
        };
        Self {
            rules,
            workers: 1 + dice.below(3) as usize,
            lanes: 1,
            spares: dice.below(2) as usize,
            kills: 0,
            stops: false,
            threads: 1,
            recycled_after: [0, 0, 0, 30][dice.below(4) as usize],
            in_flight: [None, None, Some(8 << 20)][dice.below(3) as usize],
            guard: [Guard::On, Guard::On, Guard::On, Guard::Off][dice.below(4) as usize],
        }
    }
}

/// Changes a plan to one of a kind.
type Kind = fn(&mut Plan, &mut Dice);

fn calm(_: &mut Plan, _: &mut Dice) {}

fn killed(plan: &mut Plan, dice: &mut Dice) {
    plan.kills = 1 + dice.below(8);
}

fn stopped(plan: &mut Plan, dice: &mut Dice) {
    (plan.stops, plan.kills) = (true, dice.below(3));
}

fn deadly(plan: &mut Plan, dice: &mut Dice) {
    (plan.rules.deadly, plan.kills) = (true, dice.below(3));
}

fn in_lanes(plan: &mut Plan, dice: &mut Dice) {
    plan.lanes = 2 + dice.below(5) as usize;
    plan.kills = dice.below(4);
    plan.rules.deadly = dice.below(2) == 0;
}

fn sandboxed(plan: &mut Plan, dice: &mut Dice) {
    plan.rules.sandboxed = true;
    plan.kills = dice.below(4);
    plan.rules.deadly = dice.below(2) == 0;
}

fn threaded(plan: &mut Plan, dice: &mut Dice) {
    (plan.threads, plan.rules.draws, plan.rules.acts) = (3 + dice.below(4), false, 30);
    plan.kills = dice.below(4);
    plan.rules.deadly = dice.below(3) == 0;
    plan.lanes = 1 + dice.below(2) as usize;
}

/// Plays programs of this kind, others in each run: `ARENITE_SEED` repeats them.
fn play_some(kind: Kind) {
    let first = asked::seed().wrapping_mul(1_000);
    for seed in first..first + asked::runs(3) {
        play_one(seed, kind).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// Plays programs of all kinds for a while, each on an engine of its own.
#[allow(dead_code, reason = "the soak uses it")]
pub fn soak(order: Order) -> Result<Seen, String> {
    let (mut seen, end) = (Seen::default(), Instant::now() + order.length);
    for seed in (0..).map(|n| order.seed.wrapping_add(n)) {
        let invariant = Invariant::before();
        seen.add(play_one(seed, KINDS[(seed % 7) as usize].1)?);
        invariant.nothing_left()?;
        if Instant::now() >= end {
            break;
        }
    }
    Ok(seen)
}

fn play_one(seed: u64, kind: Kind) -> Result<Seen, String> {
    let mut dice = Dice::new(seed);
    let mut plan = Plan::any(&mut dice);
    kind(&mut plan, &mut dice);
    case(format!("seed {seed}, {plan:?}"));
    play(seed, &plan)
}

/// Numbers of calls from which each thread counts.
const PER_THREAD: u64 = 1 << 32;

/// Plays the programs of all threads on an engine. Returns their results.
fn play_all(
    engine: &Engine,
    (seed, plan, log): (u64, &Plan, &str),
    expected: &HashMap<u64, Vec<u64>>,
) -> Story {
    let limiter = Limiter::new().concurrency(2);
    let one = |n: u64| {
        let of_thread = (seed.wrapping_add(n << 40), n * PER_THREAD);
        let mut player = Player::new(engine, &plan.rules, (log, &limiter), of_thread, expected);
        player.play();
        player.story
    };
    if plan.threads == 1 {
        return one(0);
    }
    thread::scope(|threads| {
        let all: Vec<_> = (0..plan.threads)
            .map(|n| threads.spawn(move || one(n)))
            .collect();
        let mut whole = Story::default();
        for story in all
            .into_iter()
            .map(|thread| thread.join().expect("the thread has not panicked"))
        {
            whole.entries.extend(story.entries);
            whole.orders.extend(story.orders);
        }
        whole
    })
}

/// Calls `f` without printing panics: an inline engine leaves those of kernels to the panic hook.
fn quietly<T>(f: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let value = f();
    std::panic::set_hook(hook);
    value
}

fn play(seed: u64, plan: &Plan) -> Result<Seen, String> {
    let inline = Engine::builder().seed(seed).inline();
    let none = HashMap::new();
    let expected = quietly(|| play_all(&inline, (seed, plan, ""), &none)).entries;
    drop(inline);
    let values = expected
        .iter()
        .filter_map(|entry| Some((entry.number, entry.result.clone().ok()?)));
    let values: HashMap<_, _> = values.collect();

    let lab = Lab::with(plan.workers, |builder| {
        let builder = builder
            .lanes(plan.lanes)
            .spares(plan.spares)
            .seed(seed)
            .capacity(1 << 30)
            .recycle_after_jobs(plan.recycled_after)
            .guard(plan.guard)
            .quarantine_after(10_000);
        let builder = match plan.in_flight {
            Some(bytes) => builder.max_in_flight_bytes(bytes),
            None => builder,
        };
        match plan.rules.sandboxed {
            true => builder.sandbox(Sandbox::Strict),
            false => builder,
        }
    });
    // A sandboxed worker opens no file.
    let log = (!plan.rules.sandboxed).then(Diary::new);
    let path = log.as_ref().map_or(String::new(), Diary::path);
    let is_over = AtomicBool::new(false);
    let (seen, kills) = thread::scope(|threads| {
        let faults = threads.spawn(|| faults(&lab, (seed, plan), &is_over));
        let seen = play_all(&lab, (seed, plan, &path), &values);
        is_over.store(true, Relaxed);
        (seen, faults.join().expect("the thread has not panicked"))
    });
    let log: Option<Vec<u64>> = log.map(|log| {
        let lines = log.lines().into_iter();
        lines
            .map(|line| line.parse().expect("the number of a call"))
            .collect()
    });
    let weather = Weather {
        lanes: plan.lanes as u64,
        kills,
    };
    judge(&expected, &seen, log.as_deref(), weather)?;
    expect_in_use(&lab, 0)?;
    Ok(Seen {
        faults: kills,
        jobs: seen.entries.len() as u64,
        ..Seen::default()
    })
}

/// Kills and stops workers at random moments until the program is over. Returns how many were killed.
fn faults(lab: &Lab, (seed, plan): (u64, &Plan), is_over: &AtomicBool) -> u64 {
    let mut dice = Dice::new(!seed);
    let mut killed = 0;
    while !is_over.load(Relaxed) && (plan.stops || killed < plan.kills) {
        // At a random moment of the program, not to wait for anything.
        thread::sleep(dice.micros(100, 30_000));
        let workers = lab.stats().workers;
        let victim = &workers[dice.below(workers.len() as u64) as usize];
        if !victim.ready || victim.pid == 0 {
            continue;
        }
        let pid = Pid::from_raw(victim.pid as i32);
        if plan.stops && kill(pid, Signal::SIGSTOP).is_ok() {
            thread::sleep(dice.micros(100, 10_000));
            // It may have been killed meanwhile.
            let _ = kill(pid, Signal::SIGCONT);
        }
        if killed < plan.kills && dice.below(2) == 0 {
            killed += u64::from(kill(pid, Signal::SIGKILL).is_ok());
        }
    }
    killed
}
