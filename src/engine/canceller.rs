//! What cancels a scope from outside it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::supervisor::Supervisor;

/// Cancels a [`Scope`](super::Scope) from another thread: a timer, a handler of Ctrl-C, a page that was closed. See
/// [`Scope::canceller`](super::Scope::canceller).
///
/// It may outlive its scope, and does nothing then.
#[derive(Clone)]
pub struct Canceller {
    inner: Arc<Inner>,
}

struct Inner {
    /// Somebody has cancelled the scope, by its own method or by this.
    asked: AtomicBool,
    /// The group of its jobs, until it has ended: then the number is given to another one. An inline engine has none.
    jobs: Mutex<Option<(Arc<Supervisor>, u32)>>,
}

impl Canceller {
    pub(super) fn new(jobs: Option<(Arc<Supervisor>, u32)>) -> Self {
        Self {
            inner: Arc::new(Inner {
                asked: AtomicBool::new(false),
                jobs: Mutex::new(jobs),
            }),
        }
    }

    /// As [`Scope::cancel`](super::Scope::cancel). If the scope has ended, this does nothing.
    pub fn cancel(&self) {
        // Release: "not by a failure", pairs with `was_asked`, which looks after it has seen the group cancelled.
        if self.inner.asked.swap(true, Ordering::Release) {
            // By a waker that the first call calls, perhaps.
            return;
        }
        // Held until the group is cancelled, or the scope could end and its number be another's meanwhile.
        if let Some((shared, group)) = &*self.jobs() {
            shared.cancel_group(*group);
        }
    }

    /// Whether somebody has called [`cancel`](Canceller::cancel).
    pub(super) fn was_asked(&self) -> bool {
        // Acquire: pairs with `cancel`.
        self.inner.asked.load(Ordering::Acquire)
    }

    /// The scope has ended.
    pub(super) fn end(&self) {
        if let Some((shared, group)) = self.jobs().take() {
            shared.end_group(group);
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Option<(Arc<Supervisor>, u32)>> {
        // Whoever panicked with it has changed nothing.
        self.inner
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller")
            .field("asked", &self.was_asked())
            .finish_non_exhaustive()
    }
}
