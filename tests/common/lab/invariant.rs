//! What holds after every fault, whatever it was. Each check says what is wrong.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use arenite::{Engine, JobError, JobErrorKind, Stats};

use super::engine::{replace, wait_until};
use super::step;
use super::traces::Traces;

/// How long books that do not balance may take to do so.
const SETTLING: Duration = Duration::from_secs(10);

/// Output memory that a worker is given before its first job.
const FIRST_GRANT: u64 = 64 * 1024;

/// The state before an engine is built, to be compared with what it leaves.
#[derive(Debug)]
pub struct Invariant {
    before: Traces,
}

impl Invariant {
    /// Looks at this process and at the system as they are without the engine.
    pub fn before() -> Self {
        Self {
            before: Traces::now(),
        }
    }

    /// All answers have been taken: no job is open, no lease is held, free memory is what it was but for `kept`
    /// bytes that the caller still holds, and the supervisor takes another job.
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

    /// `/dev/shm` lists what it did before.
    pub fn names_as_before(&self) -> Result<(), String> {
        self.before.compare_names()
    }

    /// The engine is gone: no child, no zombie, the same descriptors, threads and names as before.
    pub fn nothing_left(self) -> Result<(), String> {
        step("what is left behind");
        self.before.compare()
    }
}

/// Nothing runs, nothing waits for anything, nobody's answer lies about, no byte is counted as in flight.
pub fn expect_idle(engine: &Engine) {
    wait_until("the engine is idle", || {
        let stats = engine.stats();
        let jobs = stats.open + stats.queued + stats.waiting + stats.limited + stats.untaken;
        jobs == 0 && stats.admitted == 0
    });
}

/// The books balance: beside what the test still holds (`kept` bytes), nothing is in use but what workers have been granted.
///
/// Looked at twice. With the workers that did the work, since whatever belongs to a process is given back when that ends, also
/// what nobody knew of any more; and with fresh ones, whose grants are known.
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

/// What is in use is what the caller keeps and what workers may fill. A worker may be ready a moment before its first grant, so
/// there is time for it.
fn expect_balance(
    engine: &Engine,
    kept: u64,
    of_workers: &str,
    bytes: impl Fn(&Stats) -> u64,
) -> Result<(), String> {
    step(format!("the books to balance with what {of_workers}"));
    let asked = Instant::now();
    loop {
        let stats = engine.stats();
        let bytes = bytes(&stats);
        if stats.arena.in_use == kept + bytes {
            return Ok(());
        }
        if asked.elapsed() > SETTLING {
            return Err(format!(
                "{} bytes in use: {kept} are the caller's, and {bytes} {of_workers}: {stats:#?}",
                stats.arena.in_use
            ));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Answers beside what one process alone computes.
#[derive(Debug, Default)]
pub struct Answers {
    /// Jobs with a value, each equal to the reference bit for bit.
    pub finished: usize,
    /// Why the others have none.
    pub failed: Vec<(usize, JobErrorKind)>,
}

impl Answers {
    /// Takes the answers in order, one for each job of the reference; a value that differs is an error.
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

    /// No more jobs failed than there were deaths, each for a reason that a death can give.
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
