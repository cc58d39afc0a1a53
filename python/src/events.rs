//! What threads of the engine report to Python: jobs that have ended, and lines that tasks have printed.
//!
//! They push to one queue and never wait for the interpreter. One Python thread takes everything that has arrived.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::time::Duration;

use arenite::engine::LogLine;
use pyo3::prelude::*;

use crate::process::generation;

/// One for this process, and others for children that `os.fork()` makes: in a child, a thread that does not exist there
/// may hold the lock of its parent's.
static QUEUES: [Queue; 8] = [const { Queue::new() }; 8];

struct Queue {
    events: Mutex<Events>,
    arrived: Condvar,
}

impl Queue {
    const fn new() -> Self {
        Self {
            events: Mutex::new(Events {
                ended: Vec::new(),
                lines: Vec::new(),
            }),
            arrived: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Events {
    /// Tokens of tasks that have ended.
    ended: Vec<u64>,
    /// With the number of the output of their engine.
    lines: Vec<(u64, LogLine)>,
}

fn queue() -> &'static Queue {
    &QUEUES[generation() as usize % QUEUES.len()]
}

/// Reports a token: of a task that has ended, or of another event that Python knows.
pub fn push_token(token: u64) {
    let queue = queue();
    queue.lock().ended.push(token);
    queue.arrived.notify_one();
}

/// Reports a line of output.
pub fn push_line(output: u64, line: &LogLine) {
    let queue = queue();
    queue.lock().lines.push((output, line.clone()));
    queue.arrived.notify_one();
}

/// Wakes Python for a task.
pub struct TokenWaker(pub u64);

impl Wake for TokenWaker {
    fn wake(self: std::sync::Arc<Self>) {
        push_token(self.0);
    }
}

/// A line that a task printed: number of the output, source, worker, text.
type Line = (u64, String, u32, String);

/// Waits, at most `timeout` seconds, until something has happened. Returns the tokens of the tasks that have ended, and
/// the lines that were printed.
#[pyfunction]
pub fn next_events(py: Python<'_>, timeout: f64) -> (Vec<u64>, Vec<Line>) {
    let (ended, lines) = py.detach(|| {
        let is_empty = |events: &mut Events| events.ended.is_empty() && events.lines.is_empty();
        let limit = Duration::try_from_secs_f64(timeout).unwrap_or(Duration::ZERO);
        let queue = queue();
        let waited = queue
            .arrived
            .wait_timeout_while(queue.lock(), limit, is_empty);
        let (mut events, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (
            std::mem::take(&mut events.ended),
            std::mem::take(&mut events.lines),
        )
    });
    let lines = lines
        .into_iter()
        .map(|(output, line)| (output, line.source.to_string(), line.worker, line.text));
    (ended, lines.collect())
}
