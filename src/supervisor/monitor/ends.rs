//! The end of workers: of one that has exited, and of all when the engine closes.

#[cfg(feature = "sandbox")]
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Monitor, process_of};
use crate::link::STOP;
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::exit_causes::{self, Evidence};
use crate::supervisor::lifecycle::Closing;
use crate::supervisor::output::last_words::LastWords;
use crate::supervisor::worker::Status;
use crate::sys::clock;
use crate::sys::process::Exit;

/// How long an idle worker may take to obey the stop flag when the engine is dropped.
const DROP_GRACE: Duration = Duration::from_millis(500);
/// How long the reason of a worker that could not start may take to arrive after its exit.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Monitor {
    /// Begins the recovery of a worker whose pidfd is readable: confirms the exit, so that nothing the worker could
    /// write changes any more, and collects what is known of its end.
    pub(super) fn reap(&mut self, index: usize) {
        let process = process_of(&self.shared.lock().workers, index).cloned();
        let Some(process) = process else { return };
        crate::sync::point!("recover.noticed");
        let exit = match process.pidfd.try_exit_of_group() {
            Ok(Some(exit)) => exit,
            Ok(None) => return,
            Err(_) => Exit::Unknown,
        };
        crate::sync::point!("recover.confirmed");
        let _ = self.poller.remove(process.pidfd.as_fd());
        let _ = self.poller.remove(process.event.as_fd());
        let state = self.shared.lock();
        let starting = state.workers[index].status() == Status::Starting;
        let code = state.workers[index].code().cloned();
        let ours = !state.workers[index].kill_reasons().is_empty() || state.lifecycle.closes_now();
        drop(state);
        if starting {
            process.handshake.release();
            // What it reported last may still be on its way, in the thread of its handshake, which ends now that its
            // peer is gone. There is a limit, because a process that the worker left behind may hold the channel open.
            if let Some(over) = self.handshakes.remove(&index) {
                let _ = over.recv_timeout(LAST_WORDS);
            }
            self.take_refusals();
        }
        drop(process);
        let refused = self.refusals.remove(&index);
        let mut words = self.outputs.finish(&self.shared, index);
        // The link of its first lane has the notes of the whole process.
        words.crash = self.shared.cells[index].reply().crash.read();
        if let (Some(crash), Some(code)) = (&mut words.crash, code) {
            crash.believe_files(&code);
        }
        let cause = self.cause_of(index, exit, &words, ours || refused.is_some());
        self.shared.recover(index, cause, refused, words);
    }

    /// Why this worker has ended. `ours`: this engine has killed it.
    pub(super) fn cause_of(
        &mut self,
        index: usize,
        exit: Exit,
        words: &LastWords,
        ours: bool,
    ) -> JobErrorKind {
        let killed = exit == Exit::Signal(libc::SIGKILL) && !ours;
        // The link of its first lane has the notes of the whole process.
        let cells = &self.shared.cells[index];
        #[cfg(feature = "sandbox")]
        if self.shared.is_sandboxed()
            // Acquire: pairs with the store of "call noted" in the worker's handler.
            && let Some(denied) = exit_causes::denied(exit, cells.reply().denied.load(Ordering::Acquire))
        {
            return denied;
        }
        exit_causes::cause(&Evidence {
            exit,
            limit: self.shared.settings.memory_limit,
            aborted: cells.reply().abort.read(),
            failed_allocation: words.failed_allocation,
            blas_gave_up: words.blas_gave_up,
            out_of_memory: killed && self.kills.explain(index),
        })
    }

    /// Whether the last job has ended and the workers have not been asked to stop.
    pub(super) fn may_stop(&self) -> bool {
        self.stopping.is_none() && self.shared.lock().is_drained()
    }

    /// Advances the closing of the engine by one step. Returns whether nothing is left.
    pub(super) fn step_closing(&mut self) -> bool {
        let mut state = self.shared.lock();
        match state.lifecycle.closing() {
            Closing::No => return false,
            // Once the workers are asked to stop nothing delays that.
            Closing::Drain
                if !state.lifecycle.is_stopping()
                    && !state.is_drained()
                    && state.lifecycle.broken().is_none() =>
            {
                // No other thread may be waiting for the jobs.
                state.lanes.want_end_of_all();
                return false;
            }
            Closing::Drain => {}
            Closing::Now => state.fail_queued(&JobErrorKind::ShutDown),
        }
        state.lifecycle.set_stopping();
        let now = Instant::now();
        let deadline = *self.stopping.get_or_insert_with(|| {
            let grace = match state.lifecycle.closing() {
                Closing::Drain => self.shared.settings.grace,
                _ => DROP_GRACE,
            };
            clock::saturating_add(now, grace)
        });
        let abrupt = state.lifecycle.closes_now();
        let mut left = state.has_uncopied();
        for index in 0..state.workers.len() {
            let Some(process) = state.workers[index].process() else {
                continue;
            };
            left = true;
            let starting = state.workers[index].status() == Status::Starting;
            let mut lanes = state.lanes.of_worker(index);
            let busy = starting || abrupt && !lanes.all(|lane| state.lanes[lane].is_idle());
            if busy || now >= deadline {
                // Fails if it has ended already. Either way the pidfd reports the exit.
                let _ = process.pidfd.kill_group(Signal::SIGKILL);
            } else {
                for lane in state.lanes.of_worker(index) {
                    let producer = &mut state.lanes[lane].producer;
                    producer.set_flags(STOP);
                    producer.ring();
                }
                crate::sync::point!("stop.requested");
            }
        }
        if now >= deadline {
            // All are killed now, and the pidfds report when they have ended.
            self.stopping = Some(now + Duration::from_secs(1));
        }
        if !left {
            state.end();
            crate::sync::point!("stop.ended");
        }
        self.shared.unlock(state);
        !left
    }
}
