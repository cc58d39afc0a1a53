//! Ending an engine.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::JobErrorKind;
use super::lifecycle::Closing;
use super::monitor;
use super::shared::Supervisor;
use crate::sys::clock;

impl Supervisor {
    /// Ends the engine, and waits for it.
    pub(crate) fn end(&self, monitor: JoinHandle<()>, how: Closing) {
        self.end_by(monitor, how, None);
    }

    fn end_by(&self, monitor: JoinHandle<()>, how: Closing, drains_until: Option<Instant>) {
        if self.is_copy() {
            return;
        }
        if monitor::is_here() {
            // Here is a waker that a monitor has called, and the engine was its last. Nobody waits for himself, and two that
            // are called by each other's do not wait for each other.
            self.close(how, drains_until);
            if self.ends_last() {
                self.finish();
            }
            return;
        }
        self.close(how, drains_until);
        // A monitor that panicked has closed its pipe and its workers are gone with it.
        let _ = monitor.join();
        self.finish();
    }

    /// As [`end`](Supervisor::end) with [`Closing::Drain`], but only `limit` long, and then with [`Closing::Now`]. Whether that was long
    /// enough.
    pub(crate) fn end_within(&self, monitor: JoinHandle<()>, limit: Duration) -> bool {
        if self.is_copy() {
            return true;
        }
        let until = clock::saturating_add(Instant::now(), limit);
        self.end_by(monitor, Closing::Drain, Some(until));
        let mut state = self.lock();
        state.drain_busy();
        let drained = state.is_drained();
        self.unlock(state);
        drained
    }

    /// What is left to do when the monitor is gone.
    pub(super) fn finish(&self) {
        self.log.close();
        self.arena.retire();
        self.end_trace();
        crate::sync::point!("stop.unnamed");
    }

    /// Ends the engine; the monitor does it.
    pub(super) fn close(&self, how: Closing, drains_until: Option<Instant>) {
        let mut state = self.lock();
        state.lifecycle.close(how, drains_until);
        // Nothing is tried again from here on.
        state.fail_waiting(&JobErrorKind::ShutDown);
        state.lose_idle_actors();
        state.admit_all();
        // What waited behind them may be let in.
        state.go_on();
        self.unlock(state);
        self.ring();
    }
}
