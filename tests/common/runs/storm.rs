//! Workers killed, or stopped and let go, at random moments under full load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use arenite::engine::Builder;
use arenite::{Array, Engine, JobError, JobErrorKind, WorkerExit};
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
pub fn run_with(
    order: Order,
    blow: Blow,
    change: impl Fn(Builder) -> Builder,
    lacks: impl Fn(&Engine) -> Option<String>,
) -> Result<Seen, String> {
    let invariant = Invariant::before();
    let lab = Lab::with(2, &change);
    if let Some(why) = lacks(&lab) {
        drop(lab);
        invariant.nothing_left()?;
        return Ok(Seen::skipped(why));
    }
    let spared = Lab::with(2, change);
    let input = |lab: &Lab| {
        let values = lab.from_slice(&[1u8; 10_000]);
        values.map_err(|error| error.to_string())
    };
    let (values, of_spared) = (input(&lab)?, input(&spared)?);
    let stage = Stage::default();
    let mut failures = 0;
    let weather = thread::scope(|threads| {
        let director = threads.spawn(|| {
            let weather = direct(&lab, order, blow, &stage);
            stage.over.store(true, SeqCst);
            weather
        });
        let (mut jobs, mut of_spared) = (load(&lab, &values), load(&spared, &of_spared));
        // Results that are held while others come: they must not change.
        let mut held = std::collections::VecDeque::new();
        let mut wrong = Ok(());
        loop {
            let is_spared = stage.spared.load(SeqCst);
            let next = match is_spared {
                true => of_spared.next(),
                false => jobs.next(),
            };
            let Some((n, result)) = next else { break };
            let is_blow =
                |error: &JobError| *error.kind() == killed() && blow == Blow::Kill && !is_spared;
            match result {
                Ok(array) => held.push_back((n, array)),
                Err(error) if is_blow(&error) => failures += 1,
                Err(error) => wrong = Err(format!("item {n}: {error}")),
            }
            stage.done.fetch_add(1, SeqCst);
            if held.len() > 20
                && let Some((n, array)) = held.pop_front()
                && !is_right(&array, n)
            {
                wrong = Err(format!("item {n} is wrong, or changed while it was held"));
            }
            if wrong.is_err() || stage.over.load(SeqCst) {
                break;
            }
        }
        stage.over.store(true, SeqCst);
        if let Some((n, _)) = held.iter().find(|(n, array)| !is_right(array, *n)) {
            wrong = wrong.and(Err(format!(
                "item {n} is wrong, or changed while it was held"
            )));
        }
        let weather = director.join().map_err(|_| "the storm panicked")?;
        wrong.map(|()| weather)
    })?;
    let blows = stage.blows.into_inner();
    if failures > blows {
        return Err(format!("{blows} blows cost {failures} jobs"));
    }
    let Weather {
        calm,
        last,
        best,
        back,
    } = weather;
    if best < BACK * calm {
        return Err(format!(
            "{best:.0} jobs a second at best, {back:.1?} after the storm, and {calm:.0} before it"
        ));
    }
    drop((values, of_spared));
    for lab in [lab, spared] {
        invariant.holds(&lab, 0)?;
    }
    invariant.nothing_left()?;
    let mut seen = Seen {
        faults: blows,
        jobs: stage.done.into_inner(),
        ..Seen::default()
    };
    // For whoever reads them, but for the second.
    let figures = [
        ("jobs before the storm", calm, "per second", f64::INFINITY),
        ("back above 90 % after", back.as_secs_f64(), "s", LIMIT),
        (
            "slower than before it by",
            100.0 * (1.0 - last / calm),
            "%",
            f64::INFINITY,
        ),
    ];
    for (name, value, unit, limit) in figures {
        seen.figure(
            order,
            Figure {
                name,
                value,
                unit,
                limit,
            },
        )?;
    }
    Ok(seen)
}

/// What the one that makes the weather and the one that takes the results share.
#[derive(Default)]
struct Stage {
    /// Jobs that were answered.
    done: AtomicU64,
    blows: AtomicU64,
    /// It is the turn of the engine that no storm has touched.
    spared: AtomicBool,
    over: AtomicBool,
}

/// How it was.
struct Weather {
    /// Jobs per second before the storm.
    calm: f64,
    /// The same in the window in which the engine was back, and the best after the storm.
    last: f64,
    best: f64,
    /// How long after the storm that was.
    back: Duration,
}

/// Jobs without end, by their numbers.
fn load<'a>(
    lab: &'a Lab,
    values: &'a Array<u8>,
) -> impl Iterator<Item = (u32, Result<Array<u32>, JobError>)> + 'a {
    (0..).zip(lab.map(work, (0..u32::MAX).map(move |n| (values, n))))
}

fn killed() -> JobErrorKind {
    JobErrorKind::Lost(WorkerExit::Signal(Signal::SIGKILL as i32))
}

/// Jobs per second over one window.
fn measure(done: &AtomicU64) -> f64 {
    let (before, began) = (done.load(SeqCst), Instant::now());
    thread::sleep(WINDOW);
    (done.load(SeqCst) - before) as f64 / began.elapsed().as_secs_f64()
}

/// Makes the weather, and measures it.
///
/// A machine that others share has times in which all that runs on it is slower by a quarter, for seconds or minutes, whatever an
/// engine does. So there is another engine, which no blow meets: an engine that does not do after a storm what it did before it is
/// compared with that one, in turns, and is back where it does as much as that in the window before or behind its own.
fn direct(lab: &Lab, order: Order, blow: Blow, stage: &Stage) -> Weather {
    let Stage {
        done,
        blows,
        spared,
        over,
    } = stage;
    step("the calm before the storm");
    let measure_spared = || {
        spared.store(true, SeqCst);
        let rate = measure(done);
        spared.store(false, SeqCst);
        rate
    };
    // The first window of either is for warming up; of the others the middle one counts.
    measure_spared();
    measure(done);
    let mut rates = [(); 5].map(|()| measure(done));
    rates.sort_by(f64::total_cmp);
    let calm = rates[2];
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
    let (mut best, mut before) = (0.0, f64::INFINITY);
    loop {
        let last = measure(done);
        best = f64::max(best, last);
        let back = ended.elapsed();
        let is_as_good_as = |other: f64| last >= 0.9 * other;
        let weather = Weather {
            calm,
            last,
            best,
            back,
        };
        if is_as_good_as(calm) || over.load(SeqCst) || back > ENOUGH {
            return weather;
        }
        let behind = measure_spared();
        if is_as_good_as(before) || is_as_good_as(behind) {
            return weather;
        }
        before = behind;
    }
}
