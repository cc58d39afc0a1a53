//! Drains lanes: turns replies into answers.

use std::ops::Range;

use super::checked_reply::CheckedReply;
#[cfg(feature = "sandbox")]
use super::copy_out::copy_out;
use super::error::{JobErrorKind, WorkerExit};
use super::failed_reply::{MAX_FAILED_WORDS, failure};
use super::lane::NO_RECORD;
use super::lanes::Lanes;
use super::record::Outcome;
#[cfg(feature = "sandbox")]
use super::record::Stage;
use super::reply::{Unreadable, read_guarded};
use super::state::EngineState;
#[cfg(feature = "sandbox")]
use super::uncopied::Uncopied;
use super::worker::Status;
use crate::arena::Arena;
use crate::kernel::wire::{Lease, Leases};
use crate::link::{CANCEL, Drained, INLINE_WORDS, NO_GRANT, Reply, kind};

/// Maximum number of words that are copied under the lock.
const SHORT: u32 = (64 << 10) / 8;

impl EngineState {
    /// Drains all lanes that have work or retain arrays.
    pub(super) fn drain_busy(&mut self) {
        for group in 0..self.lanes.busy_words() {
            let mut left = self.lanes.drained_word(group);
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                self.drain(group * 64 + bit as usize);
            }
        }
    }

    /// Drains all lanes that have work, then places queued jobs while lanes have room for them.
    #[inline]
    pub(super) fn catch_up(&mut self) {
        self.drain_busy();
        self.refill();
    }

    /// Drains a lane: answers the jobs that it has ended, frees retained arrays that it has released, and checks
    /// reported ends.
    pub(super) fn drain(&mut self, index: usize) {
        let mut any = false;
        let released = self
            .config
            .retains
            .then(|| self.lanes[index].producer.released());
        loop {
            if self.lanes[index].is_condemned() {
                break;
            }
            match self.lanes[index].producer.drain(&mut self.reply) {
                Drained::Nothing => break,
                Drained::Skipped { position } => {
                    any = true;
                    // The worker skips a slot only if its job was taken back, so there must be no record.
                    let record = self.lanes[index].take(position);
                    if record != NO_RECORD {
                        self.lanes.left();
                        self.condemn_for(
                            index,
                            record,
                            "a job was skipped that was not taken back",
                        );
                    }
                }
                Drained::Ended {
                    position,
                    failed,
                    is_empty,
                    took_ns,
                } => {
                    any = true;
                    crate::sync::point!("drain.seen");
                    self.ended(index, position, failed, is_empty, took_ns);
                    crate::sync::point!("drain.answered");
                }
                Drained::Fault(what) => {
                    let position = self.lanes[index].producer.open_positions().start;
                    let record = self.lanes[index].record_at(position);
                    self.condemn_for(index, record, what);
                }
            }
        }
        if let Some(upto) = released
            && let Some(why) = self.lanes.take_releases(index, upto, &self.arena)
        {
            self.condemn_for(index, NO_RECORD, why);
        }
        // A request has found this job's state word to say that the job had ended. A worker ends jobs in order, so
        // either this drain has found the end, or the worker wrote a wrong state word.
        let lane = &mut self.lanes[index];
        if let Some(position) = lane.take_reported_end()
            && !lane.is_condemned()
            && lane.holds(position)
        {
            let record = lane.record_at(position);
            let what =
                "a job that had not come to its end, or not in its turn, was said to be over";
            self.condemn_for(index, record, what);
        }
        if self.lanes[index].is_idle() {
            self.lanes.set_idle(index);
            let worker = self.lanes.worker_of(index);
            if self.lanes[index].has_served() && self.lanes.have_served(worker) {
                self.retire(worker);
            }
        }
        if any {
            if self.config.recycles_by_size {
                self.monitor.watch_memory();
            }
            if self.lanes[index].has_timed() {
                self.lanes.watch(index, &self.records, &mut self.monitor);
            }
            crate::sync::point!("drain.reported");
            if !self.lanes[index].is_ready() {
                self.expect_end(self.lanes.worker_of(index));
            }
            if self.runs.has_pending_work() {
                self.process_ends();
            }
            self.call_if_drained();
        }
    }

    #[inline]
    fn ended(
        &mut self,
        lane_index: usize,
        position: u64,
        failed: bool,
        is_empty: bool,
        took_ns: u64,
    ) {
        let lane = &mut self.lanes[lane_index];
        let index = lane.take(position);
        if index == NO_RECORD {
            return self.condemn_for(lane_index, NO_RECORD, "an answer to no job");
        }
        self.lanes[lane_index].count_job();
        self.lanes.left();
        if self.records.at(index).is_traced() {
            self.trace.ran(&self.lanes, lane_index, position, index);
        }
        if is_empty {
            self.trace.value(index, &self.records, &mut self.kernels, 0);
            let generation = self.lanes[lane_index].generation();
            let record = self.records.at(index);
            // The empty reply is not a value of every kernel. Reading the reply finds out whether it is one of this
            // kernel.
            record.answered_by = (lane_index as u32, generation);
            let kernel = record.kernel;
            record.leases.clear();
            self.kernels.get(kernel).learn(took_ns, 0, false);
            self.answer(index, Outcome::Bare);
            return;
        }
        let reply = &self.reply;
        let len = reply.len as usize;
        let plain = reply.kind == kind::VALUE
            && reply.arrays == 0
            && reply.retained == 0
            && !reply.spilled
            && reply.grant == NO_GRANT
            && len <= INLINE_WORDS;
        if !plain || failed {
            return self.ended_with_reply(lane_index, index, failed, took_ns);
        }
        // The value fits into the slot and has no arrays: there is nothing to check and no block to take over.
        let generation = self.lanes[lane_index].generation();
        let record = self.records.at(index);
        record.answered_by = (lane_index as u32, generation);
        let kernel = record.kernel;
        record.payload[..len].copy_from_slice(&reply.words[..len]);
        record.leases.clear();
        self.kernels.get(kernel).learn(took_ns, 0, false);
        self.trace.value(index, &self.records, &mut self.kernels, 0);
        self.answer_inline(index, len as u32);
    }

    fn ended_with_reply(&mut self, lane_index: usize, index: u32, failed: bool, took_ns: u64) {
        let reply = self.reply;
        if reply.kind == kind::ESCAPED {
            self.lanes[lane_index].uncount_job();
            self.condemn(
                lane_index,
                index,
                JobErrorKind::Lost(WorkerExit::Escaped {
                    count: reply.words[0],
                }),
            );
            return;
        }
        if reply.kind == kind::SPAWN && !failed {
            self.ended_with_spawn(lane_index, index, took_ns);
            return self
                .lanes
                .request_notice_of_later_jobs(lane_index, index, &self.records);
        }
        let leases = std::mem::take(&mut self.records.at(index).leases);
        #[cfg_attr(not(feature = "sandbox"), allow(unused_mut, reason = "for copying"))]
        let (mut checked, why) = match self.check_reply(lane_index, index, &reply, failed, &leases)
        {
            Ok(checked) => checked,
            Err(what) => {
                self.records.at(index).leases = leases;
                self.lanes[lane_index].uncount_job();
                return self.condemn_for(lane_index, index, what);
            }
        };
        crate::sync::point!("drain.received");
        let kernel = self.records.at(index).kernel;
        let worker = self.lanes.worker_of(lane_index) as u32;
        let bytes = checked.bytes;
        #[cfg(feature = "sandbox")]
        // The reply of a failed job has no arrays to copy.
        if self.config.is_sandboxed && why.is_none() {
            let record = self.records.look(index);
            if record.is_copied_later(checked.bytes_to_copy()) {
                self.records.at(index).stage = Stage::Copying;
                self.monitor.call();
                self.uncopied.add(Uncopied {
                    record: index,
                    lane: lane_index,
                    generation: self.lanes[lane_index].generation(),
                    checked,
                    leases,
                    took_ns,
                });
                return self
                    .lanes
                    .request_notice_of_later_jobs(lane_index, index, &self.records);
            }
            if record.owner.is_read()
                && let Err(full) = copy_out(&self.arena, checked.blocks(), &leases)
            {
                return self.not_copied(index, worker, full, (took_ns, bytes));
            }
        }
        if let Some(why) = why {
            self.kernels.get(kernel).learn(took_ns, bytes, failed);
            let rows = lent(&leases);
            // The leases are retained for another attempt, if there is one.
            self.records.at(index).leases = leases;
            self.attempt_failed(index, why, Some(worker), rows);
            self.lanes
                .request_notice_of_later_jobs(lane_index, index, &self.records);
        } else {
            let sender = (lane_index, self.lanes[lane_index].generation());
            self.answer_checked(index, sender, checked, took_ns);
        }
        // Inputs are freed only now: the reply may contain some of them.
    }

    /// Takes over the memory of a reply. Also returns the error of the job if it has failed.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the reply.
    fn check_reply(
        &mut self,
        lane: usize,
        index: u32,
        reply: &Reply,
        failed: bool,
        leases: &[Lease],
    ) -> Result<(CheckedReply, Option<JobErrorKind>), String> {
        // The words of a long value stay in the arena until a handle takes them and reads them without the lock. Values
        // that the engine itself reads are read at once.
        let is_long = reply.spilled && reply.len > SHORT;
        if failed && reply.len as usize > MAX_FAILED_WORDS {
            return Err(format!("a failure of {} words", reply.len));
        }
        let has_handle = self.records.look(index).owner.has_handle();
        let stays = !failed && reply.kind == kind::VALUE && is_long && has_handle;
        let checked = self
            .lanes
            .unpack(lane, (&self.arena, &self.config), reply, leases, stays)?;
        let words = &checked.words[..];
        let mut why = failed.then(|| failure(reply.kind, words)).transpose()?;
        if let Some(JobErrorKind::Returned(returned)) = &why
            && returned.encoded().is_some()
        {
            let kernel = self.records.look(index).kernel;
            // The type of a kernel that only a worker has named is unknown to this check: `value` checks the bytes when
            // they are read.
            if let Some(check) = self.kernels.get(kernel).check_error {
                match read_guarded(|| check(returned)) {
                    Ok(()) => {}
                    Err(Unreadable::Malformed) => {
                        return Err("an error that its kernel cannot have returned".into());
                    }
                    Err(Unreadable::CheckPanicked(kind)) => why = Some(kind),
                }
            }
        }
        let asked = self.records.look(index).requests & CANCEL != 0;
        if why == Some(JobErrorKind::Cancelled) && !asked {
            return Err("a job answered that it was cancelled, and it was not".into());
        }
        if !failed && reply.kind != kind::VALUE {
            return Err(format!("a value of kind {}", reply.kind));
        }
        Ok((checked, why))
    }

    /// Answers a job with a value that is at its final address. `sender`: the lane, and the generation of its worker.
    pub(super) fn answer_checked(
        &mut self,
        index: u32,
        (lane, generation): (usize, u32),
        checked: CheckedReply,
        took_ns: u64,
    ) {
        let CheckedReply {
            arrays,
            words,
            in_arena,
            bytes,
        } = checked;
        let kernel = self.records.at(index).kernel;
        self.kernels.get(kernel).learn(took_ns, bytes, false);
        self.trace
            .value(index, &self.records, &mut self.kernels, bytes);
        let record = self.records.at(index);
        record.answered_by = (lane as u32, generation);
        record.arrays = arrays;
        let outcome = match (in_arena, words.len()) {
            (Some(block), _) => Outcome::InArena(block),
            (None, len @ 0..=INLINE_WORDS) => {
                record.payload[..len].copy_from_slice(&words);
                Outcome::Inline { len: len as u32 }
            }
            (None, _) => Outcome::Long(words.into_vec()),
        };
        self.answer(index, outcome);
    }

    /// Kills a worker that broke the protocol: see [`condemn`](Self::condemn). `what` describes what it wrote.
    pub(super) fn condemn_for(&mut self, lane: usize, record: u32, what: impl Into<String>) {
        let why = JobErrorKind::Lost(WorkerExit::Protocol(what.into()));
        self.condemn(lane, record, why);
    }

    /// Kills a worker because of the job of this record. The job is answered when the worker's exit is confirmed.
    pub(super) fn condemn(&mut self, lane: usize, record: u32, why: JobErrorKind) {
        let index = self.lanes.worker_of(lane);
        if matches!(self.workers[index].status(), Status::Absent { .. }) {
            // The worker is gone already, and the next process has done nothing wrong: a long value that is read late
            // may be found malformed only now.
            return;
        }
        let first = self.lanes[lane].condemn();
        if matches!(why, JobErrorKind::Lost(WorkerExit::Protocol(_))) {
            // A worker that broke the protocol on one link is not trusted on any.
            for other in self.lanes.of_worker(index) {
                self.lanes[other].condemn();
            }
        }
        if first || record != NO_RECORD {
            self.workers[index].add_kill_reason((record, why));
        }
        if matches!(self.workers[index].status(), Status::Ready | Status::Spare) {
            self.set_status(index, Status::Leaving);
        }
        crate::sync::point!("condemn.marked");
        self.workers[index].kill();
        crate::sync::point!("condemn.killed");
        self.monitor.call();
    }
}

impl Lanes {
    /// Frees the retained arrays whose release the worker has reported, up to report number `upto`, which was read
    /// before the lane was drained. Returns what is wrong with the reports, if anything.
    fn take_releases(&mut self, index: usize, upto: u32, arena: &Arena) -> Option<String> {
        let lane = &mut self[index];
        if lane.is_condemned() {
            return None;
        }
        let mut wrong = None;
        let (producer, retained) = lane.link_and_retained();
        let is_in_range =
            producer.take_releases(upto, |number| match retained.release(arena, number) {
                Ok(freed) => drop(freed),
                Err(why) => wrong = Some(why),
            });
        if !is_in_range {
            wrong = Some(format!("{upto} releases, more than there is room for"));
        }
        self.note_retaining(index);
        crate::sync::point!("release.freed");
        wrong
    }
}

/// Returns the ranges of memory that a job could write in place.
pub(super) fn lent(leases: &Leases) -> Vec<Range<usize>> {
    leases
        .iter()
        .filter_map(|lease| match lease {
            Lease::Lent(rows) => Some(rows.clone()),
            Lease::Shared(_) | Lease::Owned(_) | Lease::Loan { .. } | Lease::File(_) => None,
        })
        .collect()
}
