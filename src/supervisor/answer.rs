//! Answers jobs, and takes answers out of their records.

use std::ops::Range;

use smallvec::SmallVec;

use super::depend::EndNotice;
use super::error::{Because, Crash, Failed, JobError, JobErrorKind, LostJobs, WorkerExit};
use super::lane::NO_RECORD;
use super::owner::Owner;
use super::record::{JobId, Outcome, Stage};
use super::reply::{Read, Unreadable, read_guarded};
use super::shared::Supervisor;
use super::state::EngineState;
use crate::kernel::Receiving;
use crate::kernel::wire::{ReceivedArray, ReplyReader, WordReader};

/// Returns the error of a job whose worker sent a reply that is no value of the kernel.
fn malformed() -> JobErrorKind {
    let why = "a reply that its kernel cannot have sent";
    JobErrorKind::Lost(WorkerExit::Protocol(why.into()))
}

/// An answer that was taken from its record.
#[derive(Debug)]
pub(super) enum TakenAnswer<R> {
    Read(Result<R, JobError>),
    /// A long value, which is read without the lock: see [`Supervisor::read`].
    Unread(Box<Unread>),
}

/// A value whose words lie in the arena. They are copied before they are read, because a worker may be able to change
/// them.
#[derive(Debug)]
pub(super) struct Unread {
    words: ReceivedArray,
    arrays: SmallVec<[ReceivedArray; 1]>,
    /// The lane, and the generation of its worker.
    sender: (u32, u32),
    /// The error of the job if the value cannot be read.
    error: JobError,
}

impl Supervisor {
    /// Reads an answer that was taken under the lock. Called without the lock.
    pub(super) fn read<R>(&self, taken: TakenAnswer<R>, read: Read<R>) -> Result<R, JobError> {
        let Unread {
            words,
            arrays,
            sender,
            error,
        } = match taken {
            TakenAnswer::Read(answer) => return answer,
            TakenAnswer::Unread(unread) => *unread,
        };
        let copied = self.arena.copy_words(words.extent());
        drop(words);
        let value = match &copied {
            Ok(copied) => {
                let words = WordReader::new(copied);
                let arrays = arrays.into_iter();
                let mut reply = Receiving(ReplyReader { words, arrays });
                read_guarded(|| read(&mut reply))
            }
            Err(_) => Err(Unreadable::Malformed),
        };
        value.map_err(|why| match why {
            Unreadable::Malformed => {
                let mut state = self.lock();
                state.condemn_sender(sender);
                self.unlock(state);
                error
            }
            Unreadable::CheckPanicked(kind) => error.with_kind(kind),
        })
    }
}

impl EngineState {
    /// Answers a job, and wakes the waiters for the job in this process.
    #[inline]
    pub(super) fn answer(&mut self, index: u32, outcome: Outcome) {
        let record = self.records.at(index);
        match record.owner {
            owner if owner.has_handle() => {}
            Owner::Task { .. } => return self.task_ended(index, outcome),
            Owner::Actor { actor, role } => {
                return self.actor_job_ended(index, actor, role, outcome);
            }
            Owner::None | Owner::Handle | Owner::Scope { .. } => {
                self.discharge(index);
                return self.records.remove(index);
            }
        }
        record.stage = Stage::Answered;
        record.outcome = Some(outcome);
        if let Owner::Scope {
            is_wanted: false, ..
        } = record.owner
        {
            record.drop_value();
        }
        if record.parked || record.waker.is_some() {
            self.notify_slow(index);
        }
    }

    /// Answers a job with a value of `len` words that are in its record.
    #[inline]
    pub(super) fn answer_inline(&mut self, index: u32, len: u32) {
        let record = self.records.at(index);
        if !record.owner.has_handle() || record.parked || record.waker.is_some() {
            return self.answer(index, Outcome::Inline { len });
        }
        record.stage = Stage::Answered;
        record.outcome = Some(Outcome::Inline { len });
    }

    #[cold]
    fn notify_slow(&mut self, index: u32) {
        let record = self.records.at(index);
        self.waiters.call(record.waker.take());
        if record.parked {
            self.waiters.notify(index);
            self.discharge(index);
        }
        let record = self.records.look(index);
        if record.uses() > 0 {
            let job = self.records.id_of(index);
            self.runs.add_notice(EndNotice::Input { job });
        }
    }

    /// Answers a job without a value.
    pub(super) fn fail(
        &mut self,
        index: u32,
        why: impl Into<Because>,
        worker: Option<u32>,
        lent: Vec<Range<usize>>,
    ) {
        let why = why.into();
        let kind = &why.kind;
        // The leases are still there: the class of the crash depends on them.
        let killed = worker.map(|worker| &self.workers[worker as usize]);
        let record = self.records.look(index);
        let crash = record.crash(killed, &self.arena, kind);
        self.count_failed(index, kind, crash.as_ref());
        let record = self.records.at(index);
        record.leases.clear();
        let owner = record.owner;
        let policy = record.policy.as_mut();
        let (deaths, label) = policy
            .map(|policy| {
                let label = policy.options.label.clone();
                (std::mem::take(&mut policy.deaths), label)
            })
            .unwrap_or_default();
        let job = record.job;
        let fails_together = match owner {
            Owner::Scope { group, .. } if !group.collects => Some(group),
            _ => None,
        };
        let cancels = fails_together.filter(|_| *kind != JobErrorKind::Cancelled);
        let name = self.kernels.get(record.kernel).name;
        let words = worker.map(|worker| self.workers[worker as usize].last_words());
        let last_words = words.map_or_else(Vec::new, |words| words.of(job));
        let lost_jobs = words.map_or_else(LostJobs::default, |words| words.lost_jobs(job, kind));
        let error = Failed {
            attempt: u32::from(self.records.look(index).attempt),
            worker,
            lent,
            label,
            deaths,
            last_words,
            crash,
            lost_jobs,
            ..Failed::new(why, name, job)
        };
        self.answer(index, Outcome::Failed(error.into()));
        if let Some(group) = cancels {
            self.cancel_group(group, Some(job));
        }
    }

    /// Counts and traces a job that ended without a value.
    pub(super) fn count_failed(&mut self, index: u32, kind: &JobErrorKind, crash: Option<&Crash>) {
        self.counts.count(kind);
        let (records, kernels) = (&self.records, &mut self.kernels);
        self.trace
            .failed(index, records, kernels, kind, (crash, false));
    }

    /// Takes the answer of a job, if there is one. A long value is returned unread: call [`Supervisor::read`] without
    /// the lock.
    #[inline]
    pub(super) fn take<R>(&mut self, id: JobId, read: Read<R>) -> Option<TakenAnswer<R>> {
        let record = self.records.get(id);
        if record.stage != Stage::Answered {
            return None;
        }
        if matches!(record.outcome, Some(Outcome::InArena(_))) {
            return Some(TakenAnswer::Unread(self.take_unread(id.index)));
        }
        let answer = match &record.outcome {
            Some(Outcome::Failed(error)) => Err(error.clone()),
            _ => {
                let arrays = record.take_arrays(record.uses() == 0);
                let words = WordReader::new(record.value());
                let arrays = arrays.into_iter();
                let mut reply = Receiving(ReplyReader { words, arrays });
                read_guarded(|| read(&mut reply)).map_err(|why| self.not_read(id.index, why))
            }
        };
        self.release_handle(id.index);
        Some(TakenAnswer::Read(answer))
    }

    #[cold]
    fn take_unread(&mut self, index: u32) -> Box<Unread> {
        // The job counts as failed until its value is read.
        let error = failed_here(self, index, malformed());
        let record = self.records.at(index);
        let arrays = record.take_arrays(record.uses() == 0);
        let Some(Outcome::InArena(words)) = &record.outcome else {
            unreachable!("the caller has seen it")
        };
        let unread = Unread {
            words: words.share(),
            arrays,
            sender: record.answered_by,
            error,
        };
        self.release_handle(index);
        Box::new(unread)
    }

    /// Kills the worker that sent a malformed reply, unless its process has ended already.
    fn condemn_sender(&mut self, (lane, generation): (u32, u32)) {
        let lane = lane as usize;
        let lives = |lane: &super::lane::Lane| lane.generation() == generation;
        if self.lanes.get(lane).is_some_and(lives) {
            self.condemn(lane, NO_RECORD, malformed());
        }
    }

    /// Returns the error for a reply that cannot be read: see [`read_guarded`].
    #[cold]
    pub(super) fn not_read(&mut self, index: u32, why: Unreadable) -> JobError {
        match why {
            Unreadable::Malformed => {
                let sender = self.records.at(index).answered_by;
                self.condemn_sender(sender);
                failed_here(self, index, malformed())
            }
            Unreadable::CheckPanicked(kind) => failed_here(self, index, kind),
        }
    }
}

/// Returns the error for an answer that has arrived and cannot be taken.
#[cold]
fn failed_here(state: &mut EngineState, index: u32, kind: JobErrorKind) -> JobError {
    let lane = state.records.at(index).answered_by.0 as usize;
    let worker = (lane < state.lanes.len()).then(|| state.lanes.worker_of(lane) as u32);
    let record = state.records.at(index);
    let name = state.kernels.get(record.kernel).name;
    let policy = record.policy.as_ref();
    let failed = Failed {
        label: policy.and_then(|policy| policy.options.label.clone()),
        attempt: u32::from(record.attempt),
        worker,
        ..Failed::new(kind, name, record.job)
    };
    failed.into()
}
