//! What this machine, this container and this process's limits offer an engine, and what will hurt.
//!
//! [`examine`] looks at everything and judges it: each [`Finding`] says what was found, what it means, and what to do
//! about it. Nothing is changed, but for [`crate::arena::sweep`] where a program calls it. The command `arenite doctor` prints it.
//!
//! ```
//! use arenite::doctor::{self, Level};
//!
//! let report = doctor::examine();
//! for finding in report.findings.iter().filter(|finding| finding.level == Level::Trouble) {
//!     eprintln!("{}: {}", finding.subject, finding.found);
//! }
//! ```
//!
//! Facts and judgement are apart: [`Machine::look`] gathers, and [`Machine::judge`] only computes, so that a program (or
//! a test) can ask what it would say about another machine.

mod judge;
mod machine;
#[cfg(test)]
mod tests;

pub use machine::{Bounds, ContainerRoom, ContainerTasks, Feature, Machine, Need, Room};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Fine,
    /// Something is less than it could be; the engine knows how to live with it.
    Notice,
    /// Something will hurt: an engine cannot start, or jobs will fail or be killed.
    Trouble,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// A stable word for programs, such as `dev-shm` or `open-files`.
    pub subject: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What was found, with its numbers, in a few words.
    pub found: String,
    /// What that means for an engine: a sentence.
    pub means: String,
    /// What to do about it; empty where nothing has to be done.
    pub advice: String,
}

impl Finding {
    /// A finding that is as it should be.
    pub fn fine(
        subject: &'static str,
        found: impl Into<String>,
        means: impl Into<String>,
    ) -> Finding {
        Finding {
            subject,
            level: Level::Fine,
            found: found.into(),
            means: means.into(),
            advice: String::new(),
        }
    }

    /// The same with another level, and what to do.
    #[must_use]
    pub fn at(mut self, level: Level, advice: impl Into<String>) -> Finding {
        self.level = level;
        self.advice = advice.into();
        self
    }
}

/// What [`examine`] answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The facts.
    pub machine: Machine,
    /// What they mean, in the order in which one would read them.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The gravest level among the findings.
    pub fn worst(&self) -> Level {
        self.findings
            .iter()
            .map(|finding| finding.level)
            .max()
            .unwrap_or(Level::Fine)
    }
}

/// Looks at this machine and judges what it sees. Takes milliseconds.
pub fn examine() -> Report {
    let machine = Machine::look();
    let findings = machine.judge();
    Report { machine, findings }
}
