//! Lines of workers on their way to whoever wants them.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::events;
use crate::sys::process::start_thread;
use crate::worker::fence::drop_payload;

/// A line that a worker printed, or an event of its kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// The engine's label.
    pub label: Arc<str>,
    /// The worker, from 0.
    pub worker: u32,
    /// The number of the job that printed it, as the worker says; `None` for what is printed between jobs.
    pub job: Option<u64>,
    /// Where it comes from.
    pub source: LogSource,
    /// How important it is, where somebody said so: of events, and of notices.
    pub level: Option<LogLevel>,
    /// The target of an event: the module that it comes from, unless it says otherwise.
    pub target: Option<String>,
    /// The line, without its end. Control characters and bytes that are no text are spelled out
    /// (`\u{1b}`, `\xff`), and what is longer than 4096 bytes is cut, with a mark.
    pub text: String,
}

/// Where a [`LogLine`] comes from.
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
    /// The engine itself, about lines that are missing.
    Notice,
}

/// How important a [`LogLine`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the levels that every log has")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// By its number, from 1 for errors to 5 for traces.
    pub(super) fn of(number: u8) -> Option<Self> {
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
    /// What it takes while it waits, in bytes.
    pub(super) fn size(&self) -> usize {
        let target = self.target.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.text.len() + target
    }
}

/// `label:0 job 7: text`, as it is printed where nobody else takes it.
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

/// What takes the lines.
#[derive(Clone)]
pub(crate) enum Sink {
    /// One line each on stderr.
    Stderr,
    Call(Arc<dyn Fn(&LogLine) + Send + Sync>),
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stderr => "Stderr",
            Self::Call(_) => "Call(..)",
        })
    }
}

impl Sink {
    fn take(&self, line: &LogLine) {
        // Foreign code, like a call below.
        let again = fenced(|| events::emit(line));
        match self {
            // A subscriber has it.
            Self::Stderr if again == Some(true) => {}
            Self::Stderr => {
                // One write; that nobody reads is no reason to stop working.
                let _ = std::io::stderr()
                    .lock()
                    .write_all(format!("{line}\n").as_bytes());
            }
            Self::Call(call) => fenced(|| call(line)).unwrap_or_default(),
        }
    }
}

/// Calls foreign code. What its panic says, the panic hook has printed.
fn fenced<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(drop_payload)
        .ok()
}

/// Lines that may wait for the sink, and bytes of them.
const LINES: usize = 10_000;
const BYTES: usize = 1 << 20;
/// How long the end of an engine waits for a call of the sink that does not come back.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bounded queue of lines and the thread that hands them to the sink. The thread is started by the first
/// line, so an engine whose workers print nothing has none.
#[derive(Debug)]
pub(crate) struct Logger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    sink: Sink,
    /// Calls of the sink that have come back.
    taken: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// Lines for which there was no room, and one of them.
    dropped: u64,
    example: Option<LogLine>,
    thread: Option<ThreadId>,
    closing: bool,
    ended: bool,
}

impl Queue {
    fn push(&mut self, line: LogLine) {
        let size = line.size();
        if self.lines.len() >= LINES || self.bytes + size > BYTES {
            self.dropped += 1;
            self.example = Some(line);
            return;
        }
        self.bytes += size;
        self.lines.push_back(line);
    }

    /// All lines that wait, and what is to be said about those that do not.
    fn take(&mut self) -> VecDeque<LogLine> {
        let mut lines = std::mem::take(&mut self.lines);
        self.bytes = 0;
        let dropped = std::mem::take(&mut self.dropped);
        if let Some(example) = self.example.take() {
            lines.push_back(LogLine {
                job: None,
                source: LogSource::Notice,
                level: Some(LogLevel::Warn),
                target: None,
                text: format!(
                    "{dropped} lines of workers dropped: they come faster than they are taken"
                ),
                ..example
            });
        }
        lines
    }
}

impl Logger {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                changed: Condvar::new(),
                sink,
                taken: AtomicU64::new(0),
            }),
        }
    }

    /// Leaves lines for the sink; never waits for it.
    pub(super) fn push(&self, lines: impl IntoIterator<Item = LogLine>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_none() {
            return;
        }
        let mut queue = self.shared.lock();
        if queue.ended {
            return;
        }
        lines.for_each(|line| queue.push(line));
        if queue.thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder = thread::Builder::new().name("arenite-log".into());
            // Without a thread lines wait for the next try, and are dropped when they are too many.
            if let Ok(handle) = start_thread(builder, move || shared.run()) {
                queue.thread = Some(handle.thread().id());
            }
        }
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// No more lines come: returns when the sink has taken those that wait, however long all of them take. If a call does
    /// not come back, or this is the sink's own thread, they are left to it.
    pub(crate) fn close(&self) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        self.shared.changed.notify_all();
        if queue.thread.is_none_or(|own| own == thread::current().id()) {
            return;
        }
        // Relaxed: only whether it has changed.
        let taken = || self.shared.taken.load(Ordering::Relaxed);
        loop {
            let before = taken();
            let waited = self
                .shared
                .changed
                .wait_timeout_while(queue, PATIENCE, |queue| !queue.ended);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            if queue.ended || taken() == before {
                return;
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that is done with it can panic halfway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut queue = self.lock();
        loop {
            let lines = queue.take();
            if lines.is_empty() {
                if queue.closing {
                    queue.ended = true;
                    self.changed.notify_all();
                    return;
                }
                queue = self
                    .changed
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(queue);
            for line in lines {
                self.sink.take(&line);
                // Relaxed: see `close`.
                self.taken.fetch_add(1, Ordering::Relaxed);
            }
            queue = self.lock();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

    fn line(text: &str) -> LogLine {
        LogLine {
            label: "test".into(),
            worker: 3,
            job: Some(7),
            source: LogSource::Stderr,
            level: None,
            target: None,
            text: text.into(),
        }
    }

    #[test]
    fn lines_look_like_this() {
        assert_eq!(line("hello").to_string(), "test:3 job 7: hello");
        let event = LogLine {
            job: None,
            level: Some(LogLevel::Warn),
            target: Some("my::module".into()),
            ..line("careful")
        };
        assert_eq!(event.to_string(), "test:3 WARN my::module: careful");
    }

    #[test]
    fn lines_arrive_in_order_and_all_before_the_end() {
        let (sender, lines) = channel();
        let logger = Logger::new(Sink::Call(Arc::new(move |line: &LogLine| {
            assert_ne!(line.text, "13", "one of them panics");
            sender.send(line.text.clone()).unwrap();
        })));
        for n in 0..1000 {
            logger.push([line(&n.to_string())]);
        }
        logger.close();
        let arrived: Vec<_> = lines.try_iter().collect();
        let expected = (0..1000).filter(|&n| n != 13).map(|n: i32| n.to_string());
        assert_eq!(arrived, expected.collect::<Vec<_>>());
        logger.push([line("too late")]);
        assert!(lines.try_recv().is_err());
    }

    #[test]
    fn targets_count_as_well() {
        let mut queue = Queue::default();
        let event = LogLine {
            target: Some("t".repeat(1000)),
            ..line("")
        };
        for _ in 0..LINES {
            queue.push(event.clone());
        }
        assert_eq!(queue.lines.len() as u64 + queue.dropped, LINES as u64);
        assert!(queue.lines.len() <= BYTES / 1000, "{}", queue.lines.len());
    }

    /// A sink that says what it was called with, and does not come back from a call until what it waits for is dropped.
    fn held_up() -> (Logger, Receiver<String>, SyncSender<()>) {
        let (enter, entered) = channel();
        let (release, released) = sync_channel::<()>(0);
        let released = Mutex::new(released);
        let logger = Logger::new(Sink::Call(Arc::new(move |line: &LogLine| {
            enter.send(line.text.clone()).unwrap();
            let _ = released.lock().unwrap().recv();
        })));
        (logger, entered, release)
    }

    /// What the sink waits for comes when the end has been given up, and not before.
    #[test]
    fn the_end_does_not_wait_for_a_call_that_does_not_come_back() {
        let (logger, entered, release) = held_up();
        logger.push([line("first"), line("second")]);
        assert_eq!(entered.recv().unwrap(), "first");
        let shared = Arc::clone(&logger.shared);
        let (end, ended) = channel();
        thread::spawn(move || {
            logger.close();
            let _ = end.send(());
        });
        ended
            .recv_timeout(30 * PATIENCE)
            .expect("it is given up after a while");
        assert!(!shared.lock().ended, "its thread is in that call");
        assert!(entered.try_recv().is_err(), "the other one waits");
        // It has them all the same, if it comes back one day.
        drop(release);
        assert_eq!(entered.recv().unwrap(), "second");
    }

    #[test]
    fn a_sink_that_does_not_come_back_costs_lines_and_nothing_else() {
        let (logger, entered, release) = held_up();
        logger.push([line("first")]);
        assert_eq!(entered.recv().unwrap(), "first");
        let long = "x".repeat(4096);
        for _ in 0..100_000 {
            logger.push([line(&long)]);
        }
        let queue = logger.shared.lock();
        assert!(queue.bytes <= BYTES && queue.lines.len() < 300);
        let waiting = queue.lines.len() as u64;
        assert_eq!(queue.dropped + waiting, 100_000);
        drop(queue);
        drop(release);
        logger.close();
        let said: Vec<String> = entered.try_iter().collect();
        assert_eq!(said.len() as u64, waiting + 1);
        let dropped = format!("{} lines of workers dropped", 100_000 - waiting);
        assert!(
            said.last().unwrap().starts_with(&dropped),
            "{:?}",
            said.last()
        );
    }
}
