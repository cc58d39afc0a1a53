//! Events that threads of the engine report to Python: ended jobs, and lines that tasks have printed.
//!
//! These threads push to one queue and never wait for the interpreter. One Python thread empties the queue.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::time::Duration;

use arenite::engine::LogLine;
use pyo3::prelude::*;

use crate::process::generation;

/// The queue of this process, and queues for descendants made by `os.fork()`, which need their own: in a child, the
/// lock of the parent's queue may be held by a thread that does not exist there.
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
    /// Tokens of ended tasks.
    ended: Vec<u64>,
    /// Printed lines, each with the output number of its engine.
    lines: Vec<(u64, LogLine)>,
}

fn queue() -> &'static Queue {
    &QUEUES[generation() as usize % QUEUES.len()]
}

/// Reports the token of an ended task, or of another event to which Python code has given a token.
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

/// A waker that reports the token of a task.
pub struct TokenWaker(pub u64);

impl Wake for TokenWaker {
    fn wake(self: std::sync::Arc<Self>) {
        push_token(self.0);
    }
}

/// A line that a task has printed: output number, source, worker, text.
type Line = (u64, String, u32, String);

/// Waits until an event arrives, at most `timeout` seconds. Returns the tokens of ended tasks, and the printed lines.
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
