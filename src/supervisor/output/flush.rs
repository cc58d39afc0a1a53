//! Requests of any thread that the monitor reads what workers have printed so far.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Requests to read the pipes, and how many of them are done.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct FlushRequests {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    /// Requests made.
    made: u64,
    /// Requests that were made before the pipes were last read.
    done: u64,
    /// The monitor has ended: there is nothing more to read.
    has_ended: bool,
}

impl FlushRequests {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Each change is one step.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request, which `ring` reports to the monitor, and waits until it is done, but at most for `limit`.
    pub(in crate::supervisor) fn wait(&self, ring: impl FnOnce(), limit: Duration) {
        let mut counts = self.lock();
        if counts.has_ended {
            return;
        }
        counts.made += 1;
        let own = counts.made;
        // Under the lock: the monitor, which it wakes, finds the request.
        ring();
        let is_open = |counts: &mut Counts| counts.done < own && !counts.has_ended;
        let waited = self.changed.wait_timeout_while(counts, limit, is_open);
        drop(waited);
    }

    /// The number of requests made, if some are open. After the pipes were read it goes to
    /// [`done`](FlushRequests::done).
    pub(in crate::supervisor) fn open(&self) -> Option<u64> {
        let counts = self.lock();
        (counts.made > counts.done).then_some(counts.made)
    }

    /// The pipes were read after this number of requests was made.
    pub(in crate::supervisor) fn done(&self, made: u64) {
        self.lock().done = made;
        self.changed.notify_all();
    }

    /// The monitor ends: no request is open from now on.
    pub(in crate::supervisor) fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
    }
}
