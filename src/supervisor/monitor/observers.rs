//! Observers: processes of this user that ask for the state of the engine, such as `arenite top`. The protocol is in
//! the README of the supervisor.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

use super::{Monitor, OBSERVERS};
use crate::supervisor::shared::Supervisor;
use crate::sys::event::Poller;
use crate::sys::listener::Listener;
use crate::trace::{quoted, short};

/// The version of the answer.
const VERSION: u32 = 1;
/// Max number of workers and of kernels in an answer, and max length of a name in characters: the answer fits the
/// smallest buffer of a socket that Linux has by default.
const MAX_WORKERS: usize = 32;
const MAX_KERNELS: usize = 20;
const MAX_NAME: usize = 200;
/// Max number of connections that are answered in one pass of the monitor. All get the same text.
const MAX_ANSWERS: usize = 16;
/// The number of names that are tried. A name is taken if a process of another PID namespace has the same number.
const NAMES: usize = 16;

/// Opens the socket of an engine. `None` if this process can have none: then no observer finds the engine.
pub(super) fn listen(poller: &Poller) -> Option<Listener> {
    /// The number of the next socket of this process.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (user, pid) = (crate::sys::effective_user(), std::process::id());
    let mut tries = (0..NAMES).map(|_| {
        // Relaxed: only the number matters.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Listener::new(&format!("arenite-engine-{user}-{pid}-{number}"))
    });
    let is_taken = |error: &crate::sys::Error| error.errno() == Errno::EADDRINUSE;
    let listener = tries
        .find(|made| !made.as_ref().is_err_and(is_taken))?
        .ok()?;
    poller.add_edge(listener.as_fd(), OBSERVERS).ok()?;
    Some(listener)
}

impl Monitor {
    /// Answers the observers that have connected. If a connection cannot be accepted, as when descriptors are short, it
    /// waits until the next observer connects.
    pub(super) fn answer_observers(&mut self) {
        let Some(listener) = &mut self.observers else {
            return;
        };
        let mut text = None;
        for _ in 0..MAX_ANSWERS {
            let state = || text.get_or_insert_with(|| observed(&self.shared)).clone();
            match listener.answer(state) {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        }
        // More may wait: they are reported again after the next pass.
        let again = self.poller.remove(listener.as_fd());
        if again
            .and_then(|()| self.poller.add_edge(listener.as_fd(), OBSERVERS))
            .is_err()
        {
            self.observers = None;
        }
    }
}

/// Returns the answer: the engine's state as a line of JSON.
fn observed(shared: &Supervisor) -> String {
    let stats = shared.stats();
    let counts = shared.counts();
    let mut text = format!(
        "{{\"version\":{VERSION},\"pid\":{},\"name\":{},\"sandboxed\":{},\"elapsed\":{:.3},\
         \"submitted\":{},\"queued\":{},\"waiting\":{},\"limited\":{},\"ahead\":{},\"running\":{},\
         \"done\":{},\"failed\":{},\"cancelled\":{},\"memory_short\":{},\"start_failure\":{},\
         \"arena\":{{\"used\":{},\"capacity\":{}}},\"worker_count\":{},\"restarts\":{},\"workers\":[",
        std::process::id(),
        name(&shared.settings.label),
        shared.is_sandboxed(),
        shared.age().as_secs_f64(),
        counts.submitted,
        counts.queued,
        counts.waiting,
        counts.limited,
        counts.ahead,
        counts.running,
        counts.done,
        counts.failed,
        counts.cancelled,
        stats.memory_short,
        stats
            .start_failure
            .as_deref()
            .map_or_else(|| "null".to_owned(), name),
        stats.arena.in_use,
        stats.arena.capacity,
        stats.workers.len(),
        stats.restarts(),
    );
    let mut between = "";
    for worker in stats.workers.iter().take(MAX_WORKERS) {
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "{between}{{\"pid\":{},\"ready\":{},\"spare\":{},\"restarts\":{},\"jobs\":{},\"open\":{}}}",
            worker.pid, worker.ready, worker.spare, worker.restarts, worker.jobs, worker.open,
        );
        between = ",";
    }
    text.push_str("],\"kernels\":[");
    let mut kernels = counts.kernels;
    kernels.sort_by_key(|kernel| Reverse((kernel.running, kernel.total)));
    between = "";
    for kernel in kernels.iter().take(MAX_KERNELS) {
        let _ = write!(
            text,
            "{between}{{\"name\":{},\"running\":{},\"calls\":{},\"failures\":{},\"seconds\":{:.6}}}",
            name(&short(kernel.name)),
            kernel.running,
            kernel.calls,
            kernel.failures,
            kernel.total.as_secs_f64(),
        );
        between = ",";
    }
    text.push_str("]}\n");
    text
}

/// Returns a name, or its beginning, as a JSON string.
fn name(text: &str) -> String {
    match text.char_indices().nth(MAX_NAME) {
        Some((end, _)) => quoted(&format!("{}…", &text[..end])),
        None => quoted(text),
    }
}
