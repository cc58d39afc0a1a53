//! Faults at random moments, in runs of any length: short ones are tests, long ones are a soak.
//!
//! Each run has an engine of its own, takes its numbers from a seed, compares every result with that of one process, and ends
//! with the invariant. Figures are reported; only a strict run fails on them.

pub mod bombs;
pub mod crashes;
pub mod crowded;
pub mod deadlines;
pub mod scale;
pub mod stops;
pub mod storm;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use arenite::Job;

use super::errors::late;
pub use super::lab::Dice;
use super::lab::{Lab, wait_until};

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub seed: u64,
    /// Approximate duration.
    pub length: Duration,
    /// Whether figures are asserted, which needs an idle machine.
    pub strict: bool,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Injected faults.
    pub faults: u64,
    /// Jobs with a result or an error.
    pub jobs: u64,
    /// Figures; the worst of several runs.
    pub figures: Vec<Figure>,
    /// Why the run was skipped: what this machine or user lacks.
    pub skipped: Option<String>,
}

/// A measured value.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
}

impl Seen {
    /// The result of a skipped run.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self {
            skipped: Some(why.into()),
            ..Self::default()
        }
    }

    /// Adds the result of another run.
    pub fn add(&mut self, other: Self) {
        self.faults += other.faults;
        self.jobs += other.jobs;
        self.skipped = other.skipped.or(self.skipped.take());
        for figure in other.figures {
            match self.figures.iter_mut().find(|old| old.name == figure.name) {
                Some(old) => old.value = old.value.max(figure.value),
                None => self.figures.push(figure),
            }
        }
    }

    /// Records a figure. Fails if the run is strict and the figure is above this limit.
    pub fn figure(
        &mut self,
        order: Order,
        name: &'static str,
        (value, unit): (f64, &'static str),
        limit: f64,
    ) -> Result<(), String> {
        self.figures.push(Figure { name, value, unit });
        match value > limit && order.strict {
            true => Err(format!(
                "{name}: {value:.3} {unit}, more than the promised {limit}"
            )),
            false => Ok(()),
        }
    }
}

/// Spins for this time.
pub fn spin(nanos: u64) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_nanos(nanos) {
        std::hint::spin_loop();
    }
}

/// Returns whether a job was in time, which returns `right` within its limit or is ended at it.
pub fn in_time<T: Debug + PartialEq + Send + 'static>(
    job: Job<T>,
    right: &T,
    limit: Duration,
) -> Result<bool, String> {
    match job.wait() {
        Ok(value) if value == *right => Ok(true),
        Err(error) if *error.kind() == late(limit) => Ok(false),
        other => Err(format!("a job that returns {right:?} ends with {other:?}")),
    }
}

/// The death after the last result may still be in progress.
pub fn each_has_cost_a_worker(lab: &Lab, late: u64) {
    wait_until("every late job has cost a worker", || {
        lab.stats().restarts() == late
    });
}
