//! Returning memory that no block has occupied for a while: see "Memory without use" in README.md.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::Arena;
use super::layout::CHUNK;
use crate::sync::lock;
use crate::sys::event::EventFd;

/// Whether [`Arena::return_unused`] may have something to return, and how its caller is notified.
#[derive(Debug, Default)]
pub(super) struct UnusedNote {
    is_set: AtomicBool,
    /// Signalled when `is_set` becomes true.
    reader: OnceLock<Arc<EventFd>>,
}

impl UnusedNote {
    #[cold]
    fn set(&self) {
        // Relaxed: guards no memory. If another thread has set it, that thread signals the reader.
        if !self.is_set.swap(true, Ordering::Relaxed)
            && let Some(reader) = self.reader.get()
        {
            // Fails only for a bad descriptor, and this descriptor stays open as long as `self` lives.
            let _ = reader.ring();
        }
    }
}

impl Arena {
    /// Signals `reader` from now on whenever there is memory without use: see [`Arena::has_unused`].
    pub(crate) fn signal_unused(&self, reader: &Arc<EventFd>) {
        // Called once: an arena has one engine, which has one monitor.
        let _ = self.unused.reader.set(Arc::clone(reader));
    }

    /// Sets the note if at least a chunk is committed beyond the `in_use` bytes that blocks occupy.
    #[inline]
    pub(super) fn note_unused(&self, in_use: u64) {
        if self.budget.committed().saturating_sub(in_use) >= CHUNK
            && !self.unused.is_set.load(Ordering::Relaxed)
        {
            self.unused.set();
        }
    }

    /// Whether at least a chunk is committed that no block occupies, so that [`Arena::return_unused`] may return
    /// memory.
    pub(crate) fn has_unused(&self) -> bool {
        self.unused.is_set.load(Ordering::Relaxed)
    }

    /// Gives back to the system the memory that no block has occupied since the previous call: in each region, the
    /// committed bytes beyond the maximum in use since then. Returns true if another call may return more memory. If
    /// false, the next release of a block may set the note again.
    pub(crate) fn return_unused(&self) -> bool {
        // Reset the note first: a block that is released from here on sets it again.
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
