//! Cancelling a scope from another thread.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::supervisor::{Group, Supervisor};
use crate::sync::lock;

/// Cancels a [`Scope`](super::Scope) from another thread, such as a timer or a Ctrl-C handler. See
/// [`Scope::canceller`](super::Scope::canceller).
///
/// It may outlive its scope; then it has no effect.
#[derive(Clone)]
pub struct Canceller {
    inner: Arc<Inner>,
}

struct Inner {
    /// Whether the scope was cancelled by a call, not by a failure.
    asked: AtomicBool,
    /// The group of the scope's jobs. `None` in an inline engine, and when the scope has ended: then another scope may
    /// get the same number.
    jobs: Mutex<Option<(Arc<Supervisor>, Group)>>,
}

impl Canceller {
    pub(super) fn new(jobs: Option<(Arc<Supervisor>, Group)>) -> Self {
        Self {
            inner: Arc::new(Inner {
                asked: AtomicBool::new(false),
                jobs: Mutex::new(jobs),
            }),
        }
    }

    /// Cancels the scope, like [`Scope::cancel`](super::Scope::cancel). Does nothing if the scope has ended.
    pub fn cancel(&self) {
        // Release: "cancelled by a call", pairs with `was_asked`, which reads it after it has found the group
        // cancelled.
        if self.inner.asked.swap(true, Ordering::Release) {
            // This may be a waker that runs inside the first call, which holds the lock.
            return;
        }
        // The lock is held until the group is cancelled: otherwise the scope could end, and another group could get its
        // number.
        if let Some((shared, group)) = &*lock(&self.inner.jobs) {
            shared.cancel_group(*group);
        }
    }

    /// Returns true if [`cancel`](Canceller::cancel) was called.
    pub(super) fn was_asked(&self) -> bool {
        // Acquire: pairs with `cancel`.
        self.inner.asked.load(Ordering::Acquire)
    }

    /// Makes the canceller ineffective, because the scope has ended.
    pub(super) fn end(&self) {
        if let Some((shared, group)) = lock(&self.inner.jobs).take() {
            shared.end_group(group);
        }
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller")
            .field("asked", &self.was_asked())
            .finish_non_exhaustive()
    }
}
