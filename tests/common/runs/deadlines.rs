//! Jobs that end close to their deadline, and jobs that never end.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use arenite::{Array, Job};

use super::super::lab::{Invariant, Lab, step};
use super::{Dice, Order, Seen, each_has_cost_a_worker, in_time, spin};

fn busy(nanos: u64, n: u32) -> Array<u32> {
    spin(nanos);
    answer(n)
}

/// Large enough to use the worker's memory.
fn answer(n: u32) -> Array<u32> {
    Array::from_slice(&[n ^ 0x5555; 100])
}

/// Each job either succeeds or exceeds its deadline, and only the latter costs a worker. Runs until there are some of each.
pub fn race(order: Order) -> Result<Seen, String> {
    const LIMIT: Duration = Duration::from_millis(3);
    const MIN: u64 = 2_000;
    const BATCH: u32 = 8;
    let invariant = Invariant::before();
    let lab = Lab::new(2);
    let mut dice = Dice::new(order.seed);
    let (mut done, mut late) = (0u64, 0u64);
    let end = Instant::now() + order.length;
    // The length at which both outcomes are equally likely is below the deadline, and shorter on a busy machine: the run
    // adapts to it.
    let mut middle = LIMIT;
    while done + late < MIN || Instant::now() < end {
        step(format!(
            "jobs that end at their deadlines, after {done} done and {late} too late"
        ));
        let batch: Vec<Job<Array<u32>>> = (0..BATCH)
            .map(|n| {
                let length = middle + dice.micros(0, 400);
                let nanos = length.saturating_sub(Duration::from_micros(200)).as_nanos();
                lab.job(busy, (nanos as u64, n)).deadline(LIMIT).submit()
            })
            .collect();
        let before = late;
        for (n, job) in (0u32..).zip(batch) {
            match in_time(job, &answer(n), LIMIT)? {
                true => done += 1,
                false => late += 1,
            }
        }
        middle = match (late - before) * 4 > u64::from(BATCH) {
            true => middle.saturating_sub(Duration::from_micros(60)),
            false => LIMIT.min(middle + Duration::from_micros(20)),
        };
    }
    if done == 0 || late == 0 {
        return Err(format!("no race at all: {done} done and {late} too late"));
    }
    each_has_cost_a_worker(&lab, late);
    invariant.ends(lab)?;
    Ok(Seen {
        faults: late,
        jobs: done + late,
        ..Seen::default()
    })
}

fn spins() -> u32 {
    loop {
        std::hint::spin_loop();
    }
}

fn sleeps() -> u32 {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn locks() -> u32 {
    static LOCK: Mutex<u32> = Mutex::new(0);
    let first = LOCK.lock();
    let second = LOCK.lock();
    first.map_or(0, |value| *value) + second.map_or(0, |value| *value)
}

/// Each worker is killed at the deadline of its job, and replaced.
pub fn hung(order: Order) -> Result<Seen, String> {
    const LIMIT: Duration = Duration::from_millis(50);
    let invariant = Invariant::before();
    let lab = Lab::new(2);
    let mut dice = Dice::new(order.seed);
    let end = Instant::now() + order.length;
    let mut seen = Seen::default();
    let mut longest = Duration::ZERO;
    while seen.faults == 0 || Instant::now() < end {
        for _ in 0..3 {
            step("a job that hangs");
            let from = Instant::now();
            let job = match dice.below(3) {
                0 => lab.job(spins, ()).deadline(LIMIT).submit(),
                1 => lab.job(sleeps, ()).deadline(LIMIT).submit(),
                _ => lab.job(locks, ()).deadline(LIMIT).submit(),
            };
            if in_time(job, &0, LIMIT)? {
                return Err("a job that hangs has an answer".into());
            }
            seen.faults += 1;
            longest = longest.max(from.elapsed());
        }
        // Other jobs succeed meanwhile.
        let job = lab.job(busy, (1000, 7)).deadline(Duration::from_secs(60));
        match job.submit().wait() {
            Ok(value) if value[..] == answer(7)[..] => {}
            other => return Err(format!("a job beside them answers {other:?}")),
        }
        seen.jobs += 4;
    }
    each_has_cost_a_worker(&lab, seen.faults);
    invariant.ends(lab)?;
    let [longest, limit] =
        [longest, LIMIT + Duration::from_millis(100)].map(|time| time.as_secs_f64() * 1e3);
    seen.figure(order, "a hung job was ended after", (longest, "ms"), limit)?;
    Ok(seen)
}
