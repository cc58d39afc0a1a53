//! Many jobs, many workers, many engines: memory and descriptors do not grow.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, Engine, Stats};
use nix::sys::statvfs::statvfs;

use super::super::lab::{Invariant, Lab, expect_idle, private_bytes, step};
use super::{Order, Seen};

fn tiny(n: u64) -> u64 {
    n.rotate_left(17) ^ 0xfeed
}

fn small(n: u64) -> Array<u64> {
    Array::from_slice(&[n, n + 1])
}

/// Minimum numbers of tiny jobs and of engines in a run; smaller in a debug build.
const JOBS: u64 = if cfg!(debug_assertions) {
    200_000
} else {
    1_000_000
};
const ENGINES: u64 = 100;
/// Minimum number of rounds: the first allocates what all need.
const ROUNDS: u64 = 4;

/// Runs rounds of tiny jobs on many more workers than there are cores.
pub fn tiny_jobs(order: Order, workers: usize, per_round: u64) -> Result<Seen, String> {
    let invariant = Invariant::before();
    let lab = Lab::new(workers);
    let end = Instant::now() + order.length;
    let mut seen = Seen::default();
    let mut rounds = Rounds::default();
    while rounds.count() < ROUNDS || seen.jobs < JOBS || Instant::now() < end {
        step("tiny jobs");
        let (all, mut answered) = (per_round + per_round / 100, 0);
        let answers = lab.map(tiny, (0..per_round).map(|n| (n,)));
        for (n, answer) in (0..).zip(answers) {
            if answer.map_err(|error| error.to_string())? != tiny(n) {
                return Err(format!("job {n} is wrong"));
            }
            answered += 1;
        }
        let arrays = lab.map(small, (0..per_round / 100).map(|n| (n,)));
        for (n, answer) in (0..).zip(arrays) {
            if answer.map_err(|error| error.to_string())?[..] != [n, n + 1] {
                return Err(format!("array {n} is wrong"));
            }
            answered += 1;
        }
        if answered != all {
            return Err(format!("{answered} answers for {all} jobs"));
        }
        seen.jobs += answered;
        expect_idle(&lab);
        rounds.note(Taken::now(Some(&lab.stats())));
    }
    let grown = rounds.compare(Some(&lab))?;
    invariant.ends(lab)?;
    seen.figure(
        order,
        "grown over the jobs",
        (grown as f64 / 1e6, "MB"),
        32.0,
    )?;
    Ok(seen)
}

/// Starts, uses and ends engines.
pub fn cycles(order: Order) -> Result<Seen, String> {
    const PER_ROUND: u64 = 10;
    let invariant = Invariant::before();
    let build = |workers| {
        let builder = Engine::builder().workers(workers).capacity(64 << 20);
        builder.build().map_err(|error| error.to_string())
    };
    let end = Instant::now() + order.length;
    let mut seen = Seen::default();
    let mut rounds = Rounds::default();
    while seen.jobs < ENGINES || Instant::now() < end {
        for round in 0..PER_ROUND {
            step("an engine that starts, works and ends");
            let engine = build(1 + round as usize % 3)?;
            let answer = engine.submit(small, (round,)).wait();
            if answer.map_err(|error| error.to_string())?[..] != [round, round + 1] {
                return Err(format!("array {round} is wrong"));
            }
            if round % 2 == 0 {
                engine.shutdown();
            }
            seen.jobs += 1;
        }
        rounds.note(Taken::now(None));
    }
    let grown = rounds.compare(None)?;
    // The last engine works like the first.
    let last = build(2)?;
    invariant.holds(&last, 0)?;
    drop(last);
    invariant.nothing_left()?;
    seen.figure(
        order,
        "grown over the engines",
        (grown as f64 / 1e6, "MB"),
        32.0,
    )?;
    Ok(seen)
}

/// Resources of this process and its workers, which must not grow.
#[derive(Clone, Copy, Debug)]
struct Taken {
    memory: u64,
    /// Private bytes of the largest worker.
    worker: u64,
    descriptors: usize,
    /// Files of `/dev/shm`, unlinked ones included.
    files: u64,
    /// Bytes in use of the arena, grants included.
    arena: u64,
}

impl Taken {
    /// Reads the resources. `stats` are those of the engine, if there is one.
    fn now(stats: Option<&Stats>) -> Self {
        let workers = stats.iter().flat_map(|stats| &stats.workers);
        let of_workers = workers.filter_map(|worker| private_bytes(worker.pid));
        Self {
            memory: private_bytes(std::process::id()).unwrap_or(0),
            worker: of_workers.max().unwrap_or(0),
            descriptors: descriptors(),
            files: files("/dev/shm"),
            arena: stats.map_or(0, |stats| stats.arena.in_use),
        }
    }
}

/// The resources after each round.
#[derive(Debug, Default)]
struct Rounds(Vec<Taken>);

impl Rounds {
    fn note(&mut self, taken: Taken) {
        self.0.push(taken);
    }

    fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Returns the growth of memory in bytes, as the difference of the maxima of both halves; the first round is a warm-up.
    /// Without growth, the maximum is in the first half.
    fn compare(&self, lab: Option<&Lab>) -> Result<u64, String> {
        const PRIVATE: u64 = 4 << 20;
        const ARENA: u64 = 16 << 20;
        let (Some(first), rounds) = (self.0.first(), self.count()) else {
            return Err("no round".into());
        };
        let (early, late) = self.0.split_at(self.0.len().div_ceil(2));
        type Bytes = fn(&Taken) -> u64;
        let whose: [(&str, Bytes); 2] = [
            ("this process", |taken| taken.memory),
            ("a worker", |taken| taken.worker),
        ];
        for (who, bytes) in whose {
            let most = |half: &[Taken]| half.iter().map(bytes).max().unwrap_or(0);
            let (before, after) = (most(early), most(late));
            if after > before + PRIVATE {
                return Err(format!(
                    "{who} had {before} private bytes at most in the first half of {rounds} rounds, and {after} in the second"
                ));
            }
        }
        let few = rounds / 2 + 8;
        let began = Instant::now();
        // A dropped engine may still close files, and other programs create files for a moment.
        step("descriptors and files to be what they were");
        loop {
            let now = Taken::now(lab.map(|lab| lab.stats()).as_ref());
            let is_flat = now.descriptors as u64 <= first.descriptors as u64 + few
                && now.files <= first.files + few
                && now.arena <= first.arena + ARENA;
            if is_flat {
                return Ok(now.memory.saturating_sub(first.memory));
            }
            if began.elapsed() > SETTLING {
                return Err(format!("{rounds} rounds: {first:?} before, {now:?} after"));
            }
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// How long leftovers may take to disappear.
const SETTLING: Duration = Duration::from_secs(20);

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Returns the number of files of a file system; 0 if it does not count them.
fn files(folder: &str) -> u64 {
    statvfs(folder).map_or(0, |all| all.files().saturating_sub(all.files_free()))
}
