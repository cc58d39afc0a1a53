//! Queues lines of workers and passes them to the sink.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::events;
use super::log_line::{LogLevel, LogLine, LogSource};
use crate::sync::catch_panic;
use crate::sys::process::start_thread;

/// The receiver of the lines.
#[derive(Clone)]
pub(crate) enum Sink {
    /// Writes each line to stderr.
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
        // Subscribers are foreign code, like the sink below.
        let has_subscriber = catch_panic(|| events::emit(line));
        match self {
            // The subscriber has taken the line.
            Self::Stderr if has_subscriber == Some(true) => {}
            Self::Stderr => {
                // One write call per line. A closed stderr is ignored.
                let _ = std::io::stderr()
                    .lock()
                    .write_all(format!("{line}\n").as_bytes());
            }
            Self::Call(call) => catch_panic(|| call(line)).unwrap_or_default(),
        }
    }
}

/// The maximum number of lines that wait for the sink.
const LINES: usize = 10_000;
/// The maximum total size of the waiting lines in bytes.
const BYTES: usize = 1 << 20;
/// How long a thread that flushes the queue waits for one call of the sink.
const SINK_TIMEOUT: Duration = Duration::from_secs(2);

/// A bounded queue of lines, and the thread that passes them to the sink. The first line starts the thread, so an
/// engine whose workers print nothing has no such thread.
#[derive(Debug)]
pub(crate) struct Logger {
    shared: Arc<SharedQueue>,
}

#[derive(Debug)]
struct SharedQueue {
    queue: Mutex<Queue>,
    changed: Condvar,
    sink: Sink,
    /// Number of calls of the sink that have returned.
    calls_returned: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// Number of lines that did not fit.
    dropped: u64,
    /// The last line that did not fit.
    example: Option<LogLine>,
    thread: Option<ThreadId>,
    /// The number of batches of waiting lines that the thread has taken.
    taken: u64,
    /// The number of batches whose last line the sink has taken.
    handed: u64,
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

    /// Takes all waiting lines, and a notice about dropped ones.
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
                    "{dropped} lines of workers dropped: they arrive faster than the sink takes them"
                ),
                ..example
            });
        }
        lines
    }
}

impl Logger {
    pub(in crate::supervisor) fn new(sink: Sink) -> Self {
        Self {
            shared: Arc::new(SharedQueue {
                queue: Mutex::default(),
                changed: Condvar::new(),
                sink,
                calls_returned: AtomicU64::new(0),
            }),
        }
    }

    /// Queues lines for the sink. Does not wait for it.
    pub(in crate::supervisor) fn push(&self, lines: impl IntoIterator<Item = LogLine>) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_none() {
            return;
        }
        let mut queue = self.shared.lock();
        if queue.ended {
            return;
        }
        lines.for_each(|line| queue.push(line));
        self.start_thread(&mut queue);
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Starts the thread if lines wait for it. If that fails, they wait for the next attempt; lines beyond the limit
    /// are dropped.
    fn start_thread(&self, queue: &mut Queue) {
        if queue.thread.is_some() || queue.lines.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let builder = thread::Builder::new().name("arenite-log".into());
        if let Ok(handle) = start_thread(builder, move || shared.run()) {
            queue.thread = Some(handle.thread().id());
        }
    }

    /// Closes the queue, and waits for the sink as [`flush`](Logger::flush) does.
    pub(crate) fn close(&self) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        self.start_thread(&mut queue);
        self.shared.changed.notify_all();
        self.wait_until(queue, |queue| queue.ended);
    }

    /// Waits until the sink has taken the lines that wait now, however long all calls take together. Stops waiting if a
    /// single call takes too long. Returns at once on the sink's own thread, which takes the lines afterwards.
    pub(crate) fn flush(&self) {
        let mut queue = self.shared.lock();
        self.start_thread(&mut queue);
        let last = queue.taken + u64::from(!queue.lines.is_empty());
        self.wait_until(queue, |queue| queue.handed >= last);
    }

    fn wait_until(&self, mut queue: MutexGuard<'_, Queue>, is_over: impl Fn(&Queue) -> bool) {
        if queue.thread.is_none_or(|own| own == thread::current().id()) {
            return;
        }
        // Relaxed: only a change of the value matters.
        let taken = || self.shared.calls_returned.load(Ordering::Relaxed);
        loop {
            let before = taken();
            let waited = self
                .shared
                .changed
                .wait_timeout_while(queue, SINK_TIMEOUT, |queue| !is_over(queue));
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            if is_over(&queue) || taken() == before {
                return;
            }
        }
    }
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No operation on the queue leaves it half changed by a panic.
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
            queue.taken += 1;
            drop(queue);
            for line in lines {
                self.sink.take(&line);
                // Relaxed: see `wait_until`.
                self.calls_returned.fetch_add(1, Ordering::Relaxed);
            }
            queue = self.lock();
            queue.handed += 1;
            self.changed.notify_all();
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
    fn lines_have_this_format() {
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
            assert_ne!(line.text, "13", "the sink panics for one line");
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
    fn targets_count_toward_the_limit() {
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

    /// Returns a sink that reports each call, and does not return until the returned sender is dropped.
    fn blocked_sink() -> (Logger, Receiver<String>, SyncSender<()>) {
        let (enter, entered) = channel();
        let (release, released) = sync_channel::<()>(0);
        let released = Mutex::new(released);
        let logger = Logger::new(Sink::Call(Arc::new(move |line: &LogLine| {
            enter.send(line.text.clone()).unwrap();
            let _ = released.lock().unwrap().recv();
        })));
        (logger, entered, release)
    }

    /// The sink is released only after `close` has returned.
    #[test]
    fn close_gives_up_on_a_blocked_sink() {
        let (logger, entered, release) = blocked_sink();
        logger.push([line("first"), line("second")]);
        assert_eq!(entered.recv().unwrap(), "first");
        let shared = Arc::clone(&logger.shared);
        let (end, ended) = channel();
        thread::spawn(move || {
            logger.close();
            let _ = end.send(());
        });
        ended
            .recv_timeout(30 * SINK_TIMEOUT)
            .expect("close gives up after a while");
        assert!(!shared.lock().ended, "the log thread is in that call");
        assert!(entered.try_recv().is_err(), "the second line waits");
        // The sink still gets the line if it returns later.
        drop(release);
        assert_eq!(entered.recv().unwrap(), "second");
    }

    #[test]
    fn a_blocked_sink_costs_only_lines() {
        let (logger, entered, release) = blocked_sink();
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
        let written: Vec<String> = entered.try_iter().collect();
        assert_eq!(written.len() as u64, waiting + 1);
        let dropped = format!("{} lines of workers dropped", 100_000 - waiting);
        assert!(
            written.last().unwrap().starts_with(&dropped),
            "{:?}",
            written.last()
        );
    }
}
