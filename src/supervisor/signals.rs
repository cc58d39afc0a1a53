//! Requests to the monitor since it slept last.

use std::time::Instant;

/// Requests to the monitor, set under the engine's lock. The thread that releases the lock rings the monitor if a
/// request requires it.
#[derive(Debug, Default)]
pub(super) struct MonitorSignals {
    /// Whether the monitor is rung when the lock is released.
    calls: bool,
    /// Whether a job had already ended when notice of its end was requested: the monitor drains the lanes before it
    /// blocks.
    looks_again: bool,
    /// Whether the monitor checks memory a few times a second.
    watches_memory: bool,
    /// Whether the monitor checks every millisecond whether jobs are spread badly.
    ticks: bool,
    /// While the monitor sleeps: when it wakes up at the latest. `None`: only when it is rung.
    wakes_at: Option<Instant>,
    /// Whether the monitor wakes up often enough to find out that the program was stopped.
    beats: bool,
    /// Whether such a time was set since the monitor slept last: see [`call_for_end`](Self::call_for_end). Then it
    /// beats the next time, whether or not the job has ended: otherwise each job of a stream would ring it.
    has_end: bool,
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

    /// Rings the monitor if it would sleep beyond `at`.
    pub(super) fn call_at(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.call_before(at);
        }
    }

    /// Calls the monitor, unless it wakes up before `at` anyway.
    pub(super) fn call_before(&mut self, at: Instant) {
        if self.wakes_at.is_none_or(|wakes_at| at < wakes_at) {
            self.calls = true;
        }
    }

    /// Like [`call_before`](Self::call_before), for a time at which a job, a worker or a drain is ended. Also rings a
    /// monitor that would not find out that the program was stopped meanwhile.
    pub(super) fn call_for_end(&mut self, at: Instant) {
        self.calls |= !self.beats;
        self.has_end = true;
        self.call_before(at);
    }

    /// Returns whether a time for [`call_for_end`](Self::call_for_end) was set, and clears the request.
    pub(super) fn take_end(&mut self) -> bool {
        std::mem::take(&mut self.has_end)
    }

    /// Returns whether the monitor has to be rung, and clears the request.
    #[inline]
    pub(super) fn take_call(&mut self) -> bool {
        std::mem::take(&mut self.calls)
    }

    /// Makes the monitor drain all lanes once more before it blocks.
    pub(super) fn look_again(&mut self) {
        self.looks_again = true;
        self.calls = true;
    }

    /// Returns whether the monitor has to drain once more, and clears the request.
    pub(super) fn take_look_again(&mut self) -> bool {
        std::mem::take(&mut self.looks_again)
    }

    /// Makes the monitor watch memory. Called by a thread that leaves jobs to the engine.
    #[inline]
    pub(super) fn watch_memory(&mut self) {
        if !self.watches_memory {
            self.watches_memory = true;
            self.calls = true;
        }
    }

    /// Sets whether the memory watch continues. Called only by the memory watch.
    pub(super) fn set_watches_memory(&mut self, watches: bool) {
        self.watches_memory = watches;
    }

    /// Returns true if the monitor ticks.
    #[inline]
    pub(super) fn ticks(&self) -> bool {
        self.ticks
    }

    /// Makes the monitor tick.
    pub(super) fn start_ticking(&mut self) {
        if !self.ticks {
            self.ticks = true;
            self.calls = true;
        }
    }

    /// Decides after a check whether the monitor continues to tick: while there are jobs to move, and until a whole
    /// tick has found none. Each start of ticking wakes the monitor, and a stream of tiny jobs would start it often.
    pub(super) fn keep_ticking(&mut self, found: bool, whole_tick: bool) {
        self.ticks = found || (self.ticks && !whole_tick);
    }

    /// Records that the monitor is about to sleep until `wakes_at` at the latest, and whether it `beats`. Called only by
    /// the monitor.
    pub(super) fn sleeps_until(&mut self, wakes_at: Option<Instant>, beats: bool) {
        self.wakes_at = wakes_at;
        self.beats = beats;
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
