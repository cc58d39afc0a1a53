//! The figures of a run: samples, their medians, and the machine.

use std::fmt;
use std::time::Duration;

use arenite_bench::cases::{Goal, Unit};

use super::names;

/// The samples of one system in one case.
#[derive(Debug, Clone)]
pub struct SystemFigures {
    /// The id of the system in every output.
    pub id: &'static str,
    /// One figure per sample, in the unit of the case.
    pub samples: Vec<f64>,
    /// The number of bytes in the files written, if the case writes files.
    pub written: Option<u64>,
    /// Peak memory in bytes, if the case measures it.
    pub peak: Option<u64>,
    /// The reason, if there are no samples.
    pub absent: Option<Absent>,
}

/// The reason why a system was not measured.
#[derive(Debug, Clone)]
pub enum Absent {
    /// This machine lacks something that the system needs.
    Missing(String),
    /// The time budget of the run, given here, was used up.
    Late(Duration),
    /// The system failed.
    Failed(String),
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) => write!(f, "left out: {why}"),
            Self::Late(budget) => write!(f, "left out: no time was left of {budget:?}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

impl SystemFigures {
    /// Returns the median of the samples.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            n if n.is_multiple_of(2) => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
            _ => Some(sorted[middle]),
        }
    }

    /// Returns the smallest sample.
    pub fn min(&self) -> Option<f64> {
        self.samples.iter().copied().min_by(f64::total_cmp)
    }

    /// Returns the largest sample.
    pub fn max(&self) -> Option<f64> {
        self.samples.iter().copied().max_by(f64::total_cmp)
    }
}

/// The figures of a case.
#[derive(Debug, Clone)]
pub struct CaseFigures {
    /// The id of the case in every output.
    pub id: String,
    /// The description of the case.
    pub title: String,
    /// The unit of the figures.
    pub unit: Unit,
    /// The systems, the engine first.
    pub systems: Vec<SystemFigures>,
    /// The goals of the engine.
    pub goals: Vec<Goal>,
    /// Facts that a reader needs to compare the figures.
    pub notes: Vec<&'static str>,
}

impl CaseFigures {
    /// Returns the figures of a system.
    pub fn system(&self, id: &str) -> Option<&SystemFigures> {
        self.systems.iter().find(|system| system.id == id)
    }

    /// Returns the median of the engine's samples.
    pub fn ours(&self) -> Option<f64> {
        self.our_system()?.median()
    }

    /// Returns the number of samples of the engine.
    pub fn our_samples(&self) -> usize {
        self.our_system().map_or(0, |system| system.samples.len())
    }

    fn our_system(&self) -> Option<&SystemFigures> {
        self.systems.iter().find(|system| names::is_ours(system.id))
    }

    /// Returns the reason why nothing was measured, if the time budget was used up before the case began.
    pub fn late(&self) -> Option<&Absent> {
        let absent = self.systems.first()?.absent.as_ref();
        let late = |system: &SystemFigures| matches!(system.absent, Some(Absent::Late(_)));
        absent.filter(|_| self.systems.iter().all(late))
    }

    /// Returns whether a system failed. A system that needs something this machine lacks has not failed.
    pub fn has_failures(&self) -> bool {
        let failed = |system: &SystemFigures| matches!(system.absent, Some(Absent::Failed(_)));
        self.systems.iter().any(failed)
    }
}

/// The machine that was measured.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// The number of cores that this process may use.
    pub cores: usize,
    /// Total memory in bytes.
    pub memory: u64,
    /// Version of Linux.
    pub kernel: String,
}

impl Machine {
    /// Reads the description of this machine.
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let field = cpu
            .lines()
            .find(|line| line.starts_with("model name") || line.starts_with("Model"))
            .and_then(|line| line.split_once(':'));
        Self {
            processor: field.map_or_else(
                || std::env::consts::ARCH.to_owned(),
                |(_, name)| name.trim().to_owned(),
            ),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: meminfo("MemTotal").unwrap_or(0),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// Describes the machine in one line.
    pub fn describe(&self) -> String {
        format!(
            "arenite {}{} on {} cores ({}), {} GB memory, Linux {}",
            env!("CARGO_PKG_VERSION"),
            env!("ARENITE_COMMIT"),
            self.cores,
            self.processor,
            (self.memory as f64 / 1e9).round(),
            self.kernel
        )
    }
}

/// Reads a field of /proc/meminfo, in bytes.
fn meminfo(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| {
        line.strip_prefix(field)
            .is_some_and(|rest| rest.starts_with(':'))
    })?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    fn system(samples: &[f64]) -> SystemFigures {
        SystemFigures {
            id: "arenite",
            samples: samples.to_vec(),
            written: None,
            peak: None,
            absent: None,
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(system(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(system(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(system(&[]).median(), None);
        assert_eq!(system(&[3.0, 1.0]).min(), Some(1.0));
        assert_eq!(system(&[3.0, 1.0]).max(), Some(3.0));
    }

    #[test]
    fn memory_is_in_bytes() {
        let total = meminfo("MemTotal").unwrap();
        assert!(total > 1 << 26);
        assert!(meminfo("MemAvailable").unwrap() <= total);
        assert_eq!(meminfo("Mem"), None);
    }
}
