//! Sampling: all systems of a case are started, then take turns until each has its samples; in some cases they are started anew for
//! each.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use arenite_bench::BenchError;
use arenite_bench::cases::{Case, Reading, Running, Setup};

use super::figures::{Absent, CaseFigures, SystemFigures};

/// What the command line says about how much to sample.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Samples of each system.
    pub runs: Option<u32>,
    /// Untimed operations in front of each sample.
    pub warmup: Option<u64>,
}

/// Samples in a quick run, at most.
const QUICK_RUNS: u32 = 3;
/// A quick run begins no further round of samples of a case that has taken longer, so that each case has its turn.
const QUICK_TIME: Duration = Duration::from_secs(1);
/// A quick run begins nothing more after this time, whatever single rounds take on a slow machine.
const QUICK_BUDGET: Duration = Duration::from_secs(55);

/// The time in which a run may begin something.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    began: Instant,
    limit: Option<Duration>,
}

impl Budget {
    /// From now on, as long as is asked for; a quick run has its own limit, unless it was told how much to sample.
    pub fn new(asked: Option<Duration>, quick: bool, amount: Amount) -> Self {
        let own = (quick && amount.runs.is_none()).then_some(QUICK_BUDGET);
        Self {
            began: Instant::now(),
            limit: asked.or(own),
        }
    }

    /// How long it was, once it is used up.
    fn used_up(&self) -> Option<Absent> {
        let limit = self.limit.filter(|limit| self.began.elapsed() >= *limit);
        limit.map(Absent::Late)
    }
}

/// Measures one case, as far as there is time. Whatever a system cannot do is noted with it and reported to `log`.
///
/// # Errors
/// Only those of writing to `log`.
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
    let patience = (setup.quick && amount.runs.is_none()).then_some(QUICK_TIME);
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
            // Another one begins each time, so that nobody always follows the same neighbour.
            let index = (run + turn) % count;
            let Some(system) = running[index].take() else {
                continue;
            };
            let seen = &mut figures.systems[index];
            if let Some(late) = budget.used_up() {
                seen.absent = seen.samples.is_empty().then_some(late);
                continue;
            }
            let started = if run > 0 && case.restarts {
                // It ends before the next one begins: there is room for one of each.
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
                    seen.samples.push(case.unit.figure(&reading, plan.times));
                    if let Reading::Files { written, peak, .. } = reading {
                        seen.written = Some(written);
                        seen.peak = seen.peak.max(Some(peak));
                    }
                }
                Err(error) => {
                    seen.samples.clear();
                    seen.absent = Some(absent(error));
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
