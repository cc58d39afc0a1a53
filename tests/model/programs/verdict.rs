//! Compares what a program got from workers with what it got from an inline engine.

use std::collections::{BTreeSet, HashMap};

use arenite::{FailedDependency, JobError, JobErrorKind, WorkerExit};

/// What a program got.
#[derive(Debug, Default)]
pub struct Story {
    pub entries: Vec<Entry>,
    /// Pairs of calls of which the first has to end before the second begins.
    pub orders: Vec<(u64, u64)>,
}

/// A result, in the order in which the program took the results.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The number of the call.
    pub number: u64,
    pub kind: Kind,
    pub result: Result<Vec<u64>, JobError>,
}

/// What may become of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kind {
    /// Whether it has retries, so that the death of its worker costs it nothing.
    pub retried: bool,
    /// Whether the program has cancelled it.
    pub cancelled: bool,
    /// Whether the kernel ends its worker. The result of the inline engine is a placeholder.
    pub dies: bool,
    /// Whether the kernel hangs: the job is killed or has a deadline. The result of the inline engine is a placeholder.
    pub hangs: bool,
    /// A call of this actor, which saves its state after this number of calls.
    pub actor: Option<(usize, u64)>,
    /// A job of this scope. If another job of the scope is lost, this one may be cancelled.
    pub scope: Option<u64>,
    /// Whether several jobs may be blamed for its failure, so that only the kind of its error is known.
    pub takes_jobs: bool,
}

impl Kind {
    pub fn retried(retried: bool) -> Self {
        Self {
            retried,
            ..Self::default()
        }
    }

    /// A job among those that take each other's values, which have retries or not.
    pub fn taking_jobs(retried: bool) -> Self {
        Self {
            takes_jobs: true,
            ..Self::retried(retried)
        }
    }
}

/// What happened to the workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub lanes: u64,
    /// The number of workers that were killed from outside.
    pub kills: u64,
}

/// What a failure was caused by, if this was the end of a worker.
fn is_lost(kind: &JobErrorKind) -> bool {
    match kind {
        JobErrorKind::Lost(exit) => {
            !matches!(exit, WorkerExit::Protocol(_) | WorkerExit::Escaped { .. })
        }
        JobErrorKind::Dependency(failed) => is_lost(failed.cause()),
        _ => false,
    }
}

/// The job that was lost, by its number in the engine; by that of the call if the engine names none.
fn lost_job(entry: &Entry, error: &JobError) -> (bool, u64) {
    let job = match error.kind() {
        JobErrorKind::Dependency(FailedDependency::Input { path, .. }) => {
            path.last().and_then(|input| input.job)
        }
        JobErrorKind::Dependency(FailedDependency::Child { job, .. }) => *job,
        _ => error.job(),
    };
    (job.is_some(), job.unwrap_or(entry.number))
}

/// The part of an error that does not depend on the engine.
fn text(kind: &JobErrorKind) -> String {
    match kind {
        JobErrorKind::Returned(returned) => format!("returned {}", returned.text()),
        JobErrorKind::Panicked { message, .. } => format!("panicked {message}"),
        JobErrorKind::Dependency(failed) => format!("needs: {}", text(failed.cause())),
        kind => format!("{kind:?}"),
    }
}

/// Returns what is wrong with what a program got from workers. `log`: the calls in the order in which they began, if
/// known.
pub fn judge(
    expected: &[Entry],
    story: &Story,
    log: Option<&[u64]>,
    weather: Weather,
) -> Result<(), String> {
    let seen = &story.entries;
    let mut began: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, &number) in log.iter().copied().flatten().enumerate() {
        began.entry(number).or_default().push(at);
    }
    for (before, after) in &story.orders {
        if let Some(after_at) = began.get(after)
            && began
                .get(before)
                .is_none_or(|before_at| before_at[0] > after_at[0])
        {
            return Err(format!("call {after} began before {before}"));
        }
    }
    if expected.len() != seen.len() {
        return Err(format!(
            "{} results instead of {}",
            seen.len(),
            expected.len()
        ));
    }
    let of_own = seen
        .iter()
        .filter(|entry| entry.kind.dies || entry.kind.hangs)
        .count() as u64;
    // A job with retries ends a worker in each of its attempts.
    let ended = weather.kills + 2 * of_own;
    let mut judge = Judge {
        lost: BTreeSet::new(),
        lists: HashMap::new(),
        broken: seen
            .iter()
            .filter(|entry| entry.result.is_err())
            .filter_map(|entry| entry.kind.scope)
            .collect(),
        is_calm: ended == 0,
    };
    // In the order of the calls, which is that of an actor's states.
    let mut pairs: Vec<_> = expected.iter().zip(seen).collect();
    pairs.sort_by_key(|(_, seen)| seen.number);
    for (expected, seen) in pairs {
        let wrong = |why: String| {
            format!(
                "call {}: {why}\n  expected {expected:?}\n  seen {seen:?}",
                seen.number
            )
        };
        if expected.number != seen.number {
            return Err(wrong("another call".into()));
        }
        judge.entry(expected, seen).map_err(wrong)?;
        if log.is_some() {
            let times = began.get(&seen.number).map_or(0, Vec::len) as u64;
            let may_repeat = seen.kind.retried || seen.kind.takes_jobs;
            let most = if may_repeat { 1 + ended } else { 1 };
            let least = u64::from(seen.result.is_ok());
            if !(least..=most).contains(&times) {
                return Err(wrong(format!(
                    "it began {times} times, not {least} to {most}"
                )));
            }
        }
    }
    // Each worker that ends takes one job of each of its lanes along; one that its own job ends, those of the others.
    let most = weather.kills * weather.lanes + 2 * of_own * (weather.lanes - 1);
    if judge.lost.len() as u64 > most {
        return Err(format!(
            "{most} jobs can be lost: {weather:?}, {of_own} ends; lost are {:?}",
            judge.lost
        ));
    }
    Ok(())
}

struct Judge {
    /// The jobs that were lost although their kernels end no process.
    lost: BTreeSet<(bool, u64)>,
    /// By actor: its state after the last call that was answered.
    lists: HashMap<usize, Vec<u64>>,
    /// The scopes of which a job has failed.
    broken: BTreeSet<u64>,
    /// Whether no worker has ended.
    is_calm: bool,
}

impl Judge {
    fn entry(&mut self, expected: &Entry, seen: &Entry) -> Result<(), String> {
        let kind = seen.kind;
        let error = match (&expected.result, &seen.result) {
            (_, Ok(list)) if let Some((actor, every)) = kind.actor => {
                return self.call(actor, every, seen.number, list);
            }
            (Ok(expected), Ok(seen)) if expected == seen && !kind.dies && !kind.hangs => {
                return Ok(());
            }
            (_, Ok(_)) => return Err("another value".into()),
            (_, Err(error)) => error,
        };
        let why = error.kind();
        if kind.cancelled && *why == JobErrorKind::Cancelled {
            return Ok(());
        }
        if kind.scope.is_some_and(|scope| self.broken.contains(&scope))
            && *why == JobErrorKind::Cancelled
        {
            // Only if another one was lost: the kernels of such scopes return values.
            return if self.is_calm {
                Err("cancelled".into())
            } else {
                Ok(())
            };
        }
        if kind.hangs && (*why == JobErrorKind::Cancelled || matches!(why, JobErrorKind::Limit(_)))
        {
            return Ok(());
        }
        if kind.dies {
            return if is_lost(why) {
                Ok(())
            } else {
                Err("it ends its worker".into())
            };
        }
        if let Err(expected) = &expected.result
            && (text(expected.kind()) == text(why) || kind.takes_jobs && !is_lost(why))
        {
            return Ok(());
        }
        if !is_lost(why) {
            return Err("another error".into());
        }
        if kind.retried {
            return Err("it has retries".into());
        }
        // An actor without checkpoints fails all later calls.
        if kind.actor.is_none_or(|(_, every)| every > 0) {
            self.lost.insert(lost_job(seen, error));
        }
        Ok(())
    }

    /// Checks the state of an actor after a call: that after an earlier call, and the call.
    fn call(&mut self, actor: usize, every: u64, number: u64, list: &[u64]) -> Result<(), String> {
        let before = self.lists.entry(actor).or_default();
        let Some((last, rest)) = list.split_last() else {
            return Err("an actor without calls".into());
        };
        let forgotten = before.len().wrapping_sub(rest.len());
        let may_forget = if self.is_calm { 0 } else { every as usize };
        if *last != number || !before.starts_with(rest) || forgotten > may_forget {
            return Err(format!("before it, the actor had seen {before:?}"));
        }
        *before = list.to_vec();
        Ok(())
    }
}
