//! What happens when a worker is gone. The steps are numbered in the README of this floor.

use std::time::{Duration, Instant};

use super::Shared;
use super::causes::before_ready;
use super::core::{Closing, Core};
use super::drain::lent;
use super::error::JobErrorKind;
use super::lane::{NOBODY, Status};
use super::record::Stage;
use super::words::LastWords;
use crate::link::{CANCEL, SLOTS};

/// Starts that may fail one after the other before the engine gives up.
const FAILED_STARTS: u32 = 4;
/// The workers of a lane may die of this many jobs in a row before it waits with the next.
const DEATHS_AT_ONCE: u32 = 3;
/// The pause after the first failed start; it doubles, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Shared {
    /// The exit of a lane's worker is confirmed: puts everything it had in order.
    pub(super) fn recover(
        &self,
        index: usize,
        cause: JobErrorKind,
        refused: Option<String>,
        words: LastWords,
    ) {
        let phase = self.cells[index].phase();
        let damage = self.arena.damage();
        let mut core = self.lock();
        core.lanes[index].last_words = words;
        // 3. What it had finished is finished.
        core.drain(index);
        crate::sync::point!("recover.drained");
        let was_starting = core.lanes[index].status == Status::Starting;
        if core.lanes[index].status == Status::Ready {
            core.ready -= 1;
        }
        let verdict = core.lanes[index].verdict.take();
        // 4. and 5. What it had not begun goes back, oldest first; what it ran has failed.
        let died_of_a_job = core.take_all_back(index, &cause, verdict);
        crate::sync::point!("recover.judged");
        // 6. and 7.
        let lane = &mut core.lanes[index];
        lane.revoke();
        crate::sync::point!("recover.revoked");
        lane.poster.start_over();
        crate::sync::point!("recover.restarted");
        lane.backlog_ns = 0;
        lane.process = None;
        lane.seen_at_tick = u64::MAX;
        lane.poster.cells().forget_notes();
        let words = std::mem::take(&mut lane.last_words);
        // 8.
        if was_starting {
            let why = refused.unwrap_or_else(|| {
                format!(
                    "worker {index} {}",
                    before_ready(phase, &cause, &words.all())
                )
            });
            core.start_failed(index, &why);
        } else if lane.retiring && cause == JobErrorKind::Exited(Some(0)) {
            lane.recycled += 1;
            lane.status = Status::Absent { not_before: None };
            crate::sync::point!("recycle.counted");
        } else {
            lane.restarts += 1;
            let pause = died_of_a_job.then(|| respawn_pause(lane.died_of_a_job()));
            let not_before = pause.flatten().map(|pause| Instant::now() + pause);
            lane.status = Status::Absent { not_before };
        }
        // What died of memory that is gone is followed by others: nothing here can be trusted any more.
        if let Some(why) = damage {
            core.give_up(&why);
        }
        core.lanes[index].begin_life(&self.settings.memory.recycling);
        core.update_flags();
        core.refill();
        self.parking.engine.notify();
        self.unlock(core);
        crate::sync::point!("recover.done");
    }
}

impl Shared {
    /// The process of a lane could not even be started.
    pub(super) fn cannot_start(&self, index: usize, why: &str) {
        let mut core = self.lock();
        core.start_failed(index, why);
        self.parking.engine.notify();
        self.unlock(core);
    }
}

impl Core {
    /// A worker did not become ready: another one is tried after a pause. The engine gives up while it
    /// is being built, and when several starts in a row have failed and no worker is left.
    fn start_failed(&mut self, index: usize, why: &str) {
        let lane = &mut self.lanes[index];
        let pause = pause_after(lane.failed_starts);
        lane.failed_starts += 1;
        lane.status = Status::Absent {
            not_before: Some(Instant::now() + pause),
        };
        if !self.started || lane.failed_starts >= FAILED_STARTS && self.ready == 0 {
            self.give_up(why);
        }
    }

    /// After the exit: the jobs that the worker still had. True if one of them killed it.
    fn take_all_back(
        &mut self,
        index: usize,
        cause: &JobErrorKind,
        verdict: Option<(u32, JobErrorKind)>,
    ) -> bool {
        let broke_protocol = matches!(&verdict, Some((_, JobErrorKind::Protocol(_))));
        let culprit = verdict
            .as_ref()
            .map(|(record, why)| self.lost_with(*record, why));
        let mut back = Vec::new();
        let mut died_of_a_job = false;
        for position in self.lanes[index].poster.open_positions() {
            let lane = &mut self.lanes[index];
            let record = lane.records[(position % SLOTS as u64) as usize];
            if record == NOBODY {
                continue;
            }
            lane.take(position);
            self.open -= 1;
            let blamed = verdict
                .as_ref()
                .is_some_and(|(blamed, _)| *blamed == record);
            if blamed {
                continue;
            }
            // A worker that broke the protocol may have begun what it says is queued; only what it
            // cannot have reached is put back then.
            let untouched = lane.poster.is_queued(position) && !broke_protocol;
            let cancelled = self.records.at(record).requests & CANCEL != 0;
            if untouched && cancelled && self.closing != Closing::Now {
                // Asked for while the words of this lane meant nothing.
                self.fail(record, JobErrorKind::Cancelled, None, Vec::new());
            } else if untouched && self.closing != Closing::Now {
                // At once: a failure below may cancel it.
                self.records.at(record).stage = Stage::Queued;
                back.push(record);
            } else if untouched {
                self.fail(record, JobErrorKind::ShutDown, None, Vec::new());
            } else if let Some(lost) = &culprit {
                if self.may_run_again_after_loss(record) {
                    self.records.at(record).stage = Stage::Queued;
                    back.push(record);
                } else {
                    self.fail_running(index, record, lost.clone());
                }
            } else {
                died_of_a_job = true;
                self.fail_running(index, record, cause.clone());
            }
        }
        for record in back.into_iter().rev() {
            if self.records.at(record).stage == Stage::Queued {
                self.requeue(record);
                self.tell_moved(record);
            }
        }
        if let Some((record, why)) = verdict
            && record != NOBODY
        {
            died_of_a_job = why != JobErrorKind::Cancelled;
            self.fail_running(index, record, why);
        }
        died_of_a_job
    }

    /// What jobs answer that are lost because of this one.
    fn lost_with(&self, record: u32, why: &JobErrorKind) -> JobErrorKind {
        let job = match record {
            NOBODY => 0,
            record => self.records.look(record).job,
        };
        JobErrorKind::LostWith {
            job,
            culprit: Box::new(why.clone()),
        }
    }

    /// A job may have begun when its worker died of something else. Does it go back to the queue?
    fn may_run_again_after_loss(&mut self, record: u32) -> bool {
        let open = self.closing != Closing::Now;
        let quarantine_after = self.quarantine_after;
        let policy = self.records.at(record).policy.as_mut();
        open && policy.is_some_and(|policy| policy.may_run_again_after_loss(quarantine_after))
    }

    fn fail_running(&mut self, lane: usize, record: u32, why: JobErrorKind) {
        let why = if self.closing == Closing::Now {
            JobErrorKind::ShutDown
        } else {
            why
        };
        let rows = lent(&self.records.at(record).leases);
        let kernel = self.records.at(record).kernel;
        self.kernels.get(kernel).failures += 1;
        self.attempt_failed(record, why, Some(lane as u32), rows);
    }

    /// Nothing can run any more: every job gets its answer.
    pub(super) fn give_up(&mut self, why: &str) {
        self.broken.get_or_insert_with(|| why.to_owned());
        self.fail_queued(&JobErrorKind::NoWorkers(why.to_owned()));
    }

    /// No worker is left and none will come: whatever has no answer gets one.
    pub(super) fn end(&mut self) {
        self.broken
            .get_or_insert_with(|| "the engine has been shut down".into());
        self.fail_queued(&JobErrorKind::ShutDown);
        self.parking.engine.notify();
    }

    /// Whoever sleeps on this job's old place looks again.
    pub(super) fn tell_moved(&mut self, record: u32) {
        if self.records.at(record).parked {
            self.parking.of(record).notify();
        }
    }

    /// Answers all jobs that no worker has.
    pub(super) fn fail_queued(&mut self, why: &JobErrorKind) {
        // First: whoever gives up a place or a permit may let others into the queue.
        self.fail_lines(why);
        // One by one: the failure of one may cancel others of its group.
        while let Some(record) = self.queue.pop(&self.records) {
            self.fail(record, why.clone(), None, Vec::new());
        }
        self.fail_waiting(why);
        self.let_all_in();
        self.update_flags();
    }
}

/// How long a lane whose workers die of jobs waits before it starts another, after so many.
fn respawn_pause(deaths: u32) -> Option<Duration> {
    deaths.checked_sub(DEATHS_AT_ONCE).map(pause_after)
}

/// 10 ms, 20 ms, 40 ms and so on.
fn pause_after(failures: u32) -> Duration {
    (FIRST_PAUSE * 2u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE)
}
