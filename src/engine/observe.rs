//! Watching an engine at work: how far it is, and a record of what happened when.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inlined::Inlined;
use super::{Builder, Engine};
use crate::supervisor::Progress;
use crate::sys::debug_as_text;
use crate::trace::{ATTEMPTS, Plan, Traced, Tracer};

/// What an engine writes about its jobs and workers: [`Builder::trace`].
///
/// - [`Trace::to`]: a file of events for a trace viewer, in the JSON format of Chrome, which <https://ui.perfetto.dev> and
///   `chrome://tracing` open. A row for each lane of each worker with what it ran and when it waited for memory; the time that
///   jobs waited apart from that; arrows from the jobs of a graph, and from spawned ones, to those that took their values; starts and deaths of workers; failures with
///   their cause.
/// - [`Trace::report`]: a page for a browser, in one file that loads nothing: a picture of all lanes over time, a table of
///   kernels with quantiles, a list of failures.
///
/// Times of kernels are taken in the workers. Memory is bounded however long the engine runs: events that come faster
/// than they can be written are dropped and counted, as are those beyond [`Trace::attempts`].
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
/// // Dropping the engine does so too; here an error is heard of.
/// let written = engine.write_trace()?.expect("it has a trace");
/// assert_eq!((written.attempts, written.dropped), (100, 0));
/// assert!(std::fs::read_to_string(&events)?.contains("halve"));
/// assert!(std::fs::read_to_string(&page)?.starts_with("<!doctype html>"));
/// # drop(engine);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "give it to `Builder::trace`"]
pub struct Trace {
    plan: Plan,
}

impl Trace {
    /// Events into this file. It is made when the engine is built, and brought up to date every twentieth of a second in
    /// which something happens; in between it is valid JSON. If the program is killed, at most the last line is cut. Since it
    /// is written over, a pipe or a terminal is refused.
    pub fn to(events: impl AsRef<Path>) -> Self {
        Self {
            plan: Plan {
                events: Some(events.as_ref().to_owned()),
                report: None,
                attempts: ATTEMPTS,
            },
        }
    }

    /// A report, and no events.
    ///
    /// ```
    /// use arenite::{Engine, Trace};
    ///
    /// let builder = Engine::builder().trace(Trace::only_report("run.html"));
    /// ```
    pub fn only_report(page: impl AsRef<Path>) -> Self {
        Self {
            plan: Plan {
                events: None,
                report: Some(page.as_ref().to_owned()),
                attempts: ATTEMPTS,
            },
        }
    }

    /// A report as well, written when the engine ends and by [`Engine::write_trace`], into a file of its own. What is no file,
    /// such as a pipe, gets one page, from whichever of the two comes first; a named pipe needs its reader when the engine is
    /// built.
    pub fn report(mut self, page: impl AsRef<Path>) -> Self {
        self.plan.report = Some(page.as_ref().to_owned());
        self
    }

    /// Most attempts of jobs in the file of events, about half a kilobyte each; a million by default. Of everything else
    /// (starts and ends of workers, waits for memory, arrows) it takes as many together. The report counts all.
    pub fn attempts(mut self, attempts: u64) -> Self {
        self.plan.attempts = attempts;
        self
    }

    pub(super) fn plan(self) -> Plan {
        self.plan
    }
}

/// A file of a trace cannot be written.
#[non_exhaustive]
pub struct TraceError {
    /// The file.
    pub path: PathBuf,
    /// Why.
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
    /// Writes down what happens when: see [`Trace`]. By default nothing is, and nothing is paid for it.
    ///
    /// With [`inline`](Builder::inline) rows are the threads that call; if a file cannot be made, [`Engine::write_trace`] says
    /// so.
    pub fn trace(mut self, trace: Trace) -> Self {
        self.trace = Some(trace.plan());
        self
    }
}

impl Engine {
    /// How far the engine is: a cheap snapshot, for a progress bar on another thread.
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
    /// An inline engine counts the jobs that it runs, and no bytes.
    #[doc(alias = "tqdm")]
    pub fn progress(&self) -> Progress {
        match self.shared() {
            Some(shared) => shared.progress(),
            None => self
                .inlined()
                .map_or_else(Progress::default, |engine| engine.progress()),
        }
    }

    fn inlined(&self) -> Option<Arc<Inlined>> {
        self.seeds.inlined.as_ref()?.books()
    }

    /// Brings the files of [`Builder::trace`] up to date, the report included; `None` if there is no trace. The end of the
    /// engine does so too, but cannot say what goes wrong.
    ///
    /// # Errors
    /// [`TraceError`]: a file could not be written, now or before. After an error of the file of events no more are
    /// written.
    pub fn write_trace(&self) -> Result<Option<Traced>, TraceError> {
        let flush = |tracer: &Tracer| {
            tracer
                .flush()
                .map_err(|(path, error)| TraceError { path, error })
        };
        if let Some(shared) = self.shared() {
            return shared.tracer().map(|tracer| flush(&tracer)).transpose();
        }
        let Some(engine) = self.inlined() else {
            return Ok(None);
        };
        let tracer = engine.tracer().transpose()?;
        tracer.map(flush).transpose()
    }
}
