//! What the monitor has been asked for since it slept last.

use std::time::Instant;

/// Requests to the monitor, set under the engine's lock. The thread that releases the lock rings the monitor if one of
/// them calls for it.
#[derive(Debug, Default)]
pub(super) struct MonitorSignals {
    /// The monitor is rung when the lock is released.
    calls: bool,
    /// A job had already ended when its end was to be reported: the monitor drains its lane before it blocks.
    looks_again: bool,
    /// The monitor looks at memory a few times a second.
    watches_memory: bool,
    /// The monitor looks every millisecond whether work is spread badly.
    ticks: bool,
    /// When the monitor wakes up at the latest, while it sleeps; `None`: when it is rung.
    wakes_at: Option<Instant>,
}

impl MonitorSignals {
    /// Rings the monitor when the lock is released.
    #[inline]
    pub(super) fn call(&mut self) {
        self.calls = true;
    }

    /// Rings the monitor when the lock is released, if `wanted`.
    #[inline]
    pub(super) fn call_if(&mut self, wanted: bool) {
        self.calls |= wanted;
    }

    /// Rings the monitor if it would sleep longer than until `at`.
    pub(super) fn call_at(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.call_before(at);
        }
    }

    /// Calls the monitor, unless it wakes before that time anyway.
    pub(super) fn call_before(&mut self, at: Instant) {
        if self.wakes_at.is_none_or(|wakes_at| at < wakes_at) {
            self.calls = true;
        }
    }

    /// Whether the monitor is to be rung. The request is done with that.
    #[inline]
    pub(super) fn take_call(&mut self) -> bool {
        std::mem::take(&mut self.calls)
    }

    /// Has the monitor drain all lanes once more before it blocks.
    pub(super) fn look_again(&mut self) {
        self.looks_again = true;
        self.calls = true;
    }

    /// Whether the monitor is to drain once more. The request is done with that.
    pub(super) fn take_look_again(&mut self) -> bool {
        std::mem::take(&mut self.looks_again)
    }

    /// Has the monitor watch memory, because the calling thread is about to leave jobs to the engine.
    #[inline]
    pub(super) fn watch_memory(&mut self) {
        if !self.watches_memory {
            self.watches_memory = true;
            self.calls = true;
        }
    }

    /// Only for the memory watch: whether it goes on.
    pub(super) fn set_watches_memory(&mut self, watches: bool) {
        self.watches_memory = watches;
    }

    /// Whether the monitor ticks.
    #[inline]
    pub(super) fn ticks(&self) -> bool {
        self.ticks
    }

    /// Has the monitor tick.
    pub(super) fn start_ticking(&mut self) {
        if !self.ticks {
            self.ticks = true;
            self.calls = true;
        }
    }

    /// Only for the monitor, which has looked: it ticks on while there is something to even out, and until a whole tick
    /// has found nothing. Each start wakes it, and a stream of tiny jobs would start it often.
    pub(super) fn keep_ticking(&mut self, found: bool, whole_tick: bool) {
        self.ticks = found || (self.ticks && !whole_tick);
    }

    /// Only for the monitor: it is about to sleep, at most until `wakes_at`.
    pub(super) fn sleeps_until(&mut self, wakes_at: Option<Instant>) {
        self.wakes_at = wakes_at;
    }
}

#[cfg(test)]
impl MonitorSignals {
    pub(super) fn stop_ticking(&mut self) {
        self.ticks = false;
    }

    pub(super) fn is_to_look_again(&self) -> bool {
        self.looks_again
    }
}
