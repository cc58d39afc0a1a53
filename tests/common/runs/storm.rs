//! Workers that are killed, or stopped and continued, at random moments under full load.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use arenite::engine::Builder;
use arenite::{Array, Engine, JobError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::errors::KILLED;
use super::super::lab::{Invariant, Lab, step};
use super::{Dice, Order, Seen};

/// What is done to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Stop,
}

/// The window over which throughput is measured.
const WINDOW: Duration = Duration::from_millis(250);

/// Seconds within which throughput has to recover, the measuring window included.
const LIMIT: f64 = 1.0 + WINDOW.as_secs_f64();

/// How long throughput may take to recover after a storm before the run fails.
const ENOUGH: Duration = Duration::from_secs(20);

/// The share of the former throughput that counts as recovered.
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

/// Measures throughput before a storm, and how long it takes to recover after it.
pub fn run(order: Order, fault: Fault) -> Result<Seen, String> {
    run_with(order, fault, |builder| builder, |_| None)
}

/// As [`run`], on an engine with other settings; skipped if the engine `lacks` something.
pub fn run_with(
    order: Order,
    fault: Fault,
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
    let measurements = thread::scope(|threads| {
        let director = threads.spawn(|| {
            let measurements = inject(&lab, order, fault, &stage);
            stage.over.store(true, SeqCst);
            measurements
        });
        let (mut jobs, mut of_spared) = (load(&lab, &values), load(&spared, &of_spared));
        // Results that are held while others arrive: they must not change.
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
                |error: &JobError| *error.kind() == KILLED && fault == Fault::Kill && !is_spared;
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
        let measurements = director.join().map_err(|_| "the storm panicked")?;
        wrong.map(|()| measurements)
    })?;
    let faults = stage.faults.into_inner();
    if failures > faults {
        return Err(format!("{faults} faults cost {failures} jobs"));
    }
    let Measurements {
        calm,
        last,
        best,
        back,
        has_recovered,
    } = measurements;
    if !has_recovered && best < BACK * calm {
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
        faults,
        jobs: stage.done.into_inner(),
        ..Seen::default()
    };
    // For information, except for the second.
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
        seen.figure(order, name, (value, unit), limit)?;
    }
    Ok(seen)
}

/// The state shared by the thread that injects faults and the thread that takes results.
#[derive(Default)]
struct Stage {
    /// Jobs with a result or an error.
    done: AtomicU64,
    faults: AtomicU64,
    /// Whether it is the turn of the engine that is spared.
    spared: AtomicBool,
    over: AtomicBool,
}

/// The measurements of a storm.
struct Measurements {
    /// Jobs per second before the storm.
    calm: f64,
    /// Jobs per second in the window in which throughput had recovered, and the best after the storm.
    last: f64,
    best: f64,
    /// Time from the end of the storm to the recovery.
    back: Duration,
    /// Whether throughput was that of before the storm, or that of the spared engine in the same second.
    has_recovered: bool,
}

/// An endless iterator of jobs.
fn load<'a>(
    lab: &'a Lab,
    values: &'a Array<u8>,
) -> impl Iterator<Item = (u32, Result<Array<u32>, JobError>)> + 'a {
    (0..).zip(lab.map(work, (0..u32::MAX).map(move |n| (values, n))))
}

/// Returns jobs per second over one window.
fn measure(done: &AtomicU64) -> f64 {
    let (before, began) = (done.load(SeqCst), Instant::now());
    thread::sleep(WINDOW);
    (done.load(SeqCst) - before) as f64 / began.elapsed().as_secs_f64()
}

/// Injects the faults of a storm, and measures throughput.
///
/// A shared machine may be slower by a quarter for seconds or minutes. So a second engine is spared from faults: if the first does
/// not reach its former throughput after the storm, both are measured in turns, and it counts as recovered when it reaches that of
/// the second in the window before or after its own.
fn inject(lab: &Lab, order: Order, fault: Fault, stage: &Stage) -> Measurements {
    let Stage {
        done,
        faults,
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
    // The first window of each engine is a warm-up; the median of the others counts.
    measure_spared();
    measure(done);
    let mut rates = [(); 5].map(|()| measure(done));
    rates.sort_by(f64::total_cmp);
    let calm = rates[2];
    let mut dice = Dice::new(order.seed);
    let end = Instant::now() + order.length;
    // At least one fault, however slow the machine is; none once the jobs have ended.
    let is_storm = || faults.load(SeqCst) == 0 || Instant::now() < end;
    while !over.load(SeqCst) && is_storm() {
        step(format!("the storm, after {} faults", faults.load(SeqCst)));
        thread::sleep(dice.micros(1_000, 50_000));
        let workers = lab.stats().workers;
        let victim = &workers[dice.below(workers.len() as u64) as usize];
        // Not before the worker is ready: an engine gives up if no worker ever becomes ready.
        if !victim.ready || victim.pid == 0 {
            continue;
        }
        let pid = Pid::from_raw(victim.pid as i32);
        let blown = match fault {
            Fault::Kill => kill(pid, Signal::SIGKILL),
            Fault::Stop => kill(pid, Signal::SIGSTOP).and_then(|()| {
                thread::sleep(dice.micros(100, 20_000));
                kill(pid, Signal::SIGCONT)
            }),
        };
        // It may have ended on its own.
        faults.fetch_add(u64::from(blown.is_ok()), SeqCst);
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
        let measurements = |has_recovered| Measurements {
            calm,
            last,
            best,
            back,
            has_recovered,
        };
        if is_as_good_as(calm) {
            return measurements(true);
        }
        if over.load(SeqCst) || back > ENOUGH {
            return measurements(false);
        }
        let behind = measure_spared();
        if is_as_good_as(before) || is_as_good_as(behind) {
            return measurements(true);
        }
        before = behind;
    }
}
