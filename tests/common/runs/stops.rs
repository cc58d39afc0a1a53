//! Workers that are stopped while their jobs have short deadlines.

use std::thread;
use std::time::{Duration, Instant};

use arenite::Job;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::lab::{Invariant, Lab, step, wait_until};
use super::{Dice, Order, Seen, each_has_cost_a_worker, in_time, spin};

fn busy(nanos: u64, n: u32) -> u32 {
    spin(nanos);
    n ^ 0x5555
}

/// The running job of a stopped worker ends at its deadline, and the worker is killed. A worker may be continued at about that
/// time and complete its job: each job has one outcome all the same, and each late job costs one worker.
pub fn at_deadlines(order: Order) -> Result<Seen, String> {
    const LIMIT: Duration = Duration::from_millis(30);
    /// Maximum time between the deadline and SIGCONT, before or after.
    const ABOUT: Duration = Duration::from_millis(3);
    const JOBS: u32 = 4;
    let invariant = Invariant::before();
    let lab = Lab::new(2);
    let mut dice = Dice::new(order.seed);
    let (mut done, mut late, mut stops) = (0u64, 0u64, 0u64);
    let end = Instant::now() + order.length;
    while done == 0 || late == 0 || Instant::now() < end {
        step("every worker to be ready");
        wait_until("every worker is ready", || {
            lab.stats().workers.iter().all(|worker| worker.ready)
        });
        step("jobs whose worker is stopped");
        let jobs: Vec<Job<u32>> = (0..JOBS)
            .map(|n| {
                let job = lab.job(busy, (dice.below(8_000_000), n));
                job.deadline(LIMIT).submit()
            })
            .collect();
        thread::sleep(dice.micros(0, 6_000));
        let index = dice.below(2) as usize;
        let pid = lab.stats().workers[index].pid;
        let is_stopped = pid != 0 && signal(pid, Signal::SIGSTOP);
        stops += u64::from(is_stopped);
        // Half of them are continued.
        if dice.below(2) == 0 {
            let spread = dice.micros(0, 2 * ABOUT.as_micros() as u64);
            thread::sleep(LIMIT - ABOUT + spread);
            signal(pid, Signal::SIGCONT);
        }
        for (n, job) in (0u32..).zip(jobs) {
            match in_time(job, &(n ^ 0x5555), LIMIT)? {
                true => done += 1,
                false => late += 1,
            }
        }
        // It was idle when it was stopped, so no deadline has ended it.
        if lab.stats().workers[index].pid == pid {
            signal(pid, Signal::SIGCONT);
        }
    }
    each_has_cost_a_worker(&lab, late);
    invariant.ends(lab)?;
    Ok(Seen {
        faults: stops,
        jobs: done + late,
        ..Seen::default()
    })
}

/// Sends a signal; returns whether the process still existed.
fn signal(pid: u32, signal: Signal) -> bool {
    pid != 0 && kill(Pid::from_raw(pid as i32), signal).is_ok()
}
