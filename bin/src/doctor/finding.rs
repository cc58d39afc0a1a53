//! The parts of the report.

use super::machine::Machine;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// No problem.
    Fine,
    /// Less than optimal, but an engine works.
    Notice,
    /// An engine cannot start, or jobs will fail or be killed.
    Trouble,
}

/// A fact, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// A stable word for programs, such as `dev-shm` or `open-files`.
    pub subject: &'static str,
    /// How much the finding matters.
    pub level: Level,
    /// The fact with its numbers, in a few words.
    pub found: String,
    /// A sentence that says what the fact means for an engine.
    pub means: String,
    /// What to do about it; empty if there is nothing to do.
    pub advice: String,
}

impl Finding {
    /// Returns a finding of level [`Level::Fine`].
    pub(super) fn fine(
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

    /// Returns the same finding at another level, with advice.
    #[must_use]
    pub(super) fn at(mut self, level: Level, advice: impl Into<String>) -> Finding {
        self.level = level;
        self.advice = advice.into();
        self
    }
}

/// The facts, and the findings about them.
#[derive(Debug, Clone)]
pub(super) struct Report {
    /// The facts.
    pub machine: Machine,
    /// The findings, in reading order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Examines this machine. Takes milliseconds.
    pub(super) fn examine() -> Report {
        let machine = Machine::probe();
        let findings = machine.judge();
        Report { machine, findings }
    }

    /// Returns the most serious level of all findings.
    pub(super) fn worst(&self) -> Level {
        self.findings
            .iter()
            .map(|finding| finding.level)
            .max()
            .unwrap_or(Level::Fine)
    }
}
