//! Faults at random moments, in runs of any length: short ones are tests, long ones are a soak.
//!
//! Each run has an engine of its own, takes its numbers from a seed, checks every answer against what one process
//! computes, and ends with the invariant. Figures are told; only a strict run fails on them.

pub mod bombs;
pub mod crashes;
pub mod deadlines;
pub mod scale;
pub mod stops;
pub mod storm;

use std::time::Duration;

pub use super::lab::Dice;

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub seed: u64,
    /// About how long.
    pub length: Duration,
    /// Figures are asserted: for a machine that has nothing else to do.
    pub strict: bool,
}

/// What a run saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Faults that were put in.
    pub faults: u64,
    /// Jobs that were answered.
    pub jobs: u64,
    /// Names and values; of several runs the worst is kept.
    pub figures: Vec<Figure>,
    /// Why it could do nothing here: what this machine lacks, or who runs it.
    pub skipped: Option<String>,
}

/// Something measured.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// More than this is a failure of a strict run.
    pub limit: f64,
}

impl Seen {
    /// Of a run that could do nothing here.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self {
            skipped: Some(why.into()),
            ..Self::default()
        }
    }

    /// Adds what another run saw.
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

    /// Notes a figure, and fails if the run is strict and it is too large.
    pub fn figure(&mut self, order: Order, figure: Figure) -> Result<(), String> {
        let too_large = figure.value > figure.limit;
        let text = format!(
            "{}: {:.3} {}, and at most {} was promised",
            figure.name, figure.value, figure.unit, figure.limit
        );
        self.figures.push(figure);
        if too_large && order.strict {
            return Err(text);
        }
        Ok(())
    }
}
