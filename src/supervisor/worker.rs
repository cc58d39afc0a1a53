//! One worker as the supervisor keeps it: its process, why it is killed, and how it has fared. Its lanes are in
//! [`Lane`](super::lane).

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::error::JobErrorKind;
use super::output::last_words::LastWords;
use crate::control::{HandshakeError, HandshakeSocket};
use crate::sync::FIRST_COUNT;
use crate::sys::clock;
use crate::sys::code_maps::CodeMap;
use crate::sys::event::EventFd;
use crate::sys::process::PidFd;

/// Where a worker is between two processes, or in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// No process; one may be started from this time on.
    Absent { not_before: Option<Instant> },
    /// Spawned, not ready.
    Starting,
    /// Ready, and takes no jobs: as many others as may be active are.
    Spare,
    /// Takes jobs.
    Ready,
    /// Asked or killed to end; not confirmed.
    Leaving,
}

/// A handshake that failed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) worker: usize,
    pub(super) generation: u32,
    pub(super) why: HandshakeError,
}

/// The process behind a worker.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pidfd: PidFd,
    /// Rung by its lanes.
    pub(super) event: EventFd,
    /// The socket on which its handshake waits for it.
    pub(super) handshake: HandshakeSocket,
}

/// Why a worker is killed: the record of the job that is to blame, or [`NO_RECORD`](super::lane::NO_RECORD), and what
/// that job answers.
pub(super) type KillReason = (u32, JobErrorKind);

/// More failed starts than this are not remembered; the pause is the longest by then.
const MOST_REMEMBERED: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    /// Changed by `EngineState::set_status` alone.
    status: Status,
    process: Option<Arc<Process>>,
    /// Counts the processes, so that a late report about an earlier one is recognized. Changed by
    /// `EngineState::next_generation` alone.
    generation: u32,
    /// Where code of files is mapped in its process, as it reported before its first job; `None` if it is not sandboxed or
    /// not ready.
    code: Option<Arc<[CodeMap]>>,
    /// Why the last starts failed, one after the other.
    failed_starts: Vec<String>,
    /// Why this worker is being killed, the first reason first.
    kill_reasons: Vec<KillReason>,
    /// What its process printed last, while its end is handled; empty at all other times.
    last_words: LastWords,
    restarts: u64,
    /// Processes that were replaced without having failed.
    recycled: u64,
    /// It is asked to end, to be replaced.
    is_retiring: bool,
    /// When it is killed unless it has ended, once it has nothing left to do.
    ends_by: Option<Instant>,
    /// Jobs finished when it died last.
    jobs_at_death: u64,
    /// Processes that died one after the other, without having finished a job.
    deaths_in_a_row: u32,
    /// What those deaths count, in parts of [`WHOLE`].
    parts_in_a_row: u32,
}

/// Parts of a death that the worker has caused.
pub(super) const WHOLE: u32 = 8;

impl Worker {
    pub(super) fn new() -> Self {
        Self {
            status: Status::Absent { not_before: None },
            process: None,
            generation: FIRST_COUNT,
            code: None,
            failed_starts: Vec::new(),
            kill_reasons: Vec::new(),
            last_words: LastWords::default(),
            restarts: 0,
            recycled: 0,
            is_retiring: false,
            ends_by: None,
            jobs_at_death: 0,
            deaths_in_a_row: 0,
            parts_in_a_row: 0,
        }
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    /// Only for `EngineState::set_status`, which keeps the lanes in step.
    pub(super) fn move_to(&mut self, status: Status) {
        self.status = status;
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Only for `EngineState::next_generation`, which keeps the lanes in step.
    pub(super) fn count_process(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    // ---- its process ------------------------------------------------------------------------

    pub(super) fn process(&self) -> Option<&Arc<Process>> {
        self.process.as_ref()
    }

    /// Its process was started.
    pub(super) fn set_process(&mut self, process: Process) {
        self.process = Some(Arc::new(process));
    }

    /// Its process has ended, or cannot be watched.
    pub(super) fn take_process(&mut self) -> Option<Arc<Process>> {
        self.process.take()
    }

    /// Its process is ready, and can map no other code than this if it is sandboxed.
    pub(super) fn set_code(&mut self, code: Option<Arc<[CodeMap]>>) {
        self.code = code;
    }

    /// What [`set_code`](Self::set_code) was passed.
    pub(super) fn code(&self) -> Option<&Arc<[CodeMap]>> {
        self.code.as_ref()
    }

    /// The number of its process, 0 without one.
    pub(super) fn pid(&self) -> u32 {
        let process = self.process.as_ref();
        process.map_or(0, |process| process.pidfd.pid().as_raw().cast_unsigned())
    }

    /// Kills its process, and the programs that kernels have started in it.
    pub(super) fn kill(&self) {
        if let Some(process) = &self.process {
            // Fails if it has ended already. Either way its pidfd reports the exit.
            let _ = process.pidfd.kill_group(Signal::SIGKILL);
        }
    }

    // ---- starts -----------------------------------------------------------------------------

    /// A start has failed. Returns how many failed right before it.
    pub(super) fn start_failed(&mut self, why: &str) -> u32 {
        let before = self.failed_starts.len() as u32;
        self.failed_starts.push(why.to_owned());
        if self.failed_starts.len() > MOST_REMEMBERED {
            self.failed_starts.remove(0);
        }
        before
    }

    /// A start has succeeded.
    pub(super) fn has_started(&mut self) {
        self.failed_starts.clear();
    }

    /// Why the last starts failed, one after the other.
    pub(super) fn failed_starts(&self) -> &[String] {
        &self.failed_starts
    }

    // ---- its end ----------------------------------------------------------------------------

    /// It is killed for this reason.
    pub(super) fn add_kill_reason(&mut self, reason: KillReason) {
        self.kill_reasons.push(reason);
    }

    pub(super) fn kill_reasons(&self) -> &[KillReason] {
        &self.kill_reasons
    }

    pub(super) fn take_kill_reasons(&mut self) -> Vec<KillReason> {
        std::mem::take(&mut self.kill_reasons)
    }

    pub(super) fn last_words(&self) -> &LastWords {
        &self.last_words
    }

    pub(super) fn last_words_mut(&mut self) -> &mut LastWords {
        &mut self.last_words
    }

    /// Its process has died, and all of its processes together have finished this many jobs. The death counts `parts`
    /// of [`WHOLE`]. Returns how many whole deaths there were in a row without a finished job, or 0 if this one does
    /// not count.
    pub(super) fn died(&mut self, jobs: u64, parts: u32) -> u32 {
        self.restarts += 1;
        if parts == 0 {
            return 0;
        }
        if std::mem::replace(&mut self.jobs_at_death, jobs) != jobs {
            self.deaths_in_a_row = 0;
            self.parts_in_a_row = 0;
        }
        self.deaths_in_a_row += 1;
        self.parts_in_a_row = self.parts_in_a_row.saturating_add(parts);
        self.parts_in_a_row / WHOLE
    }

    /// Deaths in a row, each of which counts for something.
    pub(super) fn deaths_in_a_row(&self) -> u32 {
        self.deaths_in_a_row
    }

    /// How often its process died and was replaced.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    // ---- its replacement --------------------------------------------------------------------

    /// It is asked to end, to be replaced.
    pub(super) fn retire(&mut self) {
        self.is_retiring = true;
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.is_retiring
    }

    /// It has ended as it was asked to.
    pub(super) fn has_retired(&mut self) {
        self.recycled += 1;
    }

    /// Processes that were replaced without having failed.
    pub(super) fn recycled(&self) -> u64 {
        self.recycled
    }

    /// The next process has nothing to do with the end of the last one.
    pub(super) fn begin_generation(&mut self) {
        self.is_retiring = false;
        self.ends_by = None;
        self.code = None;
    }

    /// When it is killed unless it has ended.
    pub(super) fn ends_by(&self) -> Option<Instant> {
        self.ends_by
    }

    pub(super) fn set_ends_by(&mut self, at: Option<Instant>) {
        self.ends_by = at;
    }

    /// Allows this much more time to end.
    pub(super) fn postpone_end(&mut self, by: Duration) {
        self.ends_by = self.ends_by.map(|at| clock::postponed(at, by));
    }

    /// Whether the time to end is over. True once.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        self.ends_by.take_if(|at| *at <= now).is_some()
    }
}

/// The workers with this status.
pub(super) fn with_status(workers: &[Worker], status: Status) -> impl Iterator<Item = usize> {
    let workers = workers.iter().enumerate();
    let with = workers.filter(move |(_, worker)| worker.status() == status);
    with.map(|(index, _)| index)
}

/// Number of workers that are not active, of `most` that may be.
pub(super) fn missing(workers: &[Worker], most: usize) -> usize {
    let count = |status| with_status(workers, status).count();
    most.saturating_sub(count(Status::Ready) + count(Status::Leaving))
}
