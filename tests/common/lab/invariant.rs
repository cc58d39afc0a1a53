//! What has to hold after every fault. Each check returns what is wrong.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use arenite::{Engine, JobError, JobErrorKind, Stats};

use super::engine::{Lab, replace, wait_until};
use super::step;
use super::traces::Traces;

/// How long memory accounting may take to balance.
const SETTLING: Duration = Duration::from_secs(10);

/// Size of the grant that a worker gets before its first job.
const FIRST_GRANT: u64 = 64 * 1024;

/// The state before an engine is built, to compare with the state afterwards.
#[derive(Debug)]
pub struct Invariant {
    before: Traces,
}

impl Invariant {
    /// Records the state of this process and of the system without the engine.
    pub fn before() -> Self {
        Self {
            before: Traces::now(),
        }
    }

    /// Checks an engine whose results have all been taken: no job is open, no lease is held, free memory is as before except
    /// for `kept` bytes that the caller still holds, and the engine runs another job.
    pub fn holds(&self, engine: &Engine, kept: u64) -> Result<(), String> {
        fn sum(values: &[u64]) -> u64 {
            values.iter().sum()
        }
        expect_idle(engine);
        step("another job");
        let values: Vec<u64> = (0..5000).collect();
        let shared = engine
            .from_slice(&values)
            .map_err(|error| error.to_string())?;
        let answer = engine.submit(sum, (&shared,)).wait();
        drop(shared);
        match answer {
            Ok(12_497_500) => {}
            other => return Err(format!("another job answers {other:?}")),
        }
        expect_in_use(engine, kept)
    }

    /// Checks an engine of which the caller holds nothing, shuts it down, and checks that nothing is left.
    pub fn ends(self, lab: Lab) -> Result<(), String> {
        self.holds(&lab, 0)?;
        step("the engine to shut down");
        lab.into_inner().shutdown();
        self.nothing_left()
    }

    /// Checks that `/dev/shm` lists the same names as before.
    pub fn names_as_before(&self) -> Result<(), String> {
        self.before.compare_names()
    }

    /// Checks after the end of an engine: no child, no zombie, the same descriptors, threads and names as before.
    pub fn nothing_left(self) -> Result<(), String> {
        step("what is left behind");
        self.before.compare()
    }
}

/// Waits until no job runs or waits, no result is untaken, and no byte counts as in flight.
pub fn expect_idle(engine: &Engine) {
    wait_until("the engine is idle", || {
        let stats = engine.stats();
        let jobs = stats.open + stats.queued + stats.waiting + stats.limited + stats.untaken;
        jobs == 0 && stats.admitted == 0
    });
}

/// Checks memory accounting: besides `kept` bytes, which the test still holds, only the grants of workers are in use.
///
/// Checked twice. With the workers that did the work, because the end of a process releases all that belongs to it, leaks
/// included; and with fresh workers, whose grants are known.
pub fn expect_in_use(engine: &Engine, kept: u64) -> Result<(), String> {
    expect_idle(engine);
    let granted = |stats: &Stats| stats.workers.iter().map(|worker| worker.granted).sum();
    expect_balance(engine, kept, "workers may fill", granted)?;
    let workers = engine.stats().workers.len();
    replace(engine, 0..workers);
    expect_balance(engine, kept, "fresh workers are granted", |_| {
        workers as u64 * FIRST_GRANT
    })
}

/// Waits until the bytes in use are those of the caller and of the workers. A worker may be ready a moment before its first grant.
fn expect_balance(
    engine: &Engine,
    kept: u64,
    of_workers: &str,
    bytes: impl Fn(&Stats) -> u64,
) -> Result<(), String> {
    step(format!(
        "memory accounting to balance with what {of_workers}"
    ));
    let start = Instant::now();
    loop {
        let stats = engine.stats();
        let bytes = bytes(&stats);
        if stats.arena.in_use == kept + bytes {
            return Ok(());
        }
        if start.elapsed() > SETTLING {
            return Err(format!(
                "{} bytes in use: {kept} are the caller's, and {bytes} {of_workers}: {stats:#?}",
                stats.arena.in_use
            ));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Results compared with those that one process computes.
#[derive(Debug, Default)]
pub struct Answers {
    /// Jobs with a value, equal to the reference.
    pub finished: usize,
    /// Jobs that failed, and why.
    pub failed: Vec<(usize, JobErrorKind)>,
}

impl Answers {
    /// Compares results in order, one for each job of the reference. A value that differs is an error.
    pub fn compare<T: PartialEq + Debug>(
        answers: impl IntoIterator<Item = Result<T, JobError>>,
        reference: &[T],
    ) -> Result<Self, String> {
        let mut seen = Self::default();
        let mut count = 0;
        for (job, answer) in answers.into_iter().enumerate() {
            count += 1;
            let expected = reference.get(job);
            match answer {
                Ok(value) if Some(&value) == expected => seen.finished += 1,
                Ok(value) => return Err(format!("job {job}: {value:?} instead of {expected:?}")),
                Err(error) => seen.failed.push((job, error.kind().clone())),
            }
        }
        if count != reference.len() {
            return Err(format!("{count} answers for {} jobs", reference.len()));
        }
        Ok(seen)
    }

    /// Checks that at most `deaths` jobs failed, each for a reason that a death explains.
    pub fn cost_at_most(
        &self,
        deaths: usize,
        is_reason: impl Fn(&JobErrorKind) -> bool,
    ) -> Result<(), String> {
        if let Some((job, why)) = self.failed.iter().find(|(_, why)| !is_reason(why)) {
            return Err(format!("job {job} failed for another reason: {why:?}"));
        }
        if self.failed.len() > deaths {
            return Err(format!("{deaths} deaths cost {:?}", self.failed));
        }
        Ok(())
    }
}
