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

use std::time::Duration;

pub use super::lab::Dice;

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
    /// A strict run fails above this.
    pub limit: f64,
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

    /// Records a figure. Fails if the run is strict and the figure is above its limit.
    pub fn figure(&mut self, order: Order, figure: Figure) -> Result<(), String> {
        let too_large = figure.value > figure.limit;
        let text = format!(
            "{}: {:.3} {}, more than the promised {}",
            figure.name, figure.value, figure.unit, figure.limit
        );
        self.figures.push(figure);
        if too_large && order.strict {
            return Err(text);
        }
        Ok(())
    }
}
