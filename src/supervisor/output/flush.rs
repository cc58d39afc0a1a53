//! Requests, from any thread, that the monitor reads all that workers have printed so far.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts requests to read the pipes, and how many of them were fulfilled.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct FlushRequests {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    /// Number of requests.
    made: u64,
    /// Number of requests that were made before the pipes were last read.
    done: u64,
    /// Whether the monitor has ended: then there is nothing more to read.
    has_ended: bool,
}

impl FlushRequests {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // A panic cannot leave the counts half changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request, which `ring` reports to the monitor, and waits until it is fulfilled, for at most `limit`.
    pub(in crate::supervisor) fn wait(&self, ring: impl FnOnce(), limit: Duration) {
        let mut counts = self.lock();
        if counts.has_ended {
            return;
        }
        counts.made += 1;
        let own = counts.made;
        // This rings under the lock, so that the monitor finds the request when it wakes.
        ring();
        let is_open = |counts: &mut Counts| counts.done < own && !counts.has_ended;
        let waited = self.changed.wait_timeout_while(counts, limit, is_open);
        drop(waited);
    }

    /// Returns the number of requests, if some are not fulfilled. The caller reads the pipes, then passes the number to
    /// [`done`](FlushRequests::done).
    pub(in crate::supervisor) fn open(&self) -> Option<u64> {
        let counts = self.lock();
        (counts.made > counts.done).then_some(counts.made)
    }

    /// Records that the pipes were read after this number of requests was made.
    pub(in crate::supervisor) fn done(&self, made: u64) {
        self.lock().done = made;
        self.changed.notify_all();
    }

    /// Fulfils all requests from now on: the monitor ends.
    pub(in crate::supervisor) fn end(&self) {
        self.lock().has_ended = true;
        self.changed.notify_all();
    }
}
