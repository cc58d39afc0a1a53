//! The ends of workers: of a worker that has exited, and of all workers when the engine closes.

#[cfg(feature = "sandbox")]
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Monitor, process_of};
use crate::link::STOP;
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::exit_causes::{self, Evidence};
use crate::supervisor::lifecycle::Closing;
use crate::supervisor::output::last_words::LastWords;
use crate::supervisor::worker::Status;
use crate::sys::clock;
use crate::sys::process::Exit;

/// The time that an idle worker gets to obey the stop flag when the engine is dropped.
const DROP_GRACE: Duration = Duration::from_millis(500);
/// How long the monitor waits, after the exit of a worker that could not start, for the worker's report.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Monitor {
    /// Begins the recovery of a worker whose pidfd is readable: confirms the exit, after which the worker cannot write
    /// to shared memory, and collects the evidence of its end.
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
            // The worker's last report may still be in the thread of its handshake. That thread ends once its peer is
            // gone. The wait is limited, because a process that the worker has started may keep the socket open.
            if let Some(over) = self.handshakes.remove(&index) {
                let _ = over.recv_timeout(LAST_WORDS);
            }
            self.take_refusals();
        }
        drop(process);
        let refused = self.refusals.remove(&index);
        let mut words = self.outputs.finish(&self.shared, index);
        // The link of the worker's first lane contains the notes of the whole process.
        words.crash = self.shared.cells[index].reply().crash.read();
        if let (Some(crash), Some(code)) = (&mut words.crash, code) {
            crash.believe_files(&code);
        }
        let cause = self.cause_of(index, exit, &words, ours || refused.is_some());
        self.shared.recover(index, cause, refused, words);
    }

    /// Returns why this worker has ended. `ours`: whether this engine has killed it.
    pub(super) fn cause_of(
        &mut self,
        index: usize,
        exit: Exit,
        words: &LastWords,
        ours: bool,
    ) -> JobErrorKind {
        let killed = exit == Exit::Signal(libc::SIGKILL) && !ours;
        // The link of the worker's first lane contains the notes of the whole process.
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

    /// Returns true if the last job has ended and the workers have not been asked to stop.
    pub(super) fn may_stop(&self) -> bool {
        self.stopping.is_none() && self.shared.lock().is_drained()
    }

    /// Advances the closing of the engine by one step. Returns true if nothing is left to do.
    pub(super) fn step_closing(&mut self) -> bool {
        let mut state = self.shared.lock();
        match state.lifecycle.closing() {
            Closing::No => return false,
            // Once the workers were asked to stop, no job delays the end.
            Closing::Drain
                if !state.lifecycle.is_stopping()
                    && !state.is_drained()
                    && state.lifecycle.broken().is_none() =>
            {
                // Possibly no other thread waits for the jobs, so the monitor requests notice of their ends.
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
        let mut left = !state.uncopied.is_empty();
        for index in 0..state.workers.len() {
            if state.workers[index].process().is_none() {
                continue;
            }
            left = true;
            let starting = state.workers[index].status() == Status::Starting;
            let mut lanes = state.lanes.of_worker(index);
            let busy = starting || abrupt && !lanes.all(|lane| state.lanes[lane].is_idle());
            if busy || now >= deadline {
                state.workers[index].kill();
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
            // All workers are killed now, and their pidfds report their exits.
            self.stopping = Some(now + Duration::from_secs(1));
        }
        if !left {
            state.end();
            crate::sync::point!("stop.ended");
        }
        self.shared.unlock(state);
        !left
    }

    /// Ends the engine if Linux has refused to kill a worker, for example because the program has become another user:
    /// otherwise a job could not be ended, and the end of the engine would wait for that worker. All workers end with
    /// the watch pipe, which needs no rights.
    pub(super) fn end_unkillable(&mut self) {
        let mut state = self.shared.lock();
        let mut workers = state.workers.iter().enumerate();
        let refused = workers.find_map(|(index, worker)| Some((index, worker.kill_error()?)));
        let Some((index, error)) = refused else {
            return;
        };
        let why = format!(
            "worker {index} cannot be killed ({error}): build engines after the program has dropped its privileges"
        );
        state.give_up(&why);
        self.shared.unlock(state);
        self.pipe.hang_up();
    }
}
