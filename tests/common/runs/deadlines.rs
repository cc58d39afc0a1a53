//! Jobs that end just when their time is up, and jobs that never end.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use arenite::{Job, JobErrorKind, JobLimit};

use super::super::lab::{Invariant, Lab, step};
use super::{Dice, Order, Seen};

/// Busy for so long.
fn busy(nanos: u64, n: u32) -> u32 {
    let began = Instant::now();
    while began.elapsed() < Duration::from_nanos(nanos) {
        std::hint::spin_loop();
    }
    n ^ 0x5555
}

/// Each job is done or was too late, never both and never neither, and only the late ones cost a worker. So many at least, and
/// some of each.
pub fn race(order: Order) -> Result<Seen, String> {
    const LIMIT: Duration = Duration::from_millis(3);
    const LEAST: u64 = 2_000;
    const BATCH: u32 = 8;
    let invariant = Invariant::before();
    let lab = Lab::new(2);
    let mut dice = Dice::new(order.seed);
    let (mut done, mut late) = (0u64, 0u64);
    let end = Instant::now() + order.length;
    // The length at which one is as likely as the other lies before the deadline, and the farther the more else there is to
    // do for the machine: it is followed.
    let mut middle = LIMIT;
    while done + late < LEAST || Instant::now() < end {
        step(format!(
            "jobs that end at their deadlines, after {done} done and {late} too late"
        ));
        let batch: Vec<Job<u32>> = (0..BATCH)
            .map(|n| {
                let length = middle + dice.micros(0, 400);
                let nanos = length.saturating_sub(Duration::from_micros(200)).as_nanos();
                lab.job(busy, (nanos as u64, n)).deadline(LIMIT).submit()
            })
            .collect();
        let before = late;
        for (n, job) in (0u32..).zip(batch) {
            match job.wait() {
                Ok(value) if value == n ^ 0x5555 => done += 1,
                Ok(value) => return Err(format!("job {n} of a batch answers {value}")),
                Err(error) => match error.kind() {
                    JobErrorKind::Limit(JobLimit::Deadline { limit }) if *limit == LIMIT => {
                        late += 1
                    }
                    other => return Err(format!("job {n} of a batch ends with {other:?}")),
                },
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
    // The death behind the last answer may still be under way.
    super::super::lab::wait_until("every late job has cost a worker", || {
        let restarts = lab.stats().restarts();
        restarts == late
    });
    invariant.holds(&lab, 0)?;
    drop(lab);
    invariant.nothing_left()?;
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

/// Each is killed when its time is up, and replaced.
pub fn hung(order: Order) -> Result<Seen, String> {
    const LIMIT: Duration = Duration::from_millis(50);
    let invariant = Invariant::before();
    let lab = Lab::new(2);
    let mut dice = Dice::new(order.seed);
    let end = Instant::now() + order.length;
    let mut seen = Seen::default();
    while seen.faults == 0 || Instant::now() < end {
        for _ in 0..3 {
            step("a job that hangs");
            let job = match dice.below(3) {
                0 => lab.job(spins, ()).deadline(LIMIT).submit(),
                1 => lab.job(sleeps, ()).deadline(LIMIT).submit(),
                _ => lab.job(locks, ()).deadline(LIMIT).submit(),
            };
            match job.wait() {
                Err(error) if matches!(error.kind(), JobErrorKind::Limit(JobLimit::Deadline { limit }) if *limit == LIMIT) =>
                    {}
                other => return Err(format!("a job that hangs answers {other:?}")),
            }
            seen.faults += 1;
        }
        // What others submit meanwhile is done.
        let job = lab.job(busy, (1000, 7)).deadline(Duration::from_secs(60));
        match job.submit().wait() {
            Ok(value) if value == 7 ^ 0x5555 => {}
            other => return Err(format!("a job beside them answers {other:?}")),
        }
        seen.jobs += 4;
    }
    invariant.holds(&lab, 0)?;
    drop(lab);
    invariant.nothing_left()?;
    Ok(seen)
}
