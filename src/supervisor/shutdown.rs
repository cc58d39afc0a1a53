//! Ends an engine. The thread that ends it closes the state and rings the monitor, which stops the workers and answers
//! the remaining jobs. The last thread involved runs `finish`. A thread that finds that another one is ending the
//! engine waits for it.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::JobErrorKind;
use super::lifecycle::Closing;
use super::monitor;
use super::shared::Supervisor;
use crate::sys::clock;

/// How long [`Supervisor::flush_logs`] waits for the monitor, which is rarely busy for a millisecond.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Ends the engine and waits for the end. If `monitor` is `None`, another thread is ending the engine or has ended
    /// it.
    pub(crate) fn end(&self, monitor: Option<JoinHandle<()>>, how: Closing) {
        self.end_by(monitor, how, None);
    }

    fn end_by(&self, monitor: Option<JoinHandle<()>>, how: Closing, drains_until: Option<Instant>) {
        if self.is_copy() {
            return;
        }
        let Some(monitor) = monitor else {
            self.close(how, drains_until);
            // A monitor thread would wait for itself.
            if !monitor::is_here() {
                self.end.wait();
            }
            return;
        };
        if monitor::is_here() {
            // This thread is a monitor, which called a waker that dropped the last handle of this engine. A monitor
            // cannot join itself, and two monitors that end each other's engines must not join each other.
            self.close(how, drains_until);
            if self.ends_last() {
                self.finish();
            }
            return;
        }
        self.close(how, drains_until);
        // A monitor that panicked has closed its pipe, which ends its workers.
        let _ = monitor.join();
        self.finish();
    }

    /// Like [`end`](Supervisor::end) with [`Closing::Drain`] for at most `limit`, then with [`Closing::Now`]. Returns
    /// true if all jobs were finished in time.
    pub(crate) fn end_within(&self, monitor: Option<JoinHandle<()>>, limit: Duration) -> bool {
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

    /// Flushes the output, retires the arena, completes the trace and wakes threads that wait for the end. Called after
    /// the monitor has ended.
    pub(super) fn finish(&self) {
        self.log.close();
        self.arena.retire();
        self.end_trace();
        crate::sync::point!("stop.unnamed");
        // Fails only if it is set already.
        let _ = self.end.set(());
    }

    /// Passes all that workers have printed to the sink. Does not wait for a call of the sink that takes too long, nor
    /// on the monitor's or the sink's own thread.
    pub(crate) fn flush_logs(&self) {
        if self.is_copy() {
            return;
        }
        if !monitor::is_here() {
            self.flushes.wait(|| self.ring(), MONITOR_TIMEOUT);
        }
        self.log.flush();
    }

    /// Closes the engine. The monitor stops the workers and answers the jobs.
    pub(super) fn close(&self, how: Closing, drains_until: Option<Instant>) {
        let mut state = self.lock();
        state.lifecycle.close(how, drains_until);
        // From now on there are no further attempts.
        state.fail_waiting(&JobErrorKind::ShutDown);
        state.lose_idle_actors();
        let wakers = state.admission.as_mut().map(|all| all.take_wakers());
        state.waiters.call(wakers.into_iter().flatten());
        // Jobs that waited for these may be admitted.
        state.settle_dependents();
        self.unlock(state);
        self.ring();
    }
}
