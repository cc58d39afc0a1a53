//! Starts workers: spawns missing processes, watches them, and kills those that are not ready in time.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Monitor, WORKER_EVENT};
use crate::control::HandshakeError;
use crate::supervisor::exit_causes;
use crate::supervisor::settings::StartError;
use crate::supervisor::worker::Status;
use crate::sys::short_slice::ShortSlice;
use crate::trace::escape;

impl Monitor {
    /// Starts the missing workers.
    pub(super) fn start_absent(&mut self) {
        let now = Instant::now();
        let absent = {
            let state = self.shared.lock();
            let needed = state.needs_workers();
            state.workers.to_start(&state.config, needed, now)
        };
        if absent.is_empty() || !self.may_start(now) {
            return;
        }
        let _slice = ShortSlice::begin();
        // Spawns all processes first: they load their programs while the handshakes are prepared.
        let started: Vec<_> = absent
            .iter()
            .filter_map(|&index| {
                let started = self
                    .shared
                    .spawn_worker(index, &self.pipe, &mut self.template);
                match started {
                    Ok((started, pipes)) => Some((index, started, pipes)),
                    Err(error) => {
                        self.cannot_start(index, error);
                        None
                    }
                }
            })
            .collect();
        self.end_silent_template();
        for (index, started, pipes) in started {
            let watched = self.watch(index);
            let watched =
                watched.and_then(|()| self.outputs.add(&self.shared, &self.poller, index, pipes));
            match watched {
                Ok(()) => {
                    let over = self.shared.greet(started);
                    self.handshakes.insert(index, over);
                }
                Err(error) => self.cannot_start(index, StartError::System(error)),
            }
        }
        // This is done after the spawns, which need not wait for it: no worker has requested memory yet.
        self.kills.started(&absent);
        // A limit beyond the range of the clock counts as no limit.
        if let Some(at) = now.checked_add(self.shared.settings.start_timeout) {
            self.starting
                .extend(absent.into_iter().map(|index| (index, at)));
        }
    }

    /// Kills workers that have not become ready in time.
    pub(super) fn end_overdue(&mut self) {
        if self.starting.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut state = self.shared.lock();
        self.starting
            .retain(|&index, _| state.workers[index].status() == Status::Starting);
        let limit = self.shared.settings.start_timeout;
        for (&index, at) in self.starting.iter_mut().filter(|(_, at)| **at <= now) {
            let phase = self.shared.cells[index].phase();
            let why = format!(
                "worker {index} was {}",
                exit_causes::not_ready(self.shared.settings.program.entry, phase, limit)
            );
            self.refusals.entry(index).or_insert(why);
            // If the handshake ends at this moment, it is too late: its report belongs to an earlier generation.
            state.next_generation(index);
            state.workers[index].kill();
            // The time limit for its exit to be confirmed.
            *at = now + Duration::from_secs(1);
        }
    }

    /// Polls the pidfd and the eventfd of this worker's process.
    fn watch(&self, index: usize) -> crate::sys::Result<()> {
        let state = self.shared.lock();
        let Some(process) = state.workers[index].process() else {
            return Ok(());
        };
        self.poller.add(process.pidfd.as_fd(), index as u64)?;
        self.poller
            .add(process.event.as_fd(), index as u64 | WORKER_EVENT)
    }

    fn cannot_start(&self, index: usize, error: StartError) {
        self.discard(index);
        let why = match error {
            StartError::System(error) => error.to_string(),
            StartError::Worker(error) => error.to_string(),
        };
        self.shared.cannot_start(index, &why);
    }

    /// Kills a process that cannot be watched, before its worker gets another one.
    fn discard(&self, index: usize) {
        let process = self.shared.lock().workers[index].take_process();
        if let Some(process) = process {
            process.handshake.release();
            // Both fail only if the process has ended already.
            let _ = process.pidfd.kill_group(Signal::SIGKILL);
            let _ = process.pidfd.wait_exit();
        }
    }

    /// Handles failed handshakes: kills the workers, and stores the reasons for the recovery. Returns true if there
    /// were any.
    pub(super) fn take_refusals(&mut self) -> bool {
        let refusals = self.shared.take_refusals();
        let any = !refusals.is_empty();
        for refusal in refusals {
            let mut state = self.shared.lock();
            let worker = &mut state.workers[refusal.worker];
            // A report about an earlier process is ignored.
            if worker.generation() != refusal.generation || worker.status() != Status::Starting {
                continue;
            }
            if !matches!(refusal.why, HandshakeError::Gone) {
                let why = escape::escape_text(&refusal.why.to_string()).to_string();
                self.refusals.insert(refusal.worker, why);
            }
            worker.kill();
        }
        any
    }
}
