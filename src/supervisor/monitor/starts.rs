//! Starts workers: spawns missing processes, watches them, and kills those that are not ready in time.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Monitor, WORKER_EVENT};
use crate::control::{HandshakeError, StartFailure};
use crate::link::{Phase, steps};
use crate::supervisor::exit_causes;
use crate::supervisor::settings::StartError;
use crate::supervisor::worker::Status;
use crate::sys::short_slice::ShortSlice;
use crate::trace::escape;

/// How long a worker may take for one of its own steps before it is ready: the load of its program, and the handshake.
const OWN_STEPS: Duration = Duration::from_secs(60);

/// A worker that is starting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starting {
    /// When it must be ready, or be checked again.
    pub(super) until: Instant,
    /// Its step at the last check.
    phase: Phase,
}

impl Monitor {
    /// Starts the missing workers.
    pub(super) fn start_absent(&mut self) {
        let now = Instant::now();
        let absent = {
            let state = self.shared.lock();
            let needed = state.needs_workers();
            state.workers.to_start(&state.config, needed, now)
        };
        if absent.is_empty() {
            return;
        }
        #[cfg(feature = "template")]
        if !self.may_start(now) {
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
        #[cfg(feature = "template")]
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
        if let Some(until) = now.checked_add(self.start_limit()) {
            let start = Starting {
                until,
                phase: Phase::Unknown,
            };
            self.starting
                .extend(absent.into_iter().map(|index| (index, start)));
        }
    }

    /// Returns how long a worker may take to become ready; without a limit for the program's code, how long it may take
    /// for its own steps.
    pub(super) fn start_limit(&self) -> Duration {
        self.shared.settings.start_timeout.unwrap_or(OWN_STEPS)
    }

    /// Kills workers that have not become ready in time. Without a limit for the program's code, these are workers that
    /// are at the same step of their own as at the last check.
    pub(super) fn end_overdue(&mut self) {
        if self.starting.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut state = self.shared.lock();
        self.starting
            .retain(|&index, _| state.workers[index].status() == Status::Starting);
        let limit = self.start_limit();
        let is_total = self.shared.settings.start_timeout.is_some();
        let due = self.starting.iter_mut();
        for (&index, start) in due.filter(|(_, start)| start.until <= now) {
            let phase = self.shared.cells[index].phase();
            let is_own_step = phase != Phase::Starting(steps::ON_START);
            if !(is_total || is_own_step && phase == start.phase) {
                start.until = now + limit;
                start.phase = phase;
                continue;
            }
            let why = format!(
                "worker {index} was {}",
                exit_causes::not_ready(self.shared.settings.program.entry, phase, limit)
            );
            self.refusals.entry(index).or_insert(why.into());
            // If the handshake ends at this moment, it is too late: its report belongs to an earlier generation.
            state.next_generation(index);
            state.workers[index].kill();
            // The time limit for its exit to be confirmed.
            start.until = now + Duration::from_secs(1);
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
        self.shared.cannot_start(index, error.into());
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
                let failure = StartFailure::from(refusal.why);
                let why = escape::escape_text(&failure.why).to_string();
                let failure = StartFailure { why, ..failure };
                self.refusals.insert(refusal.worker, failure);
            }
            worker.kill();
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::fixture::fixture;

    /// Ends a time limit, and returns whether the worker is killed.
    fn is_killed(monitor: &mut Monitor) -> bool {
        let start = monitor.starting.get_mut(&0).expect("it is starting");
        start.until = Instant::now();
        monitor.end_overdue();
        monitor.refusals.contains_key(&0)
    }

    /// The monitor of a worker that is starting.
    fn monitor() -> Monitor {
        let (shared, _consumers) = fixture(1, 0);
        shared.lock().set_status(0, Status::Starting);
        let mut monitor = Monitor::idle(shared);
        let start = Starting {
            until: Instant::now(),
            phase: Phase::Unknown,
        };
        monitor.starting.insert(0, start);
        monitor
    }

    #[test]
    fn only_steps_of_the_engine_are_limited() {
        let mut monitor = monitor();
        for step in [
            Phase::Starting(steps::MAP),
            Phase::Starting(steps::ON_START),
        ] {
            monitor.shared.cells[0].set_phase(step);
            assert!(!is_killed(&mut monitor), "{step}: it has advanced");
        }
        for _ in 0..10 {
            assert!(!is_killed(&mut monitor), "the program may take its time");
        }
        monitor.shared.cells[0].set_phase(Phase::Starting(steps::LANES));
        assert!(!is_killed(&mut monitor), "it has advanced");
        assert!(is_killed(&mut monitor));
    }

    #[test]
    fn a_worker_that_is_never_heard_from_is_killed() {
        assert!(is_killed(&mut monitor()));
    }
}
