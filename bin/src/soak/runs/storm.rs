//! Workers killed, or stopped and let go, at random moments under full load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use arenite::engine::Builder;
use arenite::{Array, Engine, JobErrorKind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::lab::{Invariant, Lab, step};
use super::{Dice, Figure, Order, Seen};

/// What happens to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Stop,
}

/// Throughput is measured over this long.
const WINDOW: Duration = Duration::from_millis(250);

/// Seconds in which it is promised back: the window in which that is seen counts as well.
const LIMIT: f64 = 1.0 + WINDOW.as_secs_f64();

/// How long the throughput has to come back after a storm.
const ENOUGH: Duration = Duration::from_secs(20);

/// The share of the throughput that is there again by then, whatever else the machine has begun to do meanwhile.
const BACK: f64 = 0.25;

fn work(values: &Array<u8>, n: u32) -> Array<u32> {
    let sum: u32 = values.iter().map(|&x| u32::from(x)).sum();
    Array::from_fn(2000 + n as usize % 20_000, |i| if i == 0 { sum } else { n })
}

fn is_right(array: &Array<u32>, n: u32) -> bool {
    array.len() == 2000 + n as usize % 20_000
        && array[0] == 10_000
        && array[1..].iter().all(|&x| x == n)
}

/// A calm, the storm, and how long it takes until as much is done as before.
pub fn run(order: Order, blow: Blow) -> Result<Seen, String> {
    run_with(order, blow, |builder| builder, |_| None)
}

/// The same, on another engine than the usual one, unless that `lacks` what was to be shown.
///
/// A machine that others share is slower for a second now and then, whatever an engine does: with two cores of one, and no blow at
/// all, 5 to 9 of 1,000 windows like those after a storm came too late. So a storm that was too long in coming back is held twice
/// more, and the middle one of the three counts.
pub fn run_with(
    order: Order,
    blow: Blow,
    change: impl Fn(Builder) -> Builder,
    lacks: impl Fn(&Engine) -> Option<String>,
) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let mut times = Vec::new();
    loop {
        let seed = order.seed.wrapping_add(times.len() as u64);
        let (one, recovered) = storm(Order { seed, ..order }, blow, &change, &lacks)?;
        seen.add(one);
        let Some(recovered) = recovered else {
            return Ok(seen);
        };
        times.push(recovered.as_secs_f64());
        let is_late = order.strict && times[0] > LIMIT;
        if times.len() == if is_late { 3 } else { 1 } {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    let figures = [
        ("back above 90 % after", times[times.len() / 2], LIMIT),
        // For whoever reads it.
        ("the longest of all", times[times.len() - 1], f64::INFINITY),
    ];
    for (name, value, limit) in figures {
        seen.figure(
            order,
            Figure {
                name,
                value,
                unit: "s",
                limit,
            },
        )?;
    }
    Ok(seen)
}

/// One storm; no time where it could not be held.
fn storm(
    order: Order,
    blow: Blow,
    change: impl FnOnce(Builder) -> Builder,
    lacks: impl FnOnce(&Engine) -> Option<String>,
) -> Result<(Seen, Option<Duration>), String> {
    let invariant = Invariant::before();
    let lab = Lab::with(2, change);
    if let Some(why) = lacks(&lab) {
        drop(lab);
        invariant.nothing_left()?;
        return Ok((Seen::skipped(why), None));
    }
    let values = lab
        .from_slice(&[1u8; 10_000])
        .map_err(|error| error.to_string())?;
    let (done, blows, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let mut failures = 0;
    let (rate, best, recovered) = thread::scope(|threads| {
        let director = threads.spawn(|| {
            let weather = direct(&lab, order, blow, &done, &blows, &over);
            over.store(true, SeqCst);
            weather
        });
        // Results that are held while others come: they must not change.
        let mut held = std::collections::VecDeque::new();
        let mut wrong = Ok(());
        for (n, result) in (0..).zip(lab.map(work, (0..u32::MAX).map(|n| (&values, n)))) {
            match result {
                Ok(array) => held.push_back((n, array)),
                Err(error) if *error.kind() == killed() && blow == Blow::Kill => failures += 1,
                Err(error) => wrong = Err(format!("item {n}: {error}")),
            }
            done.fetch_add(1, SeqCst);
            if held.len() > 20
                && let Some((n, array)) = held.pop_front()
                && !is_right(&array, n)
            {
                wrong = Err(format!("item {n} is wrong, or changed while it was held"));
            }
            if wrong.is_err() || over.load(SeqCst) {
                break;
            }
        }
        over.store(true, SeqCst);
        if let Some((n, _)) = held.iter().find(|(n, array)| !is_right(array, *n)) {
            wrong = wrong.and(Err(format!(
                "item {n} is wrong, or changed while it was held"
            )));
        }
        let weather = director.join().map_err(|_| "the storm panicked")?;
        wrong.map(|()| weather)
    })?;
    let blows = blows.into_inner();
    if failures > blows {
        return Err(format!("{blows} blows cost {failures} jobs"));
    }
    if best < BACK * rate {
        return Err(format!(
            "{best:.0} jobs a second at best, {recovered:.1?} after the storm, and {rate:.0} before it"
        ));
    }
    drop(values);
    invariant.holds(&lab, 0)?;
    drop(lab);
    invariant.nothing_left()?;
    let mut seen = Seen {
        faults: blows,
        jobs: done.into_inner(),
        ..Seen::default()
    };
    // For whoever reads it; a rate has no upper limit.
    seen.figure(
        order,
        Figure {
            name: "jobs before the storm",
            value: rate,
            unit: "per second",
            limit: f64::INFINITY,
        },
    )?;
    Ok((seen, Some(recovered)))
}

fn killed() -> JobErrorKind {
    JobErrorKind::Signal(Signal::SIGKILL as i32)
}

/// Jobs per second over one window.
fn measure(done: &AtomicU64) -> f64 {
    let (before, began) = (done.load(SeqCst), Instant::now());
    thread::sleep(WINDOW);
    (done.load(SeqCst) - before) as f64 / began.elapsed().as_secs_f64()
}

/// The weather: the rate in the calm, the best one after the storm, and how long it took until that was above 90 % of the first.
fn direct(
    lab: &Lab,
    order: Order,
    blow: Blow,
    done: &AtomicU64,
    blows: &AtomicU64,
    over: &AtomicBool,
) -> (f64, f64, Duration) {
    step("the calm before the storm");
    // The first window is for warming up; of the others the middle one counts.
    measure(done);
    let mut rates = [(); 5].map(|()| measure(done));
    rates.sort_by(f64::total_cmp);
    let rate = rates[2];
    let mut dice = Dice::new(order.seed);
    let end = Instant::now() + order.length;
    // One blow at least, however slow the machine is; none where the jobs have come to an end.
    let is_storm = || blows.load(SeqCst) == 0 || Instant::now() < end;
    while !over.load(SeqCst) && is_storm() {
        step(format!("the storm, after {} blows", blows.load(SeqCst)));
        thread::sleep(dice.micros(1_000, 50_000));
        let workers = lab.stats().workers;
        let victim = &workers[dice.below(workers.len() as u64) as usize];
        // Not before it is ready: an engine gives up when no worker ever gets that far.
        if !victim.ready || victim.pid == 0 {
            continue;
        }
        let pid = Pid::from_raw(victim.pid as i32);
        let blown = match blow {
            Blow::Kill => kill(pid, Signal::SIGKILL),
            Blow::Stop => kill(pid, Signal::SIGSTOP).and_then(|()| {
                thread::sleep(dice.micros(100, 20_000));
                kill(pid, Signal::SIGCONT)
            }),
        };
        // It may have gone by itself.
        blows.fetch_add(u64::from(blown.is_ok()), SeqCst);
    }
    step("every worker to have jobs again after the storm");
    let ended = Instant::now();
    let jobs = || {
        lab.stats()
            .workers
            .into_iter()
            .map(|worker| worker.jobs)
            .collect::<Vec<_>>()
    };
    let before = jobs();
    let is_back = || jobs().iter().zip(&before).all(|(now, before)| now > before);
    while !over.load(SeqCst) && !is_back() {
        thread::park_timeout(Duration::from_millis(1));
    }
    step("the throughput after the storm");
    let mut best = 0.0;
    while best < 0.9 * rate && !over.load(SeqCst) && ended.elapsed() < ENOUGH {
        best = f64::max(best, measure(done));
    }
    (rate, best, ended.elapsed())
}
