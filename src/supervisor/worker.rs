//! One worker as the supervisor sees it: its process, its kill reasons, and its history. Its lanes are
//! [`Lane`](super::lane)s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::error::JobErrorKind;
use super::output::last_words::LastWords;
use crate::control::{HandshakeError, HandshakeSocket, StartFailure};
use crate::sync::FIRST_COUNT;
use crate::sys::clock;
use crate::sys::code_maps::CodeMap;
use crate::sys::event::EventFd;
use crate::sys::process::PidFd;

/// The status of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The worker has no process. A process may be started from this time on.
    Absent { not_before: Option<Instant> },
    /// The worker's process was spawned and is not ready.
    Starting,
    /// The worker's process is ready and gets no jobs, because as many other workers are active as may be.
    Spare,
    /// The worker accepts jobs.
    Ready,
    /// The worker was asked to end, or was killed; its exit is not confirmed.
    Leaving,
}

/// A handshake that failed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) worker: usize,
    pub(super) generation: u32,
    pub(super) why: HandshakeError,
}

/// The process of a worker.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pidfd: PidFd,
    /// The eventfd that the worker's lanes ring.
    pub(super) event: EventFd,
    /// The socket of the worker's handshake.
    pub(super) handshake: HandshakeSocket,
}

/// Why a worker is killed: the record of the job that caused it, or [`NO_RECORD`](super::lane::NO_RECORD), and the
/// error of that job.
pub(super) type KillReason = (u32, JobErrorKind);

/// The maximum number of failed starts that are stored. An engine gives up after at most as many, and beyond it the
/// pause does not grow.
const MAX_REMEMBERED: usize = 32;

/// One worker: see the module.
#[derive(Debug)]
pub(super) struct Worker {
    /// The worker's status. Changed only by `EngineState::set_status`.
    status: Status,
    process: Option<Arc<Process>>,
    /// Why the process could not be killed.
    kill_error: Option<crate::sys::Error>,
    /// Counts the processes, so that a late report about an earlier process is recognized. Changed only by
    /// `EngineState::next_generation`.
    generation: u32,
    /// The executable maps that the worker's process reported when it became ready. `None` if it is not sandboxed or
    /// not ready.
    code: Option<Arc<[CodeMap]>>,
    /// Why the last consecutive starts failed.
    failed_starts: Vec<StartFailure>,
    /// The sum of the parts, out of [`WHOLE`], that those count which have failed since a cause could pass.
    parts_of_starts: u32,
    /// Why this worker is being killed, the first reason first.
    kill_reasons: Vec<KillReason>,
    /// The last lines that the worker's process printed. Set only while its end is handled.
    last_words: LastWords,
    restarts: u64,
    /// Number of the worker's processes that were replaced without having failed.
    recycled: u64,
    /// Whether the worker is asked to end, to be replaced.
    is_retiring: bool,
    /// When the worker is killed if it has not ended. Set once it is retiring and has no jobs left.
    ends_by: Option<Instant>,
    /// Number of jobs that the worker had finished when it died last.
    jobs_at_death: u64,
    /// Number of consecutive processes that died without having finished a job.
    deaths_in_a_row: u32,
    /// The sum of the parts, out of [`WHOLE`], that the deaths in `deaths_in_a_row` count.
    parts_in_a_row: u32,
}

/// The number of parts of a whole death: one that the worker has caused.
pub(super) const WHOLE: u32 = 8;
/// How many parts of a whole death are counted if an idle worker or a template was killed from outside, or one that
/// starts, which may have killed itself. A few such processes are replaced at once, but a program that kills each as
/// soon as it is ready must not keep a core busy with starts.
pub(super) const KILLED: u32 = 1;

impl Worker {
    pub(super) fn new() -> Self {
        Self {
            status: Status::Absent { not_before: None },
            process: None,
            kill_error: None,
            generation: FIRST_COUNT,
            code: None,
            failed_starts: Vec::new(),
            parts_of_starts: 0,
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

    /// Sets the status. Called only by `EngineState::set_status`, which updates the lanes as well.
    pub(super) fn move_to(&mut self, status: Status) {
        self.status = status;
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Begins the next generation. Called only by `EngineState::next_generation`, which updates the lanes as well.
    pub(super) fn count_process(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    // ---- its process ------------------------------------------------------------------------

    pub(super) fn process(&self) -> Option<&Arc<Process>> {
        self.process.as_ref()
    }

    /// Records that the worker's process was started.
    pub(super) fn set_process(&mut self, process: Process) {
        self.process = Some(Arc::new(process));
    }

    /// Removes the worker's process, which has ended or cannot be watched.
    pub(super) fn take_process(&mut self) -> Option<Arc<Process>> {
        self.kill_error = None;
        self.process.take()
    }

    /// Stores the executable maps that the worker's process has reported when it became ready; `None` if it is not
    /// sandboxed. A sandboxed process can map no other code.
    pub(super) fn set_code(&mut self, code: Option<Arc<[CodeMap]>>) {
        self.code = code;
    }

    /// Returns the maps that [`set_code`](Self::set_code) has stored.
    pub(super) fn code(&self) -> Option<&Arc<[CodeMap]>> {
        self.code.as_ref()
    }

    /// Returns the number of the worker's process, 0 without one.
    pub(super) fn pid(&self) -> u32 {
        let process = self.process.as_ref();
        process.map_or(0, |process| process.pidfd.pid().as_raw().cast_unsigned())
    }

    /// Kills the worker's process, and the programs that kernels have started in it. If Linux refuses that, the monitor
    /// ends the engine: see [`kill_error`](Self::kill_error).
    pub(super) fn kill(&mut self) {
        if let Some(process) = &self.process {
            // Succeeds if the process has ended already. In both cases its pidfd reports the exit.
            self.kill_error = process.pidfd.kill_group(Signal::SIGKILL).err();
        }
    }

    /// Returns why the worker's process could not be killed, if the last attempt failed.
    pub(super) fn kill_error(&self) -> Option<&crate::sys::Error> {
        self.kill_error.as_ref()
    }

    // ---- starts -----------------------------------------------------------------------------

    /// Records a failed start, which counts `parts` of [`WHOLE`] if its cause cannot pass. Returns the number of
    /// consecutive failed starts.
    pub(super) fn start_failed(&mut self, failure: StartFailure, parts: u32) -> u32 {
        self.parts_of_starts = match failure.may_pass {
            true => 0,
            false => self.parts_of_starts.saturating_add(parts),
        };
        self.failed_starts.push(failure);
        let failed = self.failed_starts.len();
        if failed > MAX_REMEMBERED {
            self.failed_starts.remove(0);
        }
        failed as u32
    }

    /// Forgets failed starts: a start has succeeded, or the engine is to try again.
    pub(super) fn forget_failed_starts(&mut self) {
        self.failed_starts.clear();
        self.parts_of_starts = 0;
    }

    /// Returns why the last consecutive starts failed.
    pub(super) fn failed_starts(&self) -> &[StartFailure] {
        &self.failed_starts
    }

    /// Returns true if the last start failed for a reason that may pass, and no later one has succeeded.
    pub(super) fn waits_for_resources(&self) -> bool {
        self.failed_starts.last().is_some_and(|last| last.may_pass)
    }

    /// Returns true if the last starts failed for reasons that cannot pass, which count `most` parts or more.
    pub(super) fn is_hopeless(&self, most: u32) -> bool {
        self.parts_of_starts >= most
    }

    // ---- its end ----------------------------------------------------------------------------

    /// Adds a reason for which the worker is killed.
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

    /// Records that the worker's process has died, after all processes of the worker had finished `jobs` jobs together.
    /// The death counts `parts` of [`WHOLE`]. Returns the number of whole deaths in a row without a finished job, or 0
    /// if this death does not count.
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

    /// Returns the number of consecutive deaths that count.
    pub(super) fn deaths_in_a_row(&self) -> u32 {
        self.deaths_in_a_row
    }

    /// Returns the number of times that the worker's process died and was replaced.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    // ---- its replacement --------------------------------------------------------------------

    /// Marks the worker to be replaced.
    pub(super) fn retire(&mut self) {
        self.is_retiring = true;
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.is_retiring
    }

    /// Records that the worker has ended as it was asked to.
    pub(super) fn has_retired(&mut self) {
        self.recycled += 1;
    }

    /// Returns the number of the worker's processes that were replaced without having failed.
    pub(super) fn recycled(&self) -> u64 {
        self.recycled
    }

    /// Clears what belongs to the end of the last process.
    pub(super) fn begin_generation(&mut self) {
        self.is_retiring = false;
        self.ends_by = None;
        self.code = None;
    }

    /// Returns the time when the worker is killed if it has not ended.
    pub(super) fn ends_by(&self) -> Option<Instant> {
        self.ends_by
    }

    pub(super) fn set_ends_by(&mut self, at: Option<Instant>) {
        self.ends_by = at;
    }

    /// Postpones the time by which the worker must have ended.
    pub(super) fn postpone_end(&mut self, by: Duration) {
        self.ends_by = self.ends_by.map(|at| clock::postponed(at, by));
    }

    /// Returns true, once, if the time by which the worker must have ended has passed.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        self.ends_by.take_if(|at| *at <= now).is_some()
    }
}
