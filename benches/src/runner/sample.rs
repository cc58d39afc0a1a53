//! Samples cases: starts all systems of a case, then samples the systems in turns until each has all its samples. In
//! some cases, a system is started again for each sample.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use arenite_bench::BenchError;
use arenite_bench::cases::{Case, Reading, Running, Setup};

use super::figures::{Absent, CaseFigures, SystemFigures};

/// The amount of sampling that the command line requests.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// The number of samples of each system, instead of the number of the case.
    pub runs: Option<u32>,
    /// The number of untimed operations before each sample, instead of the number of the case.
    pub warmup: Option<u64>,
}

/// Maximum number of samples in a quick run.
const QUICK_RUNS: u32 = 3;
/// After this time, a quick run begins no further round of samples of a case, so that time is left for each case.
const QUICK_CASE_TIME: Duration = Duration::from_secs(1);
/// After this time, a quick run begins no further round at all, so that it ends in time on a slow machine.
const QUICK_BUDGET: Duration = Duration::from_secs(55);

/// The time budget of a run.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    began: Instant,
    limit: Option<Duration>,
}

impl Budget {
    /// Starts the budget. Without `asked`, a run has a limit only if it is quick and the number of samples is not
    /// given.
    pub fn new(asked: Option<Duration>, quick: bool, amount: Amount) -> Self {
        let own = (quick && amount.runs.is_none()).then_some(QUICK_BUDGET);
        Self {
            began: Instant::now(),
            limit: asked.or(own),
        }
    }

    /// Returns the reason for leaving out systems, if the budget is used up.
    fn used_up(&self) -> Option<Absent> {
        let limit = self.limit.filter(|limit| self.began.elapsed() >= *limit);
        limit.map(Absent::Late)
    }
}

/// Measures a case within the budget. If a system fails, its figures contain the error, and the error is written to
/// `log`.
///
/// # Errors
/// Only errors of writing to `log`.
pub fn measure(
    case: Case,
    setup: &Setup,
    amount: Amount,
    budget: Budget,
    log: &mut impl Write,
) -> io::Result<CaseFigures> {
    let plan = case.plan;
    let default_runs = if setup.quick {
        plan.runs.min(QUICK_RUNS)
    } else {
        plan.runs
    };
    let runs = amount.runs.unwrap_or(default_runs);
    let patience = (setup.quick && amount.runs.is_none()).then_some(QUICK_CASE_TIME);
    let began = Instant::now();
    let warmup = amount.warmup.unwrap_or(plan.warmup);
    let mut figures = CaseFigures {
        id: case.id.clone(),
        title: case.title.clone(),
        unit: case.unit,
        systems: Vec::new(),
        goals: case.goals.clone(),
        notes: case.notes.clone(),
    };
    if budget.used_up().is_none() {
        writeln!(log, "measuring {} …", case.id)?;
    }

    let lacking = case.lacking();
    let mut running: Vec<Option<Running>> = Vec::new();
    for entry in &case.systems {
        let started = match (budget.used_up(), &lacking) {
            (Some(late), _) => Err(late),
            (None, Some(why)) => Err(Absent::Missing(why.clone())),
            (None, None) => entry.start(setup).map_err(absent),
        };
        let (system, absent) = match started {
            Ok(system) => (Some(system), None),
            Err(absent) => (None, Some(absent)),
        };
        figures.systems.push(SystemFigures {
            id: entry.id,
            samples: Vec::with_capacity(runs as usize),
            written: None,
            peak: None,
            absent,
        });
        running.push(system);
    }

    let count = running.len();
    for run in 0..runs as usize {
        if run > 0 && patience.is_some_and(|patience| began.elapsed() > patience) {
            break;
        }
        for turn in 0..count {
            // Each round begins with another system.
            let index = (run + turn) % count;
            let Some(system) = running[index].take() else {
                continue;
            };
            let figures = &mut figures.systems[index];
            if let Some(late) = budget.used_up() {
                figures.absent = figures.samples.is_empty().then_some(late);
                continue;
            }
            let started = if run > 0 && case.restarts {
                // End the system before it is started again: there is memory for only one instance of each system.
                drop(system);
                case.systems[index].start(setup)
            } else {
                Ok(system)
            };
            let sampled = started.and_then(|mut system| {
                let reading = sample(&mut system, warmup, plan.times)?;
                Ok((reading, system))
            });
            match sampled {
                Ok((reading, system)) => {
                    running[index] = Some(system);
                    figures.samples.push(case.unit.figure(&reading, plan.times));
                    if let Reading::Files { written, peak, .. } = reading {
                        figures.written = Some(written);
                        figures.peak = figures.peak.max(Some(peak));
                    }
                }
                Err(error) => {
                    figures.samples.clear();
                    figures.absent = Some(absent(error));
                }
            }
        }
    }

    if let Some(late) = figures.late() {
        writeln!(log, "{} {late}", figures.id)?;
        return Ok(figures);
    }
    for system in &figures.systems {
        if let Some(absent) = &system.absent {
            writeln!(log, "{}: {} {absent}", figures.id, system.id)?;
        }
    }
    Ok(figures)
}

fn sample(system: &mut Running, warmup: u64, times: u64) -> Result<Reading, BenchError> {
    if warmup > 0 {
        system.run(warmup)?;
    }
    system.run(times)
}

fn absent(error: BenchError) -> Absent {
    match error {
        BenchError::Missing(why) => Absent::Missing(why),
        error => Absent::Failed(error.to_string()),
    }
}
