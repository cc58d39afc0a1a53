//! One worker as the supervisor keeps it: its process, what it is to blame for, and how it has fared. Its lanes are in
//! `lane.rs`.

use std::time::Instant;

use super::error::JobErrorKind;
use super::output::last_words::LastWords;
use crate::control::{Door, HandshakeError};
use crate::sys::event::EventFd;
use crate::sys::process::PidFd;

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// No process; one may be started from this time on.
    Absent { not_before: Option<Instant> },
    /// Spawned, not ready.
    Starting,
    /// Takes jobs.
    Ready,
    /// Told or killed to end; not confirmed.
    Leaving,
}

/// A handshake that did not end well.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) worker: usize,
    pub(super) life: u32,
    pub(super) why: HandshakeError,
}

/// The process behind a worker.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pidfd: PidFd,
    /// Its lanes ring it.
    pub(super) bell: EventFd,
    /// Where its handshake waits for it.
    pub(super) door: Door,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    /// Changed by `EngineState::set_status` alone.
    status: Status,
    pub(super) process: Option<Process>,
    /// Counts the processes, so that late news of an old one is told apart. Changed by `EngineState::next_life` alone.
    life: u32,
    /// Why its last starts failed, one after the other.
    pub(super) failed_starts: Vec<String>,
    /// Why this worker is being killed: the records of the jobs that are to blame, the culprit first, and what each answers.
    pub(super) verdicts: Vec<(u32, JobErrorKind)>,
    /// What it left behind, while its end is put in order; empty at all other times.
    pub(super) last_words: LastWords,
    pub(super) restarts: u64,
    /// Processes that were replaced without having failed.
    pub(super) recycled: u64,
    /// Actors whose states its lanes have.
    pub(super) actors: usize,
    /// It was told to end, to be replaced.
    pub(super) retiring: bool,
    /// With nothing left to do it has so long to end.
    pub(super) ends_by: Option<Instant>,
    /// Jobs finished when it died last.
    jobs_at_death: u64,
    /// Processes that died one after the other, without having finished a job.
    deaths_in_a_row: u32,
    /// What they count.
    parts_in_a_row: u32,
}

/// A death that its worker has caused.
pub(super) const WHOLE: u32 = 8;

impl Worker {
    pub(super) fn new() -> Self {
        Self {
            status: Status::Absent { not_before: None },
            process: None,
            life: 0,
            failed_starts: Vec::new(),
            verdicts: Vec::new(),
            last_words: LastWords::default(),
            restarts: 0,
            recycled: 0,
            actors: 0,
            retiring: false,
            ends_by: None,
            jobs_at_death: 0,
            deaths_in_a_row: 0,
            parts_in_a_row: 0,
        }
    }

    /// Only for `EngineState::set_status`, which keeps the lanes in step.
    pub(super) fn move_to(&mut self, status: Status) {
        self.status = status;
    }

    /// Only for `EngineState::next_life`, which keeps the lanes in step.
    pub(super) fn count_process(&mut self) -> u32 {
        self.life = self.life.wrapping_add(1);
        self.life
    }

    pub(super) fn status(&self) -> Status {
        self.status
    }

    pub(super) fn life(&self) -> u32 {
        self.life
    }

    /// Its process has ended, and all of them together have finished so many jobs. How many have died in a row, without having
    /// finished one? Some count for a part of a death, in [`WHOLE`] parts, and some for none.
    pub(super) fn ended(&mut self, jobs: u64, parts: u32) -> u32 {
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

    /// How many have ended in a row, each of which counts for something.
    pub(super) fn deaths_in_a_row(&self) -> u32 {
        self.deaths_in_a_row
    }
}
