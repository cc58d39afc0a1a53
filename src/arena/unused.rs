//! Returning memory that no block has held for a while: see "Memory without use" in README.md.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::Arena;
use super::budget::lock;
use super::layout::CHUNK;
use crate::sys::event::EventFd;

/// Whether there is memory to look at, and who does that.
#[derive(Debug, Default)]
pub(super) struct UnusedNote {
    is_set: AtomicBool,
    /// Signalled when the note is set.
    reader: OnceLock<Arc<EventFd>>,
}

impl UnusedNote {
    #[cold]
    fn set(&self) {
        // Relaxed: guards no memory. Whoever finds it set by another thread relies on that thread's signal.
        if !self.is_set.swap(true, Ordering::Relaxed)
            && let Some(reader) = self.reader.get()
        {
            // Fails only for a bad descriptor, and this one is open as long as `self`.
            let _ = reader.ring();
        }
    }
}

impl Arena {
    /// From now on signals `reader` when there is memory without use: see [`Arena::has_unused`].
    pub(crate) fn signal_unused(&self, reader: &Arc<EventFd>) {
        // An arena has one engine, which has one monitor.
        let _ = self.unused.reader.set(Arc::clone(reader));
    }

    /// Called when `in_use` bytes are left in blocks.
    #[inline]
    pub(super) fn note_unused(&self, in_use: u64) {
        if self.budget.committed().saturating_sub(in_use) >= CHUNK
            && !self.unused.is_set.load(Ordering::Relaxed)
        {
            self.unused.set();
        }
    }

    /// Whether at least a chunk is committed beyond what blocks hold, which [`Arena::return_unused`] may return.
    pub(crate) fn has_unused(&self) -> bool {
        self.unused.is_set.load(Ordering::Relaxed)
    }

    /// Returns to the system what no block has held since the call before: in each region the committed bytes beyond
    /// the most that were in use at one time since then. Returns whether another call may return more; otherwise the
    /// next release of a block sets the note again.
    pub(crate) fn return_unused(&self) -> bool {
        // First: a block that is released from here on sets it again.
        self.unused.is_set.store(false, Ordering::Relaxed);
        let mut may_return_more = false;
        for region in &self.regions {
            let (idle, kept_for_peak) = {
                let mut accounting = lock(&region.accounting);
                let in_use = accounting.in_use;
                let peak = std::mem::replace(&mut accounting.peak, in_use);
                (
                    accounting.committed().saturating_sub(peak),
                    peak.saturating_sub(in_use),
                )
            };
            if idle >= CHUNK {
                region.trim(false, idle, &self.budget);
            }
            may_return_more |= kept_for_peak >= CHUNK;
        }
        if may_return_more {
            self.unused.is_set.store(true, Ordering::Relaxed);
        }
        may_return_more
    }
}
