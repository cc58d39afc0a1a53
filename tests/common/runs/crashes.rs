//! Jobs that kill their worker, repeatedly.

use std::os::unix::process::parent_id;
use std::time::{Duration, Instant};

use arenite::{Job, JobErrorKind, JobLimit};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::errors::ABORTED;
use super::super::lab::{Answers, Invariant, Lab, step, wait_until};
use super::{Dice, Order, Seen};

fn poison() -> u32 {
    std::process::abort();
}

fn harmless(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

/// Harmless jobs in between succeed; a poison job that may be retried is quarantined.
pub fn poison_among_others(order: Order) -> Result<Seen, String> {
    const POISONED: usize = 3;
    const OTHERS: u32 = 300;
    let invariant = Invariant::before();
    let lab = Lab::with(2, |builder| builder.quarantine_after(3));
    step("poison among harmless jobs");
    let poisoned: Vec<Job<u32>> = (0..POISONED)
        .map(|_| lab.job(poison, ()).retries(100).submit())
        .collect();
    let others: Vec<_> = (0..OTHERS).map(|n| lab.submit(harmless, (n,))).collect();
    let reference: Vec<u32> = (0..OTHERS).map(harmless).collect();
    let answers = Answers::compare(others.into_iter().map(Job::wait), &reference)?;
    answers.cost_at_most(0, |_| false)?;
    for job in poisoned {
        step("a poisoned job to be given up");
        let error = job.wait().err().ok_or("a poisoned job has a value")?;
        match error.kind() {
            JobErrorKind::Limit(JobLimit::Quarantined { deaths: 3 })
                if error.deaths().len() == 3 => {}
            other => return Err(format!("a poisoned job ends with {other:?}: {error}")),
        }
    }
    invariant.ends(lab)?;
    let _ = order;
    Ok(Seen {
        faults: 3 * POISONED as u64,
        jobs: POISONED as u64 + u64::from(OTHERS),
        ..Seen::default()
    })
}

/// Jobs that kill each worker they get, and nothing else: workers are replaced more and more slowly, so that all processes
/// together (the supervisor and what it starts) use little of a core.
pub fn flood(order: Order) -> Result<Seen, String> {
    let invariant = Invariant::before();
    let lab = Lab::new(2);
    step("a flood of poison");
    let (began, before) = (Instant::now(), cpu()?);
    let mut answered = 0;
    let mut jobs: std::collections::VecDeque<_> = (0..50).map(|_| lab.submit(poison, ())).collect();
    while (answered == 0 || began.elapsed() < order.length)
        && let Some(mut job) = jobs.pop_front()
    {
        // At least one result, however slow the machine is.
        let answer = match answered {
            0 => Some(job.wait()),
            _ => job.wait_timeout(order.length.saturating_sub(began.elapsed())),
        };
        match answer {
            None => break,
            Some(Ok(_)) => return Err("a poisoned job has a value".into()),
            Some(Err(error)) if *error.kind() == ABORTED => {
                answered += 1;
            }
            Some(Err(error)) => return Err(format!("a poisoned job ends with {error}")),
        }
        jobs.push_back(lab.submit(poison, ()));
    }
    let (wall, spent) = (began.elapsed(), cpu()? - before);
    // The pauses alone: 10, 20, 40 … ms for each worker from its third death on.
    let workers = lab.stats().workers;
    let pauses = workers.iter().map(|worker| {
        let deaths = 3..worker.restarts;
        deaths.map(|n| 10 << (n - 3).min(6)).sum::<u64>()
    });
    let pauses = Duration::from_millis(pauses.max().unwrap_or(0));
    if began.elapsed() < pauses {
        return Err(format!("{wall:?} with pauses of {pauses:?}: {workers:?}"));
    }
    // Jobs that have not started are cancelled; the others end on their own.
    drop(jobs);
    invariant.ends(lab)?;
    let mut seen = Seen {
        faults: answered,
        jobs: answered,
        ..Seen::default()
    };
    let share = 100.0 * spent.as_secs_f64() / wall.as_secs_f64();
    let share = (share, "% of a core");
    seen.figure(order, "processor time of a crash loop", share, 5.0)?;
    Ok(seen)
}

/// Makes the workers of this process end before they are ready, until dropped: by the name of the process, which disappears with it
/// however it ends.
struct Doom {
    /// The former name.
    name: String,
}

/// Prefix of such a name.
const DOOM: &str = "doom:";

impl Doom {
    fn new(how: &str) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let name = std::fs::read_to_string(OWN_NAME).map_err(text)?;
        std::fs::write(OWN_NAME, format!("{DOOM}{how}")).map_err(text)?;
        Ok(Self { name })
    }
}

impl Drop for Doom {
    fn drop(&mut self) {
        // A failure would show: workers would no longer start.
        let _ = std::fs::write(OWN_NAME, self.name.trim_end());
    }
}

/// Path of the name of this process.
const OWN_NAME: &str = "/proc/self/comm";

/// In a worker, before its first job.
fn start_or_die() {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", parent_id()));
    match name.unwrap_or_default().trim_end().strip_prefix(DOOM) {
        Some("abort") => std::process::abort(),
        Some("exit") => std::process::exit(3),
        Some(_) => panic!("the drive is gone"),
        None => {}
    }
}

/// Workers that die before they are ready: one of two is restarted more and more slowly, which costs next to nothing, while the
/// other works. It returns when starts succeed again. Without any worker, jobs fail with the reason.
pub fn at_start(order: Order) -> Result<Seen, String> {
    let hows = ["abort", "exit", "panic"];
    let how = hows[Dice::new(order.seed).below(3) as usize];
    let invariant = Invariant::before();
    let lab = Lab::with(2, |builder| builder.on_worker_start(start_or_die));
    let doom = Doom::new(how)?;
    step("a worker that cannot start again");
    let lost = lab.pid(0);
    kill(Pid::from_raw(lost), Signal::SIGKILL).map_err(|errno| errno.to_string())?;
    wait_until("it is missed", || !lab.stats().workers[0].ready);
    let (began, before, mut answered) = (Instant::now(), cpu()?, 0);
    while answered == 0 || began.elapsed() < order.length {
        let n = answered as u32;
        match lab.submit(harmless, (n,)).wait() {
            Ok(value) if value == harmless(n) => answered += 1,
            other => return Err(format!("a job of the other worker answers {other:?}")),
        }
        // So that the measured time is mostly that of starts.
        std::thread::sleep(Duration::from_millis(100));
    }
    let (wall, spent) = (began.elapsed(), cpu()? - before);
    if lab.stats().workers[0].ready {
        return Err(format!("a worker is ready that had to {how}"));
    }
    drop(doom);
    wait_until("starts work again", || lab.stats().workers[0].ready);
    invariant.holds(&lab, 0)?;
    drop(lab);

    let lab = Lab::with(1, |builder| builder.on_worker_start(start_or_die));
    let doom = Doom::new(how)?;
    step("the only worker, which cannot start again");
    kill(Pid::from_raw(lab.pid(0)), Signal::SIGKILL).map_err(|errno| errno.to_string())?;
    wait_until("it is missed", || !lab.stats().workers[0].ready);
    match lab.submit(harmless, (1,)).wait() {
        Err(error) if matches!(error.kind(), JobErrorKind::NoWorkers(_)) => {}
        other => return Err(format!("a job without workers answers {other:?}")),
    }
    drop((lab, doom));
    invariant.nothing_left()?;
    let mut seen = Seen {
        faults: 2,
        jobs: answered + 1,
        ..Seen::default()
    };
    let share = 100.0 * spent.as_secs_f64() / wall.as_secs_f64();
    let share = (share, "% of a core");
    seen.figure(order, "processor time of starts that fail", share, 5.0)?;
    Ok(seen)
}

/// Returns the processor time of this process and of all children that have ended.
fn cpu() -> Result<Duration, String> {
    let of = |who| getrusage(who).map_err(|errno| errno.to_string());
    let sum = |usage: Usage| {
        let time = |value: nix::sys::time::TimeVal| {
            Duration::from_micros(value.tv_sec() as u64 * 1_000_000 + value.tv_usec() as u64)
        };
        time(usage.user_time()) + time(usage.system_time())
    };
    Ok(sum(of(UsageWho::RUSAGE_SELF)?) + sum(of(UsageWho::RUSAGE_CHILDREN)?))
}
