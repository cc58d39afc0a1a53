//! Observing an engine: its progress, and a [`Trace`] of what happened when.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Builder, Engine};
use crate::supervisor::Progress;
use crate::sys::debug_as_text;
use crate::trace::{DEFAULT_ATTEMPTS, TraceConfig, Traced, Tracer};

/// Where an engine records its jobs and workers: see [`Builder::trace`].
///
/// - [`Trace::to`] writes a file of events in Chrome's JSON format, for <https://ui.perfetto.dev> or
///   `chrome://tracing`: one row for each lane of each worker with the jobs that it ran and the times it waited for
///   memory; the time that jobs were queued; arrows to jobs that take the value of another one, and from spawned jobs
///   to the jobs that took their values; starts and deaths of workers; failures with their causes.
/// - [`Trace::report`] writes a self-contained HTML page: all lanes over time, a table of kernels with quantiles, a
///   list of failures.
///
/// Kernels are timed in the workers. Memory use is bounded: events that come faster than they can be written, and
/// attempts beyond [`Trace::attempts`], are dropped and counted.
///
/// ```standalone_crate
/// use arenite::{Engine, Trace};
///
/// fn halve(n: u64) -> u64 {
///     n / 2
/// }
///
/// arenite::init();
/// let folder = std::env::temp_dir().join(format!("arenite-trace-{}", std::process::id()));
/// std::fs::create_dir_all(&folder)?;
/// let (events, page) = (folder.join("run.json"), folder.join("run.html"));
/// let engine = Engine::builder()
///     .workers(2)
///     .trace(Trace::to(&events).report(&page))
///     .build()?;
/// for half in engine.map(halve, (0..100).map(|n| (n,))) {
///     half?;
/// }
/// // Dropping the engine writes them too, but cannot report an error.
/// let written = engine.write_trace()?.expect("it has a trace");
/// assert_eq!((written.attempts, written.dropped), (100, 0));
/// assert!(std::fs::read_to_string(&events)?.contains("halve"));
/// assert!(std::fs::read_to_string(&page)?.starts_with("<!doctype html>"));
/// # drop(engine);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "pass it to `Builder::trace`"]
pub struct Trace {
    config: TraceConfig,
}

impl Trace {
    /// Writes events to this file.
    ///
    /// The file is created when the engine is built and updated up to 20 times per second; after each update it is
    /// valid JSON. If the program is killed, at most the last line is incomplete. Pipes and terminals are rejected,
    /// because parts of the file are overwritten.
    pub fn to(events: impl AsRef<Path>) -> Self {
        Self {
            config: TraceConfig {
                events: Some(events.as_ref().to_owned()),
                report: None,
                attempts: DEFAULT_ATTEMPTS,
            },
        }
    }

    /// Writes a report and no events.
    ///
    /// ```
    /// use arenite::{Engine, Trace};
    ///
    /// let builder = Engine::builder().trace(Trace::only_report("run.html"));
    /// ```
    pub fn only_report(page: impl AsRef<Path>) -> Self {
        Self {
            config: TraceConfig {
                events: None,
                report: Some(page.as_ref().to_owned()),
                attempts: DEFAULT_ATTEMPTS,
            },
        }
    }

    /// Writes a report as well, to a file of its own, when the engine ends and when [`Engine::write_trace`] is called.
    ///
    /// A pipe receives only the first report; a named pipe must have a reader when the engine is built.
    pub fn report(mut self, page: impl AsRef<Path>) -> Self {
        self.config.report = Some(page.as_ref().to_owned());
        self
    }

    /// Limits the number of attempts of jobs in the file of events, about 0.5 KB each. The default is one million. All
    /// other events (starts and ends of workers, waits for memory, arrows) together have the same limit. The report
    /// counts all attempts and events.
    pub fn attempts(mut self, attempts: u64) -> Self {
        self.config.attempts = attempts;
        self
    }

    pub(super) fn config(self) -> TraceConfig {
        self.config
    }
}

/// A file of a trace cannot be written.
#[non_exhaustive]
pub struct TraceError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub error: std::io::Error,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot write the trace to {}: {}",
            self.path.display(),
            self.error
        )
    }
}

impl std::error::Error for TraceError {}

debug_as_text!(TraceError);

impl Builder {
    /// Records jobs and workers: see [`Trace`]. By default nothing is recorded, which has no cost.
    ///
    /// With [`inline`](Builder::inline), each row is a calling thread; if a file cannot be created,
    /// [`Engine::write_trace`] returns the error.
    pub fn trace(mut self, trace: Trace) -> Self {
        self.trace = Some(trace.config());
        self
    }
}

impl Engine {
    /// Returns the engine's progress: a cheap snapshot, for example for a progress bar on another thread.
    ///
    /// ```standalone_crate
    /// use std::sync::mpsc::{RecvTimeoutError, channel};
    /// use std::time::Duration;
    ///
    /// use arenite::Engine;
    ///
    /// fn half(n: u64) -> u64 {
    ///     n / 2
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(2).build()?;
    /// let total = 1000;
    /// std::thread::scope(|threads| -> Result<(), arenite::JobError> {
    ///     let (work_is_over, over) = channel::<()>();
    ///     let engine = &engine;
    ///     threads.spawn(move || {
    ///         // With indicatif: `bar = ProgressBar::new(total)`, and `bar.set_position(…)` and `bar.set_message(…)`
    ///         // in the loop.
    ///         while over.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
    ///             let progress = engine.progress();
    ///             let (ended, rate) = (progress.ended(), progress.rate);
    ///             eprintln!("{ended} of {total}, {rate:.0} a second, {} failed", progress.failed);
    ///         }
    ///     });
    ///     for half in engine.map(half, (0..total).map(|n| (n,))) {
    ///         half?;
    ///     }
    ///     drop(work_is_over);
    ///     Ok(())
    /// })?;
    /// let progress = engine.progress();
    /// assert_eq!((progress.submitted, progress.done, progress.left()), (1000, 1000, 0));
    /// assert_eq!((progress.kernels[0].calls, progress.kernels[0].failures), (1000, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// An inline engine counts its jobs, but no bytes.
    #[doc(alias = "tqdm")]
    pub fn progress(&self) -> Progress {
        match self.supervisor() {
            Some(shared) => shared.progress(),
            None => self
                .seeds
                .inlined
                .as_ref()
                .map_or_else(Progress::default, |engine| engine.progress()),
        }
    }

    /// Updates the files of [`Builder::trace`], including the report. Returns `None` if there is no trace. The end of
    /// the engine updates them too, but cannot report errors.
    ///
    /// # Errors
    /// [`TraceError`]: a file could not be written, now or earlier. After an error in the file of events, no more
    /// events are written.
    pub fn write_trace(&self) -> Result<Option<Traced>, TraceError> {
        let flush = |tracer: &Tracer| {
            tracer
                .flush()
                .map_err(|(path, error)| TraceError { path, error })
        };
        if let Some(shared) = self.supervisor() {
            return shared.tracer().map(|tracer| flush(&tracer)).transpose();
        }
        let Some(engine) = &self.seeds.inlined else {
            return Ok(None);
        };
        let tracer = engine.tracer().transpose()?;
        tracer.map(flush).transpose()
    }
}
