//! A line of worker output.

use std::fmt;
use std::sync::Arc;

/// A line that a worker printed, or an event of its kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// The engine's label.
    pub label: Arc<str>,
    /// The worker, counted from 0.
    pub worker: u32,
    /// The number of the job that printed the line, as the worker reports it. `None` for lines printed between jobs.
    pub job: Option<u64>,
    /// The stream or the kind of the line.
    pub source: LogSource,
    /// The level of an event or notice; `None` for printed lines.
    pub level: Option<LogLevel>,
    /// The target of an event: its module, unless the event sets another.
    pub target: Option<String>,
    /// The line without its line end. Control characters and bytes that are not UTF-8 are escaped (`\u{1b}`, `\xff`). A
    /// line longer than 4096 bytes is truncated, with a mark.
    pub text: String,
}

/// The source of a [`LogLine`].
///
/// ```
/// use arenite::engine::LogSource;
///
/// let sources = [LogSource::Stdout, LogSource::Stderr, LogSource::Event, LogSource::Notice];
/// assert_eq!(sources.map(|source| source.to_string()), ["stdout", "stderr", "event", "notice"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogSource {
    /// The worker's standard output.
    Stdout,
    /// The worker's standard error.
    Stderr,
    /// An event of the `tracing` crate (feature `tracing`).
    Event,
    /// A notice of the engine that lines are missing.
    Notice,
}

/// The level of a [`LogLine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the usual log levels")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// Returns the level with this number, from 1 for errors to 5 for traces.
    pub(in crate::supervisor) fn of(number: u8) -> Option<Self> {
        let all = [
            Self::Error,
            Self::Warn,
            Self::Info,
            Self::Debug,
            Self::Trace,
        ];
        all.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl fmt::Display for LogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Event => "event",
            Self::Notice => "notice",
        })
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        })
    }
}

impl LogLine {
    /// Returns the memory that the line takes in the queue, in bytes.
    pub(in crate::supervisor) fn size(&self) -> usize {
        let target = self.target.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.text.len() + target
    }
}

/// Displays the line in the format of stderr: `label:0 job 7: text`.
impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.label, self.worker)?;
        if let Some(job) = self.job {
            write!(f, " job {job}")?;
        }
        if let Some(level) = self.level {
            write!(f, " {level}")?;
        }
        if let Some(target) = &self.target {
            write!(f, " {target}")?;
        }
        write!(f, ": {}", self.text)
    }
}
